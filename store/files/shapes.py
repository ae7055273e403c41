"""What shape a file's rows have, and the shapes DuckDB cannot read made plain: workbooks become CSV; JSON arrays,
objects that hold an array and XML feeds become JSON lines. All in streams.

It knows rows and their names, not what they mean; `store/ingest/detect.py` does.
"""

from __future__ import annotations

import csv
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import IO, Any, Literal
from xml.parsers import expat

import ijson
import python_calamine

from recgraph.errors import IngestError
from recgraph.store.files.plain import (
    CHUNK,
    MAX_GROWTH,
    MAX_UNPACKED,
    SourceFile,
    chunks,
    is_encoding,
    is_packed,
    magic,
    new_file,
    plain_file,
)

Form = Literal["csv", "json", "parquet"]
_HEAD = 2**20  # characters looked at to find out a file's shape
_WORKBOOK = (b"PK", b"\xd0\xcf\x11\xe0")
_OF_RECORDS = ("id", "time", "timestamp", "_at", "event", "event_name", "user", "session", "customer", "email")
_RECORDS = frozenset("item entry product offer row record article".split())  # what feeds in XML call a product


@dataclass(frozen=True)
class Table:
    """A file whose rows can be read: `csv` is any delimited text, `json` has one object a line. `broken` says what
    the file lacks, and `whole` is False where only its beginning was asked for."""

    source: SourceFile
    path: Path
    form: Form
    notes: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    whole: bool = True


def sheets(source: SourceFile, scratch: Path) -> list[SourceFile]:
    """One source a sheet with rows where the file is a workbook, else the file itself."""
    if not magic(source).startswith(_WORKBOOK):
        return [source]
    book = _workbook(source, scratch)
    filled = [name for name in book.sheet_names if book.get_sheet_by_name(name).height]
    if not filled:
        raise IngestError(f"{source} is a workbook without rows.")
    return [SourceFile(source.kind, source.path, source.member, name) for name in filled]


def table(source: SourceFile, scratch: Path, encoding: str = "", limit: int = 0) -> Table:
    """The file as rows, or with `limit` about so many of its first bytes. IngestError for what is no table."""
    head = magic(source)
    if not head.strip():
        raise IngestError(f"{source} is empty.")
    if head.startswith(b"PAR1"):
        return Table(source, _whole_file(source, scratch), "parquet")
    if head.startswith(_WORKBOOK):
        return _from_workbook(source, scratch)
    if head[257:262] == b"ustar":
        raise IngestError(f"{source} is a tar archive: unpack it first, `tar xf {source.path.name}`.")
    plain = plain_file(source, scratch, encoding or _declared(head), limit)
    with plain.path.open("r", encoding="utf-8-sig", errors="replace", newline=None) as text:
        start = text.read(_HEAD)
    if start.startswith("%PDF") or start[:4096].count("\0") > 4:
        raise IngestError(f"{source} is no text: give CSV, JSON, XML, Parquet or Excel files.")
    start, made = start.lstrip(), Table(source, plain.path, "csv", plain.notes, plain.broken, plain.whole)
    if re.match(r"<(!doctype html|html)", start, re.IGNORECASE):
        raise IngestError(f"{source} is a web page, not data: was it fetched without logging in?")
    if start.startswith("<"):
        return _from_records(made, _xml_records(plain.path), scratch, "XML")
    if start.startswith("["):
        return _from_records(made, _json_records(plain.path, "item"), scratch, "a JSON array")
    if start.startswith("{") or source.filename.lower().endswith((".jsonl", ".ndjson")):
        return _from_objects(made, start, scratch)
    return made


def _declared(head: bytes) -> str:
    """The encoding that an XML file says it has, where it is not a Unicode one."""
    found = re.match(rb"<\?xml[^>]*encoding=[\"']([\w-]+)", head)
    name = found[1].decode("ascii").lower() if found else ""
    return name if name and not name.startswith("utf") and is_encoding(name) else ""


def _whole_file(source: SourceFile, scratch: Path) -> Path:
    """Parquet files and workbooks are read from their end: what is packed is unpacked whole."""
    if not source.member and not is_packed(source.path):
        return source.path
    target = new_file(scratch)
    with target.open("wb") as copy:
        copy.writelines(chunks(source, lambda reason: None))
    return target


# -- workbooks -------------------------------------------------------------------------------------------------------


def _workbook(source: SourceFile, scratch: Path) -> python_calamine.CalamineWorkbook:
    path = _whole_file(source, scratch)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(info.file_size for info in archive.infolist())
            if size > MAX_UNPACKED and size > MAX_GROWTH * path.stat().st_size:
                raise IngestError(
                    f"{source} unpacks to more than {MAX_GROWTH} times its size: a damaged or hostile workbook."
                )
        return python_calamine.CalamineWorkbook.from_path(str(path))
    except (python_calamine.CalamineError, zipfile.BadZipFile, OSError) as error:
        raise IngestError(f"{source} cannot be read as a workbook: {error}") from None


def _from_workbook(source: SourceFile, scratch: Path) -> Table:
    book = _workbook(source, scratch)
    name = source.sheet or book.sheet_names[0]
    target = new_file(scratch)
    with target.open("w", encoding="utf-8", newline="") as copy:
        writer = csv.writer(copy, lineterminator="\n")
        try:
            writer.writerows([_cell(value) for value in row] for row in book.get_sheet_by_name(name).iter_rows())
        except python_calamine.CalamineError as error:
            raise IngestError(f"{source} cannot be read as a workbook: {error}") from None
    return Table(source, target, "csv", (f"sheet {name}",))


def _cell(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime):
        return value.isoformat(" ")
    return value.isoformat() if isinstance(value, date) else str(value).replace("\r", " ").replace("\n", " ")


# -- JSON and XML ----------------------------------------------------------------------------------------------------


def _from_objects(made: Table, start: str, scratch: Path) -> Table:
    """JSON lines as they are; objects over several lines, one after the other or in an array inside one object,
    become lines."""
    lines = [line for line in start.splitlines()[:100] if line.strip()]
    whole_objects = sum(_is_object(line) for line in lines)
    as_it_is = Table(made.source, made.path, "json", made.notes, made.broken, made.whole)
    if (len(lines) > 1 and whole_objects * 2 >= len(lines)) or not _opens_object(start):
        return as_it_is
    array = _array_path(made.path)
    if whole_objects == len(lines) and not array:
        return as_it_is
    prefix, shape = (f"{array}.item", f"JSON, the array {array}") if array else ("", "JSON objects")
    return _from_records(made, _json_records(made.path, prefix), scratch, shape)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _opens_object(start: str) -> bool:
    """JSON rather than Python's way of writing a dict: the first name stands in double quotes."""
    return start.startswith("{") and start[1:].lstrip().startswith(('"', "}"))


def _array_path(path: Path) -> str:
    """Where a single object keeps its records: its longest array of objects. "" for several objects, and for one
    that says who, when or what by itself: that is a record with an array in it."""
    arrays, names, tops = Counter[str](), set[str](), 0
    try:
        with path.open("rb") as stream:
            for number, (prefix, event, value) in enumerate(ijson.parse(stream, multiple_values=True)):
                tops += event == "start_map" and not prefix
                if event == "map_key" and not prefix:
                    names.add(value.lower())
                if event == "start_map" and prefix.endswith(".item") and ".item." not in prefix:
                    arrays[prefix.removesuffix(".item")] += 1
                if number > 200_000 or tops > 1:
                    break
    except (ijson.JSONError, UnicodeDecodeError):
        pass  # a broken or cut end; what was seen before it counts
    is_record = any(name.endswith(_OF_RECORDS) for name in names)
    return arrays.most_common(1)[0][0] if arrays and tops == 1 and not is_record else ""


class _WithoutNan:
    """A stream of JSON in which NaN and Infinity, which Python and pandas write and JSON does not know, are null."""

    _NUMBERS = re.compile(rb"([:\[,]\s*)(?:NaN|-?Infinity)(?=\s*[,\]}])")

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._rest = stream, b""

    def read(self, size: int = -1) -> bytes:
        part = self._stream.read(max(size, CHUNK)) if size else b""
        text = self._NUMBERS.sub(rb"\1null", self._rest + part)
        if not part:
            self._rest = b""
            return text
        cut = max(len(text) - 64, 0)  # a word may go on in the next part
        self._rest = text[cut:]
        return text[:cut] if cut else self.read(size)


def _json_records(path: Path, prefix: str) -> Iterator[Any]:
    with path.open("rb") as stream:
        if stream.read(3) != b"\xef\xbb\xbf":
            stream.seek(0)
        yield from ijson.items(_WithoutNan(stream), prefix, use_float=True, multiple_values=True)


def _xml_records(path: Path) -> Iterator[dict[str, str]]:
    """A dictionary of texts for each product of a feed; names without their namespace, a name that comes twice has
    its texts joined."""
    done: list[dict[str, str]] = []
    record: dict[str, str] | None = None
    tags, text = list[str](), list[str]()

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal record
        name = tag.rpartition(":")[2]
        if record is None and name.lower() in _RECORDS:
            record = dict(attributes)
            tags.clear()
        elif record is not None:
            tags.append(name)
            record |= {f"{name}.{key}": value for key, value in attributes.items() if key in ("href", "id")}
        text.clear()

    def end(tag: str) -> None:
        nonlocal record
        if record is None:
            return
        if not tags:
            done.append(record)
            record = None
            return
        name, value = ".".join(tags), "".join(text).strip()
        if value:
            record[name] = f"{record[name]}, {value}" if name in record else value
        tags.pop()
        text.clear()

    def entity(*_: Any) -> None:
        raise expat.ExpatError("it declares entities, which feeds have no use for and attacks have")

    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text.append
    parser.EntityDeclHandler = entity
    with path.open("rb") as stream:
        while part := stream.read(CHUNK):
            try:
                parser.Parse(part, False)
            finally:
                yield from done
                done.clear()
        parser.Parse(b"", True)


def _from_records(made: Table, records: Iterator[Any], scratch: Path, shape: str) -> Table:
    """JSON lines of the records; where the file breaks, what follows is lost and said."""
    target, broken, count = new_file(scratch), list(made.broken), 0
    with target.open("w", encoding="utf-8", newline="") as copy:
        try:
            for record in records:
                count += 1
                inner = (
                    record.get("_source") if isinstance(record, dict) else None
                )  # a hit of Elasticsearch or OpenSearch
                copy.write(json.dumps(inner if isinstance(inner, dict) else record, ensure_ascii=False) + "\n")
        except (ijson.JSONError, expat.ExpatError, UnicodeError, RecursionError) as error:
            if made.whole:
                broken.append(f"{shape} breaks after record {count}: {str(error).strip().splitlines()[0]}")
    if not count:
        raise IngestError(f"{made.source} holds no records ({shape}){': ' + broken[0] if broken else ''}.")
    return Table(made.source, target, "json", (*made.notes, shape), tuple(broken), made.whole)
