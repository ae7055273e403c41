"""Words in the texts of products, as facets.py keeps them: plain lower case in UTF-8, a text a row. What a word means
is unknown here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recgraph.store.facets import TextRows
from recgraph.tools.wish.spelling import fold, stem

_LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789") | frozenset(range(0x80, 0x100))
_IN_WORD = np.array([one in _LETTERS for one in range(256)])


def words_of(text: str) -> list[str]:
    """The words of a text that are looked for, each once."""
    return [word for word in dict.fromkeys(fold(text).split()) if len(word) > 1]


def hold(word: str, texts: Sequence[bytes]) -> NDArray[np.bool_]:
    """Which texts have a word that begins with this one's stem."""
    start = stem(word).encode()
    begins = re.compile(rb"(?<![a-z0-9\x80-\xff])" + re.escape(start)).search
    return np.array([start in text and begins(text) is not None for text in texts], bool)


def rows_with(text: str, texts: TextRows, n: int) -> NDArray[np.bool_]:
    """bool[n]: which of the first n rows hold all the words of a text; none for a text without words. One pass over the
    buffer a word: 1 ms a megabyte."""
    words = [word for word in words_of(text) if word != "and"]  # "Harrow & Pine" is one with "Harrow and Pine"
    found = np.full(n, bool(words))
    for word in words:
        start = stem(word).encode()
        places = np.fromiter((one.start() for one in re.finditer(re.escape(start), texts.data)), np.int64)
        letters: NDArray[Any] = np.frombuffer(texts.data, np.uint8)
        places = places[(places == 0) | ~_IN_WORD[letters[places - 1]]]
        rows = np.searchsorted(texts.starts, places, side="right") - 1
        holds = np.zeros(n, bool)
        holds[rows[rows < n]] = True
        found &= holds
    return found
