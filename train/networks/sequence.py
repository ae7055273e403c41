"""What all next-item baselines share: items as vectors, batches, losses, early stopping, scores. A model adds the state
after each item.

A user's train items are read at once and every item after the first is a target, each once an epoch (`windows` and
`batches` of train/networks/core.py pack them), so a model must look back only. Users' repeats of one item in a row are
one. Losses:

    sampled   cross-entropy among the target and `negatives` items, drawn evenly for a whole batch without repeats; what
              the user had does not count. Each drawn item stands for as many of the catalogue (logQ), so the sum is
              right on average; 0 or enough: all items.
    bce       Kang and McAuley 2018: the target against one item drawn evenly for each target, as two yes-or-no
              questions.

Only items that train names have a vector that was learnt: the others are neither read nor drawn, and cannot be ranked
(-inf), unless the model also reads text. A history without any known item is answered with the items' counts in train.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it

from recgraph.errors import SettingsError
from recgraph.train.metrics import ndcg, places
from recgraph.train.networks.batches import batches, windows
from recgraph.train.networks.place import training
from recgraph.train.task import Cases, Events, Note, Rows, Scores, System, Task

LOSSES = ("sampled", "bce")
_CHUNK = 256  # histories scored at once
_NEVER = -1e9  # a score that no sum of odds notices; with -inf a user who had all drawn items would have no gradient
_EVERY = 30.0  # seconds between two notes


@dataclass(frozen=True)
class SequenceSettings:
    """How a baseline is trained. Sizes and lengths are counts, `dropout` a probability."""

    dim: int = 64
    dropout: float = 0.4
    loss: str = "sampled"
    negatives: int = 1024  # of the sampled loss; 0: all items
    cosine: bool = True  # whether scores are cosines over the temperature, or else dot products
    temperature: float = 0.07
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    batch: int = 256  # targets
    epochs: int = 60  # at most
    patience: int = 5  # epochs without a better validation NDCG@10 before it ends
    max_length: int = 50  # items of a history that are read, the newest
    validate: int = 5000  # cases at most, drawn with the seed
    threads: int = 1  # another number adds in another order: the last digits differ
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dim", "batch", "epochs", "patience", "max_length", "validate", "threads"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise SettingsError(f"dropout is {self.dropout}; it must be at least 0 and below 1.")
        if self.negatives < 0:
            raise SettingsError(f"negatives is {self.negatives}; it must be at least 0.")
        if self.temperature <= 0 or self.learning_rate <= 0:
            raise SettingsError(
                f"temperature is {self.temperature} and learning_rate {self.learning_rate}; both must be above 0."
            )
        if self.loss not in LOSSES:
            raise SettingsError(f"loss is '{self.loss}'; it must be one of {', '.join(LOSSES)}.")


@dataclass(frozen=True)
class Items:
    """The catalogue as a model sees it: `count` items, the rows `warm` that train names, and float32[count, any] text
    vectors if it reads them."""

    count: int
    warm: Rows
    text: NDArray[np.float32] | None = None


class _Rows(torch.autograd.Function):
    """Rows of a table, their gradient added to the table's own in place. As an embedding, each look-up would have a
    gradient of the whole table, and getting that memory from the system takes half of the time of a step."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.table, ctx.rows = table, rows
        return table[rows]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        if ctx.table.grad is None:
            ctx.table.grad = torch.zeros_like(ctx.table)
        ctx.table.grad.index_add_(0, ctx.rows.flatten(), gradients[0].flatten(0, -2))
        return None, None


class SequenceModel(nn.Module):
    """Item vectors and the losses on them. Row `padding`, after the last item, is nothing: its vector is zero, as are
    those of unknown items."""

    warm: Tensor
    text: Tensor | None

    def __init__(self, items: Items, settings: SequenceSettings) -> None:
        super().__init__()
        self.padding, self.settings = items.count, settings
        self.items = nn.Embedding(items.count + 1, settings.dim)
        self.register_buffer("warm", torch.from_numpy(items.warm), persistent=False)
        text = None
        if items.text is not None:
            found = torch.as_tensor(items.text, dtype=torch.float32)
            text = torch.cat([found, found.new_zeros(1, found.shape[1])])
            self.project = nn.Linear(found.shape[1], settings.dim, bias=False)
        self.register_buffer("text", text, persistent=False)

    def start(self) -> None:
        """Draws all weights anew; a model calls it once its parts exist."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                # small: at first a state is its last item, which lies right already
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # The size of an item's vector sets how fast it turns, where scores are cosines.
        unknown = torch.ones(self.padding + 1, 1).index_fill_(0, self.warm, 0.0) > 0
        with torch.no_grad():
            self.items.weight.normal_(std=self.settings.dim**-0.5 if self.settings.cosine else 0.02).masked_fill_(
                unknown, 0.0
            )
            if self.text is not None:
                nn.init.normal_(self.project.weight, std=self.settings.dim**-0.5)

    def vectors(self, rows: Tensor) -> Tensor:
        """float32[..., d] of item rows int64[...]; read and scored against alike."""
        found: Tensor = _Rows.apply(self.items.weight, rows)  # type: ignore[no-untyped-call]
        if self.text is not None:
            found = found + self.project(self.text[rows])
        return found

    def sessions(self, rows: Tensor) -> Tensor:
        """int64[b, l] item rows, padded at the end → float32[b, l, d], the state after each item. Nothing later may be
        seen."""
        raise NotImplementedError

    def last(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """float32[b, d]: the state after the whole of each history, of which the first `lengths` rows count."""
        return self.sessions(rows)[torch.arange(len(rows), device=rows.device), lengths - 1]

    def loss(self, rows: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of int64[b, l] targets, the item after each of `rows`; a target below 0 does not count."""
        wanted, length = targets >= 0, rows.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=rows.device).triu(1)
        past = torch.where(later, self.padding, rows[:, None, :])[wanted]
        return self.compared(self.sessions(rows)[wanted], targets[wanted], past)

    def compared(self, states: Tensor, targets: Tensor, past: Tensor) -> Tensor:
        """The mean loss of states float32[n, d] for targets int64[n]; the rows `past` int64[n, any] do not compete."""
        return (_bce if self.settings.loss == "bce" else _sampled)(self, states, targets, past)

    def sided(self, x: Tensor) -> Tensor:
        """States or item vectors, so that their products are scores."""
        return F.normalize(x, dim=-1) * self.settings.temperature**-0.5 if self.settings.cosine else x


def _sampled(model: SequenceModel, states: Tensor, targets: Tensor, past: Tensor) -> Tensor:
    known, wanted = len(model.warm), model.settings.negatives
    place = states.device
    drawn = model.warm[torch.randperm(known, device=place)[:wanted]] if 0 < wanted < known else model.warm
    column = torch.full((model.padding + 1,), len(drawn), device=place)
    column.index_put_((drawn,), torch.arange(len(drawn), device=place))
    found = column[torch.cat([past, targets[:, None]], 1)]
    line, which = (found < len(drawn)).nonzero(as_tuple=True)
    states = model.sided(states)
    scores = states @ model.sided(model.vectors(drawn)).T
    scores = scores.index_put_((line, found[line, which]), scores.new_tensor(_NEVER))
    own = (states * model.sided(model.vectors(targets))).sum(1)
    return (torch.logaddexp(own, scores.logsumexp(1) + math.log(known / len(drawn))) - own).mean()


def _bce(model: SequenceModel, states: Tensor, targets: Tensor, past: Tensor) -> Tensor:
    drawn = model.warm[torch.randint(len(model.warm), targets.shape, device=targets.device)]
    # 0 where it was no wrong answer
    wrong = ((past == drawn[:, None]).any(1) | (drawn == targets)).logical_not().float()
    states = model.sided(states)
    own, other = ((states * model.sided(model.vectors(rows))).sum(1) for rows in (targets, drawn))
    return (F.softplus(-own) + F.softplus(other) * wrong).mean()


class SequenceSystem(System):
    """A baseline of the evaluation. `build` makes its untrained model; `text` are float32[items, any] vectors in the
    catalogue's order.

    `epochs` tells after `fit` what each epoch showed: (mean loss, validation NDCG@10), and `best` which one is kept.
    """

    settings: SequenceSettings

    def __init__(
        self,
        name: str,
        settings: SequenceSettings,
        build: Callable[[Items], SequenceModel],
        text: NDArray[np.float32] | None = None,
    ) -> None:
        self.name, self.settings, self.text, self._build = name, settings, text, build
        self.epochs: list[tuple[float, float]] = []
        self.best = -1

    def fit(self, task: Task, note: Note) -> None:
        """Trains until validation gets no better. SettingsError where train has no item, or the text vectors are not
        the catalogue's."""
        if not len(task.train):
            raise SettingsError(
                f"{task.name} has no event to train {self.name} on; give it a later cut or a larger share of the users."
            )
        if self.text is not None and len(self.text) != task.n_items:
            raise SettingsError(
                f"{self.name} got {len(self.text)} text vectors for {task.n_items} items; give one for each."
            )
        self._counts = np.bincount(task.train.item, minlength=task.n_items).astype(np.float32)
        self._known = np.flatnonzero(self._counts)
        items, starts = sequences(task.train)
        with training(self.settings.seed, self.settings.threads) as self._place:
            self.model = self._build(Items(task.n_items, self._known, self.text)).to(self._place)
            self._train(
                items,
                windows(starts, self.settings.max_length),
                task.valid.some(self.settings.validate, self.settings.seed),
                note,
            )

    def _train(self, items: Rows, spans: Rows, valid: Cases, note: Note) -> None:
        s, model, rng = self.settings, self.model, np.random.default_rng(self.settings.seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay, fused=True)
        kept, self.epochs, self.best = copied(model), [], -1
        began = told = time.perf_counter()
        for epoch in range(s.epochs if len(spans) else 0):
            model.train()
            losses = [
                _step(model, optimizer, rows.to(self._place), targets.to(self._place))
                for rows, targets in batches(items, spans, s.batch, model.padding, rng)
            ]
            # nothing to choose by: the last one is the best
            shown = self.validate(valid) if len(valid) else float(epoch)
            self.epochs.append((float(torch.stack(losses).double().mean()), shown))
            if self.best < 0 or shown > self.epochs[self.best][1]:
                self.best, kept = epoch, copied(model)
            now = time.perf_counter()
            each = (now - began) / (epoch + 1)
            if now - told >= _EVERY:
                told = now
                best, left = (
                    self.epochs[self.best][1],
                    [each * count / 60 for count in (s.patience, s.epochs - epoch - 1)],
                )
                remaining = f"{min(left):.1f} to {left[1]:.1f} min left"
                told_now = f"{each:.1f} s each; validation NDCG@10 {shown:.4f}, best {best:.4f}; {remaining}"
                note(f"{self.name}: epoch {epoch + 1}, {told_now}")
            if epoch - self.best >= s.patience:
                break
        model.load_state_dict(kept)
        model.eval()

    def validate(self, cases: Cases) -> float:
        """NDCG@10 among all items but those of the history."""
        total = 0.0
        for start in range(0, len(cases), _CHUNK):
            part = cases.of(np.arange(start, min(start + _CHUNK, len(cases))))
            scores = self.scores(part)
            for line, (had, target) in enumerate(zip(part.history, part.target, strict=True)):
                scores[line, had[had != target]] = -np.inf
            total += float(ndcg(places(scores, part.target), 10).sum())
        return total / len(cases)

    def scores(self, cases: Cases) -> Scores:
        """float32[cases, items]; -inf for items that train does not name, unless the model reads text."""
        histories = readable(cases.history, None if self.text is not None else self._known, self.settings.max_length)
        lengths = np.array([len(one) for one in histories], np.int64)
        rankable = slice(None) if self.text is not None else self._known
        found = np.full((len(cases), self.model.padding), -np.inf, np.float32)
        found[:, rankable] = self._counts[rankable]  # what is said of an empty history
        self.model.eval()
        with torch.inference_mode():
            every = torch.arange(self.model.padding)[rankable].to(self._place)
            table = self.model.sided(self.model.vectors(every))
            order = np.argsort(lengths, kind="stable")
            order = order[lengths[order] > 0]
            for part in (order[start : start + _CHUNK] for start in range(0, len(order), _CHUNK)):
                rows = np.full((len(part), lengths[part].max()), self.model.padding, np.int64)
                for line, one in enumerate(part):
                    rows[line, : lengths[one]] = histories[one]
                read, ends = (torch.from_numpy(some).to(self._place) for some in (rows, lengths[part]))
                states = self.model.sided(self.model.last(read, ends))
                found[np.ix_(part, np.arange(self.model.padding)[rankable])] = (states @ table.T).cpu().numpy()
        return found


def _step(model: SequenceModel, optimizer: torch.optim.Optimizer, rows: Tensor, targets: Tensor) -> Tensor:
    loss = model.loss(rows, targets)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)  # see _Rows
    return loss.detach()  # read only after the epoch: a GPU would wait for the CPU in each step


def copied(model: nn.Module) -> dict[str, Tensor]:
    """Its weights, as they are now."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def sequences(events: Events) -> tuple[Rows, Rows]:
    """The events' items without repeats in a row, and where each user's begin and end: items[starts[i] : starts[i +
    1]]."""
    first = np.ones(len(events), bool)
    first[1:] = np.diff(events.user) != 0
    kept = first.copy()
    kept[1:] |= np.diff(events.item) != 0
    items = events.item[kept]
    return items, np.append(np.flatnonzero(first[kept]), len(items)).astype(np.int64)


def readable(histories: Sequence[Rows], known: Rows | None, length: int) -> list[Rows]:
    """What a model reads of histories: known items only (None: all), without repeats in a row, the newest `length`."""
    found: list[Rows] = []
    for one in histories:
        rows = one if known is None else one[np.isin(one, known)]
        found.append(rows[np.append(True, np.diff(rows) != 0)][-length:] if len(rows) else rows)
    return found
