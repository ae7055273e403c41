"""What the commands share: the option of the store, opening it, where is printed, and how many threads numpy has."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from recgraph.store.db import Store

Command = TypeVar("Command", bound=Callable[..., Any])


def store_option(command: Command) -> Command:
    """Adds --store."""
    return click.option("--store", metavar="FILE", help="the store  [default: recgraph.duckdb]")(command)


def json_option(command: Command) -> Command:
    """Adds --json."""
    return click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")(command)


def limit_option(default: int, what: str) -> Callable[[Command], Command]:
    """Adds --limit, which a list is cut off at."""
    limits = click.IntRange(1, 100_000)
    return click.option("--limit", metavar="N", type=limits, default=default, show_default=True, help=what)


def open_store(store: str | None) -> Store:
    """The store that is named, else that of the settings. StoreError where it is not there."""
    from recgraph.settings import load_settings
    from recgraph.store.db import Store

    return Store.open(load_settings(store=store).store)


def consoles() -> tuple[Console, Console]:
    """Standard output for results, standard error for progress. What they print is cleaned (recgraph/terminal.py)."""
    from recgraph.terminal import console_class

    console = console_class()
    return console(), console(stderr=True)


def one_thread_an_answer() -> None:
    """Has numpy work in one thread, unless the environment says otherwise. For commands that give several answers at
    once: the products of one are small, and threads that wait for each other cost more than they save. Counts where
    numpy is not imported yet."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
