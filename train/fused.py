"""Many sources as one retrieval: what each says of an item becomes a few numbers, and a small network learnt on validation cases ranks by them.

A case's pool are the items that stand high with some source (the sum of reciprocal ranks). Of an item in the pool the network reads, for each
source, how far it lies above the source's other scores and its rank, besides how often it was taken and how long the history is. It learns by
a softmax among the pool which item was next. Because the sources are fitted on train, what they say of validation cases is as honest as what
they will say of test cases; the network has few weights, and stops by a part of the validation users that it does not learn from.

Which shop it is stays unknown here; a source that cannot be fitted (no names, no encoder) is left out with a note.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recgraph.errors import ModelMissing, SettingsError
from recgraph.tools.embed import open_encoder
from recgraph.train import base_counts as counts
from recgraph.train import base_sessions as sessions
from recgraph.train.metrics import Places, ndcg
from recgraph.train.protocol import Cases, Note, Rows, Scores, System, Task

Numbers = NDArray[np.float32]

_CHUNK = 256  # cases read at once
_RRF = 20.0  # added to ranks, so that the first of one source does not decide alone
_REPEATS = 0.01  # the share of repeats among validation cases from which on the history is ranked too
_BELOW = 1e3  # what lies between an item of the pool and one outside


@dataclass(frozen=True)
class FusedSettings:
    """`depth` items of each source are ranked, `pool` items of all of them compared. `learn` validation cases at most are learnt from, a share
    `held` of them to stop by. `networks` are averaged."""

    depth: int = 100
    pool: int = 200
    learn: int = 25_000
    held: float = 0.15
    hidden: int = 64
    dropout: float = 0.3
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    batch: int = 128  # cases
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
class Pools:
    """Of n cases the `items` int64[n, pool], their `read` float32[n, pool, numbers], and the `place` int64[n] of the target (-1: not there)."""

    items: Rows
    read: Numbers
    place: Rows

    def of(self, rows: Rows) -> Pools:
        """Some of them."""
        return Pools(self.items[rows], self.read[rows], self.place[rows])


class _Ranker(nn.Module):
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


class Fused:
    """The fused retrieval. `sources` makes the unfitted sources for a task, by default `all_sources`."""

    name = "fused"

    def __init__(self, settings: FusedSettings | None = None, sources: Callable[[Task, int, Note], Sequence[System]] | None = None) -> None:
        self.settings, self._make = settings or FusedSettings(), sources or all_sources
        self.sources: list[System] = []
        self.seconds: dict[str, float] = {}

    def fit(self, task: Task, note: Note) -> None:
        """Fits the sources on train, then the network on validation cases; without any, the pool's own order stays."""
        self.sources, self.seconds = [], {}
        for source in self._make(task, self.settings.seed, note):
            began = time.perf_counter()
            try:
                source.fit(task, note)
            except (ModelMissing, SettingsError) as error:
                note(f"fused: without {source.name}: {error}")
                continue
            self.sources.append(source)
            self.seconds[source.name] = time.perf_counter() - began
            note(f"fused: {source.name} fitted in {self.seconds[source.name]:.1f} s")
        self._counts = np.log1p(np.bincount(task.train.item, minlength=task.n_items)).astype(np.float32)
        self._networks: list[_Ranker] = []
        # Where nobody takes an item twice, the history's items only take places from others. Never asked of the case itself.
        repeats = [target in had for had, target in zip(task.valid.history, task.valid.target, strict=True)]
        self._again = bool(repeats) and float(np.mean(repeats)) > _REPEATS
        if len(task.valid):
            self.learn(self.pools(task.valid.some(self.settings.learn, self.settings.seed)), note)

    def pools(self, cases: Cases) -> Pools:
        """What the network reads of each case."""
        parts = [self._pool(cases.of(np.arange(start, min(start + _CHUNK, len(cases)))))[0] for start in range(0, len(cases), _CHUNK)]
        return Pools(*(np.concatenate(columns) for columns in zip(*((one.items, one.read, one.place) for one in parts), strict=True)))

    def _pool(self, cases: Cases) -> tuple[Pools, Scores]:
        """The pools, and the sums of reciprocal ranks float32[cases, items] they were taken by."""
        n, n_items, lines = len(cases), len(self._counts), np.arange(len(cases))[:, None]
        size, depth = min(self.settings.pool, n_items), min(self.settings.depth, n_items)
        votes, ranks, highs = np.zeros((n, n_items), np.float32), [], []
        for source in self.sources:
            scores = source.scores(cases)
            lowest = np.where(np.isfinite(scores), scores, np.inf).min(1, keepdims=True)
            scores = np.where(np.isfinite(scores), scores, np.where(np.isfinite(lowest), lowest, 0.0))
            if not self._again:
                for line, had in enumerate(cases.history):
                    scores[line, had] = scores[line].min()
            high = (scores - scores.mean(1, keepdims=True)) / np.maximum(scores.std(1, keepdims=True), 1e-9)
            first = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
            order = np.argsort(-np.take_along_axis(scores, first, 1), axis=1, kind="stable")
            first = np.take_along_axis(first, order, 1)
            vote = np.zeros((n, n_items), np.float32)
            vote[lines, first] = (1 / (_RRF + np.arange(depth)))[None] * (np.take_along_axis(high, first, 1) > 0)
            votes += vote
            ranks.append(vote)
            highs.append((np.sign(high) * np.sqrt(np.abs(high))).astype(np.float32))
        if not self._again:
            for line, had in enumerate(cases.history):
                votes[line, had] = -1.0
        items = np.sort(np.argpartition(-votes, size - 1, axis=1)[:, :size], axis=1)
        read = [np.take_along_axis(one, items, 1) for one in (*highs, *ranks)]
        lengths = np.log1p(np.array([[len(had)] for had in cases.history], np.float32))
        read += [self._counts[items], np.broadcast_to(lengths, items.shape)]
        found = items == cases.target[:, None]
        return Pools(items, np.stack(read, -1).astype(np.float32), np.where(found.any(1), found.argmax(1), -1)), votes

    def learn(self, pools: Pools, note: Note) -> None:
        """Trains the networks anew, on the cases whose target is in the pool."""
        s = self.settings
        rng = np.random.default_rng(s.seed)
        order = rng.permutation(len(pools.place))
        held, kept = np.split(order, [round(s.held * len(order))])
        kept = kept[pools.place[kept] >= 0]
        self._networks = []
        if not len(kept) or not len(held):
            return
        part = torch.from_numpy(pools.read[kept[:2000]].reshape(-1, pools.read.shape[-1]))
        mean, deviation = part.mean(0), part.std(0).clamp(min=1e-3)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # more add in another order: the last digits differ
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(s.seed)
            for number in range(s.networks):
                network = _Ranker(mean, deviation, s.hidden, s.dropout)
                shown = self._train(network, pools, kept, held, rng)
                self._networks.append(network.eval())
                note(f"fused: network {number + 1} of {s.networks}; NDCG@10 of the users held back {shown:.4f}")
        torch.set_num_threads(threads)

    def _train(self, network: _Ranker, pools: Pools, kept: Rows, held: Rows, rng: np.random.Generator) -> float:
        s, best, since = self.settings, -1.0, 0
        optimizer = torch.optim.AdamW(network.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay)
        weights = {name: value.clone() for name, value in network.state_dict().items()}
        for _ in range(s.epochs):
            network.train()
            for part in np.array_split(order := rng.permutation(kept), max(1, len(order) // s.batch)):
                said = network(torch.from_numpy(pools.read[part]))
                loss = nn.functional.cross_entropy(said, torch.from_numpy(pools.place[part]))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            shown = float(ndcg(places_in_pools(_said([network.eval()], pools.read[held]), pools.place[held]), 10).mean())
            since += 1
            if shown > best:
                best, since, weights = shown, 0, {name: value.clone() for name, value in network.state_dict().items()}
            if since >= s.patience:
                break
        network.load_state_dict(weights)
        return best

    def scores(self, cases: Cases) -> Scores:
        """float32[cases, items]: the pool by the network, all others below it by the votes of the sources."""
        pools, votes = self._pool(cases)
        if self._networks:
            said = _said(self._networks, pools.read)
            np.put_along_axis(votes, pools.items, said - said.min(1, keepdims=True) + _BELOW, 1)
        return votes


def _said(networks: Sequence[_Ranker], read: Numbers) -> Numbers:
    with torch.inference_mode():
        starts = range(0, max(len(read), 1), _CHUNK)
        pieces = [torch.from_numpy(read[start : start + _CHUNK]) for start in starts]
        parts = [torch.stack([network(piece).log_softmax(1) for network in networks]).mean(0) for piece in pieces]
        return np.asarray(torch.cat(parts).numpy(), np.float32)


def places_in_pools(said: Numbers, place: Rows) -> Places:
    """Where the targets stand in their pools; one that is not there is a miss."""
    own = np.take_along_axis(said, np.maximum(place, 0)[:, None], 1)
    better = np.where(place < 0, 2**40, (said > own).sum(1))
    return Places(better.astype(np.int64), np.where(place < 0, 0, (said == own).sum(1) - 1).astype(np.int64))


# ── Sources ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def counted(task: Task, seed: int, note: Note) -> list[System]:
    """Sources without a trained model; those that read names only where there are names, those of the encoder where it is there."""
    found: list[System] = [
        counts.Popularity(),
        counts.Transitions(),
        _named("next-step", counts.Transitions(counts.TransitionSettings(window=1, recency=0.3))),
        counts.ItemKNN(counts.ItemKNNSettings(user_power=0.5, shrink=1.0)),
        sessions.SessionKNN(),
    ]
    if len(set(task.texts)) < 2:
        note("fused: the items have no names, so no source reads them.")
        return found
    found += [sessions.WordKNN(), sessions.MakerTransitions()]
    try:
        vectors = counts.text_vectors(task.texts, open_encoder())
    except ModelMissing as error:
        note(f"fused: without vectors of names: {error}")
        return found
    return [*found, counts.TextKNN(encoder=_Known(task.texts, vectors)), sessions.SmoothTransitions(vectors)]


def _named(name: str, system: System) -> System:
    system.name = name
    return system


class _Known:
    """An encoder of texts whose vectors are there."""

    def __init__(self, texts: Sequence[str], vectors: Numbers) -> None:
        self.name, self.dim, self._of = "known", vectors.shape[1], dict(zip(texts, vectors, strict=True))

    def encode(self, texts: Sequence[str], progress: object = None) -> Numbers:
        return np.stack([self._of[text] for text in texts])


def all_sources(task: Task, seed: int, note: Note) -> list[System]:
    """The counted ones and SASRec, with text where there is an encoder and without."""
    from recgraph.train.base_attention import AttentionSettings, SASRec

    found = counted(task, seed, note)
    common = AttentionSettings(batch=256, negatives=1024, patience=2, seed=seed)
    vectors = next((one.vectors for one in found if isinstance(one, sessions.SmoothTransitions)), None)
    if vectors is not None:
        found.append(SASRec(replace(common, dim=128, learning_rate=1e-3, epochs=24), vectors))
    return [*found, SASRec(replace(common, dim=64, learning_rate=2e-3, epochs=16))]
