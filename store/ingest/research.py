"""Readers of four research sets: `sequences` (user sequences without times), `mind` (news), `open-ecommerce` (orders), `uci-eshop` (clicks).

What each reader decides where its set is silent stands in the reader's docstring.
"""

from __future__ import annotations

from collections.abc import Sequence

from recgraph.errors import IngestError
from recgraph.store.ingest.read import first_line, header
from recgraph.store.ingest.staging import Format, SourceFile, Staging, columns_of, pick


def _named_columns(source: SourceFile, delimiters: str, *needed: tuple[str, ...]) -> tuple[int, dict[str, str], str]:
    """(number of columns, name -> place, delimiter) of a file with a header; `needed` are names of which one must be there."""
    names, delimiter = header(source.path, delimiters)
    columns = columns_of(names)
    for choices in needed:
        if not any(name in columns for name in choices):
            raise IngestError(f"{source.path} has no column '{choices[0]}' (it has: {', '.join(names)}).")
    return len(names), columns, delimiter


def _places(count: int) -> list[str]:
    return [f"x{number}" for number in range(count)]


def read_sequences(staging: Staging, files: Sequence[SourceFile]) -> None:
    """`user ITEM ITEM ...` a line, `item<TAB>title` a line. Each is a purchase; the n-th of a user happens at event number n. A user's second
    line is rejected: nothing says which came first."""
    for source in files:
        raw = staging.begin(source.path)
        if source.kind == "items":
            count, columns, _ = _named_columns(source, "\t", ("asin", "item_id", "id"))
            raw.read_delimited(_places(count), "\t", quote="")
            values = {name: pick(columns, name) for name in ("title", "category", "brand", "color", "price", "description")}
            staging.define("items", {**values, "item_id": pick(columns, "asin", "item_id", "id")})
            staging.take_items()
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
        staging.define("events", {"user_id": "user_id", "ts": "number", "action": "'purchase'", "item_id": "item"}, "numbered")
        staging.take_events()


_NEWS = ("news_id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")


def read_mind(staging: Staging, files: Sequence[SourceFile]) -> None:
    """Microsoft News, the official files (news.tsv without header) and samples of it with one.

    A clicked impression is a click at the impression's time. Clicks of the history column lie before the file begins, at unknown times:
    they get the last seconds before the file's first day (UTC), one each in list order, once a user (the longest list, if a user has
    several), so that what was read earlier is earlier. What was shown and not clicked is left out: MIND shuffles the impressions, so they
    have neither a query nor a position.
    """
    for source in files:
        raw = staging.begin(source.path)
        if source.kind == "items":
            names, _ = header(source.path, "\t")
            titled = "title" in names and any(name in names for name in ("news_id", "id"))
            columns = columns_of(names if titled else _NEWS)
            if not titled and len(names) != len(_NEWS):
                raise IngestError(f"{source.path} has {len(names)} columns; MIND's news.tsv has {len(_NEWS)}, or a header with news_id and title.")
            raw.read_delimited(_places(len(names)), "\t", quote="", header=titled)
            values = {name: pick(columns, name) for name in ("title", "category")}
            extras = f"'subcategory', nullif(blank({pick(columns, 'subcategory')}), ''), 'url', nullif(blank({pick(columns, 'url')}), '')"
            values |= {"item_id": pick(columns, "news_id", "id"), "description": pick(columns, "abstract")}
            staging.define("items", {**values, "attributes": f"json_object({extras})::VARCHAR"})
            staging.take_items()
        else:
            titled = first_line(source.path).lower().startswith("impression")
            raw.read_delimited(["impression_id", "user_id", "time", "history", "impressions"], "\t", quote="", header=titled)
            _take_behaviors(staging)


def _take_behaviors(staging: Staging) -> None:
    staging.cursor.execute(
        """CREATE OR REPLACE TEMP TABLE behaviors AS SELECT place, blank(user_id) AS user_id, time AS time_text,
               coalesce(try_strptime(blank(time), '%m/%d/%Y %I:%M:%S %p'), moment(blank(time))) AS ts,
               list_filter(string_split(blank(history), ' '), lambda t: t <> '') AS history,
               list_filter(string_split(blank(impressions), ' '), lambda t: t <> '') AS shown FROM raw"""
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
        count, columns, delimiter = _named_columns(
            source, ",;\t", ("user", "survey responseid"), ("date", "order date"), ("asin", "asin/isbn (product code)")
        )
        staging.begin(source.path).read_delimited(_places(count), delimiter)
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
        staging.define("events", {**{name: name for name in ("user_id", "ts", "item_id")}, "action": "'purchase'"}, "orders")
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


_ESHOP = ("year", "month", "day", "order", "country", "session", "category", "model", "colour", "location", "photo", "price", "above", "page")
_COLOURS = ("beige", "black", "blue", "brown", "burgundy", "gray", "green", "navy blue", "multicolored", "olive", "pink", "red", "violet", "white")


def read_uci_eshop(staging: Staging, files: Sequence[SourceFile]) -> None:
    """UCI 553, clicks in a maternity-clothing shop. A session is a user, S<session>; the click number is the second of its day, so that the
    order inside a session, which is known, is kept. There are no titles: "Blue trousers A13" is composed from the codes, and the attribute
    `title` says so. One model has two colours: the one clicked more often counts."""
    for source in files:
        names, delimiter = header(source.path, ";,\t")
        if len(names) != len(_ESHOP) or "session" not in " ".join(names).lower():
            raise IngestError(f"{source.path} has the columns {', '.join(names)}; expected the {len(_ESHOP)} of UCI 553, from year to page.")
        staging.begin(source.path).read_delimited([f"x_{name}" for name in _ESHOP], delimiter)
        _take_eshop_clicks(staging)
        _take_eshop_models(staging)


def _take_eshop_clicks(staging: Staging) -> None:
    day = "x_year || '-' || lpad(x_month, 2, '0') || '-' || lpad(x_day, 2, '0')"
    second = f"(TRY_CAST({day} AS TIMESTAMP) + to_seconds(TRY_CAST(x_order AS INTEGER)))::VARCHAR"
    user = "CASE WHEN blank(x_session) <> '' THEN 'S' || blank(x_session) END"
    values = {"user_id": user, "ts": f"coalesce({second}, {day} || ' click ' || x_order)", "action": "'click'", "item_id": "x_model"}
    staging.define("events", values)
    staging.take_events()


def _take_eshop_models(staging: Staging) -> None:
    cursor = staging.cursor
    cursor.execute("CREATE OR REPLACE TEMP TABLE colours (code VARCHAR, hue VARCHAR)")
    cursor.executemany("INSERT INTO colours VALUES (?, ?)", [(str(code), hue) for code, hue in enumerate(_COLOURS, start=1)])
    cursor.execute(
        """CREATE OR REPLACE TEMP TABLE things AS SELECT * FROM
               (VALUES ('1', 'trousers', 'trousers'), ('2', 'skirts', 'skirt'), ('3', 'blouses', 'blouse'), ('4', 'sale', 'sale item'))
               AS codes(code, category, thing)"""
    )
    cursor.execute(
        """CREATE OR REPLACE TEMP VIEW models AS
           WITH by_colour AS (SELECT blank(x_model) AS model, blank(x_colour) AS colour, min(place) AS place, count(*) AS n, min(x_category) AS kind,
                   min(x_price) AS price, min(x_photo) AS photo, min(x_above) AS above FROM raw WHERE blank(x_model) <> '' GROUP BY 1, 2),
               chosen AS (SELECT min(place) AS place, model, arg_max(colour, (n, colour)) AS colour, arg_max(kind, (n, colour)) AS kind,
                   arg_max(price, (n, colour)) AS price, arg_max(photo, (n, colour)) AS photo, arg_max(above, (n, colour)) AS above
                   FROM by_colour GROUP BY model)
           SELECT chosen.*, coalesce(hue, '') AS hue, coalesce(category, '') AS category, coalesce(thing, 'item') AS thing,
               CASE photo WHEN '1' THEN 'en face' WHEN '2' THEN 'profile' END AS view, CASE above WHEN '1' THEN 'yes' WHEN '2' THEN 'no' END AS dear
           FROM chosen LEFT JOIN colours ON colours.code = colour LEFT JOIN things ON things.code = kind ORDER BY place"""
    )
    values = {"item_id": "model", "category": "category", "color": "hue", "price": "price"}
    values["title"] = "upper(left(trim(hue || ' ' || thing), 1)) || substr(trim(hue || ' ' || thing), 2) || ' ' || model"
    values["attributes"] = "json_object('title', 'composed from attributes', 'photo', view, 'price_above_category_average', dear)::VARCHAR"
    staging.define("items", values, "models")
    staging.take_items()


SEQUENCES = Format(
    "sequences",
    "user_sequence.txt (a line a user: user item item ...) and items.tsv (asin, title), or their folder",
    {"items": r"items.*\.tsv(\.gz)?", "events": r".*sequence.*\.txt(\.gz)?"},
    read_sequences,
)
MIND = Format("mind", "news.tsv and behaviors.tsv, or their folder", {"items": r"news.*\.tsv", "events": r"behaviors.*\.tsv"}, read_mind)
OPEN_ECOMMERCE = Format(
    "open-ecommerce", "purchases.csv or amazon-purchases.csv, or its folder", {"events": r".*purchases.*\.csv(\.gz)?"}, read_open_ecommerce
)
UCI_ESHOP = Format(
    "uci-eshop", "clicks.csv.gz or e-shop clothing 2008.csv, or its folder", {"events": r"(clicks|e-?shop).*\.csv(\.gz)?"}, read_uci_eshop
)
