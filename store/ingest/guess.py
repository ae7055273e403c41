"""The columns of a file of unknown make, guessed by their names and first values. What is uncertain is said in notes.

Where user, time or product cannot be told, the error lists the columns and the --map line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from recgraph.errors import IngestError
from recgraph.store.files.names import ORDER, RATING, looks_like_action, looks_like_time, plain_name, rank
from recgraph.store.ingest.parts import COLUMNS, FileColumn, Look
from recgraph.store.ingest.tables import names_of

_PURCHASES, _CARTS = (
    re.compile(r"order|purchas|sale|transact|invoice|kauf|bestell|receipt|basket", re.I),
    re.compile(r"cart", re.I),
)
_BARE_NAMES = frozenset(
    "name nom nombre label text bezeichnung titel title".split()
)  # in a file of orders maybe the customer's
_OUTER = frozenset("action event eventtype eventname behavior behaviortype behaviour actiontype actionname".split())


class Guess:
    """The columns of one file by their names and values. `given` is what the mapping says already."""

    def __init__(self, look: Look, given: dict[str, dict[str, str | FileColumn]]) -> None:
        self.look, self.given, self.notes = look, given, list[str]()
        self._arrays = {found.name: found.outer for found in look.fields if found.inner}

    def _best(self, ours: str, without: Sequence[str] = ()) -> str | None:
        """The column with the best name for one of ours; arrays of objects themselves are none."""
        names = [
            name
            for name in self.look.names
            if name not in without and not any(other.startswith(name + ".") for other in self.look.names)
        ]
        ranked = [(found, number, name) for number, name in enumerate(names) if (found := rank(ours, name)) is not None]
        return min(ranked)[2] if ranked else None

    def _time(self) -> str | None:
        named = sorted(
            (found, number, name)
            for number, name in enumerate(self.look.names)
            if (found := rank("ts", name)) is not None
        )
        for _, _, name in named:
            values = self.look.sample(name)
            if (
                not values
                or sum(looks_like_time(value) for value in values) * 2 >= len(values)
                or _only_numbers(values)
            ):
                return name
        alike = [
            name
            for name, values in zip(self.look.names, self.look.values, strict=True)
            if values
            and all(looks_like_time(value) and re.search(r"[-/.:]|^\d{10,}$", value) for value in values[:200])
        ]
        if len(alike) == 1:
            self.notes.append(f"time is taken from '{alike[0]}', whose values look like times")
            return alike[0]
        return None

    def events(self) -> dict[str, str | FileColumn]:
        """The columns of events, or {} where the file tells of none: someone, a time, and a product or a query."""
        values = dict(self.given["events"])
        self.notes.clear()
        found = {
            ours: self._best(ours) for ours in ("user_id", "session_id", "item_id", "query", "position", "quantity")
        }
        if found["position"] and not found["query"]:
            found["position"] = None
        apart = self._apart(found["item_id"], outer=True)
        for ours, name in found.items():
            if name and ours not in values and name not in apart:
                values[ours] = FileColumn(name)
        if self.given["events"] and "item_id" not in values and "item_id" in self.given["items"]:
            values["item_id"] = self.given["items"]["item_id"]
        if "ts" not in values and (name := self._time()):
            values["ts"] = FileColumn(name)
            if at := self._time_of_day(name):
                values["ts"] = f"blank({{{name}}}) || ' ' || blank({{{at}}})"
        if (
            not ("user_id" in values or "session_id" in values)
            or "ts" not in values
            or not ("item_id" in values or "query" in values)
        ):
            return {}
        if "action" not in values:
            values["action"] = self._action(values)
        if isinstance(user := values.get("user_id"), FileColumn) and "mail" in plain_name(user.name):
            self.notes.append(f"users are told apart by '{user.name}': no other column says who")
        return values

    def _time_of_day(self, date: str) -> str | None:
        names = [
            name
            for name in self.look.names
            if name != date and plain_name(name) in ("time", "hour", "uhrzeit", "zeit", "heure", "hora", "timeofday")
        ]
        clock = [
            name
            for name in names
            if self.look.sample(name)
            and all(re.fullmatch(r"\d{1,2}:\d\d(:\d\d(\.\d+)?)?", v) for v in self.look.sample(name))
        ]
        return clock[0] if clock and not any(":" in value for value in self.look.sample(date)) else None

    def _action(self, values: dict[str, str | FileColumn]) -> str | FileColumn:
        taken = {value.name for value in values.values() if isinstance(value, FileColumn)}
        ranked = sorted(
            (found, name)
            for name in self.look.names
            if name not in taken and (found := rank("action", name)) is not None
        )
        for _, name in ranked:
            sample = self.look.sample(name)
            if any(looks_like_action(value) for value in sample) or (
                plain_name(name.split(".")[-1]) in _OUTER and not _only_numbers(sample)
            ):
                return FileColumn(name)
        plain = {plain_name(name.split(".")[-1]) for name in self.look.names}
        if "item_id" not in values:
            return "=search"
        if (
            plain & (ORDER | {"revenue", "ordervalue", "saleamount"})
            or _PURCHASES.search(self.look.source.filename)
            or "quantity" in values
        ):
            self.notes.append("each row is taken for a purchase; --map events.action==click says otherwise")
            return "=purchase"
        if plain & RATING:
            self.notes.append("each rating is taken for a purchase; --map events.action==click says otherwise")
            return "=purchase"
        action = "cart" if _CARTS.search(self.look.source.filename) else "click"
        self.notes.append(
            f"no column says what was done: each row is taken for a {action}; --map events.action==purchase says otherwise"
        )
        return f"={action}"

    def items_of_events(self, events: dict[str, str | FileColumn]) -> dict[str, str | FileColumn]:
        """What a file of events says of its products; {} where it says too little to name one."""
        if "item_id" not in events:
            return {}
        values = dict(self.given["items"])
        taken = [value.name for value in events.values() if isinstance(value, FileColumn)]
        values.setdefault("item_id", events["item_id"])
        item = values["item_id"].name if isinstance(values["item_id"], FileColumn) else None
        array, apart = self._arrays.get(item or ""), self._apart(item, outer=False)
        told_apart = any(
            re.search("firstname|lastname|customername|billingname", plain_name(n)) for n in self.look.names
        )
        for ours in ("title", "category", "brand", "color", "size", "price", "description", "parent_id"):
            name = self._best(ours, [*taken, *apart])
            if name is None or ours in values:
                continue
            if ours == "title" and not array and not told_apart and plain_name(name) in _BARE_NAMES:
                continue  # maybe the customer's name
            values[ours] = FileColumn(name)
            taken.append(name)
        return values if any(name in values for name in ("title", "category", "brand")) else {}

    def exposures(self) -> dict[str, str | FileColumn]:
        values = dict(self.given["exposures"])
        self.notes.clear()
        for ours in ("query", "item_id", "position"):
            if ours not in values and (name := self._best(ours)):
                values[ours] = FileColumn(name)
        if "ts" not in values and (name := self._time()):
            values["ts"] = FileColumn(name)
        return values if all(ours in values for ours in COLUMNS["exposures"]) else {}

    def items(self) -> dict[str, str | FileColumn]:
        """The columns of products: an id, and something that describes it. A file that names users tells of no
        products."""
        values = dict(self.given["items"])
        self.notes.clear()
        if not values and self._best("user_id") and not self._best("item_id"):
            return {}
        if any(plain_name(name) in ORDER for name in self.look.names) and not self._best("title"):
            return {}  # lines of orders, without who ordered
        if "item_id" not in values:
            values |= self._variant() or self._item_id()
        if "item_id" not in values:
            return {}
        taken = [value.name for value in values.values() if isinstance(value, FileColumn)]
        item = values["item_id"].name if isinstance(values["item_id"], FileColumn) else None
        apart = self._apart(item, outer=True)
        for ours in COLUMNS["items"]:
            name = self._best(ours, [*taken, *apart])
            if ours not in values and name is not None:
                values[ours] = FileColumn(name)
                taken.append(name)
        return values if len(values) > 1 else {}

    def _item_id(self) -> dict[str, str | FileColumn]:
        """The column of a product's id: a bare `id` before weak names such as a bar code."""
        own = next((name for name in self.look.names if plain_name(name) == "id"), None)
        named = self._best("item_id")
        name = own if own and (named is None or (rank("item_id", named) or 0) > 3) else named
        if named and own and named != name:
            self.notes.append(
                f"'{name}' is taken for the product's id, '{named}' is not; --map items.item_id={named} says otherwise"
            )
        return {"item_id": FileColumn(name)} if name else {}

    def _variant(self) -> dict[str, str | FileColumn]:
        """The id inside an array of a product's variants, which have a price or a size, and the product's own as
        their parent's."""
        for array in dict.fromkeys(self._arrays.values()):
            outside = [name for name in self.look.names if self._arrays.get(name) != array]
            if (name := self._best("item_id", outside)) and (
                self._best("price", outside) or self._best("size", outside)
            ):
                parent = self._best("item_id", list(self._arrays)) or ("id" if "id" in self.look.names else None)
                return {"item_id": FileColumn(name), **({"parent_id": FileColumn(parent)} if parent else {})}
        return {}

    def _apart(self, item: str | None, outer: bool) -> set[str]:
        """The columns that cannot stand in a row with the item's: those of other arrays and, without `outer`, those
        outside of its array."""
        array = self._arrays.get(item or "")
        return {
            name
            for name in self.look.names
            if (own := self._arrays.get(name)) != array and (own is not None or not outer)
        }

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
    return bool(values) and all(re.fullmatch(r"\d+(\.\d+)?", value) for value in values)
