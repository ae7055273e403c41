"""The nodes of the recommendation graph but `summarize`, each a function of the state and of the tools it is given.

`load_history → understand → recall_memory → summarize → recommend → retrieve → rerank → explain` (DESIGN 4). A node
returns only what it changed. The LLM nodes raise the LLM's errors; the `without_*` functions are their fallbacks, which
take over when retries are used up and say what is missing in `degraded`, so that a failing or late LLM never loses a
request.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TypeVar

from langgraph.errors import NodeError
from langgraph.runtime import Runtime
from langgraph.types import Command, Overwrite

from recgraph.errors import LLMError
from recgraph.graph import prompts
from recgraph.graph.blend import MOST_LIFTED, SMALL_WEIGHT, blend, in_order, is_sure
from recgraph.graph.budget import LeftOut, Part, Planner, TimeBudget
from recgraph.graph.explain import reasons
from recgraph.graph.reader import StoreReader
from recgraph.graph.state import RunContext, State
from recgraph.graph.summary.summarizers import profile_fallback
from recgraph.graph.wish import Listen, heard
from recgraph.settings import Settings
from recgraph.store.records import Event, Item, as_utc
from recgraph.tools.candidates import Candidate
from recgraph.tools.llm.protocol import LLM, Prompt, Usage
from recgraph.tools.llm.untrusted import nameable
from recgraph.tools.memory import QueryMemory
from recgraph.tools.retrieve import RetrievalQuery, Retriever
from recgraph.tools.wish.facets import Facets, Relaxation
from recgraph.tools.wish.filters import unknown_values
from recgraph.tools.wish.understand import MOST_LETTERS
from recgraph.tools.wish.wish import Wish

_STAND_BY = 2
# Events of a shopper that are read, the newest. Somebody with more, a bot mostly, costs no more than one with as many.
MOST_EVENTS = 500
NOTHING_LEFT = "Nothing to recommend"
NAMED_NOTHING = "recommend: the answer named no product of the catalogue"
_PARTS_TOLD, _PART_LETTERS = 12, 60  # of a wish, in a note
Tool = TypeVar("Tool", covariant=True)


@dataclass(frozen=True)
class NodeSettings:
    """What the nodes are told of the settings, and what follows from the model that answers. Names as in `Settings`."""

    wording: str = "fashion"
    currency: str = ""
    recent: int = 3
    history: int = 2
    prompt_tokens: int = 1024
    constrain: str = "shown"
    free_title: bool = True
    memory_queries: int = 2
    memory_products: int = 2
    candidates: int = 20
    mixup: int = 1
    rerank_weight: float = SMALL_WEIGHT
    odds: float | None = None  # of an adapter that was measured in this shop (`blend`)
    next_adapter: str | None = None
    fit_adapter: str | None = None
    k: int = 10  # this and the next two: where the request does not say
    paradigm: str = "recurrent"
    mode: str = "fused"
    store: str = ""  # its path, to be named in a command that mends

    @classmethod
    def of(
        cls,
        settings: Settings,
        currency: str = "",
        *,
        large: bool = False,
        adapters: Mapping[str, str] | None = None,
        odds: float | None = None,
    ) -> NodeSettings:
        """The one place where they are made. `large`: the base model judges and writes titles untrained (T 5.5);
        `adapters` by task; `odds`: what Yes and No were measured to be worth in this shop, where they were."""
        tasks = adapters or {}
        # What a small model writes in place of the chosen product's own title brings nothing in mode fused, and takes
        # a pass or two; that its neighbours come first is what mode paper is (F 4.4).
        writes = large or ("next" in tasks and settings.mode == "paper")
        named = {one.name for one in fields(cls)} & {one.name for one in fields(settings)} - {"rerank_weight"}
        return cls(
            **{name: getattr(settings, name) for name in named},
            currency=currency,
            rerank_weight=settings.rerank_weight
            if settings.rerank_weight is not None
            else (1.0 if large else SMALL_WEIGHT),
            odds=odds if settings.rerank_weight is None else None,
            free_title=writes if settings.titles == "auto" else settings.titles == "free",
            next_adapter=tasks.get("next"),
            fit_adapter=tasks.get("fit"),
        )

    @property
    def asked_of_llm(self) -> Mapping[Part, int]:
        """What a language model is asked after the summary, by part."""
        return {"recommend": 1, "rerank": self.judged(self.k)} if self.rerank_weight else {"recommend": 1}

    def judged(self, k: int) -> int:
        """How many candidates are reranked: no more than can come among the first `k`."""
        return self.candidates if self.rerank_weight >= 1 else min(self.candidates, k + MOST_LIFTED)

    def retrieved(self, k: int, mode: str, model: bool) -> int:
        """How many candidates are retrieved. Where none is reranked, the first `k` are shown as they are, and a few
        more stand by for those that were taken off sale meanwhile."""
        reranked = (model and self.rerank_weight > 0) or mode == "paper"
        return max(self.candidates, k) if reranked else k + _STAND_BY


class FittedTool(Protocol[Tool]):
    """Gives a tool fitted before a moment (None is now). What is not embedded at `until` is done without."""

    def __call__(self, as_of: datetime | None, until: float | None = None) -> Tool: ...


class Nodes:
    """The nodes over one set of tools. What may be recommended, and which ids an answer may name, the retriever of the
    moment says: it knows a product that was added a moment ago."""

    def __init__(
        self,
        reader: StoreReader,
        llm: LLM | None,
        retriever: FittedTool[Retriever],
        memory: FittedTool[QueryMemory],
        settings: NodeSettings,
        listen: Callable[[Facets | None], Listen] | None = None,
        planner: Planner | None = None,
    ) -> None:
        """Without `listen` the words of a query are only searched for, and only a given wish is held to. `planner` says
        what fits into the time."""
        self.reader, self.llm, self.retriever, self.memory, self.settings = reader, llm, retriever, memory, settings
        self.planner = planner or TimeBudget()
        self._named: tuple[Sequence[str], Sequence[str]] = ((), ())  # a catalogue's ids, and those that can be named
        self.listen = listen or (lambda facets: lambda text, seen, shown: Wish())

    def begin(self, state: State, runtime: Runtime[RunContext]) -> Command[Literal["understand", "explain"]]:
        """The request with its defaults, the history, and what this moment needs made ready. Where nothing is left to
        recommend, it says so and nothing else is done."""
        s, context = self.settings, RunContext.of(runtime)
        as_of = state.get("as_of")
        asked: State = {
            "run_id": state.get("run_id") or uuid.uuid4().hex[:12],
            "user_id": state["user_id"],
            "query": prompts.clean(state.get("query") or "", prompts.ASKED_LIMIT),
            "said": (state.get("query") or "")[:MOST_LETTERS],
            "k": state.get("k") or s.k,
            "as_of": as_utc(as_of),
            "today": as_utc(as_of) or state.get("at") or datetime.now(UTC),
            "paradigm": state.get("paradigm") or s.paradigm,
            "mode": state.get("mode") or s.mode,
            "exclude": tuple(state.get("exclude") or ()),
        }
        update: State = {**asked, **self.load_history(asked)}
        if len(state.get("query") or "") > MOST_LETTERS:
            update["degraded"] = [
                *update["degraded"],
                f"understand: the request was read up to letter {MOST_LETTERS:,}",
            ]
        if not self._any_left([*dict.fromkeys((*update["bought"], *asked["exclude"]))], update["as_of"]):
            there = " that were there before the as-of time" if update["as_of"] else ""
            ruled = ", already bought or ruled out" if asked["exclude"] else " or already bought"
            note = f"{NOTHING_LEFT}: all products{there} are sold out{ruled}."
            nothing: State = {"memory": [], "summary": None, "prediction": None, "candidates": [], "scored": []}
            update = {**update, **nothing, "relaxed": [], "degraded": [*update["degraded"], note]}
            return Command(update=_afresh(state, update), goto="explain")
        # first: titles are needed by every request, stored queries by searches
        self.retriever(update["as_of"], context.ready_by)
        if update["query"] and s.memory_queries:
            self.memory(update["as_of"]).warm(context.ready_by)
        return Command(update=_afresh(state, update), goto="understand")

    def _any_left(self, gone: Sequence[str], as_of: datetime | None) -> bool:
        """Whether anything but this may be recommended. Asked of the store: to make a retriever may take long."""
        offered = self.reader.offered(as_of)
        if offered > len(gone):
            return True
        taken = [one for one in self.reader.items(gone).values() if one.offered]
        return offered > sum(as_of is None or one.first_seen is None or one.first_seen < as_of for one in taken)

    def load_history(self, state: State) -> State:
        """The user's events before `as_of`, the newest MOST_EVENTS, oldest first, the products in them, and what they
        bought before."""
        user_id, as_of = state["user_id"], state.get("as_of")
        history = self.reader.history(user_id, as_of, MOST_EVENTS)
        bought = {event.item_id for event in history if event.action == "purchase"}
        if len(history) == MOST_EVENTS:
            bought.update(self.reader.bought(user_id, as_of))
        missing = (
            [] if history else ["load_history: no events of this user" + (" before the as-of time" if as_of else "")]
        )
        items = self.reader.items(sorted({event.item_id for event in history if event.item_id}))
        return {"history": history, "bought": sorted(bought), "items": items, "degraded": missing}

    def understand(self, state: State, runtime: Runtime[RunContext]) -> State:
        """What is asked for, as a `Wish`: the words of this turn added to those of the conversation."""
        facets = self.retriever(state.get("as_of"), RunContext.of(runtime).ready_by).fitted.facets
        shown = self.reader.items(list(state.get("shown") or ()))
        notes = [f"understand: {note}" for note in unknown_values(facets, state.get("given"))]
        # what was given is part of the sum now: in a thread it is not given once more
        return {"wish": heard(state, self.listen(facets), shown), "given": None, "relaxed": [], "degraded": notes}

    def recall_memory(self, state: State, runtime: Runtime[RunContext] | None = None) -> State:
        """F 4.2: the stored queries nearest to this one, and what was on top of their results."""
        s, query = self.settings, state.get("query") or ""
        if not query or not s.memory_queries:
            return {"memory": []}
        memory = self.memory(state.get("as_of"))
        hits = memory.lookup(
            query, s.memory_queries, s.memory_products, until=RunContext.of(runtime).ready_by if runtime else None
        )
        late = [self._unembedded("recall_memory", memory.unembedded, "stored queries are")] if memory.unembedded else []
        return {
            "memory": hits,
            "items": self.reader.items(sorted({item_id for hit in hits for item_id in hit.item_ids})),
            "degraded": late,
        }

    def _unembedded(self, node: str, count: int, what: str) -> str:
        """The note on what the time did not suffice for."""
        store = f" --store {self.settings.store}" if self.settings.store else ""
        late = f"{node}: embedding took the time: {count:,} {what} not embedded yet and cannot be found by their words."
        return f"{late} To embed them all once: recgraph build{store}"

    def recommend(self, state: State, runtime: Runtime[RunContext]) -> State:
        """F 4.2: the LLM names the next item by id and title. The id can only be one of the catalogue's
        (`constrain`)."""
        deadline = RunContext.of(runtime).deadline
        if self.llm is None:
            return {"prediction": None}
        fits, left_out = self.planner.choose("recommend", 1, deadline, {})
        if not fits:
            return {"prediction": None, "left_out": [left_out] if left_out else []}
        retriever = self.retriever(state.get("as_of"), RunContext.of(runtime).ready_by)
        prompt, shown = self.next_prompt(state)
        choices = self._choices(retriever, shown)
        form = prompts.next_form(choices, state["items"], free_title=self.settings.free_title) if choices else None
        with self.planner.timed("recommend", 1):
            [answer], usage = self.llm.generate(
                [prompt], max_tokens=64, form=form, adapter=self.settings.next_adapter, deadline=deadline
            )
        prediction = prompts.parse_next(
            answer.text, retriever.rows.__contains__, {key: state["items"][key] for key in shown}
        )
        notes = [] if prediction.item_id else [NAMED_NOTHING]
        return {"prediction": prediction, "tokens": usage, "degraded": notes}

    def retrieve(self, state: State, runtime: Runtime[RunContext]) -> State:
        """F 4.4: catalogue items for the predicted text, at least `candidates` and `k` of them where the catalogue has
        so many for which the hard parts of the wish hold. Where those are fewer than k, or none is all that was named,
        what could give way."""
        return self.retrieve_all([state], RunContext.of(runtime).ready_by)[0]

    def retrieve_all(self, states: Sequence[State], until: float | None = None) -> list[State]:
        """`retrieve` for several requests as of one moment."""
        retriever = self.retriever(states[0].get("as_of"), until)
        proposed = retriever.candidates_of([self._asked(state) for state in states])
        predicted = [one.item_id for state in states if (one := state.get("prediction")) and one.item_id]
        wanted = [candidate.item_id for one in proposed for candidate in one]
        items = self.reader.items(list(dict.fromkeys([*wanted, *predicted])))
        return [self._found(state, retriever, one, items) for state, one in zip(states, proposed, strict=True)]

    def _asked(self, state: State) -> RetrievalQuery:
        s, prediction = self.settings, state.get("prediction")
        return RetrievalQuery(
            prediction.item_id if prediction else "",
            prediction.title if prediction else "",
            state.get("query") or "",
            state["history"],
            state["memory"],
            s.retrieved(state["k"], state["mode"], self.llm is not None),
            state["mode"],
            s.mixup,
            exclude=_ruled_out(state),
            wish=state.get("wish"),
        )

    def _found(
        self, state: State, retriever: Retriever, proposed: Sequence[Candidate], items: Mapping[str, Item]
    ) -> State:
        """What is left of the proposed, with those of the `items` that it speaks of."""
        prediction, wish = state.get("prediction"), state.get("wish")
        spoken_of = [*(one.item_id for one in proposed), *([prediction.item_id] if prediction else [])]
        # the retriever answers on as it was while all is fitted anew, and a product may have been taken off meanwhile
        found = [one for one in proposed if one.item_id in items and items[one.item_id].offered]
        notes: list[str] = []
        relaxed: Sequence[Relaxation] = ()
        enough = len(found) >= state["k"]
        if wish and wish.hard and (not enough or found[0].fits < len(wish.named)):
            relaxed = retriever.relaxations(wish, _ruled_out(state), enough=enough)
            if not found:
                asked_for = " · ".join(
                    prompts.clean(part, _PART_LETTERS) for part in wish.parts(self.settings.currency)[:_PARTS_TOLD]
                )
                notes = [f"{NOTHING_LEFT}: nothing that is left holds to what was asked for ({asked_for})."]
        late = [] if retriever.complete else [self._unembedded("retrieve", retriever.fitted.unembedded, "titles are")]
        return {
            "candidates": found,
            "items": {item_id: items[item_id] for item_id in spoken_of if item_id in items},
            "relaxed": relaxed,
            "degraded": [*late, *notes],
        }

    def rerank(self, state: State, runtime: Runtime[RunContext]) -> State:
        """T 4.3: one Yes/No prompt a candidate. Of the first `candidates` those are scored that the scores can bring
        among the first k, or as many of them as fit into the time; further ones keep their order behind them. With a
        weight of 0 nothing is asked, nor where a learnt ranking is sure of its first, unless the model ranks alone.
        What fits more of the named parts of the wish stays before what fits fewer."""
        s = self.settings
        if self.llm is None or not s.rerank_weight or not state["candidates"]:
            return {"scored": in_order(state["candidates"])}
        deadline = RunContext.of(runtime).deadline
        there = min(s.candidates, len(state["candidates"]))
        reach = min(there, s.judged(state["k"]))
        if s.rerank_weight < 1 and is_sure(state["candidates"]):
            return {"scored": in_order(state["candidates"]), "left_out": [LeftOut("rerank", 0, reach, sure=True)]}
        left_out = [LeftOut("rerank", reach, there)] if reach < there else []
        fitting, late = self.planner.choose("rerank", reach, deadline, {})
        left_out += [late] if late else []
        if not fitting:
            return {"scored": in_order(state["candidates"]), "left_out": left_out}
        items = [state["items"][candidate.item_id] for candidate in state["candidates"][:fitting]]
        asked = prompts.fit_prompts(self.context(state)[0], items, wording=s.wording)
        with self.planner.timed("rerank", len(asked)) as done:
            pairs, usage = self.llm.score(asked, adapter=s.fit_adapter, deadline=deadline)
            done(len(pairs))
        scored = blend(state["candidates"][: len(pairs)], pairs, s.rerank_weight, s.odds)
        lowest = min(line.score for line in scored)
        cut_short = [
            f"rerank: the deadline passed after {len(pairs)} of {len(asked)} candidates (the others follow in the "
            "order of retrieval)"
        ]
        return {
            "scored": [*scored, *in_order(state["candidates"][len(pairs) :], below=lowest)],
            "tokens": usage,
            "degraded": cut_short if len(pairs) < len(asked) else [],
            "left_out": left_out,
        }

    def explain(self, state: State, runtime: Runtime[RunContext]) -> State:
        """A reason for each of the first k, made of events of this user, remembered queries and what the shop's
        shoppers did."""
        if not state["scored"]:
            return {"recommended": [], "shown": []}
        found = reasons(state, self.retriever(state.get("as_of"), RunContext.of(runtime).ready_by))
        return {"recommended": found, "shown": [line.item.item_id for line in found]}

    def without_summary(self, state: State, error: NodeError) -> Command[Any]:
        """The LLM summarizer failed: the profile stands in."""
        update = {
            "summary": profile_fallback(state, self.settings.currency),
            "degraded": [_fallback_note(error, "the counted profile stands in")],
        }
        return Command(update=update, goto="recommend")

    def without_prediction(self, state: State, error: NodeError) -> Command[Any]:
        """The recommender LLM failed: retrieval goes on without a prediction."""
        return Command(
            update={"prediction": None, "degraded": [_fallback_note(error, "retrieved without a prediction")]},
            goto="retrieve",
        )

    def without_scores(self, state: State, error: NodeError) -> Command[Any]:
        """The reranker failed: the order of retrieval stands."""
        note = _fallback_note(error, "in the order of retrieval")
        return Command(update={"scored": in_order(state["candidates"]), "degraded": [note]}, goto="explain")

    def _recent(self, state: State) -> tuple[list[Event], list[Event]]:
        """Earlier events and the most recent ones, from the `recent`-th last item event on, so that its searches stay
        with it."""
        events = list(state["history"])
        places = [place for place, event in enumerate(events) if event.item_id]
        cut = (
            places[-self.settings.recent]
            if 0 < self.settings.recent <= len(places)
            else (0 if self.settings.recent else len(events))
        )
        recent = [event for event in events[cut:] if event.item_id]
        return [*events[:cut], *(event for event in events[cut:] if not event.item_id)], recent

    def next_prompt(self, state: State) -> tuple[Prompt, list[str]]:
        """The prompt of task NEXT and the ids it shows, in the order shown."""
        context, shown = self.context(state)
        return prompts.next_prompt(context, wording=self.settings.wording), shown

    def context(self, state: State) -> tuple[str, list[str]]:
        """What both tasks' prompts begin with, the same for both, so that it is read once; training writes its examples
        with it too. Cut to `prompt_tokens` by dropping the oldest events. And the ids it shows, in the order shown."""
        assert self.llm is not None
        s, summary, known = self.settings, state.get("summary"), state["items"]
        earlier, recent = self._recent(state)
        shown_earlier = earlier[-s.history :] if s.history else []
        shared = prompts.shared_text(summary.text if summary else "", state.get("query") or "", recent, known)
        facts = prompts.facts_text(state.get("today") or state.get("as_of"), state["history"], known)
        while True:
            context = prompts.context_text(shared, facts, shown_earlier, state["memory"], known)
            prompt = prompts.next_prompt(context, wording=s.wording)
            if self.llm.count_tokens(prompt.system + prompt.user) <= s.prompt_tokens or not shown_earlier:
                break
            shown_earlier = shown_earlier[1:]
        remembered = [item_id for hit in state["memory"] for item_id in hit.item_ids]
        shown = [*remembered, *(event.item_id for event in [*recent, *shown_earlier] if event.item_id)]
        return context, [item_id for item_id in dict.fromkeys(shown) if item_id in known and nameable(item_id)]

    def _choices(self, retriever: Retriever, shown: Sequence[str]) -> Sequence[str]:
        if self.settings.constrain == "off":
            return ()
        if self.settings.constrain == "shown" and shown:
            return shown
        # Where nothing is shown and the catalogue is too large to be a form, the answer is free and the parser alone
        # decides.
        ids = retriever.catalogue.item_ids
        if self.llm is None or len(ids) > self.llm.max_choices:
            return ()
        kept, named = self._named
        if kept is not ids:  # of a million ids it takes two seconds
            named = [item_id for item_id in ids if nameable(item_id)]
            self._named = (ids, named)
        return named


def _ruled_out(state: State) -> tuple[str, ...]:
    """The ids of what is not shown: bought before, or not wanted."""
    return (*(state.get("bought") or ()), *(state.get("exclude") or ()))


def _afresh(state: State, update: State) -> dict[str, Any]:
    """The update that begins a run. What is added up within one starts from it, so that a thread's next turn carries
    nothing of the last one's."""
    added: dict[str, Any] = {"items": update["items"], "degraded": update["degraded"], "made": [], "tokens": Usage()}
    added["left_out"] = []
    return {**update, **{name: Overwrite(value) for name, value in added.items() if name in state}}


def _fallback_note(error: NodeError, instead: str) -> str:
    """One line for `degraded`. Only the LLM's own errors are survivable; anything else is a bug and goes up."""
    if not isinstance(error.error, LLMError):
        raise error.error
    return f"{error.node}: {error.error} ({instead})"
