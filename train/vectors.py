"""The vectors of a catalogue's titles, as stages that read texts take them from data/title_embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recgraph.store.parquet import read_table
from recgraph.store.records import is_named
from recgraph.tools.embed import text_key
from recgraph.tools.index import Vectors
from recgraph.train.pipeline import needed


def title_vectors(folder: Path, item_ids: Sequence[str], names: Sequence[str]) -> Vectors:
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
    vectors = columns["vector"]
    # row -1 is the zero one
    return np.concatenate([vectors, np.zeros((1, vectors.shape[1]), np.float32)])[rows].astype(np.float32)
