"""A request in words as a `Wish`: deterministic, without an LLM, in time linear in its length.

One pass over the words; at each place the first rule that knows them takes them: what is taken back, prices, sizes,
negations, relations to what was seen, values of the vocabulary, people. What no rule knows is free text. Which words
mean what is in vocabulary.py and words.py; what fits a wish in facets.py.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from recgraph.store.records import Item
from recgraph.tools.wish.facets import values_in
from recgraph.tools.wish.prices import amount, begins, read_price
from recgraph.tools.wish.spelling import fold, plain
from recgraph.tools.wish.vocabulary import Meaning, Vocabulary
from recgraph.tools.wish.wish import Like, Price, Wish
from recgraph.tools.wish.words import (
    ALSO,
    ANY,
    CHEAP,
    CHEAPER,
    DEAR,
    DEARER,
    ENDS,
    HAD,
    LIKE,
    NEGATIONS,
    NO_MATTER,
    OTHER,
    PARTS,
    PLACES,
    POINTERS,
    RELATIVE,
    SAME,
    SMALL,
    SOFT,
)

MOST_LETTERS = 500  # of a request that are read; the rest is cut
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_][^\W_]*(?:['’`´][^\W\d_]+)*|[€$£%&+,;.!?:/<>=≤≥~-]")
_FOR = {"for", "fur", "pour", "para", "per"}
_SIZE = {"size", "sizes", "sz", "grosse", "taille", "talla", "taglia"}
_SYSTEMS = {"eu", "uk", "us", "it", "fr", "de"}
_MARKS = set(",;.!?:/&+-<>=%~≤≥€$£")


def understand(text: str, vocabulary: Vocabulary, seen: Sequence[Item] = (), shown: Sequence[Item] = ()) -> Wish:
    """What a request asks for. `seen`: the products of the shopper's history, newest last; `shown`: those of the last
    answer of the conversation, best first. Never raises for a text, whatever it holds."""
    words = split_words(text)
    reader = _Reader(vocabulary, words, seen, shown)
    while reader.place < len(words):
        reader.step()
    return reader.wish()


def split_words(text: str) -> list[str]:
    """Folded words, numbers and marks of the first `MOST_LETTERS` letters; control characters part words."""
    cut = "".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in text[:MOST_LETTERS])
    words = ("and" if word == "&" else word for word in _WORD.findall(plain(cut)))
    return [word if word in _MARKS or word[0].isdigit() else fold(word) for word in words]


@dataclass
class _Reader:
    """One reading. Each rule looks at the words from `place` on and returns how many it takes, 0 for none."""

    vocabulary: Vocabulary
    words: Sequence[str]
    seen: Sequence[Item]
    shown: Sequence[Item]
    place: int = 0
    want: dict[str, list[str]] = field(default_factory=dict)
    avoid: dict[str, list[str]] = field(default_factory=dict)
    required: list[str] = field(default_factory=list)
    price: Price = field(default_factory=Price)
    relation: tuple[str, str] | None = None
    pointed: int | None = None  # the product of the last answer that is meant
    soft: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    refused: bool = False  # whether the next value is one that is not wanted
    last: tuple[int, str] = (-1, "")  # where the last value ended, and its attribute

    def step(self) -> None:
        rules: tuple[Callable[[], int], ...] = (
            self._taken_back, self._priced, self._sized, self._negated, self._related, self._valued, self._small,
        )  # fmt: skip
        for rule in rules:
            taken = rule()
            if taken:
                self.place += taken
                return
        self._free()
        self.place += 1

    def _at(self, place: int) -> str:
        return self.words[place] if 0 <= place < len(self.words) else ""

    # -- rules -------------------------------------------------------------------------------------------------------

    def _taken_back(self) -> int:
        """ "never mind the price", "any colour is fine", "the brand doesn't matter"."""
        place = self.place + begins(self.words, self.place, ANY)
        if self._at(place) in ("no", "without") and self._at(place + 2) in ("limit", "preference"):
            self.dropped += [PARTS[one] for one in (self._at(place + 1),) if one in PARTS]
            return 3
        if place > self.place:
            while self._at(place) in ("the", "of", "about"):
                place += 1
            if self._at(place) not in PARTS:
                return 0
            part, place = PARTS[self._at(place)], place + 1
            if self._at(place) in ("is", "will", "would"):
                place += 1 + (self._at(place + 1) in ("fine", "ok", "okay", "good", "do", "be"))
        else:
            part = PARTS.get(self._at(place), "")
            length = begins(self.words, place + 1, NO_MATTER) if part else 0
            if not length:
                return 0
            place += 1 + length
        self.dropped.append(part)
        if self._at(place) == "but":  # "any colour but red"
            self.refused, place = True, place + 1
        return place - self.place

    def _priced(self) -> int:
        found = read_price(self.words, self.place)
        if found is None or self._size_goes_before():
            return 0
        price = found[0]
        if self.refused and price.about is None:  # "not more than"
            price = Price(at_most=price.at_least, at_least=price.at_most)
        self.price = self.price.then(price)
        self.refused = False
        return found[1]

    def _size_goes_before(self) -> bool:
        return self._at(self.place - 1) in _SIZE

    def _sized(self) -> int:
        """ "size 42", "in M", "42 EU", "xl": a size that is asked for is demanded."""
        place, named = self.place, False
        if self._at(place) == "in" and self._at(place + 1) in ("a", "an"):
            place += 1
        if self._at(place) in _SIZE or (self._at(place) in ("in", "a", "an") and self._at(place + 1) in _SIZE):
            place, named = place + 1 + (self._at(place) not in _SIZE), True
            while self._at(place) in ("is", ":", "of", "a", "an", "in", "="):
                place += 1
        elif place > self.place or self._at(place) == "in":
            place, named = place + 1, True
        elif self.last == (place, "category") and amount(self._at(place)) is not None:
            named = True  # "boots 42"
        found = self._sizes_from(place, named)
        if not found:
            return 0
        self._value(Meaning("size", found[0]))
        return found[1] - self.place

    def _sizes_from(self, place: int, named: bool) -> tuple[tuple[str, ...], int] | None:
        sizes: list[str] = []
        end = place
        while True:
            number = amount(self._at(place)) is not None
            system = number and self._at(place + 1) in _SYSTEMS
            found = self.vocabulary.sizes(self.words[place : place + 3], alone=not (named or system))
            if not found and self._at(place) in _SYSTEMS and amount(self._at(place + 1)) is not None:
                place, number = place + 1, True
                found = self.vocabulary.sizes(self.words[place : place + 1])
            if not found:
                break
            sizes += found[0]
            end = place = place + found[1]
            if system and found[1] == 1:
                end = place = place + 1
            if not named or self._at(place) not in ("or", "/", "and", "-", "to", ","):
                break
            place += 1
        return (tuple(dict.fromkeys(sizes)), end) if sizes else None

    def _negated(self) -> int:
        words, place = self.words, self.place
        length = begins(words, place, NEGATIONS)
        if not length:
            return 0
        if self._at(place + length) in ("only", "just", "nur", "solo"):  # "not only black": black first, others too
            return length + 1
        rest = place + length + (self._at(place + length) in ("too", "very", "so", "that"))
        if self._at(rest) in DEAR:
            self.soft.append("cheap")
            return rest + 1 - place
        if self._at(place + length) in ("problem", "idea", "thanks", "rush"):
            return length + 1
        self.refused = True
        return length + (self._at(place + length) in ("-", "of"))

    def _related(self) -> int:
        word, place = self._at(self.place), self.place
        relation = RELATIVE.get(word, "")
        length = 1
        for told, name in ((CHEAPER, "cheaper"), (DEARER, "dearer")):
            if begins(self.words, place, told):
                relation, length = name, 2
        if relation:
            return self._relate(relation, "", length)
        if word in OTHER | SAME and self._at(place + 1) in PARTS:
            attribute = PARTS[self._at(place + 1)]
            return self._relate("other" if word in OTHER else "same", attribute, 2)
        if word in LIKE and self._at(place - 1) not in ("would", "id", "i", "should", "people", "you", "will"):
            return self._alike()
        return 0

    def _relate(self, relation: str, attribute: str, length: int) -> int:
        if self.seen or self.shown:
            self.relation = (relation, attribute)
        elif relation == "cheaper":
            self.soft.append("cheap")
        elif relation in ("warmer", "lighter"):
            self.soft.append(relation[:-2])
        return length

    def _alike(self) -> int:
        """ "like the boots I bought", "similar to this one", "like the second": the boots are read as other values."""
        place = self.place + 1 + (self._at(self.place + 1) in ("to", "as"))
        if self._at(place) not in POINTERS:
            return 0
        after = list(self.words[place : place + 8])
        bought = any(word in HAD for word in after)
        pointed = after[0] in ("it", "them", "this", "that", "these", "those") or any(
            word in PLACES for word in after[:2]
        )
        if not (bought or pointed or self.seen or self.shown):
            return 0
        self.pointed = None if bought else next((PLACES[word] for word in after[:2] if word in PLACES), None)
        if self.pointed is None and pointed and not bought and self.shown:
            self.pointed = 0
        if self.relation is None and (self.seen or self.shown):
            self.relation = ("similar", "")
        taken = place - self.place
        while self._at(self.place + taken) in POINTERS | {"i", "ive", "we"}:
            taken += 1
        return taken

    def _valued(self) -> int:
        if self._at(self.place) in _MARKS:
            return 0
        vocabulary, rest = self.vocabulary, self._without_hyphens()
        found = vocabulary.match(rest)
        if found is None:
            rest = [vocabulary.corrected(word) for word in rest]
            found = vocabulary.match(rest)
        if found is None and not self.refused:
            meant = vocabulary.meant(rest[0])
            found = (meant, 1) if meant else None
        if found is None:
            return 0
        meaning, length = found
        if (meaning.person and not self._is_for()) or (meaning.vague and not self.refused):
            return 0
        if rest[0] in HAD and self.relation:
            return 0
        end = self.place
        while length:
            length -= self._at(end) != "-"
            end += 1
        length = end - self.place
        self._value(meaning)
        self.last = (self.place + length, meaning.attribute)
        return length

    def _without_hyphens(self) -> list[str]:
        """The next words; a hyphen between two of them parts no value ("t-shirt")."""
        rest = self.words[self.place : self.place + 10]
        return [word for word in rest if word != "-"][:5] if "-" in rest[1:2] else list(rest[:5])

    def _is_for(self) -> bool:
        return any(self._at(place) in _FOR for place in range(self.place - 3, self.place))

    def _small(self) -> int:
        word = self._at(self.place)
        if word in CHEAP:
            self.soft.append("cheap")
        elif word in ENDS or word == "in":
            self.refused = self.refused and word == "in"
            if word == "but" and {"anything", "everything", "all"} & set(
                self.words[max(0, self.place - 3) : self.place]
            ):
                self.refused = True
        elif word not in SMALL and word not in _MARKS and not (self.relation and word in HAD):
            return 0
        return 1

    def _free(self) -> None:
        word = self.vocabulary.corrected(self._at(self.place))
        if self.refused:
            self.text.append("not")
        self.text.append(word)
        self.refused = False

    # -- what they note ----------------------------------------------------------------------------------------------

    def _value(self, meaning: Meaning) -> None:
        name, values = meaning.attribute, meaning.values
        if self.refused:
            self._put(self.avoid, name, self.vocabulary.with_kinds(meaning))
            self.refused = self._goes_on(meaning)
            return
        if name in SOFT:
            self.soft += values
            return
        end, before = self.last
        if name == "category" == before and end == self.place and "category" in self.want:
            self.want.pop("category")  # of two kinds side by side the last is meant: a shirt dress is a dress
            self._note(self._at(self.place - 1))
        self._put(self.want, name, values)
        if meaning.word:
            self._note(meaning.word)
        if name == "size" and name not in self.required:
            self.required.append(name)

    def _goes_on(self, meaning: Meaning) -> bool:
        """Whether a negation reaches past a value: "not black or brown"."""
        found = self.vocabulary.match(self._without_hyphens())
        after = self.place + (found[1] if found else 1)
        following = self.vocabulary.match(self.words[after + 1 : after + 6])
        return (
            self._at(after) in ALSO
            and bool(following)
            and following is not None
            and (following[0].attribute == meaning.attribute)
        )

    def _note(self, word: str) -> None:
        if word not in self.text:
            self.text.append(word)

    @staticmethod
    def _put(where: dict[str, list[str]], name: str, values: Sequence[str]) -> None:
        told = where.setdefault(name, [])
        told += [value for value in values if value not in told]

    def wish(self) -> Wish:
        """All that was noted. What is both wanted and not is not wanted."""
        want: dict[str, tuple[str, ...]] = {}
        for name, values in self.want.items():
            left = tuple(value for value in values if value not in self.avoid.get(name, ()))
            if left:
                want[name] = left
        return Wish(
            want,
            {name: tuple(values) for name, values in self.avoid.items()},
            tuple(name for name in self.required if name in want),
            self.price,
            self._like(want),
            tuple(dict.fromkeys(self.soft)),
            " ".join(self.text),
            tuple(dict.fromkeys(self.dropped)),
        )

    def _like(self, want: dict[str, tuple[str, ...]]) -> Like | None:
        """The product meant: of the last answer where that is pointed at or compared, else the newest of its kind."""
        if self.relation is None:
            return None
        relation, attribute = self.relation
        newest = list(reversed(self.seen))
        items = newest if relation == "similar" and self.pointed is None else [*self.shown, *newest]
        if self.pointed is not None and self.pointed < len(self.shown):
            return Like(self.shown[self.pointed].item_id, relation, attribute)
        categories = {fold(value) for value in want.get("category", ())}
        for item in items:
            if not categories or categories & {fold(value) for value in values_in("category", item.category)}:
                return Like(item.item_id, relation, attribute)
        return None
