"""NextItNet (Yuan et al. 2019): residual blocks of dilated convolutions that look back only, so each layer sees several times as far."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it

from recgraph.errors import SettingsError
from recgraph.train.networks.sequence import Items, SequenceModel, SequenceSettings, SequenceSystem


@dataclass(frozen=True)
class ConvSettings(SequenceSettings):
    """A block per number in `dilations`, with two convolutions over `kernel` items: that far apart, then twice as far."""

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
        pairs = [[_Back(settings.dim, settings.kernel, apart) for apart in (one, 2 * one)] for one in settings.dilations]
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

    def __init__(self, settings: ConvSettings) -> None:
        super().__init__("nextitnet", settings, lambda items: NextItNetModel(items, settings))
