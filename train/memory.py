"""Stage `memory`: the keys of the query-product memory (F 4.2), every query ever shown as a vector. Command:
`recgraph train memory`.

    data/memory/queries.parquet   query, key, vector
    data/memory/encoder.json      which encoder made them, and what it was fitted on; evidence.parquet is what that saw

What a query led to is not kept here: that depends on the moment one asks about, and `tools/memory.py` reads it from the
store as of then. So the vectors may be of all queries, also of those after the cut; only the encoder can have learnt
something, and says as of when.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recgraph.store import snapshot
from recgraph.store.db import Store
from recgraph.store.parquet import read_table, write_table
from recgraph.tools.embed import Encoder, Progress, text_key
from recgraph.train import evidence
from recgraph.train.networks.titles import threads
from recgraph.train.params import Params, block
from recgraph.train.pipeline import Note, needed
from recgraph.train.title_embeddings import OUT as TITLES
from recgraph.train.title_embeddings import chosen_encoder

OUT = Path("data") / "memory"


class KnownTexts:
    """An encoder that has the vectors of known texts and asks the encoder of `folder` for others, loading it only then.
    Threads may share it."""

    def __init__(
        self, folder: Path, name: str, known: dict[str, np.ndarray[Any, np.dtype[np.float32]]], dim: int
    ) -> None:
        self.name, self.dim = name, dim
        self._folder, self._known = folder, known
        self._encoder: Encoder | None = None
        self._lock = threading.Lock()

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        """float32[len(texts), dim]; what was not known is known afterwards."""
        with self._lock:
            missing = [text for text in dict.fromkeys(texts) if text not in self._known]
            if missing:
                self._encoder = self._encoder or chosen_encoder(self._folder, torch.float32)
                self._known.update(zip(missing, self._encoder.encode(missing, progress), strict=True))
        return np.stack([self._known[text] for text in texts]) if len(texts) else np.zeros((0, self.dim), np.float32)


@dataclass(frozen=True)
class MemoryParams:
    """The block `memory` of params.yaml: of torch; equal threads give equal bytes."""

    threads: int


def run(params: Params, folder: Path, note: Note) -> None:
    """Params: the fields of `MemoryParams`. Reads data/prepare/all and the encoder of data/title_embeddings, writes
    data/memory."""
    own = block(params, "memory", MemoryParams)
    with snapshot.open_folder(needed(folder / "data" / "prepare" / "all", "prepare")) as store:
        queries = sorted(store.memory_queries())
    with threads(own.threads):
        encoder = chosen_encoder(folder, torch.float32)  # everywhere the same bytes, with bf16 in hardware or without
        vectors = encoder.encode(queries)
    write_table(
        folder / OUT / "queries.parquet",
        {"query": queries, "key": [text_key(query) for query in queries], "vector": vectors},
    )
    fitted = json.loads((folder / TITLES / "encoder.json").read_text(encoding="utf-8")).get("fitted_before")
    facts = {"name": encoder.name, "dim": encoder.dim, "fitted_before": fitted}
    (folder / OUT / "encoder.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    learnt = evidence.kept(folder / TITLES, "title_embeddings")
    evidence.keep(folder / OUT, *(replace(seen, piece="The memory's encoder", stage="memory") for seen in learnt))
    note(f"{len(queries):,} queries embedded with {encoder.name}")


def read_queries(folder: Path, store: Store) -> KnownTexts:
    """The stage's encoder, which knows all stored queries and titles; their vectors are put into `store` too, where
    QueryMemory and Retriever look for them. `folder` is params.yaml's. StoreError before the stages `title_embeddings`
    and `memory` have run."""
    queries = read_table(needed(folder / OUT / "queries.parquet", "memory"))
    titles = read_table(needed(folder / TITLES / "titles.parquet", "title_embeddings"))
    facts = json.loads((folder / OUT / "encoder.json").read_text(encoding="utf-8"))
    with store.writing():
        for kind, columns in (("query", queries), ("title", titles)):
            store.save_vectors(kind, facts["name"], columns["key"], columns["vector"])
    known = dict(zip(titles["text"], titles["vector"], strict=True)) | dict(
        zip(queries["query"], queries["vector"], strict=True)
    )
    return KnownTexts(folder, facts["name"], known, int(facts["dim"]))
