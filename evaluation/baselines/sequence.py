"""Sequence models as baselines: what each is, over the training and the losses that all share
(train/networks/sequence.py).

    gru4rec    Hidasi et al. 2016, with the shared losses instead of its own
    narm       Li et al. 2017; its attention asks after each item which of those up to it matter, so one pass gives
               every position
    nextitnet  Yuan et al. 2019: residual blocks of dilated convolutions that look back only, so each layer sees several
               times as far
    sasrec     Kang and McAuley 2018, normalised before each half of a layer, by the sampled softmax with cosine scores;
               `sasrec-bce` as published
    bert4rec   Sun et al. 2019
    core       CORE of train/networks/core.py

The networks that also serve or that the pipeline trains are in train/networks, those that are baselines alone here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it

from recgraph.errors import SettingsError
from recgraph.evaluation.workshop import Workshop
from recgraph.train.networks import core
from recgraph.train.networks.attention import AttentionSettings, BERT4RecModel, SASRecModel
from recgraph.train.networks.core import CoreSettings
from recgraph.train.networks.sequence import Items, SequenceModel, SequenceSettings, SequenceSystem, readable, sequences
from recgraph.train.task import Cases, Note, Scores, System, Task

# ── Recurrent ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class RecurrentSettings(SequenceSettings):
    """`hidden` numbers of a GRU's state, in `layers` GRUs on each other."""

    hidden: int = 128
    layers: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden < 1 or self.layers < 1:
            raise SettingsError(f"hidden is {self.hidden} and layers {self.layers}; both must be at least 1.")


class GRU4RecModel(SequenceModel):
    """GRUs over the items' vectors."""

    settings: RecurrentSettings

    def __init__(self, items: Items, settings: RecurrentSettings) -> None:
        super().__init__(items, settings)
        self.gru = nn.GRU(settings.dim, settings.hidden, settings.layers, batch_first=True)
        self.out = nn.Linear(settings.hidden, settings.dim)
        self.start()

    def sessions(self, rows: Tensor) -> Tensor:
        """The state after each item, as an item's vector."""
        found: Tensor = self.out(F.dropout(self.states(rows), self.settings.dropout, self.training))
        return found

    def states(self, rows: Tensor) -> Tensor:
        """float32[b, l, hidden]: the GRUs' states."""
        found: Tensor = self.gru(F.dropout(self.vectors(rows), self.settings.dropout, self.training))[0]
        return found


class NARMModel(GRU4RecModel):
    """What the GRU says of the whole beside a weighted sum of what it said of each item."""

    def __init__(self, items: Items, settings: RecurrentSettings) -> None:
        super().__init__(items, settings)
        hidden = settings.hidden
        self.asking, self.asked, self.weigh = (
            nn.Linear(hidden, hidden, False),
            nn.Linear(hidden, hidden, False),
            nn.Linear(hidden, 1, False),
        )
        self.out = nn.Linear(2 * hidden, settings.dim)
        self.start()

    def sessions(self, rows: Tensor) -> Tensor:
        """The state after each item, as an item's vector."""
        states, length = self.states(rows), rows.shape[1]
        weights = self.weigh(torch.sigmoid(self.asking(states)[:, :, None] + self.asked(states)[:, None])).squeeze(-1)
        later = torch.ones(length, length, dtype=torch.bool, device=rows.device).triu(1)
        local = weights.masked_fill(later, -math.inf).softmax(-1) @ states
        found: Tensor = self.out(F.dropout(torch.cat([states, local], -1), self.settings.dropout, self.training))
        return found


class GRU4RecSystem(SequenceSystem):
    """GRU4Rec."""

    settings_class = RecurrentSettings

    def __init__(self, settings: RecurrentSettings, workshop: Workshop | None = None) -> None:
        super().__init__("gru4rec", settings, lambda items: GRU4RecModel(items, settings))


class NARMSystem(SequenceSystem):
    """NARM."""

    settings_class = RecurrentSettings

    def __init__(self, settings: RecurrentSettings, workshop: Workshop | None = None) -> None:
        super().__init__("narm", settings, lambda items: NARMModel(items, settings))


# ── Convolutions ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ConvSettings(SequenceSettings):
    """A block per number in `dilations`, with two convolutions over `kernel` items: that far apart, then twice as
    far."""

    kernel: int = 3
    dilations: tuple[int, ...] = (1, 4)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel < 1 or min(self.dilations, default=1) < 1:
            raise SettingsError(f"kernel is {self.kernel} and dilations {self.dilations}; they must be at least 1.")


class _Back(nn.Module):
    """A convolution over the items before, normalised after it."""

    def __init__(self, dim: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.back = (kernel - 1) * dilation
        self.conv, self.norm = nn.Conv1d(dim, dim, kernel, dilation=dilation), nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """float32[b, l, d] → the same shape."""
        found: Tensor = F.relu(self.norm(self.conv(F.pad(x.transpose(1, 2), (self.back, 0))).transpose(1, 2)))
        return found


class NextItNetModel(SequenceModel):
    """Blocks on each other, each added to what it reads."""

    settings: ConvSettings

    def __init__(self, items: Items, settings: ConvSettings) -> None:
        super().__init__(items, settings)
        pairs = [
            [_Back(settings.dim, settings.kernel, apart) for apart in (one, 2 * one)] for one in settings.dilations
        ]
        self.blocks = nn.ModuleList(nn.Sequential(*pair) for pair in pairs)
        self.out = nn.Linear(settings.dim, settings.dim)
        self.start()

    def sessions(self, rows: Tensor) -> Tensor:
        """The state after each item."""
        x = F.dropout(self.vectors(rows), self.settings.dropout, self.training)
        for block in self.blocks:
            x = x + F.dropout(block(x), self.settings.dropout, self.training)
        found: Tensor = self.out(x)
        return found


class NextItNetSystem(SequenceSystem):
    """NextItNet."""

    settings_class = ConvSettings

    def __init__(self, settings: ConvSettings, workshop: Workshop | None = None) -> None:
        super().__init__("nextitnet", settings, lambda items: NextItNetModel(items, settings))


# ── Attention ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class SASRecSystem(SequenceSystem):
    """SASRec."""

    settings_class = AttentionSettings

    def __init__(self, settings: AttentionSettings, workshop: Workshop | None = None) -> None:
        super().__init__("sasrec", settings, lambda items: SASRecModel(items, settings))


class SASRecTextSystem(SASRecSystem):
    """With text vectors: an item is the sum of its own vector and a projection of its text, where it is read and where
    it is scored."""

    uses = ("ids", "text")

    def __init__(self, settings: AttentionSettings, workshop: Workshop) -> None:
        super().__init__(settings)
        self._workshop = workshop

    def fit(self, task: Task, note: Note) -> None:
        """As without text. ModelMissing where there is no encoder."""
        self.text = self._workshop.vectors(task.texts)
        super().fit(task, note)


class BERT4RecSystem(SequenceSystem):
    """BERT4Rec."""

    settings_class = AttentionSettings

    def __init__(self, settings: AttentionSettings, workshop: Workshop | None = None) -> None:
        super().__init__("bert4rec", settings, lambda items: BERT4RecModel(items, settings))


class CoreSystem(System):
    """CORE. Items are numbered anew, as it wants each to be in train; of a history's unknown items nothing is read."""

    name, settings_class = "core", CoreSettings
    settings: CoreSettings

    def fit(self, task: Task, note: Note) -> None:
        """Trains as the stage `id_embeddings` does. SettingsError where train has no item."""
        if not len(task.train):
            raise SettingsError(
                f"{task.name} has no event to train core on; give it a later cut or a larger share of the users."
            )
        self._counts = np.bincount(task.train.item, minlength=task.n_items).astype(np.float32)
        self._known = np.flatnonzero(self._counts)
        self._number = np.full(task.n_items, -1, np.int64)
        self._number[self._known] = np.arange(len(self._known))
        items, starts = sequences(task.train)
        valid = task.valid.some(min(5000, self.settings.validate), self.settings.seed)
        histories = [self._number[one] for one in readable(valid.history, self._known, self.settings.max_length)]
        hidden = [self._number[one[one != target]] for one, target in zip(valid.history, valid.target, strict=True)]
        checked = core.HeldOut(histories, self._number[valid.target], hidden)
        self.trained = core.train(self._number[items], starts, len(self._known), self.settings, checked)
        note(
            f"core: epoch {self.trained.best + 1} of {len(self.trained.epochs)} is kept, "
            f"{self.trained.seconds:.1f} s each"
        )

    def scores(self, cases: Cases) -> Scores:
        """float32[cases, items]: cosines; -inf for items that train does not name."""
        histories = readable(cases.history, self._known, self.settings.max_length)
        found = np.full((len(cases), len(self._number)), -np.inf, np.float32)
        found[:, self._known] = self._counts[self._known]
        model = self.trained.model.eval()
        with torch.inference_mode():
            table = F.normalize(model.items.weight[: model.cold], dim=-1)
            for length in sorted({len(one) for one in histories} - {0}):
                lines = np.array([line for line, one in enumerate(histories) if len(one) == length])
                rows = torch.from_numpy(self._number[np.stack([histories[line] for line in lines])])
                found[np.ix_(lines, self._known)] = (model.sessions(rows)[:, -1] @ table.T).numpy()
        return found
