"""Readers of research sets: `sequences` (user sequences without times), `mind` (news), `open-ecommerce` (orders), `uci-eshop` (clicks),
`instacart` (baskets).

What each reader decides where its set is silent stands in the reader's docstring.
"""

from __future__ import annotations

from collections.abc import Sequence

from recgraph.errors import IngestError
from recgraph.store.files.layout import Layout
from recgraph.store.files.plain import SourceFile
from recgraph.store.ingest.read import RawFile
from recgraph.store.ingest.staging import Format, Staging, columns_of, pick


def _columns(source: SourceFile, layout: Layout, *needed: tuple[str, ...]) -> dict[str, str]:
    """Name -> place of the columns; `needed` are names of which one must be there."""
    columns = columns_of(layout.names)
    for choices in needed:
        if not any(name in columns for name in choices):
            raise IngestError(f"{source} has no column '{choices[0]}' (it has: {', '.join(layout.names)}).")
    return columns


def read_sequences(staging: Staging, files: Sequence[SourceFile]) -> None:
    """`user ITEM ITEM ...` a line; of the titles a table whose first column is the item and whose second is the title, where its header, if it
    has one, says nothing else. Each item of a line is a purchase; the n-th of a user happens at event number n. A user's second line is
    rejected: nothing says which came first."""
    for source in files:
        raw = staging.begin(source)
        if source.kind == "items":
            _take_titles(staging, raw, source)
            continue
        raw.read_text_lines()
        staging.cursor.execute(
            """CREATE OR REPLACE TEMP TABLE words AS SELECT place, string_split_regex(blank(text), '\\s+') AS words,
                   row_number() OVER (PARTITION BY words[1] ORDER BY place) AS copy FROM raw"""
        )
        staging.note_rows(
            """SELECT place, CASE WHEN copy > 1 THEN 'user ' || words[1] || ' has an earlier line' ELSE 'no item follows the user' END AS reason
               FROM words WHERE copy > 1 OR len(words) < 2"""
        )
        staging.cursor.execute(
            """CREATE OR REPLACE TEMP VIEW numbered AS SELECT place, words[1] AS user_id, generate_subscripts(words[2:], 1)::VARCHAR AS number,
                   unnest(words[2:]) AS item FROM words WHERE copy = 1"""
        )
        staging.define(
            "events", {"user_id": "user_id", "ts": "number", "action": "'purchase'", "item_id": "item"}, "numbered"
        )
        staging.take_events()


def _take_titles(staging: Staging, raw: RawFile, source: SourceFile) -> None:
    # Titles hold commas and quotes of their own, so a file that has tabs at all is one of tabs.
    layout = raw.layout("\t", None, "")
    layout = layout if len(layout.names) > 1 else raw.layout((",", ";", "|", "::"), None)
    if len(layout.names) < 2:
        raise IngestError(f"{source} has one column; expected an item and its title, divided by a tab.")
    raw.read_delimited(layout)
    columns = columns_of(layout.names) if layout.header else {}
    named = {name: pick(columns, name) for name in ("category", "brand", "color", "price", "description")}
    item = (
        pick(columns, "asin", "item_id", "id") if any(name in columns for name in ("asin", "item_id", "id")) else "x0"
    )
    title = columns.get("title", "x1" if item == "x0" else "x0")
    staging.define("items", {**named, "item_id": item, "title": title})
    staging.take_items()


_NEWS = ("news_id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")


def read_mind(staging: Staging, files: Sequence[SourceFile]) -> None:
    """Microsoft News, the official files (news.tsv without header) and samples of it with one.

    A clicked impression is a click at the impression's time. Clicks of the history column lie before the file begins, at unknown times:
    they get the last seconds before the file's first day (UTC), one each in list order, once a user (the longest list, if a user has
    several), so that what was read earlier is earlier. What was shown and not clicked is left out: MIND shuffles the impressions, so they
    have neither a query nor a position.
    """
    for source in files:
        raw = staging.begin(source)
        if source.kind == "items":
            layout = raw.layout("\t", quote="")
            titled = "title" in layout.names and any(name in layout.names for name in ("news_id", "id"))
            columns = columns_of(layout.names if titled else _NEWS)
            if not titled and len(layout.names) != len(_NEWS):
                raise IngestError(
                    f"{source} has {len(layout.names)} columns; MIND's news.tsv has {len(_NEWS)}, or a header with news_id and title."
                )
            raw.read_delimited(layout if titled else raw.layout("\t", False, ""))
            values = {name: pick(columns, name) for name in ("title", "category")}
            extras = f"'subcategory', nullif(blank({pick(columns, 'subcategory')}), ''), 'url', nullif(blank({pick(columns, 'url')}), '')"
            values |= {"item_id": pick(columns, "news_id", "id"), "description": pick(columns, "abstract")}
            staging.define("items", {**values, "attributes": f"json_object({extras})::VARCHAR"})
            staging.take_items()
        else:
            layout = raw.layout("\t", quote="")
            if len(layout.names) != 5:
                raise IngestError(
                    f"{source} has {len(layout.names)} columns; MIND's behaviors.tsv has 5: impression, user, time, history, impressions."
                )
            raw.read_delimited(
                layout if layout.names[0].lower().startswith("impression") else raw.layout("\t", False, "")
            )
            staging.name("impressions", {"user_id": "x1", "time": "x2", "history": "x3", "impressions": "x4"})
            _take_behaviors(staging)


def _take_behaviors(staging: Staging) -> None:
    staging.cursor.execute(
        """CREATE OR REPLACE TEMP TABLE behaviors AS SELECT place, blank(user_id) AS user_id, time AS time_text,
               coalesce(try_strptime(blank(time), '%m/%d/%Y %I:%M:%S %p'), moment(blank(time))) AS ts,
               list_filter(string_split(blank(history), ' '), lambda t: t <> '') AS history,
               list_filter(string_split(blank(impressions), ' '), lambda t: t <> '') AS shown FROM impressions"""
    )
    staging.note_rows(
        """SELECT place, CASE WHEN user_id = '' THEN 'user_id is missing'
               WHEN ts IS NULL THEN 'time ''' || coalesce(time_text, '') || ''' is not like 11/12/2019 2:14:46 PM'
               ELSE 'an impression does not end in -0 or -1' END AS reason
           FROM behaviors WHERE user_id = '' OR ts IS NULL OR len(list_filter(shown, lambda t: NOT regexp_full_match(t, '.+-[01]'))) > 0"""
    )
    staging.cursor.execute(
        """CREATE OR REPLACE TEMP VIEW earlier AS SELECT place, user_id, (day - to_seconds(unnest(range(len(history), 0, -1))))::VARCHAR AS ts,
                   unnest(history) AS item FROM
               (SELECT user_id, arg_max(history, (len(history), -place)) AS history, min(place) AS place,
                   (SELECT date_trunc('day', min(ts)) FROM behaviors) AS day
                FROM behaviors WHERE user_id <> '' AND ts IS NOT NULL AND len(history) > 0 GROUP BY user_id ORDER BY 3)"""
    )
    staging.define("events", {"user_id": "user_id", "ts": "ts", "action": "'click'", "item_id": "item"}, "earlier")
    staging.take_events()
    staging.cursor.execute(
        """CREATE OR REPLACE TEMP VIEW clicked AS
               SELECT place, user_id, ts::VARCHAR AS ts, unnest(list_filter(shown, lambda t: ends_with(t, '-1'))) AS item
               FROM behaviors WHERE user_id <> '' AND ts IS NOT NULL"""
    )
    staging.define("events", {"user_id": "user_id", "ts": "ts", "action": "'click'", "item_id": "item[:-3]"}, "clicked")
    staging.take_events()


def read_open_ecommerce(staging: Staging, files: Sequence[SourceFile]) -> None:
    """Open e-commerce 1.0 (Berke et al. 2024), the original columns or the shorter ones of extracts. A row is a purchase on its day; the
    order within a day is the file's, which means nothing. Product facts are the latest non-empty ones; quantity and state are left out."""
    for source in files:
        raw = staging.begin(source)
        layout = raw.layout()
        columns = _columns(
            source, layout, ("user", "survey responseid"), ("date", "order date"), ("asin", "asin/isbn (product code)")
        )
        raw.read_delimited(layout)
        staging.name(
            "orders",
            {
                "user_id": pick(columns, "user", "survey responseid"),
                "ts": pick(columns, "date", "order date"),
                "item_id": f"blank({pick(columns, 'asin', 'asin/isbn (product code)')})",
                "title": f"blank({pick(columns, 'title')})",
                "category": f"blank({pick(columns, 'category')})",
                "price": f"blank({pick(columns, 'price_usd', 'purchase price per unit', 'price')})",
                "kind": f"blank({pick(columns, 'group')})",
            },
        )
        staging.define(
            "events", {**{name: name for name in ("user_id", "ts", "item_id")}, "action": "'purchase'"}, "orders"
        )
        staging.take_events()
        staging.cursor.execute(
            """CREATE OR REPLACE TEMP VIEW products AS SELECT min(place) AS place, item_id,
                   arg_max(title, (ts, place)) FILTER (title <> '') AS title, arg_max(category, (ts, place)) FILTER (category <> '') AS category,
                   arg_max(price, (ts, place)) FILTER (price <> '') AS price, arg_max(kind, (ts, place)) FILTER (kind <> '') AS kind
               FROM orders WHERE item_id <> '' GROUP BY item_id ORDER BY 1"""
        )
        values = {name: name for name in ("item_id", "title", "category", "price")}
        staging.define("items", {**values, "attributes": "json_object('group', kind)::VARCHAR"}, "products")
        staging.take_items()


_ESHOP = (
    "year",
    "month",
    "day",
    "order",
    "country",
    "session",
    "category",
    "model",
    "colour",
    "location",
    "photo",
    "price",
    "above",
    "page",
)
_COLOURS = (
    "beige",
    "black",
    "blue",
    "brown",
    "burgundy",
    "gray",
    "green",
    "navy blue",
    "multicolored",
    "olive",
    "pink",
    "red",
    "violet",
    "white",
)


def read_uci_eshop(staging: Staging, files: Sequence[SourceFile]) -> None:
    """UCI 553, clicks in a maternity-clothing shop. A session is a user, S<session>; the click number is the second of its day, so that the
    order inside a session, which is known, is kept. There are no titles: "Blue trousers A13" is composed from the codes, and the attribute
    `title` says so. One model has two colours: the one clicked more often counts."""
    for source in files:
        raw = staging.begin(source)
        layout = raw.layout()
        if len(layout.names) != len(_ESHOP) or "session" not in " ".join(layout.names).lower():
            raise IngestError(
                f"{source} has the columns {', '.join(layout.names)}; expected the {len(_ESHOP)} of UCI 553, from year to page."
            )
        raw.read_delimited(layout)
        staging.name("clicks", {f"x_{name}": f"x{number}" for number, name in enumerate(_ESHOP)})
        _take_eshop_clicks(staging)
        _take_eshop_models(staging)


def _take_eshop_clicks(staging: Staging) -> None:
    day = "x_year || '-' || lpad(x_month, 2, '0') || '-' || lpad(x_day, 2, '0')"
    second = f"(TRY_CAST({day} AS TIMESTAMP) + to_seconds(TRY_CAST(x_order AS INTEGER)))::VARCHAR"
    user = "CASE WHEN blank(x_session) <> '' THEN 'S' || blank(x_session) END"
    values = {
        "user_id": user,
        "ts": f"coalesce({second}, {day} || ' click ' || x_order)",
        "action": "'click'",
        "item_id": "x_model",
    }
    staging.define("events", values, "clicks")
    staging.take_events()


def _take_eshop_models(staging: Staging) -> None:
    cursor = staging.cursor
    cursor.execute("CREATE OR REPLACE TEMP TABLE colours (code VARCHAR, hue VARCHAR)")
    cursor.executemany(
        "INSERT INTO colours VALUES (?, ?)", [(str(code), hue) for code, hue in enumerate(_COLOURS, start=1)]
    )
    cursor.execute(
        """CREATE OR REPLACE TEMP TABLE things AS SELECT * FROM
               (VALUES ('1', 'trousers', 'trousers'), ('2', 'skirts', 'skirt'), ('3', 'blouses', 'blouse'), ('4', 'sale', 'sale item'))
               AS codes(code, category, thing)"""
    )
    cursor.execute(
        """CREATE OR REPLACE TEMP VIEW models AS
           WITH by_colour AS (SELECT blank(x_model) AS model, blank(x_colour) AS colour, min(place) AS place, count(*) AS n, min(x_category) AS kind,
                   min(x_price) AS price, min(x_photo) AS photo, min(x_above) AS above FROM clicks WHERE blank(x_model) <> '' GROUP BY 1, 2),
               chosen AS (SELECT min(place) AS place, model, arg_max(colour, (n, colour)) AS colour, arg_max(kind, (n, colour)) AS kind,
                   arg_max(price, (n, colour)) AS price, arg_max(photo, (n, colour)) AS photo, arg_max(above, (n, colour)) AS above
                   FROM by_colour GROUP BY model)
           SELECT chosen.*, coalesce(hue, '') AS hue, coalesce(category, '') AS category, coalesce(thing, 'item') AS thing,
               CASE photo WHEN '1' THEN 'en face' WHEN '2' THEN 'profile' END AS view, CASE above WHEN '1' THEN 'yes' WHEN '2' THEN 'no' END AS dear
           FROM chosen LEFT JOIN colours ON colours.code = colour LEFT JOIN things ON things.code = kind ORDER BY place"""
    )
    values = {"item_id": "model", "category": "category", "color": "hue", "price": "price"}
    values["title"] = (
        "upper(left(trim(hue || ' ' || thing), 1)) || substr(trim(hue || ' ' || thing), 2) || ' ' || model"
    )
    values["attributes"] = (
        "json_object('title', 'composed from attributes', 'photo', view, 'price_above_category_average', dear)::VARCHAR"
    )
    staging.define("items", values, "models")
    staging.take_items()


def read_instacart(staging: Staging, files: Sequence[SourceFile]) -> None:
    """Instacart: orders say who, order_products what. There are no dates: a user's n-th order happens at event number n, and what lies in one
    basket has one time. The products' aisles and departments are joined in where their files are there."""
    cursor = staging.cursor
    held = {
        "orders": ("order_id", "user_id", "order_number"),
        "aisles": ("aisle_id", "aisle"),
        "departments": ("department_id", "department"),
    }
    for kind, names in held.items():
        cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE instacart_{kind} ({', '.join(f'{name} VARCHAR' for name in names)})"
        )
        for source in (file for file in files if file.kind == kind):
            columns = _read_named(staging, source, *names)
            cursor.execute(f"INSERT INTO instacart_{kind} SELECT {', '.join(columns[name] for name in names)} FROM raw")  # noqa: S608 - our own
    for source in (file for file in files if file.kind == "products"):
        columns = _read_named(staging, source, "product_id", "product_name", "aisle_id", "department_id")
        cursor.execute(
            f"""CREATE OR REPLACE TEMP VIEW described AS SELECT place, {columns["product_id"]} AS item_id, {columns["product_name"]} AS title,
                    aisle AS category, json_object('department', department)::VARCHAR AS attributes
                FROM raw LEFT JOIN instacart_aisles ON aisle_id = {columns["aisle_id"]}
                LEFT JOIN instacart_departments ON department_id = {columns["department_id"]}"""  # noqa: S608 - our own
        )
        staging.define("items", {name: name for name in ("item_id", "title", "category", "attributes")}, "described")
        staging.take_items()
    for source in (file for file in files if file.kind == "events"):
        columns = _read_named(staging, source, "order_id", "product_id")
        cursor.execute(
            f"""CREATE OR REPLACE TEMP VIEW bought AS SELECT place, user_id, order_number AS ts, {columns["product_id"]} AS item_id
                FROM raw LEFT JOIN instacart_orders ON order_id = {columns["order_id"]} ORDER BY place"""  # noqa: S608 - our own
        )
        staging.define(
            "events", {"user_id": "user_id", "ts": "ts", "item_id": "item_id", "action": "'purchase'"}, "bought"
        )
        staging.take_events()


def _read_named(staging: Staging, source: SourceFile, *names: str) -> dict[str, str]:
    raw = staging.begin(source)
    layout = raw.layout()
    columns = _columns(source, layout, *((name,) for name in names))
    raw.read_delimited(layout)
    return columns


INSTACART = Format(
    "instacart",
    "orders.csv, order_products*.csv and products.csv, maybe aisles.csv and departments.csv, or their folder",
    {
        **{kind: rf"{kind}\.csv" for kind in ("orders", "aisles", "departments", "products")},
        "events": r"order_products.*\.csv",
    },
    read_instacart,
)
SEQUENCES = Format(
    "sequences",
    "user_sequence.txt (a line a user: user item item ...) and items.tsv (item, title), or their folder",
    {"items": r"items.*\.(tsv|csv|txt)", "events": r".*sequence.*\.txt"},
    read_sequences,
)
MIND = Format(
    "mind",
    "news.tsv and behaviors.tsv, or their folder",
    {"items": r"news.*\.tsv", "events": r"behaviors.*\.tsv"},
    read_mind,
)
OPEN_ECOMMERCE = Format(
    "open-ecommerce",
    "purchases.csv or amazon-purchases.csv, or its folder",
    {"events": r".*purchases.*\.csv"},
    read_open_ecommerce,
)
UCI_ESHOP = Format(
    "uci-eshop",
    "clicks.csv.gz or e-shop clothing 2008.csv, or its folder",
    {"events": r"(clicks|e-?shop).*\.csv"},
    read_uci_eshop,
)
