"""The names of a catalogue as words: how long they are, their TF-IDF vectors, and the makers that names begin with.
Which items are asked about is unknown here.

Whoever writes a name writes it to be found. So a name is read as far as this shop's are long, each word of it counts
once, and one that says far less than they do (the word that all search for, and nothing else) does not count as if it
said just that. Ordinary names are read as they are."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recgraph.tools.llm.untrusted import one_line
from recgraph.tools.sources.kept import Built
from recgraph.tools.sources.sums import Line

KEPT = tuple(f"words{part}" for part in ("", "-table", "-turned", "-rarity", "-sums", "-common", "-together"))
_WORD = re.compile(r"\w+")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_COMMON = 1024  # words of which is known how often they go together: those that lists are cut of
_TYPO_FROM, _TYPO_TO = 4, 30  # letters; a shorter word has too many neighbours, and none is longer
_LONGEST, _ROOM = 60, 1.1  # letters of a name that are always read, and how far above the shop's own lengths
_SHORTEST = 0.6  # how far below them
_MEASURED, _READ = 50_000, 4_000  # names that tell how long they are, and letters that are read for it

# ── How long names are ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Lengths:
    """Of a name the first `most` letters are read; one with fewer than `least` different words says too little. Of the
    shop's own names hardly any is outside of that, and no name of its own moves it."""

    most: int = 10_000
    least: float = 0.0

    @classmethod
    def of(cls, names: Sequence[str]) -> Lengths:
        """A tenth more than all but a hundredth of the names have; six tenths of what the shortest hundredth have."""
        some = [names[row] for row in range(0, len(names), max(1, len(names) // _MEASURED))]
        if not some:
            return cls()
        letters, words = zip(*((len(name), len(_different(name[:_READ]))) for name in some), strict=True)
        most = max(_LONGEST, int(_ROOM * np.quantile(letters, 0.99)))
        return cls(most, float(_SHORTEST * np.quantile(words, 0.01)))

    def read(self, name: str) -> str:
        """What is read of a name: an ordinary one as it is."""
        if len(name) <= self.most and name.isprintable():
            return name
        return one_line(name, self.most).rstrip("…")

    def weights(self, words: Sequence[int]) -> NDArray[np.float32]:
        """What the vectors of names of so many different words count, 1 for all that say enough."""
        return np.sqrt(np.minimum(1.0, np.maximum(words, 1) / max(self.least, 1e-9))).astype(np.float32)

    def scaled(self, vectors: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.float32]:
        """The vectors float32[names, d] of what is `read` of names, times their weights."""
        return np.asarray(vectors * self.weights([len(_different(name)) for name in names])[:, None], np.float32)


def _different(text: str) -> dict[str, None]:
    """The different words of a text, in their order."""
    return dict.fromkeys(_WORD.findall(text.lower()))


# ── What they say ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Words:
    """Texts as rows of TF-IDF weights of length 1, float32[texts, words]; shorter where a text says too little
    (`Lengths`). A text's first word and its first two count once again: names of shops begin with the maker. `names`
    has the words, in the order of the columns; `turned` is the same table by words, in each row the largest weights
    first; `rarity` float32[words] their weights; `sums` float64[2, words] the sum of each word's numbers in the table
    and the sum of their squares. `common` are the columns of the most frequent words, ascending; `together`
    float64[common, common] the products of their columns."""

    table: sp.csr_matrix
    turned: sp.csr_matrix
    names: Sequence[str]
    rarity: NDArray[np.float32]
    sums: NDArray[np.float64]
    common: NDArray[np.int64]
    together: NDArray[np.float64]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Words:
        column: dict[str, int] = {}
        sizes, columns, lengths = array("q"), array("q"), Lengths.of(texts)
        different = array("q")
        for text in texts:
            words = _WORD.findall(lengths.read(text).lower())
            told = dict.fromkeys(words)
            different.append(len(told))
            for size in (1, 2):
                if len(words) >= size:
                    told["^" + " ".join(words[:size])] = None
            sizes.append(len(told))
            columns.extend(column.setdefault(word, len(column)) for word in told)
        starts = np.concatenate([[0], np.cumsum(np.array(sizes, np.int64))])
        table = sp.csr_matrix(
            (np.ones(len(columns), np.float32), np.array(columns, np.int64), starts),
            shape=(len(texts), max(len(column), 1)),
        )
        names = np.bincount(table.indices, minlength=table.shape[1])
        rarity = np.log((1 + len(texts)) / (1 + names)).astype(np.float32)
        table = _of_length_one(table @ sp.diags(rarity), lengths.weights(different))
        turned = table.T.tocsr()
        order = np.lexsort((-turned.data, np.repeat(np.arange(len(names)), np.diff(turned.indptr))))
        turned = sp.csr_matrix((turned.data[order], turned.indices[order], turned.indptr), shape=turned.shape)
        wide = table.data.astype(np.float64)
        sums = np.stack([np.bincount(table.indices, one, table.shape[1]) for one in (wide, wide**2)]).astype(np.float64)
        common = np.sort(np.argsort(-names, kind="stable")[:_COMMON])
        often = table[:, common].astype(np.float64)
        return cls(table, turned, tuple(column), rarity, sums, common, (often.T @ often).toarray())

    @classmethod
    def in_kept(cls, texts: Sequence[str], kept: Built) -> Words:
        """The same from what was kept of these texts, or kept now, under the names `KEPT`."""
        made = cache(lambda: cls.of(texts))
        letters = kept.array("words", lambda: np.frombuffer("\n".join(made().names).encode(), np.uint8))
        return cls(
            kept.sparse("words-table", lambda: made().table),
            kept.sparse("words-turned", lambda: made().turned),
            letters.tobytes().decode().split("\n"),
            kept.array("words-rarity", lambda: made().rarity),
            kept.array("words-sums", lambda: made().sums),
            kept.array("words-common", lambda: made().common),
            kept.array("words-together", lambda: made().together),
        )

    def variance(self, columns: NDArray[np.integer], weights: NDArray[np.float64]) -> float:
        """Of all texts' sums of these weighted words. Common ones go together as they do in the texts, all others with
        none."""
        n, (sums, squares) = max(self.table.shape[0], 1), self.sums[:, columns]
        place = np.minimum(np.searchsorted(self.common, columns), len(self.common) - 1)
        often = self.common[place] == columns
        at, of = place[often], weights[often]
        together = of @ self.together[np.ix_(at, at)] @ of / n - (of @ sums[often] / n) ** 2
        return float(together + weights[~often] ** 2 @ (squares[~often] / n - (sums[~often] / n) ** 2))

    @cached_property
    def columns(self) -> dict[str, int]:
        """The number of each word's column."""
        return {name: column for column, name in enumerate(self.names)}

    def read(self, text: str) -> Line:
        """The columns of another text's words, without beginnings, and their weights, of length 1 together. A word that
        is not known is read as those that are one letter away."""
        known = sorted({place for word in _WORD.findall(text.lower()) for place in self._places(word)})
        columns = np.array(known, np.int64)
        weights = self.rarity[columns]
        return columns, weights * np.float32(1 / max(float(np.sqrt((weights * weights).sum())), 1e-9))

    def _places(self, word: str) -> list[int]:
        if word in self.columns:
            return [self.columns[word]]
        if not _TYPO_FROM <= len(word) <= _TYPO_TO:
            return []
        return [self.columns[near] for near in _a_letter_away(word) if near in self.columns]


def _a_letter_away(word: str) -> set[str]:
    """What a slip of a key makes of a word: a letter too many, too few, another one, or two that changed places."""
    cuts = [(word[:place], word[place:]) for place in range(len(word) + 1)]
    fewer = {left + right[1:] for left, right in cuts if right}
    turned = {left + right[1] + right[0] + right[2:] for left, right in cuts if len(right) > 1}
    others = {left + letter + right[1:] for left, right in cuts if right for letter in _LETTERS}
    more = {left + letter + right for left, right in cuts for letter in _LETTERS}
    return fewer | turned | others | more


def _of_length_one(table: sp.csr_matrix, weights: NDArray[np.float32]) -> sp.csr_matrix:
    norm = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
    return (sp.diags((weights / np.maximum(norm, 1e-9)).astype(np.float32)) @ table).tocsr()


def makers(names: Sequence[str], least: int = 3) -> NDArray[np.int64]:
    """int64[names]: the number of each name's maker, read off its beginning: two words where `least` names share them,
    else the first."""
    words = [_WORD.findall(text.lower())[:2] for text in names]
    pairs = Counter(" ".join(one) for one in words if len(one) == 2)
    numbers: dict[str, int] = {}
    found = [" ".join(one) if pairs[" ".join(one)] >= least else (one or [""])[0] for one in words]
    return np.array([numbers.setdefault(name, len(numbers)) for name in found], np.int64)
