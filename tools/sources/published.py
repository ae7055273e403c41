"""Trained networks as facts of a store: what they were trained with as JSON, and their weights in it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from safetensors.numpy import load, save

from recgraph.store.db import Store
from recgraph.tools.sources.layers import Weights


def publish(store: Store, fact: str, weights: Weights, config: Mapping[str, Any]) -> None:
    """Puts it into a store, which is open for writing, in place of what was published before."""
    store.set_meta(
        fact, json.dumps({**config, "weights": base64.b64encode(save(dict(weights))).decode()}, sort_keys=True)
    )


def published(store: Store, fact: str, before: datetime | None = None) -> tuple[Weights, dict[str, Any]] | None:
    """What `publish` put there; None where there is nothing, or what may know what happened from `before` on
    (`usable`)."""
    told = store.meta(fact)
    if told is None:
        return None
    config = json.loads(told)
    packed = config.pop("weights")
    return (load(base64.b64decode(packed)), config) if usable(config, before) else None


def usable(config: Mapping[str, Any], before: datetime | None) -> bool:
    """Whether what was fitted may be used where nothing from `before` on may be known. One fitted without a cut in time
    (leave-one-out) is used only where nothing is hidden."""
    fitted = config.get("fitted_before")
    return before is None or (fitted is not None and datetime.fromisoformat(fitted) <= before)
