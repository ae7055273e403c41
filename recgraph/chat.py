"""`recgraph chat`: a conversation with the shop's assistant in the terminal.

With a terminal a line is a turn, answered under it; from a pipe each line is a turn, and what is written is the same. A
line that begins with a slash asks this program: /why 2, /events, /new, /help, /quit.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from recgraph.errors import SettingsError
from recgraph.options import consoles, store_option
from recgraph.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console

    from recgraph.graph.assistant.assistant import Assistant, Reply

_EVENTS_SHOWN = 20
_HELP = "/why N: why product N was shown · /events: what the shopper did · /new: start over · /quit: end"


@click.command()
@click.option("--user", metavar="ID", default="", help="who shops; recgraph users lists them  [default: a guest]")
@click.option("--model", metavar="PROVIDER:MODEL", default="", help="a LangChain chat model that writes the replies")
@click.option("--llm", metavar="MODEL", help="the recommender's own: folder, hub id or `default`  [default: none]")
@click.option("--checkpoint", metavar="FILE", default="", help="SQLite file that keeps the conversation")
@click.option("--thread", metavar="NAME", default="", help="which conversation of the file to go on with")
@store_option
def chat(user: str, model: str, llm: str | None, checkpoint: str, thread: str, store: str | None) -> None:
    """Talk to the shop's assistant, turn by turn.

    Say what you look for and go on from there: "black boots under 250", "something warmer", "not that brand", "the
    second one in brown", "why this?", "forget the price", "show me more", "start over".

    Every product shown holds to all that was said. Where nothing does, the assistant asks which part may give way. It
    needs no language model; with --model, replies are written by one, and checked.
    """
    from recgraph import panel
    from recgraph.graph.assistant.agent import open_model
    from recgraph.graph.assistant.assistant import Assistant
    from recgraph.graph.checkpoints import Checkpoints
    from recgraph.graph.recommender import Recommender
    from recgraph.graph.traces.collector import traced
    from recgraph.graph.wiring import serializer

    if thread and not checkpoint:
        raise SettingsError("--thread goes on with a conversation that was kept: name its file with --checkpoint.")
    console, screen = consoles()
    writer = open_model(model) if model else None
    with panel.bars(screen) as progress:
        recommender = Recommender.open(store, llm=llm, progress=progress)
    saver = Checkpoints(checkpoint, serializer()) if checkpoint else None
    try:
        with recommender, traced(recommender):
            if user:
                recommender.store.require_user(user)
            recommender.warm_up()
            assistant = Assistant(recommender, saver, writer)
            talk(console, assistant, recommender, user, thread or ("chat" if checkpoint else uuid.uuid4().hex))
    finally:
        if saver:
            saver.close()


def talk(console: Console, assistant: Assistant, shop: Any, user: str, thread: str) -> None:
    """One conversation, to the end of the input."""
    for line in _lines(console):
        word, _, rest = line.partition(" ")
        if word in ("/quit", "/exit", "/q"):
            return
        if word == "/events":
            _events(console, shop, user)
        elif word in ("/help", "/?"):
            console.print(_HELP, style="dim")
        else:
            said = {"/why": f"why number {rest.strip() or '1'}?", "/new": "start over"}.get(word, line)
            show(console, assistant.reply(user, said, thread))


def show(console: Console, reply: Reply) -> None:
    """A reply: its text, and under it what holds now."""
    from rich.text import Text

    for line in reply.text.splitlines():
        console.print(Text(printable(line)))
    parts = " · ".join(printable(part) for part in reply.understood.get("parts", []))
    if parts and (reply.products or reply.asked_back):
        console.print(Text(f"Understood  {parts}", style="dim cyan"))
    for note in reply.degraded:
        console.print(Text(f"! {printable(note)}", style="yellow"))
    console.print()


def _lines(console: Console) -> Iterator[str]:
    """What the shopper says, without empty lines; from a pipe it is shown again, so that the output can be read."""
    asks = sys.stdin.isatty()
    if asks:
        console.print(_HELP, style="dim")
    while True:
        try:
            line = console.input("> ") if asks else sys.stdin.readline()
        except (EOFError, KeyboardInterrupt):
            return
        if not asks and not line:
            return
        line = line.strip()
        if line:
            if not asks:
                console.print(f"> {printable(line)}", style="bold")
            yield line


def _events(console: Console, shop: Any, user: str) -> None:
    from recgraph import panel

    events = shop.store.history(user, None, _EVENTS_SHOWN) if user else []
    known = shop.store.items(sorted({event.item_id for event in events if event.item_id}))
    for event in events:
        console.print(panel.event_line(event, known), no_wrap=True, overflow="ellipsis")
    if not events:
        console.print("No events: this shopper is new here.", style="dim")
