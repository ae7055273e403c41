"""NCF, DIN and DIEN as baselines: they were made to tell whether one advertisement will be clicked; here they rank a
catalogue.

Negatives are drawn evenly and shared by a batch, what the user had left out; `loss` is the papers' yes-or-no question
of each (bce), or a softmax of the target among them (softmax), which ranks better. DIEN's auxiliary loss is that of the
last step of each prefix, as every prefix is an example. In DIN and DIEN a first stage, trained along, retrieves, and
the whole network reads only the best `candidates` of it; the others follow behind in their order (`candidates` 0: it
reads all, for which DIN works through the history, and DIEN takes a step for each of its items, for every item of the
catalogue).

Only items that train names can be ranked (others: -inf) and read, unless text is. A history without one is answered
with the counts in train. The networks are in evaluation/baselines/pair_models.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - as everybody writes it

from recgraph.errors import SettingsError
from recgraph.evaluation.baselines.pair_models import MODEL_OF, NEVER, PairSettings, Read
from recgraph.evaluation.workshop import Workshop
from recgraph.train.metrics import ndcg, places
from recgraph.train.networks.place import training
from recgraph.train.networks.sequence import copied, readable
from recgraph.train.task import Cases, Events, Note, Rows, Scores, System, Task

_EVERY = 30.0  # seconds between two notes
_FLOATS = 2**22  # numbers held of a layer while scoring: they stay in the processor's cache


class PairSystem(System):
    """One of the three. `text` may be set before `fit`: float32[items, any] vectors of the items' texts, in the
    catalogue's order.

    `epochs` tells after `fit` what each epoch showed: (mean loss, validation NDCG@10), and `best` which one is kept.
    """

    settings_class = PairSettings
    settings: PairSettings

    def __init__(self, settings: PairSettings, workshop: Workshop | None = None) -> None:
        super().__init__(settings)
        self.name = settings.model
        self.text: NDArray[np.float32] | None = None
        self.epochs: list[tuple[float, float]] = []
        self.best = -1

    def fit(self, task: Task, note: Note) -> None:
        """Trains until validation gets no better. SettingsError where train has no item, or the text vectors are not
        the catalogue's."""
        s = self.settings
        if not len(task.train):
            raise SettingsError(
                f"{task.name} has no event to train {self.name} on; give it a later cut or a larger share of the users."
            )
        if self.text is not None and len(self.text) != task.n_items:
            raise SettingsError(
                f"{self.name} got {len(self.text)} text vectors for {task.n_items} items; give one for each."
            )
        self._counts = np.bincount(task.train.item, minlength=task.n_items).astype(np.float32)
        self._warm, self._users = np.flatnonzero(self._counts), np.unique(task.train.user)
        torch.set_flush_denormal(
            True
        )  # Adam's moments of items that are seldom seen get so small that a step would take five times as long
        try:
            with training(s.seed, s.threads) as self._place:
                self.model = MODEL_OF[s.model](task.n_items, len(self._users), s, self.text)
                self.model.start(self._warm)
                self.model.to(self._place)
                self._train(task.train, task.valid.some(s.validate, s.seed), note)
        finally:
            torch.set_flush_denormal(False)

    def _train(self, events: Events, valid: Cases, note: Note) -> None:
        s, model, rng = self.settings, self.model, np.random.default_rng(self.settings.seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay, fused=True)
        kept, self.epochs, self.best = copied(model), [], -1
        noted = time.perf_counter()
        for epoch in range(s.epochs):
            model.train()
            losses = [self._step(optimizer, read, target) for read, target in self._examples(events, rng)]
            if not losses:  # no user has two items
                break
            shown = (
                self.validate(valid) if len(valid) else float(epoch)
            )  # nothing to choose by: the last one is the best
            self.epochs.append((float(torch.stack(losses).double().mean()), shown))
            if self.best < 0 or shown > self.epochs[self.best][1]:
                self.best, kept = epoch, copied(model)
            if time.perf_counter() - noted >= _EVERY:
                noted = time.perf_counter()
                note(
                    f"{self.name}: epoch {epoch + 1} of at most {s.epochs}; "
                    f"validation NDCG@10 {shown:.4f}, best {self.epochs[self.best][1]:.4f}"
                )
            if epoch - self.best >= s.patience:
                break
        model.load_state_dict(kept)
        model.eval()

    def _examples(self, events: Events, rng: np.random.Generator) -> Iterator[tuple[Read, Tensor]]:
        """Histories of like length with their target int64[b], each train item after a user's first once, in random
        order."""
        first = np.append(True, np.diff(events.user) != 0)
        kept = first | np.append(True, np.diff(events.item) != 0)
        item, user, first = events.item[kept], np.searchsorted(self._users, events.user[kept]), first[kept]
        begin = np.maximum.accumulate(np.where(first, np.arange(len(item)), 0))
        end = np.flatnonzero(~first)  # where the target stands
        begin = np.maximum(begin[end], end - self.settings.max_length)
        lengths = end - begin
        order = np.lexsort((rng.random(len(end)), lengths))
        # A short history is as much work as eight items: without that its batches would hold thousands of targets.
        number = np.cumsum(np.maximum(lengths[order], 8)) // self.settings.tokens
        groups = np.split(order, np.flatnonzero(np.diff(number)) + 1) if len(order) else []
        for place in rng.permutation(len(groups)):
            part = groups[place]
            at = begin[part, None] + np.arange(lengths[part].max())
            rows = np.where(at < end[part, None], item[np.minimum(at, len(item) - 1)], self.model.padding)
            yield (
                self._read(rows, lengths[part], user[end[part]]),
                torch.from_numpy(item[end[part]]).to(self._place),
            )

    def _read(self, rows: Rows, lengths: Rows, user: Rows) -> Read:
        return Read(*(torch.from_numpy(some).to(self._place) for some in (rows, lengths, user)))

    def _step(self, optimizer: torch.optim.Optimizer, read: Read, target: Tensor) -> Tensor:
        model = self.model
        past = torch.cat([read.rows, target[:, None]], 1)
        wanted, known = model.vectors(target)[:, None], model.encode(read)
        drawn, had = self._drawn(past, self.settings.negatives)
        loss = self._loss(
            model.logits(read, known, target[:, None], wanted)[:, 0],
            model.logits(read, known, drawn, model.vectors(drawn)),
            had,
        )
        if model.stages == 2:
            drawn, had = self._drawn(past, self.settings.retrieved)
            loss = loss + self._loss(model.first(known, wanted)[:, 0], model.first(known, model.vectors(drawn)), had)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    def _drawn(self, past: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Different item rows int64[n], at most `count`, and bool[b, n]: which of them are in the rows past int64[b,
        l]."""
        place = past.device
        drawn = torch.from_numpy(self._warm).to(place)[torch.randperm(len(self._warm), device=place)[:count]]
        column = torch.full((self.model.padding + 1,), len(drawn), device=place)
        column.index_put_((drawn,), torch.arange(len(drawn), device=place))
        had = torch.zeros(len(past), len(drawn) + 1, dtype=torch.bool, device=place).scatter_(1, column[past], True)
        return drawn, had[:, :-1]

    def _loss(self, right: Tensor, wrong: Tensor, had: Tensor) -> Tensor:
        """The mean loss of the targets' logits float32[b] and those of the drawn items float32[b, n]; what bool[b, n]
        was had does not count."""
        if self.settings.loss == "bce":
            return (F.softplus(-right) + (F.softplus(wrong) * ~had).sum(1) / (~had).sum(1).clamp(min=1)).mean()
        return (torch.cat([right[:, None], wrong.masked_fill(had, NEVER)], 1).logsumexp(1) - right).mean()

    def validate(self, cases: Cases) -> float:
        """NDCG@10 among all items but those of the history."""
        total = 0.0
        for start in range(0, len(cases), 256):
            part = cases.of(np.arange(start, min(start + 256, len(cases))))
            scores = self.scores(part)
            for line, (had, target) in enumerate(zip(part.history, part.target, strict=True)):
                scores[line, had[had != target]] = -np.inf
            total += float(ndcg(places(scores, part.target), 10).sum())
        return total / len(cases)

    def scores(self, cases: Cases) -> Scores:
        """float32[cases, items]; -inf for items that train does not name, unless the model reads text."""
        model, reads = self.model, self.text is not None
        histories = readable(cases.history, None if reads else self._warm, self.settings.max_length)
        lengths = np.array([len(one) for one in histories], np.int64)
        rankable = np.arange(model.padding) if reads else self._warm
        found = np.full((len(cases), model.padding), -np.inf, np.float32)
        found[:, rankable] = self._counts[rankable]  # what is said of an empty history
        place = np.searchsorted(self._users, cases.user).clip(max=len(self._users) - 1)
        user = np.where(self._users[place] == cases.user, place, len(self._users))
        order = np.argsort(lengths, kind="stable")
        order = order[lengths[order] > 0]
        model.eval()
        with torch.inference_mode():
            rows = torch.from_numpy(rankable).to(self._place)
            c = model.vectors(rows)
            read_of, start = min(self.settings.candidates or len(rows), len(rows)), 0
            while start < len(order):
                width = int(lengths[order[start]]) * 2  # the batch is sorted, so its longest may be somewhat longer
                each = (
                    (len(rankable) if model.stages == 1 else read_of)
                    * self.settings.hidden
                    * (width if self.settings.model == "din" else 2)
                )
                part = order[start : start + (32 if self.settings.model == "dien" else max(1, _FLOATS // each))]
                start += len(part)
                padded = np.full((len(part), lengths[part].max()), model.padding, np.int64)
                for line, one in enumerate(part):
                    padded[line, : lengths[one]] = histories[one]
                read = self._read(padded, lengths[part], user[part])
                found[part[:, None], rankable] = self._scored(read, rows, c).cpu().numpy()
        return found

    def _scored(self, read: Read, rows: Tensor, c: Tensor) -> Tensor:
        model, wanted = self.model, self.settings.candidates
        known = model.encode(read)
        if model.stages == 1 or not 0 < wanted < len(rows):
            return model.logits(read, known, rows, c)
        first = model.first(known, c)
        best = first.topk(wanted, dim=1).indices
        second = model.logits(read, known, rows[best], c[best])
        behind = (
            first - first.amax(1, keepdim=True) + second.amin(1, keepdim=True) - 1.0
        )  # all of the others, in the first stage's order
        return behind.scatter(1, best, second)


class PairTextSystem(PairSystem):
    """One of the three that reads text, too."""

    uses = ("ids", "text")

    def __init__(self, settings: PairSettings, workshop: Workshop) -> None:
        super().__init__(settings)
        self._workshop = workshop

    def fit(self, task: Task, note: Note) -> None:
        """As without text. ModelMissing where there is no encoder."""
        self.text = self._workshop.vectors(task.texts)
        super().fit(task, note)
