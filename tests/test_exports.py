"""The exports of known makes: each is recognised by a few lines true to it, and its rows become what they mean."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from recgraph.store.db import Store
from recgraph.store.ingest.load import IngestReport, ingest
from recgraph.store.records import Item


def _read(folder: Path, **files: str) -> tuple[IngestReport, Store]:
    """Files by name (two underscores are a dot) into a store, without a word about their format."""
    (folder / "in").mkdir()
    for name, text in files.items():
        (folder / "in" / name.replace("__", ".")).write_text(
            "\n".join(line.strip(" ") for line in text.strip().splitlines()) + "\n", encoding="utf-8"
        )
    report = ingest(folder / "s.duckdb", "auto", [folder / "in"])
    return report, Store.open(folder / "s.duckdb")


def _events(store: Store, user: str) -> list[tuple[str, str, datetime]]:
    return [(event.action, event.item_id or event.query, event.ts) for event in store.history(user)]


def _names(report: IngestReport) -> list[str]:
    return [reading.name for reading in report.readings]


def test_shopify_products_are_variants_that_share_their_products_words(tmp_path: Path) -> None:
    report, store = _read(
        tmp_path,
        products_export__csv="""Handle,Title,Body (HTML),Vendor,Product Category,Type,Tags,Published,\
Option1 Name,Option1 Value,Option2 Name,Option2 Value,Variant SKU,Variant Inventory Qty,\
Variant Inventory Policy,Variant Price,Image Src,Status
        linen-shirt,Linen shirt,"<p>Light &amp; cool.</p>",Zed,Apparel > Shirts,Shirts,"summer, linen",TRUE,\
Size,M,Color,Red,LS-M-R,3,deny,49.90,https://x/1.jpg,active
        linen-shirt,,,,,,,,,L,,Blue,LS-L-B,0,deny,52.00,,
        linen-shirt,,,,,,,,,,,,,,,,https://x/2.jpg,
        mug,Mug,,Zed,,Kitchen,,TRUE,Title,Default Title,,,,5,deny,9,,draft""",
    )
    assert (_names(report), report.items_new, report.rejects) == (["Shopify products"], 3, 0)
    with store:
        items = store.items(["LS-M-R", "LS-L-B", "mug"])
        assert items["LS-M-R"] == Item(
            *("LS-M-R", "Linen shirt", "Shirts", "Zed", "Red", "M"),
            price=49.9,
            description="Light & cool.",
            attributes={"tags": "summer, linen"},
            parent_id="linen-shirt",
        )
        assert (items["LS-L-B"].title, items["LS-L-B"].color, items["LS-L-B"].size, items["LS-L-B"].price) == (
            "Linen shirt",
            "Blue",
            "L",
            52.0,
        )


def test_shopify_orders_fill_events_and_items_and_keep_the_customer_out_of_the_products(tmp_path: Path) -> None:
    report, store = _read(
        tmp_path,
        orders_export__csv="""Name,Email,Financial Status,Paid at,Currency,Total,Created at,\
Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku,Billing Name,Phone,Vendor,Cancelled at
        #1001,ann@example.com,paid,2025-10-07 09:50:26,EUR,53.91,2025-10-07 09:50:26,1,Linen shirt - M,\
49.90,LS-M,Ann A,+331,Zed,
        #1001,ann@example.com,,,,,,2,Mug,9.00,,,,Zed,
        #1002,bob@example.com,refunded,2025-10-08 10:00:00,EUR,9,2025-10-08 10:00:00,1,Mug,9.00,,Bob B,,Zed,\
2025-10-09 00:00:00""",
    )
    assert (_names(report), report.events_new, report.rejects) == (["Shopify orders"], 2, 0)
    with store:
        when = datetime(2025, 10, 7, 9, 50, 26)
        assert _events(store, "ann@example.com") == [("purchase", "LS-M", when), ("purchase", "Mug", when)]
        item = store.items(["LS-M"])["LS-M"]
        assert (item.title, item.brand, item.price, item.attributes) == ("Linen shirt - M", "Zed", 49.9, {})


@pytest.mark.slow
def test_shopify_json_unfolds_variants_and_line_items(tmp_path: Path) -> None:
    product = {
        "id": 1,
        "title": "Tee",
        "body_html": "<b>Soft</b>",
        "vendor": "Zed",
        "product_type": "Shirts",
        "handle": "tee",
        "tags": "new",
    }
    product["variants"] = [
        {"id": 11, "sku": "T-S", "price": "10.00", "title": "S"},
        {"id": 12, "sku": "", "price": "11.00", "title": "M"},
    ]
    lines = [
        {"id": 5, "product_id": 1, "variant_id": 11, "sku": "T-S", "title": "Tee", "quantity": 1, "price": "10.00"}
    ]
    order = {
        "id": 9,
        "email": "ann@example.com",
        "created_at": "2025-05-01T10:00:00Z",
        "customer": {"id": 77},
        "cancelled_at": None,
    }
    report, store = _read(
        tmp_path,
        products__json=json.dumps({"products": [product]}, indent=1),
        orders__json=json.dumps({"orders": [order | {"line_items": lines}]}),
    )
    assert sorted(_names(report)) == [
        "Shopify products (JSON)",
        "orders with line items (JSON of Shopify or WooCommerce)",
    ]
    with store:
        assert _events(store, "77") == [("purchase", "T-S", datetime(2025, 5, 1, 10))]
        items = store.items(["T-S", "12"])
        assert (items["12"].title, items["12"].price, items["12"].description, items["12"].parent_id) == (
            "Tee",
            11.0,
            "Soft",
            "tee",
        )


def test_woocommerce_products_are_known_by_their_sku(tmp_path: Path) -> None:
    report, store = _read(
        tmp_path,
        wc_product_export__csv="""ID,Type,SKU,Name,Published,Is featured?,Visibility in catalog,\
Short description,Description,In stock?,Stock,Sale price,Regular price,Categories,Tags,Parent,\
Attribute 1 name,Attribute 1 value(s)
        10,simple,HAT-1,Wool hat,1,0,visible,Warm.,,1,,,20,"Clothing > Hats, Sale",winter,,Color,"Red, Blue"
        11,variation,,Wool hat - red,1,0,visible,,<p>Red.</p>,0,0,15,20,,,id:10,,""",
    )
    assert (_names(report), report.items_new) == (["WooCommerce products"], 2)
    with store:
        items = store.items(["HAT-1", "11"])
        assert (items["HAT-1"].title, items["HAT-1"].category, items["HAT-1"].price, items["HAT-1"].description) == (
            "Wool hat",
            "Hats",
            20.0,
            "Warm.",
        )
        assert items["HAT-1"].attributes == {"tags": "winter", "Color": "Red, Blue"}
        assert (items["11"].parent_id, items["11"].price, items["11"].in_stock, items["11"].description) == (
            "10",
            15.0,
            False,
            "Red.",
        )


FEED_TSV = """id\ttitle\tdescription\tlink\timage_link\tavailability\tprice\tbrand\tgoogle_product_category\titem_group_id\tcolor
G1\tRunning shoe\tFast.\thttps://x/1\thttps://x/1.jpg\tin_stock\t89.90 EUR\tZed\tShoes\tG\tBlue"""
FEED_XML = """<?xml version="1.0"?>
<rss xmlns:g="http://base.google.com/ns/1.0" version="2.0"><channel><title>Shop</title><link>https://x</link>
<item><g:id>G1</g:id><g:title>Running shoe</g:title><g:description><![CDATA[<b>Fast.</b>]]></g:description><g:link>https://x/1</g:link>
<g:image_link>https://x/1.jpg</g:image_link><g:availability>in_stock</g:availability><g:price>89.90 EUR</g:price><g:brand>Zed</g:brand>
<g:google_product_category>Shoes</g:google_product_category><g:item_group_id>G</g:item_group_id><g:color>Blue</g:color>
<g:shipping><g:country>DE</g:country><g:price>5 EUR</g:price></g:shipping></item></channel></rss>"""
FEED_ATOM = """<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0"><title>Shop</title>
<entry><g:id>G1</g:id><title>Running shoe</title><summary>Fast.</summary><link href="https://x/1"/><g:image_link>https://x/1.jpg</g:image_link>
<g:availability>in_stock</g:availability><g:price>89.90 EUR</g:price><g:brand>Zed</g:brand>
<g:google_product_category>Shoes</g:google_product_category>
<g:item_group_id>G</g:item_group_id><g:color>Blue</g:color></entry></feed>"""


@pytest.mark.parametrize(
    "files", [{"feed__txt": FEED_TSV}, {"feed__xml": FEED_XML}, {"feed__atom": FEED_ATOM}], ids=["tsv", "rss", "atom"]
)
def test_a_google_merchant_feed_is_read_from_text_and_xml(tmp_path: Path, files: dict[str, str]) -> None:
    report, store = _read(tmp_path, **files)
    assert (_names(report), report.items_new) == (["Google Merchant feed"], 1)
    with store:
        item = store.items(["G1"])["G1"]
        assert (item.title, item.description, item.brand, item.category, item.color, item.price, item.parent_id) == (
            *("Running shoe", "Fast.", "Zed", "Shoes", "Blue", 89.9, "G"),
        )
        assert item.attributes == {"url": "https://x/1", "image_url": "https://x/1.jpg"}


def test_ga4_events_unfold_their_items_and_leave_page_views_out(tmp_path: Path) -> None:
    base = {"event_date": "20250514", "event_timestamp": 1747216800000000, "user_pseudo_id": "1.2", "user_id": None}
    thing = {
        "item_id": "SKU1",
        "item_name": "Tee",
        "item_brand": "Zed",
        "item_category": "Shirts",
        "price": 10.5,
        "quantity": 1,
    }
    params = [
        {"key": "ga_session_id", "value": {"int_value": "7"}},
        {"key": "search_term", "value": {"string_value": "red tee"}},
    ]
    rows = [
        {**base, "event_name": "page_view", "event_params": params, "items": []},
        {**base, "event_name": "view_search_results", "event_params": params, "items": []},
        {**base, "event_name": "view_item", "event_params": [], "items": [thing]},
        {
            **base,
            "event_name": "purchase",
            "event_params": [],
            "items": [thing, {**thing, "item_id": "SKU2", "item_name": "Cap"}],
        },
    ]
    report, store = _read(tmp_path, events__json="\n".join(json.dumps(row) for row in rows))
    assert (_names(report), report.events_new, report.rejects) == (["Google Analytics 4 events"], 4, 0)
    assert any("page_view (1)" in note for note in report.readings[0].notes)
    with store:
        assert [(action, what) for action, what, _ in _events(store, "1.2")] == [
            *(("search", "red tee"), ("click", "SKU1"), ("purchase", "SKU1"), ("purchase", "SKU2")),
        ]
        assert store.history("1.2")[0].ts == datetime(2025, 5, 14, 10)
        assert (store.items(["SKU2"])["SKU2"].title, store.items(["SKU2"])["SKU2"].brand) == ("Cap", "Zed")


def test_items_in_a_cell_of_a_flat_ga4_file_are_unfolded(tmp_path: Path) -> None:
    items = json.dumps([{"item_id": "A", "item_name": "Tee", "price": 9.5}, {"item_id": "B", "item_name": "Cap"}])
    cell = '"' + items.replace('"', '""') + '"'
    literal = '"' + str(json.loads(items)) + '"'  # as pandas writes it
    rows = f"""event_timestamp,event_name,user_pseudo_id,items
        1778752800000000,view_item,u1,{cell}
        1778752900000000,page_view,u1,[]
        1778753000000000,purchase,u1,{literal}
        never,purchase,u1,{cell}"""
    report, store = _read(tmp_path, ga4__csv=rows)
    assert _names(report) == ["Google Analytics 4 events"]
    assert [what for _, what, _ in _events(store, "u1")] == ["A", "B", "A", "B"]
    assert store.items(["A"])["A"].price == 9.5
    assert {reject.line for reject in store.rejects()} == {5}


@pytest.mark.slow
def test_a_refund_of_ga4_and_segment_takes_the_purchase_back(tmp_path: Path) -> None:
    def call(event: str, day: int, *items: str) -> str:
        properties = {"products": [{"product_id": item} for item in items]}
        time = f"2026-05-{day}T10:00:00Z"
        return json.dumps(
            {"event": event, "userId": "s", "anonymousId": None, "timestamp": time, "properties": properties}
        )

    def hit(name: str, day: int, *items: str) -> str:
        ts = 1778752800000000 + day * 86_400_000_000
        found = [{"item_id": item} for item in items]
        return json.dumps({"event_timestamp": ts, "event_name": name, "user_pseudo_id": "g", "items": found})

    calls = [call("Order Completed", 14, "A", "B"), call("Order Refunded", 15, "B")]
    hits = [hit("purchase", 0, "A", "B"), hit("refund", 1, "A")]
    _, store = _read(tmp_path, track__jsonl="\n".join(calls), ga4__jsonl="\n".join(hits))
    assert [name for _, name, _ in _events(store, "s")] == ["A"]
    assert [name for _, name, _ in _events(store, "g")] == ["B"]


def test_segment_calls_are_read_with_one_product_or_several(tmp_path: Path) -> None:
    base = {
        "type": "track",
        "anonymousId": "a-1",
        "userId": "u1",
        "timestamp": "2025-01-01T10:00:00.000Z",
        "context": {"ip": "1.2.3.4"},
    }
    rows = [
        {
            **base,
            "event": "Product Viewed",
            "properties": {"product_id": "p1", "sku": "s1", "name": "Tee", "price": 10, "category": "Shirts"},
        },
        {**base, "event": "Products Searched", "properties": {"query": "cap"}},
        {
            **base,
            "event": "Order Completed",
            "properties": {"products": [{"product_id": "p1", "name": "Tee"}, {"product_id": "p2", "name": "Cap"}]},
        },
        {**base, "event": "Signed Up", "properties": {"plan": "pro"}},
    ]
    report, store = _read(tmp_path, tracks__jsonl="\n".join(json.dumps(row) for row in rows))
    assert (_names(report), report.events_new, report.rejects) == (["Segment or RudderStack track calls"], 4, 0)
    with store:
        assert [(action, what) for action, what, _ in _events(store, "u1")] == [
            *(("click", "p1"), ("search", "cap"), ("purchase", "p1"), ("purchase", "p2")),
        ]
        assert store.items(["p2"])["p2"].title == "Cap"


@pytest.mark.slow
def test_opensearch_ubi_queries_are_searches_and_exposures(tmp_path: Path) -> None:
    query = {
        "application": "shop",
        "query_id": "q1",
        "client_id": "c1",
        "user_query": "laptop",
        "timestamp": "2025-01-01T10:00:00Z",
    }
    event = {
        "application": "shop",
        "action_name": "click",
        "query_id": "q1",
        "client_id": "c1",
        "timestamp": "2025-01-01T10:00:05Z",
    }
    event["event_attributes"] = {"object": {"object_id": "B2", "object_id_field": "sku"}, "position": {"ordinal": 2}}
    hits = {
        "hits": {
            "hits": [
                {"_index": "ubi_events", "_id": "1", "_source": event},
                {
                    "_index": "ubi_events",
                    "_id": "2",
                    "_source": {**event, "action_name": "login", "event_attributes": {}},
                },
            ]
        }
    }
    report, store = _read(
        tmp_path,
        ubi_queries__ndjson=json.dumps({**query, "query_response_hit_ids": ["B1", "B2"], "query_attributes": {}}),
        ubi_events__json=json.dumps(hits),
    )
    assert sorted(_names(report)) == ["OpenSearch UBI events", "OpenSearch UBI queries"]
    assert (report.events_new, report.exposures_new, report.rejects) == (2, 2, 0)
    with store:
        assert [(event.action, event.item_id, event.query, event.position) for event in store.history("c1")] == [
            *(("search", "", "laptop", None), ("click", "B2", "laptop", 2)),
        ]


def test_a_ubi_event_outside_of_the_list_is_kept_without_a_position(tmp_path: Path) -> None:
    object_, place = {"object_id": "B2"}, {"ordinal": 0}
    event = {"action_name": "purchase", "query_id": "none", "client_id": "c1", "timestamp": "2025-01-01T10:00:05Z"}
    line = json.dumps({**event, "event_attributes": {"object": object_, "position": place}})
    report, store = _read(tmp_path, ubi_events__ndjson=line)
    with store:
        assert [(one.action, one.item_id, one.query, one.position) for one in store.history("c1")] == [
            ("purchase", "B2", "", None)
        ]
    assert report.rejects == 0


def test_amazon_personalize_sets_are_recognised(tmp_path: Path) -> None:
    report, store = _read(
        tmp_path,
        interactions__csv="USER_ID,ITEM_ID,TIMESTAMP,EVENT_TYPE\nu1,i1,1735689600,click",
        items__csv="ITEM_ID,PRICE,CATEGORY_L1,PRODUCT_DESCRIPTION,CREATION_TIMESTAMP,GENDER\ni1,9.5,shirts,\
A soft tee,1600000000,W",
    )
    assert sorted(_names(report)) == ["Amazon Personalize interactions", "Amazon Personalize items"]
    with store:
        assert _events(store, "u1") == [("click", "i1", datetime(2025, 1, 1))]
        item = store.items(["i1"])["i1"]
        assert (item.category, item.description, item.first_seen, item.attributes) == (
            *("shirts", "A soft tee", datetime(2020, 9, 13, 12, 26, 40), {"GENDER": "W"}),
        )


def test_retailrocket_keeps_the_last_category_of_an_item(tmp_path: Path) -> None:
    report, store = _read(
        tmp_path,
        events__csv="timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\
\n1433221332118,257597,transaction,355908,4000",
        item_properties_part1__csv="timestamp,itemid,property,value\n1,355908,categoryid,1338\n2,355908,888,\
n1 2\n3,355908,categoryid,1114",
        category_tree__csv="categoryid,parentid\n1016,213",
    )
    assert sorted(_names(report)) == [
        "RetailRocket category tree",
        "RetailRocket events",
        "RetailRocket item properties",
    ]
    with store:
        assert [action for action, _, _ in _events(store, "257597")] == ["click", "purchase"]
        assert store.items(["355908"])["355908"].category == "1114"


def test_rees46_composes_a_title_and_says_so(tmp_path: Path) -> None:
    report, store = _read(
        tmp_path,
        **{
            "2019-Oct__csv": """event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session
            2019-10-01 00:00:00 UTC,view,1,2053,electronics.smartphone,samsung,130.76,u1,s1
            2019-10-01 00:00:01 UTC,remove_from_cart,1,2053,electronics.smartphone,samsung,130.76,u1,s1
            2019-10-01 00:00:02 UTC,purchase,1,2053,electronics.smartphone,samsung,131.00,u1,s1"""
        },
    )
    assert (_names(report), report.events_new, report.rejects) == (["REES46 events"], 2, 0)
    with store:
        item = store.items(["1"])["1"]
        assert (item.title, item.brand, item.price) == ("samsung smartphone", "samsung", 131.0)
        assert item.attributes == {"title": "composed from attributes"}


def test_instacart_joins_orders_baskets_and_products(tmp_path: Path) -> None:
    report, store = _read(
        tmp_path,
        orders__csv="order_id,user_id,eval_set,order_number,order_dow,order_hour_of_day,\
days_since_prior_order\n2,u1,prior,2,3,8,7\n1,u1,prior,1,2,8,",
        order_products__prior__csv="order_id,product_id,add_to_cart_order,reordered\n2,196,1,1\n1,196,1,\
0\n1,12427,2,0",
        products__csv="product_id,product_name,aisle_id,department_id\n196,Soda,77,7\n12427,\
Original Beef Jerky,23,19",
        aisles__csv="aisle_id,aisle\n77,soft drinks",
        departments__csv="department_id,department\n7,beverages",
    )
    assert (report.events_new, report.items_new, report.rejects) == (3, 2, 0)
    with store:
        assert [what for _, what, _ in _events(store, "u1")] == ["196", "12427", "196"]
        assert (store.items(["196"])["196"].category, store.items(["196"])["196"].attributes) == (
            "soft drinks",
            {"department": "beverages"},
        )


def test_hm_articles_and_transactions_are_recognised_and_customers_left(tmp_path: Path) -> None:
    report, store = _read(
        tmp_path,
        articles__csv="article_id,product_code,prod_name,product_type_name,colour_group_name,\
detail_desc\n0108775015,0108775,Strap top,Vest top,Black,Jersey top.",
        transactions_train__csv="t_dat,customer_id,article_id,price,sales_channel_id\n2018-09-20,c1,\
0108775015,0.0508,2",
        customers__csv="customer_id,FN,Active,club_member_status,age\nc1,,,ACTIVE,49",
    )
    assert sorted(_names(report)) == ["H&M articles", "H&M customers", "H&M transactions"]
    with store:
        assert _events(store, "c1") == [("purchase", "0108775015", datetime(2018, 9, 20))]
        assert store.items(["0108775015"])["0108775015"].color == "Black"


def test_online_retail_fills_events_and_items(tmp_path: Path) -> None:
    report, store = _read(
        tmp_path,
        data__csv="InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        "536365,85123A,WHITE HANGING HEART,6,2010-12-01 08:26:00,2.55,17850,United Kingdom",
    )
    assert (_names(report), report.events_new) == (["Online Retail (UCI)"], 1)
    with store:
        assert _events(store, "17850") == [("purchase", "85123A", datetime(2010, 12, 1, 8, 26))]
        item = store.items(["85123A"])["85123A"]
        assert (item.title, item.price, item.attributes) == ("WHITE HANGING HEART", 2.55, {})


@pytest.mark.parametrize(
    "files",
    [
        {
            "ratings__csv": "userId,movieId,rating,timestamp\n1,31,2.5,978300760",
            "movies__csv": "movieId,title,genres\n31,Dangerous Minds (1995),Drama|War",
        },
        {
            "ratings__dat": "1::31::5::978300760\n2::31::4::978300761",
            "movies__dat": "31::Dangerous Minds (1995)::Drama|War",
            "users__dat": "1::F::1::10::48067",
        },
        {
            "u__data": "1\t31\t5\t978300760",
            "u__item": "31|Dangerous Minds (1995)|" + "|".join(["01-Jan-1995", "", "http://x", *["0"] * 19]),
        },
    ],
    ids=["25m", "1m", "100k"],
)
def test_movielens_is_read_in_all_its_spellings(tmp_path: Path, files: dict[str, str]) -> None:
    report, store = _read(tmp_path, **files)
    assert report.rejects == 0
    with store:
        assert _events(store, "1") == [("click", "31", datetime(2000, 12, 31, 22, 12, 40))]
        assert store.items(["31"])["31"].title == "Dangerous Minds (1995)"


@pytest.mark.parametrize(
    ("name", "text", "user", "expected"),
    [
        (
            "yoochoose-clicks__dat",
            "1,2014-04-07T10:51:09.277Z,214536502,0\n2,2014-04-07T13:56:37.614Z,214662742,0",
            "1",
            [("click", "214536502")],
        ),
        (
            "UserBehavior__csv",
            "1,2268318,2520377,pv,1511544070\n1,2333346,2520771,buy,1511561733",
            "1",
            [("click", "2268318"), ("purchase", "2333346")],
        ),
        (
            "train__jsonl",
            '{"session":7,"events":[{"aid":1517085,"ts":1659304800025,"type":"clicks"},{"aid":1563459,"ts":1659304904511,"type":"orders"}]}',
            "7",
            [("click", "1517085"), ("purchase", "1563459")],
        ),
    ],
    ids=["yoochoose", "taobao", "otto"],
)
def test_sets_of_sessions_are_known_by_their_files(
    tmp_path: Path, name: str, text: str, user: str, expected: list[tuple[str, str]]
) -> None:
    report, store = _read(tmp_path, **{name: text})
    assert report.rejects == 0
    with store:
        assert [(action, what) for action, what, _ in _events(store, user)] == expected
