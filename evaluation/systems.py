"""The systems that can be evaluated by name, a line each. What one needs is imported when it is made, so that the list
of names costs nothing.

To add a baseline: a class in a module of evaluation/baselines (what it has to offer is told by `System` in
train/task.py), a line below, a test.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from recgraph.errors import SettingsError
from recgraph.evaluation.workshop import Settings, Workshop
from recgraph.train.params import load_params, settings_of
from recgraph.train.task import System

Make = Callable[[int], System]  # from a seed, unfitted


@dataclass(frozen=True)
class Entry:
    """A system's `name`, where its class is in evaluation/baselines, and those settings which are `fixed` because they
    make it what it is."""

    name: str
    made_by: str  # counted.ItemKNNSystem
    fixed: Settings = field(default_factory=dict)

    @property
    def module(self) -> str:
        """The full name."""
        return f"recgraph.evaluation.baselines.{self.made_by.partition('.')[0]}"

    def make(self, workshop: Workshop, seed: int) -> System:
        """Unfitted, with its own defaults, over them the workshop's tuned settings, and over them the seed where it has
        one.

        SettingsError for a setting that it does not have, or not with such a value.
        """
        kind: type[System] = getattr(importlib.import_module(self.module), self.made_by.partition(".")[2])
        settings = None
        if kind.settings_class:
            given = {**workshop.tuned.get(self.name, {}), **self.fixed}
            given |= {"seed": seed} if "seed" in {one.name for one in fields(kind.settings_class)} else {}
            settings = settings_of(kind.settings_class, given, f"baselines.{self.name}")
        system = kind(settings, workshop)
        system.name = self.name
        return system


_ENTRIES = [
    Entry("popularity", "counted.PopularitySystem"),
    Entry("popular-7d", "counted.RecentPopularitySystem"),
    Entry("transitions", "counted.TransitionsSystem"),
    Entry("item-knn", "counted.ItemKNNSystem"),
    Entry("text-knn", "counted.TextKNNSystem"),
    Entry("statistics", "counted.StatisticsSystem"),
    Entry("gru4rec", "sequence.GRU4RecSystem"),
    Entry("narm", "sequence.NARMSystem"),
    Entry("nextitnet", "sequence.NextItNetSystem"),
    Entry("sasrec-bce", "sequence.SASRecSystem", {"loss": "bce", "cosine": False}),  # as published
    Entry("sasrec", "sequence.SASRecSystem"),
    Entry("sasrec-text", "sequence.SASRecTextSystem"),
    Entry("bert4rec", "sequence.BERT4RecSystem"),
    Entry("core", "sequence.CoreSystem"),
    Entry("ncf", "pairs.PairSystem", {"model": "ncf"}),
    Entry("din", "pairs.PairSystem", {"model": "din"}),
    Entry("dien", "pairs.PairSystem", {"model": "dien"}),
    Entry("ncf-text", "pairs.PairTextSystem", {"model": "ncf"}),
    Entry("din-text", "pairs.PairTextSystem", {"model": "din"}),
    Entry("dien-text", "pairs.PairTextSystem", {"model": "dien"}),
    Entry("session-knn", "counted.SessionKNNSystem"),
    Entry("word-knn", "counted.WordKNNSystem"),
    Entry("paper", "own.PaperSystem"),
    Entry("fused", "own.FusedSystem"),
    Entry("textformer", "own.TitleFormerSystem"),
    Entry("textformer-query", "own.QueryFormerSystem"),
]
_ENTRIES_BY_LLM = [  # a second or more a case on a CPU: asked for by name, or as "llm"
    Entry("tallrec", "llm.RawSystem"),
    Entry("llamarec", "llm.LettersSystem"),
    Entry("recgraph-hierarchical", "llm.SummarySystem", {"paradigm": "hierarchical"}),
    Entry("recgraph-recurrent", "llm.SummarySystem", {"paradigm": "recurrent"}),
    Entry("fused-llm", "llm.ProductSystem"),
]
QUICK = ("popularity", "popular-7d", "transitions", "item-knn")  # counted in seconds, without a model


def names() -> list[str]:
    """Of all systems."""
    return [entry.name for entry in (*_ENTRIES, *_ENTRIES_BY_LLM)]


def entries(wanted: Sequence[str]) -> dict[str, Entry]:
    """The named ones, in the order given; "all" is every one without a language model, "llm" every one with.
    SettingsError for an unknown name."""
    known = {entry.name: entry for entry in (*_ENTRIES, *_ENTRIES_BY_LLM)}
    several = {"all": [entry.name for entry in _ENTRIES], "llm": [entry.name for entry in _ENTRIES_BY_LLM]}
    chosen = [one for name in wanted for one in several.get(name, [name])]
    for name in chosen:
        if name not in known:
            raise SettingsError(f"'{name}' is no system. Systems: {', '.join(known)}, all or llm.")
    return {name: known[name] for name in chosen}


def systems(wanted: Sequence[str], workshop: Workshop) -> dict[str, Make]:
    """What makes the named ones (as `entries`) of the workshop."""
    return {name: partial(entry.make, workshop) for name, entry in entries(wanted).items()}


def tuned_settings(folder: str | Path = ".") -> dict[str, Settings]:
    """The block `baselines` of params.yaml in a folder; empty where there is no such file or block. SettingsError for
    what is no such block, or of a system that is not there."""
    if not (Path(folder) / "params.yaml").is_file():
        return {}
    try:
        block: Any = load_params(folder).get("baselines") or {}
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"params.yaml of this folder needs {error.name} to be read: pip install 'recgraph[train]'"
        ) from None
    if not isinstance(block, Mapping) or not all(isinstance(values, Mapping) for values in block.values()):
        raise SettingsError("The block baselines of params.yaml must have a block of settings for each system.")
    for name in block:
        if name not in names():
            raise SettingsError(
                f"'{name}' in the block baselines of params.yaml is no system. Systems: {', '.join(names())}."
            )
    return {str(name): dict(values) for name, values in block.items()}
