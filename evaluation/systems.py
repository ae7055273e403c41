"""The systems that can be evaluated by name. What one needs is imported when it is made, so that the list of names costs nothing.

A system's settings are its own defaults, over them those of the block `baselines` of params.yaml, and over them the seed where it has one.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from recgraph.errors import SettingsError
from recgraph.settings import load_settings
from recgraph.train.task import Cases, Note, Scores, System, Task

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """A system by its short name: where its class and settings are, what it reads (ids, text, query, llm), `settings` other than its defaults,
    and those which are `fixed` because they make it what it is. Called with a seed it gives the unfitted system."""

    name: str
    module: str
    made_by: str
    settings_by: str = ""
    uses: tuple[str, ...] = ("ids",)
    settings: Settings | None = None
    fixed: tuple[tuple[str, Any], ...] = ()
    variant: str = ""  # a function of the module that turns the settings into the variant's
    text_vectors: bool = False  # whether it is given the items' text vectors
    makes_vectors: bool = False  # whether it makes them itself, and nothing else, and keeps them in a folder
    reads_store: bool = False  # whether it is given the store, for what the task does not tell, and a folder to keep what it trains in
    store: Path | None = None

    def __call__(self, seed: int) -> System:
        module = importlib.import_module(f"recgraph.{self.module}")
        made_by = getattr(module, self.made_by)
        if not self.settings_by:
            plain: System = made_by()
            return self._named(plain)
        kind: Any = getattr(module, self.settings_by)
        known = {field.name for field in fields(kind)}
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in (self.settings or {}).items()} | dict(self.fixed)
        unknown = sorted(set(given) - known)
        if unknown:
            raise SettingsError(f"baselines.{self.name}.{unknown[0]} is no setting of it; known are {', '.join(sorted(known))}.")
        try:
            settings = kind(**given, **({"seed": seed} if "seed" in known else {}))
            settings = getattr(module, self.variant)(settings) if self.variant else settings
        except TypeError as error:
            raise SettingsError(f"The settings of baselines.{self.name} cannot be used: {error}.") from None
        if self.text_vectors:
            return _WithText(self.name, made_by, settings)
        kept: dict[str, Any] = {"store": self.store, "cache": load_settings().cache_folder} if self.reads_store else {}
        kept |= {"cache": _vectors_folder()} if self.makes_vectors else {}
        system: System = made_by(settings, **kept)
        return self._named(system)

    def _named(self, system: System) -> System:
        system.name = self.name
        return system


class _WithText:
    """A system that is given the text vectors of its task, by the default encoder, when it is fitted."""

    def __init__(self, name: str, made_by: Any, settings: Any) -> None:
        self.name, self.settings, self.made_by = name, settings, made_by

    def fit(self, task: Task, note: Note) -> None:
        """ModelMissing where there is no encoder."""
        from recgraph.tools.embed import named_encoder, text_vectors

        self._system: System = self.made_by(self.settings, text_vectors(task.texts, named_encoder(), _vectors_folder()))
        self._system.fit(task, note)

    def scores(self, cases: Cases) -> Scores:
        return self._system.scores(cases)


def _vectors_folder() -> Path:
    """Where text vectors are kept: those of one catalogue serve every system and the next evaluation."""
    return load_settings().cache_folder / "text-vectors"


_TEXT = ("ids", "text")
_LLM = ("text", "query", "llm")
_PAIRS = ("ncf", "din", "dien")
_ENTRIES = (
    Entry("popularity", "evaluation.baselines.counted", "PopularitySystem"),
    Entry("popular-7d", "evaluation.baselines.counted", "RecentPopularitySystem", "RecentSettings"),
    Entry("transitions", "evaluation.baselines.counted", "TransitionsSystem", "TransitionSettings"),
    Entry("item-knn", "evaluation.baselines.counted", "ItemKNNSystem", "ItemKNNSettings"),
    Entry("text-knn", "evaluation.baselines.counted", "TextKNNSystem", "TextKNNSettings", ("text",), makes_vectors=True),
    Entry("statistics", "evaluation.baselines.counted", "StatisticsSystem", "FusionSettings", _TEXT, makes_vectors=True),
    Entry("gru4rec", "evaluation.baselines.recurrent", "GRU4RecSystem", "RecurrentSettings"),
    Entry("narm", "evaluation.baselines.recurrent", "NARMSystem", "RecurrentSettings"),
    Entry("nextitnet", "evaluation.baselines.convolution", "NextItNetSystem", "ConvSettings"),
    Entry("sasrec-bce", "train.networks.attention", "SASRecSystem", "AttentionSettings", variant="original"),
    Entry("sasrec", "train.networks.attention", "SASRecSystem", "AttentionSettings"),
    Entry("sasrec-text", "train.networks.attention", "SASRecSystem", "AttentionSettings", _TEXT, text_vectors=True),
    Entry("bert4rec", "train.networks.attention", "BERT4RecSystem", "AttentionSettings"),
    Entry("core", "train.networks.attention", "CoreSystem", "CoreSettings"),
    *(Entry(name, "evaluation.baselines.pairs", "PairSystem", "PairSettings", fixed=(("model", name),)) for name in _PAIRS),
    *(
        Entry(f"{name}-text", "evaluation.baselines.pairs", "PairSystem", "PairSettings", _TEXT, fixed=(("model", name),), text_vectors=True)
        for name in _PAIRS
    ),
    Entry("session-knn", "evaluation.baselines.counted", "SessionKNNSystem", "SessionKNNSettings"),
    Entry("word-knn", "evaluation.baselines.counted", "WordKNNSystem", "WordsSettings", ("text",)),
    Entry("paper", "evaluation.baselines.own", "PaperSystem", "PaperSettings", _TEXT, makes_vectors=True),
    Entry("fused", "evaluation.baselines.own", "FusedSystem", "RankerSettings", ("ids", "text", "query"), makes_vectors=True, reads_store=True),
    Entry("textformer", "train.networks.text", "TextFormerSystem", "TextSettings", ("text",), reads_store=True),
    Entry("textformer-query", "train.networks.text", "query_former", "TextSettings", ("text", "query"), reads_store=True),
    Entry("tallrec", "evaluation.baselines.llm", "YesNoSystem", "RawSettings", _LLM, reads_store=True),
    Entry("llamarec", "evaluation.baselines.llm", "LettersSystem", "RawSettings", _LLM, reads_store=True),
    *(
        Entry(f"recgraph-{name}", "evaluation.baselines.llm", "YesNoSystem", "SummarySettings", _LLM, fixed=(("paradigm", name),), reads_store=True)
        for name in ("hierarchical", "recurrent")
    ),
    Entry("fused-llm", "evaluation.baselines.llm", "YesNoSystem", "ProductSettings", ("ids", *_LLM), reads_store=True),
)
NAMES = tuple(entry.name for entry in _ENTRIES)
BY_LLM = tuple(entry.name for entry in _ENTRIES if "llm" in entry.uses)  # a second or more a case on a CPU: asked for by name or on a sample
QUICK = ("popularity", "popular-7d", "transitions", "item-knn")  # counted in seconds, without a model


def systems(names: Sequence[str], tuned: Mapping[str, Settings] | None = None, store: str | Path | None = None) -> dict[str, Entry]:
    """The named ones, in the order given; "all" is every one without a language model, "llm" every one with. `tuned` has settings by name, `store`
    is the file that the task is of, for systems that read more of it. SettingsError for an unknown name."""
    several = {"all": [name for name in NAMES if name not in BY_LLM], "llm": BY_LLM}
    wanted = [one for name in names for one in several.get(name, (name,))]
    by_name = {entry.name: entry for entry in _ENTRIES}
    for name in (*wanted, *(tuned or {})):
        if name not in by_name:
            where = "" if name in wanted else " in the block baselines of params.yaml"
            raise SettingsError(f"'{name}'{where} is no system. Systems: {', '.join(NAMES)}, all or llm.")
    place = Path(store).expanduser() if store else None
    return {name: replace(by_name[name], settings=(tuned or {}).get(name), store=place) for name in dict.fromkeys(wanted)}


def tuned_settings(folder: str | Path = ".") -> dict[str, Settings]:
    """The block `baselines` of params.yaml in a folder; empty where there is no such file or block."""
    if not (Path(folder) / "params.yaml").is_file():
        return {}
    from recgraph.train.params import load_params

    try:
        block = load_params(folder).get("baselines") or {}
    except ModuleNotFoundError as error:
        raise SettingsError(f"params.yaml of this folder needs {error.name} to be read: pip install 'recgraph[train]'") from None
    if not isinstance(block, dict) or not all(isinstance(values, dict) for values in block.values()):
        raise SettingsError("The block baselines of params.yaml must have a block of settings for each system.")
    return {str(name): dict(values) for name, values in block.items()}
