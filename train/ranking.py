"""Stage `ranking`: learns from validation cases how far each source of candidates is to be believed. Command:
`recgraph train ranking`.

    data/ranking/ranking.safetensors, config.json   what tools/ranking.py serves with; no network where there was no
                                                    case to learn from
    data/ranking/evidence.parquet                   the cases it has seen
    metrics/ranking.json                            how it stands against the plain sum of reciprocal ranks, on
                                                    users it does not learn from

The sources (tools/sources/registry.py) are made of the train part alone, so that what they say of validation cases is
as honest as what they will say later; the network has few weights, learns by a softmax among a pool which item was
next, and stops by a part of the cases that it does not learn from. A case is learnt as it is asked: with its query and
without, at the search and, where the visit went on, at the moment of the purchase with what was looked at meanwhile. So
the network learns when a query matters and when the products under it say more.

The LLM's prediction is no source here: an answer for each validation case would cost seconds. Serving adds it with a
weight of its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recgraph.errors import SettingsError
from recgraph.settings import Settings
from recgraph.store import snapshot
from recgraph.store.cases import listed_since
from recgraph.store.db import Store
from recgraph.tools.embed import Encoder
from recgraph.tools.index import VectorIndex
from recgraph.tools.memory import QueryMemory
from recgraph.tools.ranking import AT_ONCE, PREDICTED, LearntRanking, Mask, PoolReader
from recgraph.tools.retrieve import Retriever
from recgraph.tools.sources.base import Past, Request, Rows, Source
from recgraph.tools.sources.core import Core
from recgraph.tools.sources.registry import make, possible
from recgraph.tools.sources.textformer import TextFormer
from recgraph.tools.wish.facets import Facets
from recgraph.tools.wish.understand import understand
from recgraph.tools.wish.vocabulary import Vocabulary
from recgraph.train import evidence
from recgraph.train.memory import read_queries
from recgraph.train.metrics import Places, ndcg, summary
from recgraph.train.networks.place import training
from recgraph.train.params import Params, block
from recgraph.train.pipeline import Note, needed, progress, split_folder
from recgraph.train.prepare import Case, read_cases, read_facts
from recgraph.train.vectors import title_vectors

Numbers = NDArray[np.float32]

OUT = Path("data") / "ranking"
_CHUNK = 256  # pools judged at once
_ENOUGH = 10  # items of the best fitting levels among which a lesson is learnt
# An epoch of fewer than 16 batches hardly moves a network: where few lessons are, its batches are smaller. On the 109
# lessons of fashion-purchases whose answer is in the pool, in five parts asked in turn, 32 in place of 128 give NDCG@10
# .0852 (before: .0700) among all and .2510 (.2376) in the category.
_STEPS, _SMALLEST = 16, 32
_REPEATS = 0.01  # the share of lessons whose answer is in the history from which on the history is ranked too


@dataclass(frozen=True)
class RankerSettings:
    """The block `ranking` of params.yaml. `depth` items of each source are ranked, `pool` items of all of them
    compared. `learn` validation cases at most are learnt from, a share `held` of them to stop by. `networks` are
    averaged."""

    depth: int = 100
    pool: int = 200
    learn: int = 25_000
    held: float = 0.15
    hidden: int = 64
    dropout: float = 0.3
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    batch: int = 128  # lessons at most; fewer where there are few
    epochs: int = 20
    patience: int = 4
    networks: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("depth", "pool", "learn", "hidden", "batch", "epochs", "patience", "networks"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not 0 < self.held < 1 or not 0 <= self.dropout < 1:
            raise SettingsError(f"held is {self.held} and dropout {self.dropout}; held must be above 0, both below 1.")


@dataclass(frozen=True)
class Lessons:
    """What is learnt from: requests, the row that was the answer, `case` int64[n], equal for lessons of one case, and
    `listed`, which gives bool[len(rows), items], what could be shown in the lessons with these numbers; `facets` read
    the wishes of the requests."""

    asked: Sequence[Request]
    target: Rows
    case: Rows
    listed: Callable[[Rows], Mask]
    facets: Facets | None = None


@dataclass(frozen=True)
class _Read:
    """What networks learn from: what is read of each lesson's pool, float16[n, pool, numbers], which places of it are
    taken (`there` bool[n, pool]), where the answer is in it (-1: not there), and which lessons are learnt (`kept`) and
    which held back to stop by."""

    pools: NDArray[np.float16]
    there: Mask
    place: Rows
    kept: Rows
    held: Rows


class _RankingNetwork(nn.Module):
    """A number for each item of a pool: a weighted sum of what is read, and what a layer between adds to it."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor, hidden: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.straight = nn.Linear(len(mean), 1, bias=False)
        first, second = nn.Linear(len(mean), hidden), nn.Linear(hidden, hidden)
        self.bent = nn.Sequential(first, nn.GELU(), nn.Dropout(dropout), second, nn.GELU(), nn.Linear(hidden, 1))

    def forward(self, read: Tensor) -> Tensor:
        x = (read - self.mean) / self.deviation
        found: Tensor = (self.straight(x) + self.bent(x))[..., 0]
        return found

    def weights(self) -> dict[str, Numbers]:
        """By the names that `LearntRanking.says` knows."""
        first, second, last = (layer for layer in self.bent if isinstance(layer, nn.Linear))
        named = {
            "straight": self.straight.weight,
            "first": first.weight,
            "first_bias": first.bias,
            "second": second.weight,
        }
        named |= {"second_bias": second.bias, "last": last.weight, "last_bias": last.bias}
        return {name: value.detach().cpu().numpy().copy() for name, value in named.items()}


def learn(
    sources: Mapping[str, Source], counts: NDArray[np.int64], lessons: Lessons, settings: RankerSettings, note: Note
) -> LearntRanking:
    """The ranking by fitted sources. Those that say nothing in any lesson are not in it, nor is any network where there
    is no lesson to learn by.

    `counts` int64[items] are the train events of each item. Deterministic for the settings' seed.
    """
    repeats = [target in one.history for one, target in zip(lessons.asked, lessons.target, strict=True)]
    again = bool(repeats) and float(np.mean(repeats)) > _REPEATS
    config = {
        "depth": settings.depth,
        "pool": settings.pool,
        "again": again,
        "networks": 0,
        "votes": False,
        "lessons": len(lessons.asked),
    }
    if not len(lessons.asked):
        return LearntRanking(tuple(sources), {}, config)
    reader = PoolReader(sources, counts, settings.depth, settings.pool, again, lessons.facets)
    read, votes, place = _pools(reader, lessons)
    there = votes > 0
    said = [number for number in range(len(sources)) if read[:, :, number].any()]
    silent = [name for number, name in enumerate(sources) if number not in said]
    read = read[:, :, [*said, *range(2 * len(sources), read.shape[2])]]
    names = tuple(name for name in sources if name not in silent)
    note(
        f"ranking: {len(place):,} lessons, the answer among the {settings.pool} compared in "
        f"{(place >= 0).mean():.1%}; sources {', '.join(names)}"
    )
    if silent:
        note(f"ranking: nothing is said by {', '.join(silent)}")
    rng = np.random.default_rng(settings.seed)
    cases = rng.permutation(np.unique(lessons.case))
    is_held = np.isin(lessons.case, cases[: round(settings.held * len(cases))])
    held, kept = np.flatnonzero(is_held), np.flatnonzero(~is_held & (place >= 0))
    if not len(kept) or not len(held):
        return LearntRanking(names, {}, config)
    weights, shown = _train_networks(_Read(read, there, place, kept, held), settings, rng, note)
    learnt = LearntRanking(names, weights, {**config, "networks": settings.networks})
    says = [learnt.says(part.astype(np.float32)) for part in np.array_split(read[held], len(held) // _CHUNK + 1)]
    stands = places_in_pools(np.where(there[held], np.concatenate(says), -np.inf), place[held])
    plain = places_in_pools(votes[held], place[held])
    told = {"lessons": len(held), **summary(stands), "plain_sum": summary(plain)}
    return LearntRanking(names, weights, {**learnt.config, "held": told, "best_ndcg@10": shown})


def _pools(reader: PoolReader, lessons: Lessons) -> tuple[NDArray[np.float16], Numbers, Rows]:
    """Of each lesson what is read of its pool, float16[n, pool, numbers], and the votes, float32[n, pool]; and where
    the answer is in it (-1: not there). As it is served, a pool is of what fits best of what the wish names, if that is
    enough to fill an answer."""
    size = min(reader.pool, reader.n_items)
    numbers = reader.width
    read = np.zeros((len(lessons.asked), size, numbers), np.float16)
    votes, place = np.zeros(read.shape[:2], np.float32), np.full(len(read), -1, np.int64)
    for start in range(0, len(read), AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, len(read)))
        asked = lessons.asked[start : start + AT_ONCE]
        listed = lessons.listed(rows)
        may = [reader.leading(one.wish, mask, _ENOUGH) for one, mask in zip(asked, listed, strict=True)]
        pools = reader.read(asked, np.stack(may))
        found = (pools.items == lessons.target[rows, None]) & (pools.votes > 0)
        place[rows] = np.where(found.any(1), found.argmax(1), -1)
        width = pools.items.shape[1]
        read[rows, :width], votes[rows, :width] = pools.read, pools.votes
    return read, votes, place


def _train_networks(
    read: _Read, settings: RankerSettings, rng: np.random.Generator, note: Note
) -> tuple[dict[str, Numbers], list[float]]:
    """The networks' weights by the names of `LearntRanking`, and the best NDCG@10 of each on the lessons held back."""
    some = read.kept[:2000]
    part = torch.from_numpy(read.pools[some][read.there[some]].astype(np.float32))
    spread = part.std(0)
    # What never differs says nothing; if it differs later, that must not count.
    mean, deviation = part.mean(0), torch.where(spread > 1e-3, spread, torch.inf)
    weights, shown = {"mean": mean.numpy().copy(), "deviation": deviation.numpy().copy()}, []
    with training(settings.seed, 1) as place:
        for number in range(settings.networks):
            network = _RankingNetwork(mean, deviation, settings.hidden, settings.dropout).to(place)
            shown.append(round(_train_network(network, read, settings, rng), 6))
            weights |= {f"{number}.{name}": value for name, value in network.weights().items()}
            note(f"ranking: network {number + 1} of {settings.networks}; NDCG@10 of what is held back {shown[-1]:.4f}")
    return weights, shown


def _train_network(network: _RankingNetwork, read: _Read, s: RankerSettings, rng: np.random.Generator) -> float:
    """Trains it, keeps its best epoch, and returns that one's NDCG@10 on the lessons held back."""
    best, since, place = -1.0, 0, network.mean.device
    optimizer = torch.optim.AdamW(network.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    batch = min(s.batch, max(_SMALLEST, len(read.kept) // _STEPS))
    for _ in range(s.epochs):
        network.train()
        for part in np.array_split(order := rng.permutation(read.kept), max(1, len(order) // batch)):
            pools, there, answer = (torch.from_numpy(a[part]).to(place) for a in (read.pools, read.there, read.place))
            said = network(pools.float()).masked_fill(~there, -torch.inf)
            loss = nn.functional.cross_entropy(said, answer)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        says = np.where(read.there[read.held], _scored(network.eval(), read.pools[read.held]), -np.inf)
        shown = float(ndcg(places_in_pools(says, read.place[read.held]), 10).mean())
        since += 1
        if shown > best:
            best, since, weights = shown, 0, {name: value.clone() for name, value in network.state_dict().items()}
        if since >= s.patience:
            break
    network.load_state_dict(weights)
    return best


def _scored(network: _RankingNetwork, read: NDArray[np.float16]) -> Numbers:
    with torch.inference_mode():
        parts = [
            network(torch.from_numpy(part).to(network.mean.device).float()).cpu().numpy()
            for part in np.array_split(read, len(read) // _CHUNK + 1)
        ]
    return np.concatenate(parts)


def places_in_pools(said: Numbers, place: Rows) -> Places:
    """Where the answers stand in their pools; one that is not there is a miss."""
    own = np.take_along_axis(said, np.maximum(place, 0)[:, None], 1)
    better = np.where(place < 0, 2**40, (said > own).sum(1))
    return Places(better.astype(np.int64), np.where(place < 0, 0, (said == own).sum(1) - 1).astype(np.int64))


# ── The stage ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def lessons_of(
    cases: Sequence[Case], everything: Store, retriever: Retriever, memory: QueryMemory, encoder: Encoder
) -> Lessons:
    """The cases as they would be asked of the product, each query with the wish that it is understood as. `everything`
    has the histories; `retriever` and `memory` know the train part alone."""
    vocabulary = Vocabulary.of(retriever.fitted.facets, encoder)
    since, settings = listed_since(everything), Settings()
    row_of = {item_id: row for row, item_id in enumerate(retriever.catalogue.item_ids)}
    asked: list[Request] = []
    target, case_of, moments = [], [], []
    for number, case in enumerate(progress(cases, "Reading cases")):
        hits = memory.lookup(case.query, settings.memory_queries, settings.memory_products) if case.query else []
        wish = understand(case.query, vocabulary)
        for moment in dict.fromkeys((case.as_of, case.ts)):
            history = everything.history(case.user_id, moment)
            for query in dict.fromkeys((case.query, "")):
                asked.append(retriever.request(query, history, *((hits, wish) if query else ([], None))))
                target.append(row_of[case.item_id])
                case_of.append(number)
                moments.append(np.datetime64(moment, "us"))
    at = np.array(moments, "datetime64[us]")
    target_rows, cases_of = np.array(target, np.int64), np.array(case_of, np.int64)
    return Lessons(asked, target_rows, cases_of, lambda rows: since < at[rows, None], retriever.fitted.facets)


def run(params: Params, folder: Path, note: Note) -> None:
    """Params: split, the fields of `RankerSettings`. Reads data/prepare, id_embeddings, title_embeddings, memory and
    textformer; writes data/ranking and metrics."""
    settings = block(params, "ranking", RankerSettings)
    split = split_folder(params, folder)
    facts, cases = read_facts(split), read_cases(split, "valid")
    if len(cases) > settings.learn:
        drawn = np.random.default_rng(settings.seed).permutation(len(cases))[: settings.learn]
        cases = [cases[number] for number in np.sort(drawn)]
    with (
        snapshot.open_folder(split / "train") as train,
        snapshot.open_folder(needed(folder / "data" / "prepare" / "all", "prepare")) as everything,
    ):
        catalogue, encoder = train.catalogue(), read_queries(folder, train)
        vectors = title_vectors(folder, catalogue.item_ids, catalogue.names)
        core = Core.load(needed(folder / "data" / "id_embeddings", "id_embeddings")).over(catalogue.item_ids)
        retriever = Retriever.build(train, encoder, titles=VectorIndex(catalogue.item_ids, vectors))
        lessons = lessons_of(cases, everything, retriever, QueryMemory.build(train, encoder), encoder)
        former = TextFormer.load(needed(folder / "data" / "textformer", "textformer"))
        if former and former.config["encoder"] != encoder.name:
            raise SettingsError(
                f"The text transformer reads vectors of {former.config['encoder']}, those of the titles are "
                f"{encoder.name}'s. Train it again with: recgraph train textformer"
            )
        past = Past(train.sequences(), catalogue.names, vectors, core, former)
    sources = {name: make(name, past) for name in possible(past) if name not in PREDICTED}
    found = learn(sources, np.bincount(past.events.item, minlength=past.n_items), lessons, settings, note)
    held = found.config.get("held", {})
    # The network knows what the validation cases were, so it is of the moment the test cases begin.
    config = {
        **asdict(settings),
        **found.config,
        "encoder": encoder.name,
        "split": facts["split"],
        "fitted_before": facts["test_from"],
    }
    shutil.rmtree(folder / OUT, ignore_errors=True)
    LearntRanking(found.sources, found.weights, config).save(folder / OUT)
    evidence.keep(folder / OUT, evidence.of_cases("The learnt ranking", "ranking", cases))
    (folder / "metrics").mkdir(exist_ok=True)
    (folder / "metrics" / "ranking.json").write_text(
        json.dumps({"cases": len(cases), **held}, indent=2) + "\n", encoding="utf-8"
    )
    if held:
        told = [f"NDCG@10 {one['ndcg@10']:.4f}, Recall@10 {one['recall@10']:.4f}" for one in (held, held["plain_sum"])]
        note(f"on cases held back {told[0]}; the plain sum of reciprocal ranks {told[1]}")
    else:
        note("no validation case to learn from, so the hand-set weights will serve")
