"""Sizes in a request: "size 42", "in M", "eu 42 or 43", "S to L", "42.5". Which words stand before one, and that a size
that is asked for is demanded, is understand.py's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from recgraph.tools.wish.facets import Attribute
from recgraph.tools.wish.prices import amount
from recgraph.tools.wish.spelling import fold
from recgraph.tools.wish.words import ORDINARY, SMALL

SYSTEMS = {"eu", "uk", "us", "it", "fr", "de"}
_LETTER_SIZES = {
    "extra small": "xs", "x small": "xs", "small": "s", "medium": "m", "large": "l", "x large": "xl",
    "extra large": "xl", "xx large": "xxl", "2xl": "xxl", "3xl": "xxxl", "klein": "s", "mittel": "m", "gross": "l",
}  # fmt: skip
_SAID_OF_ALL = set("long short regular full normal standard wide narrow single double medium free".split())
_LETTERS = ("xxxs", "xxs", "xs", "s", "m", "l", "xl", "xxl", "xxxl")  # in order
_TO = {"-", "to", "bis", "a"}
_NEXT = {"or", "/", "and", ",", "oder", "und", "ou", "et", "o", "y", "e"}
_SYSTEM = re.compile(r"^[a-z]+ ?| ?[a-z]+$")  # "eu " of "eu 42"


class Sizes:
    """Looks up the sizes of one shop; without any it finds none."""

    def __init__(self, attribute: Attribute | None) -> None:
        self._spelling = dict(attribute.spelling) if attribute else {}
        self._joined: dict[str, list[str]] = {}
        for key in self._spelling:
            self._joined.setdefault(key.replace(" ", ""), []).append(key)
        self._numbers: dict[str, list[str]] = {}
        for key in self._spelling:
            self._numbers.setdefault(_SYSTEM.sub("", key), []).append(key)

    def words(self) -> Iterator[tuple[str, str]]:
        """(folded, as the shop spells it) of sizes that are words of their own ("petite"): named as they stand,
        demanded only after "size" or "in". A long dress is not one of the size Long."""
        for key, value in self._spelling.items():
            if len(key) > 3 and key.isalpha() and key not in _SAID_OF_ALL | SMALL and key not in _LETTER_SIZES:
                yield key, value

    def read(self, words: Sequence[str], place: int, named: bool) -> tuple[tuple[str, ...], int] | None:
        """The sizes that are told from a place on, as the shop spells them, and the place after them. Not `named`: only
        what cannot be anything else ("xl", "eu 42", "w32"; no "m", no "42", no "large")."""
        sizes: list[str] = []
        end, since = place, ""  # the word that led to this size
        while place < len(words):
            found = self._one(words, place, named)
            if found is None:
                break
            if since in _TO and sizes:
                sizes += self._between(sizes[-1], found[0][-1])
            sizes += found[0]
            named = named or found[2]
            end = place = found[1]
            since = words[place] if place < len(words) else ""
            if not named or since not in _TO | _NEXT:
                break
            place += 1
        else:
            since = ""
        if not sizes or (since == "-" and end + 1 < len(words) and amount(words[end + 1]) is not None):
            return None  # 40-60 is no size where the shop has but a 40
        return tuple(dict.fromkeys(sizes)), end

    def _one(self, words: Sequence[str], place: int, named: bool) -> tuple[list[str], int, bool] | None:
        """(sizes, the place after them, whether a system of sizes was named)."""
        word, following = words[place], words[place + 1] if place + 1 < len(words) else ""
        before = word in SYSTEMS and amount(following) is not None
        after = not before and following in SYSTEMS and amount(word) is not None
        found = self.match(words[place : place + 3], alone=not (named or after))
        if found:
            return list(found[0]), place + found[1] + bool(after and found[1] == 1), before or after
        found = self.match(words[place + 1 : place + 2]) if before else None  # "UK 8" where the shop says 8
        return (list(found[0]), place + 2, True) if found else None

    def match(self, words: Sequence[str], alone: bool = False) -> tuple[tuple[str, ...], int] | None:
        """The sizes that the folded words begin with, and how many words that takes: "42", "eu 42", "w32", "medium"."""
        for length in (3, 2, 1):
            parts = list(map(fold, words[:length]))  # 42.5 is kept as "42 5"
            key = " ".join(parts)
            if length > len(words) or not all(parts) or (alone and not _is_size_alone(key)):
                continue
            if not alone and key in ORDINARY | SMALL and key not in _LETTER_SIZES:
                continue  # "in full", "size is ..."
            short = _LETTER_SIZES.get(key, key)
            found = [short] if short in self._spelling else self._joined.get(short.replace(" ", ""), [])
            if not found and not alone and key.replace(" ", "").isdigit():
                found = self._numbers.get(key, [])
            if found:
                return tuple(self._spelling[one] for one in found), length
        return None

    def _between(self, first: str, last: str) -> list[str]:
        """The shop's sizes from one to another of the same system, smallest first."""
        low, high = fold(first), fold(last)
        if low in _LETTERS and high in _LETTERS:
            keys = [key for key in _LETTERS[_LETTERS.index(low) : _LETTERS.index(high)] if key in self._spelling]
            return [self._spelling[key] for key in keys]
        placed = sorted(
            (number, key)
            for key in self._spelling
            if _system(key) == _system(low) and (number := _number(key)) is not None
        )
        bounds = _number(low), _number(high)
        if None in bounds or _system(low) != _system(high):
            return []
        return [self._spelling[key] for number, key in placed if bounds[0] <= number <= bounds[1]]  # type: ignore[operator]


def _is_size_alone(key: str) -> bool:
    """Whether words can hardly mean anything but a size: "xl", "w32", "eu 42", "one size"; not "42", not "petite"."""
    if key in _LETTER_SIZES or key.replace(" ", "").isdigit():
        return False
    return bool(re.search(r"\d", key) or re.fullmatch(r"x+ ?[sl]", key)) or key == "one size"


def _system(key: str) -> str:
    return re.sub(r"[\d ]+", "", key)


def _number(key: str) -> float | None:
    found = re.search(r"\d+(?: \d)?\b", key)
    return float(found[0].replace(" ", ".")) if found else None
