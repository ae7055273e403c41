"""A file's columns by their own names, and its rows as rows of ours: a `Part` says which of them become items, events
or exposures, and how.

It knows columns and SQL, not what a column is likely to mean; `store/ingest/detect.py` and the tables of
`exports.py` do.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recgraph.errors import IngestError
from recgraph.store.files.layout import Layout, layout_of
from recgraph.store.files.names import plain_name, rank
from recgraph.store.files.plain import SourceFile
from recgraph.store.files.shapes import Form
from recgraph.store.ingest.read import parquet_columns
from recgraph.store.ingest.staging import EVENT_COLUMNS, EXPOSURE_COLUMNS, ITEM_COLUMNS, Staging
from recgraph.store.ingest.times import literal

COLUMNS = {"items": ITEM_COLUMNS, "events": EVENT_COLUMNS, "exposures": EXPOSURE_COLUMNS}
_SAMPLE = 500  # records from which the names of JSON are told
_DEPTH = 5


@dataclass(frozen=True)
class FileColumn:
    """A column of a file by its exact name."""

    name: str


@dataclass(frozen=True)
class Part:
    """How rows become rows of one kind. A value is a column's name, `a|b` the first of several (as `plain_name`
    writes them), `=text` the same for all rows, SQL in which {a|b} stands for a column, or a FileColumn. `actions` are a
    make's words for ours: rows with another word are left out, and counted. `where` is SQL for the rows that count.
    With `grouped` a product's rows become one, in which the last value that is not empty counts. `extras` are
    columns that become attributes."""

    kind: str
    values: Mapping[str, str | FileColumn]
    where: str = ""
    grouped: bool = False
    extras: tuple[str, ...] = ()
    actions: Mapping[str, str] = field(default_factory=dict)
    query_id: str = ""  # the column with a search's id: rows without words get those that another row has under it


@dataclass(frozen=True)
class Field:
    """A value of JSON objects by its dotted name. `outer` is its path from the top, or that of the array it lies in;
    `inner` then the path inside an element. `texts` marks an array of plain values."""

    name: str
    outer: str
    inner: str = ""
    texts: bool = False


@dataclass(frozen=True)
class Look:
    """What a file looks like from its beginning: its columns and the first values of each, texts that are not empty."""

    source: SourceFile
    form: Form
    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    layout: Layout | None = None
    fields: tuple[Field, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    whole: bool = True

    @property
    def plain(self) -> frozenset[str]:
        return frozenset(plain_name(name) for name in self.names)

    @property
    def headless(self) -> bool:
        return self.layout is not None and not self.layout.header

    def sample(self, name: str) -> tuple[str, ...]:
        return self.values[self.names.index(name)]


def look_at(staging: Staging, source: SourceFile, titled: bool | None = None) -> Look:
    """Looks at a file's beginning. `titled` says that a delimited file has a header, or has none."""
    table = staging.desk.head(source)
    if table.form == "json":
        with table.path.open(encoding="utf-8-sig", errors="replace") as stream:
            records = [
                record
                for _, line in zip(range(_SAMPLE), stream, strict=False)
                if isinstance(record := _parsed(line), dict)
            ]
        return _look_at_records(source, records, table.notes, table.whole)
    if table.form == "parquet":
        types = parquet_columns(staging.cursor, table)
        rows = staging.cursor.execute(
            "SELECT to_json(file)::VARCHAR FROM read_parquet(?) AS file LIMIT ?", [str(table.path), _SAMPLE]
        ).fetchall()
        found = _look_at_records(source, [json.loads(row) for (row,) in rows], table.notes, False)
        if any("STRUCT(" in kind for kind in types.values()):
            return Look(source, "parquet", found.names, found.values, table.notes, None, found.fields, types, False)
        values = tuple(_texts([json.loads(row).get(name) for (row,) in rows]) for name in types)
        return Look(source, "parquet", tuple(types), values, table.notes, None, (), types)
    layout = layout_of(table.path, titled=titled)
    columns = [_texts([row[number] for row in layout.rows if number < len(row)]) for number in range(len(layout.names))]
    twice = [name for name, count in Counter(layout.names).items() if count > 1 and name]
    doubles = (f"several columns are called {', '.join(twice)}: the first is read",) if twice else ()
    return Look(source, "csv", layout.names, tuple(columns), (*table.notes, *doubles), layout, (), {}, table.whole)


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(text for value in values if value is not None and (text := str(value).strip()))


def _look_at_records(
    source: SourceFile, records: Sequence[Mapping[str, Any]], notes: tuple[str, ...], whole: bool
) -> Look:
    fields, values = dict[str, Field](), dict[str, list[Any]]()
    for record in records:
        for found, value in _leaves(record):
            known = fields.setdefault(found.name, found)
            if found.texts and not known.texts:
                fields[found.name] = found
            values.setdefault(found.name, []).append(value)
    texts = tuple(_texts(values[name]) for name in fields)
    return Look(source, "json", tuple(fields), texts, notes, None, tuple(fields.values()), {}, whole)


def _leaves(
    record: Mapping[str, Any], name: str = "", outer: str = "$", inner: str = "", depth: int = 0
) -> Iterator[tuple[Field, Any]]:
    """The plain values of an object, and of the elements of the first array of objects on each way down."""
    for key, value in record.items():
        if '"' in key or not key:
            continue
        here, step = f"{name}.{key}" if name else key, f'."{key}"'
        path = (outer, inner + step) if inner else (outer + step, "")
        if key == "attributes" and isinstance(value, dict):
            yield Field(here, *path), json.dumps(value, ensure_ascii=False)
        elif isinstance(value, dict) and depth < _DEPTH:
            yield from _leaves(value, here, *path, depth + 1)
        elif isinstance(value, list) and not inner and any(isinstance(element, dict) for element in value):
            for element in value[:20]:
                if isinstance(element, dict):
                    yield from _leaves(element, here, path[0], "$", depth + 1)
            yield Field(here, *path), json.dumps(value, ensure_ascii=False)
        else:
            texts = isinstance(value, list) and bool(value)
            yield (
                Field(here, *path, texts and not inner),
                value[0] if texts else None if isinstance(value, list) else value,
            )


class _Columns:
    """The SQL of a file's columns over the view `cells`, where column n is xn; keeps in mind which are used."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.used: dict[int, bool] = {}  # number -> whether an array of plain values is unfolded
        self._places: dict[str, int] = {}
        for number, name in enumerate(look.names):
            self._places.setdefault(plain_name(name), number)

    def sql(self, ours: str, value: str | FileColumn) -> str:
        if isinstance(value, FileColumn):
            return self._at(self.look.names.index(value.name), ours == "item_id")
        if value.startswith("="):
            return literal(value[1:])
        return self.filled(value, ours == "item_id") if "{" in value else self._first(value, ours == "item_id")

    def filled(self, template: str, unfold: bool = False) -> str:
        """SQL with the columns in place of their names in braces."""
        return re.sub(r"\{([^{}]+)\}", lambda found: self._first(found[1], unfold), template)

    def _first(self, choices: str, unfold: bool = False) -> str:
        if choices == "ordinal":
            return "ordinal"
        found = (self._places[name] for choice in choices.split("|") if (name := plain_name(choice)) in self._places)
        number = next(found, None)
        return "NULL::VARCHAR" if number is None else self._at(number, unfold)

    def _at(self, number: int, unfold: bool) -> str:
        unfold = unfold and bool(self.look.fields) and self.look.fields[number].texts
        self.used[number] = self.used.get(number, False) or unfold
        return f"x{number}"


def read_parts(staging: Staging, look: Look, parts: Sequence[Part]) -> list[str]:
    """Reads a file and takes each part of it. Returns what was left out, in words."""
    raw = staging.begin(look.source)
    if look.form == "json":
        raw.read_json_lines()
    elif look.form == "parquet":
        raw.read_parquet_objects() if look.fields else raw.read_parquet(look.types)
    else:
        assert look.layout is not None
        raw.read_delimited(look.layout)
    return [note for part in parts for note in _take_part(staging, look, part)]


def _take_part(staging: Staging, look: Look, part: Part) -> list[str]:
    columns = _Columns(look)
    values = {ours: columns.sql(ours, value) for ours, value in part.values.items()}
    if part.extras:
        values["attributes"] = with_extras(
            values.get("attributes", "NULL::VARCHAR"), {name: columns.sql("", FileColumn(name)) for name in part.extras}
        )
    wheres = [columns.filled(part.where)] if part.where else []
    notes = list[str]()
    action = f"lower(blank({values.get('action', 'NULL::VARCHAR')}))"
    if part.actions:
        own = [name.partition(":")[2].lower() for name in staging.mapping if name.startswith(f"{part.kind}.action:")]
        known = ", ".join(literal(word) for word in [*part.actions, *own])
        wheres.append(f"{action} IN ({known})")
        cases = " ".join(
            f"WHEN {literal(word)} THEN {literal(ours)}" for word, ours in part.actions.items() if word not in own
        )
        values["action"] = f"CASE {action} {cases} ELSE {values['action']} END"
    asked = columns.sql("", part.query_id) if part.query_id else ""
    source = _cells(staging, look, columns.used)
    if part.actions:
        notes += _left_out(staging, source, action, known, part)
    if wheres:
        condition = " AND ".join(f"({where})" for where in wheres)
        # Windows over an order or a product stand in the conditions, so they are counted before the rows go.
        staging.cursor.execute(
            f"CREATE OR REPLACE TEMP VIEW kept AS SELECT * FROM (SELECT *, {condition} AS counts FROM {source}) WHERE counts"  # noqa: S608 - our own
        )
        source = "kept"
    if asked:
        source = _with_queries(staging, source, asked, values)
    if part.kind == "items" and part.grouped:
        source, values = _grouped(staging, values, source), {ours: ours for ours in values}
    staging.define(part.kind, values, source)
    {"items": staging.take_items, "events": staging.take_events, "exposures": staging.take_exposures}[part.kind]()
    return notes


def _cells(staging: Staging, look: Look, used: Mapping[int, bool]) -> str:
    """The view with the columns that are used; a row an element where they lie in an array of objects or an array is
    unfolded."""
    if not look.fields:
        return "raw"
    fields = {number: look.fields[number] for number in used}
    arrays = {fields[number].outer for number, unfold in used.items() if unfold or fields[number].inner}
    if len(arrays) > 1:
        raise IngestError(
            f"{look.source}: columns of {len(arrays)} arrays cannot stand in one row: {', '.join(sorted(arrays))}."
        )
    outer = [number for number, found in fields.items() if not found.inner and not used[number]]
    inner = [number for number in fields if number not in outer]
    paths = ", ".join(literal(fields[number].outer) for number in outer) or "'$.none'"
    array = {"a": f"json_extract(text, {literal(next(iter(arrays)) + '[*]')})"} if arrays else {}
    staging.name("parsed", {"v": f"json_extract_string(text, [{paths}])", **array})
    cells = {f"x{number}": _shown(f"v[{n}]", fields[number]) for n, number in enumerate(outer, start=1)}
    if arrays:
        # A row without elements stays a row, so that its reject can be found in the file.
        staging.cursor.execute(
            """CREATE OR REPLACE TEMP VIEW unfolded AS SELECT place, v, unnest(e) AS e, generate_subscripts(e, 1) AS ordinal
               FROM (SELECT place, v, CASE WHEN len(a) > 0 THEN a ELSE [NULL::JSON] END AS e FROM parsed)"""
        )
        steps = ", ".join(literal(fields[number].inner or "$") for number in inner)
        staging.name(
            "elements", {"v": "v", "ordinal": "ordinal", "w": f"json_extract_string(e, [{steps}])"}, "unfolded"
        )
        cells |= {f"x{number}": f"w[{n}]" for n, number in enumerate(inner, start=1)}
        staging.name("cells", {**cells, "ordinal": "ordinal"}, "elements")
    else:
        staging.name("cells", {**cells, "ordinal": "1"}, "parsed")
    return "cells"


def _shown(value: str, found: Field) -> str:
    """A list of texts as one text."""
    if not found.texts:
        return value
    return f"CASE WHEN starts_with({value}, '[') THEN array_to_string(from_json({value}, '[\"VARCHAR\"]'), ', ') ELSE {value} END"


def _left_out(staging: Staging, source: str, action: str, known: str, part: Part) -> list[str]:
    rows = staging.cursor.execute(
        f"SELECT {action} AS word, count(*) AS n FROM {source} WHERE {action} NOT IN ({known}) GROUP BY word ORDER BY n DESC, word"  # noqa: S608 - our own
    ).fetchall()
    if not rows or part.kind != "events":
        return []
    shown = ", ".join(f"{word or 'no word'} ({count:,})" for word, count in rows[:4]) + (
        ", ..." if len(rows) > 4 else ""
    )
    return [
        f"left out, no action of a shopper on a product: {shown}; --map events.action:{rows[0][0] or 'WORD'}=click takes one in"
    ]


def _with_queries(staging: Staging, source: str, asked: str, values: dict[str, str]) -> str:
    """A view in which a row without the words of its query has those that were read under the query's id, and keeps
    the words of this file for the next one's."""
    words = f"blank({values.get('query', 'NULL::VARCHAR')})"
    staging.cursor.execute(
        f"""CREATE TABLE IF NOT EXISTS queries_by_id (query_id VARCHAR, query VARCHAR);
            INSERT INTO queries_by_id SELECT query_id, min(query) FROM (SELECT blank({asked}) AS query_id, {words} AS query FROM {source})
                WHERE query_id <> '' AND query <> '' AND query_id NOT IN (SELECT query_id FROM queries_by_id) GROUP BY query_id;
            CREATE OR REPLACE TEMP VIEW with_queries AS SELECT rows.*, q.query AS query_of_id FROM {source} AS rows
                LEFT JOIN queries_by_id AS q ON q.query_id = blank(rows.{asked}) ORDER BY place"""  # noqa: S608 - our own
    )
    values["query"] = f"coalesce(nullif({words}, ''), query_of_id)"
    return "with_queries"


def _grouped(staging: Staging, values: Mapping[str, str], source: str) -> str:
    """A view with a row a product: of each column the last value that is not empty."""
    inner = ", ".join(f"blank({value}) AS {ours}" for ours, value in values.items())
    last = ", ".join(f"arg_max({ours}, place) FILTER ({ours} <> '') AS {ours}" for ours in values if ours != "item_id")
    staging.cursor.execute(
        f"""CREATE OR REPLACE TEMP VIEW products AS SELECT min(place) AS place, item_id{", " + last if last else ""}
            FROM (SELECT place, {inner} FROM {source}) WHERE item_id <> '' GROUP BY item_id ORDER BY 1"""  # noqa: S608 - our own
    )
    return "products"


def with_extras(own: str, extras: Mapping[str, str]) -> str:
    """The attributes: the file's own JSON object, if any, and its columns that are not ours."""
    if not extras:
        return own
    pairs = ", ".join(f"{literal(name)}, nullif(blank({place}), '')" for name, place in extras.items())
    return (
        f"CASE WHEN blank({own}) = '' THEN json_object({pairs})::VARCHAR "
        f"WHEN json_valid({own}) THEN json_merge_patch({own}, json_object({pairs}))::VARCHAR ELSE {own} END"
    )


def best_of_array(look: Look, array: str, ours: str) -> str | None:
    """The name inside an array of objects that is likeliest one of our columns: the id in `items`, where someone
    maps `items`."""
    ranked = [
        (found, name) for name in look.names if name.startswith(array + ".") and (found := rank(ours, name)) is not None
    ]
    return min(ranked)[1] if ranked else None
