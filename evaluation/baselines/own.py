"""recgraph's own retrieval as systems: `FusedSystem`, what the product serves by default, and `PaperSystem`, the mixup
of F 4.4. Neither asks an LLM.

They are the serving code itself: tools/sources fitted on train, tools/ranking.py with a network that train/ranking.py
learns on the validation cases, CORE of train/networks/core.py and the text transformer of train/networks/text.py. Three
things differ from a served request: there is no query memory, because a task has no exposures; a search that was made
before counts as fresh, because a task does not tell of it; and what was purchased before is left to the evaluator,
which decides for all systems alike what becomes of the history's items.

Amazon Beauty, leave-one-out, full ranking, seen items excluded, test, 22,363 cases: `FusedSystem` Recall@10 .1239,
NDCG@10 .0744; without the text transformer .1255/.0748 in half of the time (docs/results.md has what it is since
retrieval has two stages). Before there was one, on 6,000 validation
cases, learnt on 6,000 others with one network and, as one more source, transitions between items named alike:
.1392/.0854; without CORE .1333/.0842; without those transitions .1375/.0859, which is noise, and they cost more than
all other sources together, so they are left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recgraph.errors import ModelMissing
from recgraph.evaluation.baselines.counted import past_of
from recgraph.evaluation.baselines.sequence import CoreSystem
from recgraph.evaluation.workshop import Workshop
from recgraph.store.db import Store
from recgraph.tools.embed import Encoder
from recgraph.tools.ranking import PREDICTED, Mask, PoolReader
from recgraph.tools.ranking import Ranker as Served
from recgraph.tools.sources.base import Request
from recgraph.tools.sources.core import Core
from recgraph.tools.sources.registry import NAMES, make, possible
from recgraph.tools.sources.textformer import TextFormer as Former
from recgraph.tools.wish.facets import Facets
from recgraph.tools.wish.understand import understand
from recgraph.tools.wish.vocabulary import Vocabulary
from recgraph.train.evidence import Seen
from recgraph.train.id_embeddings import save
from recgraph.train.networks.core import CoreSettings
from recgraph.train.networks.text import TextFormerSystem, TextSettings
from recgraph.train.ranking import Lessons, RankerSettings, learn
from recgraph.train.task import Cases, Note, Scores, System, Task, Within

Vectors = NDArray[np.float32]


# ── Networks that several systems need ────────────────────────────────────────────────────────────────────────────────


def trained_core(task: Task, seed: int, workshop: Workshop, note: Note) -> Core | None:
    """CORE trained on train as the pipeline does, as it serves, over the task's items; None where train has no item."""
    settings = CoreSettings(epochs=15, threads=1, seed=seed)
    return (
        workshop.once("core", (task.hash(), settings), lambda: _train_core(task, settings, note))
        if len(task.train)
        else None
    )


def _train_core(task: Task, settings: CoreSettings, note: Note) -> Core:
    system = CoreSystem(settings)
    system.fit(task, note)
    warm = np.unique(task.train.item)
    with tempfile.TemporaryDirectory(prefix="recgraph-core-") as scratch:
        save(system.trained, [str(row) for row in warm], asdict(settings), Path(scratch))
        return Core.load(scratch).over([str(row) for row in range(task.n_items)])


Trained = tuple[Former | None, tuple[Seen, ...]]


def trained_former(task: Task, vectors: Vectors, seed: int, workshop: Workshop, note: Note) -> Trained:
    """The text transformer trained on train, with the searches of the workshop's store, as the pipeline does, and what
    it has seen of those; None where train has nothing to learn from. ModelMissing without an encoder."""
    settings = TextSettings(seed=seed)
    of = (task.hash(), settings, workshop.encoder().name, workshop.store)
    return (
        workshop.once("former", of, lambda: _train_former(task, vectors, settings, workshop, note))
        if len(task.train)
        else (None, ())
    )


def _train_former(task: Task, vectors: Vectors, settings: TextSettings, workshop: Workshop, note: Note) -> Trained:
    system = TextFormerSystem(settings, workshop.store, queries=True, encoder=workshop.encoder(), text=vectors)
    system.fit(task, note)
    return (system.served(), system.seen) if system.epochs else (None, ())


class TitleFormerSystem(TextFormerSystem):
    """The text transformer alone, without queries."""

    uses: tuple[str, ...] = ("text",)
    settings_class = TextSettings
    queries = False

    def __init__(self, settings: TextSettings, workshop: Workshop) -> None:
        super().__init__(settings, workshop.store, workshop.cache, queries=self.queries)
        self._workshop = workshop

    def fit(self, task: Task, note: Note) -> None:
        """Opens the encoder and trains. ModelMissing."""
        self._encoder = self._workshop.encoder()
        super().fit(task, note)


class QueryFormerSystem(TitleFormerSystem):
    """The text transformer with the searches between events, and with a case's query."""

    uses = ("text", "query")
    queries = True


# ── Retrieval as it serves ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class PaperSettings:
    """`n` of F 4.4: so many of the ID list come first."""

    n: int = 1
    seed: int = 0


class _OfTexts:
    """What both systems need of the texts: vectors, zero where nothing but an id is known of an item, and those of
    queries. None of them where the items have no names, or there is no encoder."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self.encoder: Encoder | None = None
        self._queries: dict[str, Vectors] = {}

    def of(self, task: Task, note: Note) -> Vectors | None:
        if len(set(task.texts)) < 2:
            note("fused: the items have no names, so no source reads them.")
            return None
        try:
            self.encoder = self._workshop.encoder()
        except ModelMissing as error:
            note(f"fused: without vectors of names: {error}")
            return None
        vectors = self._workshop.vectors(task.texts)
        return np.where(task.named[:, None], vectors, np.float32(0))

    def queries(self, queries: Sequence[str]) -> list[Vectors | None]:
        """The queries' vectors; None for an empty one, or without an encoder."""
        wanted = [one.strip() for one in queries]
        missing = [one for one in dict.fromkeys(wanted) if one and one not in self._queries]
        if self.encoder is None:
            return [None] * len(wanted)
        if missing:
            self._queries.update(zip(missing, self.encoder.encode(missing), strict=True))
        return [self._queries.get(one) for one in wanted]


class FusedSystem(Within):
    """The fused retrieval. `names` are those of the sources, by default all that can be made. The searches of train are
    the store's."""

    name, settings_class, uses = "fused", RankerSettings, ("ids", "text", "query")
    settings: RankerSettings

    def __init__(self, settings: RankerSettings | None, workshop: Workshop, names: Sequence[str] = NAMES) -> None:
        super().__init__(settings)
        self._workshop, self._texts, self._names = workshop, _OfTexts(workshop), names

    def fit(self, task: Task, note: Note) -> None:
        """Fits the sources on train, then the network on validation cases; without any, the pool's own order stays."""
        past, seed = past_of(task, self._texts.of(task, note)), self.settings.seed
        if "core" in self._names:
            past = replace(past, core=trained_core(task, seed, self._workshop, note))
        if "textformer" in self._names and past.vectors is not None:
            former, self.seen = trained_former(task, past.vectors, seed, self._workshop, note)
            past = replace(past, former=former)
        unasked = ("memory", *PREDICTED)
        sources = {name: make(name, past) for name in possible(past) if name in self._names and name not in unasked}
        counts = np.bincount(task.train.item, minlength=task.n_items)
        self._listed = task.listed
        valid = task.valid.some(self.settings.learn, self.settings.seed)
        self._wishes = self._understanding(task)
        self.learnt = learn(sources, counts, self._lessons(valid), self.settings, note)
        config = self.learnt.config
        used = {name: sources[name] for name in self.learnt.sources}
        facets = self._wishes.facets if self._wishes else None
        reader = PoolReader(used, counts, config["depth"], config["pool"], config["again"], facets)
        self.served = Served(reader, self.learnt)

    def _understanding(self, task: Task) -> Vocabulary | None:
        """What queries are understood by, where the workshop's store is the task's."""
        if self._workshop.store is None:
            return None
        with Store.open(self._workshop.store) as store:
            if tuple(store.catalogue().item_ids) != tuple(task.item_ids):
                return None
            return Vocabulary.of(Facets.of(store), self._texts.encoder)

    def requests(self, cases: Cases) -> list[Request]:
        """What is asked of each case. All queries are fresh: a case ends before the search that led to its target."""
        vectors = self._texts.queries(cases.query)
        there = [bool(query.strip()) for query in cases.query]
        wishes = self._wishes
        return [
            Request(
                history,
                query if is_there else "",
                vector,
                (),
                is_there,
                understand(query, wishes) if wishes and is_there else None,
            )
            for history, query, vector, is_there in zip(cases.history, cases.query, vectors, there, strict=True)
        ]

    def _lessons(self, cases: Cases) -> Lessons:
        """Each case with its query and without."""
        asked = self.requests(cases)
        searched = np.array([number for number, one in enumerate(asked) if one.query], np.int64)
        case = np.concatenate([np.arange(len(cases)), searched]).astype(np.int64)
        without = [Request(asked[number].history) for number in searched]
        times = cases.time[case]
        facets = self._wishes.facets if self._wishes else None
        return Lessons([*asked, *without], cases.target[case], case, lambda rows: self._may(times[rows]), facets)

    def _may(self, times: NDArray[np.float64]) -> Mask:
        """bool[cases, items]: what was listed by then."""
        return np.asarray(self._listed[None] < times[:, None])

    def scores(self, cases: Cases) -> Scores:
        """float32[cases, items]: the pool by the network, all others below it by the votes of the sources."""
        return self.served.scores(self.requests(cases), self._may(cases.time))

    def scores_within(self, cases: Cases, allowed: Mask) -> Scores:
        """The same, with a pool of what is allowed: bool[cases, items]."""
        return self.served.scores(self.requests(cases), self._may(cases.time) & allowed)


class PaperSystem(System):
    """F 4.4 where no LLM predicts: the newest item stands in for the prediction. The first `n` are its neighbours in
    CORE's table, then come the titles nearest to its own; the history's items, which a title search would find first,
    come last."""

    name, settings_class, uses = "paper", PaperSettings, ("ids", "text")
    settings: PaperSettings

    def __init__(self, settings: PaperSettings | None, workshop: Workshop) -> None:
        super().__init__(settings)
        self._workshop, self._texts = workshop, _OfTexts(workshop)

    def fit(self, task: Task, note: Note) -> None:
        vectors = self._texts.of(task, note)
        self._titles = vectors if vectors is not None else np.zeros((task.n_items, 1), np.float32)
        core = trained_core(task, self.settings.seed, self._workshop, note)
        self._ids = core.units() if core else np.zeros((task.n_items, 1), np.float32)

    def scores(self, cases: Cases) -> Scores:
        """float32[cases, items]: cosines of titles, and above them the first of the ID list; 0 without a history."""
        found = np.zeros((len(cases), len(self._titles)), np.float32)
        for line, history in zip(found, cases.history, strict=True):
            if not len(history):
                continue
            line[:] = self._titles @ self._titles[history[-1]]
            near = self._ids @ self._ids[history[-1]]
            near[history] = -np.inf
            first = np.argsort(-near, kind="stable")[: self.settings.n]
            first = first[near[first] > 0]
            line[history] -= 4.0
            line[first] = 2.0 + near[first]
        return found
