"""What recgraph asks of a language model: `generate` text and `score` given answers, both batched, with an adapter
name.

Two implementations share this protocol: `LocalLLM` (local.py: transformers + peft, in process) and `ServerLLM`
(server.py: vLLM's OpenAI API). This file knows neither: it holds the protocol and its records; open.py chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Prompt:
    """A chat prompt: the system text and one user text. Put what prompts share first: the prefix is computed once.

    Both texts must already be clean (`graph.prompts.clean`): no control token of any chat template in catalogue or
    query text.
    """

    system: str
    user: str


@dataclass(frozen=True, slots=True)
class Form:
    """A constrained answer: `lead` + one of `choices` + `middle` + free text up to the end of the line.

    For the recommender: lead "ID: ", choices the catalogue ids it may name, middle "\\nTitle: ". `drafts` maps a choice
    to the free text that probably follows (the catalogue title): in process it is checked in one forward pass instead
    of a pass a token, and never changes the greedy answer. Servers get the same form as a regular expression.
    """

    lead: str
    choices: tuple[str, ...]
    middle: str
    drafts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call or of several added up; `cached` are prompt tokens whose key-value cache was reused."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt + other.prompt, self.completion + other.completion, self.cached + other.cached)


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated answer. `finished` is False where the length limit or the deadline cut it off."""

    text: str
    finished: bool


class LLM(Protocol):
    """A causal language model with a chat template.

    `name` identifies the weights (for cache keys and the run's record); `parameters` is their number, None where
    unknown; `adapters` are the adapter names that may be asked for; `max_choices` is the number of choices of the
    largest Form it takes; `on_cpu` says that it computes on this machine's processor, where a written token costs tens
    of milliseconds. `deadline` is a `time.monotonic()` value or None.

    Raises LLMUnavailable, LLMTimeout (the deadline passed), LLMGarbled; ValueError for an unknown adapter.
    """

    name: str
    parameters: int | None
    adapters: tuple[str, ...]
    max_choices: int
    on_cpu: bool

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int = 64,
        form: Form | None = None,
        adapter: str | None = None,
        deadline: float | None = None,
    ) -> tuple[list[Completion], Usage]:
        """Greedy answers, one a prompt, in order."""
        ...

    def score(
        self,
        prompts: Sequence[Prompt],
        *,
        answers: tuple[str, str] = ("Yes", "No"),
        adapter: str | None = None,
        deadline: float | None = None,
    ) -> tuple[list[tuple[float, float]], Usage]:
        """For each prompt the log-probabilities of the first token of the two answers (T eq. 2), natural log; a server
        may give them among the two alone.

        Where the deadline passes after some prompts were scored, the first so many may be given; LLMTimeout where there
        are none. Their difference is the logit difference, so p = sigmoid(difference) (DESIGN 7, first row).
        """
        ...

    def count_tokens(self, text: str) -> int:
        """The number of tokens of a text; an estimate (characters / 4) is allowed where there is no tokenizer at
        hand."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A language model that goes on from what earlier prompts began with. That is exact but for the rounding of its
    numbers, so an answer that must come out the same begins without."""

    @property
    def warm(self) -> bool:
        """Whether there is anything to go on from."""
        ...

    def start_afresh(self) -> None:
        """Drops what earlier prompts left."""
        ...


@runtime_checkable
class Carrying(Protocol):
    """A language model that is asked by HTTP requests, which can have headers of the caller's."""

    def carry(self, headers: Callable[[], Mapping[str, str]]) -> None:
        """Sends these besides. They are asked for once a call, in the thread that calls the model."""
        ...
