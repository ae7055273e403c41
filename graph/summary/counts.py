"""What a history counts up to: values by weight, title words that come back, comparisons, searches and whether they
ended in a purchase. No sentences: those are made by the counting summarizer (`profile.py`, `drift.py`), whose other
half this is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from recgraph.graph.summary.wording import (
    AUDIENCES,
    COMMON,
    EVERYDAY,
    HUES,
    PACKING,
    STOP_WORDS,
    category_name,
    clean,
    listing,
    plural,
    stem,
    value,
    words,
)
from recgraph.store.records import Event, Item

_WEIGHT = {"purchase": 3, "cart": 2, "click": 1}  # as in Store.popular
_TITLE_WORDS = 15  # sellers stuff the rest of a long title with search words
_COMMON_SHARE = 0.04  # a word in fewer of a long history's titles is chance
_DULL = frozenset(stem(word) for word in STOP_WORDS | PACKING)
_TASTELESS = frozenset(stem(word) for word in EVERYDAY | COMMON) | AUDIENCES.keys() | _DULL


@dataclass(frozen=True, slots=True)
class ItemEvent:
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
    leads: bool = False  # of title words: stands first in several titles, as brands do


def counted(seen: Sequence[ItemEvent], of: Callable[[Item], str]) -> list[Count]:
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


def recurring(seen: Sequence[ItemEvent], known: Iterable[str] = (), *, headlines: bool = False) -> list[Count]:
    """Words and pairs of words that come back in different titles, the most telling first; words of `known` (said
    already) are left out.

    A word that leads several titles is most likely a brand (`leads`): it counts one more and keeps its capitals. So do
    all words of `headlines`, which are full of names.
    """
    said = {stem(word) for name in known for word in words(name)}
    counts: dict[tuple[str, ...], Count] = {}
    spellings: dict[tuple[str, ...], Counter[str]] = {}
    leading: dict[tuple[str, ...], set[str]] = {}
    for one in seen:
        for place, gram in _grams(one.item.title):
            key = tuple(map(stem, gram))
            if said.intersection(key):
                continue
            entry = counts.setdefault(key, Count(""))
            entry.seqs.extend([one.event.seq] if one.event.seq not in entry.seqs[-1:] else [])
            entry.styles.add(one.style)
            spellings.setdefault(key, Counter())[" ".join(gram)] += 1
            if place == 0:
                leading.setdefault(key, set()).add(one.style)
    for key, entry in counts.items():
        entry.leads = len(leading.get(key, ())) > 1
        entry.weight = len(entry.styles) * (1.5 if len(key) > 1 else 1.0) + entry.leads
        entry.name = _spelling(spellings[key], entry.leads or headlines)
    least = max(2.0, len({one.style for one in seen}) * _COMMON_SHARE)
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1].weight, -pair[1].seqs[-1], pair[1].name))
    chosen: list[Count] = []
    used: set[str] = set()
    for key, entry in ranked:
        if len(entry.styles) >= least and used.isdisjoint(key):
            chosen.append(entry)
            used.update(key)
    return chosen


def _spelling(forms: Counter[str], name: bool) -> str:
    """The most frequent form, the shorter of two. Names keep their capitals; other words lose them, but for
    acronyms."""
    capital = [form for form in forms if form[:1].isupper()] if name else []
    form = min(capital or forms, key=lambda form: (-forms[form], len(form), form))
    if form.isupper() and len(form) > 4:
        return form.title() if name else form.lower()
    return form if name or form.isupper() else form.lower()


def _grams(title: str) -> Iterable[tuple[int, tuple[str, ...]]]:
    """Single telling words and neighbouring pairs of a title's first words, with their place."""
    line = clean(title)
    written = words(line)[:_TITLE_WORDS]
    telling = [
        len(word) > 2 and not any(c.isdigit() for c in word) and stem(word) not in _TASTELESS for word in written
    ]
    for place, word in enumerate(written):
        if telling[place]:
            if stem(word) not in HUES:
                yield place, (word,)
            if place + 1 < len(written) and telling[place + 1] and f"{word} {written[place + 1]}" in line:
                yield place, (word, written[place + 1])


def audiences(seen: Sequence[ItemEvent]) -> list[Count]:
    """Whom the titles address (women, men, children), the most frequent first."""
    counts: dict[str, Count] = {}
    for one in seen:
        for who in sorted({AUDIENCES[part] for part in title_stems(one) if part in AUDIENCES}):
            entry = counts.setdefault(who, Count(who))
            entry.seqs.append(one.event.seq)
            entry.styles.add(one.style)
    return sorted(counts.values(), key=lambda entry: (-len(entry.seqs), entry.name))


def title_stems(seen: ItemEvent) -> frozenset[str]:
    return _stems(seen.item.title)


@lru_cache(maxsize=1 << 15)
def _stems(text: str) -> frozenset[str]:
    return frozenset(stem(word) for word in words(clean(text)))


def seqs_of(*counts: Count) -> tuple[int, ...]:
    return tuple(sorted({seq for one in counts for seq in one.seqs}))


def numbers(seen: Iterable[ItemEvent]) -> tuple[int, ...]:
    return tuple(sorted({one.event.seq for one in seen}))


class Facts:
    """Everything the sentences are made of, counted once, and the words that fit the kind of history (buying, looking,
    reading)."""

    def __init__(self, events: Sequence[Event], items: Mapping[str, Item], currency: str) -> None:
        self.events = events
        self.items = items
        self.currency = currency
        self.seen = [ItemEvent(event, items[event.item_id]) for event in events if event.item_id in items]
        # shares are of this, so that products without the attribute count against "mostly"
        self.weight = sum(one.weight for one in self.seen)
        self.bought = [one for one in self.seen if one.event.action == "purchase"]
        self.categories = counted(self.seen, lambda item: category_name(item.category))
        self.colors = counted(self.seen, lambda item: value(item.color))
        self.brands = counted(self.seen, lambda item: value(item.brand))
        actions = {event.action for event in events}
        self.purchases_only = actions == {"purchase"}
        self.clicks_only = actions == {"click"}
        # News has categories and clicks but nothing a thing on a shelf has.
        self.news = (
            self.clicks_only
            and bool(self.categories)
            and not any(
                one.item.price or one.item.brand or one.item.color or one.item.size or one.item.parent_id
                for one in self.seen
            )
        )
        self.who = "This reader" if self.news else "This shopper"

    @cached_property
    def title_words(self) -> list[Count]:
        """Words that come back in titles. Most of the work, and only asked for where categories or brands are
        missing."""
        return recurring(self.seen, (one.name for one in self.categories), headlines=self.news)

    def nouns(self, counts: Sequence[Count], last: str = "and") -> str:
        """Category names in a list, in the plural but for news sections."""
        return listing([one.name if self.news else plural(one.name) for one in counts], last)

    def verb(self, present: bool = True) -> str:
        if self.news:
            return "follows" if present else "read"
        if self.purchases_only:
            return "buys" if present else "bought"
        if self.clicks_only:
            return "looks at" if present else "looked at"
        return "goes for" if present else "went for"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Variants of one style looked at: `views` are the looks before the purchase, `bought` the purchase, None where
    none followed."""

    views: tuple[ItemEvent, ...]
    bought: ItemEvent | None

    @property
    def seen(self) -> tuple[ItemEvent, ...]:
        return (*self.views, self.bought) if self.bought else self.views


def comparisons(seen: Sequence[ItemEvent]) -> list[Comparison]:
    """Every style of which two or more variants were looked at (before it was bought), the latest last."""
    groups: dict[str, list[ItemEvent]] = {}
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
    """One query (upper and lower case alike): the events that carry it, the styles looked at under it, and the
    purchases that answer it."""

    query: str
    seqs: list[int] = field(default_factory=list)
    styles: set[str] = field(default_factory=set)
    answers: list[int] = field(default_factory=list)


def searches(events: Sequence[Event], items: Mapping[str, Item]) -> list[Search]:
    """The user's queries, the latest used last, each with the later purchases that answer it.

    A purchase answers a query if it carries it, if its style was looked at under it, or if the product's text holds
    more than half of the query's telling words. Looks without a query of their own belong to the search before them.
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
                if (
                    key == clean(event.query).casefold()
                    or _style(event, items) in entry.styles
                    or _matches(key, items.get(event.item_id))
                ):
                    entry.answers.append(event.seq)
    return list(found.values())


def left_in_cart(seen: Sequence[ItemEvent]) -> list[ItemEvent]:
    """The last cart event of each style that was put in the cart and not bought afterwards, the latest last."""
    open_carts: dict[str, ItemEvent] = {}
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
    wanted = _stems(query) - _DULL
    if not wanted or item is None:
        return False
    there = _stems(f"{item.title} {item.category} {item.brand} {item.color} {item.size}")
    return len(wanted & there) * 2 > len(wanted)
