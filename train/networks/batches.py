"""Sequences of items in batches, as all networks that read histories learn from them: what is read at once, and what is
a target in it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rows = NDArray[np.int64]


def windows(starts: Rows, max_length: int) -> Rows:
    """int64[w, 3]: (first, end, first target) of what is read at once; each item of a sequence but its first is a
    target in one window.

    Sequence i is `starts[i]:starts[i + 1]`. One of up to max_length + 1 items is one window; a longer one goes on in
    windows that share half of what they read.
    """
    found: list[tuple[int, int, int]] = []
    for first, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        target, step = first + 1, max_length
        while target < end:
            until = min(end, target + step)
            found.append((max(first, until - 1 - max_length), until, target))
            target, step = until, max(1, max_length // 2)
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def batches(
    items: Rows, spans: Rows, size: int, padding: int, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows, targets) int64[b, l] of about `size` targets each, windows of like length together, in random order; a
    target -1 is none."""
    if not len(spans):
        return
    lengths = spans[:, 1] - spans[:, 0] - 1
    order = np.lexsort((rng.random(len(spans)), lengths))
    number = (np.cumsum((spans[:, 1] - spans[:, 2])[order]) - 1) // size
    groups = np.split(order, np.flatnonzero(np.diff(number)) + 1)
    for place in rng.permutation(len(groups)):
        part = spans[groups[place]]
        at = part[:, :1] + np.arange((part[:, 1] - part[:, 0]).max())
        inside = at < part[:, 1:2]
        rows = np.where(inside, items[np.minimum(at, len(items) - 1)], padding)
        targets = np.where((inside & (at >= part[:, 2:3]))[:, 1:], rows[:, 1:], -1)
        yield torch.from_numpy(rows[:, :-1]), torch.from_numpy(targets)
