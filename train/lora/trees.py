"""Packs training examples into token trees: what prompts share from the start is computed once, forward and backward,
and nothing is padded.

A causal model's state after a prefix does not depend on what follows, so the examples of one tree may hang on one
trunk: the system text all share, then one shopper's part, then a branch for each candidate. The loss and its gradient
are those of the same examples one by one (tested), at a fraction of the tokens: a case of 16 candidates costs about 900
tokens instead of 7,000. This module knows tokens only: no model, no text, no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch


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


class Tree:
    """Examples as a trie of their tokens, in depth-first order. Grows by `add`; `len` is the tokens computed.

    Targets are (place whose output predicts, label, weight): the answers' tokens, each example's weights summing to its
    `weight`; with `whole` also every token of the prompts (T eq. 1), where a shared token counts once for each example
    that runs through it.
    """

    def __init__(self, whole: bool = False) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self.targets: list[tuple[int, int, float]] = []
        self.examples = 0
        self._whole = whole
        self._children: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    def cost(self, example: Example) -> int:
        """How many tokens the tree would grow by. The last token predicts nothing, so it is never computed."""
        tokens = [*example.prompt, *example.answer][:-1]
        place = -1
        for depth, token in enumerate(tokens):
            below = self._children.get((place, token))
            if below is None:
                return len(tokens) - depth
            place = below
        return 0

    def add(self, example: Example) -> None:
        """Hangs an example into the tree."""
        tokens = [*example.prompt, *example.answer]
        first = 1 if self._whole else len(example.prompt)
        silent = range(len(example.prompt) + example.silent[0], len(example.prompt) + example.silent[1])
        share = example.weight / (len(tokens) - first - len(silent))
        place = -1
        for depth, token in enumerate(tokens):
            if depth >= first and depth not in silent:
                self.targets.append((place, token, share))
            if depth == len(tokens) - 1:
                break
            below = self._children.get((place, token))
            if below is None:
                below = len(self.tokens)
                self._children[(place, token)] = below
                self.tokens.append(token)
                self.parents.append(place)
                self.depths.append(depth)
            place = below
        self.examples += 1

    def tensors(self, multiple: int = 1) -> dict[str, torch.Tensor]:
        """Model inputs of a batch of one: input_ids and position_ids int64[1, n]; enter and leave int32[n], by which a
        token sees itself and its ancestors: those k with enter[k] <= enter[q] < leave[k]; and what to predict:
        positions int64[m] ascending, each once, and `rows` (into positions), labels, weights [t].

        n is filled up to a `multiple` with tokens that see themselves alone and that nothing sees.
        """
        empty = -len(self.tokens) % multiple
        enter, leave = self._spans()
        more = range(len(enter), len(enter) + empty)
        positions = sorted({place for place, _, _ in self.targets})
        row = {place: number for number, place in enumerate(positions)}
        return {
            "input_ids": torch.tensor([self.tokens + [0] * empty]),
            "position_ids": torch.tensor([self.depths + [0] * empty]),
            "enter": torch.tensor([*enter, *more], dtype=torch.int32),
            "leave": torch.tensor([*leave, *(place + 1 for place in more)], dtype=torch.int32),
            "positions": torch.tensor(positions),
            "rows": torch.tensor([row[place] for place, _, _ in self.targets]),
            "labels": torch.tensor([label for _, label, _ in self.targets]),
            "weights": torch.tensor([weight for _, _, weight in self.targets]),
        }

    def _spans(self) -> tuple[list[int], list[int]]:
        """Where a walk through the whole tree, depth first, comes to each token, and where it has left all that hangs
        on it. Tokens lie in the order they were added, which may be another: a branch may grow again later."""
        sizes = [1] * len(self.parents)
        for place in range(len(self.parents) - 1, -1, -1):
            if (parent := self.parents[place]) >= 0:
                sizes[parent] += sizes[place]
        enter, free, roots = list[int](), list[int](), 0
        for parent, size in zip(self.parents, sizes, strict=True):
            begun = roots if parent < 0 else free[parent]
            enter.append(begun)
            free.append(begun + 1)
            if parent < 0:
                roots += size
            else:
                free[parent] += size
        return enter, [begun + size for begun, size in zip(enter, sizes, strict=True)]


def grow(examples: Sequence[Example], limit: int, *, whole: bool = False) -> Iterator[list[int]]:
    """Cuts examples, in the order given, into trees of at most `limit` computed tokens; yields the places of each
    tree's examples.

    An example longer than the limit makes a tree of its own. Examples that share much should stand together (see
    `Example.group`).
    """
    tree, places = Tree(whole), list[int]()
    for place, example in enumerate(examples):
        if places and len(tree) + tree.cost(example) > limit:
            yield places
            tree, places = Tree(whole), []
        tree.add(example)
        places.append(place)
    if places:
        yield places


def build(examples: Sequence[Example], *, whole: bool = False) -> Tree:
    """The tree of a few examples."""
    tree = Tree(whole)
    for example in examples:
        tree.add(example)
    return tree
