"""How a word may be written: one spelling for the eye and one to compare by. It knows letters, no catalogue."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_NO_WORD = re.compile(r"[\W_]+")
_APOSTROPHE = re.compile(r"(?<=\w)['’`´](?=s\b)|(?<=\w)['’`´](?=\w)")
_LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th"})
# Plurals that no rule of endings gives.
_UNEVEN = {
    "women": "woman", "men": "man", "children": "child", "scarves": "scarf", "knives": "knife", "leaves": "leaf",
    "shelves": "shelf", "loaves": "loaf", "halves": "half", "feet": "foot", "teeth": "tooth", "mice": "mouse",
}  # fmt: skip


def plain(text: str) -> str:
    """Lower case without accents: "Größe" and "grosse" are one. Linear in the length."""
    parts = unicodedata.normalize("NFKD", text.casefold().translate(_LETTERS))
    return "".join(letter for letter in parts if not unicodedata.combining(letter)).translate(_LETTERS)


@lru_cache(maxsize=1 << 16)
def fold(text: str) -> str:
    """The key of a value: plain, words parted by one blank, `&` read as "and", no punctuation: "Harrow & Pine" is
    "harrow and pine", "Men's" is "mens", "T-Shirt" is "t shirt"."""
    return " ".join(_NO_WORD.sub(" ", _APOSTROPHE.sub("", plain(text)).replace("&", " and ")).split())


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """A folded word without the ending of an English plural, or a German ending that is likely one (-en, -er and the
    like of `schwarzen`, `blaues`, only where six letters stay). Not a dictionary form: only equal for equal words."""
    if word in _UNEVEN:
        return _UNEVEN[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def stems(key: str) -> str:
    """A folded text with each word's `stem`."""
    return " ".join(map(stem, key.split()))
