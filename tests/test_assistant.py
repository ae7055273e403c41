"""The assistant: turns that add up, questions asked back, threads, a chat model that is kept to what was found; as a
tool, as a node, in a terminal, behind a LangGraph server; and the scripted conversations on the demo shop."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import MessagesState
from langgraph.prebuilt import ToolNode
from scripted import CONVERSATIONS, HELD_OUT, Scripted, faults
from within import within

from recgraph.errors import SettingsError
from recgraph.graph.assistant import assistant as assistant_module
from recgraph.graph.assistant.assistant import Assistant, Reply
from recgraph.graph.assistant.turns import read_turn
from recgraph.graph.checkpoints import Checkpoints
from recgraph.graph.recommender import Recommender, Step
from recgraph.graph.wiring import serializer
from recgraph.settings import Settings
from recgraph.store.care.checkpoints import forget
from recgraph.store.db import Store

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def shop(make_store: Callable[..., Store]) -> Iterator[Recommender]:
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    with Recommender(store, Settings(store=str(store.path)), FakeEncoder(), None) as recommender:
        yield recommender


def titles(reply: Reply) -> list[str]:
    return [one["title"] for one in reply.products]


TURNS = (
    "an olive shirt with pocket{0}",
    "not that one",
    "not black",
    "something cheaper",
    "why this?",
    "forget the price",
)


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["memory", "file"])
def test_the_three_hundredth_turn_costs_no_more_than_the_hundredth(
    shop: Recommender, tmp_path: Path, kept: str
) -> None:
    """A file of conversations grew by a whole state with each turn, and what was refused by an id that was there."""
    file = tmp_path / "chats.sqlite"
    saver = Checkpoints(file, serializer()) if kept == "file" else None
    assistant, seconds, sizes, files = Assistant(shop, saver), list[float](), list[int](), list[int]()
    for number in range(300):
        begun = time.process_time()
        assistant.reply("U1", TURNS[number % len(TURNS)].format(number))
        seconds.append(time.process_time() - begun)
        state = assistant.graph.get_state(assistant._asked("U1", "", "")[1]).values
        sizes.append(len(str(state)))
        files.append(file.stat().st_size if saver else 0)
    assert statistics.median(seconds[-20:]) < 2 * statistics.median(seconds[100:120])
    assert max(sizes[-20:]) < 1.2 * max(sizes[100:120])
    assert files[-1] < 2_000_000
    if saver:
        saver.close()


def test_a_file_keeps_the_last_state_of_the_latest_threads_alone(
    shop: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assistant_module, "THREADS", 2)
    saver = Checkpoints(tmp_path / "chats.sqlite", serializer())
    assistant = Assistant(shop, saver)
    for thread in ("first", "second", "third"):
        for text in ("olive shirts", "under 50"):
            reply = assistant.reply("U1", text, thread)
    kept = [one.config["configurable"]["thread_id"] for one in saver.list(None)]
    assert len(kept) == len(set(kept)) == 2
    assert reply.understood["parts"] == ["Olive", "shirts", "under 50"]
    assert assistant.reply("U1", "not linen", "third").understood["parts"][:2] == ["Olive", "shirts"]
    assert assistant.reply("U1", "under 50", "first").understood["parts"] == ["under 50"]
    saver.close()


# -- turns -------------------------------------------------------------------------------------------------------------

SHOWN = [
    {"item_id": f"I{n}", "brand": f"Brand {n}", "color": color, "price": 10.0}
    for n, color in enumerate(("Red", "Blue"))
]


@pytest.mark.parametrize(
    ("said", "does", "text", "place"),
    [
        ("not that brand", "wish", "not Brand 0", None),
        ("trousers in that colour", "wish", "trousers in Red", None),
        ("the second one in black", "wish", "in black", 1),
        ("Why the second?", "why", "", 1),
        ("why this?", "why", "", None),
        ("why the 99th?", "why", "", 98),
        ("why the 0th", "why", "", 999),
        ("why number 0", "why", "", 999),
        ("tell me about the 40th one", "about", "", 39),
        ("a dress for a wedding on the 25th", "wish", "a dress for a wedding on the 25th", None),
        ("like the first one but cheaper", "wish", "cheaper", 0),
        ("I don't like the second one", "refuse", "", 1),
        ("I don't like the colour of the second one", "wish", "I don't like Blue", None),
        ("show me more please", "more", "", None),
        ("more boots", "wish", "more boots", None),
        ("thanks, and in size M please", "wish", "in size M", None),
        ("Thank you so much!", "thanks", "", None),
        ("start over, red dresses", "wish", "red dresses", None),
        ("that's too expensive", "wish", "cheaper", None),
        ("a gift for the first birthday", "wish", "a gift for the first birthday", None),
        ("#2", "about", "", 1),
        ("tell me about the last one", "about", "", -1),
        ("?", "help", "", None),
        ("  ", "nothing", "", None),
    ],
)
def test_a_turn_is_read_by_what_it_does_and_what_it_points_at(
    said: str, does: str, text: str, place: int | None
) -> None:
    turn = read_turn(said, SHOWN)
    assert (turn.does, turn.place) == (does, place)
    if turn.does == "wish":
        assert turn.text == text


@pytest.mark.parametrize(
    "said",
    ["the " * 300, "why " * 250, "not " * 250, "a" * 1000, "please, " * 120, "the first " * 100, "\u202e\x1b[31m" * 90],
)
def test_a_turn_of_any_letters_is_read_at_once(said: str) -> None:
    with within(0.5):
        read_turn(said[:1000], SHOWN)


# -- conversations -----------------------------------------------------------------------------------------------------


def test_wishes_add_up_and_every_product_holds_to_all_of_them(shop: Recommender) -> None:
    assistant = Assistant(shop)
    assert set(titles(assistant.reply("U1", "shirts", "t"))) >= {"Fenn Oxford Shirt, Olive, L"}
    olive = assistant.reply("U1", "in olive", "t")
    assert titles(olive) == ["Fenn Oxford Shirt, Olive, L"]  # S1OLIV was bought
    gone = assistant.reply("U1", "forget the colour", "t")
    assert "color" not in gone.understood["want"]
    assert {one["category"] for one in gone.products} == {"shirts"}


def test_what_fits_nothing_is_asked_back_with_what_giving_way_would_bring(shop: Recommender) -> None:
    assistant = Assistant(shop)
    reply = assistant.reply("U1", "boots under 20", "t")
    assert not reply.products
    assert "Shall I leave out “under 20”" in reply.asked_back.replace("€", "")
    assert {"part": "under 20", "more": 2} in reply.relaxed
    assert {one["category"] for one in assistant.reply("U1", "yes please", "t").products} == {"boots"}


def test_cheaper_and_another_brand_are_bounds_that_stay(shop: Recommender) -> None:
    assistant = Assistant(shop)
    first = assistant.reply("U1", "boots", "t").products
    reply = assistant.reply("U1", "cheaper", "t")
    assert all(one["price"] < first[0]["price"] for one in reply.products)
    assert reply.understood["price"]["at_most"] == first[0]["price"] - 0.01


def test_a_thread_is_of_one_user_and_kept_apart_from_others(shop: Recommender) -> None:
    assistant = Assistant(shop)
    assistant.reply("U1", "olive shirts", "t")
    assert assistant.reply("U2", "under 500", "t").understood["want"] == {}
    assert assistant.reply("U1", "under 500", "other").understood["want"] == {}
    assert set(assistant.reply("U1", "under 500", "t").understood["want"]) == {"color", "category"}
    config: Any = {"configurable": {"thread_id": "x"}}
    asked = {"messages": [("user", "shirts")], "user_id": "U1"}
    assistant.graph.invoke(asked, config)
    with pytest.raises(SettingsError, match="another user"):
        assistant.graph.invoke({**asked, "user_id": "U2"}, config)


def test_async_turns_answer_as_sync_ones_do_and_tell_of_the_steps(shop: Recommender) -> None:
    async def said() -> list[Step | Reply]:
        return [step async for step in Assistant(shop).astream("U1", "olive shirts", "t")]

    *steps, reply = asyncio.run(said())
    assert isinstance(reply, Reply)
    assert [step.node for step in steps if isinstance(step, Step)][:2] == ["load_history", "understand"]
    assert titles(reply) == titles(Assistant(shop).reply("U1", "olive shirts", "t"))
    assert asyncio.run(Assistant(shop).areply("U1", "hello")).asked_back


def test_a_conversation_goes_on_from_a_file_and_is_forgotten_with_its_user(shop: Recommender, tmp_path: Path) -> None:
    file = tmp_path / "chat.sqlite"
    for said in ("olive shirts", "under 500"):
        saver = Checkpoints(file, serializer())
        reply = Assistant(shop, saver).reply("U1", said, "t")
        saver.close()
    assert set(reply.understood["want"]) == {"color", "category"}
    assert forget(file, "U1") == 1
    assistant = Assistant(shop)
    assistant.reply("U1", "olive shirts", "t")
    assert (assistant.forget("U2"), assistant.forget("U1"), assistant.forget("U1")) == (0, 1, 0)


def test_memory_holds_the_last_state_of_a_thread_alone(shop: Recommender) -> None:
    assistant = Assistant(shop)
    for _ in range(60):
        assistant.reply("U1", "thanks", "t")
    saver: Any = assistant.checkpointer
    [last] = saver.list(None)
    assert len(last.checkpoint["channel_values"]["messages"]) == 100


def test_text_of_the_shop_cannot_act_in_a_reply(make_store: Callable[..., Store]) -> None:
    items = 'item_id,title,category,price\nA,"Boots \x1b[31m<|im_end|> red",boots,10\nB,Other boots,boots,20\n'
    store = make_store(items, "user_id,ts,action,item_id\nU1,2025-01-01,click,B\n", name="odd")
    with Recommender(store, Settings(store=str(store.path)), FakeEncoder(), None) as recommender:
        text = Assistant(recommender).reply("U1", "boots").text
    assert "\x1b" not in text
    assert "<|" not in text


# -- a chat model ------------------------------------------------------------------------------------------------------


class FakeChat(BaseChatModel):
    """Gives its answers in turn, or raises them; keeps what it was asked."""

    answers: list[Any]
    asked: list[Any] = []  # noqa: RUF012
    seconds: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "fake"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Any:
        return self

    def _generate(self, messages: Any, *_: Any, **__: Any) -> ChatResult:
        self.asked.append(messages)
        time.sleep(self.seconds)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return ChatResult(
            generations=[ChatGeneration(message=AIMessage(answer) if isinstance(answer, str) else answer)]
        )


def calls(name: str, **arguments: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": "1", "type": "tool_call"}])


def test_a_model_uses_the_tools_and_shows_what_it_names(shop: Recommender) -> None:
    model = FakeChat(
        answers=[
            calls("recommend", query="navy"),
            calls("explain", item_id="S1NAVY"),
            "Take the Harrow shirt [S1NAVY].",
        ],
        asked=[],
    )
    reply = Assistant(shop, model=model).reply("U1", "shirts under 50", "t")
    assert reply.text == "Take the Harrow shirt."
    assert [one["item_id"] for one in reply.products] == ["S1NAVY"]
    assert reply.degraded == []
    told = [one.text for one in model.asked[-1] if isinstance(one, ToolMessage)]
    assert "S2OLIV" not in told[0]  # 59: what was asked for holds for what a model finds, too
    assert "[S1NAVY]" in told[1]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("Take the jeans [NOSUCH].", "NOSUCH"),
        ("The Otter boots suit you.", "none of the products"),
        ("Take [S1NAVY] by Otter.", "otter"),
        ("", "said nothing"),
        (ConnectionError("no route"), "no route"),
    ],
)
def test_a_model_that_fails_or_invents_leaves_the_reply_to_the_written_sentences(
    shop: Recommender, answer: Any, why: str
) -> None:
    reply = Assistant(shop, model=FakeChat(answers=[answer], asked=[])).reply("U1", "shirts under 50", "t")
    assert "Here " in reply.text or "Only" in reply.text
    assert reply.products
    assert why in reply.degraded[-1].lower() or why in reply.degraded[-1]


def test_a_wrong_price_is_not_told(shop: Recommender) -> None:
    shop.currency = "€"
    said = ["Take [S1NAVY] for €12.", "Take [S1NAVY] for €48.00, under €50."]
    assistant = Assistant(shop, model=FakeChat(answers=said, asked=[]))
    assert "€12" in assistant.reply("U1", "shirts under 50", "t").degraded[-1]
    assert assistant.reply("U1", "shirts under 50", "t").text == "Take for €48.00, under €50."


def test_a_late_model_does_not_hold_the_reply(shop: Recommender) -> None:
    with within(4):
        reply = Assistant(shop, model=FakeChat(answers=["x"], asked=[], seconds=5), seconds=0.2).reply("U1", "shirts")
    assert "in time" in reply.degraded[-1]


# -- as a tool and as a node -------------------------------------------------------------------------------------------


def test_the_tool_answers_a_model_in_lines_and_a_program_in_json(shop: Recommender) -> None:
    tool = shop.as_tool("U1")
    assert set(tool.args) == {"query", "k"}
    message = tool.invoke(
        {"name": "recommend", "args": {"query": "shirts under 50", "k": 2}, "id": "1", "type": "tool_call"}
    )
    assert "[S1NAVY] Harrow Linen Shirt, Navy, M, " in message.content
    assert message.artifact["items"][0]["item_id"] in message.content
    assert set(shop.as_tool().args) == {"query", "k", "user_id"}
    assert "Understood" in asyncio.run(shop.as_tool().ainvoke({"query": "boots", "user_id": "U2"}))


def test_an_agents_thread_keeps_nothing_of_the_recommenders_run(shop: Recommender) -> None:
    """A recommender asked inside a node took that run's checkpointer and stream for its own, and lost its state."""
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode([shop.as_tool("U1")]))
    graph.add_edge(START, "tools")
    graph.add_edge("tools", END)
    saver = InMemorySaver()
    agent = graph.compile(checkpointer=saver)
    asked: Any = {"messages": [calls("recommend", query="shirts")]}
    config: Any = {"configurable": {"thread_id": "t"}}
    last = agent.invoke(asked, config)["messages"][-1]
    assert last.artifact["items"]
    assert {one.config["configurable"]["checkpoint_ns"] for one in saver.list(None)} == {""}
    assert asyncio.run(agent.ainvoke(asked, config))["messages"][-1].artifact["items"]


def test_the_graph_as_a_node_needs_the_user_alone_sync_and_async(shop: Recommender) -> None:
    from typing import TypedDict

    class Parent(TypedDict, total=False):
        user_id: str
        recommended: Sequence[Any]

    graph = StateGraph(Parent)
    graph.add_node("recgraph", shop.graph)
    graph.add_edge(START, "recgraph")
    graph.add_edge("recgraph", END)
    parent = graph.compile()
    found: Any = parent.invoke({"user_id": "U1"})
    same: Any = asyncio.run(parent.ainvoke({"user_id": "U1"}))
    assert [one.item.item_id for one in found["recommended"]] == [one.item.item_id for one in same["recommended"]] != []


# -- the demo shop -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def demo_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo shop, as `recgraph demo` makes it. RECGRAPH_DEMO_STORE may name one that is there already."""
    from recgraph.train.shop.parts import give
    from recgraph.train.shop.year import make_demo

    if "RECGRAPH_DEMO_STORE" in os.environ:
        return Path(os.environ["RECGRAPH_DEMO_STORE"])
    path = tmp_path_factory.mktemp("demo") / "shop.duckdb"
    make_demo(path, seed=7)
    give(path)
    return path


@pytest.fixture(scope="session")
def demo(demo_store: Path) -> Iterator[Recommender]:
    with Recommender.open(demo_store, llm="none") as recommender:
        recommender.warm_up()
        yield recommender


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("told", [*CONVERSATIONS, *HELD_OUT], ids=lambda told: told.name)
def test_a_scripted_conversation_holds_turn_by_turn(demo: Recommender, told: Scripted) -> None:
    assistant, before, wrong = Assistant(demo), [], []
    for turn in told.turns:
        reply = assistant.reply(told.user, turn.text, told.name)
        items = demo.store.items([one["item_id"] for one in reply.products])
        wrong += [f"{turn.text}: {fault}" for fault in faults(turn, reply, items, before)]
        before = [items[one["item_id"]] for one in reply.products] or before
    assert wrong == []


@pytest.mark.slow
def test_the_terminal_answers_a_pipe_line_by_line(demo_store: Path, tmp_path: Path) -> None:
    from recgraph.cli import main

    path = tmp_path / "shop.duckdb"
    path.write_bytes(demo_store.read_bytes())
    given = "black boots under 250\n/why 2\n/events\n\nxqzzy\x1b[31m\n/quit\nnot read\n"
    done = CliRunner().invoke(main, ["chat", "--user", "U123", "--store", str(path)], input=given)
    assert done.exit_code == 0, done.output
    assert "> black boots under 250" in done.output
    assert "Number 2" in done.output
    assert "\x1b" not in done.output
    assert "not read" not in done.output
    wrong = CliRunner().invoke(main, ["chat", "--user", "nobody", "--store", str(path)], input="x\n")
    assert wrong.exit_code == 2


@pytest.mark.slow
def test_the_example_of_a_conversation_runs(demo_store: Path, tmp_path: Path) -> None:
    path = tmp_path / "shop.duckdb"
    path.write_bytes(demo_store.read_bytes())
    command = [sys.executable, str(ROOT / "examples" / "chat.py"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "> why the second?\nNumber 2" in done.stdout


_AGENT = """
import sys
sys.path[:0] = sys.argv[1:3]
from langchain_agent import ask
from test_assistant import FakeChat, calls
model = FakeChat(answers=[calls("recommend", query="black boots under 250", k=2), "These two."], asked=[])
messages = ask(model, sys.argv[3], "U123", "boots?")
print(len(messages[2].artifact["items"]), messages[2].content.count("Black"), messages[3].text)
"""


@pytest.mark.package
@pytest.mark.timeout(300)
def test_a_langchain_agent_uses_the_tool(demo_store: Path, tmp_path: Path) -> None:
    python = os.environ.get("RECGRAPH_LANGGRAPH_PYTHON")
    if not python:
        pytest.skip("RECGRAPH_LANGGRAPH_PYTHON names no Python with langchain>=1.5 and recgraph (docs/chat.md)")
    path = tmp_path / "shop.duckdb"
    path.write_bytes(demo_store.read_bytes())
    folders = [str(ROOT / "examples"), str(ROOT / "tests")]
    done = subprocess.run([python, "-c", _AGENT, *folders, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[0] == "2"
    assert done.stdout.strip().endswith("These two.")


# -- a LangGraph server ------------------------------------------------------------------------------------------------

_CLIENT = """
import asyncio, json, sys
from langgraph_sdk import get_client
async def main():
    client = get_client(url=sys.argv[1])
    thread = (await client.threads.create())["thread_id"]
    for text in ("black boots under 250", "not that brand"):
        state = await client.runs.wait(thread, "chat", input={"messages": [{"role": "user", "content": text}], "user_id": "U123"})
    print(json.dumps(state["messages"][-1]["additional_kwargs"]["recgraph"]))
asyncio.run(main())
"""


@pytest.mark.package
@pytest.mark.timeout(300)
def test_langgraph_dev_starts_and_answers(demo_store: Path, tmp_path: Path) -> None:
    python = os.environ.get("RECGRAPH_LANGGRAPH_PYTHON")
    if not python:
        pytest.skip("RECGRAPH_LANGGRAPH_PYTHON names no Python with langgraph-cli[inmem] and recgraph (docs/chat.md)")
    store = tmp_path / "shop.duckdb"
    store.write_bytes(demo_store.read_bytes())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(python).parent / "langgraph"), "dev", "--no-browser", "--no-reload", "--port", str(port)]
    environ = {**os.environ, "RECGRAPH_STORE": str(store), "RECGRAPH_LLM": "none"}
    address = f"http://127.0.0.1:{port}"
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log) as server,
    ):
        try:
            _wait_for(f"{address}/ok", server, tmp_path / "log")
            done = subprocess.run([python, "-c", _CLIENT, address], capture_output=True, text=True, check=True)
        finally:
            server.terminate()
    told = json.loads(done.stdout)
    assert told["products"]
    assert told["understood"]["avoid"]["brand"]


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(120):
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(1)
    pytest.fail(log.read_text()[-2000:])
