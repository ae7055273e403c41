"""What files are, told from their columns and first rows: a format that is known, a known make's export, or a table whose columns are guessed.

What is guessed is said in the reading's notes. Where user, time or product cannot be told, the error lists the columns and the --map line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from recgraph.errors import IngestError
from recgraph.store.ingest.amazon import AMAZON, M2
from recgraph.store.ingest.exports import EXPORTS, Export
from recgraph.store.ingest.files import SourceFile
from recgraph.store.ingest.names import ORDER, RATING, looks_like_action, looks_like_time, plain_name, rank
from recgraph.store.ingest.parts import COLUMNS, Column, Look, Part, look_at
from recgraph.store.ingest.research import INSTACART, MIND, OPEN_ECOMMERCE, SEQUENCES, UCI_ESHOP
from recgraph.store.ingest.staging import Format, Reading, Staging
from recgraph.store.ingest.tables import RECBOLE, extras_of, mapped, names_of, read_look

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
    (UCI_ESHOP, "events", "", ("session ID", "page 2 (clothing model)", "order")),
    (INSTACART, "orders", "", ("order_id", "user_id", "eval_set", "order_number")),
    (INSTACART, "events", "", ("order_id", "product_id", "add_to_cart_order")),
    (INSTACART, "products", "", ("product_id", "product_name", "aisle_id", "department_id")),
    (INSTACART, "aisles", r"aisles\.csv", ("aisle_id", "aisle")),
    (INSTACART, "departments", r"departments\.csv", ("department_id", "department")),
    (MIND, "events", "behaviors.*", ()),
    (MIND, "items", r"news.*\.tsv", ()),
)
_PURCHASES, _CARTS = re.compile(r"order|purchas|sale|transact|invoice|kauf|bestell|receipt|basket", re.I), re.compile(r"cart", re.I)
_BARE_NAMES = frozenset("name nom nombre label text bezeichnung titel title".split())  # of a file of orders this may be the customer's
_OUTER = ("action", "event", "eventtype", "eventname", "behavior", "behaviortype", "behaviour", "actiontype", "actionname")


@dataclass(frozen=True)
class _Found:
    """What one file is. `parts` are how it is read, or `form` and the file's `kind` in it; neither: known, and holding nothing for us."""

    look: Look
    name: str
    parts: tuple[Part, ...] = ()
    notes: tuple[str, ...] = ()
    form: Format | None = None
    kind: str = ""


def read_auto(staging: Staging, files: Sequence[SourceFile]) -> None:
    """Finds out what each file is and reads it. IngestError where none is anything, or the mapping names what no file has."""
    found, unknown = list[_Found](), list[IngestError]()
    used = set[str]()
    for source in [sheet for file in files for sheet in staging.desk.sheets(file)]:
        try:
            one = _recognised(staging, source, used)
        except IngestError as error:
            unknown.append(error)
            continue
        found.append(one)
    found = _with_titles_of_sequences(found, unknown, staging)
    if not any(one.parts or one.form for one in found):
        raise unknown[0] if unknown else IngestError(f"Nothing to read in {', '.join(str(source) for source in files)}.")
    for key, given in staging.mapping.items():
        if ":" not in key and not given.startswith("=") and key not in used:
            every = "; ".join(f"{one.look.source.filename}: {', '.join(one.look.names)}" for one in found)
            raise IngestError(f"--map {key}={given}: no file has a column '{given}' ({every}).")
    staging.readings += [Reading(SourceFile("", files[0].path), "not read", (), (str(error),)) for error in unknown]
    for one in sorted(found, key=lambda one: not (one.parts and one.parts[0].kind == "items")):
        if one.form is None and one.parts:
            read_look(staging, one.look, one.name, one.parts, one.notes)
        elif one.form is None:
            staging.readings.append(Reading(one.look.source, one.name, (), ("holds nothing that is needed",)))
    for form in {one.form.name: one.form for one in found if one.form is not None}.values():
        order = list(form.kinds)
        sources = [replace(one.look.source, kind=one.kind) for one in found if one.form is form]
        sources.sort(key=lambda source: order.index(source.kind))
        staging.readings += [Reading(source, f"{form.name}: {source.kind}") for source in sources]
        form.read(staging, sources)


def _recognised(staging: Staging, source: SourceFile, used: set[str]) -> _Found:
    look = look_at(staging, source)
    if form := _format_of(look):
        return _Found(look, form[0].name, form=form[0], kind=form[1])
    if _is_sequences(staging, look):
        return _Found(look, SEQUENCES.name, form=SEQUENCES, kind="events")
    given = {}
    for kind in COLUMNS:
        look, values, lacking = mapped(staging, look, kind)
        given[kind] = values
        used |= {f"{kind}.{column}" for column in values}
    export = next((export for export in EXPORTS if _is_export(export, look)), None)
    if export is None:
        return _guessed(look, given, staging)
    parts = [replace(part, values={**part.values, **given[part.kind]}) for part in export.parts]
    if export.extras:
        parts = [replace(part, extras=_unused(look, parts, staging)) if part.kind == "items" else part for part in parts]
    return _Found(look, export.name, tuple(parts))


def _unused(look: Look, parts: Sequence[Part], staging: Staging) -> tuple[str, ...]:
    named = {plain_name(name) for part in parts for value in part.values.values() for name in re.findall(r"[\w. ]+", str(value))}
    return tuple(name for name in extras_of(look, [], staging) if plain_name(name) not in named)


def _format_of(look: Look) -> tuple[Format, str] | None:
    lower = {name.lower() for name in look.names}
    for form, kind, pattern, columns in _FORMATS:
        if (pattern and not re.fullmatch(pattern, look.source.filename, re.IGNORECASE)) or (not pattern and not columns):
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
    if look.form != "csv" or (look.layout and len(look.names) > 1 and not re.search("sequence", look.source.filename, re.I)):
        return False
    with staging.desk.head(look.source).path.open(encoding="utf-8", errors="replace") as text:
        lines = [line.split() for _, line in zip(range(50), text, strict=False) if line.strip()]
    return sum(len(words) > 1 for words in lines) > len(lines) / 2 and not any("," in word or ";" in word for words in lines for word in words)


def _with_titles_of_sequences(found: list[_Found], unknown: list[IngestError], staging: Staging) -> list[_Found]:
    """Beside sequences, a table of an item and its title belongs to them, whatever its columns are called."""
    if not any(one.form is SEQUENCES for one in found):
        return found
    return [
        replace(one, form=SEQUENCES, kind="items", parts=()) if one.form is None and one.look.form == "csv" and _is_titles(one) else one for one in found
    ]


def _is_titles(one: _Found) -> bool:
    return (not one.parts and len(one.look.names) == 2) or one.name == "titles"


def _is_export(export: Export, look: Look) -> bool:
    if export.files:
        return len(look.names) == export.width and look.headless and bool(re.fullmatch(export.files, look.source.filename, re.IGNORECASE))
    return not look.headless and export.fits(look.plain)


# -- files of unknown make ----------------------------------------------------------------------------------------------------------


def _guessed(look: Look, given: dict[str, dict[str, str | Column]], staging: Staging) -> _Found:
    guess = _Guess(look, given)
    events, exposures = guess.events(), guess.exposures()
    if events:
        parts = [Part("events", events)]
        if items := guess.items_of_events(events):
            parts.append(Part("items", items, grouped=True))
        return _Found(look, "orders or events" if items else "events", tuple(parts), tuple(guess.notes))
    if exposures:
        return _Found(look, "exposures", (Part("exposures", exposures),), tuple(guess.notes))
    if items := guess.items():
        extras = extras_of(look, list(items.values()), staging)
        return _Found(look, "products", (Part("items", items, extras=extras),), tuple(guess.notes))
    if _is_id_and_title(look) and not given["events"]:
        first, second = look.names
        return _Found(look, "titles", (Part("items", {"item_id": Column(first), "title": Column(second)}),), ("two columns: an id and a title",))
    raise guess.error()


def _is_id_and_title(look: Look) -> bool:
    """Two columns, the first of words that are all different: not prose with a comma in each line."""
    if len(look.names) != 2 or look.layout is None or not look.layout.even:
        return False
    words = look.values[0]
    return len(set(words)) == len(words) > 0 and not any(re.search(r"\s", word) for word in words) and bool(look.values[1])


class _Guess:
    """The columns of one file by their names and values. `given` is what the mapping says already."""

    def __init__(self, look: Look, given: dict[str, dict[str, str | Column]]) -> None:
        self.look, self.given, self.notes = look, given, list[str]()
        self._arrays = {found.name: found.outer for found in look.fields if found.inner}

    def _best(self, ours: str, without: Sequence[str] = ()) -> str | None:
        """The column with the best name for one of ours; arrays of objects themselves are none."""
        names = [name for name in self.look.names if name not in without and not any(other.startswith(name + ".") for other in self.look.names)]
        ranked = [(found, number, name) for number, name in enumerate(names) if (found := rank(ours, name)) is not None]
        return min(ranked)[2] if ranked else None

    def _time(self) -> str | None:
        named = sorted((found, number, name) for number, name in enumerate(self.look.names) if (found := rank("ts", name)) is not None)
        for _, _, name in named:
            values = self.look.sample(name)
            if not values or sum(looks_like_time(value) for value in values) * 2 >= len(values) or _only_numbers(values):
                return name
        alike = [
            name
            for name, values in zip(self.look.names, self.look.values, strict=True)
            if values and all(looks_like_time(value) and re.search(r"[-/.:]|^\d{10,}$", value) for value in values[:200])
        ]
        if len(alike) == 1:
            self.notes.append(f"time is taken from '{alike[0]}', whose values look like times")
            return alike[0]
        return None

    def events(self) -> dict[str, str | Column]:
        """The columns of events, or {} where the file tells of none: someone, a time, and a product or a query."""
        values = dict(self.given["events"])
        found = {ours: self._best(ours) for ours in ("user_id", "session_id", "item_id", "query", "position", "quantity")}
        if found["position"] and not found["query"]:
            found["position"] = None
        for ours, name in found.items():
            if name and ours not in values:
                values[ours] = Column(name)
        if self.given["events"] and "item_id" not in values and "item_id" in self.given["items"]:
            values["item_id"] = self.given["items"]["item_id"]
        if "ts" not in values and (name := self._time()):
            values["ts"] = Column(name)
            if at := self._time_of_day(name):
                values["ts"] = f"blank({{{name}}}) || ' ' || blank({{{at}}})"
        if not ("user_id" in values or "session_id" in values) or "ts" not in values or not ("item_id" in values or "query" in values):
            return {}
        if "action" not in values:
            values["action"] = self._action(values)
        if isinstance(user := values.get("user_id"), Column) and "mail" in plain_name(user.name):
            self.notes.append(f"users are told apart by '{user.name}': no other column says who")
        return values

    def _time_of_day(self, date: str) -> str | None:
        names = [name for name in self.look.names if name != date and plain_name(name) in ("time", "hour", "uhrzeit", "zeit", "heure", "hora", "timeofday")]
        clock = [name for name in names if self.look.sample(name) and all(re.fullmatch(r"\d{1,2}:\d\d(:\d\d(\.\d+)?)?", v) for v in self.look.sample(name))]
        return clock[0] if clock and not any(":" in value for value in self.look.sample(date)) else None

    def _action(self, values: dict[str, str | Column]) -> str | Column:
        taken = {value.name for value in values.values() if isinstance(value, Column)}
        ranked = sorted((found, name) for name in self.look.names if name not in taken and (found := rank("action", name)) is not None)
        for _, name in ranked:
            sample = self.look.sample(name)
            if any(looks_like_action(value) for value in sample) or (plain_name(name.split(".")[-1]) in _OUTER and not _only_numbers(sample)):
                return Column(name)
        plain = {plain_name(name.split(".")[-1]) for name in self.look.names}
        if "item_id" not in values:
            return "=search"
        if plain & ORDER or _PURCHASES.search(self.look.source.filename) or "quantity" in values:
            self.notes.append("each row is taken for a purchase; --map events.action==click says otherwise")
            return "=purchase"
        if plain & RATING:
            self.notes.append("each rating is taken for a purchase; --map events.action==click says otherwise")
            return "=purchase"
        action = "cart" if _CARTS.search(self.look.source.filename) else "click"
        self.notes.append(f"no column says what was done: each row is taken for a {action}; --map events.action==purchase says otherwise")
        return f"={action}"

    def items_of_events(self, events: dict[str, str | Column]) -> dict[str, str | Column]:
        """What a file of events says of its products; {} where it says too little to name one."""
        if "item_id" not in events:
            return {}
        values, taken = dict(self.given["items"]), [value.name for value in events.values() if isinstance(value, Column)]
        values.setdefault("item_id", events["item_id"])
        array = self._arrays.get(values["item_id"].name) if isinstance(values["item_id"], Column) else None
        apart = [name for name in self.look.names if self._arrays.get(name) not in (array, None) or (array and self._arrays.get(name) is None)]
        for ours in ("title", "category", "brand", "color", "size", "price", "description", "parent_id"):
            name = self._best(ours, [*taken, *apart])
            if name is None or ours in values or (ours == "title" and not array and plain_name(name) in _BARE_NAMES and "." not in name):
                continue
            values[ours] = Column(name)
            taken.append(name)
        return values if any(name in values for name in ("title", "category", "brand")) else {}

    def exposures(self) -> dict[str, str | Column]:
        values = dict(self.given["exposures"])
        for ours in ("query", "item_id", "position"):
            if ours not in values and (name := self._best(ours)):
                values[ours] = Column(name)
        if "ts" not in values and (name := self._time()):
            values["ts"] = Column(name)
        return values if all(ours in values for ours in COLUMNS["exposures"]) else {}

    def items(self) -> dict[str, str | Column]:
        """The columns of products: an id, and something that describes it. A file that names users tells of no products."""
        values = dict(self.given["items"])
        if not values and self._best("user_id") and not self._best("item_id"):
            return {}
        if "item_id" not in values:
            own = next((name for name in self.look.names if plain_name(name) == "id"), None)
            named = self._best("item_id")
            name = own if own and (named is None or (rank("item_id", named) or 0) > 3) else named
            if name is None:
                return {}
            values["item_id"] = Column(name)
            if named and own and named != name:
                self.notes.append(f"'{name}' is taken for the product's id, '{named}' is not; --map items.item_id={named} says otherwise")
        taken = [value.name for value in values.values() if isinstance(value, Column)]
        for ours in COLUMNS["items"]:
            name = self._best(ours, taken)
            if ours not in values and name is not None:
                values[ours] = Column(name)
                taken.append(name)
        return values if len(values) > 1 else {}

    def error(self) -> IngestError:
        """What could not be told, the columns, and the line that helps."""
        found = {ours: self._best(ours) for ours in ("user_id", "item_id")}
        known = ", ".join(f"{ours} is '{name}'" for ours, name in found.items() if name)
        lacking = [ours for ours, name in found.items() if not name] + ([] if self._time() else ["ts"])
        lines = " ".join(f"--map events.{ours}=NAME" for ours in lacking) or "--map items.title=NAME"
        return IngestError(
            f"{self.look.source}: its columns say neither who did what when, nor what products are{f' ({known})' if known else ''}; "
            f"{names_of(self.look)}. Say which they are, e.g. {lines}, or for products --map items.item_id=NAME --map items.title=NAME."
        )


def _only_numbers(values: Sequence[str]) -> bool:
    return all(re.fullmatch(r"\d+(\.\d+)?", value) for value in values)


AUTO = Format("auto", "files of a known make, or tables whose columns are named so that they can be told", {"file": ".*"}, read_auto)
