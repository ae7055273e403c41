"""What a summary says: the facts of the counting summarizer as values, without their words (`train/summary/phrases.py`
puts them into words).

Counted as `graph/summary/profile.py` counts and by its thresholds, but only what the prompt itself shows: a model that
learns from these facts must be able to read each of them off its prompt, a recurrent or merged summary from those
it builds on. Knows no wording and no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from recgraph.graph.prompts import QUERY_LIMIT
from recgraph.graph.prompts import clean as prompt_line
from recgraph.graph.summary.counts import Count, Facts, ItemEvent, audiences, comparisons, searches
from recgraph.graph.summary.summarizers import price_text
from recgraph.graph.summary.wording import clean, plural, stem, value, words
from recgraph.store.records import Event, Item

Kind = Literal["block", "recurrent", "merge"]
_NAME_LIMIT = 45  # characters of a product's name; a longer one is not worth its tokens


@dataclass(frozen=True, slots=True)
class VariantsSeen:
    """Variants looked at: how many colours (or sizes) of what, and which was bought, "" for none."""

    name: str
    kind: Literal["colour", "size"]
    number: int
    took: str = ""


@dataclass(frozen=True, slots=True)
class Gist:
    """One summary's facts. Names are as shown: categories in the plural, brands and colours as the catalogue writes
    them."""

    kind: Kind
    doing: str  # buys | looks | goes | reads
    categories: tuple[str, ...] = ()
    share: Literal["only", "mostly", "list", "many"] = "list"
    title_words: tuple[str, ...] = ()  # where the catalogue has no categories
    colors: tuple[str, ...] = ()
    tint: Literal["usually", "often", "some"] = "some"
    audience: str = ""
    brands: tuple[str, ...] = ()
    loyalty: Literal["returns", "vary", "all"] = "all"
    price: tuple[float, float] | None = None
    paid: bool = False
    searches: tuple[str, ...] = ()
    unmet: bool = False  # something was bought, but nothing that answers the searches
    bought: str = ""
    compared: VariantsSeen | None = None
    compares: bool = False  # as a habit
    came: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    stays: str = ""

    def __bool__(self) -> bool:
        return bool(self.categories or self.title_words or self.brands)


class Shown:
    """The texts of a prompt that a summary may speak of."""

    def __init__(self, texts: Sequence[str], currency: str = "") -> None:
        self.currency = currency
        self._bags = [_stems(text) for text in texts]
        self._text = "\n".join(texts)

    def holds(self, name: str) -> bool:
        """Whether one text has all words of the name."""
        wanted = _stems(name)
        return bool(wanted) and any(wanted <= bag for bag in self._bags)

    def counts(self, counts: Sequence[Count]) -> list[Count]:
        return [one for one in counts if self.holds(one.name)]

    def price(self, amount: float) -> bool:
        return price_text(amount, self.currency) in self._text


@lru_cache(maxsize=1 << 13)
def _stems(text: str) -> frozenset[str]:
    return frozenset(stem(word) for word in words(clean(text)))


def gist(
    kind: Kind,
    covered: Sequence[Event],
    new: Sequence[Event],
    items: Mapping[str, Item],
    parts: Sequence[Gist],
    shown: Shown,
) -> Gist | None:
    """The facts of one summary; None where there is nothing to say.

    `covered` is every event it is about, `new` those its prompt shows (none for a merge), `parts` what the summaries in
    the prompt say, oldest first, `shown` the prompt's lines and summaries.
    """
    facts = Facts(covered, items, shown.currency)
    if not facts.seen:
        return None
    recent = Facts(new, items, shown.currency) if new else None
    doing = {"follows": "reads", "buys": "buys", "looks at": "looks"}.get(facts.verb(), "goes")
    colors = _readable(
        shown.counts(facts.colors), recent.colors if recent else [], [name for part in parts for name in part.colors]
    )
    brands = _readable(
        shown.counts(facts.brands), recent.brands if recent else [], [name for part in parts for name in part.brands]
    )
    said: dict[str, object] = {
        **_categories(facts, shown),
        **_colors(facts, colors if parts else shown.counts(facts.colors)),
        **_brands(facts, brands if parts else shown.counts(facts.brands)),
        **_price(facts, recent, parts, shown),
    }
    if (
        not facts.news
        and (people := audiences(facts.seen)[:1])
        and len(people[0].seqs) * 2 > len(facts.seen)
        and shown.holds(people[0].name)
    ):
        said["audience"] = people[0].name
    drift = _drift(facts, recent, parts) if kind == "recurrent" else _shift(parts) if kind == "merge" else {}
    extras = _extras(kind, facts, recent, parts, shown, bool(drift))
    return Gist(kind, doing, **said, **drift, **extras)  # type: ignore[arg-type]


def _readable(counts: Sequence[Count], recent: Sequence[Count], earlier: Sequence[str]) -> list[Count]:
    """Those that earlier summaries name, and those that come more than once in the new events: what a reader of the
    prompt can know to matter."""
    known = {name.casefold() for name in earlier} | {one.name.casefold() for one in recent if len(one.seqs) > 1}
    return [one for one in counts if one.name.casefold() in known]


def _noun(facts: Facts, one: Count) -> str:
    return one.name if facts.news else plural(one.name)


def _categories(facts: Facts, shown: Shown) -> dict[str, object]:
    counts = shown.counts(facts.categories)
    if not counts:
        recur = shown.counts(facts.title_words)[:3]
        return {"title_words": tuple(one.name for one in recur)}
    share = "list" if len(facts.categories) <= 3 else "many"
    if len(facts.categories) == 1 and len(counts[0].seqs) == len(facts.events):
        share = "only"
    elif len(counts) > 1 and counts[0].weight * 2 > facts.weight and len(counts[0].seqs) > 1:
        share = "mostly"
    elif share == "many" and len(counts) < 3:
        share = "list"
    return {"categories": tuple(_noun(facts, one) for one in counts[:3]), "share": share}


def _colors(facts: Facts, counts: Sequence[Count]) -> dict[str, object]:
    again = [one for one in counts[:2] if len(one.seqs) > 1]
    if again and again[0].weight * 2 > facts.weight:
        return {"colors": (again[0].name,), "tint": "usually"}
    if again:
        tint = "usually" if len(again) == 2 and (again[0].weight + again[1].weight) * 2 > facts.weight else "often"
        return {"colors": tuple(one.name for one in again), "tint": tint}
    return {"colors": tuple(one.name for one in counts)} if len(facts.colors) <= 2 else {}


def _brands(facts: Facts, counts: Sequence[Count]) -> dict[str, object]:
    again = [one for one in counts if len(one.styles) > 1][:2]
    if again:
        return {"brands": tuple(one.name for one in again), "loyalty": "returns"}
    return {"brands": tuple(one.name for one in counts[:2]), "loyalty": "vary" if len(facts.brands) > 2 else "all"}


def _price(facts: Facts, recent: Facts | None, parts: Sequence[Gist], shown: Shown) -> dict[str, object]:
    """The range of what was paid, or of what was looked at. With earlier summaries it is theirs, widened by the new
    prices."""
    earlier = [part for part in parts if part.price]
    paid = all(part.paid for part in earlier) if earlier else len(facts.bought) > 1
    source = recent if parts else facts
    fresh = [one.item.price for one in ((source.bought if paid else source.seen) if source else ()) if one.item.price]
    ends = [end for part in earlier for end in part.price or ()] + fresh
    if not ends or not (shown.price(min(ends)) and shown.price(max(ends))) or (parts and not earlier):
        return {}
    return {"price": (min(ends), max(ends)), "paid": paid}


def _drift(facts: Facts, recent: Facts | None, parts: Sequence[Gist]) -> dict[str, object]:
    """What is new in the newest block, and what the summary before was about that did not return (T 4.2.2)."""
    if not recent or not recent.seen or not parts:
        return {}
    fresh = {one.event.seq for one in recent.seen}
    first = [
        [one for one in kind if fresh.issuperset(one.seqs)][:1]
        for kind in (facts.categories, facts.brands, facts.colors)
    ]
    came = [
        *(_noun(facts, one) for one in first[0]),
        *(one.name for one in first[1]),
        *(f"the colour {one.name}" for one in first[2]),
    ][:2]
    now = {_noun(recent, one) for one in recent.categories}, {one.name for one in recent.brands}
    gone = [name for name in parts[-1].categories[:1] if name not in now[0] and len(recent.seen) > 1]
    if not now[0] and len(recent.seen) > 1:
        gone = [name for name in parts[-1].brands[:1] if name not in now[1]]
    came = came[:1] if gone else came
    stays = next((name for name in parts[-1].categories if name in now[0]), "") if not came and not gone else ""
    return {key: found for key, found in (("came", tuple(came)), ("gone", tuple(gone)), ("stays", stays)) if found}


def _shift(parts: Sequence[Gist]) -> dict[str, object]:
    """What only the oldest and what only the newest of several summaries leads with."""
    first, last = parts[0].categories, parts[-1].categories
    gone = [name for name in first[:1] if all(name not in part.categories for part in parts[len(parts) // 2 :])]
    came = [name for name in last[:1] if all(name not in part.categories for part in parts[: (len(parts) + 1) // 2])]
    return {"came": tuple(came), "gone": tuple(gone)} if came and gone and first != last else {}


def _extras(
    kind: Kind, facts: Facts, recent: Facts | None, parts: Sequence[Gist], shown: Shown, drift: bool
) -> dict[str, object]:
    """One more fact, the first there is: searches, comparing (as a habit in merges), the last purchase. Beside `drift`
    only searches that are open: each sentence is a second of writing on a CPU."""
    unmet = [one.query for one in reversed(searches(facts.events, facts.items)) if not one.answers]
    asked = {query for part in parts for query in part.searches} if kind == "merge" else _queries(recent)
    open_ones = [query for query in unmet if query in asked and len(query) <= _NAME_LIMIT and shown.holds(query)][
        : 2 if kind == "block" else 1
    ]
    if open_ones:
        return {"searches": tuple(open_ones), "unmet": bool(facts.bought)}
    if drift:
        return {}
    if kind == "merge":
        return {"compares": True} if sum(part.compared is not None or part.compares for part in parts) > 1 else {}
    if recent and (compared := _latest_variants(recent.seen)):
        return {"compared": compared}
    return {"bought": name} if recent and recent.bought and (name := short_name(recent.bought[-1].item)) else {}


def _queries(facts: Facts | None) -> set[str]:
    return (
        {clean(event.query) for event in facts.events if event.query and len(event.query) < QUERY_LIMIT}
        if facts
        else set()
    )


def short_name(item: Item) -> str:
    """The first part of a title, as its prompt line shows it; "" where that is long or one word."""
    line = prompt_line(item.name)
    name = line.split(",")[0].split(" (")[0].split(" - ")[0].rstrip(" ;:.…")
    return name if " " in name and len(name) <= _NAME_LIMIT and name != line.rstrip("…") + "…" else ""


def _latest_variants(seen: Sequence[ItemEvent]) -> VariantsSeen | None:
    """The latest comparison that has a name and differs in colour or size."""
    for one in reversed(comparisons(seen)):
        name = short_name(one.views[0].item)
        colors, sizes = (
            {getattr(view.item, kind).casefold() for view in one.views} - {""} for kind in ("color", "size")
        )
        if name and len(colors) > 1:
            return VariantsSeen(name, "colour", len(colors), value(one.bought.item.color) if one.bought else "")
        if name and len(sizes) > 1:
            return VariantsSeen(name, "size", len(sizes), value(one.bought.item.size) if one.bought else "")
    return None
