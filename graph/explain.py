"""Why each product is in the answer: one sentence made of things that really happened, with the evidence beside it.

Every reason names events of this user (by `Event.seq`), remembered queries or counts of what shoppers did, as far as
the retriever knows them; where there are none, it says no more than where the product came from. No model writes here,
so nothing can be invented.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from operator import attrgetter
from typing import Protocol

from recgraph.graph.prompts import clean
from recgraph.graph.state import Recommended, State
from recgraph.graph.wish import as_asked
from recgraph.store.records import EPOCH, Event, Item
from recgraph.tools.taken import POPULAR_DAYS, TakenItem

_DID = {"click": "looked at {}", "cart": "put {} in the cart", "purchase": "bought {}"}
_COMMON = frozenset(
    "with from your this that pack ounce ounces count women womens woman mens size color colour inch natural free "
    "best hair skin".split()
)
_FITS_SEARCH = "Its title fits the search."
_MOST_EVENTS = 5  # events named as evidence of one reason: the latest


@dataclass(frozen=True, slots=True)
class _Reason:
    text: str
    events: tuple[Event, ...] = ()
    queries: tuple[str, ...] = ()


class Evidence(Protocol):
    """What shoppers did as of the moment of the run."""

    def taken(self, item_id: str) -> TakenItem: ...
    def led_to(self, item_id: str, item_ids: Iterable[str]) -> frozenset[str]: ...


def reasons(state: State, evidence: Evidence) -> list[Recommended]:
    """The first k scored candidates as lines of the answer, rank from 1."""
    lines, seen = [], _Seen(state["history"], state["items"])
    for rank, scored in enumerate(state["scored"][: state["k"]], 1):
        item = state["items"][scored.candidate.item_id]
        reason = _as_asked(item, state, _reason(item, scored.candidate.source, state, evidence, seen))
        seqs = tuple(sorted(event.seq for event in reason.events))
        lines.append(
            Recommended(
                rank,
                item,
                scored.score,
                scored.yes,
                scored.candidate.source,
                reason.text,
                seqs,
                reason.queries,
                scored.candidate.fits,
            )
        )
    return lines


class _Seen:
    """The events of a shopper with products that are known, found by what the products share: made once for all
    products of an answer."""

    def __init__(self, history: Sequence[Event], items: Mapping[str, Item]) -> None:
        self.events = [event for event in history if event.item_id in items]
        self.items = items
        self._sharing: dict[tuple[str, ...], dict[tuple[str, ...], list[Event]]] = {}
        self._words: dict[str, tuple[str, ...]] = {}

    def sharing(self, fields: tuple[str, ...], item: Item) -> list[Event]:
        """Those with products that have the item's own values in all of these fields."""
        if fields not in self._sharing:
            groups: dict[tuple[str, ...], list[Event]] = {}
            for event in self.events:
                groups.setdefault(_values(self.items[event.item_id], fields), []).append(event)
            self._sharing[fields] = groups
        return self._sharing[fields].get(_values(item, fields), [])

    def words(self, event: Event) -> tuple[str, ...]:
        """Those of the title of an event's product."""
        if event.item_id not in self._words:
            self._words[event.item_id] = _words(self.items[event.item_id].title)
        return self._words[event.item_id]


def _values(item: Item, fields: tuple[str, ...]) -> tuple[str, ...]:
    return _getter(fields)(item)


@cache
def _getter(fields: tuple[str, ...]) -> Callable[[Item], tuple[str, ...]]:
    """Reads them at once: an answer looks at all that a shopper has seen, field by field."""
    if len(fields) == 1:
        [name] = fields
        return lambda item: (getattr(item, name),)
    return attrgetter(*fields)


def _reason(item: Item, source: str, state: State, evidence: Evidence, met: _Seen | None = None) -> _Reason:
    met = met or _Seen(state["history"], state["items"])
    seen, memory = met.events, state["memory"]
    remembered = next((hit.query for hit in memory if item.item_id in hit.item_ids), "")
    own = _own_style(item, met) or _own_taste(item, met)
    if own and remembered:
        return _Reason(f"{own.text}; also shown for “{clean(remembered, 40)}”.", own.events, (remembered,))
    if own:
        return _Reason(f"{own.text}.", own.events)
    if remembered:
        return _Reason(f"Shown to shoppers who searched “{clean(remembered, 40)}”.", (), (remembered,))
    return _by_source(item, source, seen, state, evidence) or _by_count(evidence.taken(item.item_id))


def _as_asked(item: Item, state: State, reason: _Reason) -> _Reason:
    """The reason, with what the product has of what was asked for in front: "Black boots, as asked; you looked at it
    on 3 May". A reason that would say the same again is shortened to the rest."""
    asked = as_asked(item, state.get("wish"))
    if not asked:
        return reason
    rest = reason.text
    shared, like, product = rest.partition(", like ")
    if like and shared.casefold() in asked.casefold():
        rest = f"like {product}"
    if rest == _FITS_SEARCH or rest.startswith("Fills the list"):
        return replace(reason, text=f"{asked}, as asked.")
    return replace(reason, text=f"{asked}, as asked; {rest[:1].lower()}{rest[1:]}")


def _by_source(item: Item, source: str, seen: Sequence[Event], state: State, evidence: Evidence) -> _Reason | None:
    """Why a source had a product that shares nothing nameable with the user's; None where there is nothing it can have
    gone by."""
    items, prediction = state["items"], state.get("prediction")
    if source == "sequence" and seen:
        from_items = evidence.led_to(item.item_id, [event.item_id for event in seen])
        events = tuple(event for event in seen if event.item_id in from_items)
        if not events:
            return _Reason("By what shoppers choose one after another, close to products in your history.", tuple(seen))
        return _Reason(f"Other shoppers went on to it from {_you(events[-1], items)}.", events[-_MOST_EVENTS:])
    if source == "id":
        return _by_id(item, seen, state)
    if source == "title":
        places = [
            *(["products in your history"] if seen else []),
            *(["the one the model expects next"] if prediction else []),
        ]
        return _Reason(f"Close in wording to {' or to '.join(places)}.", tuple(seen)) if places else None
    searched = bool(state["query"].strip())
    if source == "text" and seen:  # the text transformer's too, which reads both
        return _Reason(
            f"Its title goes with {'the search or with ' if searched else ''}products in your history.", tuple(seen)
        )
    if source in ("text", "lexical") and searched:
        return _Reason(_FITS_SEARCH)
    return None


def _by_id(item: Item, seen: Sequence[Event], state: State) -> _Reason | None:
    """A neighbour, in the embedding of ids, of the product that the model named, or of the newest one where it named
    none."""
    prediction = state.get("prediction")
    expected = state["items"].get(prediction.item_id) if prediction else None
    if expected and expected.item_id == item.item_id:
        return _Reason("The product the model expects next.")
    met = [event for event in seen if expected is None or event.item_id == expected.item_id][-1:]
    if met:
        return _Reason(f"By what shoppers choose, close to {_you(met[0], state['items'])}.", tuple(met))
    if expected:
        return _Reason(f"By what shoppers choose, close to the {_short_name(expected)}, which the model expects next.")
    return None


def _by_count(taken: TakenItem) -> _Reason:
    """What fills a list: how often it was taken, in the last days where it was at all, and by nobody where nobody
    did."""
    counts = (("bought", taken.purchases), ("put in the cart", taken.carts), ("looked at", taken.clicks))
    text = " and ".join([f"{did} {_times(count)}" for did, count in counts if count][:2])
    if not text:
        return _Reason("Fills the list: nobody has looked at it yet.")
    when = f"in the {POPULAR_DAYS} days to {taken.lately.day} {taken.lately:%b %Y}" if taken.lately else "so far"
    return _Reason(f"{text[:1].upper()}{text[1:]} {when}.")


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def _own_style(item: Item, seen: _Seen) -> _Reason | None:
    """The very product, or another variant of its style, among the user's events."""
    same = seen.sharing(("item_id",), item)
    if same:
        bought = [event for event in same if event.action == "purchase"]
        if bought:
            return _Reason(f"You bought it {_when(bought[-1])}", tuple(bought[-_MOST_EVENTS:]))
        alike = [event for event in same if event.action == same[-1].action]
        times = f" {_times(len(alike))}" if len(alike) > 1 else ""
        return _Reason(
            f"You {_DID[same[-1].action].format('it')}{times}, last {_when(same[-1])}", tuple(alike[-_MOST_EVENTS:])
        )
    style = seen.sharing(("parent_id",), item) if item.parent_id else []
    if not style:
        return None
    other = seen.items[style[-1].item_id]
    differs = (
        "color"
        if item.color and other.color and item.color != other.color
        else "size"
        if item.size != other.size
        else ""
    )
    size = f"In size {clean(item.size, 12)}: the style" if differs == "size" and item.size else "The style"
    what = f"In {clean(item.color, 20).lower()}: the style" if differs == "color" else size
    seen_as = f" in {clean(other.color, 20).lower()}" if differs == "color" else ""
    return _Reason(f"{what} {_did(style[-1])}{seen_as} {_when(style[-1])}", tuple(style[-_MOST_EVENTS:]))


def _own_taste(item: Item, seen: _Seen) -> _Reason | None:
    """Attributes, or telling title words, shared with products among the user's events; the most specific that is
    there."""
    for fields in (
        ("brand", "category", "color"),
        ("brand", "category"),
        ("category", "color"),
        ("brand", "color"),
        ("brand",),
        ("category",),
        ("color",),
    ):
        events = seen.sharing(fields, item) if all(_values(item, fields)) else []
        if len(events) >= (1 if len(fields) > 1 or len(seen.events) < 5 else 2):
            like = f"{_shared(fields, item)}, like {_you(events[-1], seen.items)}"
            return _Reason(like, tuple(events[-_MOST_EVENTS:]))
    mine = frozenset(_words(item.title))
    best: Event | None = None
    shared: tuple[str, ...] = ()
    for event in reversed(seen.events):
        both = tuple(word for word in seen.words(event) if word in mine)
        if len(both) > len(shared):
            best, shared = event, both
    if best is None or (
        len(shared) < 2 and (item.brand or item.category)
    ):  # one common word says little where attributes could say more
        return None
    return _Reason(f"Shares “{' '.join(shared[:3])}” with {_you(best, seen.items)}", (best,))


def _shared(fields: Sequence[str], item: Item) -> str:
    """The values that a product shares, as the beginning of a sentence: "Olive shirts by Harrow"."""
    category, color = clean(item.category.replace("_", " "), 30).lower(), clean(item.color, 20).lower()
    thing = " ".join(
        word for word in (color if "color" in fields else "", category if "category" in fields else "") if word
    )
    by = f"by {clean(item.brand, 30)}" if "brand" in fields else ""
    text = " ".join(word for word in (thing, by) if word)
    return text[:1].upper() + text[1:]


def _short_name(item: Item) -> str:
    """A name to use in a sentence: without the brand in front and the variant behind."""
    name = item.name
    if item.brand and name.startswith(item.brand + " "):
        name = name[len(item.brand) + 1 :]
    if item.color and f", {item.color}" in name:
        name = name.split(f", {item.color}")[0]
    return clean(name, 44)


def _when(event: Event) -> str:
    if event.ts.year < EPOCH.year + 1:
        return f"(event {event.seq})"
    return f"on {event.ts.day} {event.ts:%b}"


def _you(event: Event, items: Mapping[str, Item]) -> str:
    """A product of the history and what was done with it: "the Linen Shirt you put in the cart on 1 Feb"."""
    return f"the {_short_name(items[event.item_id])} {_did(event)} {_when(event)}"


def _did(event: Event) -> str:
    return "you " + _DID[event.action].replace("{} ", "").replace(" {}", "")


def _words(title: str) -> tuple[str, ...]:
    words = re.findall(r"[^\W\d_]{4,}", title.casefold())
    return tuple(dict.fromkeys(word for word in words if word not in _COMMON))
