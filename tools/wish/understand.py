"""A request in words as a `Wish`: deterministic, without an LLM, in time linear in its length.

One pass over the words; at each place the first rule that knows them takes them: what is taken back, prices, sizes,
negations, relations to what was seen, values of the vocabulary, people. What no rule knows is free text. Which words
mean what is in vocabulary.py and words.py; what fits a wish in facets.py.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from recgraph.store.records import Item
from recgraph.tools.wish.facets import values_in
from recgraph.tools.wish.negations import read_negation
from recgraph.tools.wish.prices import amount, begins, read_price
from recgraph.tools.wish.spelling import fold, plain
from recgraph.tools.wish.vocabulary import Meaning, Vocabulary
from recgraph.tools.wish.wish import WORDS, Like, Price, Wish
from recgraph.tools.wish.words import (
    ALSO,
    ANY,
    CHEAP,
    CHEAPER,
    DEARER,
    ENDS,
    FORGET,
    HAD,
    LIKE,
    NO_MATTER,
    OTHER,
    PARTS,
    PLACES,
    POINTERS,
    RELATIVE,
    SAME,
    SMALL,
    SOFT,
    SPURNED,
)

MOST_LETTERS = 1000  # of a request that are read; the rest is cut
MOST_MEANT = 4  # unknown words of a request that the encoder is asked for, the first: each takes milliseconds
# A minus or an exclamation mark right before a word, behind another: what search engines read as "not".
_MINUS = re.compile(r"([^\W_][,;]? +)[-!−](?=[^\W\d_])")
_WORD = re.compile(
    r"\d{1,9}e\d{1,2}(?![^\W_])|\d+(?:[.,]\d+)*|[^\W\d_][^\W_]*(?:['’`´][^\W\d_]+)*|[€$£%&+,;.!?:/<>=≤≥~-]"
)
_DELIVERED = {"shipping", "delivery", "returns", "return", "gift", "postage"}  # what is free beside a product
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
    cut = _MINUS.sub(r"\1not ", text[:MOST_LETTERS])
    cut = "".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in cut)
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
    strong: bool = False  # whether commas carry that on
    reach: int = 0  # the place up to which a list carries it on
    last: tuple[int, str] = (-1, "")  # where the last value ended, and its attribute
    meant: Meaning | None = None  # the last value
    unknown: int = 0  # words that were looked up by their meaning

    def step(self) -> None:
        rules: tuple[Callable[[], int], ...] = (
            self._taken_back, self._spurned, self._priced, self._sized, self._negated, self._related, self._valued,
            self._small,
        )  # fmt: skip
        for rule in rules:
            taken = rule()
            if taken:
                self.place += taken
                return
        self.place += self._free()

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
                return self._forgotten(place)
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

    def _forgotten(self, place: int) -> int:
        """ "forget the boots": the attribute of a value that is taken back."""
        found = self.vocabulary.match(self._without_hyphens(place)) if begins(self.words, self.place, FORGET) else None
        if found is None or found[0].person:
            return 0
        self.dropped.append("soft" if found[0].attribute in SOFT else found[0].attribute)
        return place + found[1] - self.place

    def _spurned(self) -> int:
        """ "black is not for me": the value before is not wanted."""
        length = begins(self.words, self.place, SPURNED) if self.last[0] == self.place else 0
        if length and self.meant:
            self._put(self.avoid, self.meant.attribute, self.vocabulary.with_kinds(self.meant))
            return length
        return 0

    def _priced(self) -> int:
        found = read_price(self.words, self.place)
        if found is None or self._size_goes_before():
            return 0
        price, length = found
        if not self.refused:
            self._cost(price)
        elif price.about is None and not (price.at_most and price.at_least):  # "not more than"
            self._cost(Price(at_most=price.at_least, at_least=price.at_most))
        else:  # "not between 20 and 40": no bounds say that
            self.text += ["not", *(word for word in self.words[self.place : self.place + length] if word[0].isdigit())]
        self.refused = False
        return length

    def _cost(self, price: Price) -> None:
        """Within a request a price to be near to leaves the bounds in place, and a bound that price."""
        about = self.price.about if price.about is None else price.about
        bounds = self.price if price.about is not None else replace(self.price, about=None).then(price)
        self.price = replace(bounds, about=about)

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
        elif self._is_size_here(place):
            named = True  # "boots 42", "dress, M", "M or L"
        found = self.vocabulary.sizes.read(self.words, place, named)
        if not found:
            return 0
        self._value(Meaning("size", found[0]))
        if "size" in self.want and "size" not in self.required:
            self.required.append("size")
        return found[1] - self.place

    def _is_size_here(self, place: int) -> bool:
        """Whether a number or a letter is a size by its place: behind a kind of product, or beside another size."""
        word, behind = self._at(place), self.last[1] == "category"
        if amount(word) is not None:
            return behind and self.last[0] == place
        if word not in ("s", "m", "l"):
            return False
        joined = self._at(place + 1) in ("or", "/") and self.vocabulary.sizes.match([self._at(place + 2)]) is not None
        return joined or (behind and self.last[0] in (place, place - (self._at(place - 1) == ",")))

    def _negated(self) -> int:
        found = read_negation(self.words, self.place, self._is_named)
        if found is None:
            return 0
        self.soft += ["cheap"] if found.cheap else []
        if found.refuses:
            self.refused, self.strong = True, found.strong
        return found.length

    def _is_named(self, place: int) -> bool:
        """Whether a value or a price begins at a place."""
        if place >= len(self.words):
            return False
        return self.vocabulary.match(self.words[place : place + 5]) is not None or (
            read_price(self.words, place) is not None
        )

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
        if found is None and not self.refused and self.unknown < MOST_MEANT and not vocabulary.knows(rest[0]):
            self.unknown += 1
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
        if self._at(end) == "-" and self._at(end + 1) == "free":
            length += 1
        free = self._at(self.place + length) == "free" and self._at(self.place + length + 1) not in _DELIVERED
        self.refused = self.refused or free
        self._value(meaning)
        self.last, self.meant = (self.place + length, meaning.attribute), meaning
        return length + free

    def _without_hyphens(self, place: int = -1) -> list[str]:
        """The next words, or those from a place on; a hyphen between two of them parts no value ("t-shirt")."""
        start = self.place if place < 0 else place
        rest = self.words[start : start + 10]
        return [word for word in rest if word != "-"][:5] if "-" in rest[1:2] else list(rest[:5])

    def _is_for(self) -> bool:
        return any(self._at(place) in _FOR for place in range(self.place - 3, self.place))

    def _small(self) -> int:
        word = self._at(self.place)
        if word in CHEAP:
            self.soft.append("cheap")
        elif word in ENDS or word == "in":
            self.refused = self.refused and (word == "in" or self.place < self.reach)
            if word == "but" and {"anything", "everything", "all"} & set(
                self.words[max(0, self.place - 3) : self.place]
            ):
                self.refused = True
        elif word not in SMALL and word not in _MARKS and word not in ALSO and not (self.relation and word in HAD):
            return 0
        return 1

    def _free(self) -> int:
        """A word that no rule knows, or after a negation one or more that titles know: "no zip", "no long sleeves"."""
        word = self.vocabulary.corrected(self._at(self.place))
        if not self.refused:
            self.text.append(word)
            return 1
        length = 0
        while length < 3 and self._is_ruled_out(self.place + length):
            length += 1
        if length:
            self._put(self.avoid, WORDS, [" ".join(self.words[self.place : self.place + length])])
            self.refused = self.strong = self._at(self.place + length) in ALSO
            return length
        self.text += ["not", word]
        self.refused = False
        return 1

    def _is_ruled_out(self, place: int) -> bool:
        return self.vocabulary.rules_out(self._at(place), self.strong) and (
            place == self.place or self.vocabulary.match(self.words[place : place + 5]) is None
        )

    # -- what they note ----------------------------------------------------------------------------------------------

    def _value(self, meaning: Meaning) -> None:
        name, values = meaning.attribute, meaning.values
        if self.refused:
            self._put(self.avoid, name, self.vocabulary.with_kinds(meaning))
            self.refused = self._goes_on(meaning)
            return
        if name in SOFT or meaning.praise:
            self.soft += values
            return
        end, before = self.last
        if name == "category" == before and end == self.place and "category" in self.want:
            self.want.pop("category")  # of two kinds side by side the last is meant: a shirt dress is a dress
            self._note(self._at(self.place - 1))
        self._put(self.want, name, values)
        if meaning.word:
            self._note(meaning.word)

    def _goes_on(self, meaning: Meaning) -> bool:
        """Whether a negation reaches past a value: "not black or brown", "no black, brown or navy". A comma alone
        carries only a strong one on."""
        found = self.vocabulary.match(self._without_hyphens())
        place = self.place + (found[1] if found else 1)
        while self._at(place) in ALSO or self._at(place) == ",":
            closed = self._at(place) in ALSO or self._at(place + 1) in ALSO
            start = place + 1 + (self._at(place) == "," and self._at(place + 1) in ALSO)
            following = self.vocabulary.match(self.words[start : start + 5])
            if following is None or following[0].attribute != meaning.attribute:
                return False
            if closed or self.strong:
                self.reach = start
                return True
            place = start + following[1]
        return False

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
