"""What a history counts up to: values by weight, title words that come back, comparisons, searches and whether they ended in a purchase.
No sentences: those are made by the counting summarizer (`profile.py`), whose other half this is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from recgraph.graph.wording import PACKING, STOP_WORDS, clean, stem, words
from recgraph.store.records import Event, Item

_WEIGHT = {"purchase": 3, "cart": 2, "click": 1}  # as in Store.popular
_TITLE_WORDS = 15  # sellers stuff the rest of a long title with search words
_DULL = frozenset(stem(word) for word in STOP_WORDS | PACKING)


@dataclass(frozen=True, slots=True)
class Seen:
    """An event on a product the catalogue knows."""

    event: Event
    item: Item

    @property
    def weight(self) -> int:
        return _WEIGHT.get(self.event.action, 1)

    @property
    def style(self) -> str:
        return self.item.parent_id or self.item.item_id


@dataclass(slots=True)
class Count:
    """How often one value occurs: `weight` by action, the events, the distinct styles."""

    name: str
    weight: float = 0.0
    seqs: list[int] = field(default_factory=list)
    styles: set[str] = field(default_factory=set)


def counted(seen: Sequence[Seen], of: Callable[[Item], str]) -> list[Count]:
    """Values by weight, the more recent first among equals; upper and lower case are one value, shown as first met."""
    counts: dict[str, Count] = {}
    for one in seen:
        name = of(one.item)
        if name:
            entry = counts.setdefault(name.casefold(), Count(name))
            entry.weight += one.weight
            entry.seqs.append(one.event.seq)
            entry.styles.add(one.style)
    return sorted(counts.values(), key=lambda entry: (-entry.weight, -entry.seqs[-1], entry.name))


def recurring(seen: Sequence[Seen], known: Iterable[str] = ()) -> list[Count]:
    """Words and pairs of words that come back in different titles, the most telling first; `known` words (said already) are left out.

    A word that leads several titles is most likely a brand: it counts one more and keeps its spelling.
    """
    said = {stem(word) for name in known for word in words(name)}
    counts: dict[tuple[str, ...], Count] = {}
    leading: dict[tuple[str, ...], set[str]] = {}
    for one in seen:
        for place, gram in _grams(one.item.title):
            key = tuple(map(stem, gram))
            if not said.intersection(key):
                entry = counts.setdefault(key, Count(" ".join(gram)))
                if one.event.seq not in entry.seqs:
                    entry.seqs.append(one.event.seq)
                entry.styles.add(one.style)
                if place == 0:
                    leading.setdefault(key, set()).add(one.style)
    for key, entry in counts.items():
        led = len(leading.get(key, ())) > 1
        entry.weight = len(entry.styles) * (1.5 if len(key) > 1 else 1.0) + led
        entry.name = entry.name if led or entry.name.isupper() else entry.name.lower()
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1].weight, -pair[1].seqs[-1], pair[1].name))
    chosen: list[Count] = []
    used: set[str] = set()
    for key, entry in ranked:
        if len(entry.styles) > 1 and used.isdisjoint(key):
            chosen.append(entry)
            used.update(key)
    return chosen


def _grams(title: str) -> Iterable[tuple[int, tuple[str, ...]]]:
    """Single telling words and neighbouring pairs of a title's first words, with their place."""
    written = words(clean(title))[:_TITLE_WORDS]
    telling = [len(word) > 2 and not any(c.isdigit() for c in word) and stem(word) not in _DULL for word in written]
    for place, word in enumerate(written):
        if telling[place]:
            yield place, (word,)
            if place + 1 < len(written) and telling[place + 1] and f"{word} {written[place + 1]}" in clean(title):
                yield place, (word, written[place + 1])


def title_stems(seen: Seen) -> set[str]:
    return {stem(word) for word in words(clean(seen.item.title))}


def seqs_of(*counts: Count) -> tuple[int, ...]:
    return tuple(sorted({seq for one in counts for seq in one.seqs}))


def numbers(seen: Iterable[Seen]) -> tuple[int, ...]:
    return tuple(sorted({one.event.seq for one in seen}))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Variants of one style looked at: `views` are the looks before the purchase, `bought` the purchase, None where none followed."""

    views: tuple[Seen, ...]
    bought: Seen | None

    @property
    def seen(self) -> tuple[Seen, ...]:
        return (*self.views, self.bought) if self.bought else self.views


def comparisons(seen: Sequence[Seen]) -> list[Comparison]:
    """Every style of which two or more variants were looked at (before it was bought), the latest last."""
    groups: dict[str, list[Seen]] = {}
    for one in reversed(seen):  # by the latest event of each style
        if one.item.parent_id:
            groups.setdefault(one.item.parent_id, []).append(one)
    found: list[Comparison] = []
    for group in reversed(groups.values()):
        group.reverse()
        last = max((place for place, one in enumerate(group) if one.event.action == "purchase"), default=len(group))
        views = tuple(one for one in group[:last] if one.event.action != "purchase")
        if len({one.item.item_id for one in views}) > 1:
            found.append(Comparison(views, group[last] if last < len(group) else None))
    return found


@dataclass(slots=True)
class Search:
    """One query (upper and lower case alike): the events that carry it, the styles looked at under it, and the purchases that answer it."""

    query: str
    seqs: list[int] = field(default_factory=list)
    styles: set[str] = field(default_factory=set)
    answers: list[int] = field(default_factory=list)


def searches(events: Sequence[Event], items: Mapping[str, Item]) -> list[Search]:
    """The user's queries, the latest used last, each with the later purchases that answer it.

    A purchase answers a query if it carries it, if its style was looked at under it, or if the product's text holds more than half of the query's
    telling words. Looks without a query of their own belong to the search before them.
    """
    found: dict[str, Search] = {}
    current = ""
    for event in events:
        if event.action == "search":
            current = clean(event.query).casefold()
        query = clean(event.query).casefold() or current
        if event.query.strip() and event.action != "purchase":
            entry = found.pop(query, None) or Search(clean(event.query))
            entry.seqs.append(event.seq)
            found[query] = entry  # to the end: the latest used last
        if query in found and event.action in ("click", "cart") and event.item_id:
            found[query].styles.add(_style(event, items))
        if event.action == "purchase":
            for key, entry in found.items():
                if key == clean(event.query).casefold() or _style(event, items) in entry.styles or _matches(key, items.get(event.item_id)):
                    entry.answers.append(event.seq)
    return list(found.values())


def left_in_cart(seen: Sequence[Seen]) -> list[Seen]:
    """The last cart event of each style that was put in the cart and not bought afterwards, the latest last."""
    open_carts: dict[str, Seen] = {}
    for one in seen:
        if one.event.action in ("cart", "purchase"):
            open_carts.pop(one.style, None)
        if one.event.action == "cart":
            open_carts[one.style] = one
    return list(open_carts.values())


def _style(event: Event, items: Mapping[str, Item]) -> str:
    item = items.get(event.item_id)
    return (item.parent_id if item else "") or event.item_id


def _matches(query: str, item: Item | None) -> bool:
    wanted = {part for word in words(query) if (part := stem(word)) not in _DULL}
    if not wanted or item is None:
        return False
    there = {stem(word) for word in words(clean(f"{item.title} {item.category} {item.brand} {item.color} {item.size}"))}
    return len(wanted & there) * 2 > len(wanted)
