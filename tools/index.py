"""Nearest neighbours by inner product: one FAISS index behind keys. It does not know what the vectors mean or who made
them.

Exact below `exact_below` vectors (100,000), a HNSW graph above; the exact one is copied to the GPU where faiss has one.
`save` and `load` keep an index as faiss's own file and one of JSON, so that a graph that took minutes is not built
again. What the caller can rely on in every case: zero vectors (cold items, empty texts) are never found, equal scores
come in key order, and a mask of allowed keys is applied inside the search, so that it never shortens the answer.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from recgraph.errors import StoreError

faiss: Any = _faiss  # its type stubs describe the C++ signatures, not those of the Python wrappers

Vectors = NDArray[np.float32]
Mask = NDArray[np.bool_]

EXACT_BELOW = 100_000
HNSW_LINKS = 32
_EF_CONSTRUCTION = 100
_EF_SEARCH = 128
_SCAN_BELOW = 20_000  # so few allowed rows are scanned exactly: a HNSW walk through forbidden nodes loses recall there
_GPU_K = 2048  # the most neighbours faiss returns on a GPU
_TIE_DIGITS = 5  # float32 kernels add in different orders; scores equal to this many decimals are ties


class VectorIndex:
    """Keys and their float32[n, d] vectors, searched by inner product (cosine where the vectors are L2-normalised).

    Raises ValueError where keys and vectors differ in number, keys repeat, or a vector is not finite. Searching is
    thread-safe. A HNSW graph is built by several threads, so two builds may differ in a few approximate neighbours.
    """

    def __init__(self, keys: Sequence[str], vectors: Vectors, exact_below: int = EXACT_BELOW) -> None:
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or len(keys) != len(vectors):
            raise ValueError(f"{len(keys)} keys came with vectors of shape {vectors.shape}; one row a key is needed.")
        if not np.isfinite(vectors).all():
            raise ValueError("The vectors hold a value that is not finite.")
        self.keys = tuple(keys)
        self._row_of = {key: row for row, key in enumerate(self.keys)}
        if len(self._row_of) != len(self.keys):
            raise ValueError("The keys repeat; each may stand for one vector only.")
        self.dim = int(vectors.shape[1])
        rows = np.flatnonzero(vectors.any(axis=1))
        exact = len(rows) < exact_below
        index: Any = (
            faiss.IndexFlatIP(self.dim)
            if exact
            else faiss.IndexHNSWFlat(self.dim, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        )
        if not exact:
            index.hnsw.efConstruction = _EF_CONSTRUCTION
        index.add(vectors[rows])
        self._fill(rows, index, exact)

    def save(self, folder: str | Path, name: str) -> None:
        """Writes `name`.faiss and `name`.json (the keys, and which of them have a vector) into the folder, which is
        made."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        faiss.write_index(self._index, str(place / f"{name}.faiss"))
        facts = {"dim": self.dim, "exact": self.exact, "keys": self.keys, "rows": self._rows.tolist()}
        (place / f"{name}.json").write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, name: str) -> VectorIndex:
        """What `save` wrote, without building anything again. Raises StoreError where it is not there or damaged."""
        place = Path(folder)
        try:
            facts = json.loads((place / f"{name}.json").read_text(encoding="utf-8"))
            index = faiss.read_index(str(place / f"{name}.faiss"))
        except (OSError, ValueError, RuntimeError) as error:
            why = str(error).splitlines()[-1]
            raise StoreError(
                f"The index {name} in {place} cannot be read ({why}). Build it with: recgraph train index"
            ) from None
        if index.ntotal != len(facts["rows"]) or index.d != facts["dim"]:
            raise StoreError(
                f"{name}.faiss and {name}.json in {place} are of different indexes. Build them with: recgraph train "
                "index"
            )
        found = cls(facts["keys"], np.zeros((len(facts["keys"]), facts["dim"]), np.float32))
        found._fill(np.asarray(facts["rows"], dtype=np.int64), index, bool(facts["exact"]))
        return found

    def _fill(self, rows: NDArray[np.int64], index: Any, exact: bool) -> None:
        """Takes a faiss index whose position p holds the vector of `keys[rows[p]]`."""
        self._rows, self._index, self.exact = rows, index, exact  # faiss position → row of `keys`
        self._position_of = {int(row): position for position, row in enumerate(rows)}
        self._gpu = _gpu_copy(index) if exact else None
        self._gpu_turn = threading.Lock()  # faiss: a GPU index serves one thread at a time, a CPU index any number

    def __len__(self) -> int:
        return len(self.keys)

    def row(self, key: str) -> int | None:
        """The row of a key, None where it is unknown."""
        return self._row_of.get(key)

    def vector(self, key: str) -> Vectors | None:
        """The float32[d] vector of a key; None where the key is unknown or its vector is zero (nothing is known about
        it)."""
        position = self._position_of.get(self._row_of.get(key, -1))
        return None if position is None else np.asarray(self._index.reconstruct(position), dtype=np.float32)

    def search(self, vectors: Vectors, k: int, allowed: Mask | None = None) -> list[list[tuple[str, float]]]:
        """For each row of float32[m, d] the k best (key, score), best first; fewer where fewer are allowed, none for a
        zero query.

        `allowed` is bool[n] over `keys`. Raises ValueError for another dimension.
        """
        queries = np.atleast_2d(np.ascontiguousarray(vectors, dtype=np.float32))
        if queries.shape[1] != self.dim:
            raise ValueError(f"A query of dimension {queries.shape[1]} was asked of an index of dimension {self.dim}.")
        mask = None if allowed is None else np.asarray(allowed, dtype=bool)[self._rows]
        if mask is not None and mask.all():
            mask = None
        available = len(self._rows) if mask is None else int(mask.sum())
        wanted = min(k, available)
        if wanted <= 0:
            return [[] for _ in queries]
        return [self._best(query, wanted, available, mask) if query.any() else [] for query in queries]

    def _best(self, query: Vectors, k: int, available: int, mask: Mask | None) -> list[tuple[str, float]]:
        """The k best of one query with the ties at the end resolved: fetches more until the last one fetched is clearly
        worse."""
        fetch = min(available, k + 16)
        while True:
            scores, positions = self._raw(query, fetch, available, mask)
            scores = np.round(scores, _TIE_DIGITS)
            if fetch >= available or len(scores) < fetch or scores[-1] < scores[k - 1]:
                break
            fetch = min(available, fetch * 4)
        rows = self._rows[positions]
        order = np.lexsort((rows, -scores))[:k]
        return [(self.keys[rows[at]], float(scores[at])) for at in order]

    def _raw(self, query: Vectors, k: int, available: int, mask: Mask | None) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and faiss positions of up to k allowed neighbours, in no promised order of ties."""
        if not self.exact and mask is not None and available < _SCAN_BELOW:
            positions = np.flatnonzero(mask)
            scores = np.asarray(self._index.reconstruct_batch(positions) @ query, dtype=np.float32)
            best = np.argsort(-scores, kind="stable")[:k]
            return scores[best], positions[best]
        forbidden = len(self._rows) - available
        if self._gpu is not None and k + forbidden <= _GPU_K:
            # A GPU index takes no selector; fetching as many more as are forbidden gives the same answer.
            with self._gpu_turn:
                scores, positions = (found[0] for found in self._gpu.search(query[None], k + forbidden))
            keep = np.flatnonzero((positions >= 0) & (mask[positions] if mask is not None else True))[:k]
            return scores[keep], positions[keep]
        # must outlive the search: faiss keeps a pointer
        bits = None if mask is None else np.packbits(mask, bitorder="little")
        selector = None if bits is None else faiss.IDSelectorBitmap(bits)
        if self.exact:
            parameters = faiss.SearchParameters(sel=selector) if selector is not None else None
        else:
            parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=max(_EF_SEARCH, 2 * k))
        scores, positions = (found[0] for found in self._index.search(query[None], k, params=parameters))
        found = positions >= 0
        return scores[found], positions[found]


def _gpu_copy(index: Any) -> Any | None:
    """The index on the first GPU, None where this faiss was built without CUDA or sees no GPU."""
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        return None
    resources = faiss.StandardGpuResources()
    copy = faiss.index_cpu_to_gpu(resources, 0, index)
    copy.recgraph_resources = resources  # faiss does not keep them alive itself
    return copy
