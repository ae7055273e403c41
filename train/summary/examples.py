"""What the adapter `summarize` learns from: the very prompts of block, recurrent and merged summaries, with the
counting summarizer's facts as answers, in words that differ from row to row.

A pure function of a store (the train part of a split) and a seed. A user's rows depend on the user alone, so a larger
shop keeps them. The summary that a recurrent or merge prompt builds on states the facts of its own step, worded by
another seed. Answers are held to what a run demands of an LLM (`graph/summary/grounding.py`): nothing named that the
prompt does not show, no copying.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from recgraph.graph.prompts import block_prompt, merge_prompt, recurrent_prompt
from recgraph.graph.summary.blocks import split_blocks
from recgraph.graph.summary.grounding import CatalogueWords, copied
from recgraph.graph.summary.summarizers import data_lines
from recgraph.store.db import Store
from recgraph.store.records import Event, Item
from recgraph.tools.llm.protocol import Prompt
from recgraph.train.examples.rows import Row
from recgraph.train.summary.facts import Gist, Kind, Shown, gist
from recgraph.train.summary.phrases import phrase

_LONGEST_CHAIN = 24  # blocks before a recurrent example: what a step learns does not depend on how many came before
_TRIES = 8
_LONG = 50  # words, about 75 tokens: another wording is tried
_MOST_COPIED = 0.3  # share of 8-grams; a run refuses an answer above 0.5


@dataclass(frozen=True)
class Plan:
    """How the prompts are made (as a run makes them) and how many rows of each kind a user gives at most."""

    wording: str = "fashion"
    block: int = 5
    merge: int = 4
    per_user: Mapping[str, int] = field(default_factory=lambda: {"block": 1, "recurrent": 2, "merge": 1})
    held_out: float = 0.1  # share of users in valid, and again in test


def summary_examples(store: Store, plan: Plan, seed: int, users: int = 0) -> Iterator[Row]:
    """Rows of all users of the store (`users` of them by a seeded hash where not 0), sorted by user: `seq` is the last
    event covered, `item_id` is "", `group` a running number."""
    currency = store.meta("currency") or ""
    vocabulary = CatalogueWords(store.attribute_values())
    ids = sorted(
        (row.user_id for row in store.users(limit=1 << 40)), key=lambda user_id: _share(f"{seed}:sample:{user_id}")
    )
    group = 0
    for user_id in sorted(ids[:users] if users else ids):
        history = store.history(user_id)
        items = store.items(sorted({event.item_id for event in history if event.item_id}))
        for row in user_examples(user_id, history, items, plan, vocabulary, seed, currency):
            yield Row(
                part_of(user_id, seed, plan.held_out),
                user_id,
                row.seq,
                group,
                "",
                row.prompt.system,
                row.prompt.user,
                row.answer,
                row.kind,
            )
            group += 1


def part_of(user_id: str, seed: int, held_out: float) -> str:
    """train, valid or test, by a seeded hash of the user."""
    share = _share(f"{seed}:user:{user_id}")
    return "test" if share < held_out else "valid" if share < 2 * held_out else "train"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A prompt and answer before it has a part and a number."""

    kind: Kind
    seq: int
    prompt: Prompt
    answer: str


def user_examples(
    user_id: str,
    history: Sequence[Event],
    items: Mapping[str, Item],
    plan: Plan,
    vocabulary: CatalogueWords,
    seed: int,
    currency: str = "",
) -> list[Drawn]:
    """One user's rows, by kind. Fewer than asked for where the history is short, or where no wording of the facts
    passes the checks."""
    if not any(event.item_id in items for event in history):
        return []
    rng = Random(f"{seed}:{user_id}")
    writer = _Writer(items, plan, vocabulary, currency, rng)
    makers = {"block": writer.block, "recurrent": writer.recurrent, "merge": writer.merged}
    drawn: list[Drawn] = []
    for kind, make in makers.items():
        for _ in range(plan.per_user.get(kind, 0)):
            row = make(history)
            if row and all(row.prompt != other.prompt for other in drawn):
                drawn.append(row)
    return drawn


class _Writer:
    """Draws examples of one user."""

    def __init__(
        self, items: Mapping[str, Item], plan: Plan, vocabulary: CatalogueWords, currency: str, rng: Random
    ) -> None:
        self.items, self.plan, self.vocabulary, self.currency, self.rng = items, plan, vocabulary, currency, rng

    def block(self, history: Sequence[Event]) -> Drawn | None:
        events = self.rng.choice(split_blocks(self._cut(history), self.plan.block))
        lines = data_lines(events, self.items, self.currency)
        return self._drawn("block", events, events, (), lines, block_prompt(lines, wording=self.plan.wording))

    def recurrent(self, history: Sequence[Event]) -> Drawn | None:
        """The step that a history ending at a drawn place would take last."""
        blocks = split_blocks(self._cut(history), self.plan.block)[:_LONGEST_CHAIN]
        if len(blocks) < 2:
            return None
        said: Gist | None = None
        text = ""
        for done, block in enumerate(blocks[:-1]):
            before = [event for each in blocks[: done + 1] for event in each]
            shown = Shown([*data_lines(block, self.items, self.currency), *([text] if text else [])], self.currency)
            told = gist("recurrent" if said else "block", before, block, self.items, (said,) if said else (), shown)
            said = told or said
            text = phrase(said, self.rng, self.currency) if said else ""
        if not said:
            return None
        lines = data_lines(blocks[-1], self.items, self.currency)
        covered = [event for block in blocks for event in block]
        return self._drawn(
            "recurrent",
            covered,
            blocks[-1],
            (said,),
            [*lines, text],
            recurrent_prompt(text, lines, wording=self.plan.wording),
        )

    def merged(self, history: Sequence[Event]) -> Drawn | None:
        """One group of block summaries, or of merged ones, two to `merge` of them."""
        blocks = split_blocks(self._cut(history), self.plan.block)
        level = [(block, self._of_block(block)) for block in blocks]
        if len(level) > self.plan.merge and self.rng.random() < 0.3:
            level = [self._of_group(group) for group in self._groups(level)]
        groups = [group for group in self._groups(level) if len(group) > 1 and all(told for _, told in group)]
        if not groups:
            return None
        group = self.rng.choice(groups)
        parts = [told for _, told in group if told]
        texts = [phrase(told, self.rng, self.currency) for told in parts]
        covered = [event for events, _ in group for event in events]
        return self._drawn("merge", covered, (), parts, texts, merge_prompt(texts, wording=self.plan.wording))

    def _cut(self, history: Sequence[Event]) -> Sequence[Event]:
        """Half of the time the whole history, else its beginning: runs summarise blocks that are not full yet."""
        return history if self.rng.random() < 0.5 else history[: self.rng.randint(1, len(history))]

    def _groups(
        self, level: Sequence[tuple[list[Event], Gist | None]]
    ) -> list[Sequence[tuple[list[Event], Gist | None]]]:
        return [level[start : start + self.plan.merge] for start in range(0, len(level), self.plan.merge)]

    def _of_block(self, block: list[Event]) -> Gist | None:
        return gist(
            "block", block, block, self.items, (), Shown(data_lines(block, self.items, self.currency), self.currency)
        )

    def _of_group(self, group: Sequence[tuple[list[Event], Gist | None]]) -> tuple[list[Event], Gist | None]:
        covered = [event for events, _ in group for event in events]
        parts = [told for _, told in group if told]
        if len(parts) < 2:
            return covered, parts[0] if parts else None
        texts = [phrase(told, self.rng, self.currency) for told in parts]
        return covered, gist("merge", covered, (), self.items, parts, Shown(texts, self.currency))

    def _drawn(
        self,
        kind: Kind,
        covered: Sequence[Event],
        new: Sequence[Event],
        parts: Sequence[Gist],
        shown: Sequence[str],
        prompt: Prompt,
    ) -> Drawn | None:
        told = gist(kind, covered, new, self.items, parts, Shown(shown, self.currency))
        if not told:
            return None
        fit: list[str] = []
        for _ in range(_TRIES):
            answer = phrase(told, self.rng, self.currency)
            if copied(answer, "\n".join(shown)) <= _MOST_COPIED and not self.vocabulary.ungrounded(answer, shown):
                fit.append(answer)
                if len(answer.split()) <= _LONG:
                    break
        return (
            Drawn(kind, max(event.seq for event in covered), prompt, min(fit, key=lambda text: len(text.split())))
            if fit
            else None
        )


def _share(text: str) -> float:
    """A number in [0, 1) that depends on the text alone; the same hash holds out users of the other two tasks."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12
