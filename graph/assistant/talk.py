"""The conversation as a LangGraph: `listen` reads the turn, `recommend` asks the recommender, `answer` replies.

Its state is plain JSON beside the messages, so that any LangGraph client opens it and any checkpointer keeps it. The
thread keeps the sum of what was wished for; all of it holds for every product shown. What a turn means is turns.py's
subject, how wishes add up sums.py's, the sentences are in sentences.py; with a chat model agent.py writes the reply.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, cast

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage
from langgraph.config import get_stream_writer
from langgraph.errors import NodeError
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.runtime import Runtime
from langgraph.types import Command
from typing_extensions import TypedDict  # of typing, pydantic takes it from Python 3.12 on alone

from recgraph.errors import SettingsError
from recgraph.graph.assistant import sentences
from recgraph.graph.assistant.agent import SECONDS, Finds, Found, write
from recgraph.graph.assistant.sums import added, by_ease, lost, same, search_words, without
from recgraph.graph.assistant.turns import Turn, read_turn
from recgraph.graph.nodes import NOTHING_LEFT
from recgraph.graph.prompts import clean
from recgraph.graph.recommendation import Recommendation
from recgraph.graph.recommender import Recommender
from recgraph.graph.wiring import Graph
from recgraph.store.records import Item
from recgraph.tools.llm.untrusted import one_line
from recgraph.tools.wish.understand import MOST_LETTERS
from recgraph.tools.wish.wish import Wish
from recgraph.tools.wish.words import SOFT

SHOWS = 5  # products of one reply
MOST_MESSAGES = 100  # of a thread that are kept, the latest
_MOST_ASKED = 100  # candidates of one run, out of which what was shown before is left out
_MOST_REFUSED = 500  # products of a thread that are not shown again, the latest
_LEAST = 0.05  # seconds that a turn has whose time was up before
_NEAR = 40  # candidates among which the other colours of a style are looked for
_FINDS = ("wish", "suggest", "more", "refuse", "undo", "yes")


def one_user(left: str, right: str) -> str:
    """Reducer: a thread is of one user. SettingsError for another one."""
    if left and right and left != right:
        raise SettingsError("This conversation is of another user. Begin a thread of its own for each user.")
    return left or right


class ChatState(TypedDict, total=False):
    """What a thread keeps. A client gives `messages`, and `user_id` once; without it the shopper is a guest.

    `wish` is the sum so far (`Wish.to_dict`), `before` that of the turn before; `products` are those shown last, as in
    the public JSON; `offered` the ids shown for this wish, `refused` those not to be shown again; `focus` the place of
    the product spoken of; `open` the parts that were offered to be left out. `turn` and `found` are of this turn
    alone."""

    messages: Annotated[list[AnyMessage], add_messages]
    user_id: Annotated[str, one_user]
    wish: dict[str, Any]
    before: dict[str, Any]
    products: list[dict[str, Any]]
    offered: list[str]
    refused: list[str]
    focus: int | None
    open: list[str]
    run_id: str
    turn: dict[str, Any]
    found: dict[str, Any]


@dataclass(frozen=True)
class TurnContext:
    """What a turn is given beside its state: until when it is to be answered, a moment of `time.monotonic()`; as long
    as the settings say for None."""

    until: float | None = None

    @classmethod
    def seconds_of(cls, runtime: Runtime[TurnContext]) -> float | None:
        """What is left; also where a client of another kind gives no context, or one of its own."""
        until = runtime.context.until if isinstance(runtime.context, cls) else None
        return None if until is None else max(_LEAST, until - time.monotonic())


class Talk:
    """The nodes over one recommender."""

    def __init__(self, shop: Recommender, shows: int = SHOWS) -> None:
        self.shop, self.shows = shop, shows
        self._categories: list[str] | None = None

    # -- listen ------------------------------------------------------------------------------------------------------

    def listen(self, state: ChatState) -> Command[Literal["recommend", "answer"]]:
        """Reads the turn, and adds what it asks for to the wish."""
        shown, focus = state.get("products") or [], state.get("focus")
        turn = read_turn(said(state), shown, focus, bool(state.get("open")))
        update: ChatState = {"found": {}, "turn": {}}
        if turn.afresh:
            update |= {"wish": {}, "before": state.get("wish") or {}, "products": [], "offered": [], "refused": []}
            update |= {"focus": None, "open": []}
            shown = []
        place = _at(turn.place, len(shown))
        update["turn"] = {"does": turn.does, "place": place, "missing": turn.place is not None and place is None}
        if place is not None:
            update["focus"] = place
        if update["turn"]["missing"] and turn.does in ("wish", "refuse", "about", "why"):
            update["turn"]["does"] = "no such"
            return Command(update=update, goto="answer")
        if turn.does in _FINDS:
            return self._wished(cast(ChatState, {**state, **update}), update, turn)
        return Command(update=update, goto="answer")

    def _wished(self, state: ChatState, update: ChatState, turn: Turn) -> Command[Literal["recommend", "answer"]]:
        """The new sum, and whether there is something to look for."""
        wish, does = wish_of(state), turn.does
        shown = state.get("products") or []
        if does == "yes":
            part = (state.get("open") or [""])[0]
            summed = without(wish, part) if part else wish
        elif does == "undo":
            summed = Wish.from_dict(state.get("before") or {})
        elif does in ("wish", "suggest"):
            summed = self._summed(state, turn, update["turn"]["place"])
        else:
            summed = wish
        if does == "refuse":
            refused = dict.fromkeys([*(state.get("refused") or []), shown[update["turn"]["place"] or 0]["item_id"]])
            update["refused"] = [*refused][-_MOST_REFUSED:]
        changed = not same(summed, wish)
        if changed:
            update |= {"wish": summed.to_dict(), "before": wish.to_dict(), "offered": []}
        update["turn"] |= {"changed": changed, "lost": lost(wish, summed, self.shop.currency)}
        nothing = not summed and does != "suggest" and not (does == "more" and shown)
        heard_nothing = does == "wish" and not changed and turn.place is None and not update["turn"]["lost"]
        if nothing or (heard_nothing and not summed):
            update["turn"]["does"] = "forgotten" if changed else "empty"
            return Command(update={**update, "open": []}, goto="answer")
        return Command(update=update, goto="recommend")

    def _summed(self, state: ChatState, turn: Turn, place: int | None) -> Wish:
        ids = [one["item_id"] for one in state.get("products") or []]
        here = place if place is not None else state.get("focus")
        if here is not None and here < len(ids):
            ids = [ids[here], *ids[:here], *ids[here + 1 :]]
        later = self._with_occasions(self.shop.listen(turn.text, state.get("user_id") or "", ids))
        go_by = ids[0] if place is not None and ids else later.like.item_id if later.like else ""
        item = self.shop.store.items([go_by]).get(go_by) if go_by else None
        return added(wish_of(state), later, turn, item)

    def _with_occasions(self, later: Wish) -> Wish:
        """Occasions and seasons that products are said to be for are asked for as any attribute is: who looks for a
        wedding is shown no chunky cardigan."""
        want, soft = dict(later.want), []
        for word in later.soft:
            for name in SOFT:
                try:
                    found = self.shop.filters({name: [word]}).want.get(name, ())
                except SettingsError:
                    continue
                want[name] = (*want.get(name, ()), *found)
                break
            else:
                soft.append(word)
        return replace(later, want=want, soft=tuple(soft))

    # -- recommend ---------------------------------------------------------------------------------------------------

    def recommend(self, state: ChatState, runtime: Runtime[TurnContext]) -> ChatState:
        """The products of this turn: all of the wish holds for each, none is shown twice for one wish, and one of a
        style is enough. Tells a stream of the recommender's steps."""
        wish, turn = wish_of(state), state["turn"]
        go_by = wish.like.item_id if wish.like else ""
        out = {*(state.get("refused") or []), *((state.get("offered") or []) if turn["does"] == "more" else []), go_by}
        asked = min(_MOST_ASKED, _NEAR + len(out))
        found = self._run(state.get("user_id") or "", wish, asked, TurnContext.seconds_of(runtime))
        chosen = self._chosen(found, out, go_by)
        unknown = _unknown(found, chosen, wish)
        only_unknown = unknown and not replace(wish, text="")
        chosen = [] if only_unknown else chosen
        products = [_product(found.to_dict()["items"][line], found.items[line].item) for line in chosen]
        more = {one.part: one.more for one in found.relaxed} if len(products) < self.shows else {}
        facts = {
            "products": products,
            "relaxed": [{"part": part, "more": more[part]} for part in by_ease(list(more))],
            "degraded": [one for one in found.degraded if not one.startswith(NOTHING_LEFT)],  # the sentences say it
            "plan": [str(one) for one in found.left_out],
            "known": bool(found.history),
            "unknown": unknown,
            "only_unknown": bool(only_unknown),
            "no_style": self._missing_style(turn, go_by, found, chosen),
        }
        update: ChatState = {"run_id": found.run_id, "found": facts}
        if only_unknown:
            update["wish"] = {}
        if products:
            update |= {"products": products, "focus": None}
            update["offered"] = [*(state.get("offered") or []), *(one["item_id"] for one in products)][-_MOST_ASKED:]
        return update

    def _run(self, user_id: str, wish: Wish, k: int, deadline: float | None) -> Recommendation:
        write = get_stream_writer()
        for step in self.shop.stream(user_id, search_words(wish), k=k, wish=wish, new_user=True, deadline=deadline):
            if isinstance(step, Recommendation):
                return step
            write({"node": step.node, "ms": step.ms, "detail": step.detail})
        raise AssertionError("a run ends in a recommendation")

    def _chosen(self, found: Recommendation, out: set[str], go_by: str) -> list[int]:
        """Places in the answer, best first; those of the style that is gone by come before."""
        places = [place for place, line in enumerate(found.items) if line.item.item_id not in out]
        style = (known[go_by].parent_id if go_by in (known := self.shop.store.items([go_by])) else "") if go_by else ""
        if style:
            places.sort(key=lambda place: found.items[place].item.parent_id != style)
        first: dict[str, int] = {}
        for place in places:
            item = found.items[place].item
            first.setdefault(item.parent_id or item.item_id, place)
        chosen = [*first.values(), *(place for place in places if place not in set(first.values()))]
        return chosen[: self.shows]

    def _missing_style(self, turn: dict[str, Any], go_by: str, found: Recommendation, chosen: Sequence[int]) -> str:
        """The title of the product pointed at, where nothing of its style is among what is shown."""
        item = self.shop.store.items([go_by]).get(go_by) if turn["place"] is not None and go_by else None
        shown = {found.items[place].item.parent_id for place in chosen}
        return item.title if item and item.parent_id and item.parent_id not in shown else ""

    # -- answer ------------------------------------------------------------------------------------------------------

    def answer(self, state: ChatState) -> ChatState:
        """The reply: sentences, and beside them the products."""
        turn, found = state["turn"], state.get("found") or {}
        update: ChatState = {}
        if found:
            text, asks = self._about_found(state, found)
            update["open"] = [one["part"] for one in found["relaxed"]] if asks else []
        else:
            text, asks, focus = self._about_talk(state, turn)
            if focus is not None:
                update["focus"] = focus
            if turn["does"] in ("no", "hello", "empty", "forgotten"):
                update["open"] = []
        reply = AIMessage(text, additional_kwargs={"recgraph": self._facts_of_reply(state, found, asks)})
        old = state["messages"][: max(0, len(state["messages"]) + 1 - MOST_MESSAGES)]
        gone: list[Any] = [RemoveMessage(str(one.id)) for one in old]
        update["messages"] = [*gone, reply]
        return update

    def _facts_of_reply(self, state: ChatState, found: dict[str, Any], asks: str) -> dict[str, Any]:
        return {
            "products": found.get("products", []),
            "run_id": state.get("run_id", "") if found else "",
            "understood": {**wish_of(state).to_dict(), "parts": wish_of(state).parts(self.shop.currency)},
            "relaxed": found.get("relaxed", []),
            "degraded": found.get("degraded", []),
            "plan": found.get("plan", []),
            "asked_back": asks,
        }

    def _about_found(self, state: ChatState, found: dict[str, Any]) -> tuple[str, str]:
        wish, turn, currency = wish_of(state), state["turn"], self.shop.currency
        products, more = found["products"], turn["does"] == "more"
        begin = sentences.gone(turn.get("lost") or []) + sentences.no_style(found["no_style"])
        if found["only_unknown"]:
            text = f"{sentences.unknown(found['unknown'])} {sentences.empty(self._some_categories())}"
            return text, text
        if not products:
            text = sentences.impossible(wish, found["relaxed"], currency, more=more)
            return begin + text, text
        enough = len(products) >= self.shows or not found["relaxed"]
        head = sentences.found(products, wish, currency, more=more, enough=enough, guest=not found["known"])
        asks = "" if enough else sentences.ways(found["relaxed"], currency)
        notes = f"\n{sentences.unsaid(found['unknown'])}" if found["unknown"] else ""
        return f"{begin}{head}\n{sentences.listed(products)}{notes}" + (f"\n{asks}" if asks else ""), asks

    def _about_talk(self, state: ChatState, turn: dict[str, Any]) -> tuple[str, str, int | None]:
        """(text, what is asked back, the product spoken of) of a turn that looks for nothing."""
        does, products = turn["does"], state.get("products") or []
        place = turn["place"] if turn["place"] is not None else state.get("focus") or 0
        if does in ("why", "about", "extreme") and not products:
            return sentences.NOTHING_SHOWN, sentences.NOTHING_SHOWN, None
        if does == "no such":
            number = sentences.counted(len(products)) if products else "nothing yet"
            return sentences.NO_SUCH.format(number), "", None
        if does == "why":
            one = products[place]
            return self._why(state, place, one), "", place
        if does == "about":
            one = products[place]
            item = self.shop.store.items([one["item_id"]]).get(one["item_id"])
            return sentences.about(place, one, item), "", place
        if does == "extreme":
            words = said(state).lower()
            dearest = not ("cheap" in words or "least" in words)
            place, text = sentences.extreme(products, dearest)
            return text, "", place
        if does in ("empty", "nothing", "yes", "forgotten"):
            text = sentences.empty(self._some_categories())
            return (sentences.RESTARTED if does == "forgotten" else text), text, None
        plain = {
            **{"help": sentences.HELP, "hello": sentences.HELLO, "thanks": sentences.THANKS, "bye": sentences.BYE},
            **{"chat": sentences.CHAT, "no": sentences.KEPT, "restart": sentences.RESTARTED},
        }
        text = plain[does]
        return text, text if does in ("no", "restart", "hello") else "", None

    def _why(self, state: ChatState, place: int, one: dict[str, Any]) -> str:
        seqs = set(one.get("evidence", {}).get("event_seqs") or ())
        history = self.shop.store.history(state.get("user_id") or "") if seqs else []
        events = [event for event in history if event.seq in seqs]
        items = self.shop.store.items([event.item_id for event in events if event.item_id])
        told = sentences.events_told(events, items)
        return sentences.why(place, one, wish_of(state), self.shop.currency, told)

    def _some_categories(self) -> Sequence[str]:
        if self._categories is None:
            self._categories = sorted(self.shop.store.attribute_values()["category"])
        return self._categories


def said(state: ChatState) -> str:
    """The words of this turn: the last message, where a person wrote it."""
    last = state["messages"][-1] if state.get("messages") else None
    return last.text[: MOST_LETTERS + 1] if isinstance(last, HumanMessage) else ""


def wish_of(state: ChatState) -> Wish:
    return Wish.from_dict(state.get("wish") or {})


def _at(place: int | None, shown: int) -> int | None:
    """A place among those shown; None for one that is not there."""
    if place is None or not shown:
        return None
    place = shown - 1 if place == -1 else place
    return place if place < shown else None


def _product(line: dict[str, Any], item: Item) -> dict[str, Any]:
    """A product as it is kept and given: its line of the public JSON, and what words such as "that brand" mean."""
    return {**line, "brand": item.brand, "color": item.color, "category": item.category, "size": item.size}


def _unknown(found: Recommendation, chosen: Sequence[int], wish: Wish) -> str:
    """The free words of a wish where none of the products says any of them, "" where one does."""
    items = [found.items[place].item for place in chosen]
    texts = " ".join(f"{one.title} {one.description} {' '.join(one.attributes.values())}".lower() for one in items)
    told = any(re.search(rf"\b{re.escape(word[:5])}", texts) for word in wish.text.split())
    return "" if told else wish.text


class Speaker:
    """The nodes where a chat model writes the reply: `speak`, and what takes over where it fails."""

    def __init__(self, talk: Talk, model: Any, seconds: float = SECONDS) -> None:
        self.talk, self.model, self.seconds = talk, model, seconds

    def speak(self, state: ChatState, runtime: Runtime[TurnContext]) -> ChatState:
        """The model's reply in place of the written one. Raises what `write` raises."""
        update = self.talk.answer(state)
        draft = update["messages"][-1]
        facts = draft.additional_kwargs["recgraph"]
        shop, wish = self.talk.shop, wish_of(state)
        given = facts["products"] or ([] if state.get("found") else state.get("products") or [])
        found = Found(
            {one["item_id"]: one for one in given},
            wish,
            shop.currency,
            frozenset(shop.store.attribute_values()["brand"]),
            wish.parts(shop.currency),
        )
        finds = self._finds(state, wish)
        must = bool(facts["products"])
        left = TurnContext.seconds_of(runtime)
        seconds = self.seconds if left is None else min(self.seconds, left)
        text = write(self.model, state["messages"], draft.text, found, finds, must_cite=must, seconds=seconds)
        if facts["products"] or not set(found.cited) <= {one["item_id"] for one in given}:
            facts["products"] = [dict(found.products[item_id]) for item_id in found.cited]
            update["products"] = facts["products"]
        update["messages"] = [*update["messages"][:-1], AIMessage(text, additional_kwargs=draft.additional_kwargs)]
        return update

    def _finds(self, state: ChatState, wish: Wish) -> Finds:
        """Products by a model's words and the wish: what the shopper asked for stays, what the model adds ranks."""
        user_id, refused = state.get("user_id") or "", set(state.get("refused") or ())

        def finds(words: str, k: int) -> list[dict[str, Any]]:
            found = self.talk.shop.recommend(user_id, clean(words, 200), k=k + len(refused), wish=wish, new_user=True)
            lines = zip(found.to_dict()["items"], found.items, strict=True)
            return [_product(line, one.item) for line, one in lines if one.item.item_id not in refused][:k]

        return finds

    def written(self, state: ChatState, error: NodeError) -> Command[Any]:
        """The written sentences, and why no model wrote."""
        update = self.talk.answer(state)
        facts = update["messages"][-1].additional_kwargs["recgraph"]
        why = one_line(str(error.error) or type(error.error).__name__, 200)
        facts["degraded"] = [*facts["degraded"], f"chat: written sentences answered: {why}"]
        return Command(update=update, goto=END)


def build_talk(
    shop: Recommender, checkpointer: Any = None, shows: int = SHOWS, model: Any = None, seconds: float = SECONDS
) -> Graph:
    """Wires the conversation. `checkpointer` as LangGraph's `compile` takes it; with a chat `model`, that writes the
    replies, and has so many seconds for one."""
    talk = Talk(shop, shows)
    graph = StateGraph(ChatState, TurnContext)
    graph.add_node("listen", talk.listen)
    graph.add_node("recommend", talk.recommend)
    if model is None:
        graph.add_node("answer", talk.answer)
    else:
        speaker = Speaker(talk, model, seconds)
        graph.add_node("answer", speaker.speak, error_handler=cast(Any, speaker.written))
    graph.add_edge(START, "listen")
    graph.add_edge("recommend", "answer")
    graph.add_edge("answer", END)
    return graph.compile(checkpointer=checkpointer, name="recgraph chat")
