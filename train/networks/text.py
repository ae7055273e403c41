"""A text transformer after Recformer (Li et al. 2023): an item is nothing but its text, so one that nobody has had yet
is ranked like any other.

    textformer         reads the texts of the history
    textformer-query   learns from the searches among them too, each where it was made, and reads the one that is asked

The text of an item or a query is what a sentence encoder makes of it, bent by a small network that is learnt; Recformer
reads tokens, which a CPU cannot. States are compared with item texts by the sampled contrastive loss of
base_sequence.py, whose trainer, early stopping and scores these are.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recgraph.store.cases import searches
from recgraph.store.db import Store
from recgraph.tools.embed import Encoder, open_encoder, text_vectors
from recgraph.tools.sources.textformer import TextFormer as Served
from recgraph.train.evidence import Seen
from recgraph.train.networks.attention import AttentionSettings, SASRecModel
from recgraph.train.networks.batches import windows
from recgraph.train.networks.sequence import Items, SequenceSystem, sequences
from recgraph.train.task import CLICK, Cases, Events, Note, Rows, Scores, Task


@dataclass(frozen=True)
class TextSettings(AttentionSettings):
    """As SASRec's."""

    dim: int = 128
    learning_rate: float = 1e-3


class TextModel(SASRecModel):
    """Rows up to `padding` are items, those after it are queries, of which there may be more at any time (`read`)."""

    text: Tensor

    def __init__(self, items: Items, settings: AttentionSettings) -> None:
        assert items.text is not None
        super().__init__(items, settings)
        self.items.weight.requires_grad_(False)  # an item has no vector of its own
        self.bend = nn.Sequential(
            nn.Linear(items.text.shape[1], settings.dim), nn.GELU(), nn.Linear(settings.dim, settings.dim)
        )
        self.asked = nn.Parameter(torch.zeros(settings.dim))

    def read(self, texts: Tensor) -> None:
        """Takes float32[n, any] query vectors in, as the next rows."""
        self.text = torch.cat([self.text, texts])

    def vectors(self, rows: Tensor) -> Tensor:
        """float32[..., d] of items and queries, by their text alone."""
        text = self.text[rows]
        found: Tensor = self.project(text) + self.bend(text)
        return found + (rows > self.padding)[..., None] * self.asked

    def loss(self, rows: Tensor, targets: Tensor) -> Tensor:
        """As all sequence models; a query is no target, and competes with none."""
        return super().loss(rows, targets.masked_fill(targets >= self.padding, -1))

    def compared(self, states: Tensor, targets: Tensor, past: Tensor) -> Tensor:
        """Nothing is learnt from a batch that ends in queries alone."""
        if not len(targets):
            return states.sum() * 0.0
        return super().compared(states, targets, past.clamp(max=self.padding))


class TextFormerSystem(SequenceSystem):
    """`textformer`, or with `queries` `textformer-query`. Queries of train are those of the `store`, a file or open;
    vectors are kept in the folder `cache`. The items' `text` vectors are made with the `encoder` where they are not
    given."""

    def __init__(
        self,
        settings: TextSettings,
        store: Path | Store | None = None,
        cache: Path | None = None,
        *,
        queries: bool = False,
        encoder: Encoder | None = None,
        text: NDArray[np.float32] | None = None,
    ) -> None:
        super().__init__(
            "textformer-query" if queries else "textformer", settings, lambda items: TextModel(items, settings), text
        )
        self._store, self._cache, self._queries, self._encoder = store, cache, queries, encoder
        self.model: TextModel

    def fit(self, task: Task, note: Note) -> None:
        """Trains on train events and, with queries, on the searches between them. ModelMissing without an encoder."""
        self._encoder = self._encoder or open_encoder()
        if self.text is None:
            self.text = text_vectors(task.texts, self._encoder, self._cache / "text-vectors" if self._cache else None)
        self._row_of: dict[str, int] = {}
        self._items, self._events, self._asked = task.n_items, task.train, list[str]()
        if self._queries:
            self._events, self._asked = self._with_queries(task)
            note(f"{self.name}: {len(self._events) - len(task.train):,} searches among {len(task.train):,} events")
        super().fit(task, note)

    def _with_queries(self, task: Task) -> tuple[Events, list[str]]:
        """The train events with the searches between them as events of a query's row; and the queries of these rows in
        their order. What a user searched for after their last train event is left out, so that nothing past the cut is
        read."""
        train = task.train
        if self._store is None:
            return train, []
        with Store.open(self._store) if isinstance(self._store, Path) else nullcontext(self._store) as opened:
            user_ids, ts, queries = searches(opened)
        number, ends = {user_id: row for row, user_id in enumerate(task.user_ids)}, train.starts()[1:] - 1
        last = np.full(len(task.user_ids), -np.inf)
        last[train.user[ends]] = train.time[ends]
        user, time = (
            np.array([number.get(one, -1) for one in user_ids], np.int64),
            (ts - np.datetime64(0, "us")) / np.timedelta64(1, "s"),
        )
        told = np.flatnonzero((user >= 0) & (time <= np.append(last, -np.inf)[user]))
        newest = told[np.flatnonzero(np.diff(user[told], append=-1))]  # of each user, as searches are in order
        who, what = [user_ids[one] for one in newest], [queries[one] for one in newest]
        self.seen = (Seen(f"What {self.name} learnt of searches", "", who, ts[newest], what),) if len(told) else ()
        distinct = list(dict.fromkeys(queries[one] for one in told))
        row_of = {query: task.n_items + 1 + place for place, query in enumerate(distinct)}
        user, time = np.concatenate([train.user, user[told]]), np.concatenate([train.time, time[told]])
        item = np.concatenate([train.item, np.array([row_of[queries[one]] for one in told], np.int64)])
        action = np.concatenate([train.action, np.full(len(told), CLICK, np.int8)])
        # a query goes before what happened in the same second
        order = np.lexsort((np.arange(len(item)), item < task.n_items, time, user))
        return Events(user[order], item[order], time[order], action[order]), distinct

    def _train(self, items: Rows, spans: Rows, valid: Cases, note: Note) -> None:
        self._read(self._asked)
        if self._asked:
            items, starts = sequences(self._events)
            spans = windows(starts, self.settings.max_length)
        super()._train(items, spans, valid, note)

    def _read(self, queries: Sequence[str]) -> None:
        """Gives the model the queries that it does not know yet."""
        new = [query for query in dict.fromkeys(queries) if query and query not in self._row_of]
        if new:
            assert self._encoder is not None
            self._row_of |= {query: self._items + 1 + len(self._row_of) + number for number, query in enumerate(new)}
            self.model.read(torch.from_numpy(self._encoder.encode(new)).to(self.model.text.device))

    def scores(self, cases: Cases) -> Scores:
        """float32[cases, items]; the query of a case is read after its history."""
        if self._queries:
            self._read(cases.query)
            asked = [[self._row_of[query]] if query else [] for query in cases.query]
            history = tuple(np.append(had, row).astype(np.int64) for had, row in zip(cases.history, asked, strict=True))
            cases = replace(cases, history=history)
        return super().scores(cases)

    def served(self, **facts: Any) -> Served:
        """What was trained as it serves; its config has the settings and `facts`."""
        weights = {
            name: value.cpu().numpy().copy()
            for name, value in self.model.state_dict().items()
            if name != "items.weight"
        }
        return Served(weights, {**asdict(self.settings), "queries": len(self._asked), **facts})
