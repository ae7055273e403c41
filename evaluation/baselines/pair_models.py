"""The networks of NCF (He et al. 2017), DIN (Zhou et al. 2018) and DIEN (Zhou et al. 2019), which look at a history and
a candidate together.

    products    an item's vector has length 1 and the inner product of interest and candidate, over a temperature, is
                added to what the networks say: they alone do not find products, and a catalogue is too large to learn
                them by heart
    speed       the first layer of each network is linear in the history's part and the candidate's, so it is worked out
                for each once and added up for the pairs; nothing is approximated
    text        with `vectors` a projection of an item's text is added to its own vector

NCF's user is his own vector plus the mean of his history's items; the first is left out at times in training, so that a
user whom train does not know is his history. DIN reads the age of an item, too. DIN and DIEN have a first stage that
retrieves by an inner product alone (DIEN: the interests of the auxiliary loss; DIN: items weighted by age). How they
are trained and asked is in evaluation/baselines/pairs.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it

from recgraph.errors import SettingsError
from recgraph.train.task import Rows

MODELS = ("ncf", "din", "dien")
LOSSES = ("softmax", "bce")
NEVER = -1e9


@dataclass(frozen=True)
class PairSettings:
    """One of MODELS and how it is trained. Sizes and lengths are counts, dropouts probabilities."""

    model: str = "din"
    dim: int = 64  # of an item's vector
    hidden: int = (
        16  # of the attention network (DIN), the second GRU (DIEN), and half the width of the network that decides
    )
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
        for name in (
            "dim",
            "hidden",
            "negatives",
            "retrieved",
            "tokens",
            "epochs",
            "patience",
            "max_length",
            "validate",
            "threads",
        ):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("dropout", "user_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1.")
        if self.temperature <= 0 or self.learning_rate <= 0:
            raise SettingsError(
                f"temperature is {self.temperature} and learning_rate {self.learning_rate}; both must be above 0."
            )
        if not 0 < self.recency <= 1:
            raise SettingsError(f"recency is {self.recency}; it must be above 0 and at most 1.")
        if self.candidates < 0:
            raise SettingsError(f"candidates is {self.candidates}; it must be at least 0.")
        for name, known in (("model", MODELS), ("loss", LOSSES)):
            if getattr(self, name) not in known:
                raise SettingsError(f"{name} is '{getattr(self, name)}'; it must be one of {', '.join(known)}.")


@dataclass(frozen=True)
class Read:
    """b histories: `rows` int64[b, l], oldest first, padded at the end; `lengths` int64[b], at least 1; `user`
    int64[b]."""

    rows: Tensor
    lengths: Tensor
    user: Tensor

    @property
    def inside(self) -> Tensor:
        """bool[b, l]: what is no padding."""
        return torch.arange(self.rows.shape[1], device=self.rows.device) < self.lengths[:, None]

    @property
    def age(self) -> Tensor:
        """int64[b, l]: 0 for the newest; 0 for padding too."""
        return (self.lengths[:, None] - 1 - torch.arange(self.rows.shape[1], device=self.rows.device)).clamp(min=0)


class PairModel(nn.Module):
    """Item vectors, and the logits of candidates. Row n, after the last item, is padding; row `users` a user who is not
    known."""

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
        """float32[b, n] of candidates: `rows` int64[n] with their vectors c float32[n, d], or its own for each history,
        [b, n] and [b, n, d]."""
        raise NotImplementedError

    def first(self, known: tuple[Tensor, ...], c: Tensor) -> Tensor:
        """float32[b, n]: the scores of the first stage, of a model that has two `stages`."""
        raise NotImplementedError


class _Decide(nn.Module):
    """A network of one layer over [interest, candidate, their product]; the two parts come in already multiplied by its
    weights."""

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
    """GMF, a weighted product of user and item, plus a network over both; each with item vectors of its own, as in
    NeuMF."""

    def __init__(self, n_items: int, users: int, settings: PairSettings, vectors: NDArray[np.float32] | None) -> None:
        super().__init__(n_items, users, settings, vectors)
        dim, width = settings.dim, 2 * settings.hidden
        self.people = nn.Embedding(users + 1, dim, padding_idx=users)
        nn.init.normal_(self.people.weight, std=0.1 * dim**-0.5)
        self.weight = nn.Parameter(torch.ones(dim))
        self.other = nn.Embedding(n_items + 1, width)
        nn.init.normal_(self.other.weight, std=0.02)
        self.of_user, self.of_item, self.second = (
            nn.Linear(dim, width),
            nn.Linear(dim, width, bias=False),
            nn.Linear(width, settings.hidden),
        )
        self.out = nn.Linear(settings.hidden, 1)

    def encode(self, read: Read) -> tuple[Tensor, ...]:
        weight = self.settings.recency**read.age * read.inside
        mean = (weight / weight.sum(1, keepdim=True))[:, None] @ self.vectors(read.rows)
        dropped = torch.rand(len(read.user), device=read.user.device) < (
            self.settings.user_dropout if self.training else 0.0
        )
        person = mean[:, 0] + self.people(read.user.masked_fill(dropped, self.users))
        return F.normalize(person * self.weight, dim=-1), self.of_user(person)

    def logits(self, read: Read, known: tuple[Tensor, ...], rows: Tensor, c: Tensor) -> Tensor:
        product = (known[0][:, None] @ c.transpose(-1, -2))[:, 0]
        x = F.relu(known[1][:, None] + self.other(rows) + self.of_item(c))
        found: Tensor = product * self.scale.exp() + self.out(F.relu(self.second(x)))[..., 0]
        return found


class DIN(PairModel):
    """Interest is the sum of the history's items, each weighted by a network over it, the candidate and their product;
    weights need not add to 1. In the first stage an item is weighted by its age alone."""

    stages = 2

    def __init__(self, n_items: int, users: int, settings: PairSettings, vectors: NDArray[np.float32] | None) -> None:
        super().__init__(n_items, users, settings, vectors)
        dim, hidden, width = settings.dim, settings.hidden, 2 * settings.hidden
        self.of_item, self.of_candidate = nn.Linear(dim, hidden), nn.Linear(dim, hidden, bias=False)
        self.of_product = nn.Parameter(torch.randn(hidden, dim) * 0.3)
        self.of_age = nn.Parameter(torch.zeros(settings.max_length, hidden))
        self.bend, self.out = nn.Parameter(torch.full((hidden,), 0.25)), nn.Parameter(torch.randn(1, hidden) * 0.02)
        self.ages = nn.Parameter(0.4 * 0.6 ** torch.arange(settings.max_length))  # about 1 in all
        self.interest, self.candidate, self.decide = (
            nn.Linear(dim, width),
            nn.Linear(dim, width, bias=False),
            _Decide(width),
        )

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
        x = (
            (product @ turned).reshape(*own.shape, -1)
            + own[..., None]
            + self.of_candidate(c).transpose(-1, -2).unsqueeze(-3)
        )
        weight = (self.out @ F.prelu(x.flatten(0, 1), self.bend)).reshape(*h.shape[:2], -1)
        weight = (weight + self.ages[read.age][..., None]) * read.inside[..., None]
        inner = (weight * (h @ turned)).sum(1)
        found: Tensor = inner * self.scale.exp() + self.decide(
            weight.transpose(1, 2) @ interest, self.candidate(c), inner
        )
        return found


class DIEN(PairModel):
    """A GRU makes interests of the history; a second one reads them, its update gates scaled by how near each interest
    is to the candidate."""

    stages = 2

    def __init__(self, n_items: int, users: int, settings: PairSettings, vectors: NDArray[np.float32] | None) -> None:
        super().__init__(n_items, users, settings, vectors)
        dim, hidden, width = settings.dim, settings.hidden, 2 * settings.hidden
        self.extract = nn.GRU(dim, dim, batch_first=True)
        self.near = nn.Linear(dim, dim, bias=False)
        self.read, self.keep = nn.Linear(dim, 3 * hidden), nn.Linear(hidden, 3 * hidden, bias=False)
        self.back = nn.Linear(hidden, dim)
        self.interest, self.candidate, self.decide = (
            nn.Linear(hidden, width),
            nn.Linear(dim, width, bias=False),
            _Decide(width),
        )

    def encode(self, read: Read) -> tuple[Tensor, ...]:
        x = self.vectors(read.rows)
        states = self.extract(x)[0] + x  # what is near the last item is a good answer from the start
        last = F.normalize(states[torch.arange(len(states), device=states.device), read.lengths - 1], dim=-1)
        return last, self.near(states), self.read(states)

    def first(self, known: tuple[Tensor, ...], c: Tensor) -> Tensor:
        return (known[0][:, None] @ c.transpose(-1, -2))[:, 0] * self.scale.exp()

    def logits(self, read: Read, known: tuple[Tensor, ...], rows: Tensor, c: Tensor) -> Tensor:
        near = (known[1] @ c.transpose(-1, -2)).masked_fill(~read.inside[..., None], NEVER).softmax(1)
        state = near.new_zeros(*near.shape[::2], self.settings.hidden)
        for step in range(near.shape[1]):
            update, reset, new = known[2][:, step, None].chunk(3, dim=-1)
            kept = self.keep(state).chunk(3, dim=-1)
            gate = near[:, step, :, None] * torch.sigmoid(update + kept[0])
            state = state + gate * (torch.tanh(new + torch.sigmoid(reset + kept[1]) * kept[2]) - state)
        inner = (self.back(state) * c).sum(-1)
        found: Tensor = self.first(known, c) + inner + self.decide(self.interest(state), self.candidate(c), inner)
        return found


MODEL_OF: dict[str, type[PairModel]] = {"ncf": NCF, "din": DIN, "dien": DIEN}
