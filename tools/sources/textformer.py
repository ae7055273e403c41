"""The text transformer at serving time: from the texts of what was looked at and the query to the texts that come next.

An item is nothing but its title's vector, so one that nobody has had yet is ranked like any other; a query is a text
among them (after Recformer, Li et al. 2023). It is trained by train/textformer.py, lies in a folder or, published, in a
store, and runs in numpy. Where the vectors come from is unknown here; they must be those of the encoder it was trained
with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from recgraph.errors import StoreError
from recgraph.store.db import Store
from recgraph.tools.sources.layers import Numbers, attended, gelu, linear, normed
from recgraph.tools.sources.published import publish, published

META = "textformer"  # the store's fact that holds a published one
_FILES = ("config.json", "textformer.safetensors")


@dataclass(frozen=True)
class TextFormer:
    """A trained one. `weights` are the network's by name; `config` has `layers`, `heads`, `max_length`, how many
    different `queries` it has learnt from, the `encoder` of the texts and `fitted_before`, beside what it was trained
    with."""

    weights: Mapping[str, Numbers]
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        """textformer- and eight digits of what its numbers are."""
        digest = hashlib.sha256()
        for name in sorted(self.weights):
            digest.update(self.weights[name].tobytes())
        return f"textformer-{digest.hexdigest()[:8]}"

    @property
    def length(self) -> int:
        """Items and queries of a history that are read, the newest."""
        return int(self.config["max_length"])

    def items(self, texts: Numbers) -> Numbers:
        """float32[n, d] of float32[n, any] text vectors, as the network reads items and is compared with them."""
        bent = linear(gelu(linear(texts, self.weights, "bend.0")), self.weights, "bend.2")
        return np.asarray(linear(texts, self.weights, "project") + bent, np.float32)

    def queries(self, texts: Numbers) -> Numbers:
        """The same of queries."""
        return np.asarray(self.items(texts) + self.weights["asked"], np.float32)

    def state(self, read: Numbers) -> Numbers:
        """float32[d] of length 1 after items and queries float32[l, d], oldest first, of which the newest `max_length`
        are read; l is at least 1."""
        w, x = self.weights, read[-self.length :]
        x = np.asarray(x + w["positions.weight"][: len(x)], np.float32)
        layers = int(self.config["layers"])
        for layer in range(layers):
            at, told = f"layers.{layer}", 1 if layer == layers - 1 else len(x)  # of the last only the newest is told
            x = x[-told:] + attended(normed(x, w, f"{at}.norm1"), w, at, int(self.config["heads"]), told)
            x = x + linear(gelu(linear(normed(x, w, f"{at}.norm2"), w, f"{at}.up")), w, f"{at}.down")
        return unit(normed(x[-1], w, "norm"))

    def save(self, folder: str | Path) -> None:
        """Writes config.json and textformer.safetensors; the folder is made."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        (place / _FILES[0]).write_text(json.dumps(self.config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if self.weights:
            (place / _FILES[1]).write_bytes(save(dict(self.weights)))

    @classmethod
    def load(cls, folder: str | Path) -> TextFormer | None:
        """What `save` wrote; None where there was nothing to train it on. Raises StoreError where it is not there."""
        place = Path(folder)
        try:
            config = json.loads((place / _FILES[0]).read_text(encoding="utf-8"))
        except OSError as error:
            raise StoreError(
                f"There is no trained text transformer in {folder} ({error}). Make it with: recgraph train textformer"
            ) from None
        return cls(load((place / _FILES[1]).read_bytes()), config) if (place / _FILES[1]).exists() else None

    def publish(self, store: Store) -> None:
        """Puts it into a store, which is open for writing, in place of what was published before."""
        publish(store, META, self.weights, self.config)

    @classmethod
    def published(cls, store: Store, before: datetime | None = None) -> TextFormer | None:
        """The store's; None where it has none, or one that may know what happened from `before` on (as
        `Core.published`)."""
        found = published(store, META, before)
        return cls(*found) if found else None


def unit(vectors: Numbers) -> Numbers:
    """float32[..., d]: the same of length 1."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12), np.float32)
