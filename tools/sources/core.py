"""CORE at serving time (F 4.4): the item table as ID embedding, and the encoder that turns a history into a vector of
the same space.

A trained CORE is a folder (`train/id_embeddings.py` writes it) or lies in a store, published there. The forward pass is
numpy: a history has some dozen items, and serving need not start torch for that. How it is trained is unknown here.

Items without interactions (F 5.4) share one vector, the cold one. In a history they are read as that; they are never
found by it, because all of them would be at once: in `units` their rows are zero, which no index returns, and titles
and queries are left to bring them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from recgraph.errors import StoreError
from recgraph.store.db import Store
from recgraph.store.parquet import read_table
from recgraph.tools.sources.kept import Built
from recgraph.tools.sources.layers import attended, gelu, linear, normed
from recgraph.tools.sources.published import usable
from recgraph.tools.sources.sums import LARGE

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]

META = "core"  # the store's fact that says which CORE was published, as JSON
KIND = "core"  # of the encoder's weights among the store's vectors; the item table is of kind "id"
_EPS = 1e-12


@dataclass(frozen=True)
class Core:
    """A trained CORE over n items. `items` float32[n, d] is the table as the encoder reads it, the cold vector where
    `cold` bool[n]; float16 where it is kept of a large catalogue.

    `weights` are the encoder's, by name; `config` is what it was trained with, `fitted_before` among it.
    """

    item_ids: Sequence[str]
    items: Vectors
    cold: NDArray[np.bool_]
    weights: Mapping[str, Vectors]
    config: Mapping[str, Any]

    @classmethod
    def load(cls, folder: str | Path) -> Core:
        """From the folder that `recgraph train id_embeddings` writes. Raises StoreError where it is missing or
        incomplete."""
        place = Path(folder)
        try:
            config, weights = (
                json.loads((place / "config.json").read_text(encoding="utf-8")),
                load_file(place / "core.safetensors"),
            )
        except OSError as error:
            raise StoreError(
                f"There is no trained CORE in {place} ({error}). Make it with: recgraph train id_embeddings"
            ) from None
        columns = read_table(place / "items.parquet")
        items = np.asarray(columns["vector"] * columns["norm"][:, None], dtype=np.float32)
        return cls(tuple(columns["item_id"]), items, np.zeros(len(items), dtype=np.bool_), weights, config)

    @classmethod
    def published(cls, store: Store, before: datetime | None = None) -> Core | None:
        """The store's CORE; None where it has none, or one that may know what happened from `before` on.

        One fitted without a cut in time (leave-one-out) is used only where nothing is hidden.
        """
        config = _published(store, before)
        if config is None:
            return None
        item_ids, units = store.all_vectors("id", config["model"])
        keys, packed = store.all_vectors(KIND, config["model"])
        weights = _parted(packed[np.argsort(np.array(keys, dtype=np.int64))].ravel(), config["shapes"])
        norms = weights.pop("norms")
        return cls(
            tuple(item_ids),
            np.asarray(units * norms[:, None], np.float32),
            np.zeros(len(item_ids), np.bool_),
            weights,
            config,
        )

    @staticmethod
    def published_name(store: Store, before: datetime | None = None) -> str:
        """The name of the one that `published` gives, "" where it gives none; nothing else is read."""
        config = _published(store, before)
        return str(config["model"]) if config else ""

    @classmethod
    def kept(cls, store: Store, before: datetime | None, item_ids: Sequence[str], kept: Built) -> Core | None:
        """The published one over a catalogue, its table and weights as they are `kept` of both."""
        config = _published(store, before)
        if config is None:
            return None

        @cache
        def made() -> Core:
            found = cls.published(store, before)
            assert found is not None
            return found.over(item_ids)

        cold = kept.array("core-cold", lambda: made().cold)
        if len(item_ids) > LARGE:  # half the memory; the index over so many has no more digits either
            items = kept.array("core-rows", lambda: made().items.astype(np.float16))
        else:
            items = kept.array("core-items", lambda: made().items)
        shapes = {name: shape for name, shape in config["shapes"].items() if name != "norms"}
        flat = kept.array("core-weights", lambda: np.concatenate([made().weights[name].ravel() for name in shapes]))
        return cls(item_ids, items, cold, _parted(flat, shapes), config)

    def publish(self, store: Store) -> None:
        """Puts it into a store, which is open for writing, in place of what was published before."""
        known = np.flatnonzero(~self.cold)
        known = known[np.argsort(np.array(self.item_ids, dtype=object)[known], kind="stable")]
        norms = np.linalg.norm(self.items[known], axis=1).astype(np.float32)
        parts = dict(sorted({**self.weights, "norms": norms}.items()))  # the order in which JSON keeps their shapes
        flat = np.concatenate([value.astype(np.float32).ravel() for value in parts.values()])
        dim = self.items.shape[1]
        packed = np.concatenate([flat, np.zeros(-len(flat) % dim, np.float32)]).reshape(-1, dim)
        config = {
            **self.config,
            "model": self.name,
            "shapes": {name: list(value.shape) for name, value in parts.items()},
        }
        with store.writing():
            store.save_vectors("id", self.name, [self.item_ids[row] for row in known.tolist()], self.units()[known])
            store.save_vectors(KIND, self.name, [str(row) for row in range(len(packed))], packed)
            store.set_meta(META, json.dumps(config, sort_keys=True))

    @property
    def name(self) -> str:
        """core- and eight digits of what its numbers are."""
        digest = hashlib.sha256(self.items[~self.cold].tobytes())
        for name in sorted(self.weights):
            digest.update(self.weights[name].tobytes())
        return f"core-{digest.hexdigest()[:8]}"

    def over(self, item_ids: Sequence[str]) -> Core:
        """The same for another catalogue, in its order: an item it was not trained with is cold."""
        if tuple(item_ids) == tuple(self.item_ids):
            return self
        row_of = {item_id: row for row, item_id in enumerate(self.item_ids)}
        rows = np.array([row_of.get(item_id, -1) for item_id in item_ids], dtype=np.int64)
        table = np.concatenate([self.items, self.weights["cold"][None]])
        return Core(tuple(item_ids), table[rows], np.append(self.cold, True)[rows], self.weights, self.config)

    def units(self) -> Vectors:
        """float32[n, d] for a cosine index: rows of length 1, zero for a cold item, which is not to be found."""
        items = np.asarray(self.items, np.float32)
        norms = np.linalg.norm(items, axis=1, keepdims=True)
        return np.where(self.cold[:, None], np.float32(0), items / np.maximum(norms, _EPS)).astype(np.float32)

    def session_vector(self, history: Sequence[int] | Rows) -> Vectors:
        """float32[d] of length 1 from the rows of a history, oldest first; zero where no item of it is known.

        A row that repeats the one before says nothing new: in training, too, a click and the purchase of the same item
        are one.
        """
        rows = np.asarray(history, dtype=np.int64)
        rows = rows[np.insert(rows[1:] != rows[:-1], 0, True)][-int(self.config["max_length"]) :] if len(rows) else rows
        if not len(rows) or self.cold[rows].all():
            return np.zeros(self.items.shape[1], dtype=np.float32)
        x = np.asarray(self.items[rows], np.float32)
        logits = self._logits(x) + self.weights["recency"][len(rows) - 1 :: -1]
        weights = np.exp(logits - logits.max())
        session = (weights / weights.sum()) @ x
        return np.asarray(session / max(float(np.linalg.norm(session)), 1e-12), dtype=np.float32)

    def _logits(self, x: Vectors) -> Vectors:
        """float32[l]: what the transformer says of each of a history's items; `train/networks/core.py` is the same with
        gradients."""
        w, heads = self.weights, int(self.config["heads"])
        hidden = normed(x + w["positions.weight"][: len(x)], w, "norm", _EPS)
        for layer in range(int(self.config["layers"])):
            at = f"blocks.{layer}"
            hidden = normed(hidden + attended(hidden, w, at, heads), w, f"{at}.norm1", _EPS)
            hidden = normed(
                hidden + linear(gelu(linear(hidden, w, f"{at}.up")), w, f"{at}.down"), w, f"{at}.norm2", _EPS
            )
        return np.asarray(linear(hidden, w, "weigh")[:, 0], dtype=np.float32)


def _parted(numbers: Vectors, shapes: Mapping[str, Sequence[int]]) -> dict[str, Vectors]:
    """Arrays of these shapes, one after the other."""
    found: dict[str, Vectors] = {}
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        found[name], numbers = numbers[:size].reshape(shape), numbers[size:]
    return found


def _published(store: Store, before: datetime | None) -> dict[str, Any] | None:
    """The config of the store's, if it has one that may be used."""
    told = store.meta(META)
    config: dict[str, Any] | None = json.loads(told) if told is not None else None
    return config if config and usable(config, before) else None
