"""CORE (Hou et al. 2022) in PyTorch: item embeddings and the encoder that turns a history into one of them.

A session is a weighted sum of its items' own embeddings; the weights, a softmax over what a small causal transformer
says of each item, are all that the encoder adds, so sessions and items share one space and the score of an item is
their cosine over a temperature. Because the transformer looks back only, as in the reference, what it says of an item
is the same in every prefix: one pass over a sequence gives the session after each of its items, and every item is a
target once, without a copy of the sequence for each.

Two things differ from the reference: a weight also depends, by a learnt number, on how long ago the item was; and a
session's own items do not compete with the target, because a cosine puts them first anyway (`history_competes` brings
that back).

Items are numbers here and sequences arrays (train/networks/batches.py); catalogues, files and the stage around it are
in train/id_embeddings.py, serving in tools/sources/core.py.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it

from recgraph.errors import SettingsError
from recgraph.train.metrics import MISS, Places, summary
from recgraph.train.networks.batches import Rows, batches, windows
from recgraph.train.networks.place import training
from recgraph.train.pipeline import progress

_EPS = 1e-12  # of the layer norms, as in the reference
_PIECE = 128  # sessions scored at once: their scores of 12,000 items stay in the processor's cache
_SCORES = 2**24  # scores held at once while ranking: 64 MB


@dataclass(frozen=True)
class CoreSettings:
    """The block `id_embeddings` of params.yaml. Dropouts are probabilities, lengths and sizes counts."""

    dim: int = 64
    inner: int = 256
    layers: int = 2
    heads: int = 2
    hidden_dropout: float = 0.4
    attention_dropout: float = 0.2
    session_dropout: float = 0.4  # of the numbers of a history's item embeddings
    item_dropout: float = 0.2  # of the numbers of the item table that sessions are scored against
    temperature: float = 0.07
    learning_rate: float = 0.003
    batch: int = 1024  # targets
    epochs: int = 30  # at most
    patience: int = 3  # epochs without a better validation NDCG@10 before it ends
    max_length: int = 50  # items of a history that are read, the newest
    history_competes: bool = False  # whether the session's own items count in the softmax, as in the reference
    negatives: int = 0  # sampled items that stand for the catalogue in the softmax; 0: all of them
    rare_share: float = 0.25  # the rarest items, of which ...
    cold_share: float = 0.05  # ... this share plays the cold item in an epoch (F 5.4)
    validate: int = 10_000  # cases at most, drawn with the seed
    threads: int = 2  # another number adds in another order: the last digits differ
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("dim", 1),
            ("heads", 1),
            ("max_length", 1),
            ("batch", 1),
            ("epochs", 1),
            ("patience", 1),
            ("threads", 1),
            ("layers", 0),
        ):
            if getattr(self, name) < least:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        for name in (
            "hidden_dropout",
            "attention_dropout",
            "session_dropout",
            "item_dropout",
            "rare_share",
            "cold_share",
        ):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1.")
        if self.dim % self.heads:
            raise SettingsError(f"dim is {self.dim}; it must be a multiple of heads, {self.heads}.")
        if self.temperature <= 0:
            raise SettingsError(f"temperature is {self.temperature}; it must be above 0.")


class _Block(nn.Module):
    """A transformer layer that looks back only, normalised after each half as in the reference."""

    def __init__(self, settings: CoreSettings) -> None:
        super().__init__()
        dim, self.settings = settings.dim, settings
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, settings.inner), nn.Linear(settings.inner, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=_EPS), nn.LayerNorm(dim, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        s = self.settings
        q, k, v = self.qkv(x).view(batch, length, 3, s.heads, dim // s.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, dropout_p=s.attention_dropout if self.training else 0.0
        )
        mixed = self.out(mixed.transpose(1, 2).reshape(batch, length, dim))
        x = self.norm1(x + F.dropout(mixed, s.hidden_dropout, self.training))
        found: Tensor = self.norm2(x + F.dropout(self.down(F.gelu(self.up(x))), s.hidden_dropout, self.training))
        return found


class CoreModel(nn.Module):
    """The table of n items with the cold one as row n, and the encoder. Padding may be any row: what comes later is
    never seen."""

    def __init__(self, n_items: int, settings: CoreSettings) -> None:
        super().__init__()
        self.cold, self.settings = n_items, settings
        self.items = nn.Embedding(n_items + 1, settings.dim, sparse=settings.negatives > 0)
        self.positions = nn.Embedding(settings.max_length, settings.dim)
        self.recency = nn.Parameter(torch.zeros(settings.max_length))
        self.blocks = nn.ModuleList(_Block(settings) for _ in range(settings.layers))
        self.norm, self.weigh = nn.LayerNorm(settings.dim, eps=_EPS), nn.Linear(settings.dim, 1)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        nn.init.uniform_(self.items.weight, -(settings.dim**-0.5), settings.dim**-0.5)

    def sessions(self, rows: Tensor) -> Tensor:
        """int64[b, l] item rows, padded at the end → float32[b, l, d], the unit vector of the session after each
        item."""
        length, s = rows.shape[1], self.settings
        x = F.dropout(self.items(rows), s.session_dropout, self.training)
        hidden = F.dropout(self.norm(x + self.positions.weight[:length]), s.hidden_dropout, self.training)
        for block in self.blocks:
            hidden = block(hidden)
        age = torch.arange(length, device=rows.device)[:, None] - torch.arange(length, device=rows.device)
        weights = (
            (self.weigh(hidden).transpose(1, 2) + self.recency[age.clamp(min=0)])
            .masked_fill(age < 0, -math.inf)
            .softmax(-1)
        )
        return F.normalize(weights @ x, dim=-1)

    def loss(self, rows: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of int64[b, l] targets, the item after each of `rows`; a target below 0 does not count."""
        wanted, s = targets >= 0, self.settings
        sessions, targets = self.sessions(rows)[wanted], targets[wanted]
        if not s.negatives:
            past = None if s.history_competes else _prefixes(rows)[wanted]
            softmax: Any = _FullSoftmax  # torch leaves its `apply` untyped
            found: Tensor = softmax.apply(sessions, self._scored(self.items.weight), targets, past, s.temperature)
            return found
        drawn = torch.randint(self.cold + 1, (s.negatives,), device=rows.device)
        scores = sessions @ self._scored(self.items(drawn)).T / s.temperature
        # Each drawn item stands for as many of the catalogue, so that the sum is that over all items on average.
        scores = (scores + math.log((self.cold + 1) / s.negatives)).masked_fill(drawn == targets[:, None], -math.inf)
        own = (sessions * self._scored(self.items(targets))).sum(1, keepdim=True) / s.temperature
        return F.cross_entropy(torch.cat([own, scores], dim=1), torch.zeros_like(targets))

    def _scored(self, vectors: Tensor) -> Tensor:
        return F.normalize(F.dropout(vectors, self.settings.item_dropout, self.training), dim=-1)


def _prefixes(rows: Tensor) -> Tensor:
    """int64[b, l, l]: what the session after each item is made of; the places that come later repeat the first."""
    length = rows.shape[1]
    later = torch.ones(length, length, dtype=torch.bool, device=rows.device).triu(1)
    return torch.where(later, rows[:, :1, None], rows[:, None, :])


class _FullSoftmax(torch.autograd.Function):
    """Mean cross-entropy over the whole table but the rows in `past`, its gradient made in the same pass, a piece of
    the sessions at a time.

    Stored and read again, the scores of 1,024 sessions would be 50 MB for 12,000 items, and moving them costs more than
    computing them. A cosine over the temperature needs no maximum taken off before exp (float32 holds e^88;
    temperatures below .012 do not fit). The column of ones gives the sum of each row with the product that is needed
    anyway.
    """

    @staticmethod
    def forward(
        ctx: Any, sessions: Tensor, table: Tensor, targets: Tensor, past: Tensor | None, temperature: float
    ) -> Tensor:
        count, dim = sessions.shape
        turned = (table / temperature).T.contiguous()
        with_ones = torch.cat([table, table.new_ones(len(table), 1)], dim=1)
        space, sums, d_table = (
            sessions.new_empty(min(count, _PIECE), len(table)),
            sessions.new_empty(count, dim + 1),
            torch.zeros_like(table),
        )
        for start in range(0, count, _PIECE):
            piece = sessions[start : start + _PIECE]
            odds = torch.mm(piece, turned, out=space[: len(piece)]).exp_()
            if past is not None:
                wanted = targets[start : start + _PIECE, None]
                kept = odds.gather(1, wanted)
                odds.scatter_(1, past[start : start + _PIECE], 0.0).scatter_(1, wanted, kept)
            found = torch.mm(odds, with_ones, out=sums[start : start + _PIECE])
            d_table.addmm_(odds.T, piece / found[:, dim:])
        own = table[targets]
        loss = sums[:, dim].log() - (sessions * own).sum(1) / temperature
        scale = 1 / (temperature * count)
        ctx.save_for_backward(
            (sums[:, :dim] / sums[:, dim:] - own) * scale,
            d_table.index_add_(0, targets, sessions, alpha=-1).mul_(scale),
        )
        return loss.mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        d_sessions, d_table = ctx.saved_tensors
        return gradients[0] * d_sessions, gradients[0] * d_table, None, None, None


# -- measuring ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeldOut:
    """What to predict: for each case the rows of the history, oldest first, the target's row, and rows that are not
    shown (-1: a cold item)."""

    history: Sequence[Rows]
    target: Rows
    hidden: Sequence[Rows]

    def __len__(self) -> int:
        return len(self.target)

    def some(self, count: int, seed: int) -> HeldOut:
        """At most `count` of them, drawn with the seed, in their order."""
        if len(self) <= count:
            return self
        chosen = np.sort(np.random.default_rng(seed).permutation(len(self))[:count])
        return HeldOut([self.history[one] for one in chosen], self.target[chosen], [self.hidden[one] for one in chosen])


def ranks(model: CoreModel, cases: HeldOut) -> tuple[Places, Places]:
    """Where the targets stand among all items, and among those not hidden; a target that is hidden or cold is a miss.

    Cold items are not ranked: they all have one vector, and serving does not find them by it.
    """
    better, equal = np.full((2, len(cases)), MISS), np.zeros((2, len(cases)), dtype=np.int64)
    lengths = np.array([min(len(one), model.settings.max_length) for one in cases.history], dtype=np.int64)
    order = np.flatnonzero((cases.target >= 0) & (lengths > 0))
    order = order[np.argsort(lengths[order], kind="stable")]
    model.eval()
    place = model.items.weight.device
    with torch.inference_mode():
        table = F.normalize(model.items.weight[: model.cold], dim=-1).T.contiguous()
        step = max(1, min(256, _SCORES // max(1, model.cold)))
        for part in (order[start : start + step] for start in range(0, len(order), step)):
            rows = np.full((len(part), lengths[part].max()), model.cold, dtype=np.int64)
            for line, one in enumerate(part):
                newest = cases.history[one][-lengths[one] :]
                rows[line, : lengths[one]] = np.where(newest < 0, model.cold, newest)
            ends = torch.from_numpy(lengths[part] - 1).to(place)
            sessions = model.sessions(torch.from_numpy(rows).to(place))[torch.arange(len(part), device=place), ends]
            scores = sessions @ table
            own = scores.gather(1, torch.from_numpy(cases.target[part]).to(place)[:, None])
            better[:, part] = (scores > own).sum(1).cpu().numpy()
            equal[:, part] = (scores == own).sum(1).cpu().numpy() - 1
            scores, own = scores.cpu(), own.cpu()
            for line, one in enumerate(part):
                hidden = np.unique(cases.hidden[one])
                hidden = hidden[hidden >= 0]
                if cases.target[one] in hidden:
                    better[1, one], equal[1, one] = MISS, 0
                elif len(hidden):
                    better[1, one] -= int((scores[line, hidden] > own[line]).sum())
                    equal[1, one] -= int((scores[line, hidden] == own[line]).sum())
    return Places(better[0], equal[0]), Places(better[1], equal[1])


# -- training ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainedCore:
    """The best epoch's model, what each epoch showed (`epoch`, `loss`, `recall@10`, `ndcg@10`), and seconds an epoch
    (of this run)."""

    model: CoreModel
    epochs: list[dict[str, float]]
    best: int
    seconds: float


def train(
    items: Rows,
    starts: Rows,
    n_items: int,
    settings: CoreSettings,
    valid: HeldOut | None = None,
    part: Path | None = None,
) -> TrainedCore:
    """Trains on the sequences `items[starts[i]:starts[i + 1]]` of rows below `n_items`, each of which is in at least
    one of them.

    It ends after `epochs`, or when the NDCG@10 of `valid`, hidden rows left out, has not risen for `patience` epochs;
    the best epoch is kept. In the folder `part`, if given, everything is saved after each epoch, and the same call goes
    on from there with the same result. Equal bytes come out for equal arguments on machines of a kind. What torch draws
    and how many threads it uses is as before afterwards.
    """
    checked = valid.some(settings.validate, settings.seed) if valid and len(valid) else None
    with training(settings.seed, settings.threads) as place:
        model = CoreModel(n_items, settings).to(place)
        return _train(model, items, windows(starts, settings.max_length), checked, part)


def _train(model: CoreModel, items: Rows, spans: Rows, valid: HeldOut | None, part: Path | None) -> TrainedCore:
    settings, n_items = model.settings, model.cold
    rare = np.argsort(np.bincount(items, minlength=n_items), kind="stable")[: math.ceil(settings.rare_share * n_items)]
    state = _State(model, part, _identity(items, spans, settings, valid))
    began, first = time.perf_counter(), len(state.epochs)
    for epoch in progress(range(first, settings.epochs), "training CORE"):
        if state.epochs and (not len(spans) or epoch - state.best >= settings.patience + 1):
            break
        # Seeded anew each epoch: a run that goes on after a kill draws what the unbroken one did.
        torch.manual_seed((settings.seed << 32) + epoch + 1)
        rng = np.random.default_rng([settings.seed, epoch])
        now = np.arange(n_items)
        now[rare[rng.random(len(rare)) < settings.cold_share]] = model.cold
        shown = {"epoch": float(epoch), "loss": _epoch(model, state.optimizers, now[items], spans, rng)}
        if valid:
            shown |= summary(ranks(model, valid)[1])
        state.add(shown)
    seconds = (time.perf_counter() - began) / max(1, len(state.epochs) - first)
    model.load_state_dict(state.kept)
    return TrainedCore(model.cpu().eval(), state.epochs, state.best, seconds)


def _epoch(
    model: CoreModel, optimizers: Sequence[torch.optim.Optimizer], items: Rows, spans: Rows, rng: np.random.Generator
) -> float:
    """One pass; the mean loss of all targets."""
    model.train()
    place, total, count = model.items.weight.device, 0.0, 0
    for rows, targets in batches(items, spans, model.settings.batch, model.cold, rng):
        loss = model.loss(rows.to(place), targets.to(place))
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        size = int((targets >= 0).sum())
        total, count = total + float(loss.detach()) * size, count + size
    return total / max(1, count)


def _identity(items: Rows, spans: Rows, settings: CoreSettings, valid: HeldOut | None) -> str:
    """What a checkpoint must have been made from to be gone on with; more epochs of the same are the same training."""
    told = {name: value for name, value in asdict(settings).items() if name not in ("epochs", "patience")}
    digest = hashlib.sha256(json.dumps([told, torch.__version__], sort_keys=True).encode())
    for array in (items, spans, *((valid.target, *valid.history) if valid else ())):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class _State:
    """Optimizers, best weights and the epochs so far, kept in one file that is replaced whole after each epoch."""

    def __init__(self, model: CoreModel, part: Path | None, identity: str) -> None:
        settings, self.model, self.identity = model.settings, model, identity
        rest = [weight for name, weight in model.named_parameters() if name != "items.weight"]
        table = [weight for name, weight in model.named_parameters() if name == "items.weight"]
        # A sampled softmax touches few rows of the table; only those are moved.
        lazy: list[torch.optim.Optimizer] = (
            [torch.optim.SparseAdam(table, lr=settings.learning_rate)] if settings.negatives else []
        )
        self.optimizers = [torch.optim.Adam(rest if lazy else table + rest, lr=settings.learning_rate), *lazy]
        self.epochs: list[dict[str, float]] = []
        self.best, self.kept = -1, _copied(model)
        self.file = part / "state.safetensors" if part else None
        if self.file is not None and self.file.is_file():
            self._load(self.file)

    def add(self, shown: dict[str, float]) -> None:
        """Takes an epoch in; where nothing is validated the last one is the best."""
        self.epochs.append(shown)
        if "ndcg@10" not in shown or self.best < 0 or shown["ndcg@10"] > self.epochs[self.best]["ndcg@10"]:
            self.best, self.kept = len(self.epochs) - 1, _copied(self.model)
        if self.file is not None:
            self._save(self.file)

    def _save(self, file: Path) -> None:
        tensors = {f"now.{name}": value for name, value in _copied(self.model).items()} | {
            f"best.{name}": value for name, value in self.kept.items()
        }
        for place, optimizer in enumerate(self.optimizers):
            for number, values in optimizer.state_dict()["state"].items():
                tensors |= {
                    f"optimizer.{place}.{number}.{name}": torch.as_tensor(value).contiguous()
                    for name, value in values.items()
                }
        file.parent.mkdir(parents=True, exist_ok=True)
        facts = {"identity": self.identity, "best": str(self.best), "epochs": json.dumps(self.epochs)}
        save_file(tensors, half := file.with_suffix(".new"), facts)
        half.replace(file)

    def _load(self, file: Path) -> None:
        with safe_open(file, "pt") as saved:
            facts = saved.metadata()
            if facts.get("identity") != self.identity:
                return
            tensors = {name: saved.get_tensor(name) for name in saved.keys()}  # noqa: SIM118 - not a dict
        self.best, self.epochs = int(facts["best"]), json.loads(facts["epochs"])
        self.model.load_state_dict(
            {name.removeprefix("now."): value for name, value in tensors.items() if name.startswith("now.")}
        )
        self.kept = {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")}
        for place, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Any]] = {}
            for name, value in tensors.items():
                kind, *where = name.split(".")
                if kind == "optimizer" and int(where[0]) == place:
                    # SparseAdam counts its steps in a plain int, Adam in a tensor.
                    state.setdefault(int(where[1]), {})[where[2]] = (
                        int(value) if where[2] == "step" and place else value
                    )
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _copied(model: CoreModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
