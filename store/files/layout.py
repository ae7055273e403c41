"""How a delimited file is laid out, told from its beginning: delimiter, quotes, header, and what stands above the
table.

It knows rows of cells, not what the columns mean; `store/ingest/detect.py` does.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recgraph.store.files.names import KNOWN, looks_like_time, plain_name

DELIMITERS = (",", ";", "\t", "|", "::")
_HEAD = 262_144  # characters from which a layout is told


@dataclass(frozen=True)
class Layout:
    """How a delimited file is laid out: `skip` lines before its header or, where `header` is False, before its first
    row. `rows` are the first rows under the names; columns of a file without header are named by their numbers from
    1."""

    names: tuple[str, ...]
    delimiter: str
    quote: str
    escape: str
    skip: int
    header: bool
    rows: tuple[tuple[str, ...], ...]

    @property
    def even(self) -> bool:
        """Whether nearly all rows have a cell for each name."""
        return sum(len(row) == len(self.names) for row in self.rows) > 0.95 * len(self.rows)


def layout_of(
    path: Path, delimiters: Sequence[str] = DELIMITERS, titled: bool | None = None, quote: str | None = None
) -> Layout:
    """The layout of UTF-8 text: the delimiter that gives the most even rows, and a header where the first row reads
    like names. `titled` and `quote` say so where it is known."""
    with path.open("r", encoding="utf-8-sig", errors="replace", newline="") as stream:
        text = stream.read(_HEAD)
        cut = bool(stream.read(1))
    preset = re.match(r'"?sep=(.)"?\r?\n', text)  # Excel's own first line
    offset = 1 if preset else 0
    text = text[preset.end() :] if preset else text
    if cut:
        text = text[: text.rfind("\n") + 1] or text
    found = [
        _parsed(text, delimiter, '"' if quote is None else quote)
        for delimiter in ([preset[1]] if preset else delimiters)
    ]
    best = max(found, key=lambda parsed: (parsed.even / max(len(parsed.rows), 1), parsed.width))
    if quote is None and best.delimiter == "\t":
        bare = _parsed(
            text, "\t", ""
        )  # 16" Wig: in some files of tabs a quote is an inch, and swallows rows where it is taken for more
        best = bare if bare.even > best.even else best
    return _laid_out(best, offset, titled)


@dataclass(frozen=True)
class _Parsed:
    delimiter: str
    quote: str
    escape: str
    rows: list[tuple[int, list[str]]]  # (lines before the row, its cells)
    width: int
    even: int  # rows of that width; 0 where it is 1


def _parsed(text: str, delimiter: str, quote: str) -> _Parsed:
    escape = "\\" if quote and '\\"' in text and '""' not in text.replace('\\""', "") else quote
    rows = list[tuple[int, list[str]]]()
    if len(delimiter) > 1:
        rows = [(number, line.split(delimiter)) for number, line in enumerate(text.splitlines())]
    else:
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=delimiter,
            quotechar=quote or None,
            quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
            escapechar="\\" if escape == "\\" else None,
            doublequote=escape != "\\",
        )
        before = 0
        try:
            for cells in reader:
                rows.append((before, cells))
                before = reader.line_num
        except csv.Error:
            pass  # a field longer than any name or value; the rows before it tell enough
    rows = [(before, cells) for before, cells in rows if any(cell.strip() for cell in cells)]
    widths = Counter(len(cells) for _, cells in rows)
    width, even = max(widths.items(), key=lambda pair: (pair[1], pair[0]), default=(1, 0))
    return _Parsed(delimiter, quote, escape, rows, width, even if width > 1 else 0)


def _laid_out(parsed: _Parsed, offset: int, titled: bool | None) -> Layout:
    rows = parsed.rows
    while len(rows) > 1 and parsed.width > 1 and len([cell for cell in rows[0][1] if cell.strip()]) <= 1:
        rows = rows[1:]  # a report's own heading over the table
    if not rows:
        return Layout((), parsed.delimiter, parsed.quote, parsed.escape, offset, True, ())
    skip, first = offset + rows[0][0], [cell.strip() for cell in rows[0][1]]
    body = [cells for _, cells in rows[1:]]
    header = titled if titled is not None else _reads_like_names(first, body)
    if not header:
        names = [str(number) for number in range(1, parsed.width + 1)]
        return Layout(
            tuple(names),
            parsed.delimiter,
            parsed.quote,
            parsed.escape,
            skip,
            False,
            tuple(tuple(cells) for _, cells in rows[:1000]),
        )
    if body and len(first) == parsed.width - 1 and all(len(cells) == parsed.width for cells in body[:20]):
        # Rows that end in a delimiter, or R's row names, which have no name themselves.
        first = [*first, ""] if not any(cells[-1].strip() for cells in body[:20]) else ["", *first]
    first[0] = first[0].lstrip("#").strip() or first[0]
    return Layout(
        tuple(first),
        parsed.delimiter,
        parsed.quote,
        parsed.escape,
        skip,
        True,
        tuple(tuple(cells) for cells in body[:1000]),
    )


def _reads_like_names(first: Sequence[str], body: Sequence[Sequence[str]]) -> bool:
    if any(plain_name(cell) in KNOWN for cell in first):
        return True
    if any(re.fullmatch(r"-?\d+([.,]\d+)?", cell) or looks_like_time(cell) for cell in first):
        return False
    if any(len(cell) > 60 for cell in first):
        return False
    sample = [cells for cells in body[:50] if len(cells) == len(first)]
    typed = any(
        sample and all(re.search(r"\d", cells[number]) for cells in sample) and not re.search(r"\d", cell)
        for number, cell in enumerate(first)
    )
    return typed or not any(re.search(r"\d|\s", cell) for cell in first)
