"""The prefix cache of the in-process LLM: key-value states of the last prompts, so that what a new prompt shares with
one is not computed again.

It knows tensors and token ids, neither texts nor models. Entries are never changed: a cache handed out is a copy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

KeyValues = list[tuple[torch.Tensor, torch.Tensor]]  # a layer: keys and values [1, heads, tokens, head size]


@dataclass(frozen=True, slots=True)
class _Entry:
    adapter: str | None
    tokens: tuple[int, ...]
    states: KeyValues
    size: int  # bytes


class PrefixCache:
    """At most `entries` prompts and `limit` bytes; the least recently used goes first. Not thread-safe: its owner holds
    a lock."""

    def __init__(self, entries: int = 8, limit: int = 384 << 20) -> None:
        self._entries: OrderedDict[tuple[str | None, tuple[int, ...]], _Entry] = OrderedDict()
        self._most = entries
        self._limit = limit

    def longest(self, adapter: str | None, tokens: Sequence[int]) -> tuple[KeyValues, int]:
        """The states of the longest prefix of `tokens` that any entry begins with, and its length (0 and [] where there
        is none)."""
        best: _Entry | None = None
        length = 0
        for entry in self._entries.values():
            if entry.adapter == adapter and (shared := common_prefix(entry.tokens, tokens)) > length:
                best, length = entry, shared
        if best is None:
            return [], 0
        self._entries.move_to_end((best.adapter, best.tokens))
        return [(keys[:, :, :length], values[:, :, :length]) for keys, values in best.states], length

    def put(self, adapter: str | None, tokens: Sequence[int], cache: Any) -> None:
        """Keeps a copy of the first len(tokens) positions of a cache; entries that the new one begins with are
        dropped."""
        kept = tuple(tokens)
        if not kept or (adapter, kept) in self._entries:
            return
        states = [
            (layer.keys[:1, :, : len(kept)].clone(), layer.values[:1, :, : len(kept)].clone()) for layer in cache.layers
        ]
        entry = _Entry(adapter, kept, states, sum(t.numel() * t.element_size() for pair in states for t in pair))
        if entry.size > self._limit:
            return
        for key in [key for key in self._entries if key[0] == adapter and key[1] == kept[: len(key[1])]]:
            del self._entries[key]
        self._entries[(adapter, kept)] = entry
        while len(self._entries) > self._most or sum(e.size for e in self._entries.values()) > self._limit:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences share from the start."""
    length = min(len(first), len(second))
    for i in range(length):
        if first[i] != second[i]:
            return i
    return length


def working_cache(config: Any, states: KeyValues) -> Any:
    """A DynamicCache that starts with the states. The states are safe: the cache copies when it is first written to."""
    cache = DynamicCache(config=config)
    for index, (keys, values) in enumerate(states):
        cache.update(keys, values, index)
    return cache


def cut(cache: Any, length: int) -> None:
    """Shortens a cache to its first `length` positions. (`Cache.crop` means different things in different transformers
    versions.)"""
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]


def stack_left_padded(config: Any, caches: Sequence[Any]) -> tuple[Any, torch.Tensor]:
    """One cache of batch len(caches), shorter ones padded on the left, and the mask [batch, tokens] of real
    positions."""
    lengths = [cache.get_seq_length() for cache in caches]
    width = max(lengths)
    stacked = DynamicCache(config=config)
    for index in range(len(caches[0].layers)):
        layers = [cache.layers[index] for cache in caches]
        pads = [width - length for length in lengths]
        keys = torch.cat(
            [torch.nn.functional.pad(layer.keys, (0, 0, pad, 0)) for layer, pad in zip(layers, pads, strict=True)]
        )
        values = torch.cat(
            [torch.nn.functional.pad(layer.values, (0, 0, pad, 0)) for layer, pad in zip(layers, pads, strict=True)]
        )
        stacked.update(keys, values, index)
    mask = torch.zeros((len(caches), width), dtype=torch.long, device=keys.device)
    for row, length in enumerate(lengths):
        mask[row, width - length :] = 1
    return stacked, mask


def is_plain(config: Any) -> bool:
    """Whether every layer attends to all positions; sliding-window and state-space layers cannot share a prefix this
    way."""
    layers = DynamicCache(config=config).layers
    return all(type(layer) is DynamicLayer for layer in layers)
