"""Prices in a request: "under 60", "€50-80", "1.299,00 or less", "around 100". Words of bounds are in words.py."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from recgraph.tools.wish.wish import Price
from recgraph.tools.wish.words import (
    BETWEEN,
    CURRENCY,
    LEAST,
    LEAST_AFTER,
    MOST,
    MOST_AFTER,
    NEARLY,
    NUMBERS,
    PARTS,
    TIMES,
    UNITS,
)

_FILL = {".", "of", "is", ":", "=", "price", "the", "and", "no", "i"}
_TO = {"-", "to", "and", "bis", "und", "a", "y", "et", "e"}
_TOO_MUCH = 1e9  # no price


def read_price(words: Sequence[str], start: int) -> tuple[Price, int] | None:
    """The bounds that the words from `start` on name, and how many words that takes; None where they name none."""
    for told, said in ((MOST, "most"), (LEAST, "least"), (NEARLY, "about")):
        length = begins(words, start, told)
        number = length and _number(words, _skip(words, start + length), bounded=True)
        if number and not _is_measure(words, number):
            return _bounded(words, start, number, said)
    if words[start] in BETWEEN:
        low = _number(words, start + 1, bounded=True)
        high = low and low[1] < len(words) and words[low[1]] in _TO and _number(words, low[1] + 1, bounded=True)
        if low and high:
            return _between(low[0], high[0]), high[1] - start
    number = _number(words, start)
    return _bare(words, start, number) if number else None


def begins(words: Sequence[str], start: int, phrases: Sequence[Sequence[str]]) -> int:
    """How many words the first of the phrases takes that the words from `start` on begin with; 0: none."""
    return next((len(one) for one in phrases if tuple(words[start : start + len(one)]) == tuple(one)), 0)


def amount(text: str) -> float | None:
    """A number as people write it: 1.299,00 and 1,299.00 are the same, 59,99 and 59.99, too; 1.299 has thousands; 1e3
    is one of them."""
    if re.fullmatch(r"\d{1,9}e\d{1,2}", text):
        return value if (value := float(text)) < _TOO_MUCH else None
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


def _number(words: Sequence[str], start: int, bounded: bool = False) -> tuple[float, int, bool] | None:
    """(amount, the place after it, whether a currency was named). `bounded`: after a word that only a number can
    follow, numbers may be words, too."""
    place = start
    before = place < len(words) and words[place] in CURRENCY
    place += before
    value = amount(words[place]) if place < len(words) else None
    if value is not None:
        value, place = _thousands(words, place, value, bounded or bool(before))
    elif bounded and (spoken := _spoken(words, place)):
        value, place = spoken
    else:
        return None
    if place < len(words) and words[place] == "k" and value < 1000:
        value, place = value * 1000, place + 1
    after = place < len(words) and words[place] in CURRENCY
    return value, place + after, bool(before or after)


def _thousands(words: Sequence[str], place: int, value: float, bounded: bool) -> tuple[float, int]:
    """ "1 200", "1'000" and "12 500" are one number, "100 501" are two."""
    following = words[place + 1] if place + 1 < len(words) else ""
    head = words[place]
    joined = head.isdigit() and re.fullmatch(r"\d{3}(?:[.,]\d\d?)?", following) and not head.startswith("0")
    if joined and ((bounded and len(head) < 3) or (len(head) < 4 and following.startswith("000"))):
        return value * 1000 + float(following.replace(",", ".")), place + 2
    return value, place + 1


def _spoken(words: Sequence[str], start: int) -> tuple[float, int] | None:
    """A number in words, from ten on, and the place after it: "fifty", "a hundred and twenty", "two thousand"."""
    value, part, place = 0, 0, start
    while place < len(words):
        word = words[place]
        if word in NUMBERS and (word != "a" or (place + 1 < len(words) and words[place + 1] in TIMES)):
            part += NUMBERS[word]
        elif word in TIMES:
            part = max(part, 1) * TIMES[word]
            value, part = (value + part, 0) if TIMES[word] == 1000 else (value, part)
        elif not (word == "and" and part >= 100 and words[place + 1 : place + 2] and words[place + 1] in NUMBERS):
            break
        place += 1
    return (float(value + part), place) if 10 <= value + part < _TOO_MUCH else None


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
    money = money or _is_priced(words, start)
    if end < len(words) and words[end] == "+":
        named = end + 1 < len(words) and words[end + 1] in CURRENCY
        return (Price(at_least=value), end + 1 + named - start) if money or named else None
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


def _is_priced(words: Sequence[str], place: int) -> bool:
    """Whether a word for the price stands before a number: "price: 100"."""
    while place > 0 and words[place - 1] in (":", "=", "is", "of"):
        place -= 1
    return place > 0 and PARTS.get(words[place - 1]) == "price"
