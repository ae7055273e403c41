"""Forward passes of a causal language model in process: tokens appended to a cache, and trees of tokens read at once.

It knows tensors, token ids and deadlines; not what the tokens say (local.py), nor which weights are at work
(adapters.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from recgraph.errors import LLMTimeout

PREFILL_TOKENS = 768  # tokens of one forward pass of a long prompt: the deadline is looked at in between
# from so many tokens on, a pass tells how long the next one will take; a pass of few is bound by other things
TIMED_TOKENS = 64


class Passes:
    """The passes of one model. Not thread-safe: its owner holds a lock."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._head = model.get_output_embeddings()
        self._pace = 0.0  # seconds a token took in the last long pass

    def feed(self, cache: Any, tokens: Sequence[int], keep: int, deadline: float | None) -> torch.Tensor:
        """Appends tokens to a cache of one row; logits float32[keep, vocabulary] of the last `keep` of them."""
        rows: list[torch.Tensor] = []
        for start in range(0, len(tokens), PREFILL_TOKENS):
            piece = tokens[start : start + PREFILL_TOKENS]
            ids = torch.tensor([piece], device=self._device)
            # places, not a number of them: a slice of the states lies apart, and torch would copy the whole head for it
            kept = torch.arange(max(0, len(piece) - keep), len(piece), device=self._device)
            with self._timed(len(piece), deadline):
                rows.append(
                    self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=kept).logits[0]
                )
        return torch.cat(rows)[-keep:].float()

    def tree(
        self,
        suffixes: Sequence[Sequence[int]],
        cache: Any,
        deadline: float | None,
        exact: Sequence[int] = (),
    ) -> torch.Tensor:
        """Logits float32[len(suffixes), vocabulary] after each suffix of what the cache holds, in one pass over the
        tree of their tokens, which are appended to the cache. Those of the tokens `exact` are not rounded to the
        model's format.

        What suffixes begin with alike is a branch they share and is computed once. Each token attends to the cache and
        to its own ancestors, so the numbers are those of a pass for each suffix.
        """
        tokens, parents, ends = token_tree(suffixes)
        root = cache.get_seq_length()
        mask, depth = _ancestors(parents, root)
        order = sorted(set(ends))
        with self._timed(len(tokens), deadline), self._heard() as heard:
            logits: torch.Tensor = self._model(
                input_ids=torch.tensor([tokens], device=self._device),
                attention_mask=torch.from_numpy(mask)[None, None].to(self._device),
                position_ids=torch.from_numpy(root + depth)[None].to(self._device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=torch.tensor(order, device=self._device),
            ).logits[0]
        found = logits.float()
        if exact and heard:
            states, made = heard[0]
            # not where a model bends what its head says
            if torch.equal(made[0][:, exact], logits[:, exact]):
                found[:, exact] = torch.nn.functional.linear(states[0].float(), self._head.weight[exact].float())
        return found[[order.index(end) for end in ends]]

    @contextmanager
    def _heard(self) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
        """What the head reads and says meanwhile, where it is a plain product in a short format: bfloat16 has steps of
        an eighth between logits of 16 and 32, in which most candidates would tie."""
        heard: list[tuple[torch.Tensor, torch.Tensor]] = []
        if type(self._head) is not torch.nn.Linear or self._head.bias is not None or self._head.weight.itemsize > 2:
            yield heard
            return
        hook = self._head.register_forward_hook(lambda _, given, made: heard.append((given[0], made)))
        try:
            yield heard
        finally:
            hook.remove()

    @contextmanager
    def _timed(self, tokens: int, deadline: float | None) -> Iterator[None]:
        """One pass over so many tokens. LLMTimeout where, at the pace of the last one, it would end after the
        deadline."""
        started = time.monotonic()
        check(None if deadline is None else deadline - tokens * self._pace * (tokens >= TIMED_TOKENS))
        yield
        if tokens >= TIMED_TOKENS:
            self._pace = (time.monotonic() - started) / tokens


def check(deadline: float | None) -> None:
    """LLMTimeout where the deadline has passed."""
    if deadline is not None and time.monotonic() >= deadline:
        raise LLMTimeout("The deadline passed before the language model had answered.")


def token_tree(rows: Sequence[Sequence[int]]) -> tuple[list[int], list[int], list[int]]:
    """The prefix tree of token rows: tokens, the place of each one's parent (-1 at the root, always before it), and
    each row's last place."""
    tokens: list[int] = []
    parents: list[int] = []
    places: dict[tuple[int, int], int] = {}
    ends = []
    for row in rows:
        place = -1
        for token in row:
            key = (place, token)
            if key not in places:
                places[key] = len(tokens)
                tokens.append(token)
                parents.append(place)
            place = places[key]
        ends.append(place)
    return tokens, parents, ends


def packs(suffixes: Sequence[list[int]], limit: int) -> Iterator[list[list[int]]]:
    """Groups of suffixes, in order, whose trees have at most `limit` tokens (a single longer suffix is a group of its
    own)."""
    pack: list[list[int]] = []
    for suffix in suffixes:
        if pack and len(token_tree([*pack, suffix])[0]) > limit:
            yield pack
            pack = []
        pack.append(suffix)
    yield pack


def _ancestors(
    parents: Sequence[int], root: int
) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], np.ndarray[Any, np.dtype[np.int64]]]:
    """bool[tokens, root + tokens]: what each token of a tree attends to, the whole root among it; and how deep it
    stands below the root."""
    mask = np.zeros((len(parents), root + len(parents)), dtype=np.bool_)
    depth = np.zeros(len(parents), dtype=np.int64)
    mask[:, :root] = True
    for place, parent in enumerate(parents):
        if parent >= 0:
            mask[place] = mask[parent]
            depth[place] = depth[parent] + 1
        mask[place, root + place] = True
    return mask, depth
