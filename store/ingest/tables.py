"""Readers of plain tables: `tables` (a shop's own exports) and `recbole` (atomic files), and what a mapping of columns
means.

`tables`: files named items*, events*, exposures* as CSV (comma, semicolon, tab or bar; also .tsv), Parquet, JSON or
Excel, packed or not. Columns as in store/schema.sql: items (item_id; title, category, brand, color, size, price,
description, attributes as a JSON object, parent_id, first_seen, in_stock), events (user_id, ts, action; item_id,
query, position, session_id, quantity), exposures (query, item_id, position, ts); those before the semicolon are
required. Other columns of an items file become attributes, but for those that tell of a person or an order. A
mapping renames columns ("events.user_id": "customer", in JSON "object.id") or sets them all to one value
("events.action": "=purchase"); "events.action:view" and "events.ts:format" say what values mean, which
store/ingest/values.py knows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from recgraph.errors import IngestError
from recgraph.store.files.names import ORDER, is_of_events, is_personal, plain_name, rank
from recgraph.store.files.plain import SourceFile
from recgraph.store.ingest.parts import (
    COLUMNS,
    Field,
    FileColumn,
    Look,
    Part,
    best_of_array,
    look_at,
    read_parts,
    with_extras,
)
from recgraph.store.ingest.staging import Format, Reading, Staging, columns_of, pick

REQUIRED = {"items": ("item_id",), "events": ("user_id", "ts", "action"), "exposures": COLUMNS["exposures"]}


def check_mapping(mapping: Mapping[str, str]) -> None:
    """Raises IngestError for a name that is no column of ours."""
    known = [f"{kind}.{column}" for kind, columns in COLUMNS.items() for column in columns]
    for name in mapping:
        if name.partition(":")[0] not in known:
            raise IngestError(f"The mapping names '{name}', which is no column. Known: {', '.join(known)}.")


def names_of(look: Look) -> str:
    """A file's column names for a message, with an example each where there is no header."""
    if look.headless:
        shown = (
            f"{name} (e.g. '{values[0][:20]}')" if values else name
            for name, values in zip(look.names, look.values, strict=True)
        )
        return "no header; by number: " + ", ".join(shown)
    return "it has: " + ", ".join(look.names)


def missing(look: Look, kind: str, column: str, given: str = "") -> IngestError:
    """The error for a column that a file lacks."""
    return IngestError(
        f"{look.source} has no column '{given or column}' ({names_of(look)}). Say which one it is, e.g. --map {kind}.{column}=NAME"
    )


def mapped(staging: Staging, look: Look, kind: str) -> tuple[Look, dict[str, str | FileColumn], list[str]]:
    """What the mapping says of one kind of row in a file: its values by our column, and our columns whose mapped
    name the file lacks. The look comes back with the names that lie beyond the file's beginning."""
    values, lacking = dict[str, str | FileColumn](), list[str]()
    for column in COLUMNS[kind]:
        given = staging.mapping.get(f"{kind}.{column}")
        if given is None:
            continue
        if given.startswith("="):
            values[column] = given
            continue
        look, name = _find(staging, look, given, column)
        if name is None:
            lacking.append(column)
        else:
            values[column] = FileColumn(name)
    return look, values, lacking


def _find(staging: Staging, look: Look, given: str, column: str) -> tuple[Look, str | None]:
    """The file's own name of a mapped column. The names of JSON are told apart by case, those of tables are not."""
    if (inside := best_of_array(look, given, column)) is not None:
        return look, inside
    if given in look.names:
        return look, given
    if not look.fields:
        return look, next((name for name in look.names if name.strip().lower() == given.strip().lower()), None)
    if look.whole or not _occurs(staging, look.source, given):
        return look, None
    path = "$" + "".join(f'."{step}"' for step in given.split("."))
    found = Field(given, path)
    return replace(look, names=(*look.names, given), values=(*look.values, ()), fields=(*look.fields, found)), given


def _occurs(staging: Staging, source: SourceFile, given: str) -> bool:
    """Whether a name stands anywhere in a file of JSON: the beginning need not have all of them."""
    wanted, rest = f'"{given.split(".")[-1]}"'.encode(), b""
    with staging.desk.table(source).path.open("rb") as stream:
        while part := stream.read(2**20):
            if wanted in rest + part:
                return True
            rest = part[-len(wanted) :]
    return False


def extras_of(look: Look, used: Sequence[str | FileColumn], staging: Staging) -> tuple[str, ...]:
    """The columns that become attributes of products: none that is used, mapped for events, or tells of a person,
    and none at all of a file that tells of orders and shoppers."""
    if any(rank("user_id", name) is not None or plain_name(name) in ORDER for name in look.names):
        return ()
    taken = {value.name for value in used if isinstance(value, FileColumn)}
    taken |= {name for key, name in staging.mapping.items() if not key.startswith("items.")}
    inside = {found.name for found in look.fields if found.inner or found.name.startswith("attributes.")}
    arrays = {name for name in look.names if any(other.startswith(name + ".") for other in look.names)}
    left = [
        name
        for name in look.names
        if name not in taken | inside | arrays and name and not name.lower().startswith("unnamed")
    ]
    return tuple(name for name in left if not is_personal(name) and not is_of_events(name))


def described(look: Look, part: Part) -> tuple[tuple[str, str], ...]:
    """Our columns and where each comes from, for people."""
    own = {plain_name(name): name for name in reversed(look.names)}
    pairs = []
    for ours, value in part.values.items():
        if isinstance(value, str) and value.startswith("="):
            pairs.append((f"{part.kind}.{ours}", f"always {value[1:]}"))
            continue
        groups = [value.name] if isinstance(value, FileColumn) else re.findall(r"\{([^{}]+)\}", value) or [value]
        names = [
            next((own[plain_name(name)] for name in group.split("|") if plain_name(name) in own), "")
            for group in groups
        ]
        if any(names):
            pairs.append((f"{part.kind}.{ours}", ", ".join(dict.fromkeys(name for name in names if name))))
    if part.extras:
        pairs.append((f"{part.kind}.attributes", ", ".join(part.extras)))
    return tuple(pairs)


def read_look(staging: Staging, look: Look, name: str, parts: Sequence[Part], notes: Sequence[str] = ()) -> None:
    """Reads a file's parts and keeps what it was taken for."""
    left_out = read_parts(staging, look, parts)
    columns = tuple(pair for part in parts for pair in described(look, part))
    staging.readings.append(Reading(look.source, name, columns, (*look.notes, *notes, *left_out)))


def read_tables(staging: Staging, files: Sequence[SourceFile]) -> None:
    """Reads each file; see the module's head for the columns. Where no file of a kind is there, but a mapping for
    it, the others hold it."""
    kinds = {source.kind for source in files}
    found = set[str]()
    for source in files:
        look = look_at(staging, source, titled=True)
        look, parts = _named_parts(staging, look, source.kind, kinds)
        found |= {part.kind for part in parts}
        read_look(staging, look, source.kind, parts)
    for key, name in staging.mapping.items():
        if key.partition(".")[0] not in found and ":" not in key:
            raise IngestError(
                f"--map {key}={name} found nothing to map: no file has all columns that the mapping names for {key.partition('.')[0]}."
            )


def _named_parts(staging: Staging, look: Look, kind: str, kinds: set[str]) -> tuple[Look, list[Part]]:
    look, values, lacking = mapped(staging, look, kind)
    if lacking:
        raise missing(look, kind, lacking[0], staging.mapping[f"{kind}.{lacking[0]}"])
    lower = {name.strip().lower(): name for name in reversed(look.names)}
    taken = {value for value in values.values() if isinstance(value, FileColumn)}
    for column in COLUMNS[kind]:
        if column in lower and FileColumn(lower[column]) not in taken:
            values.setdefault(column, FileColumn(lower[column]))
        elif column in REQUIRED[kind] and column not in values and not (column == "user_id" and "session_id" in lower):
            raise missing(look, kind, column)
    parts = [Part(kind, values, extras=extras_of(look, list(values.values()), staging) if kind == "items" else ())]
    for other in COLUMNS:
        if other in kinds or not any(key.startswith(other + ".") for key in staging.mapping):
            continue
        look, more, lacking = mapped(staging, look, other)
        if not lacking:
            more = {**({"item_id": values["item_id"]} if "item_id" in values else {}), **more}
            parts.append(Part(other, more, grouped=other == "items"))
    return look, parts


def read_recbole(staging: Staging, files: Sequence[SourceFile]) -> None:
    """Atomic files: tab-separated, header `name:type`. A row of .inter is a click unless a column action or behavior
    says otherwise; without a timestamp the row order is the user's order. Other columns of .item become attributes.
    A .user file is not needed and skipped."""
    for source in files:
        if source.kind == "users":
            continue
        raw = staging.begin(source)
        layout = raw.layout("\t", quote="")
        names = [name.rsplit(":", 1)[0] for name in layout.names]
        columns = columns_of(names)
        needed = ("user_id", "item_id") if source.kind == "events" else ("item_id",)
        lacking = [name for name in needed if name not in columns]
        if lacking or not all(":" in name for name in layout.names) or "item_id_list" in columns:
            raise IngestError(
                f"{source} is no atomic file of one interaction or item a line: its header is '{' '.join(layout.names)}'; "
                f"expected name:type columns with {' and '.join(needed)}."
            )
        raw.read_delimited(layout)
        if source.kind == "events":
            clock = pick(columns, "timestamp", "time", "ts")
            order = f"(row_number() OVER (PARTITION BY {columns['user_id']} ORDER BY place))::VARCHAR"
            action = pick(columns, "action", "behavior", "behavior_type")
            values = {
                "user_id": columns["user_id"],
                "item_id": columns["item_id"],
                "ts": order if clock.startswith("NULL") else clock,
            }
            values |= {"action": "'click'" if action.startswith("NULL") else action, "query": pick(columns, "query")}
            staging.define("events", values)
            staging.take_events()
        else:
            staging.define("items", _recbole_item(columns))
            staging.take_items()


def _recbole_item(columns: Mapping[str, str]) -> dict[str, str]:
    values = {
        "item_id": pick(columns, "item_id"),
        "title": pick(columns, "title", "item_title", "movie_title", "item_name", "product_name", "name"),
        "category": pick(columns, "category", "categories", "genre", "class", "item_category"),
        **{name: pick(columns, name) for name in ("brand", "size", "price", "description")},
        "color": pick(columns, "color", "colour"),
    }
    values["attributes"] = with_extras(
        "NULL::VARCHAR", {name: place for name, place in columns.items() if place not in values.values()}
    )
    return values


_ENDING = r"[^/]*\.(csv|tsv|txt|parquet|jsonl|ndjson|json|xlsx|xlsm|xls|ods|xml)"
TABLES = Format(
    "tables",
    "files named items*, events*, exposures* (.csv, .tsv, .parquet, .jsonl, .json or .xlsx, also packed), or a folder of them",
    {kind: kind + _ENDING for kind in ("items", "events", "exposures")},
    read_tables,
)
RECBOLE = Format(
    "recbole",
    "RecBole atomic files NAME.inter and NAME.item, or a folder of them",
    {"items": r".*\.item", "events": r".*\.inter", "users": r".*\.user"},
    read_recbole,
)
