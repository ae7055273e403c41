"""The words by which people name what a shop has: values in their spellings, parts of them, synonyms, typos.

A `Meaning` is an attribute and values that the catalogue holds, always. Four means, in this order:
1. values as the shop spells them, in any case, plural or singular, joined or apart ("t-shirt", "tshirt"), a brand's
   first word, the parts of a category ("Shirts & Blouses": shirt, blouse), and what titles end in where nearly all such
   titles are of one category ("jumper": Knitwear);
2. tables (words.py): colours in German, French, Spanish and Italian, shades, kinds of clothes, departments;
3. one or two slips of the finger in words of four letters and more that are neither ordinary, in any title, nor a word
   that the sentence encoder was taught;
4. the nearest value by a sentence encoder, for one unknown word at a time, kept for the next time.
How a sentence is read is understand.py's subject.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import OSA

from recgraph.tools.wish.facets import MOST_READ, Attribute, Facets
from recgraph.tools.wish.sizes import Sizes
from recgraph.tools.wish.spelling import fold, stem, stems
from recgraph.tools.wish.words import (
    COLOURS,
    DEPARTMENTS,
    FAMILIES,
    FINER,
    HOLDS,
    KIND_OF,
    KINDS,
    NO_VALUES,
    ORDINARY,
    PERSONS,
    PRAISE,
    SHADES,
    SMALL,
    TONES,
    WIDER,
)

if TYPE_CHECKING:  # it opens torch, which reading words does not need
    from recgraph.tools.embed import Encoder

LONGEST = 5  # words of one value
_PURE = 0.9  # so many of the titles that end in a word are of one category, or the word tells none
_KEPT = 4096  # words looked up by distance or by meaning that are remembered
_SPELLED = 20_000  # words of titles that a slip may be of, the most frequent: 2 ms
# Cosine from which an unknown word means a value. Of 70 words that people use of clothes, against the simulated shop's
# values by all-MiniLM-L6-v2: from here on the nine found were right (gown, workplace); .69 has socks (sandals).
NEAR = 0.7
_FIRST = ("category", "color", "brand", "department", "material")  # whose a word is where several have it
_THINGS = {*COLOURS, *(fold(word) for line in KINDS for word in line.split(","))}
_PARTS = re.compile(r"\s*(?:&|,|/|>|\band\b|\bund\b|\bet\b)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a word names: values of one attribute. `word` stays in the free text where it says more than they do: the
    jumper of Knitwear. `person`: only after "for" ("for my dad"). `praise`: people say it of anything ("classic"), so
    that it ranks and comes before nothing."""

    attribute: str
    values: tuple[str, ...]
    word: str = ""
    person: bool = False
    praise: bool = False

    @property
    def vague(self) -> bool:
        """Whether it is but a piece of a value of the shop's own attributes ("heel" of Block-Heel): enough to avoid
        them, not to want them."""
        return bool(self.word) and self.attribute not in ("category", "color", "material", "occasion")


class Vocabulary:
    """Looks up words of one catalogue. Thread-safe; made once, it keeps only a bounded memory of unknown words."""

    def __init__(self, facets: Facets, encoder: Encoder | None = None) -> None:
        self.facets, self._encoder = facets, encoder
        self._read: frozenset[str] = getattr(encoder, "words", frozenset())  # real words, of an encoder that knows them
        self.phrases: dict[str, Meaning] = {}
        self.sizes = Sizes(facets.attributes.get("size"))
        self._title_words = facets.title_words
        for add in (
            self._add_colours, self._add_values, self._add_departments, self._add_parts, self._add_heads,
            self._add_kinds, self._add_sizes,
        ):  # fmt: skip
            add()
        for phrase in [phrase for phrase in self.phrases if " " in phrase]:
            self.phrases.setdefault(phrase.replace(" ", ""), self.phrases[phrase])
        self._lexicon, self._own = self._words()
        self._spelled = list(self._lexicon)
        self._corrected: dict[str, str] = {}
        self._meant: dict[str, Meaning | None] = {}
        self._near: tuple[list[str], np.ndarray] | None = None

    @classmethod
    def of(cls, facets: Facets, encoder: Encoder | None = None) -> Vocabulary:
        """Of a catalogue; without an encoder no synonyms but those of the tables."""
        return cls(facets, encoder)

    # -- looking up --------------------------------------------------------------------------------------------------

    def match(self, words: Sequence[str]) -> tuple[Meaning, int] | None:
        """The longest value that the folded words begin with, and how many of them it takes."""
        for length in range(min(LONGEST, len(words)), 0, -1):
            phrase = stems(" ".join(words[:length]))
            found = self.phrases.get(phrase) or (self.phrases.get(phrase.replace(" ", "")) if length > 1 else None)
            if found:
                return found, length
        bare = _without_german_ending(words[0]) if words else ""
        found = self.phrases.get(bare) if bare in COLOURS else None
        return (found, 1) if found else None

    def knows(self, word: str) -> bool:
        """Whether a folded word is as it is meant: small, ordinary, of a title or of a value."""
        return (
            word in SMALL or word in ORDINARY or word in self._title_words or word in self._lexicon
            or stem(word) in self._lexicon or stem(word) in self.phrases
        )  # fmt: skip

    def corrected(self, word: str) -> str:
        """The word of a value or a title that this one is a slip of the finger of; the word itself where there is
        none."""
        if len(word) < 4 or not word.isalpha() or self.knows(word) or _without_german_ending(word) in COLOURS:
            return word
        if word in self._read:
            return word
        if word not in self._corrected:
            if len(self._corrected) >= _KEPT:
                self._corrected.clear()
            self._corrected[word] = self._nearest_spelling(word)
        return self._corrected[word]

    def _nearest_spelling(self, word: str) -> str:
        allowed = 1 if len(word) < 7 else 2
        near = process.extract(word, self._spelled, scorer=OSA.distance, score_cutoff=allowed, limit=20)
        near = [one for one in near if self._is_slip(word, one[0], int(one[1]))]
        best = min(near, key=lambda one: (one[1], -self._lexicon[one[0]], one[0]), default=None)
        return str(best[0]) if best else word

    def _is_slip(self, word: str, meant: str, slips: int) -> bool:
        """Whether a finger may have slipped so. The first letter is seldom wrong, but may have changed places; a word
        of a table, which this shop may never have printed, is guessed only where one letter of six is wrong."""
        first = meant[0] == word[0] or meant[:2] == word[1::-1]
        return len(meant) > 3 and first and (meant in self._own or (slips == 1 and len(word) > 5))

    def meant(self, word: str) -> Meaning | None:
        """What an unknown word means by the sentence encoder, None where nothing is near enough."""
        if self._encoder is None or len(word) < 4 or not word.isalpha() or self.knows(word):
            return None
        if word not in self._meant:
            if len(self._meant) >= _KEPT:
                self._meant.clear()
            self._meant[word] = self._nearest_meaning(word)
        return self._meant[word]

    def _nearest_meaning(self, word: str) -> Meaning | None:
        assert self._encoder is not None
        if self._near is None:
            names = [name for phrase, meaning in self.phrases.items() if (name := _name_of(phrase, meaning))]
            self._near = names, self._encoder.encode(names)
        names, vectors = self._near
        if not names:
            return None
        likeness = vectors @ self._encoder.encode([word])[0]
        best = int(np.argmax(likeness))
        return replace(self.phrases[stems(names[best])], word=word) if likeness[best] >= NEAR else None

    def rules_out(self, word: str, strong: bool) -> bool:
        """Whether a refused word that is no value tells products apart by their titles: "no zip" where titles say zip.
        After a mere "not" an ordinary word does not ("not sure", "not bad"), unless it is the name of a thing."""
        known = word in self._title_words or stem(word) in self._title_words
        thing = strong or word not in ORDINARY or word in _THINGS
        return known and thing and word not in SMALL and self.facets.n_items <= MOST_READ

    def with_kinds(self, meaning: Meaning) -> tuple[str, ...]:
        """The values, and what is of their kind by another name: who wants no wool wants no merino."""
        attribute = self.facets.attributes[meaning.attribute]
        more = (kind for value in meaning.values for kind in KIND_OF.get(fold(value), "").split(","))
        return tuple(
            dict.fromkeys((*meaning.values, *(attribute.spelling[key] for key in more if key in attribute.spelling)))
        )

    # -- making ------------------------------------------------------------------------------------------------------

    def _add(self, phrase: str, meaning: Meaning) -> None:
        if phrase and meaning.values and phrase.count(" ") < LONGEST and not phrase.replace(" ", "").isdigit():
            self.phrases.setdefault(phrase, meaning)

    def _attributes(self) -> list[Attribute]:
        """All but size, which is asked for in words of its own."""
        found = [one for name, one in self.facets.attributes.items() if name != "size"]
        return sorted(found, key=lambda one: _FIRST.index(one.name) if one.name in _FIRST else len(_FIRST))

    def _add_values(self) -> None:
        for attribute in self._attributes():
            for key, value in attribute.spelling.items():
                if len(key) < 2 or key in SMALL or key in NO_VALUES:
                    continue
                values: tuple[str, ...] = (value,)
                if attribute.name == "material":  # organic cotton is cotton
                    words = set(key.split())
                    values += tuple(
                        more
                        for other, more in attribute.spelling.items()
                        if other != key and (words <= set(other.split()) or other in FINER.get(key, ()))
                    )
                praise = key in PRAISE and attribute.name not in _FIRST
                self._add(stems(key), Meaning(attribute.name, values, praise=praise))
                if attribute.name == "brand" and " and " in key:
                    self._add(stems(key.replace(" and ", " ")), Meaning("brand", (value,)))

    def _add_colours(self) -> None:
        """Each colour word that means a colour of the shop: the same in another language, with a tone, or a shade."""
        attribute = self.facets.attributes.get("color")
        if attribute is None:
            return
        shop = _ShopColours.of(attribute)
        for word, base in COLOURS.items():
            values = tuple(attribute.spelling[key] for key in dict.fromkeys(shop.meant_by(word, base)))
            if values:
                self._add(stems(word), Meaning("color", values))

    def _add_departments(self) -> None:
        attribute = self.facets.attributes.get("department")
        if attribute is None:
            return
        spelled: dict[str, str] = {}
        for key, _ in sorted(attribute.count.items(), key=lambda one: -one[1]):
            spelled.setdefault(DEPARTMENTS.get(key, key), attribute.spelling[key])
        for word, meaning in DEPARTMENTS.items():
            wider = (meaning,) if meaning in spelled else WIDER.get(meaning, ())[: 1 if meaning != "kids" else 2]
            values = tuple(spelled[one] for one in wider if one in spelled)
            self._add(stems(word), Meaning("department", values, person=word in PERSONS))

    def _add_parts(self) -> None:
        """Parts of values that are named alone: of a category, the last word of others, the first word of a brand."""
        for attribute in self._attributes():
            parts: dict[str, list[str]] = {}
            for value in attribute.spelling.values():
                for part in _parts_of(attribute.name, value):
                    parts.setdefault(stems(part), []).append(value)
            for part, values in parts.items():
                common = part in COLOURS or part in ORDINARY or part in SMALL
                if attribute.name == "brand" and (len(values) > 1 or common or len(part) < 4):
                    continue
                if attribute.name not in ("brand", "category") and (part in SMALL or part in COLOURS or len(part) < 4):
                    continue
                if part in NO_VALUES:
                    continue
                self._add(part, Meaning(attribute.name, tuple(values), "" if attribute.name == "brand" else part))

    def _add_sizes(self) -> None:
        for key, value in self.sizes.words():
            self._add(stems(key), Meaning("size", (value,)))

    def _add_heads(self) -> None:
        """What titles end in, where that tells the category."""
        if "category" not in self.facets.attributes:
            return
        for head, categories in self.facets.heads.items():
            category, times = categories[0]
            if times >= _PURE * sum(count for _, count in categories) and head not in SMALL and head not in COLOURS:
                self._add(stems(fold(head)), Meaning("category", (category,), fold(head)))

    def _add_kinds(self) -> None:
        """Words of the table for what is known by another one of its line."""
        for line in KINDS:
            words = [fold(word) for word in line.split(",")]
            known = next((word for word in words if stems(word) in self.phrases), None)
            for word in words if known else ():
                if word not in self._title_words and stem(word) not in self._title_words:
                    self._add(stems(word), self.phrases[stems(str(known))])

        for names, kinds in HOLDS.items():
            held = [self.phrases[stems(kind)] for kind in kinds.split(",") if stems(kind) in self.phrases]
            values = dict.fromkeys(value for one in held if one.attribute == "category" for value in one.values)
            for word in names.split(","):
                self._add(stems(word), Meaning("category", tuple(values)))

    def _words(self) -> tuple[dict[str, int], set[str]]:
        """The words that a misspelt one may be, and in how many titles they are: of values, of titles, of tables; and
        those of them that are the shop's own."""
        spelled = (key for attribute in self._attributes() for key in attribute.values)
        own = {word: 1 for key in spelled for word in key.split() if len(word) > 2}
        told = [(word, count) for word, count in self._title_words.items() if word.isalpha() and len(word) > 3]
        own.update(sorted(told, key=lambda one: (-one[1], one[0]))[:_SPELLED])
        words = {word: 1 for key in self.phrases for word in key.split() if len(word) > 2}
        words.update((word, 1) for word in COLOURS if " " not in word and stems(word) in self.phrases)
        return {**words, **own}, {*own, *map(stem, own)}


@dataclass(frozen=True)
class _ShopColours:
    """A shop's colours by what is asked of them; a market place has tens of thousands. `place`: key → its number in the
    shop's order."""

    place: dict[str, int]
    by_base: dict[str, list[str]]
    by_word: dict[str, list[str]]

    @classmethod
    def of(cls, attribute: Attribute) -> _ShopColours:
        place = {key: number for number, key in enumerate(attribute.spelling)}
        by_base: dict[str, list[str]] = {}
        by_word: dict[str, list[str]] = {}
        for key in place:
            if key in COLOURS:
                by_base.setdefault(COLOURS[key], []).append(key)
            for word in set(key.split()):
                by_word.setdefault(word, []).append(key)
        return cls(place, by_base, by_word)

    def meant_by(self, word: str, base: str) -> list[str]:
        """The colours that a word means: of that name in any language or with a tone before it, and of its family;
        where there is none of that name, those that hold the word, and shades of it."""
        toned = [key for key in self.by_word.get(base, []) if _is_toned(key, base)]
        same = [*([word] if word in self.place else []), *self.by_base.get(base, [])]
        if not same:
            shades = {*SHADES.get(base, base).split(","), base}
            held = (key for shade in shades for key in self.by_word.get(shade, []))
            same = [*(key for key in shades if key in self.place), *held]
        family = [key for key in FAMILIES.get(base, "").split(",") if key in self.place]
        return [*sorted(dict.fromkeys(same), key=self.place.__getitem__), *toned, *family]


def _is_toned(key: str, base: str) -> bool:
    *tones, colour = key.split()
    return bool(tones) and colour == base and set(tones) <= TONES


def _parts_of(name: str, value: str) -> Iterable[str]:
    """Folded parts by which people name a value."""
    if name == "brand":
        words = fold(value).split()
        return words[:1] if len(words) > 1 else []
    parts = [fold(part) for part in _PARTS.split(value)] if name == "category" else [fold(value)]
    found = [part for part in parts if part and part != fold(value)]
    return [*found, *(part.split()[-1] for part in parts if " " in part and part.split()[-2:-1] != ["t"])]


def _name_of(phrase: str, meaning: Meaning) -> str:
    """The value, as a word to compare by meaning, that a phrase is; "" where it is another word for it."""
    if meaning.attribute == "brand" or meaning.person or meaning.vague or len(phrase) < 3:
        return ""
    return next((name for name in map(fold, (meaning.word, *meaning.values)) if stems(name) == phrase), "")


def _without_german_ending(word: str) -> str:
    """ "schwarzen": schwarz."""
    return re.sub(r"(?<=\w{3})e[nrsm]?$", "", word)
