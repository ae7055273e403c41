"""Readers of plain tables: `tables` (a shop's own exports) and `recbole` (atomic files).

`tables`: files named items*, events*, exposures* as CSV (comma, semicolon, tab or bar; also .tsv), Parquet or JSON lines, .gz or not.
Columns as in store/schema.sql: items (item_id; title, category, brand, color, size, price, description, attributes as a JSON object,
parent_id, first_seen, in_stock), events (user_id, ts, action; item_id, query, position), exposures (query, item_id, position, ts); those
before the semicolon are required. Other columns of an items file (not of JSON lines) become attributes. A mapping renames columns
("events.user_id": "customer") or sets them all to one value ("events.action": "=purchase"). Times are ISO or seconds, milli- or
microseconds since 1970; a small number is an event number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recgraph.errors import IngestError
from recgraph.store.ingest.read import header, parquet_columns
from recgraph.store.ingest.staging import EVENT_COLUMNS, EXPOSURE_COLUMNS, ITEM_COLUMNS, Format, SourceFile, Staging, columns_of, pick
from recgraph.store.ingest.times import literal

_COLUMNS = {"items": ITEM_COLUMNS, "events": EVENT_COLUMNS, "exposures": EXPOSURE_COLUMNS}
_REQUIRED = {"items": ("item_id",), "events": ("user_id", "ts", "action"), "exposures": EXPOSURE_COLUMNS}


def check_mapping(mapping: Mapping[str, str]) -> None:
    """Raises IngestError for a name that is no column of ours."""
    known = [f"{kind}.{column}" for kind, columns in _COLUMNS.items() for column in columns]
    for name in mapping:
        if ":" not in name and name not in known:  # with a colon it is an option, which Staging checks
            raise IngestError(f"The mapping names '{name}', which is no column. Known: {', '.join(known)}.")


def _expressions(staging: Staging, source: SourceFile, names: Sequence[str]) -> dict[str, str]:
    """Our column -> SQL expression over `raw`, after the mapping. Raises IngestError for a required or mapped column the file lacks."""
    columns, found = columns_of(names), {}
    for column in _COLUMNS[source.kind]:
        given = staging.mapping.get(f"{source.kind}.{column}")
        if given is not None and given.startswith("="):
            found[column] = literal(given[1:])
        elif (given or column).lower() in columns:
            found[column] = columns[(given or column).lower()]
        elif given is not None or column in _REQUIRED[source.kind]:
            raise IngestError(
                f"{source.path} has no column '{given or column}' (it has: {', '.join(names)}). "
                f"Say which one it is, e.g. --map {source.kind}.{column}=NAME"
            )
    if source.kind == "items":
        found["attributes"] = _with_extras(found, {name: place for name, place in columns.items() if place not in found.values()})
    return found


def _with_extras(found: Mapping[str, str], extras: Mapping[str, str]) -> str:
    """The attributes: the file's own JSON object, if any, and its columns that are not ours."""
    own = found.get("attributes", "NULL::VARCHAR")
    pairs = ", ".join(f"{literal(name)}, nullif(blank({place}), '')" for name, place in extras.items() if name and not name.startswith("unnamed"))
    if not pairs:
        return own
    return (
        f"CASE WHEN blank({own}) = '' THEN json_object({pairs})::VARCHAR "
        f"WHEN json_valid({own}) THEN json_merge_patch({own}, json_object({pairs}))::VARCHAR ELSE {own} END"
    )


def read_tables(staging: Staging, files: Sequence[SourceFile]) -> None:
    """Reads each file by its ending; see the module's head for the columns."""
    for source in files:
        raw = staging.begin(source.path)
        kind = source.path.name.lower().removesuffix(".gz").rsplit(".", 1)[-1]
        if kind in ("jsonl", "ndjson", "json"):
            raw.read_json_lines()
            staging.define(source.kind, _parse(staging, source.kind), "parsed")
        elif kind == "parquet":
            types = parquet_columns(staging.cursor, source.path)
            values = _expressions(staging, source, list(types))
            # All columns are read, as any may be an attribute.
            nested = [f"x{n}" for n, of in enumerate(types.values()) if of.startswith(("MAP", "STRUCT", "JSON")) or of.endswith("[]")]
            raw.read_parquet({f"x{n}": name for n, name in enumerate(types)}, nested)
            staging.define(source.kind, values)
        else:
            names, delimiter = header(source.path)
            values = _expressions(staging, source, names)
            raw.read_delimited([f"x{n}" for n in range(len(names))], delimiter)
            staging.define(source.kind, values)
        _take(staging, source.kind)


def _parse(staging: Staging, kind: str) -> dict[str, str]:
    """Our column -> SQL expression over `parsed`."""
    values, paths = {}, []
    for column in _COLUMNS[kind]:
        given = staging.mapping.get(f"{kind}.{column}")
        if given is not None and given.startswith("="):
            values[column] = literal(given[1:])
            continue
        paths.append('$."' + (given or column) + '"')
        values[column] = f"v[{len(paths)}]"
    staging.parse(paths)
    return values


def _take(staging: Staging, kind: str) -> None:
    {"items": staging.take_items, "events": staging.take_events, "exposures": staging.take_exposures}[kind]()


def read_recbole(staging: Staging, files: Sequence[SourceFile]) -> None:
    """Atomic files: tab-separated, header `name:type`. A row of .inter is a click unless a column action or behavior says otherwise; without a
    timestamp the row order is the user's order. Other columns of .item become attributes. A .user file is not needed and skipped."""
    for source in files:
        if source.kind == "users":
            continue
        raw = staging.begin(source.path)
        typed, _ = header(source.path, "\t")
        names = [name.rsplit(":", 1)[0] for name in typed]
        columns = columns_of(names)
        needed = ("user_id", "item_id") if source.kind == "events" else ("item_id",)
        lacking = [name for name in needed if name not in columns]
        if lacking or not all(":" in name for name in typed) or "item_id_list" in columns:
            raise IngestError(
                f"{source.path} is no atomic file of one interaction or item a line: its header is '{' '.join(typed)}'; "
                f"expected name:type columns with {' and '.join(needed)}."
            )
        raw.read_delimited([f"x{n}" for n in range(len(names))], "\t", quote="")
        if source.kind == "events":
            clock = pick(columns, "timestamp", "time", "ts")
            order = f"(row_number() OVER (PARTITION BY {columns['user_id']} ORDER BY place))::VARCHAR"
            action = pick(columns, "action", "behavior", "behavior_type")
            values = {"user_id": columns["user_id"], "item_id": columns["item_id"], "ts": order if clock.startswith("NULL") else clock}
            values |= {"action": "'click'" if action.startswith("NULL") else action, "query": pick(columns, "query")}
            staging.define("events", values)
        else:
            staging.define("items", _recbole_item(columns))
        _take(staging, source.kind)


def _recbole_item(columns: Mapping[str, str]) -> dict[str, str]:
    values = {
        "item_id": pick(columns, "item_id"),
        "title": pick(columns, "title", "item_title", "movie_title", "item_name", "product_name", "name"),
        "category": pick(columns, "category", "categories", "genre", "class", "item_category"),
        **{name: pick(columns, name) for name in ("brand", "size", "price", "description")},
        "color": pick(columns, "color", "colour"),
    }
    values["attributes"] = _with_extras({}, {name: place for name, place in columns.items() if place not in values.values()})
    return values


_ENDING = r"[^/]*\.(csv|tsv|parquet|jsonl|ndjson|json)(\.gz)?"
TABLES = Format(
    "tables",
    "files named items*, events*, exposures* (.csv, .tsv, .parquet or .jsonl, also .gz), or a folder of them",
    {kind: kind + _ENDING for kind in ("items", "events", "exposures")},
    read_tables,
)
RECBOLE = Format(
    "recbole",
    "RecBole atomic files NAME.inter and NAME.item, or a folder of them",
    {"items": r".*\.item", "events": r".*\.inter", "users": r".*\.user"},
    read_recbole,
)
