"""The state of one recommendation, and the records that nodes put into it. LangGraph owns it while a run lasts; nothing
here acts.

A node reads the state and returns only the keys it changed. Keys with a reducer are added up; all others are replaced.
Everything in here is plain data, so a checkpoint can be written and read back without pickle (`CHECKPOINT_TYPES`).
"""

from __future__ import annotations

import operator
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, NotRequired, TypedDict

from langgraph.runtime import Runtime

from recgraph.graph.budget import LeftOut
from recgraph.store.records import Event, Item, Summary
from recgraph.tools.candidates import Candidate
from recgraph.tools.llm.protocol import Usage
from recgraph.tools.memory import MemoryHit
from recgraph.tools.wish.facets import Relaxation
from recgraph.tools.wish.wish import Like, Price, Wish


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the recommender LLM answered (F 4.2): the id and title of the next item.

    `valid`: the answer had the asked-for form and named an item of the catalogue. `repaired`: it had not, but could be
    read all the same. An answer that is neither leaves `item_id` empty.
    """

    item_id: str
    title: str
    valid: bool
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate after reranking. `yes` is sigmoid(logit_yes - logit_no), None where the LLM did not score it; `score`
    orders."""

    candidate: Candidate
    score: float
    yes: float | None


@dataclass(frozen=True, slots=True)
class Recommended:
    """One line of the answer. The reason's evidence: `event_seqs` are events of the user, `queries` are remembered
    queries."""

    rank: int
    item: Item
    score: float
    yes: float | None
    source: str
    reason: str
    event_seqs: tuple[int, ...]
    queries: tuple[str, ...]
    fits: int = 0  # how many of the named parts of the wish


ANSWERING = 0.2  # seconds that retrieval and reasons take at the end of a run; a catalogue of millions takes longer


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a run is given beside its state and what no checkpoint keeps, moments of `time.monotonic()`: when the time
    for a language model is up, and when what is embedded, fitted and summarised for it must give way to answering. None
    is for as long as it takes."""

    deadline: float | None = None
    ready_by: float | None = None

    @classmethod
    def within(cls, seconds: float) -> RunContext:
        """From now on. Half of the time may go into making ready, so that there is an answer even over titles that were
        never embedded; the last of it belongs to what follows a language model that did not answer."""
        now = time.monotonic()
        return cls(now + seconds - min(ANSWERING, seconds / 10), now + seconds / 2)

    @classmethod
    def of(cls, runtime: Runtime[RunContext]) -> RunContext:
        """The run's; an empty one inside a graph that knows none, or another."""
        return runtime.context if isinstance(runtime.context, cls) else cls()


def merge(left: Mapping[str, object], right: Mapping[str, object]) -> dict[str, object]:
    """Reducer: the right mapping's keys win."""
    return {**left, **right}


def add_usage(left: Usage | None, right: Usage | None) -> Usage:
    """Reducer: token counts are added; None is no tokens, because LangGraph starts a channel with the type's empty
    value."""
    return (left or Usage()) + (right or Usage())


class RunRequest(TypedDict):
    """What the graph is asked: whom to recommend to. All else has its default in the settings; the id of the run is
    made.

    A conversation: `wish` is what was asked for so far, `shown` are the item ids of the last answer. Where the graph
    itself has a checkpointer and a thread, both are there already; who has it as a node keeps the two keys in its own
    state. `given` is a wish given ready-made, which wins over the words; what `exclude` names is never shown. `at` is
    when a run that is repeated was asked."""

    user_id: str
    query: NotRequired[str]
    k: NotRequired[int]
    as_of: NotRequired[datetime | None]
    at: NotRequired[datetime | None]
    paradigm: NotRequired[str]
    mode: NotRequired[str]
    run_id: NotRequired[str]
    wish: NotRequired[Wish | None]
    given: NotRequired[Wish | None]
    shown: NotRequired[Sequence[str]]
    exclude: NotRequired[Sequence[str]]


class State(TypedDict, total=False):
    """One run. What was asked, what each node found, and what it cost. `query` is made harmless and short for prompts
    and searches; `said` is what the wish is read from, in the shopper's own letters ("<60")."""

    run_id: str
    user_id: str
    query: str
    said: str
    k: int
    as_of: datetime | None
    at: datetime | None
    today: datetime  # what prompts tell as the day: of `as_of`, `at` or now
    paradigm: str
    mode: str
    given: Wish | None
    wish: Wish | None
    shown: Sequence[str]
    exclude: Sequence[str]  # item ids that the request rules out
    history: Sequence[Event]  # the newest so many
    bought: Sequence[str]  # the items purchased in it and before it
    items: Annotated[Mapping[str, Item], merge]
    memory: Sequence[MemoryHit]
    summary: Summary | None
    blocks: int
    cached_blocks: int
    made: Annotated[list[Summary], operator.add]
    prediction: Prediction | None
    candidates: Sequence[Candidate]
    relaxed: Sequence[Relaxation]
    scored: Sequence[Scored]
    recommended: Sequence[Recommended]
    tokens: Annotated[Usage | None, add_usage]
    degraded: Annotated[list[str], operator.add]
    left_out: Annotated[list[LeftOut], operator.add]


CHECKPOINT_TYPES = (
    *(Event, Item, Summary, Usage, MemoryHit, Candidate, Prediction, Scored, Recommended),
    *(Wish, Price, Like, Relaxation, LeftOut),
)
