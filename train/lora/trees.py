"""Packs training examples into token trees: what prompts share from the start is computed once, forward and backward,
and nothing is padded.

A causal model's state after a prefix does not depend on what follows, so the examples of one tree may hang on one
trunk: the system text all share, then one shopper's part, then a branch for each candidate. The loss and its gradient
are those of the same examples one by one (tested), at a fraction of the tokens: a case of 16 candidates costs about 900
tokens instead of 7,000. This module knows tokens only: no model, no text, no file.

Sorted by their tokens, examples lie as a walk through their tree meets them, depth first: each shares with the one
before it all that it shares with any. So a tree is made of whole arrays, a few calls an example and none a token.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

_Tokens = NDArray[np.uint32]
_Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt and its answer in tokens. `weight` multiplies its loss; `group` names examples that are drawn together
    (one case); the tokens answer[silent[0]:silent[1]] are read but not learnt."""

    prompt: Sequence[int]
    answer: Sequence[int]
    weight: float = 1.0
    group: int = 0
    silent: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)

    @property
    def tokens(self) -> _Tokens:
        """uint32[prompt and answer]."""
        return np.concatenate([np.asarray(self.prompt, np.uint32), np.asarray(self.answer, np.uint32)])


class Tree:
    """Examples as the tree of their tokens, in depth-first order; `len` is the tokens computed. The last token of an
    example predicts nothing, so it is never computed.

    Targets are the answers' tokens, in the examples' order, each example's weights summing to its `weight`; with
    `whole` also every token of the prompts (T eq. 1), where a shared token counts once for each example that runs
    through it.
    """

    def __init__(self, examples: Sequence[Example], *, whole: bool = False) -> None:
        texts = [example.tokens for example in examples]
        places = [np.empty(0, np.int64)] * len(examples)  # of each example's tokens in the tree, but its last one's
        new, depths, left = list[_Tokens](), list[_Places](), list[tuple[_Places, int]]()
        path, before, count = np.empty(0, np.int64), np.empty(0, np.uint32), 0
        for number in sorted(range(len(examples)), key=lambda place: _key(texts[place])):
            tokens = texts[number][:-1]
            shared = shared_tokens(before, tokens)
            left.append((path[shared:], count))
            path = np.concatenate([path[:shared], np.arange(count, count + len(tokens) - shared)])
            new.append(tokens[shared:])
            depths.append(np.arange(shared, len(tokens)))
            places[number], before, count = path, tokens, count + len(tokens) - shared
        self.tokens = np.concatenate(new)
        self.depths = np.concatenate(depths)
        self.leave = np.empty(count, np.int64)
        for branch, moment in [*left, (path, count)]:
            self.leave[branch] = moment
        self._targets = [
            _targets(example, tokens, own, whole) for example, tokens, own in zip(examples, texts, places, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.tokens)

    def tensors(self, multiple: int = 1) -> dict[str, torch.Tensor]:
        """Model inputs of a batch of one: input_ids and position_ids int64[1, n]; enter and leave int32[n], by which a
        token sees itself and its ancestors: those k with enter[k] <= enter[q] < leave[k]; and what to predict:
        positions int64[m] ascending, each once, and `rows` (into positions), labels, weights [t].

        n is filled up to a `multiple` with tokens that see themselves alone and that nothing sees.
        """
        count = len(self)
        empty = -count % multiple
        enter = np.arange(count + empty)
        zeros = np.zeros(empty, np.int64)
        places, labels, weights = (np.concatenate(parts) for parts in zip(*self._targets, strict=True))
        positions, rows = np.unique(places, return_inverse=True)
        arrays = {
            "input_ids": np.concatenate([self.tokens.astype(np.int64), zeros])[None],
            "position_ids": np.concatenate([self.depths, zeros])[None],
            "enter": enter.astype(np.int32),
            "leave": np.concatenate([self.leave, enter[count:] + 1]).astype(np.int32),
            "positions": positions,
            "rows": rows,
            "labels": labels,
            "weights": weights,
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def grow(examples: Sequence[Example], limit: int) -> Iterator[tuple[list[int], int]]:
    """Cuts examples, in the order given, into trees of at most `limit` computed tokens; yields the places of each
    tree's examples, and its tokens.

    An example longer than the limit makes a tree of its own. Examples that share much should stand together (see
    `Example.group`).
    """
    keys, texts, places, size = list[bytes](), list[_Tokens](), list[int](), 0
    for place, example in enumerate(examples):
        tokens = example.tokens[:-1]
        key = _key(tokens)
        at = bisect_left(keys, key)
        cost = len(tokens) - max((shared_tokens(text, tokens) for text in texts[max(0, at - 1) : at + 1]), default=0)
        if places and size + cost > limit:
            yield places, size
            keys, texts, places, size, at, cost = [], [], [], 0, 0, len(tokens)
        keys.insert(at, key)
        texts.insert(at, tokens)
        places.append(place)
        size += cost
    if places:
        yield places, size


def _key(tokens: _Tokens) -> bytes:
    """Sorts as the tokens do, one after the other."""
    return tokens.astype(">u4").tobytes()


def shared_tokens(one: _Tokens, other: _Tokens) -> int:
    """How many tokens two sequences have in common from their start."""
    size = min(len(one), len(other))
    differ = one[:size] != other[:size]
    first = int(differ.argmax()) if size else 0
    return first if size and differ[first] else size


def _targets(
    example: Example, tokens: _Tokens, places: _Places, whole: bool
) -> tuple[_Places, _Places, NDArray[np.float32]]:
    """Of one example: the place whose output predicts, what, and its weight."""
    first = 1 if whole else len(example.prompt)
    learnt = np.ones(len(tokens), bool)
    learnt[:first] = False
    learnt[len(example.prompt) + example.silent[0] : len(example.prompt) + example.silent[1]] = False
    depth = np.flatnonzero(learnt)
    weights = np.full(len(depth), example.weight / len(depth), np.float32)
    return places[depth - 1], tokens[depth].astype(np.int64), weights
