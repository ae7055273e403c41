"""Runs the recommendation graph (graph/wiring.py): `Recommender` owns the tools, and is alone in writing to disk.

What a run leaves behind: new summaries in the store, the run itself in the run log beside it, and, where asked for,
checkpoints in an SQLite file from which the same request resumes after a crash. A disk or store that cannot be written
costs none of the answer.
"""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import StructuredTool

from recgraph.errors import EmptyStore, StoreError
from recgraph.graph.budget import Costs, Planner, Repeated, TimeBudget
from recgraph.graph.checkpoints import Checkpoints
from recgraph.graph.fits import Fits
from recgraph.graph.nodes import MOST_EVENTS, Nodes, NodeSettings
from recgraph.graph.reader import TitlesOnly
from recgraph.graph.recommendation import Recommendation
from recgraph.graph.replay.difference import Replay, beside
from recgraph.graph.replay.past import REQUEST, Begun, PastRun, recgraph_version, request_of
from recgraph.graph.state import RunContext, State
from recgraph.graph.summary.grounding import CatalogueWords
from recgraph.graph.summary.summarize import build_summarize
from recgraph.graph.summary.summarizers import LLMSummarizer, ProfileSummarizer, Summarizer
from recgraph.graph.tool import recommend_tool
from recgraph.graph.wiring import apart, build_graph, serializer
from recgraph.graph.wish import SEEN, Conversations, heard
from recgraph.settings import Settings, load_settings
from recgraph.store.db import Store
from recgraph.store.forget import forget_user
from recgraph.store.live.writer import StoreWriter
from recgraph.store.records import Event, Summary, as_utc
from recgraph.store.runs import RunLog, RunQueue
from recgraph.tools.embed import Encoder, encoder_of
from recgraph.tools.langchain_tools import ShopTool, memory_tool, retrieve_tool
from recgraph.tools.llm.adapter_sets import TASKS
from recgraph.tools.llm.open import InUse, open_adapted
from recgraph.tools.llm.protocol import LLM, Remembering
from recgraph.tools.wish.facets import Facets
from recgraph.tools.wish.filters import filters
from recgraph.tools.wish.understand import MOST_LETTERS
from recgraph.tools.wish.wish import Price, Wish

COSTS = "costs.json"  # in the cache folder: what the stages cost on this machine
REPLAYED_WITHIN = 600.0  # seconds for an answer given again, so that a slower machine changes nothing
_UNKNOWN = "qxzzyx"  # a word of no shop: to look for its meaning makes ready what all unknown words need
_SMALL_MODEL = 1_000_000_000  # below this many parameters a base model does not summarise or judge untrained (T 5.5)


Progress = Callable[[str, int, int], None]  # what is being done, how many are done, of how many (0 where unknown)


@dataclass(frozen=True)
class Step:
    """Progress of a run: a node (or one part of `summarize`) has ended. `ms` is its wall time, `detail` a few words or
    ""."""

    node: str
    ms: float
    detail: str = ""


class Recommender:
    """The whole recommender over one store. Use `Recommender.open`; close it, or use it in a `with` block.

    `graph` is the compiled LangGraph, to be run or to be a node of another one, sync or async: its input is a
    `RunRequest` (`user_id`, all else has a default), its result the `State`. Each run has the settings' deadline, or
    another one where `context=RunContext.within(seconds)` is given. A checkpointer of yours must be allowed
    `CHECKPOINT_TYPES` (`serializer()` in graph/wiring.py).
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        encoder: Encoder,
        llm: LLM | None,
        *,
        adapters: InUse | None = None,
        costs: Costs | None = None,
        checkpoint: str = "",
        progress: Progress | None = None,
        fits: Fits | None = None,
    ) -> None:
        """`adapters` says which adapters of `llm` to ask for which task; without it, those it has under the tasks' own
        names. `costs` are what its stages took before, for short deadlines. `fits` are those of several recommenders
        over this store with this encoder: who made them closes them, and the store."""
        self.store, self.settings, self.llm = store, settings, llm
        own = {task: task for task in TASKS if llm is not None and task in llm.adapters}
        self.adapters = adapters or InUse(settings.adapter, own)
        self.observers: list[Callable[[Recommendation], object]] = []  # each is told of every answer, whoever asked
        self.callbacks: list[Callable[[], BaseCallbackHandler]] = []  # each makes one for every run, where it is asked
        self._exit = ExitStack()
        if fits is None:
            self._exit.callback(store.close)
        if store.counts()["items"] == 0:
            self.close()
            raise EmptyStore(
                f"The store {store.path} has no items. Load some with `recgraph ingest PATH... --store {store.path}`."
            )
        self._fits = fits or Fits(store, encoder, progress)
        self.encoder, self._reader, self._vocabularies = self._fits.encoder, self._fits.reader, self._fits.vocabularies
        self._retriever, self._memory, self._live = self._fits.retriever, self._fits.memory, self._fits.live
        self._read: tuple[str, Facets] | None = None  # facets read before that, and the revision they are of
        self._writer = StoreWriter(store)
        self._exit.callback(self._writer.close)
        if fits is None:
            self._exit.callback(self._fits.close)
        self.currency, self._conversations = store.meta("currency") or "", Conversations()
        self._runs, self._logged = RunQueue(RunLog(store.path)), False
        self._exit.callback(self._runs.close)
        self._checkpointer = self._open_checkpoints(checkpoint) if checkpoint else None
        self._costs, self._wiring = costs or Costs(), threading.Lock()
        self._exit.callback(self._costs.keep)
        self._wire()

    def _wire(self) -> None:
        """The nodes and the graph, with the adapters as they are known."""
        planner, told = TimeBudget(self._costs), self._told(self.settings)
        self.summarizer = self._choose_summarizer(self.settings)
        summarize = build_summarize(
            self.summarizer,
            self._reader.summary,
            block=self.settings.block,
            group=self.settings.merge,
            planner=planner,
            after=told.asked_of_llm,
        )
        self.nodes = self._nodes(self.settings, planner)
        self.graph = build_graph(self.nodes, summarize, self.settings.deadline, self._checkpointer)

    def take_adapters(self) -> None:
        """Takes the adapters of a server that was away when this was opened, if it is there by now: else the base model
        would answer to the end. Each request does so."""
        if self.adapters.later is None:
            return
        with self._wiring:
            later = self.adapters.later  # another request may have done so meanwhile
            if later is not None and (found := later()) is not None:
                self.adapters = found
                self.__dict__.pop("_odds", None)
                self._wire()

    @classmethod
    def open(
        cls, store: str | Path | None = None, *, checkpoint: str = "", progress: Progress | None = None, **settings: Any
    ) -> Recommender:
        """Opens a store with the models the settings name. `settings` are fields of `Settings` (`mode="paper"`,
        `llm_url=...`).

        Retrieval alone answers unless a language model is asked for: `llm="default"` is the one at hand, with
        `adapter`, a set's name or folder, "none", or "" for the store's own. `checkpoint` is an SQLite file for
        resumable runs; `progress` is told of long work. Raises StoreError, EmptyStore, ModelMissing, SettingsError,
        LLMError.
        """
        chosen = load_settings(store=None if store is None else str(store), **settings)
        opened = Store.open(chosen.store)
        try:
            encoder = encoder_of(opened, chosen.embedder)
            llm, adapters = open_chosen(chosen, opened, (lambda text: progress(text, 0, 0)) if progress else None)
            costs = Costs(chosen.cache_folder / COSTS, f"{llm.name} {adapters.label}") if llm else None
            return cls(
                opened, chosen, encoder, llm, adapters=adapters, costs=costs, checkpoint=checkpoint, progress=progress
            )
        except BaseException:
            opened.close()
            raise

    def recommend(self, user_id: str, query: str = "", **asked: Any) -> Recommendation:
        """Ten (or `k`) products for a user, best first. Keywords as in `stream`, which also tells of progress."""
        for step in self.stream(user_id, query, **asked):
            if isinstance(step, Recommendation):
                return step
        raise AssertionError("a run ends in a recommendation")

    def stream(
        self,
        user_id: str,
        query: str = "",
        *,
        k: int | None = None,
        as_of: datetime | str | None = None,
        paradigm: str | None = None,
        mode: str | None = None,
        deadline: float | None = None,
        new_user: bool = False,
        wish: Wish | None = None,
        exclude: Sequence[str] = (),
        thread: str = "",
    ) -> Iterator[Step | Recommendation]:
        """Runs the graph and yields a `Step` as each node ends, the `Recommendation` last.

        `as_of` hides everything from that moment on (a datetime, UTC where it has no offset, or text as `parse_time`
        reads it); `deadline` is in seconds. `wish` is one given ready-made: it wins over the words of the query. What
        `exclude` names is never shown. Under a `thread` the requests of a user are one conversation: wishes add up, and
        "cheaper ones" means those of the last answer; this process keeps the last 1,000 of them. An unknown user raises
        UnknownUser unless `new_user`; SettingsError for a value out of range.
        """
        self.take_adapters()
        asked_for = {"k": k, "paradigm": paradigm, "mode": mode, "deadline": deadline}
        given: dict[str, Any] = {name: value for name, value in asked_for.items() if value is not None}
        settings = replace(self.settings, **given)
        if not new_user and not self._reader.history(user_id, limit=MOST_EVENTS):
            self.store.require_user(user_id)
        moment = as_utc(as_of)
        asked: State = {
            "user_id": user_id,
            "query": query[: MOST_LETTERS + 1].encode("utf-8", "replace").decode(),  # lone surrogates stop checkpoints
            "k": settings.k,
            "as_of": moment,
            "paradigm": settings.paradigm,
            "mode": settings.mode,
            "given": wish,
            "exclude": tuple(dict.fromkeys(exclude)),
        }
        if thread:
            asked["wish"], asked["shown"] = self._conversations.last(user_id, thread)
        return self._run(asked, settings, thread)

    def replay(self, run_id: str) -> Replay:
        """Gives a run of the run log again, by the request and the settings of then, and says how the answer differs
        and what it hung on that is another one now. Nothing is logged or kept of it. StoreError for a run that is not
        in the log, or was logged without its request."""
        past = PastRun.of(RunLog(self.store.path).find(run_id))
        settings, as_of, made = past.settings(self.settings), past.as_of(self.store), set(past.request["made"])
        planner = Repeated(past.left_out)
        summarize = build_summarize(
            self._choose_summarizer(settings),
            lambda key: None if key in made else self._reader.summary(key),  # made for that run, so not there yet
            block=settings.block,
            group=settings.merge,
            planner=planner,
        )
        graph = build_graph(self._nodes(settings, planner), summarize, REPLAYED_WITHIN)
        if isinstance(self.llm, Remembering):
            self.llm.start_afresh()
        begun = time.perf_counter()
        state = cast(State, graph.invoke(cast(Any, past.asked(as_of))))
        state = cast(State, {**state, "degraded": [*self.adapters.notes, *state.get("degraded", ())]})
        conditions = self._conditions(as_of)
        models = {**self.models, "store_revision": conditions["revision"]}
        timings = {"total": (time.perf_counter() - begun) * 1000}
        return beside(past, Recommendation.of(state, timings, models, self.currency), conditions)

    def warm_up(self, as_of: datetime | str | None = None, *, memory: bool = True) -> None:
        """Fits and loads what the first run as of that moment would: title and ID embeddings, the shop's vocabulary,
        and the `memory`, which only searches need."""
        moment = as_utc(as_of)
        self._vocabularies.listen(self._retriever(moment).fitted.facets)(_UNKNOWN, (), ())
        if memory:
            self._memory(moment).warm()

    def read_ahead(self, user_ids: Sequence[str]) -> None:
        """Reads in one go what answers to these users, neighbours best, begin with."""
        self._reader.read_ahead(user_ids, MOST_EVENTS)

    def understand(self, query: str, user_id: str = "", thread: str = "") -> Wish:
        """What a query is understood as, without an answer: the node `understand` alone. UnknownUser for a user whom
        the store does not know."""
        history = self._reader.history(user_id, limit=MOST_EVENTS) if user_id else []
        if user_id and not history:
            self.store.require_user(user_id)
        wish, shown = self._conversations.last(user_id, thread) if thread else (None, ())
        items = self._reader.items(sorted({event.item_id for event in history if event.item_id}))
        asked = {"query": query, "history": history, "items": items, "wish": wish, "shown": shown}
        listen = self._vocabularies.listen(self._facets_alone())
        return heard(cast(State, asked), listen, self._reader.items(list(shown)))

    def listen(self, words: str, user_id: str = "", shown: Sequence[str] = ()) -> Wish:
        """What words say after these products (item ids, best first), and what they take back: to be added to an
        earlier wish by `Wish.then`. Nobody has to be known for it."""
        history = self._reader.history(user_id, limit=MOST_EVENTS) if user_id else []
        met = list(dict.fromkeys(event.item_id for event in reversed(history) if event.item_id))[:SEEN]
        known = self._reader.items([*met, *shown])
        seen, last = ([known[one] for one in ids if one in known] for ids in (reversed(met), shown))
        return self._vocabularies.listen(self._facets_alone())(words, seen, last)

    def filters(
        self,
        want: Mapping[str, Sequence[str]] | None = None,
        avoid: Mapping[str, Sequence[str]] | None = None,
        price: Price | None = None,
    ) -> Wish:
        """A wish to give to `recommend`, all of it hard: values by attribute, in the shop's spelling or nearly so.
        SettingsError for what no product has; it lists near ones."""
        return filters(self._facets(), want or {}, avoid or {}, price)

    def _facets(self) -> Facets:
        return self._retriever(None).fitted.facets or Facets.of(self.store)

    def _facets_alone(self) -> Facets | None:
        """Those of the retriever where one was made. To make it costs seconds, which only words need not wait for."""
        if self._fits.served:
            return self._retriever(None).fitted.facets
        revision = self.store.revision()
        if self._read is None or self._read[0] != revision:
            self._read = revision, Facets.of(self.store)
        return self._read[1]

    def tools(self) -> list[StructuredTool]:
        """The query-product memory and the retrieval as langchain-core tools with typed arguments, for an assistant of
        your own."""
        shop = ShopTool(
            lambda: self._retriever(None),
            lambda: self._vocabularies.of(self._facets()),
            self._reader.items,
            self.currency,
        )
        return [memory_tool(self._memory(None)), retrieve_tool(shop)]

    def as_tool(self, user_id: str = "") -> StructuredTool:
        """`recommend` for an agent of LangChain or LangGraph: a model gives `query` and `k`, and the `user_id` where
        none is fixed here; for a model that shoppers talk to, fix it. The artifact is the public JSON."""
        return recommend_tool(self, user_id)

    def record(self, events: Sequence[Event], ids: Sequence[str] = ()) -> list[Event]:
        """Writes what shoppers just did; the next answer knows it. As `Store.record_events`; no other process can read
        the store meanwhile and until nothing was written for a second."""
        return self._writer.record_events(events, ids)

    def upsert(self, items: Sequence[Mapping[str, Any]]) -> list[str]:
        """Writes new and changed products (a price, a stock); the next answer knows them. As `Store.upsert_items`;
        takes the store as `record` does."""
        return self._writer.upsert_items(items)

    def forget(self, user_id: str) -> dict[str, int]:
        """Takes a shopper out of all that is kept, the conversations of this process among it; as `forget_user`."""
        self._conversations.forget(user_id)
        return forget_user(self.store, user_id)

    def close(self) -> None:
        """Writes what is not in the run log and the store yet, and closes the store and the checkpoints."""
        self._exit.close()

    def __enter__(self) -> Recommender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, asked: State, settings: Settings, thread: str) -> Iterator[Step | Recommendation]:
        started = last = time.perf_counter()
        begun, context = Begun.now(self.llm), RunContext.within(settings.deadline)
        inputs, config, resumed = self._begin(asked)
        config["callbacks"] = [made() for made in self.callbacks]
        timings: dict[str, float] = {}
        state = cast(State, {})
        events = self.graph.stream(
            cast(Any, inputs),
            config,
            context=cast(Any, context),
            stream_mode=["updates", "values"],
            subgraphs=True,
            durability="sync" if self._checkpointer else None,
        )
        for namespace, kind, payload in apart(cast("Iterator[tuple[tuple[str, ...], str, Any]]", events)):
            now = time.perf_counter()
            if kind == "values":
                state = cast(State, payload) if not namespace else state
            elif namespace:
                yield Step("summarize", (now - last) * 1000, _detail(payload))
            else:
                for name in payload:
                    node = name.removeprefix("__error_handler__")
                    timings[node] = timings.get(node, 0.0) + (now - last) * 1000
                    yield Step(node, timings[node], "resumed" if resumed else "")
                last = now
        timings["total"] = (time.perf_counter() - started) * 1000
        unsaved = self._save(state) + (self._checkpointer.take_problem() if self._checkpointer else [])
        state = cast(State, {**state, "degraded": [*self.adapters.notes, *state.get("degraded", ()), *unsaved]})
        if thread:
            self._conversations.keep(state["user_id"], thread, state.get("wish"), state.get("shown") or ())
        conditions = self._conditions(asked["as_of"])
        models = {**self.models, "store_revision": conditions["revision"]}
        found = Recommendation.of(state, timings, models, self.currency)
        note = self._log(found, request_of(asked, settings, conditions, begun, state))
        found = found if note is None else replace(found, degraded=(*found.degraded, note))
        for tell in self.observers:
            tell(found)
        yield found

    def _begin(self, asked: State) -> tuple[State | None, RunnableConfig, bool]:
        """Input and config of a run. With checkpoints, the same unfinished request goes on where it stopped (input
        None), in the same version of recgraph: another one may have other nodes, and hold other things."""
        fresh: State = {**asked, "run_id": uuid.uuid4().hex[:12]}
        if self._checkpointer is None:
            return fresh, {}, False
        hangs_on = self.store.revision(), self.models, recgraph_version()
        identity = repr((sorted(asked.items(), key=lambda pair: pair[0]), *hangs_on))
        thread = hashlib.sha256(identity.encode()).hexdigest()[:32]
        config: RunnableConfig = {"configurable": {"thread_id": thread}}
        if self.graph.get_state(config).tasks:  # not `.next`, which leaves out a task that ended just before the kill
            return None, config, True
        self._checkpointer.delete_thread(thread)
        return fresh, config, False

    @property
    def models(self) -> dict[str, str]:
        """What answers: LLM, adapter, embedder and the store's revision."""
        return {
            "llm": self.llm.name if self.llm else "none",
            "adapter": self.adapters.label,
            "embedder": self.encoder.name,
            "store_revision": self._live.revision,
        }

    def _save(self, state: State) -> list[str]:
        made = state.get("made") or []
        if not made:
            return []
        self._reader.made(made)
        try:
            self._writer.save_summaries(made)
        except StoreError as error:
            return [f"save: summaries were not kept for next time: {error}"]
        return []

    def _conditions(self, as_of: datetime | None) -> dict[str, str]:
        """What an answer as of a moment hangs on beside its request."""
        revision = self._live.revision if as_of is None else self.store.revision()
        return {
            **{name: value for name, value in self.models.items() if name != "store_revision"},
            "revision": revision,
            "fitted": self._live.fitted if as_of is None else revision,
            "parts": self._fits.parts,
            "version": recgraph_version(),
        }

    def _log(self, found: Recommendation, request: Mapping[str, object]) -> str | None:
        try:
            self._runs.add({**found.to_dict(), REQUEST: request})
            if not self._logged:  # at once, so that the first answer tells what is wrong with the log
                self._runs.flush()
                self._logged = True
        except StoreError as error:
            return f"save: this run is not in the run log: {error}"
        return f"save: this run is not in the run log yet: {self._runs.trouble}" if self._runs.trouble else None

    def _told(self, settings: Settings) -> NodeSettings:
        odds, names = self._odds, self.adapters.names
        return NodeSettings.of(settings, self.currency, large=self._large, adapters=names, odds=odds)

    @cached_property
    def _odds(self) -> float | None:
        """What the adapter's Yes and No were measured to be worth in this shop."""
        if not self.adapters.judging:
            return None
        shop = "simulated" if self.store.meta("simulated") else self.store.meta("name") or ""
        return self.adapters.odds_in(shop)

    def _nodes(self, settings: Settings, planner: Planner | None = None) -> Nodes:
        reader = self._reader if settings.attributes == "shown" else TitlesOnly(self._reader)
        listen = self._vocabularies.listen
        return Nodes(reader, self.llm, self._retriever, self._memory, self._told(settings), listen, planner)

    @property
    def _large(self) -> bool:
        """Whether the base model summarises and judges untrained. One whose size is not known is taken for a large
        one."""
        return self.llm is not None and (self.llm.parameters or _SMALL_MODEL) >= _SMALL_MODEL

    def _choose_summarizer(self, settings: Settings) -> Summarizer:
        kind, llm, adapter = settings.summarizer, self.llm, self.adapters.names.get("summarize")
        if kind == "auto":
            adapter = adapter if self.adapters.summarizes else None  # it may have learnt to copy
            # In this process on a CPU an LLM's summary costs seconds a block.
            kind = "llm" if self._large or (adapter and not (llm and llm.on_cpu)) else "profile"
        if kind == "profile" or llm is None:
            return ProfileSummarizer(self.currency)
        vocabulary = CatalogueWords(self.store.attribute_values())
        weights = self.adapters.weights.get("summarize", "") if adapter else ""
        return LLMSummarizer(
            llm, vocabulary, wording=settings.wording, currency=self.currency, adapter=adapter, weights=weights
        )

    def _open_checkpoints(self, path: str) -> Checkpoints:
        opened = Checkpoints(path, serializer())
        self._exit.callback(opened.close)
        return opened


def open_chosen(chosen: Settings, store: Store, note: Callable[[str], None] | None = None) -> tuple[LLM | None, InUse]:
    """The language model that the settings ask for, with its adapters; None where they ask for none. `note` hears of
    long work. Raises ModelMissing, LLMError."""
    if not chosen.asks_llm:
        return None, InUse()
    return open_adapted(
        chosen.adapter,
        store.meta("adapter"),
        store.path,
        model=chosen.llm,
        url=chosen.llm_url,
        api_key=chosen.llm_api_key,
        cache=chosen.cache_folder,
        note=note,
    )


def _detail(update: dict[str, Any]) -> str:
    """A few words on an update inside `summarize`."""
    for name, values in update.items():
        made: list[Summary] = (values or {}).get("made") or []
        if name in ("step", "write") and made:
            return (
                f"block {made[0].block + 1}"
                if made[0].level == 0
                else f"merge {made[0].block + 1} of level {made[0].level}"
            )
    return ""
