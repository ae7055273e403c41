"""Stage `index`: the FAISS indexes over titles and IDs, built once. Command: `recgraph train index`.

    data/index/titles.{faiss,json}   title vectors under item_ids, in catalogue order
    data/index/ids.{faiss,json}      CORE's item table, likewise; an item CORE never saw has no vector
    data/index/index.json            what made the vectors, and what it was fitted on

Small catalogues are searched exactly and such an index costs nothing to build; above 100,000 items it is a graph that
takes minutes.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recgraph.store import snapshot
from recgraph.store.parquet import read_table
from recgraph.store.records import is_named
from recgraph.tools.embed import text_key
from recgraph.tools.index import VectorIndex, Vectors, faiss
from recgraph.train.params import Params, block
from recgraph.train.pipeline import Note, needed

OUT = Path("data") / "index"


def title_vectors(folder: Path, item_ids: list[str], names: list[str]) -> Vectors:
    """float32[n, d] of the catalogue from data/title_embeddings; a zero row where nothing but the id is known of an
    item."""
    columns = read_table(needed(folder / "data" / "title_embeddings" / "titles.parquet", "title_embeddings"))
    row_of = {key: row for row, key in enumerate(columns["key"])}
    # An untitled product without attributes is embedded by nobody (tools/retrieve.py), though its placeholder may be in
    # the table.
    rows = [
        row_of.get(text_key(name), -1) if is_named(item_id, name) else -1
        for item_id, name in zip(item_ids, names, strict=True)
    ]
    return _pick(columns["vector"], rows)


def id_vectors(folder: Path, item_ids: list[str]) -> Vectors:
    """float32[n, d] of the catalogue from data/id_embeddings; a zero row for an item without one."""
    columns = read_table(needed(folder / "data" / "id_embeddings" / "items.parquet", "id_embeddings"))
    row_of = {item_id: row for row, item_id in enumerate(columns["item_id"])}
    return _pick(columns["vector"], [row_of.get(item_id, -1) for item_id in item_ids])


def _pick(vectors: Vectors, rows: list[int]) -> Vectors:
    # row -1 is the zero one
    return np.concatenate([vectors, np.zeros((1, vectors.shape[1]), np.float32)])[rows].astype(np.float32)


@dataclass(frozen=True)
class IndexParams:
    """The block `index` of params.yaml: fewer vectors are searched exactly, more through a graph."""

    exact_below: int


def run(params: Params, folder: Path, note: Note) -> None:
    """Params: the fields of `IndexParams`. Reads data/prepare/all, data/title_embeddings and data/id_embeddings, writes
    data/index."""
    exact_below = block(params, "index", IndexParams).exact_below
    with snapshot.open_folder(needed(folder / "data" / "prepare" / "all", "prepare")) as store:
        catalogue = store.catalogue()
    target = folder / OUT
    shutil.rmtree(target, ignore_errors=True)
    # Several threads put nodes into the graph in another order each time; with one, equal vectors give equal bytes.
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        found = {
            "titles": title_vectors(folder, catalogue.item_ids, catalogue.names),
            "ids": id_vectors(folder, catalogue.item_ids),
        }
        for name, vectors in found.items():
            index = VectorIndex(catalogue.item_ids, vectors, exact_below)
            index.save(target, name)
            kind = "exact" if index.exact else "a graph"
            note(
                f"{name}: {len(index):,} items, {int(vectors.any(axis=1).sum()):,} with a vector of {index.dim}, {kind}"
            )
    finally:
        faiss.omp_set_num_threads(before)
    _write_facts(folder, target)


def _write_facts(folder: Path, target: Path) -> None:
    facts: dict[str, Any] = {}
    for name, file in (("titles", "title_embeddings/encoder.json"), ("ids", "id_embeddings/config.json")):
        made = json.loads((folder / "data" / file).read_text(encoding="utf-8"))
        facts[name] = {"fitted_before": made.get("fitted_before")}
    (target / "index.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
