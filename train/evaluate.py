"""Stage `evaluate`: a first measurement of retrieval on the held-out test cases, without an LLM. Command:
`recgraph train evaluate`.

    metrics/evaluate.json   recall, NDCG and MRR of each system
    metrics/evaluate.csv    recall@k of each system for growing k, for a plot

Full ranking over the catalogue as of the case: every product listed before `as_of` is a candidate, whatever its stock
was later. Everything fitted knows the train part alone; a case's history is what its user did before `as_of`, also
after the cut. `all` counts every candidate; `unseen` leaves out what the history holds, the same for every system, and
with it the cases whose target is in there.

Systems: popularity, transitions, titles (nearest to the history's), core (where it was trained); they know the history
alone. `fused` and `paper` are recgraph's own retrieval (`tools/retrieve.py`) and are given the case's query too, which
the others cannot use; `fused` answers the wish that it is understood as, what fits first.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recgraph.settings import MODES, Settings
from recgraph.store import snapshot
from recgraph.store.cases import listed_since
from recgraph.store.db import Catalogue, Store
from recgraph.store.records import Event
from recgraph.tools.index import VectorIndex
from recgraph.tools.memory import QueryMemory
from recgraph.tools.retrieve import RetrievalQuery, Retriever
from recgraph.tools.sources.core import Core
from recgraph.tools.sources.transitions import TransitionTable, session_vector
from recgraph.tools.trained import TrainedParts
from recgraph.tools.wish.understand import understand
from recgraph.tools.wish.vocabulary import Vocabulary
from recgraph.train import leaks
from recgraph.train.memory import read_queries
from recgraph.train.metrics import Places, places, places_in_lists, recall, summary
from recgraph.train.params import Params, block
from recgraph.train.pipeline import Note, needed, progress, split_folder
from recgraph.train.prepare import Case, read_cases, read_facts
from recgraph.train.vectors import title_vectors

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
Scorer = Callable[[Rows], NDArray[np.floating]]  # a history's catalogue rows, oldest first → float[n items]
# a case, its candidates, whether what it has seen counts → item_ids, best first
ListMaker = Callable[["AskedCase", Mask, bool], list[str]]

REPORTED = (10, 50)
VARIANTS = ("all", "unseen")
AT_ONCE = 64  # cases whose scores are held together: 64 × 100,000 items are 50 MB
_NEVER = -np.inf


@dataclass(frozen=True)
class AskedCase:
    """A case with its user's history, that history's catalogue rows, the target's row, and which items were listed
    then."""

    case: Case
    history: list[Event]
    rows: Rows
    target: int
    listed: Mask

    def allowed(self, variant: str) -> Mask:
        """bool[n items]: the candidates of a variant."""
        if variant == "all":
            return self.listed
        mask = self.listed.copy()
        mask[self.rows] = False
        return mask


def sample(cases: Sequence[Case], most: int, seed: int) -> list[Case]:
    """At most `most` cases (0: all) of whole users in a seeded order, so that a small sample is part of a larger one;
    in the given order."""
    users = sorted({case.user_id for case in cases})
    order = np.random.default_rng(seed).permutation(len(users))
    room: set[str] = set()
    counts: dict[str, int] = {}
    for case in cases:
        counts[case.user_id] = counts.get(case.user_id, 0) + 1
    left = most or len(cases)
    for user_id in (users[place] for place in order):
        if counts[user_id] <= left:
            room.add(user_id)
            left -= counts[user_id]
    return [case for case in cases if case.user_id in room]


def ask(store: Store, catalogue: Catalogue, cases: Sequence[Case]) -> list[AskedCase]:
    """The cases with what may be known of them; `store` holds everything."""
    row_of = {item_id: row for row, item_id in enumerate(catalogue.item_ids)}
    since = listed_since(store)
    asked = []
    for case in cases:
        history = store.history(case.user_id, case.as_of)
        rows = np.array([row_of[event.item_id] for event in history if event.item_id], np.int64)
        asked.append(AskedCase(case, history, rows, row_of[case.item_id], since < np.datetime64(case.as_of, "us")))
    return asked


def scorers(store: Store, folder: Path, catalogue: Catalogue) -> dict[str, Scorer]:
    """What scores the whole catalogue from a history; `store` is the train part."""
    n = len(catalogue.item_ids)
    weights = dict(store.popular(limit=n))
    popularity = np.array([weights.get(item_id, 0) for item_id in catalogue.item_ids], np.float64)
    transitions = TransitionTable.fit(store.sequences(), n)
    titles = title_vectors(folder, catalogue.item_ids, catalogue.names)
    found: dict[str, Scorer] = {
        "popularity": lambda rows: popularity,
        "transitions": transitions.scores,
        "titles": lambda rows: titles @ session_vector(titles, rows),
    }
    if (folder / "data" / "id_embeddings").is_dir():
        core = Core.load(folder / "data" / "id_embeddings").over(catalogue.item_ids)
        units = core.units()
        # A cold item has no vector; without this its score of 0 would beat every item of negative cosine.
        found["core"] = lambda rows: np.where(core.cold, _NEVER, units @ core.session_vector(rows))
    return found


def rankers(store: Store, folder: Path, catalogue: Catalogue, depth: int) -> dict[str, ListMaker]:
    """recgraph's retrieval with the default settings and no LLM; `store` is the train part, and vectors are put into
    it."""
    encoder = read_queries(folder, store)
    TrainedParts.load(folder / "data").publish(store)
    titles = VectorIndex(catalogue.item_ids, title_vectors(folder, catalogue.item_ids, catalogue.names))
    retriever = Retriever.build(store, encoder, titles=titles)
    memory, vocabulary = QueryMemory.build(store, encoder), Vocabulary.of(retriever.fitted.facets, encoder)
    settings = Settings()

    def ranker(mode: str) -> ListMaker:
        def rank(asked: AskedCase, allowed: Mask, purchased: bool) -> list[str]:
            query = asked.case.query
            hits = (
                memory.lookup(query, settings.memory_queries, settings.memory_products)
                if query and mode == "fused"
                else []
            )
            wish = understand(query, vocabulary) if mode == "fused" else None  # F 4.4 knows none
            wanted = RetrievalQuery(
                query=query,
                history=asked.history,
                memory=hits,
                k=depth,
                mode=mode,
                exclude_purchased=not purchased,
                wish=wish,
            )
            found = retriever.candidates(wanted, among=allowed)
            return [candidate.item_id for candidate in found]

        return rank

    return {mode: ranker(mode) for mode in MODES}


def place_scored(scorer: Scorer, asked: Sequence[AskedCase], variant: str) -> Places:
    """Where a scorer puts the targets."""
    better, equal = [], []
    for start in range(0, len(asked), AT_ONCE):
        part = asked[start : start + AT_ONCE]
        scores = np.stack([scorer(one.rows) for one in part])
        found = places(scores, np.array([one.target for one in part]), np.stack([one.allowed(variant) for one in part]))
        better.append(found.better)
        equal.append(found.equal)
    return (
        Places(np.concatenate(better), np.concatenate(equal))
        if better
        else Places(np.zeros(0, np.int64), np.zeros(0, np.int64))
    )


def place_ranked(ranker: ListMaker, asked: Sequence[AskedCase], variant: str, label: str) -> Places:
    """Where a ranker's list has the targets."""
    lists = [ranker(one, one.allowed(variant), variant == "all") for one in progress(asked, f"Evaluating {label}")]
    return places_in_lists(lists, [one.case.item_id for one in asked])


@dataclass(frozen=True)
class EvaluateParams:
    """The block `evaluate` of params.yaml: at most so many test cases, drawn with the seed (0: all), and the ks of the
    curve."""

    cases: int
    seed: int
    ks: tuple[int, ...]


def run(params: Params, folder: Path, note: Note) -> None:
    """Params: split, the fields of `EvaluateParams`. Reads data/prepare, title_embeddings, memory and id_embeddings;
    writes metrics/evaluate.{json,csv}."""
    own, split = block(params, "evaluate", EvaluateParams), split_folder(params, folder)
    ks = sorted(own.ks)
    leaks.check_folder(folder, split, ("id_embeddings", "title_embeddings", "memory", "textformer"))
    with snapshot.open_folder(needed(folder / "data" / "prepare" / "all", "prepare")) as everything:
        catalogue = everything.catalogue()
        asked = ask(everything, catalogue, sample(read_cases(split, "test"), own.cases, own.seed))
    unseen = [one for one in asked if not (one.rows == one.target).any()]
    chosen: Mapping[str, Sequence[AskedCase]] = dict(zip(VARIANTS, (asked, unseen), strict=True))
    found: dict[str, dict[str, Places]] = {variant: {} for variant in VARIANTS}
    with snapshot.open_folder(split / "train") as train:
        leaks.check_train(train, leaks.Cut.of(split))
        scoring, ranking = (
            scorers(train, folder, catalogue),
            rankers(train, folder, catalogue, max(*ks, *REPORTED, 100)),
        )
        for variant, some in chosen.items():
            found[variant] |= {name: place_scored(scorer, some, variant) for name, scorer in scoring.items()}
            found[variant] |= {
                name: place_ranked(ranker, some, variant, f"{name}, {variant}") for name, ranker in ranking.items()
            }
    facts = read_facts(split)
    told = {
        "split": facts["split"],
        "fitted_before": facts["fitted_before"],
        "cases": {variant: len(some) for variant, some in chosen.items()},
    }
    told |= {
        variant: {name: summary(at, REPORTED) for name, at in systems.items()} for variant, systems in found.items()
    }
    target = folder / "metrics"
    target.mkdir(exist_ok=True)
    (target / "evaluate.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    _write_curve(target / "evaluate.csv", found["all"], ks)
    for name, numbers in told["all"].items():
        note(
            f"{name:12} recall@10 {numbers['recall@10']:.3f}  ndcg@10 {numbers['ndcg@10']:.3f}  mrr "
            f"{numbers['mrr']:.3f}"
        )


def _write_curve(path: Path, found: Mapping[str, Places], ks: Sequence[int]) -> None:
    """One row a k, one column a system: recall@k."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["k", *found])
        writer.writerows(
            [k, *(round(float(recall(at, k).mean()), 5) if len(at) else 0.0 for at in found.values())] for k in ks
        )
