"""The exports of known makes: by which columns one is recognised, and what its columns are to us. One entry each; a new
one needs no code.

How a value is written says `parts.Part`. What decides where a make is silent stands beside its entry.
"""

from __future__ import annotations

from dataclasses import dataclass

from recgraph.store.files.names import plain_name
from recgraph.store.ingest.parts import Part


@dataclass(frozen=True)
class Export:
    """`needs` are the columns that tell it, each maybe with alternatives; no parts: it is known, and holds nothing
    for us."""

    name: str
    needs: tuple[str, ...]
    parts: tuple[Part, ...] = ()
    extras: bool = False  # columns that no part uses become attributes of the items
    width: int = 0  # for files without header: the number of columns, which are named 1, 2, ...; 0: there is a header
    files: str = ""  # a pattern of the file's name, for those

    def fits(self, names: frozenset[str]) -> bool:
        """`names` as `plain_name` writes them."""
        return all(any(plain_name(choice) in names for choice in need.split("|")) for need in self.needs)


def _filled(column: str, key: str) -> str:
    """A column that stands only in the first row of each order or product, for all of its rows."""
    return f"max(blank({{{column}}})) OVER (PARTITION BY blank({{{key}}}))"


def _option(*words: str) -> str:
    """The variant's value of the option (of up to three) that has one of these names."""
    named = ", ".join(f"'{word}'" for word in words)
    cases = " ".join(
        f"WHEN lower({_filled(f'option{n} name', 'handle|url handle')}) IN ({named}) THEN {{option{n} value}}"
        for n in (1, 2, 3)
    )
    return f"CASE {cases} END"


def _text_of_html(column: str) -> str:
    return f"regexp_replace({column}, '<[^>]*>', ' ', 'g')"


_GA4 = {
    **dict.fromkeys(("view_item", "select_item", "select_content"), "click"),
    **{"add_to_cart": "cart", "purchase": "purchase", "in_app_purchase": "purchase", "ecommerce_purchase": "purchase"},
    **dict.fromkeys(("search", "view_search_results"), "search"),
    "refund": "return",
}
_TRACKED = {  # the e-commerce events of Segment, which RudderStack shares
    **dict.fromkeys(("product viewed", "product clicked", "viewed product", "clicked product"), "click"),
    **dict.fromkeys(("product added", "added product", "product added to cart"), "cart"),
    **dict.fromkeys(("order completed", "completed order", "product purchased", "order placed"), "purchase"),
    **dict.fromkeys(("products searched", "product searched", "searched products"), "search"),
    **dict.fromkeys(("order refunded", "product returned"), "return"),
}
_UBI = {
    **dict.fromkeys(
        ("click", "item_click", "product_click", "result_click", "view", "view_item", "product_view", "watch"), "click"
    ),
    **dict.fromkeys(("add_to_cart", "cart", "addtocart"), "cart"),
    **dict.fromkeys(("purchase", "buy", "order", "checkout_item"), "purchase"),
}
_PARAMS = "from_json(CASE WHEN json_valid({event_params}) THEN {event_params} ELSE '[]' END, '[\"JSON\"]')"
_PARAM = f"list_filter({_PARAMS}, lambda p: p->>'key' = '%s')[1]"
_SHOPIFY_SKU = "nullif(ltrim(blank({variant sku|sku}), ''''), '')"
_ONE_OPTION = "coalesce(nullif(nullif(blank({option1 value}), 'Default Title'), ''), '')"
_ITEM_OF_LINE = "coalesce(nullif(blank({line_items.sku}), ''), nullif(blank({line_items.variant_id}), '0'), blank({line_items.product_id}))"
_TRACKED_ITEM = (
    "coalesce({properties.products.product_id}, {properties.products.sku}, {properties.product_id}, {properties.sku})"
)

EXPORTS = (
    Export(
        "Shopify products",
        ("handle|url handle", "title", "vendor", "variant price|price", "option1 value"),
        (
            Part(  # a row a variant; rows with nothing but a further image are no products
                "items",
                {
                    "item_id": f"coalesce({_SHOPIFY_SKU}, blank({{handle|url handle}}) || "
                    f"CASE WHEN {_ONE_OPTION} <> '' THEN '/' || {_ONE_OPTION} ELSE '' END)",
                    "title": _filled("title", "handle|url handle"),
                    "description": _text_of_html(_filled("body (html)|description", "handle|url handle")),
                    "brand": _filled("vendor", "handle|url handle"),
                    "category": f"coalesce(nullif({_filled('type', 'handle|url handle')}, ''), {_filled('product category', 'handle|url handle')})",
                    "color": _option("color", "colour", "farbe", "couleur"),
                    "size": _option("size", "größe", "groesse", "taille", "talla"),
                    "price": "variant price|price",
                    "parent_id": "handle|url handle",
                    "in_stock": "CASE WHEN lower("
                    + _filled("status", "handle|url handle")
                    + ") IN ('draft', 'archived') "
                    "OR lower("
                    + _filled("published|published on online store", "handle|url handle")
                    + ") = 'false' THEN 'false' "
                    "WHEN lower(blank({variant inventory policy|continue selling when out of stock})) = 'continue' THEN 'true' "
                    "ELSE {variant inventory qty|inventory quantity} END",
                    "attributes": "json_object('tags', nullif("
                    + _filled("tags", "handle|url handle")
                    + ", ''))::VARCHAR",
                },
                where="blank({variant price|price}) <> '' OR blank({title}) <> ''",
            ),
        ),
    ),
    Export(
        "Shopify orders",
        ("lineitem name", "lineitem quantity", "created at", "email|customer id"),
        (
            Part(  # an order says who, when and whether it was cancelled in its first row only
                "events",
                {
                    "user_id": f"coalesce(nullif({_filled('customer id', 'name')}, ''), nullif({_filled('email', 'name')}, ''))",
                    "ts": _filled("created at", "name"),
                    "action": "=purchase",
                    "item_id": "coalesce(nullif(ltrim(blank({lineitem sku}), ''''), ''), {lineitem name})",
                    "quantity": "lineitem quantity",
                },
                where=f"{_filled('cancelled at', 'name')} = '' AND lower({_filled('financial status', 'name')}) NOT IN ('refunded', 'voided')",
            ),
            Part(
                "items",
                {
                    "item_id": "coalesce(nullif(ltrim(blank({lineitem sku}), ''''), ''), {lineitem name})",
                    "title": "lineitem name",
                    "price": "lineitem price",
                    "brand": "vendor",
                },
                grouped=True,
            ),
        ),
    ),
    Export(
        "Shopify products (JSON)",
        ("variants.price", "variants.id", "title", "vendor|product_type"),
        (
            Part(
                "items",
                {
                    "item_id": "coalesce(nullif(blank({variants.sku}), ''), {variants.id})",
                    "title": "title",
                    "description": _text_of_html("{body_html}"),
                    "brand": "vendor",
                    "category": "product_type",
                    "price": "variants.price",
                    "parent_id": "handle|id",
                    "in_stock": "CASE WHEN {status} IN ('draft', 'archived') THEN 'false' WHEN {variants.inventory_policy} = 'continue' THEN 'true' "
                    "ELSE coalesce({variants.available}, {variants.inventory_quantity}) END",
                    "attributes": "json_object('tags', {tags}, 'variant', nullif({variants.title}, 'Default Title'))::VARCHAR",
                },
            ),
        ),
    ),
    Export(
        "orders with line items (JSON of Shopify or WooCommerce)",
        ("line_items.quantity", "line_items.product_id", "created_at|date_created|processed_at"),
        (
            Part(
                "events",
                {
                    "user_id": "coalesce(nullif(nullif(blank({customer.id|customer_id}), '0'), ''), {email|contact_email|billing.email})",
                    "ts": "created_at|date_created_gmt|date_created|processed_at",
                    "action": "=purchase",
                    "item_id": _ITEM_OF_LINE,
                    "quantity": "line_items.quantity",
                },
                where="blank({cancelled_at}) = '' AND lower(blank({financial_status|status})) "
                "NOT IN ('refunded', 'voided', 'cancelled', 'failed', 'trash')",
            ),
            Part(
                "items",
                {
                    "item_id": _ITEM_OF_LINE,
                    "title": "line_items.title|line_items.name",
                    "price": "line_items.price",
                    "brand": "line_items.vendor",
                },
                grouped=True,
            ),
        ),
    ),
    Export(
        "WooCommerce products",
        ("id", "sku", "name", "published", "regular price", "categories"),
        (
            Part(
                "items",
                {
                    "item_id": "coalesce(nullif(blank({sku}), ''), {id})",
                    "title": "name",
                    "description": _text_of_html("coalesce(nullif(blank({description}), ''), {short description})"),
                    "category": "split_part(split_part({categories}, ',', 1), ' > ', -1)",  # the leaf of the first path
                    "brand": "brands|brand",
                    "price": "coalesce(nullif(blank({sale price}), ''), {regular price})",
                    "parent_id": "regexp_replace(blank({parent}), '^id:', '')",
                    "in_stock": "CASE WHEN blank({published}) IN ('0', '-1') THEN 'false' ELSE {in stock?} END",
                    "attributes": "json_object('tags', nullif(blank({tags}), ''), "
                    "coalesce(nullif(blank({attribute 1 name}), ''), 'attribute 1'), "
                    "nullif(blank({attribute 1 value(s)|attribute 1 values}), ''))::VARCHAR",
                },
            ),
        ),
    ),
    Export(
        "Google Merchant feed",
        ("id", "title", "link|link.href", "price|availability", "image_link|availability|condition|gtin"),
        (
            Part(
                "items",
                {
                    "item_id": "id",
                    "title": "title",
                    "description": _text_of_html("{description|summary|content}"),
                    "brand": "brand",
                    "category": "coalesce(nullif(blank({product_type}), ''), {google_product_category})",
                    "color": "color",
                    "size": "size",
                    "price": "coalesce(nullif(blank({sale_price}), ''), {price})",
                    "parent_id": "item_group_id",
                    "in_stock": "availability",
                    "attributes": "json_object('url', {link.href|link}, 'image_url', {image_link}, "
                    "'material', nullif(blank({material}), ''), 'pattern', nullif(blank({pattern}), ''), "
                    "'gender', nullif(blank({gender}), ''), 'age_group', nullif(blank({age_group}), ''))::VARCHAR",
                },
            ),
        ),
    ),
    Export(
        "Google Analytics 4 events",
        ("event_name", "event_timestamp|event_date", "user_pseudo_id|user_id"),
        (
            Part(
                "events",
                {
                    "user_id": "coalesce(nullif(blank({user_id}), ''), {user_pseudo_id})",
                    "ts": "event_timestamp|event_date",
                    "action": "event_name",
                    "item_id": "coalesce(nullif(blank({items.item_id|item_id}), ''), {items.item_name|item_name})",
                    "query": f"coalesce({_PARAM % 'search_term'}->>'$.value.string_value', {{search_term}})",
                    "session_id": f"coalesce({_PARAM % 'ga_session_id'}->>'$.value.int_value', {{ga_session_id}})",
                    "quantity": "items.quantity|quantity",
                },
                actions=_GA4,
            ),
            Part(
                "items",
                {
                    "item_id": "coalesce(nullif(blank({items.item_id|item_id}), ''), {items.item_name|item_name})",
                    "title": "items.item_name|item_name",
                    "brand": "items.item_brand|item_brand",
                    "category": "items.item_category|item_category",
                    "price": "items.price|price",
                },
                grouped=True,
            ),
        ),
    ),
    Export(
        "Segment or RudderStack track calls",
        (
            "event",
            "anonymousId|userId",
            "properties.product_id|properties.products.product_id|properties.sku|properties.query|properties.products.sku",
        ),
        (
            Part(
                "events",
                {
                    "user_id": "coalesce(nullif(blank({userId}), ''), {anonymousId})",
                    "ts": "timestamp|originalTimestamp|receivedAt|sentAt",
                    "action": "event",
                    "item_id": _TRACKED_ITEM,
                    "query": "properties.query|properties.search_term",
                    "position": "properties.position",
                    "session_id": "context.sessionId|properties.session_id",
                    "quantity": "coalesce({properties.products.quantity}, {properties.quantity})",
                },
                actions=_TRACKED,
            ),
            Part(
                "items",
                {
                    "item_id": _TRACKED_ITEM,
                    "title": "coalesce({properties.products.name}, {properties.name})",
                    "brand": "coalesce({properties.products.brand}, {properties.brand})",
                    "category": "coalesce({properties.products.category}, {properties.category})",
                    "price": "coalesce({properties.products.price}, {properties.price})",
                },
                grouped=True,
            ),
        ),
    ),
    Export(
        "OpenSearch UBI queries",
        ("user_query", "query_id", "query_response_hit_ids|query_response_object_ids"),
        (
            Part(
                "exposures",
                {
                    "query": "user_query",
                    "ts": "timestamp",
                    "item_id": "query_response_hit_ids|query_response_object_ids",
                    "position": "{ordinal}::VARCHAR",
                },
                where="blank({query_response_hit_ids|query_response_object_ids}) <> ''",
            ),
            Part(
                "events",
                {"user_id": "client_id", "ts": "timestamp", "action": "=search", "query": "user_query"},
            ),
        ),
    ),
    Export(
        "OpenSearch UBI events",
        ("action_name", "client_id", "timestamp", "event_attributes.object.object_id|query_id"),
        (
            Part(
                "events",
                {
                    "user_id": "client_id",
                    "ts": "timestamp",
                    "action": "action_name",
                    "item_id": "event_attributes.object.object_id",
                    "query": "user_query",
                    "position": "nullif({event_attributes.position.ordinal}, '0')",
                    "session_id": "event_attributes.session_id|session_id",
                },
                actions=_UBI,
            ),
        ),
    ),
    Export(
        "Amazon Personalize interactions",
        ("USER_ID", "ITEM_ID", "TIMESTAMP"),
        (
            Part(  # without an event type the set holds one kind of interaction
                "events",
                {
                    "user_id": "user_id",
                    "item_id": "item_id",
                    "ts": "timestamp",
                    "action": "coalesce({event_type}, 'click')",
                    "session_id": "session_id",
                },
            ),
        ),
    ),
    Export(
        "Amazon Personalize items",
        ("ITEM_ID", "CREATION_TIMESTAMP|CATEGORY_L1|PRODUCT_DESCRIPTION"),
        (
            Part(
                "items",
                {
                    "item_id": "item_id",
                    "title": "title|item_name|product_name|name",
                    "category": "coalesce({category_l2}, {category_l1}, {genres}, {category})",
                    "brand": "brand",
                    "price": "price",
                    "description": "product_description|description",
                    "first_seen": "creation_timestamp",
                },
            ),
        ),
        extras=True,
    ),
    Export(
        "RetailRocket events",
        ("timestamp", "visitorid", "event", "itemid"),
        (
            Part(
                "events",
                {"user_id": "visitorid", "ts": "timestamp", "action": "event", "item_id": "itemid"},
                actions={"view": "click", "addtocart": "cart", "transaction": "purchase"},
            ),
        ),
    ),
    Export(
        "RetailRocket item properties",  # all but the category and the stock are hashed
        ("timestamp", "itemid", "property", "value"),
        (
            Part(
                "items",
                {
                    "item_id": "itemid",
                    "category": "CASE WHEN {property} = 'categoryid' THEN {value} END",
                    "in_stock": "CASE WHEN {property} = 'available' THEN {value} END",
                },
                where="{property} IN ('categoryid', 'available')",
                grouped=True,
            ),
        ),
    ),
    Export("RetailRocket category tree", ("categoryid", "parentid")),
    Export(
        "REES46 events",  # no titles: "samsung smartphone" is composed of brand and category, and the attribute `title` says so
        ("event_time", "event_type", "product_id", "category_code", "user_id"),
        (
            Part(
                "events",
                {
                    "user_id": "user_id",
                    "ts": "event_time",
                    "action": "event_type",
                    "item_id": "product_id",
                    "session_id": "user_session",
                },
                actions={
                    "view": "click",
                    "cart": "cart",
                    "add_to_cart": "cart",
                    "purchase": "purchase",
                    "transaction": "purchase",
                },
            ),
            Part(
                "items",
                {
                    "item_id": "product_id",
                    "title": "trim(coalesce({brand}, '') || ' ' || replace(split_part(coalesce({category_code}, ''), '.', -1), '_', ' '))",
                    "category": "category_code",
                    "brand": "brand",
                    "price": "price",
                    "attributes": '={"title": "composed from attributes"}',
                },
                grouped=True,
            ),
        ),
    ),
    Export(
        "H&M articles",
        ("article_id", "prod_name", "product_type_name"),
        (
            Part(
                "items",
                {
                    "item_id": "article_id",
                    "title": "prod_name",
                    "category": "product_type_name",
                    "color": "colour_group_name",
                    "description": "detail_desc",
                    "parent_id": "product_code",
                    "attributes": "json_object('group', {product_group_name}, 'pattern', {graphical_appearance_name}, 'section', {section_name}, "
                    "'department', {department_name}, 'garment_group', {garment_group_name}, 'index', {index_name})::VARCHAR",
                },
            ),
        ),
    ),
    Export(
        "H&M transactions",  # prices are scaled by the publisher, so they say nothing of a product
        ("t_dat", "customer_id", "article_id"),
        (Part("events", {"user_id": "customer_id", "ts": "t_dat", "action": "=purchase", "item_id": "article_id"}),),
    ),
    Export(
        "OTTO sessions",
        ("session", "events.aid", "events.type"),
        (
            Part(
                "events",
                {"user_id": "session", "ts": "events.ts", "action": "events.type", "item_id": "events.aid"},
                actions={"clicks": "click", "carts": "cart", "orders": "purchase"},
            ),
        ),
    ),
    Export("H&M customers", ("customer_id", "club_member_status")),
    Export(
        "Online Retail (UCI)",
        ("InvoiceNo|Invoice", "StockCode", "Description", "Quantity", "InvoiceDate"),
        (
            Part(
                "events",
                {
                    "user_id": "customer id|customerid",
                    "ts": "invoicedate",
                    "action": "=purchase",
                    "item_id": "stockcode",
                    "quantity": "quantity",
                },
            ),
            Part("items", {"item_id": "stockcode", "title": "description", "price": "unitprice|price"}, grouped=True),
        ),
    ),
    Export(
        "MovieLens ratings",  # a film is rated because it was seen: a click, as in RecBole's copy
        ("userId", "movieId", "rating", "timestamp"),
        (Part("events", {"user_id": "userid", "ts": "timestamp", "action": "=click", "item_id": "movieid"}),),
    ),
    Export(
        "MovieLens movies",
        ("movieId", "title", "genres"),
        (Part("items", {"item_id": "movieid", "title": "title", "category": "replace({genres}, '|', ', ')"}),),
    ),
    Export("MovieLens tags", ("userId", "movieId", "tag")),
    Export("MovieLens links", ("movieId", "imdbId")),
    Export(
        "MovieLens ratings",
        ("1", "2", "3", "4"),
        (Part("events", {"user_id": "1", "item_id": "2", "ts": "4", "action": "=click"}),),
        width=4,
        files=r"ratings\.dat|u\.data|u[1-5ab]\.(base|test)",
    ),
    Export(
        "MovieLens movies",
        ("1", "2", "3"),
        (Part("items", {"item_id": "1", "title": "2", "category": "replace({3}, '|', ', ')"}),),
        width=3,
        files=r"movies\.dat",
    ),
    Export(
        "MovieLens movies (100k)",
        ("1", "2", "24"),
        (Part("items", {"item_id": "1", "title": "2"}),),
        width=24,
        files=r"u\.item",
    ),
    Export(
        "YooChoose clicks",
        ("1", "2", "3"),
        (Part("events", {"user_id": "1", "ts": "2", "item_id": "3", "action": "=click"}),),
        width=4,
        files=r"yoochoose-(clicks|test).*",
    ),
    Export(
        "YooChoose buys",
        ("1", "2", "3", "5"),
        (Part("events", {"user_id": "1", "ts": "2", "item_id": "3", "quantity": "5", "action": "=purchase"}),),
        width=5,
        files=r"yoochoose-buys.*",
    ),
    Export(
        "Taobao user behavior",
        ("1", "2", "3", "4", "5"),
        (
            Part("events", {"user_id": "1", "item_id": "2", "action": "4", "ts": "5"}),
            Part("items", {"item_id": "2", "category": "3"}, grouped=True),
        ),
        width=5,
        files=r"UserBehavior.*",
    ),
    Export("MovieLens users", (), width=5, files=r"users\.dat|u\.user"),
)
