"""Readers of the Amazon review sets of 2014, 2018 and 2023 (McAuley et al.) and of Amazon-M2 (KDD Cup 2023).

A review stands for a purchase of the product at the review's time. The metadata of 2014 (and some of its full review files) are Python dict
literals, not JSON; they are turned into JSON line by line on the way (in Python: DuckDB cannot read them). `category` is the leaf of the
first category path, the path itself the attribute `path`.
"""

from __future__ import annotations

from collections.abc import Sequence

from recgraph.errors import IngestError
from recgraph.store.files.plain import SourceFile
from recgraph.store.ingest.staging import Format, Staging, columns_of, pick

# Lists of texts come as JSON: of description parts, of category names, of category paths.
_MACROS = r"""
    CREATE OR REPLACE TEMP MACRO texts(x) AS CASE WHEN starts_with(x, '[') AND json_valid(x)
        THEN list_filter(from_json(x, '["VARCHAR"]'), lambda t: blank(t) <> '' AND NOT contains(t, '<')) END;
    CREATE OR REPLACE TEMP MACRO joined(x) AS CASE WHEN starts_with(x, '[') THEN array_to_string(texts(x), ' ') ELSE x END;
    CREATE OR REPLACE TEMP MACRO first_path(x) AS CASE WHEN starts_with(x, '[[') THEN texts(from_json(x, '["VARCHAR"]')[1]) ELSE texts(x) END;
    CREATE OR REPLACE TEMP MACRO shop_price(x) AS CASE WHEN length(x) < 40 AND regexp_matches(x, '^[^\d{-]*\d') THEN x END;
"""


_EVENTS = {
    "user_id": "v[1]",
    "item_id": "coalesce(nullif(v[2], ''), v[3])",
    "ts": "v[4]",
    "action": "'purchase'",
}
_REVIEW_PATHS = {
    "amazon-2014": ("reviewerID", "asin", "asin", "unixReviewTime"),
    "amazon-2018": ("reviewerID", "asin", "asin", "unixReviewTime"),
    # Metadata of 2023 are kept by parent_asin: the colours and sizes of a style are one product there.
    "amazon-2023": ("user_id", "parent_asin", "asin", "timestamp"),
}
_ITEM_PATHS = {
    "amazon-2014": (
        "asin",
        "title",
        "brand",
        "price",
        "description",
        "categories",
        "categories",
        "color",
        "size",
        "details",
    ),
    "amazon-2018": ("asin", "title", "brand", "price", "description", "category", "main_cat", "color", "size", "none"),
    "amazon-2023": (
        *(
            "parent_asin",
            "title",
            "details.Brand",
            "price",
            "description",
            "categories",
            "main_category",
            "details.Color",
        ),
        *("details.Size", "details", "store", "features"),
    ),
}
_ITEMS = {
    "item_id": "v[1]",
    "title": "v[2]",
    "brand": "v[3]",
    "price": "shop_price(v[4])",
    "description": "joined(v[5])",
    "category": "coalesce(path[-1], CASE WHEN NOT starts_with(v[7], '[') THEN v[7] END)",
    "color": "v[8]",
    "size": "v[9]",
    "attributes": """json_merge_patch(CASE WHEN starts_with(v[10], '{') THEN v[10] ELSE '{}' END,
        json_object('path', nullif(array_to_string(path, ' > '), '')))::VARCHAR""",
}


def _read_amazon(name: str, staging: Staging, files: Sequence[SourceFile]) -> None:
    staging.cursor.execute(_MACROS)
    for source in files:
        staging.begin(source).read_json_lines(literals=name == "amazon-2014")
        if source.kind == "events":
            staging.parse([f"$.{path}" for path in _REVIEW_PATHS[name]])
            staging.define("events", _EVENTS, "parsed")
            staging.take_events()
        else:
            values = dict(_ITEMS)
            if name == "amazon-2023":
                values |= {
                    "brand": "coalesce(v[3], v[11])",
                    "description": "coalesce(nullif(joined(v[5]), ''), joined(v[12]))",
                }
            staging.parse([f"$.{path}" for path in _ITEM_PATHS[name]])
            staging.name("products", {"v": "v", "path": "first_path(v[6])"}, "parsed")
            staging.define("items", values, "products")
            staging.take_items()


def _amazon(name: str) -> Format:
    ending = r"\.jsonl?"
    reviews = "reviews_.*" if name == "amazon-2014" else "(?!meta_).*"
    shown = {
        "amazon-2014": "reviews_*.json.gz and meta_*.json.gz",
        "amazon-2018": "NAME.json.gz or NAME_5.json.gz and meta_NAME.json.gz",
    }
    return Format(
        name,
        shown.get(name, "NAME.jsonl.gz and meta_NAME.jsonl.gz") + " (also unpacked), or a folder of them",
        {"items": "meta_.*" + ending, "events": reviews + ending},
        lambda staging, files: _read_amazon(name, staging, files),
    )


def read_m2(staging: Staging, files: Sequence[SourceFile]) -> None:
    """Amazon-M2. A product id names other texts and prices in each locale, so an item is ID_LOCALE (parent_id is the bare id). Session n of
    the file is user S<n>; only the order of its clicks is known, and next_item is the last of them."""
    for source in files:
        raw = staging.begin(source)
        layout = raw.layout()
        columns = columns_of(layout.names)
        needed = ("id", "locale", "title") if source.kind == "items" else ("prev_items", "locale")
        lacking = [name for name in needed if name not in columns]
        if lacking:
            raise IngestError(
                f"{source} has no column '{lacking[0]}' (it has: {', '.join(layout.names)}); Amazon-M2 has {', '.join(needed)} ..."
            )
        raw.read_delimited(layout)
        if source.kind == "items":
            _m2_items(staging, columns)
        else:
            _m2_sessions(staging, columns)


def _m2_items(staging: Staging, columns: dict[str, str]) -> None:
    names = ("id", "locale", "title", "price", "brand", "color", "size", "model", "material", "author", "desc")
    staging.name("products", {f"m2_{name}": pick(columns, name) for name in names})
    values = {name: f"m2_{name}" for name in ("title", "brand", "color", "size")}
    values |= {
        "item_id": "CASE WHEN blank(m2_id) <> '' THEN blank(m2_id) || '_' || blank(m2_locale) END",
        # The publisher wrote 40000000.07 where no price is known.
        "price": "CASE WHEN TRY_CAST(m2_price AS DOUBLE) < 40000000 THEN m2_price END",
        "description": "m2_desc",
        "attributes": "json_object('locale', m2_locale, 'model', m2_model, 'material', m2_material, 'author', m2_author)::VARCHAR",
        "parent_id": "m2_id",
    }
    staging.define("items", values, "products")
    staging.take_items()


def _m2_sessions(staging: Staging, columns: dict[str, str]) -> None:
    staging.name("named", {name: pick(columns, name) for name in ("prev_items", "next_item", "locale")})
    # prev_items is how numpy prints an array: ['A' 'B'\n 'C'].
    staging.cursor.execute(
        """CREATE OR REPLACE TEMP TABLE sessions AS SELECT place, blank(locale) AS locale,
               list_concat(regexp_extract_all(prev_items, '''([^'']+)''', 1),
                   CASE WHEN blank(next_item) <> '' THEN [blank(next_item)] ELSE [] END) AS items FROM named"""
    )
    staging.note_rows(
        "SELECT place, 'prev_items holds no item' AS reason FROM sessions WHERE coalesce(len(items), 0) = 0"
    )
    staging.cursor.execute(
        """CREATE OR REPLACE TEMP VIEW clicks AS
           SELECT place, locale, generate_subscripts(items, 1) AS number, unnest(items) AS item FROM sessions"""
    )
    staging.define(
        "events",
        {
            "user_id": "'S' || (place + 1)",
            "ts": "number::VARCHAR",
            "action": "'click'",
            "item_id": "item || '_' || locale",
        },
        "clicks",
    )
    staging.take_events()


AMAZON = [_amazon(name) for name in ("amazon-2014", "amazon-2018", "amazon-2023")]
M2 = Format(
    "amazon-m2",
    "products_train.csv and sessions_train.csv (also .gz), or their folder",
    {"items": r"products_train.*\.csv", "events": r"sessions_train.*\.csv"},
    read_m2,
)
