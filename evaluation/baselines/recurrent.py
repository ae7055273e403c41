"""Recurrent baselines: GRU4Rec (Hidasi et al. 2016) and NARM (Li et al. 2017), with the shared losses instead of their own.

NARM's attention asks after each item which of those up to it matter, so one pass gives every position, not the last one alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it

from recgraph.errors import SettingsError
from recgraph.train.networks.sequence import Items, SequenceModel, SequenceSettings, SequenceSystem


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
        self.asking, self.asked, self.weigh = nn.Linear(hidden, hidden, False), nn.Linear(hidden, hidden, False), nn.Linear(hidden, 1, False)
        self.out = nn.Linear(2 * hidden, settings.dim)
        self.start()

    def sessions(self, rows: Tensor) -> Tensor:
        """The state after each item, as an item's vector."""
        states, length = self.states(rows), rows.shape[1]
        weights = self.weigh(torch.sigmoid(self.asking(states)[:, :, None] + self.asked(states)[:, None])).squeeze(-1)
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        local = weights.masked_fill(later, -math.inf).softmax(-1) @ states
        found: Tensor = self.out(F.dropout(torch.cat([states, local], -1), self.settings.dropout, self.training))
        return found


class GRU4RecSystem(SequenceSystem):
    """GRU4Rec."""

    def __init__(self, settings: RecurrentSettings) -> None:
        super().__init__("gru4rec", settings, lambda items: GRU4RecModel(items, settings))


class NARMSystem(SequenceSystem):
    """NARM."""

    def __init__(self, settings: RecurrentSettings) -> None:
        super().__init__("narm", settings, lambda items: NARMModel(items, settings))
