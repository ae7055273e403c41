"""The state of one recommendation, and the records that nodes put into it. LangGraph owns it while a run lasts; nothing here acts.

A node reads the state and returns only the keys it changed. Keys with a reducer are added up; all others are replaced. Everything in
here is plain data, so a checkpoint can be written and read back without pickle (`CHECKPOINT_TYPES`).
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, TypedDict

from recgraph.store.records import Event, Item, Summary
from recgraph.tools.llm.protocol import Usage
from recgraph.tools.memory import MemoryHit
from recgraph.tools.retrieve import Candidate


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the recommender LLM answered (F 4.2): the id and title of the next item.

    `valid`: the answer had the asked-for form and named an item of the catalogue. `repaired`: it had not, but could be read all the
    same. An answer that is neither leaves `item_id` empty.
    """

    item_id: str
    title: str
    valid: bool
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate after reranking. `yes` is sigmoid(logit_yes - logit_no), None where the LLM did not score it; `score` orders."""

    candidate: Candidate
    score: float
    yes: float | None


@dataclass(frozen=True, slots=True)
class Recommended:
    """One line of the answer. The reason's evidence: `event_seqs` are events of the user, `queries` are remembered queries."""

    rank: int
    item: Item
    score: float
    yes: float | None
    source: str
    reason: str
    event_seqs: tuple[int, ...]
    queries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a run is given beside its state and what no checkpoint keeps: the moment the time is up, by `time.monotonic()`."""

    deadline: float | None = None


def merge(left: Mapping[str, object], right: Mapping[str, object]) -> dict[str, object]:
    """Reducer: the right mapping's keys win."""
    return {**left, **right}


def add_usage(left: Usage | None, right: Usage | None) -> Usage:
    """Reducer: token counts are added; None is no tokens, because LangGraph starts a channel with the type's empty value."""
    return (left or Usage()) + (right or Usage())


class State(TypedDict, total=False):
    """One run. What was asked, what each node found, and what it cost."""

    run_id: str
    user_id: str
    query: str
    k: int
    as_of: datetime | None
    paradigm: str
    mode: str
    history: Sequence[Event]
    items: Annotated[Mapping[str, Item], merge]
    memory: Sequence[MemoryHit]
    summary: Summary | None
    blocks: int
    cached_blocks: int
    made: Annotated[list[Summary], operator.add]
    prediction: Prediction | None
    candidates: Sequence[Candidate]
    scored: Sequence[Scored]
    recommended: Sequence[Recommended]
    tokens: Annotated[Usage | None, add_usage]
    degraded: Annotated[list[str], operator.add]


CHECKPOINT_TYPES = (Event, Item, Summary, Usage, MemoryHit, Candidate, Prediction, Scored, Recommended)
