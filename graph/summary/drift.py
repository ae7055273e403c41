"""What changed in a history: what is new in its newest block, what did not return, what gave way to what. Part of the
counting summarizer."""

from __future__ import annotations

from collections.abc import Sequence

from recgraph.graph.summary.counts import Count, Facts, ItemEvent, numbers, recurring, seqs_of, title_stems
from recgraph.graph.summary.wording import listing, pick, quote, sentence, stem, words

Sentence = tuple[str, tuple[int, ...]]


def lately(facts: Facts, fresh: set[int]) -> Sentence | None:
    """What the newest block has that nothing before it had, and what was frequent before and did not come again."""
    before = [one for one in facts.seen if one.event.seq not in fresh]
    now = [one for one in facts.seen if one.event.seq in fresh]
    if not before or not now:
        return None
    came, went, stayed = [], [], []
    for kind, many in ((facts.categories, 2), (facts.colors, 1), (facts.brands, 1)):
        weight = sum(one.weight for one in kind)
        first = [one for one in kind if fresh.issuperset(one.seqs)]
        came.append(first[:many])
        went.append(
            [one for one in kind if fresh.isdisjoint(one.seqs) and len(one.seqs) > 1 and one.weight * 4 >= weight][:1]
        )
        stayed.append([one for one in kind if one not in first and not fresh.isdisjoint(one.seqs)][:1])
    if not facts.categories and not facts.brands:
        return _lately_by_words(facts, before, now)
    gone = _named(facts, went[0], [], []) or _named(facts, [], went[1], went[2])
    used = [one for group in (*came, *(went[:1] if went[0] else went[1:])) for one in group]
    new = _named(facts, *came)
    if new:
        options = [f"Lately {new} came up for the first time", f"New lately: {new}"]
        return sentence(
            pick(options, new) + (f", while {gone}, frequent before, did not return" if gone else "")
        ), seqs_of(*used)
    if gone:
        return sentence(f"Lately {gone}, frequent before, did not come up"), seqs_of(*used)
    same = _named(facts, *stayed)
    return (
        (sentence(f"The newest choices stay with {same}"), seqs_of(*[one for group in stayed for one in group]))
        if same
        else None
    )


def _named(facts: Facts, categories: Sequence[Count], colors: Sequence[Count], brands: Sequence[Count]) -> str:
    """Values of the three kinds in one list, "" for none."""
    hues = [f"the colour {one.name}" for one in colors]
    parts = [*([facts.nouns([one]) for one in categories]), *(one.name for one in brands), *hues]
    return listing(parts) if parts else ""


def _lately_by_words(facts: Facts, before: Sequence[ItemEvent], now: Sequence[ItemEvent]) -> Sentence | None:
    """As `lately`, with recurring title words where the catalogue has neither categories nor brands."""
    old = {part for one in before for part in title_stems(one)}
    said = {one.name for one in facts.title_words[:3]}
    new = [one for one in recurring(now) if one.name not in said and old.isdisjoint(map(stem, words(one.name)))][:2]
    held = {part for one in now for part in title_stems(one)}
    gone = [
        one
        for one in recurring(before)
        if held.isdisjoint(map(stem, words(one.name))) and len(one.seqs) * 4 >= len(before)
    ][:1]
    came, went = (listing([quote(one.name) for one in group]) if group else "" for group in (new, gone))
    if new:
        tail = f", while {went}, frequent before, did not return" if went else ""
        return sentence(f"Lately {came} came up for the first time{tail}"), seqs_of(*new, *gone)
    return (sentence(f"Lately {went}, frequent before, did not come up"), seqs_of(*gone)) if gone else None


def over_time(facts: Facts) -> Sentence | None:
    """What only the earlier and only the later half of a longer history has, at least twice each."""
    if len(facts.seen) < 8:
        return None
    later = set(numbers(facts.seen[len(facts.seen) // 2 :]))
    for kind in (facts.categories, facts.brands, facts.colors):
        often = [one for one in kind if len(one.styles) > 1]
        faded = [one for one in often if later.isdisjoint(one.seqs)][:2]
        risen = [one for one in often if later.issuperset(one.seqs)][:2]
        named = facts.nouns if kind is facts.categories else lambda group: listing([one.name for one in group])
        if faded and risen:
            return sentence(f"Over time {named(faded)} gave way to {named(risen)}"), seqs_of(*faded, *risen)
        if risen:
            return sentence(f"{named(risen)} came in only in the later half"), seqs_of(*risen)
    return None
