"""Holds an LLM's summary against what it was made from: which catalogue values it names, which of them stand nowhere in
its sources, how much of it is copied, and which events each sentence rests on. Knows nothing of prompts, models or what
to do with a bad summary.

What counts as naming a value (brand, category, colour), so that plain English raises no false alarm:
- whole words, casefolded, singular and plural alike ("dress", "Dresses"), the longest value first ("Polo Ralph Lauren"
  before "Polo");
- values of one or two letters and values made of function words ("new", "one", "other") never count;
- values made of everyday English that any summary may use ("comfort", "natural", "express"; `wording.EVERYDAY`) count
  only where they are a brand, written with a capital, and not at the start of a sentence.
A value is grounded where a source holds its words side by side; for categories and colours, whose words a summary may
rightly reorder ("black dress" of "Dress, black"), one source holding all the words is enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from recgraph.graph.summary.wording import EVERYDAY, PACKING, STOP_WORDS, clean, stem, words
from recgraph.store.records import Event, Item

_STEMMED_STOPS = frozenset(stem(word) for word in STOP_WORDS)
_STEMMED_EVERYDAY = frozenset(stem(word) for word in EVERYDAY) | _STEMMED_STOPS
_PLAIN = _STEMMED_EVERYDAY | frozenset(stem(word) for word in PACKING)
_GRAM = 8
_BULLET = re.compile(r"^\s*(?:[-*•·]|\d{1,2}[.)])\s+")
_END = re.compile(r"(?<=[.!?])[\"”'’)]*\s+(?=[\"“'‘(]*[A-Z0-9])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:oz|fl|dr|mr|mrs|ms|st|no|vs|e\.g|i\.e|approx|inc|ltd|co|in|ft|lb|lbs|pc|pcs)|\b[a-z])\.$", re.IGNORECASE
)
_Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Value:
    name: str
    brand: bool
    everyday: bool


class CatalogueWords:
    """The catalogue's brands, categories and colours, looked up in running text by n-grams of stemmed words.

    `values` maps "brand", "category" and "color" to their distinct values (`Store.attribute_values`). Building is
    linear in the values, a look-up linear in the text's words times the longest value that starts with each.
    """

    def __init__(self, values: Mapping[str, AbstractSet[str]]) -> None:
        self._values: dict[_Key, _Value] = {}
        self._longest: dict[str, int] = {}  # first stem of a value → most words of a value that starts so
        # a brand that is also a category is held to the brand's rule
        for kind in sorted(values, key=lambda kind: kind != "brand"):
            for name in sorted(values[kind]):
                self._add(name, kind == "brand")

    def _add(self, name: str, brand: bool) -> None:
        key = tuple(stem(word) for word in words(clean(name)))
        if sum(map(len, key)) < 3 or all(part in _STEMMED_STOPS for part in key):
            return
        everyday = all(part in _STEMMED_EVERYDAY for part in key)
        if everyday and not brand:
            return
        self._values.setdefault(key, _Value(clean(name).casefold(), brand, everyday))
        self._longest[key[0]] = max(self._longest.get(key[0], 0), len(key))

    def __len__(self) -> int:
        return len(self._values)

    def named(self, text: str) -> set[str]:
        """The values (casefolded) that `text` names, by the rules above."""
        return {self._values[key].name for key in self._named(text)}

    def ungrounded(self, text: str, sources: Sequence[str]) -> set[str]:
        """The values (casefolded) that `text` names and none of `sources` (item texts of the block, the previous
        summary) holds."""
        keys = self._named(text)
        if not keys:
            return set()
        held = {key for source in sources for key in self._held(source)}
        bags = [frozenset(map(stem, words(clean(source)))) for source in sources]
        return {
            self._values[key].name
            for key in keys
            if key not in held and (self._values[key].brand or not any(bag.issuperset(key) for bag in bags))
        }

    def mentions(self, sentence: str, text: str) -> bool:
        """Whether `sentence` names a value that stands in `text`."""
        return not self._named(sentence).isdisjoint(self._held(text))

    def _held(self, text: str) -> set[_Key]:
        return {key for _, key in self._everywhere([stem(word) for word in words(clean(text))])}

    def _named(self, text: str) -> set[_Key]:
        found: set[_Key] = set()
        for part in sentences(text):
            written = words(part)
            stems = [stem(word) for word in written]
            free = 0  # words before this index belong to a value already found
            for start, key in self._everywhere(stems):
                if start >= free and self._counts(key, start, written):
                    found.add(key)
                    free = start + len(key)
        return found

    def _everywhere(self, stems: Sequence[str]) -> Iterator[tuple[int, _Key]]:
        """Every value in the words, by start, the longest of a start first; overlapping ones too."""
        for start, first in enumerate(stems):
            for length in range(self._longest.get(first, 0), 0, -1):
                key = tuple(stems[start : start + length])
                if len(key) == length and key in self._values:
                    yield start, key

    def _counts(self, key: _Key, start: int, written: Sequence[str]) -> bool:
        if not self._values[key].everyday:
            return True
        return start > 0 and all(word[:1].isupper() for word in written[start : start + len(key)])


def copied(text: str, source: str, size: int = _GRAM) -> float:
    """Share (0 to 1) of the text's n-grams of `size` words that stand literally in the source. A shorter text is taken
    as one; empty is 0."""
    ours, theirs = ([word.casefold() for word in words(clean(part))] for part in (text, source))
    size = min(size, len(ours))
    if not size:
        return 0.0
    there = {tuple(theirs[i : i + size]) for i in range(len(theirs) - size + 1)}
    grams = [tuple(ours[i : i + size]) for i in range(len(ours) - size + 1)]
    return sum(gram in there for gram in grams) / len(grams)


def sentences(text: str) -> list[str]:
    """An LLM's answer in sentences: line by line, bullets and numbering dropped, not split after "oz.", "Dr." or an
    initial."""
    found: list[str] = []
    for line in text.splitlines():
        start, line = 0, clean(_BULLET.sub("", line))
        for end in _END.finditer(line):
            if not _ABBREVIATION.search(line[start : end.start()]):
                found.append(line[start : end.end()].strip())
                start = end.end()
        found.append(line[start:].strip())
    return [sentence for sentence in found if sentence]


def support(sentence: str, events: Sequence[Event], items: Mapping[str, Item]) -> tuple[int, ...]:
    """The numbers of the events a sentence rests on, ascending; of all events where the sentence names none of them.

    An event counts where the sentence names its item's brand, category or colour, two telling words of its title or
    query, or one such word that at most a third of the events share.
    """
    pairs = [(event, items.get(event.item_id)) for event in events]
    known = [item for _, item in pairs if item]
    vocabulary = CatalogueWords(
        {kind: {getattr(item, kind) for item in known} for kind in ("brand", "category", "color")}
    )
    said = _telling(sentence)
    shared = [said & _telling(f"{event.query} {item.title if item else ''}") for event, item in pairs]
    frequency: dict[str, int] = {}
    for words_ in shared:
        for word in words_:
            frequency[word] = frequency.get(word, 0) + 1
    rare = {word for word, times in frequency.items() if times * 3 <= len(events) or times == 1}
    found = {
        event.seq
        for (event, item), words_ in zip(pairs, shared, strict=True)
        if len(words_) > 1
        or words_ & rare
        or (item and vocabulary.mentions(sentence, f"{item.brand}, {item.category}, {item.color}"))
    }
    return tuple(sorted(found or {event.seq for event in events}))


def _telling(text: str) -> frozenset[str]:
    return frozenset(
        part for word in words(clean(text)) if len(part := stem(word)) > 2 and part not in _PLAIN and not part.isdigit()
    )
