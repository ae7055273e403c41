"""Inside vLLM: answers that name an id of the catalogue, held token by token. A request asks for it with
`vllm_xargs: {"recgraph_ids": 1}`; all others are as before.

This file is copied beside `catalogue.trie` (catalogue.py writes both) and loaded by vLLM's own Python with
`--logits-processors recgraph_ids:CatalogueIds`: it needs torch and vLLM and nothing of recgraph. vLLM has two runners
whose interfaces differ, and only its configuration tells which one runs: the class is both.
"""

from __future__ import annotations

import importlib
import types
from pathlib import Path
from typing import Any

import torch

TRIE = "catalogue.trie"  # beside this file
ASKED = "recgraph_ids"  # the name in vllm_xargs
FORMAT = 0x7265_6301  # the first number of the file; its last digit is the format's version
_FREE, _OFF = -1, -2  # places beyond the trie: in the title, and where nothing is held


class IdTrie:
    """The tokens an answer may begin with, up to where the title begins: a trie, in a file that is mapped into memory.

    int32 numbers: FORMAT, the lengths of four arrays, the arrays. The nodes are numbered in order of depth, so the edge
    at place e leads to node e + 1; the edges of node n are those from first[n] to first[n + 1], by token. `ends` are
    the tokens with a line end in them, `stops` those that end an answer, the tokenizer's own first. 200,000 ids took
    12 MB.
    """

    def __init__(self, file: Path) -> None:
        numbers = torch.from_file(str(file), dtype=torch.int32, size=file.stat().st_size // 4)
        kind, *lengths = numbers[:5].tolist()
        if kind != FORMAT or sum(lengths) + 5 != len(numbers):
            raise ValueError(f"{file} is no trie of ids, or one of another version. Start `recgraph llm serve` again.")
        ends, stops, self.first, self.tokens = torch.split(numbers[5:], lengths)
        self.stops = stops.long()
        self.breaks = ends[~torch.isin(ends, stops)].long()

    def after(self, node: int) -> torch.Tensor:
        """The tokens that may follow, ascending; none where the title begins."""
        start, end = self.first[node : node + 2].tolist()
        found: torch.Tensor = self.tokens[start:end]
        return found

    def step(self, node: int, token: int) -> int:
        """The place after a token that was written at another place."""
        if node < 0:
            return node
        options = self.after(node)
        if not len(options):
            return _FREE
        place = int(torch.searchsorted(options, token))
        found = place < len(options) and int(options[place]) == token
        return int(self.first[node]) + place + 1 if found else _OFF

    def hold(self, row: torch.Tensor, node: int) -> None:
        """Takes what may not come next out of the logits of one request. A title is a line: it has a token at least,
        and where a line's end would come, the answer ends."""
        if node == _OFF:
            return
        options = self.after(node) if node >= 0 else self.tokens[:0]
        if len(options):
            allowed = options.to(row.device, torch.long)
            kept = row[allowed]
            row.fill_(-torch.inf)
            row[allowed] = kept
            return
        breaks, stops = self.breaks.to(row.device), self.stops.to(row.device)
        if node != _FREE:
            row[stops] = -torch.inf
        elif len(breaks):
            row[stops[0]] = torch.maximum(row[stops[0]], row[breaks].max())
        row[breaks] = -torch.inf


class _Walk:
    """Where in the trie one request is, after so many tokens of its answer."""

    def __init__(self) -> None:
        self.node, self.read = 0, 0

    def go_on(self, trie: IdTrie, tokens: list[int]) -> int:
        for token in tokens:
            self.node = trie.step(self.node, token)
        self.read += len(tokens)
        return self.node


class _Held:
    """A logits processor of both runners: `update_state` and `apply(logits)` are the first one's, `add_request` and
    `apply(logits, context)` the second one's. Requests are known by their place in the batch, or by their slot."""

    def __init__(self, config: Any, place: Any, pinned: bool = False) -> None:
        if config.speculative_config:
            raise ValueError("Answers are not held to the catalogue's ids where tokens are guessed ahead.")
        self._trie = IdTrie(Path(__file__).with_name(TRIE))
        self._states = place  # the second runner's; the first one's device is not needed
        self._walks: dict[int, Any] = {}

    @classmethod
    def validate_params(cls, params: Any) -> None:
        """ValueError, which the client gets as status 400."""
        asked = (params.extra_args or {}).get(ASKED, 1)
        if asked != 1:
            raise ValueError(f"{ASKED} is {asked!r}; it is 1, or not there.")

    def is_argmax_invariant(self) -> bool:
        return False

    # ── The first runner ──────────────────────────────────────────────────────────────────────────────────────────────

    def update_state(self, update: Any) -> None:
        if update:
            follow = importlib.import_module("vllm.v1.sample.logits_processor").process_dict_updates
            follow(self._walks, update, lambda params, prompt, output: (_Walk(), output) if _asks(params) else None)

    # ── The second runner ─────────────────────────────────────────────────────────────────────────────────────────────

    def add_request(self, slot: int, params: Any) -> bool:
        self._walks.pop(slot, None)  # of the request that had the slot before
        if _asks(params):
            self._walks[slot] = _Walk()
        return _asks(params)

    def apply(self, logits: torch.Tensor, context: Any = None) -> torch.Tensor:
        if not self._walks:
            return logits
        if context is None:
            for row, (walk, output) in self._walks.items():
                self._trie.hold(logits[row], walk.go_on(self._trie, output[walk.read :]))
            return logits
        slots = context.idx_mapping_np.tolist()  # a row each: no tokens are guessed ahead
        rows = [row for row, slot in enumerate(slots) if slot in self._walks]
        if rows:
            ends = (context.pos[rows] + 1).tolist()
            for row, end in zip(rows, ends, strict=True):
                walk, slot = self._walks[slots[row]], slots[row]
                begin = int(self._states.prompt_len.np[slot]) + walk.read
                written = self._states.all_token_ids.gpu[slot, begin:end].tolist() if end > begin else []
                self._trie.hold(logits[row], walk.go_on(self._trie, written))
        return logits


def _asks(params: Any) -> bool:
    return bool((params.extra_args or {}).get(ASKED))


def _interfaces() -> tuple[type, ...]:
    """Those of the runners that the installed vLLM has; none outside vLLM."""
    found = []
    for name in ("vllm.v1.sample.logits_processor", "vllm.v1.worker.gpu.sample.logits_processor"):
        try:
            found.append(importlib.import_module(name).LogitsProcessor)
        except (ImportError, AttributeError):
            continue
    return tuple(found)


def __getattr__(name: str) -> type:
    """`CatalogueIds`, made when it is asked for: only vLLM's own processes are to import vLLM."""
    if name != "CatalogueIds":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()[name] = types.new_class(name, (_Held, *_interfaces()))
    made.__module__ = __name__
    return made
