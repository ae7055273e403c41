"""Self-attention networks: SASRec (Kang and McAuley 2018) and BERT4Rec (Sun et al. 2019).

SASRec here is normalised before each half of a layer, and learns by the sampled softmax with cosine scores or, as
published, by BCE with dot products (`loss` bce, `cosine` false). With text vectors an item is the sum of its own vector
and a projection of its text, where it is read and where it is scored.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it

from recgraph.errors import SettingsError
from recgraph.train.networks.sequence import Items, SequenceModel, SequenceSettings


@dataclass(frozen=True)
class AttentionSettings(SequenceSettings):
    """`masked` and `last_share` are BERT4Rec's: the share of items it has to guess, and of sequences of which it
    guesses the last one only."""

    layers: int = 2
    heads: int = 2
    attention_dropout: float = 0.2
    inner: int = 2  # of the feed-forward half, in `dim`s
    masked: float = 0.3
    last_share: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads < 1 or self.dim % self.heads:
            raise SettingsError(f"dim is {self.dim}; it must be a multiple of heads, {self.heads}.")
        for name in ("masked", "last_share", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1.")


class _Layer(nn.Module):
    """One layer, normalised before each half. `seen` bool[b, 1, 1, l] are the places to look at; None: those up to
    one's own."""

    def __init__(self, settings: AttentionSettings) -> None:
        super().__init__()
        dim, self.settings = settings.dim, settings
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, settings.inner * dim), nn.Linear(settings.inner * dim, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        batch, length, dim = x.shape
        s = self.settings
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, s.heads, dim // s.heads).permute(2, 0, 3, 1, 4)
        rate = s.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None, dropout_p=rate)
        x = x + F.dropout(self.out(mixed.transpose(1, 2).reshape(batch, length, dim)), s.dropout, self.training)
        inner = F.dropout(F.gelu(self.up(self.norm2(x))), s.dropout, self.training)
        return x + F.dropout(self.down(inner), s.dropout, self.training)


class SASRecModel(SequenceModel):
    """Layers that look back only."""

    settings: AttentionSettings

    def __init__(self, items: Items, settings: AttentionSettings) -> None:
        super().__init__(items, settings)
        self.positions = nn.Embedding(settings.max_length + 1, settings.dim)  # one more than is read: BERT4Rec's mask
        self.layers = nn.ModuleList(_Layer(settings) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.dim)
        self.start()
        nn.init.normal_(self.positions.weight, std=0.02)

    def sessions(self, rows: Tensor) -> Tensor:
        """The state after each item."""
        scale = 1.0 if self.settings.cosine else self.settings.dim**0.5  # as published; dot-product vectors start small
        return self.encoded(self.vectors(rows) * scale, self.positions.weight[: rows.shape[1]], None)

    def encoded(self, x: Tensor, positions: Tensor, seen: Tensor | None) -> Tensor:
        """float32[b, l, d] items' vectors, and those of their positions → the last layer's states."""
        x = F.dropout(x + positions, self.settings.dropout, self.training)
        for layer in self.layers:
            x = layer(x, seen)
        found: Tensor = self.norm(x)
        return found


class BERT4RecModel(SASRecModel):
    """Layers that look both ways and guess masked items; what comes next is a mask after the history."""

    def __init__(self, items: Items, settings: AttentionSettings) -> None:
        super().__init__(items, settings)
        self.mask = nn.Parameter(torch.randn(settings.dim) * settings.dim**-0.5)
        # A mask says nothing of itself, so at first a layer adds the mean of what it looks at; of small random weights
        # it would learn that slowly.
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if name.endswith("qkv.weight"):
                    nn.init.eye_(weight[2 * settings.dim :])
                if name.endswith("out.weight"):
                    nn.init.eye_(weight).mul_(settings.dim**-0.5)

    def guessed(self, rows: Tensor, masked: Tensor) -> Tensor:
        """float32[masked, d]: the states at the places bool[b, l] that are hidden from it."""
        x, there = torch.where(masked[..., None], self.mask, self.vectors(rows)), (rows != self.padding) | masked
        # Counted from the end, where the mask is that matters; counted from the start it would be where no train
        # sequence reaches.
        age = (there.sum(1, keepdim=True) - 1 - torch.arange(rows.shape[1], device=rows.device)).clamp(min=0)
        return self.encoded(x, self.positions(age), there[:, None, None, :])[masked]

    def last(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """The state of a mask after each history."""
        rows = F.pad(rows, (0, 1), value=self.padding)
        return self.guessed(rows, torch.arange(rows.shape[1], device=rows.device) == lengths[:, None])

    def loss(self, rows: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of the items masked in this step. A window's items are its rows and the last of its targets."""
        rows = torch.cat(
            [rows[:, :1], torch.where(targets >= 0, targets, F.pad(rows, (0, 1), value=self.padding)[:, 1:])], 1
        )
        there = rows != self.padding
        last = torch.arange(rows.shape[1], device=rows.device) == there.sum(1, keepdim=True) - 1
        only_last = torch.rand(len(rows), 1, device=rows.device) < self.settings.last_share
        masked = (torch.rand(rows.shape, device=rows.device) < self.settings.masked) & there & ~only_last
        masked |= last & ~masked.any(1, keepdim=True)  # each sequence has something to guess
        return self.compared(self.guessed(rows, masked), rows[masked], rows[masked.nonzero()[:, 0]])
