"""Why each product is in the answer: one sentence made of things that really happened, with the evidence beside it.

Every reason names events of this user (by `Event.seq`) or remembered queries; where there are none, it says no more than where the
product came from. No model writes here, so nothing can be invented.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recgraph.graph.prompts import clean
from recgraph.graph.state import Recommended, State
from recgraph.store.records import EPOCH, Event, Item

_DID = {"click": "looked at", "cart": "put in the cart", "purchase": "bought"}
_COMMON = frozenset(
    "with from your this that pack ounce ounces count women womens woman mens size color colour inch natural free best hair skin".split()
)
_MOST_EVENTS = 5  # events named as evidence of one reason: the latest


@dataclass(frozen=True, slots=True)
class _Reason:
    text: str
    events: tuple[Event, ...] = ()
    queries: tuple[str, ...] = ()


def reasons(state: State) -> list[Recommended]:
    """The first k scored candidates as lines of the answer, rank from 1."""
    lines = []
    for rank, scored in enumerate(state["scored"][: state["k"]], 1):
        item = state["items"][scored.candidate.item_id]
        reason = _reason(item, scored.candidate.source, state)
        seqs = tuple(sorted(event.seq for event in reason.events))
        lines.append(Recommended(rank, item, scored.score, scored.yes, scored.candidate.source, reason.text, seqs, reason.queries))
    return lines


def _reason(item: Item, source: str, state: State) -> _Reason:
    history, items, memory, prediction = state["history"], state["items"], state["memory"], state.get("prediction")
    expected = items.get(prediction.item_id) if prediction else None
    seen = [event for event in history if event.item_id in items]
    remembered = next((hit.query for hit in memory if item.item_id in hit.item_ids), "")
    own = _own_style(item, seen, items) or _own_taste(item, seen, items)
    if own and remembered:
        return _Reason(f"{own.text}; on top for searches like “{clean(remembered, 40)}”.", own.events, (remembered,))
    if own:
        return _Reason(f"{own.text}.", own.events)
    if remembered:
        return _Reason(f"On top of what shoppers see when they search “{clean(remembered, 40)}”.", (), (remembered,))
    if source == "sequence" and seen:
        return _Reason("Other shoppers went on to it from products in your history.", tuple(seen))
    if source == "id" and expected and expected.item_id == item.item_id:
        return _Reason("The product the model expects next.")
    if source == "id" and expected:
        met = [event for event in seen if event.item_id == expected.item_id]
        told = f"the {_short(expected)} {_you(met[-1])}" if met else f"the {_short(expected)}, which the model expects next"
        return _Reason(f"Chosen by the same shoppers as {told}.", tuple(met[-1:]))
    if source == "title":
        return _Reason("Close in wording to products in your history or to the one the model expects next.", tuple(seen))
    if source == "text" and seen:  # the text transformer's too, which reads both
        told = "the search or with products in your history" if state["query"].strip() else "products in your history"
        return _Reason(f"Its title goes with {told}.", tuple(seen))
    if source in ("text", "lexical"):
        return _Reason("Its title fits the search.")
    return _Reason("Popular with shoppers in the last weeks.")


def _own_style(item: Item, seen: Sequence[Event], items: Mapping[str, Item]) -> _Reason | None:
    """The very product, or another variant of its style, among the user's events."""
    same = [event for event in seen if event.item_id == item.item_id]
    if same:
        bought = [event for event in same if event.action == "purchase"]
        if bought:
            return _Reason(f"You bought it {_when(bought[-1])}", tuple(bought[-_MOST_EVENTS:]))
        times = "" if len(same) == 1 else " twice" if len(same) == 2 else f" {len(same)} times"
        return _Reason(f"You {_DID[same[-1].action]} it{times}, last {_when(same[-1])}", tuple(same[-_MOST_EVENTS:]))
    style = [event for event in seen if item.parent_id and items[event.item_id].parent_id == item.parent_id]
    if not style:
        return None
    other = items[style[-1].item_id]
    differs = "color" if item.color and other.color and item.color != other.color else "size" if item.size != other.size else ""
    what = (
        f"In {item.color.lower()}: the style"
        if differs == "color"
        else f"In size {item.size}: the style"
        if differs == "size" and item.size
        else "The style"
    )
    seen_as = f" in {other.color.lower()}" if differs == "color" else ""
    return _Reason(f"{what} you {_DID[style[-1].action]}{seen_as} {_when(style[-1])}", tuple(style[-_MOST_EVENTS:]))


def _own_taste(item: Item, seen: Sequence[Event], items: Mapping[str, Item]) -> _Reason | None:
    """Attributes, or telling title words, shared with products among the user's events; the most specific that is there."""
    for fields in (
        ("brand", "category", "color"),
        ("brand", "category"),
        ("category", "color"),
        ("brand", "color"),
        ("brand",),
        ("category",),
        ("color",),
    ):
        wanted = [getattr(item, name) for name in fields]
        if not all(wanted):
            continue
        events = [event for event in seen if [getattr(items[event.item_id], name) for name in fields] == wanted]
        if len(events) >= (1 if len(fields) > 1 or len(seen) < 5 else 2):
            return _Reason(f"{_said(fields, item)}, like the {_short(items[events[-1].item_id])} {_you(events[-1])}", tuple(events[-_MOST_EVENTS:]))
    mine = _words(item.title)
    best: Event | None = None
    shared: tuple[str, ...] = ()
    for event in reversed(seen):
        both = tuple(word for word in _words(items[event.item_id].title) if word in mine)
        if len(both) > len(shared):
            best, shared = event, both
    if best is None or (len(shared) < 2 and (item.brand or item.category)):  # one common word says little where attributes could say more
        return None
    return _Reason(f"Shares “{' '.join(shared[:3])}” with the {_short(items[best.item_id])} {_you(best)}", (best,))


def _said(fields: Sequence[str], item: Item) -> str:
    category, color = clean(item.category.replace("_", " "), 30).lower(), clean(item.color, 20).lower()
    thing = " ".join(word for word in (color if "color" in fields else "", category if "category" in fields else "") if word)
    by = f"by {clean(item.brand, 30)}" if "brand" in fields else ""
    text = " ".join(word for word in (thing, by) if word)
    return text[:1].upper() + text[1:]


def _short(item: Item) -> str:
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


def _you(event: Event) -> str:
    return f"you {_DID[event.action]} {_when(event)}"


def _words(title: str) -> tuple[str, ...]:
    words = re.findall(r"[^\W\d_]{4,}", title.casefold())
    return tuple(dict.fromkeys(word for word in words if word not in _COMMON))
