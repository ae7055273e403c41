"""Stage `summarize`: the preference summaries of all users, made ahead in both paradigms, as a run of now would make
and cache them.

It drives the very subgraph of `graph/summary/summarize.py`, so every input hash is the one a run looks for; a store
that has the summaries answers with all blocks cached. What an LLM wrote is kept beside the out as it is made
(`data/summarize.part`): killed and started again, the stage goes on where it stopped. Knows nothing of what is learnt
from summaries (`train/summary/examples.py`). Command: `recgraph train summarize`.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from recgraph.graph.prompts import VERSIONS
from recgraph.graph.summary.grounding import CatalogueWords
from recgraph.graph.summary.summarize import build_summarize
from recgraph.graph.summary.summarizers import LLMSummarizer, ProfileSummarizer, Summarizer
from recgraph.settings import Settings, load_settings
from recgraph.store import snapshot
from recgraph.store.db import Store
from recgraph.store.records import Summary
from recgraph.tools.llm.open import open_llm
from recgraph.train import leaks
from recgraph.train.params import Params, block
from recgraph.train.pipeline import Note, needed, progress
from recgraph.train.prepare import Case

_ALL = 1 << 40
# users asked about at once where a server batches them (CPU server: 67 tokens/s for one, 423 for 16)
_SERVED_AT_ONCE = 16


@dataclass(frozen=True)
class SummarizeParams:
    """The block `summarize` of params.yaml. `block` and `merge` as in Settings; of `users` (0: all) a seeded sample;
    `llm` and `adapter`, the folder or served name of a `summarize` adapter, are for `summarizer: llm`."""

    summarizer: Literal["profile", "llm"]
    paradigms: tuple[Literal["recurrent", "hierarchical"], ...]
    block: int
    merge: int
    users: int = 0
    seed: int = 0
    llm: str = ""
    adapter: str = ""


def run(params: Params, folder: Path, note: Note) -> None:
    """Params: the fields of `SummarizeParams`. Reads data/prepare/all, writes data/summarize/summaries.parquet.
    SettingsError, StoreError, and the LLM's errors."""
    own = block(params, "summarize", SummarizeParams)
    paradigms = list(own.paradigms)
    # A stage's door: where a server or a cache is named by the environment, it is the one a run would take.
    settings = load_settings(folder=folder, summarizer=own.summarizer, block=own.block, merge=own.merge)
    part = folder / "data" / "summarize.part"
    with snapshot.open_folder(needed(folder / "data" / "prepare" / "all", "prepare")) as store:
        users = chosen_users([row.user_id for row in store.users(limit=_ALL)], own.users, own.seed)
        if settings.summarizer == "profile":
            found, notes = summarize_users(
                store, users, ProfileSummarizer(store.meta("currency") or "", whole=False), paradigms, settings
            )
        else:
            writer = llm_summarizer(store, settings, own.llm, own.adapter, note)
            at_once = _SERVED_AT_ONCE if settings.llm_url else 1
            kept = part / _identity(
                writer.name,
                VERSIONS["summarize"],
                store.revision(),
                settings.wording,
                settings.block,
                settings.merge,
                paradigms,
            )
            found, notes = summarize_users(store, users, writer, paradigms, settings, kept, at_once)
    out = folder / "data" / "summarize" / "summaries.parquet"
    out.parent.mkdir(parents=True, exist_ok=True)
    snapshot.write_summaries(out, found)
    shutil.rmtree(part, ignore_errors=True)
    made = Counter(summary.paradigm for summary in found)
    note(f"{len(found)} summaries of {len(users)} users: " + ", ".join(f"{made[name]} {name}" for name in paradigms))
    if notes:
        note(f"{len(notes)} were replaced by the profile, e.g. {notes[0]}")


def chosen_users(user_ids: Iterable[str], number: int = 0, seed: int = 0) -> list[str]:
    """All users sorted, or `number` of them by a seeded hash: a larger sample contains the smaller one."""
    ordered = sorted(user_ids)
    if not 0 < number < len(ordered):
        return ordered
    return sorted(sorted(ordered, key=lambda user_id: hashlib.sha256(f"{seed}:{user_id}".encode()).digest())[:number])


def llm_summarizer(
    store: Store, settings: Settings, llm: str, adapter: str, note: Note = lambda _: None
) -> LLMSummarizer:
    """The summarizer a run would use with this LLM; `adapter` is the folder (or served name) of a `summarize` adapter,
    "" for none."""
    model = open_llm(
        llm or settings.llm,
        settings.llm_url,
        settings.llm_api_key,
        {"summarize": adapter} if adapter else None,
        settings.cache_folder,
        note,
    )
    currency, vocabulary = store.meta("currency") or "", CatalogueWords(store.attribute_values())
    return LLMSummarizer(
        model, vocabulary, wording=settings.wording, currency=currency, adapter="summarize" if adapter else None
    )


def summarize_users(
    store: Store,
    users: Sequence[str],
    summarizer: Summarizer,
    paradigms: Sequence[str],
    settings: Settings,
    kept: Path | None = None,
    at_once: int = 1,
) -> tuple[list[Summary], list[str]]:
    """Every summary a run over these users' whole histories would cache, and what had to be replaced (as in
    `degraded`).

    In the folder `kept` each user's summaries are kept as soon as they are made, and not made again. `at_once` users
    are worked on at the same time.
    """
    graph = build_summarize(summarizer, lambda _: None, block=settings.block, group=settings.merge)

    def one(user_id: str) -> tuple[list[Summary], list[str]]:
        file = kept / f"{_identity(user_id)}.parquet" if kept else None
        if file and file.is_file():
            return snapshot.read_summaries(file), []
        history = store.history(user_id)
        items = store.items(sorted({event.item_id for event in history if event.item_id}))
        found: dict[str, Summary] = {}
        notes: list[str] = []
        for paradigm in paradigms:
            asked: dict[str, Any] = {"user_id": user_id, "paradigm": paradigm, "history": history, "items": items}
            state = graph.invoke(asked)
            found |= {summary.input_hash: summary for summary in state.get("made") or []}
            notes += state.get("degraded") or []
        if file:
            half = file.with_suffix(".new")  # a kill while writing leaves no half file to be read
            snapshot.write_summaries(half, list(found.values()))
            half.replace(file)
        return list(found.values()), notes

    summaries: list[Summary] = []
    replaced: list[str] = []
    with ThreadPoolExecutor(at_once) as pool:
        for made, notes in progress(_in_turn(pool, one, users, at_once), "Summaries of users", len(users)):
            summaries += made
            replaced += notes
    return summaries, replaced


def check_summaries(
    store: Store, summaries: Sequence[Summary], cases: Iterable[Case], *, block: int = 5, merge: int = 4
) -> None:
    """No summary may rest on an event later than its own last one, and those that the cases would be given, with those
    that these build on, on nothing later than the case. They are looked for as a run looks for them; `store` has all
    events.

    That others know more than a cut is right, as a history does. SettingsError names the summary or the case, and the
    event.
    """
    for summary in summaries:
        leaks.check_summary(summary)
    known = {summary.input_hash: summary for summary in summaries}
    writers = sorted({(summary.paradigm, summary.model) for summary in summaries})
    found: list[Summary] = []

    def lookup(key: str) -> None:
        """Keeps what is there and denies it: a run would stop at the newest summary it finds, this goes through all of
        them."""
        found.extend([known[key]] if key in known else [])

    graphs = {name: build_summarize(_Instead(name), lookup, block=block, group=merge) for _, name in writers}
    for case in cases:
        history = store.history(case.user_id, case.as_of)
        items = store.items(sorted({event.item_id for event in history if event.item_id}))
        for paradigm, name in writers:
            found.clear()
            graphs[name].invoke({"user_id": case.user_id, "paradigm": paradigm, "history": history, "items": items})
            for summary in found:
                leaks.check_given(f"{case.user_id}#{case.seq}", case.as_of, history, summary)


class _Instead(ProfileSummarizer):
    """Looks for the summaries of another summarizer; what it writes itself is thrown away."""

    def __init__(self, name: str) -> None:
        super().__init__(whole=False)
        self.name = name


def _identity(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _in_turn(
    pool: ThreadPoolExecutor, one: Callable[[str], tuple[list[Summary], list[str]]], users: Sequence[str], at_once: int
) -> Iterator[Any]:
    """Results in the users' order. Only `at_once` users are begun at a time, so that an error or a kill leaves little
    behind."""
    if at_once == 1:
        yield from map(one, users)
        return
    waiting = iter(users)
    while several := list(islice(waiting, at_once)):
        yield from pool.map(one, several)
