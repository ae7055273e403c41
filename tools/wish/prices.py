"""Prices in a request: "under 60", "€50-80", "1.299,00 or less", "around 100". Words of bounds are in words.py."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from recgraph.tools.wish.wish import Price
from recgraph.tools.wish.words import CURRENCY, LEAST, LEAST_AFTER, MOST, MOST_AFTER, NEARLY, UNITS

_FILL = {"of", "is", ":", "=", "a", "price", "the", "and", "no"}
_TO = {"-", "to", "and", "bis", "und", "a", "y", "et", "e"}
_TOO_MUCH = 1e9  # no price


def read_price(words: Sequence[str], start: int) -> tuple[Price, int] | None:
    """The bounds that the words from `start` on name, and how many words that takes; None where they name none."""
    for told, said in ((MOST, "most"), (LEAST, "least"), (NEARLY, "about")):
        length = begins(words, start, told)
        number = length and _number(words, _skip(words, start + length))
        if number and not _is_measure(words, number):
            return _bounded(words, start, number, said)
    if words[start] == "between" or (words[start] == "zwischen"):
        low = _number(words, start + 1)
        high = low and low[1] < len(words) and words[low[1]] in _TO and _number(words, low[1] + 1)
        if low and high:
            return _between(low[0], high[0]), high[1] - start
    number = _number(words, start)
    return _bare(words, start, number) if number else None


def begins(words: Sequence[str], start: int, phrases: Sequence[Sequence[str]]) -> int:
    """How many words the first of the phrases takes that the words from `start` on begin with; 0: none."""
    return next((len(one) for one in phrases if tuple(words[start : start + len(one)]) == tuple(one)), 0)


def amount(text: str) -> float | None:
    """A number as people write it: 1.299,00 and 1,299.00 are the same, 59,99 and 59.99, too; 1.299 has thousands."""
    if not re.fullmatch(r"\d+(?:[.,]\d+)*", text):
        return None
    marks = re.findall(r"[.,]", text)
    if marks:
        after = re.split(r"[.,]", text)
        grouped = all(len(part) == 3 for part in after[1:]) and len(after[0]) <= 3 and after[0] != "0"
        if len(set(marks)) == 1 and (grouped or len(marks) > 1):
            text = "".join(after)
        else:
            text = "".join(after[:-1]) + "." + after[-1]
    value = float(text)
    return value if math.isfinite(value) and value < _TOO_MUCH else None


def _number(words: Sequence[str], start: int) -> tuple[float, int, bool] | None:
    """(amount, the place after it, whether a currency was named)."""
    place = start
    before = place < len(words) and words[place] in CURRENCY
    place += before
    value = amount(words[place]) if place < len(words) else None
    if value is None:
        return None
    place += 1
    if place < len(words) and words[place] == "k" and value < 1000:
        value, place = value * 1000, place + 1
    after = place < len(words) and words[place] in CURRENCY
    return value, place + after, bool(before or after)


def _skip(words: Sequence[str], start: int) -> int:
    while start < len(words) and words[start] in _FILL:
        start += 1
    return start


def _is_measure(words: Sequence[str], number: tuple[float, int, bool]) -> bool:
    """ "at least 2 pockets" is no price."""
    return not number[2] and number[1] < len(words) and words[number[1]] in UNITS


def _between(low: float, high: float) -> Price:
    return Price(at_most=max(low, high), at_least=min(low, high))


def _bounded(words: Sequence[str], start: int, number: tuple[float, int, bool], said: str) -> tuple[Price, int]:
    value, end, _ = number
    if said != "most" and end < len(words) and words[end] in _TO:
        other = _number(words, end + 1)
        if other and other[0] > value:
            return _between(value, other[0]), other[1] - start
    if said == "about":
        return Price(about=value), end - start
    return (Price(at_most=value) if said == "most" else Price(at_least=value)), end - start


def _bare(words: Sequence[str], start: int, number: tuple[float, int, bool]) -> tuple[Price, int] | None:
    """A number with no word before it: a range, a bound with its word after it, or what it is about to cost."""
    value, end, money = number
    if end < len(words) and words[end] in _TO:
        other = _number(words, end + 1)
        if other and (money or other[2]) and other[0] > value:
            return _between(value, other[0]), other[1] - start
    for told, said in ((MOST_AFTER, "most"), (LEAST_AFTER, "least")):
        length = begins(words, end, told)
        if length:
            after = end + length
            after += after < len(words) and words[after] in CURRENCY
            return (Price(at_most=value) if said == "most" else Price(at_least=value)), after - start
    return (Price(about=value), end - start) if money else None
