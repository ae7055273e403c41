"""Nearest neighbours by inner product over rows of vectors, which may have keys. It does not know what the vectors mean
or who made them.

Exact below `exact_below` vectors: one product of a matrix and a vector, which for a single query is faster than faiss.
Above, an inverted file of faiss with a bit or two a number (IVF, PQ fast scan), whose best are compared again by the
vectors themselves, sixteen bits a number: few of them are read, so that few need to be in memory.
A card builds it where FAISS has one (`faiss-gpu`); searched it is on the processor, by whose processes it is shared.
`save` and `load` keep an index in files that are memory-mapped: nothing is built again, and processes share the memory.
What the caller can rely on in every case: zero vectors (cold items, empty texts) are never found, equal scores come in
the order of rows, and a mask of allowed rows is applied inside the search, so that it hardly shortens the answer (an
exact one: never).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from recgraph.errors import StoreError

faiss: Any = _faiss  # its type stubs describe the C++ signatures, not those of the Python wrappers

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

EXACT_BELOW = 30_000  # there a product of 384 numbers takes some four milliseconds, and every source does one
_PROBES = 128  # lists that are looked through
_LOOKED_AT = 8192  # allowed rows in the lists that are looked through, at least; more lists where few are allowed
# Rows compared by their vectors for each one that is wanted: a bit a number tells little apart. Of the 100 nearest of a
# million drawn vectors, 4 finds 86 %, 8 finds 96 %; the first ten of a request agree with dense scoring as often with
# 2, 4, 8 and 16 (98 %), and each row that is compared is a page of memory that nothing else needs.
_COMPARED = 4
_COMPARED_LEAST = 256
_LONG = 256  # numbers of a vector
_CENTROIDS = 16  # of a part of a vector: four bits
_TRAINED_ON = 40  # vectors a list is trained with
_SCAN_BELOW = 2_000  # so few allowed rows are compared one by one
_BLOCK = 16_384  # vectors read at once
_TIE_DIGITS = 5  # float32 kernels add in different orders; scores equal to this many decimals are ties


class VectorIndex:
    """float32[n, d] vectors, searched by inner product (cosine where they are L2-normalised), and their keys, if they
    have any.

    Raises ValueError where keys and vectors differ in number, keys repeat, or a vector is not finite. Searching is
    thread-safe.
    """

    def __init__(self, keys: Sequence[str] | None, vectors: Vectors, exact_below: int = EXACT_BELOW) -> None:
        vectors = np.asarray(vectors)
        if vectors.ndim != 2 or (keys is not None and len(keys) != len(vectors)):
            raise ValueError(
                f"{len(keys or ())} keys came with vectors of shape {vectors.shape}; one row a key is needed."
            )
        self._keys: Sequence[str] | None = None if keys is None else tuple(keys)
        if self._keys is not None and len(self._row_of) != len(self._keys):
            raise ValueError("The keys repeat; each may stand for one vector only.")
        self.known: Mask = np.zeros(len(vectors), np.bool_)  # rows with a vector that is not zero
        for start in range(0, len(vectors), _BLOCK):
            part = vectors[start : start + _BLOCK]
            if not np.isfinite(part).all():
                raise ValueError("The vectors hold a value that is not finite.")
            self.known[start : start + _BLOCK] = part.any(axis=1)
        self.n_known = int(self.known.sum())
        self.exact = self.n_known < max(exact_below, _CENTROIDS)
        self._lists: Any = None if self.exact else _inverted(vectors, np.flatnonzero(self.known))
        self._vectors: NDArray[Any] = np.ascontiguousarray(vectors, np.float32) if self.exact else _held(self._lists)

    @property
    def keys(self) -> Sequence[str]:
        """The keys. ValueError where the rows have none."""
        if self._keys is None:
            raise ValueError("This index has no keys; ask it for rows.")
        return self._keys

    @property
    def stored(self) -> NDArray[Any]:
        """float32 or float16[n, d]: the vectors as they are kept."""
        return self._vectors

    @property
    def dim(self) -> int:
        return int(self._vectors.shape[1])

    def __len__(self) -> int:
        return len(self._vectors)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.keys)}

    def row(self, key: str) -> int | None:
        """The row of a key, None where it is unknown."""
        return self._row_of.get(key)

    def vector(self, key: str) -> Vectors | None:
        """The float32[d] vector of a key; None where the key is unknown or its vector is zero (nothing is known about
        it)."""
        row = self.row(key)
        return None if row is None or not self.known[row] else self.vectors(row)

    def vectors(self, rows: Rows | Sequence[int] | int) -> Vectors:
        """float32[..., d]: the vectors of rows."""
        return np.asarray(self._vectors[rows], np.float32)

    @cached_property
    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The mean float64[d] of the known vectors and their covariance float64[d, d]: of their inner products with q
        the mean is mean·q and the variance qᵀ covariance q. Taken from what is left after the mean is taken away, so
        that no digits are lost where all products are alike."""
        rows, dim = np.flatnonzero(self.known), self.dim
        total, spread = np.zeros(dim), np.zeros((dim, dim))
        parts = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
        for part in parts:
            total += self.vectors(part).sum(0, dtype=np.float64)
        mean = total / max(len(rows), 1)
        for part in parts:
            off = (self.vectors(part) - mean).astype(np.float32)
            spread += off.T @ off
        return mean, spread / max(len(rows), 1)

    def products(self, queries: Vectors) -> Vectors:
        """float32[m, n]: the inner product of each query with each row, 0 with a zero row. It reads every vector."""
        if self.exact:
            return np.asarray(queries @ self._vectors.T, np.float32)
        parts = range(0, len(self), _BLOCK)
        return np.concatenate(
            [queries @ self._vectors[start : start + _BLOCK].astype(np.float32).T for start in parts], 1
        )

    def search(self, vectors: Vectors, k: int, allowed: Mask | None = None) -> list[list[tuple[str, float]]]:
        """For each row of float32[m, d] the k best (key, score), best first; fewer where fewer are allowed, none for a
        zero query.

        `allowed` is bool[n] over `keys`. Raises ValueError for another dimension.
        """
        queries = np.atleast_2d(np.ascontiguousarray(vectors, dtype=np.float32))
        found = [self.nearest(query, k, allowed) for query in queries]
        return [[(self.keys[row], float(score)) for row, score in zip(*one, strict=True)] for one in found]

    def nearest(self, query: Vectors, k: int, allowed: Mask | None = None) -> tuple[Rows, Vectors]:
        """The k best rows of float32[d] and their scores, likewise."""
        if query.shape != (self.dim,):
            raise ValueError(f"A query of dimension {query.shape[-1]} was asked of an index of dimension {self.dim}.")
        if not query.any() or k <= 0:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        if self.exact:
            may = self.known if allowed is None else self.known & allowed
            return best(self._vectors @ query, np.flatnonzero(may), k)
        offered = len(self) if allowed is None else int(np.count_nonzero(allowed))
        if allowed is not None and offered < max(_SCAN_BELOW, k):
            rows = np.flatnonzero(allowed)
            rows = rows[self.known[rows]]
            scores = self.vectors(rows) @ query if len(rows) else np.zeros(0, np.float32)
        else:
            rows, scores = self._near(query, k, allowed, offered)
        order = np.lexsort((rows, -np.round(scores, _TIE_DIGITS)))[:k]
        return rows[order], np.round(scores[order], _TIE_DIGITS)

    def _near(self, query: Vectors, k: int, allowed: Mask | None, offered: int) -> tuple[Rows, Vectors]:
        """Rows among which the k best are, as far as the inverted file tells, and their scores."""
        bits = None if allowed is None or offered == len(self) else np.packbits(allowed, bitorder="little")
        # must outlive the search: faiss keeps a pointer to the bits
        selector = None if bits is None else faiss.IDSelectorBitmap(bits)
        nlist = faiss.downcast_index(self._lists.base_index).nlist
        probes = min(nlist, max(_PROBES, _LOOKED_AT * nlist // max(offered, 1)))
        looked = faiss.SearchParametersIVF(sel=selector, nprobe=probes)
        compared = faiss.IndexRefineSearchParameters(k_factor=1, base_index_params=looked)
        scores, found = self._lists.search(
            query[None], min(max(_COMPARED * k, _COMPARED_LEAST), self.n_known), params=compared
        )
        there = found[0] >= 0
        return np.asarray(found[0, there], np.int64), np.asarray(scores[0, there], np.float32)

    def keyed(self, keys: Sequence[str] | None) -> VectorIndex:
        """The same rows under other keys, or under none."""
        found = copy.copy(self)
        found.__dict__.pop("_row_of", None)
        found._keys = keys
        return found

    def save(self, folder: str | Path, name: str) -> None:
        """Writes `name`.json (what it is, the keys), `name`.known.npy (which are not zero), `name`.moments.npy and the
        vectors into the folder, which is made: as `name`.npy or, with the inverted file, `name`.faiss."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        if self._lists is None:
            np.save(place / f"{name}.npy", self._vectors)
        else:
            faiss.write_index(self._lists, str(place / f"{name}.faiss"))
        np.save(place / f"{name}.known.npy", self.known)
        mean, spread = self.moments
        np.save(place / f"{name}.moments.npy", np.concatenate([mean[None], spread]))
        facts = {"exact": self.exact, "vectors": list(self._vectors.shape), "known": self.n_known, "keys": self._keys}
        (place / f"{name}.json").write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, name: str) -> VectorIndex:
        """What `save` wrote, memory-mapped. Raises StoreError where it is not there or damaged."""
        place = Path(folder)
        try:
            facts = json.loads((place / f"{name}.json").read_text(encoding="utf-8"))
            known, moments = np.load(place / f"{name}.known.npy"), np.load(place / f"{name}.moments.npy")
            lists = None if facts["exact"] else faiss.read_index(str(place / f"{name}.faiss"), faiss.IO_FLAG_MMAP_IFC)
            vectors = np.load(place / f"{name}.npy", mmap_mode="r") if lists is None else _held(lists)
        except (OSError, ValueError, RuntimeError, EOFError) as error:
            why = (str(error).splitlines() or [type(error).__name__])[-1]
            raise StoreError(
                f"The index {name} in {place} cannot be read ({why}). Delete that folder: it is built again where "
                "it is needed."
            ) from None
        whole = len(moments) == vectors.shape[1] + 1 and [len(known), vectors.shape[1]] == facts["vectors"]
        if not whole or len(vectors) != len(known) or (lists and lists.base_index.ntotal != facts["known"]):
            raise StoreError(
                f"The files of the index {name} in {place} are of different indexes. Delete that folder: they are "
                "built again where they are needed."
            )
        found = cls.__new__(cls)
        found._keys = None if facts["keys"] is None else tuple(facts["keys"])
        found._vectors, found._lists, found.exact, found.n_known = (
            np.asarray(vectors),
            lists,
            facts["exact"],
            facts["known"],
        )
        found.known = known
        found.moments = (moments[0], moments[1:])
        return found


def best(scores: Vectors, rows: Rows, k: int) -> tuple[Rows, Vectors]:
    """The k best of some rows by scores float32[n], best first, equal ones by row, and their scores, rounded to what
    float32 tells apart."""
    told = np.round(scores[rows], _TIE_DIGITS)
    if len(rows) > k:
        least = np.partition(told, len(told) - k)[len(told) - k]
        keep = np.flatnonzero(told >= least)
        rows, told = rows[keep], told[keep]
    order = np.lexsort((rows, -told))[:k]
    return rows[order], told[order]


def _inverted(vectors: NDArray[Any], rows: Rows) -> Any:
    """faiss's inverted file of the vectors of these rows, under their numbers, trained on a sample of them; and behind
    it all vectors, by which what it finds is compared."""
    dim, lists = int(vectors.shape[1]), max(1, min(int(4 * len(rows) ** 0.5), len(rows) // 39))
    # Numbers that share four bits: fewer in short vectors, which have less to tell rows apart by.
    part = next(size for size in (4 if dim >= _LONG else 2, 2, 1) if dim % size == 0)
    files = faiss.IndexIVFPQFastScan(faiss.IndexFlatIP(dim), dim, lists, dim // part, 4, faiss.METRIC_INNER_PRODUCT)
    behind = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    sample = np.random.default_rng(0).permutation(len(rows))[: lists * _TRAINED_ON]
    files.by_residual = True  # the bits tell what lies in one list apart
    files.cp.niter = 6
    on_card = faiss.get_num_gpus() > 0
    files.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(dim)) if on_card else None
    files.train(vectors[rows[np.sort(sample)]].astype(np.float32))
    files.clustering_index = None
    # Which list a vector belongs to is nearly all of the work; a card compares it with all of them, and is then let go.
    nearest_list = files.quantizer
    if on_card:
        files.quantizer = faiss.index_cpu_to_all_gpus(nearest_list)
    found = faiss.IndexRefine(files, behind)
    for start in range(0, len(vectors), _BLOCK):
        block = np.ascontiguousarray(vectors[start : start + _BLOCK], np.float32)
        behind.add(block)
        known = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + _BLOCK)]
        files.add_with_ids(block[known - start], known)
    files.quantizer = nearest_list
    found.ntotal = behind.ntotal  # what it may find: rows of which nothing is known count as well
    return found


def _held(lists: Any) -> NDArray[np.float16]:
    """float16[n, d]: the vectors behind an inverted file, as a view of its memory."""
    behind = faiss.downcast_index(lists.refine_index)
    codes = faiss.rev_swig_ptr(behind.codes.data(), behind.ntotal * behind.code_size)
    return np.asarray(codes.view(np.float16).reshape(behind.ntotal, behind.d))
