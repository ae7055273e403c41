"""Stage `examples`: prompts and answers to learn from, rendered by the very code that serves.
`recgraph train examples`.

    data/examples/{recommend,summarize}.parquet

`recommend` has a group of rows a case. One is the prompt of task NEXT as the graph would send it at the case's `as_of`,
with the target's ID and title; the others, which begin with the same text, are of task FIT: the target, answered Yes,
and a pool of products that were not chosen, answered No, from which training draws anew each epoch: `random` ones,
`alike` ones of the target's category, and `shown` ones from the result page the shopper had before them. No variant of
the target is ever a negative. The summary is that of the history before `as_of`; the query memory knows only whole
weeks before it.

A seeded share of users is held out: they are in the parts valid and test, with cases of those times, and never in
train. Which cases are taken depends on the seed and the ids alone, so that the same shop gives the same rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from recgraph.graph import prompts
from recgraph.graph.nodes import Nodes, NodeSettings
from recgraph.graph.state import RunContext, State
from recgraph.graph.summary.summarize import ProfileSummarizer, build_summarize
from recgraph.settings import Settings
from recgraph.store import snapshot
from recgraph.store.db import Store
from recgraph.store.parquet import write_table
from recgraph.store.records import Item, Summary
from recgraph.tools.embed import Encoder
from recgraph.tools.llm.chat import ChatText
from recgraph.tools.llm.places import find_llm
from recgraph.tools.llm.protocol import Prompt
from recgraph.tools.memory import QueryMemory
from recgraph.train import leaks
from recgraph.train.memory import read_queries
from recgraph.train.params import Params, block
from recgraph.train.pipeline import Note, progress, split_folder
from recgraph.train.prepare import PARTS, Case, read_cases
from recgraph.train.summary.examples import Plan, summary_examples

POOLS = ("random", "alike", "shown")


@dataclass(frozen=True)
class ExamplesParams:
    """The block `examples` of params.yaml. Cases are targets to learn from (0: all), `held_out` the share of users no
    adapter learns from, `summary_users` those whose histories are summarised (0: all), `pool` the negatives of each
    kind, `llm` whose tokens measure the prompts."""

    seed: int
    train_cases: int
    valid_cases: int
    test_cases: int
    held_out: float
    summary_users: int
    pool: int
    wording: Literal["fashion", "general"]
    llm: str

    @property
    def limits(self) -> dict[str, int]:
        """How many cases there are of each part at most."""
        return dict(zip(PARTS, (self.train_cases, self.valid_cases, self.test_cases), strict=True))


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt and its answer. Rows of one `group` share a case; `kind` says where the item or the summary comes
    from."""

    part: str
    user_id: str
    seq: int
    group: int
    item_id: str
    system: str
    user: str
    answer: str
    kind: str

    @property
    def judged(self) -> bool:
        """Whether it is of task FIT."""
        return self.answer in ("Yes", "No")


def choose(cases: Iterable[Case], limits: Mapping[str, int], held_out: float, seed: int) -> list[Case]:
    """At most `limits[part]` cases of each part in a seeded order (0: all), held-out users in valid and test only, all
    others in train only."""
    found: dict[str, list[tuple[str, Case]]] = {part: [] for part in PARTS}
    for case in cases:
        away = _share(f"{seed}:user:{case.user_id}") < held_out
        if away == (case.part != "train"):
            found[case.part].append((_digest(f"{seed}:case:{case.user_id}:{case.seq}"), case))
    chosen = []
    for part in PARTS:
        ordered = [case for _, case in sorted(found[part], key=lambda pair: pair[0])]
        chosen += ordered[: limits.get(part, 0) or None]
    return chosen


class Writer:
    """Renders cases over one store that holds everything; what a case may know is cut by its `as_of`."""

    def __init__(
        self, store: Store, encoder: Encoder, chat: ChatText | None, settings: Settings, pool: int, seed: int
    ) -> None:
        self._store, self._encoder, self._pool, self._seed = store, encoder, pool, seed
        catalogue = store.catalogue()
        self._ids = np.array(catalogue.item_ids)
        self._parents = dict(zip(catalogue.item_ids, catalogue.parent_ids, strict=True))
        self._since = catalogue.first_seen
        self._by_category: dict[str, list[int]] = {}
        self._category = dict(zip(catalogue.item_ids, catalogue.categories, strict=True))
        for place, category in enumerate(catalogue.categories):
            self._by_category.setdefault(category, []).append(place)
        self._made: dict[str, Summary] = {}
        self._summarize = build_summarize(
            ProfileSummarizer(store.meta("currency") or ""), self._made.get, block=settings.block, group=settings.merge
        )
        self._paradigm = settings.paradigm
        self._memory = lru_cache(maxsize=8)(lambda before: QueryMemory(store, encoder, before))
        self._nodes = Nodes(
            store,
            cast(Any, _Counter(chat)),
            cast(Any, None),
            lambda as_of, until=None: self._memory(_week(as_of)),
            NodeSettings.of(settings),
        )

    def rows(self, case: Case, group: int) -> list[Row]:
        """The rows of a case, that of NEXT first, then the FIT rows."""
        state = cast(
            State,
            {
                "user_id": case.user_id,
                "query": case.query,
                "as_of": case.as_of,
                "paradigm": self._paradigm,
                "items": {},
            },
        )
        for node in (self._nodes.load_history, self._nodes.recall_memory):
            update = node(state)
            state = cast(State, {**state, **update, "items": {**state["items"], **update.get("items", {})}})
        told = self._summarize.invoke(
            {key: state[key] for key in ("user_id", "paradigm", "history", "items")},
            context=cast(Any, RunContext()),
        )
        self._made.update((summary.input_hash, summary) for summary in told.get("made", ()))
        state["summary"] = told.get("summary")
        leaks.check_given(f"example {case.user_id}#{case.seq}", case.as_of, state["history"], state["summary"])
        context, wording = self._nodes.context(state)[0], self._nodes.settings.wording
        target = self._store.items([case.item_id])[case.item_id]
        pool = self._negatives(case, target)
        items = self._store.items([item_id for item_id, _ in pool])
        known = [(item_id, kind) for item_id, kind in pool if item_id in items]
        asked = prompts.fit_prompts(context, [target, *(items[i] for i, _ in known)], wording=wording)

        def row(item_id: str, text: Prompt, answer: str, kind: str) -> Row:
            return Row(case.part, case.user_id, case.seq, group, item_id, text.system, text.user, answer, kind)

        following = prompts.next_prompt(context, wording=wording)
        found = [row(case.item_id, following, prompts.answer_text(target), "next")]
        found += [row(case.item_id, asked[0], "Yes", "positive")]
        found += [row(item_id, text, "No", kind) for (item_id, kind), text in zip(known, asked[1:], strict=True)]
        return found

    def _negatives(self, case: Case, target: Item) -> list[tuple[str, str]]:
        """(item_id, kind), `pool` of each kind where there are so many; no item twice, none of the target's style."""
        draw = np.random.default_rng(int(_digest(f"{self._seed}:pool:{case.user_id}:{case.seq}")[:12], 16))
        there = self._since < np.datetime64(case.as_of)
        style = target.parent_id or target.item_id
        page = [] if not case.query else self._store.shown_at(case.query, case.as_of)
        alike = np.array(self._by_category.get(self._category.get(target.item_id, ""), []), dtype=np.int64)
        offers = {
            "shown": [page[i] for i in draw.permutation(len(page))],
            "alike": self._ids[draw.permutation(alike[there[alike]])][: 4 * self._pool].tolist(),
            "random": self._ids[
                draw.choice(len(self._ids), min(len(self._ids), 4 * self._pool), replace=False)
            ].tolist(),
        }
        taken: dict[str, str] = {}
        for kind, offered in offers.items():
            left = self._pool
            for item_id in offered:
                if left and item_id not in taken and (self._parents.get(item_id) or item_id) != style:
                    taken[item_id] = kind
                    left -= 1
        return list(taken.items())


class _Counter:
    """Stands where a run has its LLM: the prompt is cut to length by the tokens of the model that will learn it."""

    def __init__(self, chat: ChatText | None) -> None:
        self._chat = chat

    def count_tokens(self, text: str) -> int:
        return len(self._chat.encode(text)) if self._chat else (len(text) + 3) // 4


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes rows in their order, one Parquet column a field."""
    columns: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in Row.__slots__}
    columns |= {name: np.array(columns[name], np.int32) for name in ("seq", "group")}
    write_table(path, columns)


def _week(moment: datetime | None) -> datetime | None:
    """The start of the moment's week: a memory fitted at every case's own second would be thousands of memories."""
    if moment is None:
        return None
    return datetime(moment.year, moment.month, moment.day) - timedelta(days=moment.weekday())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _share(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int(_digest(text)[:12], 16) / 16**12


def run(params: Params, folder: Path, note: Note) -> None:
    """Params: split, the fields of `ExamplesParams`. Reads data/prepare and data/memory."""
    own, split = block(params, "examples", ExamplesParams), split_folder(params, folder)
    settings, seed = Settings(wording=own.wording), own.seed
    cases = choose(read_cases(split), own.limits, own.held_out, seed)
    target = folder / "data" / "examples"
    target.mkdir(parents=True, exist_ok=True)
    with snapshot.open_folder(folder / "data" / "prepare" / "all") as store:
        encoder = read_queries(folder, store)
        chat = _chat(find_llm(own.llm))
        writer = Writer(store, encoder, chat, settings, own.pool, seed)
        # in the order of time, for cases of one week share a query memory; written in the order they were chosen in
        ordered = sorted(enumerate(cases), key=lambda pair: pair[1].as_of)
        made = {group: writer.rows(case, group) for group, case in progress(ordered, "Writing examples")}
        recommend = [row for group in range(len(cases)) for row in made[group]]
    plan = Plan(settings.wording, settings.block, settings.merge, held_out=own.held_out / 2)
    with snapshot.open_folder(split / "train") as store:
        told = list(summary_examples(store, plan, seed, own.summary_users))
    told.sort(key=lambda row: _digest(f"{seed}:summary:{row.user_id}:{row.seq}:{row.kind}"))
    summaries = [Row(*(getattr(row, name) for name in Row.__slots__)) for row in told]
    write_rows(target / "recommend.parquet", recommend)
    write_rows(target / "summarize.parquet", [replace(row, group=number) for number, row in enumerate(summaries)])
    counts = {part: sum(case.part == part for case in cases) for part in PARTS}
    sizes = (
        f"{len(cases):,} prompts of task NEXT, {len(recommend) - len(cases):,} of FIT, {len(summaries):,} summaries to "
        "write: "
    )
    note(sizes + ", ".join(f"{n:,} cases {part}" for part, n in counts.items()))


def _chat(folder: Path) -> ChatText:
    from transformers import AutoTokenizer

    return ChatText(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
