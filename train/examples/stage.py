"""Stage `examples`: prompts and answers to learn from, rendered by the very code that serves.
`recgraph train examples`.

    data/examples/{recommend,summarize}.parquet

`recommend` has a group of rows a case. One is the prompt of task NEXT as the graph would send it at the case's `as_of`,
with the target's ID and title; the others, which begin with the same text, are of task FIT: the target, answered Yes,
and a pool of products that were not chosen, answered No, from which training draws anew each epoch
(negatives.py). The summary is that of the history before `as_of`; the query memory knows only whole weeks before it.

A seeded share of users is held out: they are in the parts valid and test, with cases of those times, and never in
train. Which cases are taken depends on the seed and the ids alone, so that the same shop gives the same rows. Simulated
shops of other seeds (`examples.shops`) give more cases of the part train, and none of another; beside a shop that is
not simulated they are left out.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

from recgraph.graph import prompts
from recgraph.graph.nodes import Nodes, NodeSettings
from recgraph.graph.state import RunContext, State
from recgraph.graph.summary.summarize import build_summarize
from recgraph.graph.summary.summarizers import ProfileSummarizer
from recgraph.settings import Settings
from recgraph.store import snapshot
from recgraph.store.db import Store
from recgraph.store.records import Event, Item, Summary
from recgraph.tools.embed import Encoder
from recgraph.tools.llm.chat import ChatText
from recgraph.tools.llm.places import find_llm
from recgraph.tools.llm.protocol import Prompt
from recgraph.tools.memory import QueryMemory
from recgraph.train import leaks
from recgraph.train.examples.negatives import Negatives
from recgraph.train.examples.rows import Columns, Row, columns_of, write_columns, write_rows
from recgraph.train.examples.served import Served
from recgraph.train.memory import read_queries
from recgraph.train.params import Params, block
from recgraph.train.pipeline import Note, progress, split_folder
from recgraph.train.prepare import PARTS, Case, read_cases
from recgraph.train.shop.others import build_shop, check_seeds
from recgraph.train.summary.examples import Plan, summary_examples

_SLICE = 400  # cases at least that are worth a process of their own, which takes seconds to begin
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class ExamplesParams:
    """The block `examples` of params.yaml. Cases are targets to learn from (0: all), `train_cases` those of each shop,
    `held_out` the share of users no adapter learns from, `summary_users` those whose histories are summarised (0: all),
    `pool` the negatives of each kind, `shops` the seeds of simulated shops to learn from beside the own one, `llm`
    whose tokens measure the prompts. What is written does not depend on the number of `processes`."""

    seed: int
    train_cases: int
    valid_cases: int
    test_cases: int
    held_out: float
    summary_users: int
    pool: int
    wording: Literal["fashion", "general"]
    llm: str
    shops: tuple[int, ...] = ()
    processes: int = 1

    @property
    def limits(self) -> dict[str, int]:
        """How many cases there are of each part at most."""
        return dict(zip(PARTS, (self.train_cases, self.valid_cases, self.test_cases), strict=True))


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
        self,
        store: Store,
        encoder: Encoder,
        chat: ChatText | None,
        settings: Settings,
        pool: int,
        seed: int,
        served: Served | None = None,
    ) -> None:
        """`served` is what hard negatives are taken from."""
        self._store, self._negatives = _KeptItems(store), Negatives(store, pool, seed, served)
        self._made: dict[str, Summary] = {}
        self._summarize = build_summarize(
            ProfileSummarizer(store.meta("currency") or ""), self._made.get, block=settings.block, group=settings.merge
        )
        self._paradigm = settings.paradigm
        self._memory = lru_cache(maxsize=8)(lambda before: QueryMemory(store, encoder, before))
        self.nodes = Nodes(
            self._store,
            cast(Any, _Counter(chat)),
            cast(Any, None),
            lambda as_of, until=None: self._memory(_week(as_of)),
            NodeSettings.of(settings),
        )

    def state(self, case: Case) -> State:
        """What a run knows of a case when it asks the language model. SettingsError where that is more than it may."""
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
        for node in (self.nodes.load_history, self.nodes.recall_memory):
            update = node(state)
            state = cast(State, {**state, **update, "items": {**state["items"], **update.get("items", {})}})
        told = self._summarize.invoke(
            {key: state[key] for key in ("user_id", "paradigm", "history", "items")},
            context=cast(Any, RunContext()),
        )
        self._made.update((summary.input_hash, summary) for summary in told.get("made", ()))
        state["summary"] = told.get("summary")
        leaks.check_given(f"example {case.user_id}#{case.seq}", case.as_of, state["history"], state["summary"])
        return state

    def rows(self, case: Case, group: int) -> list[Row]:
        """The rows of a case, that of NEXT first, then the FIT rows."""
        state = self.state(case)
        context, wording = self.nodes.context(state)[0], self.nodes.settings.wording
        target = self._store.items([case.item_id])[case.item_id]
        pool = self._negatives.of(case, state["history"], state["memory"])
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


class _KeptItems:
    """What the nodes read of a store; the products stay in memory, for the cases of a shop ask for the same ones."""

    def __init__(self, store: Store) -> None:
        self._store, self._items = store, dict[str, Item]()

    def items(self, item_ids: Sequence[str]) -> dict[str, Item]:
        if missing := [item_id for item_id in item_ids if item_id not in self._items]:
            self._items.update(self._store.items(missing))
        return {item_id: self._items[item_id] for item_id in item_ids if item_id in self._items}

    def history(self, user_id: str, before: datetime | None = None, limit: int | None = None) -> list[Event]:
        return self._store.history(user_id, before, limit)

    def bought(self, user_id: str, before: datetime | None = None) -> list[str]:
        return self._store.bought(user_id, before)

    def offered(self, before: datetime | None = None) -> int:
        return self._store.offered(before)


class _Counter:
    """Stands where a run has its LLM: the prompt is cut to length by the tokens of the model that will learn it."""

    def __init__(self, chat: ChatText | None) -> None:
        self._chat = chat

    def count_tokens(self, text: str) -> int:
        return len(self._chat.encode(text)) if self._chat else (len(text) + 3) // 4


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


# ── The stage ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Part:
    """Cases of one shop in order of time, each with its group; `name` goes before the users of another shop than the
    own one, so that none is taken for one of these."""

    folder: Path
    split: str
    name: str
    cases: Sequence[tuple[int, Case]]


def run(params: Params, folder: Path, note: Note) -> None:
    """Params: split, shop, prepare, memory, the fields of `ExamplesParams`. Reads data/prepare, title_embeddings,
    memory and what the ranking needs."""
    own, split = block(params, "examples", ExamplesParams), split_folder(params, folder)
    seeds = own.shops if snapshot.meta(folder / "data" / "prepare" / "all").get("simulated") else ()
    if own.shops and not seeds:
        note("examples.shops is left out: simulated shops say little of another one")
    check_seeds(params, seeds)
    settings, target = Settings(wording=own.wording), folder / "data" / "examples"
    chosen = choose(read_cases(split), own.limits, own.held_out, own.seed)
    with tempfile.TemporaryDirectory(prefix="recgraph-examples-") as scratch:
        shops = {"": (folder, chosen)}
        for seed in seeds:
            place = Path(scratch) / str(seed)
            build_shop(params, folder, seed, place, note)
            cases = choose(read_cases(split_folder(params, place), "train"), own.limits, 0.0, own.seed)
            shops[f"shop {seed}: "] = place, cases
        made = _made(list(_parts(shops, split.name, own)), own, settings)
    plan = Plan(settings.wording, settings.block, settings.merge, held_out=own.held_out / 2)
    with snapshot.open_folder(split / "train") as store:
        told = list(summary_examples(store, plan, own.seed, own.summary_users))
    told.sort(key=lambda row: _digest(f"{own.seed}:summary:{row.user_id}:{row.seq}:{row.kind}"))
    write_columns(target / "recommend.parquet", made)
    write_rows(target / "summarize.parquet", [replace(row, group=number) for number, row in enumerate(told)])
    counts = Counter(one["part"][0] for one in made)
    fit = sum(len(one["part"]) - 1 for one in made)
    sizes = f"{len(made):,} prompts of task NEXT, {fit:,} of FIT, {len(told):,} summaries to write: "
    note(sizes + ", ".join(f"{counts[part]:,} cases {part}" for part in PARTS))


def _parts(shops: Mapping[str, tuple[Path, Sequence[Case]]], split: str, own: ExamplesParams) -> Iterator[_Part]:
    """The cases of all shops, numbered in a seeded order part by part, so that the first are a fair sample; cut for the
    processes by time, as cases of a week share a query memory."""

    def place(pair: tuple[str, Case]) -> tuple[int, str]:
        name, case = pair
        return PARTS.index(case.part), _digest(f"{own.seed}:case:{name}{case.user_id}:{case.seq}")

    ordered = sorted(((name, case) for name, (_, cases) in shops.items() for case in cases), key=place)
    numbers: dict[str, list[tuple[int, Case]]] = {name: [] for name in shops}
    for group, (name, case) in enumerate(ordered):
        numbers[name].append((group, case))
    for name, (folder, _) in shops.items():
        some = sorted(numbers[name], key=lambda pair: pair[1].as_of)
        count = min(own.processes, max(1, len(some) // _SLICE))
        for low, high in pairwise(round(len(some) * n / count) for n in range(count + 1)):
            yield _Part(folder, split, name, some[low:high])


def _made(parts: Sequence[_Part], own: ExamplesParams, settings: Settings) -> list[Columns]:
    """The rows of each case, by group."""
    found: dict[int, Columns] = {}
    if len(parts) == 1 or own.processes == 1:
        for part in parts:
            found.update(_rendered(part, own, settings))
    else:
        spawn = multiprocessing.get_context("spawn")
        with _one_thread(), ProcessPoolExecutor(own.processes, spawn) as pool:
            for job in [pool.submit(_rendered, part, own, settings) for part in parts]:
                found.update(job.result())
    return [found[group] for group in sorted(found)]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that are begun meanwhile compute with one thread each. Threads that wait for each other take
    the processors from the other processes."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _rendered(part: _Part, own: ExamplesParams, settings: Settings) -> dict[int, Columns]:
    """The rows of some cases of a shop, by group."""
    prepared, found = part.folder / "data" / "prepare", dict[int, Columns]()
    train_folder = prepared / part.split / "train"
    with snapshot.open_folder(prepared / "all") as store, snapshot.open_folder(train_folder) as train:
        encoder = read_queries(part.folder, store)
        served = Served.of(train, encoder, part.folder)
        writer = Writer(store, encoder, chat_of(find_llm(own.llm)), settings, own.pool, own.seed, served)
        for group, case in progress(part.cases, "Writing examples"):
            rows = writer.rows(case, group)
            found[group] = columns_of([replace(row, user_id=part.name + row.user_id) for row in rows])
    return found


def chat_of(folder: Path) -> ChatText:
    """The tokenizer and the chat template of the model in a folder."""
    from transformers import AutoTokenizer

    return ChatText(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
