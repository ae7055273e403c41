"""Negations in a request: which words refuse what follows ("not", "allergic to", "sauf"), and which only sound like it
("not too cheap", "I can not find", "nothing but"). What is refused, understand.py reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recgraph.tools.wish.prices import begins
from recgraph.tools.wish.words import CHEAP, DEAR, LIKE, NEGATIONS, NO_PRODUCT, REACH, STRONG, TOO


@dataclass(frozen=True, slots=True)
class Negation:
    """`length` words are taken. `refuses`: the next value is not wanted; `strong`: nor is what follows it after a
    comma. `cheap`: it was something dear that is not wanted."""

    length: int
    refuses: bool = False
    strong: bool = False
    cheap: bool = False


def read_negation(words: Sequence[str], place: int, is_named: Callable[[int], bool]) -> Negation | None:
    """The negation that stands at a place; None for none. `is_named` says whether a value or a price begins there."""
    if words[place] == "nothing":
        return _nothing(words, place, is_named)
    length = begins(words, place, NEGATIONS)
    if not length:
        return None
    after = _word(words, place + length)
    if after in ("only", "just", "nur", "solo"):  # "not only black": black first, others too
        return Negation(length + 1)
    rest = length + (after in TOO)
    if (word := _word(words, place + rest)) in DEAR or word in CHEAP:
        return Negation(rest + 1, cheap=word in DEAR)
    if after in NO_PRODUCT or after in LIKE or _is_owned(words, place):
        return Negation(length + 1)
    strong = begins(words, place, STRONG) == length
    while _word(words, place + length) in REACH:
        length += 1
    return Negation(length, True, strong)


def _nothing(words: Sequence[str], place: int, is_named: Callable[[int], bool]) -> Negation | None:
    """ "nothing black" is not black; "nothing but black" is black; "nothing to wear" is neither."""
    if _word(words, place + 1) in ("but", "except"):
        return Negation(2)
    length = begins(words, place, STRONG) or 1 + (_word(words, place + 1) in TOO)
    return Negation(length, True, True) if is_named(place + length) else None


def _is_owned(words: Sequence[str], place: int) -> bool:
    """ "I do not have black boots", "do you not have black boots": a wish all the same."""
    before = {_word(words, one) for one in range(place - 2, place)}
    return _word(words, place + 1) == "have" and "do" in before and bool(before & {"i", "you", "we"})


def _word(words: Sequence[str], place: int) -> str:
    return words[place] if 0 <= place < len(words) else ""
