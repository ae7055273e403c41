"""Who writes one summary: the profile, which counts, and the language model, whose answer is checked (T 4.1, 5.5.2).

In which order the blocks of a history are summarised, and what is kept, is graph/summary/summarize.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from recgraph.graph import prompts
from recgraph.graph.prompts import (
    VERSIONS,
    block_prompt,
    clean,
    event_text,
    merge_prompt,
    parse_summary,
    recurrent_prompt,
    stricter,
)
from recgraph.graph.state import State
from recgraph.graph.summary.grounding import CatalogueWords, copied, sentences, support
from recgraph.graph.summary.profile import profile
from recgraph.store.records import Event, Item, Summary
from recgraph.tools.llm.protocol import LLM, Prompt, Usage

VERSION = VERSIONS["summarize"]  # of the prompts that a cached summary was asked with
Sentences = tuple[tuple[str, tuple[int, ...]], ...]
# share of 8-grams that may stand literally in the input; above it a model copies instead of summarising (T 5.5.2)
MOST_COPIED = 0.5


@dataclass(frozen=True)
class Work:
    """One summary to write: the events it covers, those that are new, and the summaries it builds on (oldest first).

    First block: new = covered, no parts. Recurrent step: new = the block, parts = (previous,). Merge: parts = the
    group.
    """

    key: str
    user_id: str
    paradigm: str
    level: int
    block: int
    covered: Sequence[Event]
    new: Sequence[Event]
    parts: Sequence[Summary]


@dataclass(frozen=True)
class Written:
    """What a summarizer made of one piece of work. `notes` say what had to be replaced; they end in `degraded`."""

    sentences: Sentences
    model: str
    usage: Usage = field(default_factory=Usage)
    notes: tuple[str, ...] = ()


class Summarizer(Protocol):
    """Writes one summary. `name` is part of the cache key; `whole` says that it needs the events alone, so that no
    summaries of their parts have to be made first. Raises the LLM's errors."""

    name: str
    whole: bool

    def write(self, work: Work, items: Mapping[str, Item], deadline: float | None) -> Written: ...


class ProfileSummarizer:
    """Counts instead of asking a model (graph/summary/profile.py): true by construction, with the events."""

    name = "profile"

    def __init__(self, currency: str = "", *, whole: bool = True) -> None:
        """Without `whole` each block gets its summary, for moments in the middle of a history."""
        self.currency, self.whole = currency, whole

    def write(self, work: Work, items: Mapping[str, Item], deadline: float | None = None) -> Written:
        recurrent = work.paradigm == "recurrent" and work.block > 0
        level = "recurrent" if recurrent else "merged" if work.level else "block"
        new = work.new if recurrent else ()
        return Written(profile(work.covered, items, new=new, level=level, currency=self.currency), self.name)  # type: ignore[arg-type]


class LLMSummarizer:
    """Asks the LLM with T's prompts and checks the answer against its input.

    An answer that is empty, names a brand, category or colour that stands neither in its block nor in the summaries it
    builds on, or copies its input, is asked for once more and then replaced by the profile summary. `weights` tells the
    adapter's weights apart, so that another adapter does not answer with the cached summaries of this one.
    """

    whole: bool = False

    def __init__(
        self,
        llm: LLM,
        vocabulary: CatalogueWords,
        *,
        wording: str,
        currency: str = "",
        adapter: str | None = None,
        weights: str = "",
    ) -> None:
        self.llm, self.vocabulary, self.wording, self.adapter, self.currency = (
            llm,
            vocabulary,
            wording,
            adapter,
            currency,
        )
        self.name = "+".join(filter(None, (llm.name, adapter, weights)))
        self.fallback = ProfileSummarizer(currency)

    def write(self, work: Work, items: Mapping[str, Item], deadline: float | None) -> Written:
        lines = data_lines(work.new, items, self.currency)
        earlier = [part.text for part in work.parts]
        if work.paradigm == "recurrent":
            prompt = (
                recurrent_prompt(earlier[0], lines, wording=self.wording)
                if earlier
                else block_prompt(lines, wording=self.wording)
            )
            sources = [*lines, *earlier]
        else:
            prompt = (
                merge_prompt(earlier, wording=self.wording) if earlier else block_prompt(lines, wording=self.wording)
            )
            sources = earlier or lines
        text, usage, fault = self._ask(prompt, sources, deadline)
        if fault:
            text, more, fault = self._ask(stricter(prompt, fault), sources, deadline)
            usage += more
        if fault:
            spare = self.fallback.write(work, items)
            return Written(
                spare.sentences,
                spare.model,
                usage,
                (f"summarize: {work.key} by {self.name} replaced by the profile. {fault}",),
            )
        paired = tuple((sentence, support(sentence, work.covered, items)) for sentence in sentences(text))
        return Written(paired, self.name, usage)

    def _ask(self, prompt: Prompt, sources: Sequence[str], deadline: float | None) -> tuple[str, Usage, str]:
        """The answer, its cost, and what is wrong with it ("" where nothing is)."""
        [answer], usage = self.llm.generate([prompt], max_tokens=160, adapter=self.adapter, deadline=deadline)
        text = parse_summary(answer.text)
        if not text:
            return text, usage, prompts.FAULT_EMPTY
        invented = sorted(self.vocabulary.ungrounded(text, sources))
        if invented:
            return text, usage, prompts.fault_invented(invented[:5])
        if copied(text, "\n".join(sources)) > MOST_COPIED:
            return text, usage, prompts.FAULT_COPIED
        return text, usage, ""


def data_lines(events: Sequence[Event], items: Mapping[str, Item], currency: str = "") -> list[str]:
    """A block's events as the summary prompts show them. Variants of a style share a description: it is said with the
    first of them."""
    lines: list[str] = []
    said: set[str] = set()
    for event in events:
        line = event_text(event, items, with_id=False)
        item = items.get(event.item_id)
        if item and item.price is not None:
            line += f"; {price_text(item.price, currency)}"
        if item and item.description and item.description not in said:
            said.add(item.description)
            line += f". {clean(item.description, 160)}"
        lines.append(line)
    return lines


def price_text(price: float, currency: str = "") -> str:
    """A price in whole units, as the summary prompts show it."""
    return f"{clean(currency, 8)}{price:.0f}"


def profile_fallback(state: State, currency: str = "") -> Summary | None:
    """The whole history's profile, for when the LLM summarizer failed: not cached, because it is not what was asked
    for."""
    history = state.get("history") or ()
    return profile_of(state["user_id"], state["paradigm"], history, state["items"], currency) if history else None


def profile_of(
    user_id: str, paradigm: str, history: Sequence[Event], items: Mapping[str, Item], currency: str = ""
) -> Summary:
    """The profile of a history that is not empty, under no key of the cache."""
    work = Work("all", user_id, paradigm, 0, 0, history, history, ())
    written = ProfileSummarizer(currency).write(work, items)
    seqs = tuple(event.seq for event in history)
    return Summary(
        "",
        user_id,
        paradigm,
        0,
        0,
        max(seqs),
        written.sentences,
        tuple(sorted(seqs)),
        "profile",
        VERSION,
    )
