"""The trained parts of retrieval together, CORE, the text transformer and the learnt ranking: from the folders that
their stages wrote into a store, and what a store says of its own.

What one of them holds is its own module's business; where the folders come from (`dvc repro`, or those that come with
recgraph: train/shop/parts.py) is unknown here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recgraph.store.db import Store
from recgraph.tools.ranking import LearntRanking
from recgraph.tools.sources.core import Core
from recgraph.tools.sources.textformer import TextFormer

# The store's fact that says what was published: JSON of revision, split, and `fitted_before` of each part (null: fitted
# on everything before its user's own cut)
META = "published"
FOLDERS = ("id_embeddings", "textformer", "ranking")  # in the pipeline's data/


@dataclass(frozen=True)
class TrainedParts:
    """What there is of the three; None where a part is not there, or there was nothing to learn it from."""

    core: Core | None = None
    former: TextFormer | None = None
    ranking: LearntRanking | None = None

    @classmethod
    def load(cls, data: Path) -> TrainedParts:
        """From the FOLDERS in `data`; one that is missing is left out. StoreError where one is incomplete."""
        core, former, ranking = (data / name for name in FOLDERS)
        learnt = LearntRanking.load(ranking) if ranking.is_dir() else None
        return cls(
            Core.load(core) if core.is_dir() else None,
            TextFormer.load(former) if former.is_dir() else None,
            learnt if learnt and learnt.config["networks"] else None,
        )

    def publish(self, store: Store) -> None:
        """Puts them into a store, which is open for writing, each in place of what was published before."""
        for part in (self.core, self.former, self.ranking):
            if part is not None:
                part.publish(store)

    def facts(self) -> dict[str, Any]:
        """What META says of them: of each the moment that it knows nothing from on; null where it is not there."""
        core, former, ranking = self.core, self.former, self.ranking
        return {
            "core": {"model": core.name, "fitted_before": core.config.get("fitted_before")} if core else None,
            "textformer": {"fitted_before": former.config["fitted_before"]} if former else None,
            "ranking": {
                "sources": list(ranking.sources) if ranking else [],
                "fitted_before": ranking.config["fitted_before"] if ranking else None,
            },
        }


def in_words(facts: Mapping[str, Any]) -> str:
    """What META says as a line: the parts by the moment that they know nothing from on, "" where there are none."""
    named = {"CORE": facts.get("core"), "text transformer": facts.get("textformer"), "ranking": facts.get("ranking")}
    by_moment: dict[str, list[str]] = {}
    for name, part in named.items():
        if part and part.get("sources") != []:
            moment = part["fitted_before"]
            by_moment.setdefault(f"learnt before {moment[:10]}" if moment else "learnt without a cut", []).append(name)
    return ", ".join(f"{' and '.join(names)} ({when})" for when, names in by_moment.items())


def published_facts(store: Store) -> dict[str, Any]:
    """What META says; empty where nothing was published."""
    return dict(json.loads(store.meta(META) or "{}"))


def published_fingerprint(store: Store) -> str:
    """Eight hex digits of what META says; "" where nothing was published."""
    told = store.meta(META)
    return hashlib.sha256(told.encode()).hexdigest()[:8] if told else ""
