"""The counting summarizer: a short paragraph about a shopper in which every sentence carries the events it is true of
(T 4.1, 4.2 without an LLM).

It counts categories, colours, brands, prices, recurring title words, searches, comparisons, purchases and what changed,
and says only what the counts bear out. It knows no model, no store and no prompt. The same events give the same words;
which of several phrasings is used follows from the data, never from chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from recgraph.graph.summary.counts import (
    Comparison,
    Count,
    Facts,
    ItemEvent,
    audiences,
    comparisons,
    left_in_cart,
    numbers,
    searches,
    seqs_of,
)
from recgraph.graph.summary.drift import Sentence, lately, over_time
from recgraph.graph.summary.grounding import CatalogueWords, copied, sentences, support
from recgraph.graph.summary.wording import (
    category_name,
    clean,
    count,
    listing,
    pick,
    prices,
    quote,
    sentence,
    times,
    value,
)
from recgraph.store.records import Event, Item

# the summarizer and what holds other summarizers to its standard
__all__ = ["CatalogueWords", "copied", "profile", "sentences", "support"]

Level = Literal["block", "recurrent", "merged"]

_MOST_WORDS, _MOST_SENTENCES = 60, 4


def profile(
    events: Sequence[Event],
    items: Mapping[str, Item],
    *,
    new: Sequence[Event] = (),
    level: Level = "block",
    currency: str = "",
) -> tuple[Sentence, ...]:
    """Sentences about the user, each with the numbers (`Event.seq`) of all events that count towards it, ascending.

    `events` is everything the summary covers, ascending. `new` is the newest block where something came before it (T
    4.2.2): the paragraph then says what is new against before and what did not come again. `level` "merged" stays with
    habits and leaves single products out (T 4.1.3). At most four sentences and about 60 words; no events give (),
    events on unknown products alone one sentence that says so.
    """
    if not events:
        return ()
    facts = Facts(events, items, currency)
    if facts.seen and len({event.item_id for event in events}) == 1:
        return _fit([(0, _single(facts))])
    fresh = {event.seq for event in new}
    drift = (
        lately(facts, fresh) if fresh and len(fresh) < len(events) else over_time(facts) if level != "block" else None
    )
    candidates = [
        (0, _taste(facts)),
        (2, _brands_and_prices(facts)),
        (5, _comparison_sentence(facts, habits=level == "merged")),
        (4, _bought_again(facts) if level == "merged" and facts.categories else _last_bought(facts)),
        (3, _searched(facts)),
        (1, drift),
    ]
    return _fit(candidates) or (("None of these products is in the catalogue.", tuple(event.seq for event in events)),)


def _fit(candidates: Iterable[tuple[int, Sentence | None]]) -> tuple[Sentence, ...]:
    """The sentences in reading order, without those of least priority (highest number) that the limits leave no room
    for."""
    kept = [(priority, found) for priority, found in candidates if found]
    while len(kept) > 1 and (
        len(kept) > _MOST_SENTENCES or sum(len(text.split()) for _, (text, _) in kept) > _MOST_WORDS
    ):
        kept.remove(max(kept, key=lambda pair: pair[0]))
    return tuple(found for _, found in kept)


def _single(facts: Facts) -> Sentence:
    """One product and nothing else."""
    one = facts.seen[-1]
    what = (
        "has bought"
        if facts.bought
        else "has read"
        if facts.news
        else "has put in the cart"
        if one.event.action == "cart"
        else "has looked at"
    )
    often = f" {times(len(facts.bought))}" if len(facts.bought) > 1 else ""
    shown = facts.bought[-1] if facts.bought else one
    return sentence(
        f"{facts.who} {what} one thing so far{',' + often + ':' if often else ':'} {quote(shown.item.name)}"
    ), numbers(facts.seen)


def _taste(facts: Facts) -> Sentence | None:
    """The leading sentence: categories and colours, or the recurring title words where the catalogue has no
    categories."""
    if not facts.categories:
        return _taste_by_words(facts)
    text, used = _category_clause(facts)
    colors, tinted = _color_clause(facts)
    people, addressed = _audience_clause(facts)
    return sentence(f"{text}{colors}{people}"), seqs_of(*used, *tinted, *addressed)


def _category_clause(facts: Facts) -> tuple[str, list[Count]]:
    counts, who, verb = facts.categories, facts.who, facts.verb()
    share = counts[0].weight / facts.weight
    if len(counts) == 1 and len(counts[0].seqs) < len(facts.events):
        return f"{who} {verb} {facts.nouns(counts)}", counts
    if len(counts) == 1:
        options = [f"So far {who.lower()} {verb} {{}} and nothing else", f"It is all {{}} for {who.lower()} so far"]
        return pick(options, counts[0].name, len(counts[0].seqs)).format(facts.nouns(counts)), counts
    if share > 0.5 and len(counts[0].seqs) > 1:
        rest = counts[1:3]
        options = [f"{who} mostly {verb} {{}}, with {{}} now and then", f"{who} {verb} {{}} above all, then {{}}"]
        return pick(options, counts[0].name, rest[0].name).format(facts.nouns(counts[:1]), facts.nouns(rest)), [
            counts[0],
            *rest,
        ]
    if len(counts) <= 3:
        return f"{who} {verb} {facts.nouns(counts)}", counts
    top = counts[:3]
    names = facts.nouns(top)
    if top[-1].weight > counts[3].weight:
        return pick([f"{who} {verb} {names} most of all", f"{who} {verb} {names} more than anything else"], names), top
    if len(counts) < 6:
        return f"{who} {verb} {names}, among other things", top
    return pick(
        [
            f"{who} {verb} a bit of everything, including {names}",
            f"{who} {verb} all sorts of things, among them {names}",
        ],
        names,
    ), top


def _color_clause(facts: Facts) -> tuple[str, list[Count]]:
    """The colours, as in “…, usually in navy”: only as strong a word as the shares allow."""
    counts = facts.colors
    total = facts.weight
    repeated = [one for one in counts[:2] if len(one.seqs) > 1]
    if not counts:
        return "", []
    if repeated and counts[0].weight > total * 0.5:
        return (
            f", {'always' if len(counts) == 1 and len(repeated[0].seqs) == len(facts.seen) else 'usually'} in "
            f"{counts[0].name}",
            counts[:1],
        )
    if len(repeated) == 2 and counts[0].weight + counts[1].weight > total * 0.5:
        return f", usually in {counts[0].name} or {counts[1].name}", counts[:2]
    if repeated:
        return f", often in {listing([one.name for one in repeated])}", repeated
    if len(counts) <= 3:
        return f", in {listing([one.name for one in counts])}", counts
    return "", []


def _audience_clause(facts: Facts) -> tuple[str, list[Count]]:
    """Whom it is for, as in “…, chiefly for women”, where more than half of the titles say so."""
    top = [] if facts.news else audiences(facts.seen)[:1]
    if not top or len(top[0].seqs) * 2 <= len(facts.seen):
        return "", []
    return f", chiefly for {top[0].name}", top


def _taste_by_words(facts: Facts) -> Sentence | None:
    who, verb = facts.who, facts.verb(present=False)
    top = facts.title_words[:3]
    if top:
        names = listing([quote(one.name) for one in top])
        return sentence(
            pick(
                [f"What {who.lower()} {verb} keeps coming back to {names}", f"{who} keeps coming back to {names}"],
                names,
            )
        ), seqs_of(*top)
    if not facts.seen:
        return None
    first, last = facts.seen[0], facts.seen[-1]
    return sentence(
        f"{who} has no clear line yet, from {quote(first.item.name, 50)} to {quote(last.item.name, 50)}"
    ), numbers((first, last))


def _brands_and_prices(facts: Facts) -> Sentence | None:
    brand, branded = _brand_clause(facts)
    price, priced = _price_clause(facts)
    if not brand or not price:
        return (sentence(brand or price), branded or priced) if brand or price else None
    comma = "," if ", with" in brand else ""
    both = (
        f"{brand}{comma} and {price.removeprefix('they ')}"
        if brand.startswith("they") and price.startswith("they")
        else f"{brand}, and {price}"
    )
    return sentence(both), tuple(sorted({*branded, *priced}))


def _brand_clause(facts: Facts) -> tuple[str, tuple[int, ...]]:
    again = [one for one in facts.brands if len(one.styles) > 1][:3]
    if again:
        names = listing([one.name for one in again])
        options = [
            f"they come back to {names}",
            f"{names} {'is a brand' if len(again) == 1 else 'are brands'} they return to",
        ]
        return pick(options, names), seqs_of(*again)
    if facts.brands:
        top = facts.brands[:2]
        names = listing([one.name for one in top])
        if len(facts.brands) > 2:
            return f"the brands vary, {names} among them", seqs_of(*top)
        return f"the {'brand is' if len(top) == 1 else 'brands are'} {names}", seqs_of(*top)
    return _word_clause(facts) if facts.categories else ("", ())


def _word_clause(facts: Facts) -> tuple[str, tuple[int, ...]]:
    """Recurring title words in place of brands: those that lead titles, as brands do, before those that stand in
    them."""
    top = facts.title_words[:3]
    leading, inside = (
        listing([quote(one.name) for one in top if one.leads is leads] or [""]) for leads in (True, False)
    )
    if leading and inside:
        return f"they come back to {leading}, with {inside} recurring in the titles", seqs_of(*top)
    if leading:
        return f"they come back to {leading}", seqs_of(*top)
    return (f"{inside} {'recurs' if len(top) == 1 else 'recur'} in the titles", seqs_of(*top)) if inside else ("", ())


def _price_clause(facts: Facts) -> tuple[str, tuple[int, ...]]:
    """The range of what was paid, or of what was looked at where too little was bought; from 20 prices on without the
    outer 5 % at each end."""
    paid = [one for one in facts.bought if one.item.price]
    priced = paid if len(paid) > 1 else [one for one in facts.seen if one.item.price]
    if len(priced) < 2:
        return "", ()
    amounts = sorted(one.item.price or 0.0 for one in priced)
    edge = math.floor(len(amounts) * 0.05) if len(amounts) >= 20 else 0
    span = prices(amounts[edge], amounts[-1 - edge], facts.currency)
    most = "mostly " if edge else ""
    text = f"they {most}spend {span} apiece" if priced is paid else f"the prices they look at are {most}{span}"
    return text, numbers(priced)


def _last_bought(facts: Facts) -> Sentence | None:
    again = _bought_again(facts)
    if again:
        return again
    if not facts.categories and not facts.title_words:
        return None  # the leading sentence has named it
    if facts.purchases_only and not facts.categories and len({one.item.item_id for one in facts.bought}) > 1:
        last, before = facts.bought[-1], facts.bought[-2]
        return sentence(
            f"Most recently they bought {quote(last.item.name)}, and before that {quote(before.item.name)}"
        ), numbers((before, last))
    if facts.bought:
        last = facts.bought[-1]
        options = [
            f"The latest purchase is {quote(last.item.name)}",
            f"Most recently they bought {quote(last.item.name)}",
        ]
        return sentence(pick(options, last.item.item_id)), (last.event.seq,)
    if facts.clicks_only and facts.seen:
        last = facts.seen[-1]
        return sentence(f"The last thing {'read' if facts.news else 'looked at'} is {quote(last.item.name)}"), (
            last.event.seq,
        )
    return None


def _bought_again(facts: Facts) -> Sentence | None:
    """The product bought most often, if more than once."""
    by_item: dict[str, list[ItemEvent]] = {}
    for one in facts.bought:
        by_item.setdefault(one.item.item_id, []).append(one)
    most = max(by_item.values(), key=lambda group: (len(group), group[-1].event.seq), default=[])
    if len(most) < 2:
        return None
    return sentence(f"They bought {quote(most[0].item.name)} {times(len(most))}"), numbers(most)


def _comparison_sentence(facts: Facts, habits: bool) -> Sentence | None:
    """Variants of one style looked at before buying it or without; with `habits`, several such comparisons in one
    sentence."""
    found = comparisons(facts.seen)
    if not found:
        return None
    if habits and len(found) > 1:
        kinds = {_difference(one)[0] for one in found}
        kind = kinds.pop() if len(kinds) == 1 else "version"
        shown = listing([_style_name(one) for one in found[-2:]])
        return sentence(f"They like to compare {kind}s before they decide, as with {shown}"), numbers(
            [one for each in found for one in each.seen]
        )
    last = next((one for one in reversed(found) if one.bought), found[-1])
    kind, number = _difference(last)
    text = f"They compared {count(number, kind)} of {_style_name(last)}"
    if last.bought is None:
        text += " without buying one" if facts.bought else ""
    elif kind == "colour" and last.bought.item.color:
        text += f" and took it in {value(last.bought.item.color)}"
    elif kind == "size" and last.bought.item.size:
        text += f" and took size {value(last.bought.item.size)}"
    else:
        text += " before buying one"
    return sentence(text), numbers(last.seen)


def _difference(comparison: Comparison) -> tuple[str, int]:
    """What the variants differ in, and how many there were."""
    colors = {one.item.color.casefold() for one in comparison.views if one.item.color}
    sizes = {one.item.size.casefold() for one in comparison.views if one.item.size}
    if len(colors) > 1:
        return "colour", len(colors)
    return ("size", len(sizes)) if len(sizes) > 1 else ("version", len({one.item.item_id for one in comparison.views}))


def _style_name(comparison: Comparison) -> str:
    """What the variants' titles begin with in common, else their category."""
    titles = [clean(one.item.title).split() for one in comparison.seen if one.item.title]
    common: list[str] = []
    for same in zip(*titles, strict=False):
        if len({word.rstrip(",;:") for word in same}) > 1:
            break
        common.append(same[0])
    name = " ".join(common).rstrip(" ,;:-–|(/")
    if name.casefold().endswith(" in"):
        name = name[:-3]
    category = category_name(comparison.views[0].item.category)
    return quote(name) if len(name) > 2 else f"the same {category}" if category else "one product"


def _searched(facts: Facts) -> Sentence | None:
    """What was searched (or left in the cart) and not bought; what was searched, where nothing was left open."""
    found = searches(facts.events, facts.items)[::-1]
    carts = left_in_cart(facts.seen)[-1:] if facts.bought else []
    unmet = [one for one in found if not one.answers][:2]
    left = [f"left {quote(one.item.name)} in the cart" for one in carts]
    if unmet:
        queries = listing([quote(one.query) for one in unmet])
        text = f"searched for {queries} without buying a match" if facts.bought else f"searched for {queries}"
        return sentence("They " + listing([text, *left])), tuple(
            sorted({seq for one in unmet for seq in one.seqs} | set(numbers(carts)))
        )
    if left:
        return sentence("They " + left[0]), numbers(carts)
    if found:
        last = found[0]
        return sentence(f"Their search for {quote(last.query)} ended in a purchase"), tuple(
            sorted({*last.seqs, *last.answers})
        )
    return None
