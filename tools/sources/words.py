"""The names of a catalogue as words: their TF-IDF vectors, and the makers that names begin with. Which items are asked
about is unknown here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Words:
    """Texts as rows of TF-IDF weights of length 1, float32[texts, words]. A text's first word and its first two count
    once again: names of shops begin with the maker. `columns` has the words, `rarity` float32[words] their weights."""

    table: sp.csr_matrix
    columns: Mapping[str, int]
    rarity: NDArray[np.float32]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Words:
        column: dict[str, int] = {}
        rows, columns, values = [], [], []
        for row, text in enumerate(texts):
            words = _WORD.findall(text.lower())
            told = dict.fromkeys(words, 1.0)
            for size in (1, 2):
                if len(words) >= size:
                    told["^" + " ".join(words[:size])] = 1.0
            for word, value in told.items():
                rows.append(row)
                columns.append(column.setdefault(word, len(column)))
                values.append(value)
        table = sp.csr_matrix((np.array(values, np.float32), (rows, columns)), shape=(len(texts), max(len(column), 1)))
        names = np.bincount(table.indices, minlength=table.shape[1])
        rarity = np.log((1 + len(texts)) / (1 + names)).astype(np.float32)
        return cls(_of_length_one(table @ sp.diags(rarity)), column, rarity)

    def read(self, texts: Sequence[str]) -> sp.csr_matrix:
        """float32[texts, words]: other texts, of which only known words count, without beginnings."""
        told = [
            sorted({self.columns[word] for word in _WORD.findall(text.lower()) if word in self.columns})
            for text in texts
        ]
        starts = np.concatenate([[0], np.cumsum([len(one) for one in told])]).astype(np.int64)
        places = np.array([place for one in told for place in one], np.int64)
        return _of_length_one(
            sp.csr_matrix((self.rarity[places], places, starts), shape=(len(texts), self.table.shape[1]))
        )


def _of_length_one(table: sp.csr_matrix) -> sp.csr_matrix:
    norm = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
    return (sp.diags((1 / np.maximum(norm, 1e-9)).astype(np.float32)) @ table).tocsr()


def makers(names: Sequence[str], least: int = 3) -> NDArray[np.int64]:
    """int64[names]: the number of each name's maker, read off its beginning: two words where `least` names share them,
    else the first."""
    words = [_WORD.findall(text.lower())[:2] for text in names]
    pairs = Counter(" ".join(one) for one in words if len(one) == 2)
    numbers: dict[str, int] = {}
    found = [" ".join(one) if pairs[" ".join(one)] >= least else (one or [""])[0] for one in words]
    return np.array([numbers.setdefault(name, len(numbers)) for name in found], np.int64)
