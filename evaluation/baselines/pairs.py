"""Baselines that look at a history and a candidate together: NCF (He et al. 2017), DIN (Zhou et al. 2018) and DIEN (Zhou et al. 2019).

They were made to tell whether one advertisement will be clicked; here they rank a catalogue, which changes four things in all of them:

    negatives   drawn evenly and shared by a batch, what the user had left out; `loss` is the papers' yes-or-no question of each (bce), or a
                softmax of the target among them (softmax), which ranks better
    products    an item's vector has length 1 and the inner product of interest and candidate, over a temperature, is added to what the
                networks say: they alone do not find products, and a catalogue is too large to learn them by heart
    speed       the first layer of each network is linear in the history's part and the candidate's, so it is worked out for each once and
                added up for the pairs; nothing is approximated
    text        with `vectors` a projection of an item's text is added to its own vector

NCF's user is his own vector plus the mean of his history's items; the first is left out at times in training, so that a user whom train does not
know is his history. DIN reads the age of an item, too. DIEN's auxiliary loss is that of the last step of each prefix, as every prefix is an
example. In both a first stage, trained along, retrieves by an inner product alone (DIEN: the interests of the auxiliary loss; DIN: items weighted
by age), and the whole network reads only the best `candidates` of it; the others follow behind in their order (`candidates` 0: it reads all, for
which DIN works through the history, and DIEN takes a step for each of its items, for every item of the catalogue).

Only items that train names can be ranked (others: -inf) and read, unless text is. A history without one is answered with the counts in train.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it

from recgraph.errors import SettingsError
from recgraph.train.metrics import ndcg, places
from recgraph.train.networks.sequence import copied, readable
from recgraph.train.task import Cases, Events, Note, Rows, Scores, Task

MODELS = ("ncf", "din", "dien")
LOSSES = ("softmax", "bce")
_NEVER = -1e9
_EVERY = 30.0  # seconds between two notes
_FLOATS = 2**22  # numbers held of a layer while scoring: they stay in the processor's cache


@dataclass(frozen=True)
class PairSettings:
    """One of MODELS and how it is trained. Sizes and lengths are counts, dropouts probabilities."""

    model: str = "din"
    dim: int = 64  # of an item's vector
    hidden: int = 16  # of the attention network (DIN), the second GRU (DIEN), and half the width of the network that decides
    loss: str = "softmax"
    negatives: int = 32  # drawn for a batch
    retrieved: int = 512  # drawn for the first stage (DIN and DIEN), where each costs one product
    temperature: float = 0.1
    dropout: float = 0.3  # of the numbers of item vectors
    user_dropout: float = 0.5  # of whole user vectors (NCF)
    recency: float = 0.8  # weight of a history item against the one after it in NCF's mean
    candidates: int = 500  # of the first stage (DIN and DIEN)
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    tokens: int = 4096  # history items of a batch
    epochs: int = 30  # at most
    patience: int = 3  # epochs without a better validation NDCG@10 before it ends
    max_length: int = 50  # items of a history that are read, the newest
    validate: int = 1000  # cases at most, drawn with the seed
    threads: int = 1  # another number adds in another order: the last digits differ
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dim", "hidden", "negatives", "retrieved", "tokens", "epochs", "patience", "max_length", "validate", "threads"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("dropout", "user_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1.")
        if self.temperature <= 0 or self.learning_rate <= 0:
            raise SettingsError(f"temperature is {self.temperature} and learning_rate {self.learning_rate}; both must be above 0.")
        if not 0 < self.recency <= 1:
            raise SettingsError(f"recency is {self.recency}; it must be above 0 and at most 1.")
        if self.candidates < 0:
            raise SettingsError(f"candidates is {self.candidates}; it must be at least 0.")
        for name, known in (("model", MODELS), ("loss", LOSSES)):
            if getattr(self, name) not in known:
                raise SettingsError(f"{name} is '{getattr(self, name)}'; it must be one of {', '.join(known)}.")


# Drawn items cost NCF next to nothing, DIN and DIEN a pass over the history each. These are choices, not the result of a search.
DEFAULTS = {"ncf": PairSettings("ncf", negatives=256), "din": PairSettings("din"), "dien": PairSettings("dien")}


@dataclass(frozen=True)
class Read:
    """b histories: `rows` int64[b, l], oldest first, padded at the end; `lengths` int64[b], at least 1; `user` int64[b]."""

    rows: Tensor
    lengths: Tensor
    user: Tensor

    @property
    def inside(self) -> Tensor:
        """bool[b, l]: what is no padding."""
        return torch.arange(self.rows.shape[1]) < self.lengths[:, None]

    @property
    def age(self) -> Tensor:
        """int64[b, l]: 0 for the newest; 0 for padding too."""
        return (self.lengths[:, None] - 1 - torch.arange(self.rows.shape[1])).clamp(min=0)


class PairModel(nn.Module):
    """Item vectors, and the logits of candidates. Row n, after the last item, is padding; row `users` a user who is not known."""

    text: Tensor | None
    stages = 1

    def __init__(self, n_items: int, users: int, settings: PairSettings, vectors: NDArray[np.float32] | None) -> None:
        super().__init__()
        self.padding, self.users, self.settings = n_items, users, settings
        self.items = nn.Embedding(n_items + 1, settings.dim)
        self.scale = nn.Parameter(torch.tensor(-math.log(settings.temperature)))
        text = None
        if vectors is not None:
            found = torch.from_numpy(np.asarray(vectors, np.float32))
            text = torch.cat([found, found.new_zeros(1, found.shape[1])])
            self.project = nn.Linear(found.shape[1], settings.dim, bias=False)
        self.register_buffer("text", text, persistent=False)

    def start(self, warm: Rows) -> None:
        """Draws the item vectors; those of items outside `warm` are zero, so that they are their text alone."""
        unknown = torch.ones(self.padding + 1, 1).index_fill_(0, torch.from_numpy(warm), 0.0) > 0
        with torch.no_grad():
            self.items.weight.normal_(std=self.settings.dim**-0.5).masked_fill_(unknown, 0.0)
            if self.text is not None:
                self.project.weight.normal_(std=self.settings.dim**-0.5)

    def vectors(self, rows: Tensor) -> Tensor:
        """float32[..., d], unit vectors."""
        found: Tensor = self.items(rows)
        if self.text is not None:
            found = found + self.project(self.text[rows])
        return F.normalize(F.dropout(found, self.settings.dropout, self.training), dim=-1)

    def encode(self, read: Read) -> tuple[Tensor, ...]:
        """What is worked out of histories once, whatever the candidates: tensors of b rows."""
        raise NotImplementedError

    def logits(self, read: Read, known: tuple[Tensor, ...], rows: Tensor, c: Tensor) -> Tensor:
        """float32[b, n] of candidates: `rows` int64[n] with their vectors c float32[n, d], or its own for each history, [b, n] and [b, n, d]."""
        raise NotImplementedError

    def first(self, known: tuple[Tensor, ...], c: Tensor) -> Tensor:
        """float32[b, n]: the scores of the first stage, of a model that has two `stages`."""
        raise NotImplementedError


class _Decide(nn.Module):
    """A network of one layer over [interest, candidate, their product]; the two parts come in already multiplied by its weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.product = nn.Parameter(torch.zeros(width))
        self.out = nn.Linear(width, 1)

    def forward(self, interest: Tensor, candidate: Tensor, product: Tensor) -> Tensor:
        """[b, n, w] (or what broadcasts to it) twice and [b, n] → [b, n]."""
        x = interest + candidate + product[..., None] * self.product
        found: Tensor = self.out(F.leaky_relu(x, 0.25))[..., 0]
        return found


class NCF(PairModel):
    """GMF, a weighted product of user and item, plus a network over both; each with item vectors of its own, as in NeuMF."""

    def __init__(self, n_items: int, users: int, settings: PairSettings, vectors: NDArray[np.float32] | None) -> None:
        super().__init__(n_items, users, settings, vectors)
        dim, width = settings.dim, 2 * settings.hidden
        self.people = nn.Embedding(users + 1, dim, padding_idx=users)
        nn.init.normal_(self.people.weight, std=0.1 * dim**-0.5)
        self.weight = nn.Parameter(torch.ones(dim))
        self.other = nn.Embedding(n_items + 1, width)
        nn.init.normal_(self.other.weight, std=0.02)
        self.of_user, self.of_item, self.second = nn.Linear(dim, width), nn.Linear(dim, width, bias=False), nn.Linear(width, settings.hidden)
        self.out = nn.Linear(settings.hidden, 1)

    def encode(self, read: Read) -> tuple[Tensor, ...]:
        weight = self.settings.recency**read.age * read.inside
        mean = (weight / weight.sum(1, keepdim=True))[:, None] @ self.vectors(read.rows)
        dropped = torch.rand(len(read.user)) < (self.settings.user_dropout if self.training else 0.0)
        person = mean[:, 0] + self.people(read.user.masked_fill(dropped, self.users))
        return F.normalize(person * self.weight, dim=-1), self.of_user(person)

    def logits(self, read: Read, known: tuple[Tensor, ...], rows: Tensor, c: Tensor) -> Tensor:
        product = (known[0][:, None] @ c.transpose(-1, -2))[:, 0]
        x = F.relu(known[1][:, None] + self.other(rows) + self.of_item(c))
        found: Tensor = product * self.scale.exp() + self.out(F.relu(self.second(x)))[..., 0]
        return found


class DIN(PairModel):
    """Interest is the sum of the history's items, each weighted by a network over it, the candidate and their product; weights need not add to 1.
    In the first stage an item is weighted by its age alone."""

    stages = 2

    def __init__(self, n_items: int, users: int, settings: PairSettings, vectors: NDArray[np.float32] | None) -> None:
        super().__init__(n_items, users, settings, vectors)
        dim, hidden, width = settings.dim, settings.hidden, 2 * settings.hidden
        self.of_item, self.of_candidate = nn.Linear(dim, hidden), nn.Linear(dim, hidden, bias=False)
        self.of_product = nn.Parameter(torch.randn(hidden, dim) * 0.3)
        self.of_age = nn.Parameter(torch.zeros(settings.max_length, hidden))
        self.bend, self.out = nn.Parameter(torch.full((hidden,), 0.25)), nn.Parameter(torch.randn(1, hidden) * 0.02)
        self.ages = nn.Parameter(0.4 * 0.6 ** torch.arange(settings.max_length))  # about 1 in all
        self.interest, self.candidate, self.decide = nn.Linear(dim, width), nn.Linear(dim, width, bias=False), _Decide(width)

    def encode(self, read: Read) -> tuple[Tensor, ...]:
        h = self.vectors(read.rows)
        # The product's part of the first layer is a weight matrix for each item of the history: [b, l × hidden, d].
        products = (h[:, :, None] * self.of_product).flatten(1, 2)
        plain = (self.ages[read.age] * read.inside)[:, None] @ h
        return h, self.of_item(h) + self.of_age[read.age], products, self.interest(h), plain

    def first(self, known: tuple[Tensor, ...], c: Tensor) -> Tensor:
        return (known[4] @ c.transpose(-1, -2))[:, 0] * self.scale.exp()

    def logits(self, read: Read, known: tuple[Tensor, ...], rows: Tensor, c: Tensor) -> Tensor:
        h, own, product, interest, _ = known
        turned = c.transpose(-1, -2)
        x = (product @ turned).reshape(*own.shape, -1) + own[..., None] + self.of_candidate(c).transpose(-1, -2).unsqueeze(-3)
        weight = (self.out @ F.prelu(x.flatten(0, 1), self.bend)).reshape(*h.shape[:2], -1)
        weight = (weight + self.ages[read.age][..., None]) * read.inside[..., None]
        inner = (weight * (h @ turned)).sum(1)
        found: Tensor = inner * self.scale.exp() + self.decide(weight.transpose(1, 2) @ interest, self.candidate(c), inner)
        return found


class DIEN(PairModel):
    """A GRU makes interests of the history; a second one reads them, its update gates scaled by how near each interest is to the candidate."""

    stages = 2

    def __init__(self, n_items: int, users: int, settings: PairSettings, vectors: NDArray[np.float32] | None) -> None:
        super().__init__(n_items, users, settings, vectors)
        dim, hidden, width = settings.dim, settings.hidden, 2 * settings.hidden
        self.extract = nn.GRU(dim, dim, batch_first=True)
        self.near = nn.Linear(dim, dim, bias=False)
        self.read, self.keep = nn.Linear(dim, 3 * hidden), nn.Linear(hidden, 3 * hidden, bias=False)
        self.back = nn.Linear(hidden, dim)
        self.interest, self.candidate, self.decide = nn.Linear(hidden, width), nn.Linear(dim, width, bias=False), _Decide(width)

    def encode(self, read: Read) -> tuple[Tensor, ...]:
        x = self.vectors(read.rows)
        states = self.extract(x)[0] + x  # what is near the last item is a good answer from the start
        last = F.normalize(states[torch.arange(len(states)), read.lengths - 1], dim=-1)
        return last, self.near(states), self.read(states)

    def first(self, known: tuple[Tensor, ...], c: Tensor) -> Tensor:
        return (known[0][:, None] @ c.transpose(-1, -2))[:, 0] * self.scale.exp()

    def logits(self, read: Read, known: tuple[Tensor, ...], rows: Tensor, c: Tensor) -> Tensor:
        near = (known[1] @ c.transpose(-1, -2)).masked_fill(~read.inside[..., None], _NEVER).softmax(1)
        state = near.new_zeros(*near.shape[::2], self.settings.hidden)
        for step in range(near.shape[1]):
            update, reset, new = known[2][:, step, None].chunk(3, dim=-1)
            kept = self.keep(state).chunk(3, dim=-1)
            gate = near[:, step, :, None] * torch.sigmoid(update + kept[0])
            state = state + gate * (torch.tanh(new + torch.sigmoid(reset + kept[1]) * kept[2]) - state)
        inner = (self.back(state) * c).sum(-1)
        found: Tensor = self.first(known, c) + inner + self.decide(self.interest(state), self.candidate(c), inner)
        return found


_BUILD: dict[str, type[PairModel]] = {"ncf": NCF, "din": DIN, "dien": DIEN}


class PairSystem:
    """One of the three as a baseline. `vectors` are float32[items, any] of the items' texts, in the catalogue's order.

    `epochs` tells after `fit` what each epoch showed: (mean loss, validation NDCG@10), and `best` which one is kept.
    """

    def __init__(self, settings: PairSettings | None = None, vectors: NDArray[np.float32] | None = None) -> None:
        self.settings, self._vectors = settings or PairSettings(), vectors
        self.name = self.settings.model + ("" if vectors is None else "-text")
        self.epochs: list[tuple[float, float]] = []
        self.best = -1

    def fit(self, task: Task, note: Note) -> None:
        """Trains until validation gets no better. SettingsError where train has no item, or the text vectors are not the catalogue's."""
        s = self.settings
        if not len(task.train):
            raise SettingsError(f"{task.name} has no event to train {self.name} on; give it a later cut or a larger share of the users.")
        if self._vectors is not None and len(self._vectors) != task.n_items:
            raise SettingsError(f"{self.name} got {len(self._vectors)} text vectors for {task.n_items} items; give one for each.")
        self._counts = np.bincount(task.train.item, minlength=task.n_items).astype(np.float32)
        self._warm, self._users = np.flatnonzero(self._counts), np.unique(task.train.user)
        threads = torch.get_num_threads()
        torch.set_num_threads(s.threads)
        torch.set_flush_denormal(True)  # Adam's moments of items that are seldom seen get so small that a step would take five times as long
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(s.seed)
                self.model = _BUILD[s.model](task.n_items, len(self._users), s, self._vectors)
                self.model.start(self._warm)
                self._train(task.train, task.valid.some(s.validate, s.seed), note)
        finally:
            torch.set_num_threads(threads)
            torch.set_flush_denormal(False)

    def _train(self, events: Events, valid: Cases, note: Note) -> None:
        s, model, rng = self.settings, self.model, np.random.default_rng(self.settings.seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay, fused=True)
        kept, self.epochs, self.best = copied(model), [], -1
        told = time.perf_counter()
        for epoch in range(s.epochs):
            model.train()
            losses = [self._step(optimizer, read, target) for read, target in self._examples(events, rng)]
            if not losses:  # no user has two items
                break
            shown = self.validate(valid) if len(valid) else float(epoch)  # nothing to choose by: the last one is the best
            self.epochs.append((float(np.mean(losses)), shown))
            if self.best < 0 or shown > self.epochs[self.best][1]:
                self.best, kept = epoch, copied(model)
            if time.perf_counter() - told >= _EVERY:
                told = time.perf_counter()
                note(f"{self.name}: epoch {epoch + 1} of at most {s.epochs}; validation NDCG@10 {shown:.4f}, best {self.epochs[self.best][1]:.4f}")
            if epoch - self.best >= s.patience:
                break
        model.load_state_dict(kept)
        model.eval()

    def _examples(self, events: Events, rng: np.random.Generator) -> Iterator[tuple[Read, Tensor]]:
        """Histories of like length with their target int64[b], each train item after a user's first once, in random order."""
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
            yield Read(torch.from_numpy(rows), torch.from_numpy(lengths[part]), torch.from_numpy(user[end[part]])), torch.from_numpy(item[end[part]])

    def _step(self, optimizer: torch.optim.Optimizer, read: Read, target: Tensor) -> float:
        model = self.model
        past = torch.cat([read.rows, target[:, None]], 1)
        wanted, known = model.vectors(target)[:, None], model.encode(read)
        drawn, had = self._drawn(past, self.settings.negatives)
        loss = self._loss(model.logits(read, known, target[:, None], wanted)[:, 0], model.logits(read, known, drawn, model.vectors(drawn)), had)
        if model.stages == 2:
            drawn, had = self._drawn(past, self.settings.retrieved)
            loss = loss + self._loss(model.first(known, wanted)[:, 0], model.first(known, model.vectors(drawn)), had)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    def _drawn(self, past: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Different item rows int64[n], at most `count`, and bool[b, n]: which of them are in the rows past int64[b, l]."""
        drawn = torch.from_numpy(self._warm)[torch.randperm(len(self._warm))[:count]]
        column = torch.full((self.model.padding + 1,), len(drawn)).index_put_((drawn,), torch.arange(len(drawn)))
        had = torch.zeros(len(past), len(drawn) + 1, dtype=torch.bool).scatter_(1, column[past], True)
        return drawn, had[:, :-1]

    def _loss(self, right: Tensor, wrong: Tensor, had: Tensor) -> Tensor:
        """The mean loss of the targets' logits float32[b] and those of the drawn items float32[b, n]; what bool[b, n] was had does not count."""
        if self.settings.loss == "bce":
            return (F.softplus(-right) + (F.softplus(wrong) * ~had).sum(1) / (~had).sum(1).clamp(min=1)).mean()
        return (torch.cat([right[:, None], wrong.masked_fill(had, _NEVER)], 1).logsumexp(1) - right).mean()

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
        model, reads = self.model, self._vectors is not None
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
            rows = torch.from_numpy(rankable)
            c = model.vectors(rows)
            read_of, start = min(self.settings.candidates or len(rows), len(rows)), 0
            while start < len(order):
                width = int(lengths[order[start]]) * 2  # the batch is sorted, so its longest may be somewhat longer
                each = (len(rankable) if model.stages == 1 else read_of) * self.settings.hidden * (width if self.settings.model == "din" else 2)
                part = order[start : start + (32 if self.settings.model == "dien" else max(1, _FLOATS // each))]
                start += len(part)
                padded = np.full((len(part), lengths[part].max()), model.padding, np.int64)
                for line, one in enumerate(part):
                    padded[line, : lengths[one]] = histories[one]
                read = Read(torch.from_numpy(padded), torch.from_numpy(lengths[part]), torch.from_numpy(user[part]))
                found[part[:, None], rankable] = self._scored(read, rows, c).numpy()
        return found

    def _scored(self, read: Read, rows: Tensor, c: Tensor) -> Tensor:
        model, wanted = self.model, self.settings.candidates
        known = model.encode(read)
        if model.stages == 1 or not 0 < wanted < len(rows):
            return model.logits(read, known, rows, c)
        first = model.first(known, c)
        best = first.topk(wanted, dim=1).indices
        second = model.logits(read, known, rows[best], c[best])
        behind = first - first.amax(1, keepdim=True) + second.amin(1, keepdim=True) - 1.0  # all of the others, in the first stage's order
        return behind.scatter(1, best, second)
