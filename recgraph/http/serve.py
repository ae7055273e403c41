"""The commands `recgraph serve`, which answers over HTTP until stopped, and `recgraph keys`, which says who may ask.

One process owns the store: it opens it, warms up, serves, ends what is in flight and closes it. What is served is
app.py's.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recgraph.errors import SettingsError
from recgraph.http import workers
from recgraph.options import consoles, json_option, one_thread_an_answer, store_option
from recgraph.terminal import json_text, say

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from recgraph.http.keys import Keys

GRACE = 30  # seconds for requests that are in flight when the server is told to stop
_KEPT_ALIVE = 15  # seconds that a connection stays open without a request
_TOLD = ("rate", "concurrent", "queue", "max-body", "llm", "llm-url")  # options that workers take over
_CONNECTIONS = 2000  # open at once; more are refused at the door


def server_of(app: FastAPI) -> uvicorn.Server:
    """A server for an application, to be run on a socket of `listening`."""
    import uvicorn

    logging.getLogger("uvicorn.access").disabled = True  # its lines hold paths, and these ids
    config = uvicorn.Config(
        app,
        log_config=None,  # logs.py does it
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody's word is taken for another address
        ws="none",
        lifespan="on",
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_KEPT_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )
    return uvicorn.Server(config)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there. SettingsError where it is taken or no address of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
        # For its connections too: else the second part of an answer waits 40 ms for a client that keeps its connection.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, OverflowError) as error:
        raise SettingsError(f"{host}:{port} cannot be served at: {error}. Take another: --port N") from None


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_open(host: str, keys: Keys) -> None:
    """SettingsError where others could ask and no keys say who may."""
    if not is_loopback(host) and not keys.required:
        raise SettingsError(
            f"On {host} anybody who reaches it could ask, write and delete. Make a key first: "
            f"recgraph keys add NAME --scope recommend --file {keys.path}"
        )


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="where to listen")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, metavar="N", help="0: any")
@click.option("--keys", "keys_file", metavar="FILE", help="who may ask  [default: STORE.keys.json]")
@click.option("--allow-host", multiple=True, metavar="NAME", help="a name it is reached by, e.g. behind a proxy")
@click.option("--rate", default="3000/minute", show_default=True, metavar="N/UNIT", help="requests of one key")
@click.option(
    "--concurrent",
    type=click.IntRange(1, 256),
    default=4,
    show_default=True,
    metavar="N",
    help="answers worked on at once",
)
@click.option(
    "--queue", type=click.IntRange(0, 100_000), default=200, show_default=True, metavar="N", help="requests that wait"
)
@click.option(
    "--max-body", type=click.IntRange(1000), default=1_000_000, show_default=True, metavar="BYTES", help="of a request"
)
@click.option("--llm", metavar="MODEL", help="ask a language model too: folder, hub id or `default`  [default: none]")
@click.option("--llm-url", metavar="URL", help="vLLM server, e.g. http://127.0.0.1:8000/v1")
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, metavar="N", help="processes that answer"
)
@click.option("--socket", "number", type=int, hidden=True, help="of a worker: the parent's")
@click.option("--chats", default="", hidden=True, help="of a worker: where all of them keep conversations")
@store_option
def serve(
    host: str, port: int, keys_file: str | None, allow_host: tuple[str, ...], store: str | None, **given: Any
) -> None:
    """Answer over HTTP until stopped.

    Without a file of keys it serves this machine alone, and whoever asks may do everything; recgraph keys add makes the
    first key. What it offers is described at /openapi.json, and in docs/http.md.

    With --workers N this process owns the store, and N others answer (pip install 'recgraph[scale]'); --rate, --queue
    and --concurrent count in each.

    Ctrl-C or SIGTERM ends it: what is in flight is answered, what waits is written, the store is closed.
    """
    signal.signal(signal.SIGINT, _end_now)  # until it serves
    one_thread_an_answer()
    from recgraph import panel
    from recgraph.graph.recommender import Recommender
    from recgraph.graph.traces.collector import exporting
    from recgraph.http.app import LOOPBACK, create_app
    from recgraph.http.keys import Keys
    from recgraph.http.limits import Limits
    from recgraph.http.logs import log_as_json
    from recgraph.protocols.access import ProtocolOptions
    from recgraph.protocols.mcp_server import mcp_router
    from recgraph.protocols.money import currency_code
    from recgraph.protocols.ucp import router as ucp_router
    from recgraph.service import Service
    from recgraph.settings import load_settings

    settings = load_settings(store=store, llm=given["llm"], llm_url=given["llm_url"])
    keys = Keys(keys_file) if keys_file else Keys.beside(settings.store)
    check_open(host, keys)
    keys.all()
    limits = Limits(given["rate"], given["max_body"], answering=given["concurrent"], queue=given["queue"])
    hosts = (*LOOPBACK, *allow_host) if is_loopback(host) else allow_host or ("*",)
    options = ProtocolOptions.from_environment()
    number = given["number"]
    with listening(host, port) if number is None else socket.socket(fileno=number) as listener:
        if given["workers"] > 1:
            _tell(listener, settings.store, keys)
            with tempfile.TemporaryDirectory(prefix="recgraph-") as folder:  # for its owner alone
                told = [*_options(host, allow_host, given), "--chats", str(Path(folder) / "chats.sqlite")]
                run_workers(settings.store, keys, listener, given["workers"], told)
            return
        workers.end_with_parent()
        with panel.bars(consoles()[1]) as progress:
            recommender = Recommender.open(store, progress=progress, llm=given["llm"], llm_url=given["llm_url"])
        log_as_json()
        with recommender, exporting() as tracer:
            service = Service(recommender, given["chats"])
            doors = [partial(made, options=options) for made in (ucp_router, mcp_router)]
            server = server_of(create_app(service, keys, limits, hosts=hosts, doors=doors, tracer=tracer))
            if number is None:
                _tell(listener, settings.store, keys)
                if not currency_code(options.currency or recommender.currency):
                    say("Agents are shown no product: the shop's currency is not known. RECGRAPH_CURRENCY=EUR says it.")
            # Before uvicorn hears them, and when it raises them again at its end.
            for one in (signal.SIGTERM, signal.SIGINT):
                signal.signal(one, lambda *_: setattr(server, "should_exit", True))
            server.run(sockets=[listener])
    say("Stopped; the store is closed.", err=True)


def _end_now(number: int, _: object) -> None:
    """Ends the process by the signal. A KeyboardInterrupt within an import can be lost, and the lock of imports with
    it, which whoever imports next then waits for without an end."""
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), b"\x1b[?25h")  # bars hide the cursor
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _options(host: str, allow_host: tuple[str, ...], given: dict[str, Any]) -> list[str]:
    """What a worker is told beside its store, keys and socket."""
    named = {"--host": host, **{f"--{name}": given[name.replace("-", "_")] for name in _TOLD}}
    pairs = [(name, value) for name, value in named.items() if value is not None]
    return [str(one) for pair in [*pairs, *(("--allow-host", name) for name in allow_host)] for one in pair]


def run_workers(store: str, keys: Keys, listener: socket.socket, count: int, options: list[str]) -> None:
    """Answers by so many processes. This one owns the store, unless it is given as an address: then another does."""
    from recgraph.store.shared.address import TOKEN_FILE, Address, is_address
    from recgraph.store.shared.owner import Owner

    if is_address(store):
        crew = workers.Crew(workers.command_of(store, keys.path, listener, options), listener, count, {})
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, lambda *_: crew.stop())
        crew.run()
        return
    owner = Owner(Path(store), Address("127.0.0.1", workers.free_port()))
    command = workers.command_of(str(owner.address), keys.path, listener, options)
    crew = workers.Crew(command, listener, count, {TOKEN_FILE: str(owner.token_file)})
    workers.owned(owner, crew)
    say("Stopped; the store is closed.", err=True)


def _tell(listener: socket.socket, store: str, keys: Keys) -> None:
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    say(f"Serving {store} at {address} (Ctrl-C ends it)")
    if keys.required:
        say(f"Who may ask: the {len(keys.all())} keys of {keys.path}")
    else:
        say(f"No keys ({keys.path} is not there): whoever is on this machine may do everything.")


@click.group()
def keys() -> None:
    """Say who may ask `recgraph serve`: make, list and revoke keys.

    Scopes: recommend (ask, and read summaries and runs), events (record them), catalog (write products), erase (forget
    shoppers).
    """


def _file_option(command: Any) -> Any:
    return click.option("--file", metavar="FILE", help="the file of keys  [default: STORE.keys.json]")(command)


def _opened(store: str | None, file: str | None) -> Keys:
    from recgraph.http.keys import Keys
    from recgraph.settings import load_settings

    return Keys(file) if file else Keys.beside(load_settings(store=store).store)


@keys.command("add")
@click.argument("name", metavar="NAME")
@click.option("--scope", "scopes", multiple=True, required=True, metavar="SCOPE", help="what it opens; repeat for more")
@click.option("--user", default="", metavar="ID", help="a shopper, whose data alone it opens")
@_file_option
@store_option
def add_key(name: str, scopes: tuple[str, ...], user: str, file: str | None, store: str | None) -> None:
    """Make a key and print it, this once: the file keeps its hash.

    A server that runs already knows it at once.
    """
    chosen = _opened(store, file)
    token = chosen.add(name, scopes, user)
    click.echo(token)
    say(f"Kept as a hash in {chosen.path}. Use it as: Authorization: Bearer {token[:6]}…", err=True)


@keys.command("list")
@json_option
@_file_option
@store_option
def list_keys(as_json: bool, file: str | None, store: str | None) -> None:
    """List the keys there are, by name."""
    rows = [
        {"name": key.name, "scopes": list(key.scopes), "user_id": key.user_id, "made": key.made}
        for key in _opened(store, file).all()
    ]
    if as_json:
        click.echo(json_text(rows))
        return
    for row in rows:
        bound = f"  user {row['user_id']}" if row["user_id"] else ""
        say(f"{row['name']}  {', '.join(row['scopes'])}{bound}  made {row['made']}")
    if not rows:
        say("No keys. Make one: recgraph keys add NAME --scope recommend")


@keys.command("revoke")
@click.argument("name", metavar="NAME")
@_file_option
@store_option
def revoke_key(name: str, file: str | None, store: str | None) -> None:
    """Take a key away; a server that runs refuses it from now on."""
    _opened(store, file).revoke(name)
    say(f"The key {name} opens nothing any more.")
