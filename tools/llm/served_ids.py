"""How a server says that it holds answers to the ids of a catalogue (recgraph/llm/vllm_ids.py), by a name among its
models, and how it is asked to."""

from __future__ import annotations

import re

HOLD = {"vllm_xargs": {"recgraph_ids": 1}}  # what a request adds; others are answered as ever
_NAME = re.compile(r"recgraph-ids-[0-9a-f]{8}-\d{1,12}")


def served_ids(fingerprint: str, count: int) -> str:
    """The name for a catalogue of `count` ids."""
    return f"recgraph-ids-{fingerprint}-{count}"


def names_ids(name: str) -> bool:
    """Whether a served name is that of a catalogue, not of a model."""
    return _NAME.fullmatch(name) is not None
