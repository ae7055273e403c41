"""The commands `recgraph store ...`: one process owns a store and serves it to the others."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from recgraph.terminal import say


@click.group()
def store() -> None:
    """Share one store among several processes and machines."""


@store.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--host", default="127.0.0.1", show_default=True, help="the address it listens on")
@click.option("--port", type=click.IntRange(1, 65535), default=9494, show_default=True, help="the port it listens on")
@click.option("--anywhere", is_flag=True, help="allow an address that is not this machine's loopback")
def serve(file: Path, host: str, port: int, anywhere: bool) -> None:
    """Own the store FILE, and serve it until this is stopped.

    Others name it `--store quack:HOST:PORT`. They need its token, which is made at random and lies in FILE.token:
    RECGRAPH_STORE_TOKEN_FILE names that file, or RECGRAPH_STORE_TOKEN holds the token.
    """
    from recgraph.store.shared.address import Address
    from recgraph.store.shared.owner import Owner

    owner = Owner(file, Address(host, port), anywhere)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: owner.stop())
    told: list[bool] = []

    def ready() -> None:
        if not told:
            told.append(True)
            say(f"{file} is served at {owner.address}; its token lies in {owner.token_file}")

    owner.run(ready)
