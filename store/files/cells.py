"""Delimited files whose cells hold JSON: the arrays of products that an export flattened into one column.

Such a file becomes JSON lines, so that its arrays are unfolded like those of any JSON. It knows what a product's id is
called, not what the file is.
"""

from __future__ import annotations

import ast
import csv
import json
from pathlib import Path
from typing import Any

from recgraph.store.files.layout import Layout, layout_of
from recgraph.store.files.names import rank
from recgraph.store.files.shapes import Table

_CELL = 8_000_000  # characters of one cell: Python's own limit is too low for an order of a hundred lines


def with_arrays(made: Table, target: Path) -> Table:
    """The file as JSON lines in `target` where a column holds arrays of products, else the file as it is. Rows keep
    their line numbers."""
    layout = layout_of(made.path)
    if made.form != "csv" or not layout.header or len(layout.delimiter) > 1:
        return made
    columns = [number for number in range(len(layout.names)) if _holds_products(layout, number)]
    if not columns:
        return made
    csv.field_size_limit(_CELL)
    nested = [number for number in range(len(layout.names)) if _array(_first(layout, number)) is not None]
    with (
        made.path.open(encoding="utf-8-sig", errors="replace", newline="") as text,
        target.open("w", encoding="utf-8", newline="") as copy,
    ):
        reader = csv.reader(
            text,
            delimiter=layout.delimiter,
            quotechar=layout.quote or None,
            quoting=csv.QUOTE_MINIMAL if layout.quote else csv.QUOTE_NONE,
            escapechar="\\" if layout.escape == "\\" else None,
            doublequote=layout.escape != "\\",
        )
        written = 0
        for cells in reader:
            if reader.line_num <= layout.skip + 1:
                continue
            row: dict[str, Any] = dict(zip(layout.names, cells, strict=False))
            for number in nested:
                if number < len(cells) and (array := _array(cells[number])) is not None:
                    row[layout.names[number]] = array
            copy.write("\n" * (reader.line_num - written - 1) + json.dumps(row, ensure_ascii=False) + "\n")
            written = reader.line_num
    named = ", ".join(layout.names[number] for number in columns)
    return Table(made.source, target, "json", (*made.notes, f"arrays in {named}"), made.broken, made.whole)


def _holds_products(layout: Layout, number: int) -> bool:
    """Whether a column's cells are arrays of objects with a product's id."""
    array = _array(_first(layout, number)) or []
    keys = {key for element in array if isinstance(element, dict) for key in element}
    return any(rank("item_id", f"{layout.names[number]}.{key}") is not None for key in keys)


def _first(layout: Layout, number: int) -> str:
    """The first cell of a column that says something."""
    cells = (row[number].strip() for row in layout.rows if number < len(row))
    return next((cell for cell in cells if cell not in ("", "[]")), "")


def _array(cell: str) -> list[Any] | None:
    """The list that a cell spells, in JSON or as Python writes it."""
    if not cell.lstrip().startswith("["):
        return None
    try:
        found = json.loads(literal_as_json(cell.strip()))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def literal_as_json(text: str) -> str:
    """A Python literal as JSON; what is neither as it is."""
    if not text or is_json(text):
        return text
    try:
        return json.dumps(ast.literal_eval(text), ensure_ascii=False).replace("\x01", " ")
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
