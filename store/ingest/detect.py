"""What files are, told from their columns and first rows: a format that is known, a known make's export, or a table
whose columns are guessed (`guess.py`). What each was taken for is kept in the staging's readings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from recgraph.errors import IngestError
from recgraph.store.files.names import plain_name
from recgraph.store.files.plain import SourceFile
from recgraph.store.ingest.amazon import AMAZON, M2
from recgraph.store.ingest.exports import EXPORTS, Export
from recgraph.store.ingest.guess import Guess
from recgraph.store.ingest.parts import COLUMNS, FileColumn, Look, Part, look_at
from recgraph.store.ingest.research import INSTACART, MIND, OPEN_ECOMMERCE, SEQUENCES, UCI_ESHOP
from recgraph.store.ingest.staging import Format, Reading, Staging
from recgraph.store.ingest.tables import RECBOLE, extras_of, mapped, read_look

# Formats of their own, by what a file of each has: (format, kind, pattern of the file's name, columns).
_FORMATS: tuple[tuple[Format, str, str, tuple[str, ...]], ...] = (
    (RECBOLE, "events", r".*\.inter", ()),
    (RECBOLE, "items", r".*\.item", ()),
    (RECBOLE, "users", r".*\.user", ()),
    (AMAZON[2], "events", "", ("user_id", "parent_asin", "timestamp")),
    (AMAZON[2], "items", "", ("parent_asin", "main_category", "title")),
    (AMAZON[1], "events", "", ("reviewerID", "asin", "unixReviewTime")),
    (AMAZON[1], "items", "meta_.*", ("asin", "title", "category")),
    (AMAZON[0], "items", "meta_.*", ()),
    (M2, "events", "", ("prev_items", "locale")),
    (M2, "items", "", ("id", "locale", "title", "desc")),
    (OPEN_ECOMMERCE, "events", "", ("order date", "asin/isbn (product code)", "survey responseid")),
    (OPEN_ECOMMERCE, "events", "", ("user", "date", "asin", "group", "price_usd")),
    (UCI_ESHOP, "events", "", ("session ID", "page 2 (clothing model)")),
    (INSTACART, "orders", "", ("order_id", "user_id", "eval_set", "order_number")),
    (INSTACART, "events", "", ("order_id", "product_id", "add_to_cart_order")),
    (INSTACART, "products", "", ("product_id", "product_name", "aisle_id", "department_id")),
    (INSTACART, "aisles", r"aisles\.csv", ("aisle_id", "aisle")),
    (INSTACART, "departments", r"departments\.csv", ("department_id", "department")),
    (MIND, "events", "behaviors.*", ()),
    (MIND, "items", r"news.*\.tsv", ()),
)


@dataclass(frozen=True)
class _Found:
    """What one file is. `parts` are how it is read, or `form` and the file's `kind` in it; neither: known, and
    holding nothing for us."""

    look: Look
    name: str
    parts: tuple[Part, ...] = ()
    notes: tuple[str, ...] = ()
    form: Format | None = None
    kind: str = ""


def read_auto(staging: Staging, files: Sequence[SourceFile]) -> None:
    """Finds out what each file is and reads it. IngestError where none is anything, or the mapping names what no
    file has."""
    found, unknown = list[_Found](), dict[SourceFile, IngestError]()
    used = set[str]()
    sources = list[SourceFile]()
    for file in files:
        try:
            sources += staging.desk.sheets(file)
        except IngestError as error:
            unknown[file] = error
    for source in sources:
        try:
            found.append(_recognised(staging, source, used))
        except IngestError as error:
            unknown[source] = error
    if not any(one.parts or one.form for one in found):
        if unknown:  # of several, the largest is what was meant
            raise max(unknown.items(), key=lambda pair: pair[0].path.stat().st_size)[1]
        known = ", ".join(f"{one.look.source} ({one.name})" for one in found)
        raise IngestError(f"Nothing that is needed in {known}.")
    for key, given in staging.mapping.items():
        if ":" not in key and not given.startswith("=") and key not in used:
            every = "; ".join(f"{one.look.source.filename}: {', '.join(one.look.names)}" for one in found)
            raise IngestError(f"--map {key}={given}: no file has a column '{given}' ({every}).")
    for source, reason in unknown.items():
        staging.readings.append(Reading(source, "not read", (), (str(reason).removeprefix(f"{source}: "),)))
    order = ("items", "exposures", "events")  # a click's query may be told by its id alone, and stand in another file
    for one in sorted(found, key=lambda one: order.index(one.parts[0].kind) if one.parts else len(order)):
        if one.form is None and one.parts:
            read_look(staging, one.look, one.name, one.parts, one.notes)
        elif one.form is None:
            staging.readings.append(Reading(one.look.source, one.name, (), ("holds nothing that is needed",)))
    for form in {one.form.name: one.form for one in found if one.form is not None}.values():
        kinds = list(form.kinds)
        own = [replace(one.look.source, kind=one.kind) for one in found if one.form is form]
        own.sort(key=lambda source: kinds.index(source.kind))
        staging.readings += [Reading(source, f"{form.name}: {source.kind}") for source in own]
        form.read(staging, own)


def _recognised(staging: Staging, source: SourceFile, used: set[str]) -> _Found:
    look = look_at(staging, source)
    if form := _format_of(look):
        return _Found(look, form[0].name, form=form[0], kind=form[1])
    if _is_sequences(staging, look):
        return _Found(look, SEQUENCES.name, form=SEQUENCES, kind="events")
    given = {}
    for kind in COLUMNS:
        look, values, _ = mapped(staging, look, kind)
        given[kind] = values
        used |= {f"{kind}.{column}" for column in values}
    export = next((export for export in EXPORTS if _is_export(export, look)), None)
    if export is None:
        return _guessed(look, given, staging)
    parts = [replace(part, values={**part.values, **given[part.kind]}) for part in export.parts]
    if export.extras:
        parts = [
            replace(part, extras=_unused(look, parts, staging)) if part.kind == "items" else part for part in parts
        ]
    return _Found(look, export.name, tuple(parts))


def _unused(look: Look, parts: Sequence[Part], staging: Staging) -> tuple[str, ...]:
    named = {
        plain_name(name)
        for part in parts
        for value in part.values.values()
        for name in re.findall(r"[\w. ]+", str(value))
    }
    return tuple(name for name in extras_of(look, [], staging) if plain_name(name) not in named)


def _format_of(look: Look) -> tuple[Format, str] | None:
    lower = {name.lower() for name in look.names}
    for form, kind, pattern, columns in _FORMATS:
        if (pattern and not re.fullmatch(pattern, look.source.filename, re.IGNORECASE)) or (
            not pattern and not columns
        ):
            continue
        if not all(column.lower() in lower for column in columns):
            continue
        if form is RECBOLE and not all(":" in name for name in look.names):
            continue
        if form is MIND and not _is_mind(look, kind):
            continue
        if form is AMAZON[0] and look.form != "json":
            continue
        return form, kind
    return None


def _is_mind(look: Look, kind: str) -> bool:
    if look.form != "csv":
        return False
    if kind == "events":
        return len(look.names) == 5 and any(re.search(r"-[01](\s|$)", value) for value in look.values[4][:20])
    return (look.headless and len(look.names) == 8) or {"news_id", "title"} <= set(look.names)


def _is_sequences(staging: Staging, look: Look) -> bool:
    """Lines of words, of which the first is a user: no delimiter, and lines of different lengths."""
    if look.form != "csv" or (
        look.layout and len(look.names) > 1 and not re.search("sequence", look.source.filename, re.I)
    ):
        return False
    with staging.desk.head(look.source).path.open(encoding="utf-8", errors="replace") as text:
        lines = [line.split() for _, line in zip(range(50), text, strict=False) if line.strip()]
    return sum(len(words) > 1 for words in lines) > len(lines) / 2 and not any(
        "," in word or ";" in word for words in lines for word in words
    )


def _is_export(export: Export, look: Look) -> bool:
    if export.files:
        return (
            len(look.names) == export.width
            and look.headless
            and bool(re.fullmatch(export.files, look.source.filename, re.IGNORECASE))
        )
    return not look.headless and export.fits(look.plain)


def _guessed(look: Look, given: dict[str, dict[str, str | FileColumn]], staging: Staging) -> _Found:
    guess = Guess(look, given)
    if events := guess.events():
        parts = [Part("events", events)]
        if items := guess.items_of_events(events):
            parts.append(Part("items", items, grouped=True))
        return _Found(look, "orders or events" if items else "events", tuple(parts), tuple(guess.notes))
    if exposures := guess.exposures():
        return _Found(look, "exposures", (Part("exposures", exposures),), tuple(guess.notes))
    if items := guess.items():
        extras = extras_of(look, list(items.values()), staging)
        return _Found(look, "products", (Part("items", items, extras=extras),), tuple(guess.notes))
    if _is_id_and_title(look) and not given["events"]:
        first, second = look.names
        return _Found(
            look,
            "titles",
            (Part("items", {"item_id": FileColumn(first), "title": FileColumn(second)}),),
            ("two columns: an id and a title",),
        )
    raise guess.error()


def _is_id_and_title(look: Look) -> bool:
    """Two columns, the first of words that are all different: not prose with a comma in each line."""
    if len(look.names) != 2 or look.layout is None or not look.layout.even:
        return False
    words = look.values[0]
    return (
        len(set(words)) == len(words) > 0 and not any(re.search(r"\s", word) for word in words) and bool(look.values[1])
    )


AUTO = Format(
    "auto",
    "files of a known make, or tables whose columns are named so that they can be told",
    {"file": ".*"},
    read_auto,
)
