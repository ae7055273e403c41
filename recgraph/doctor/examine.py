"""`recgraph doctor`: what works on this machine, and the exact command that mends what does not.

It looks, and changes nothing (but where `deep` is told to): no model is loaded, no store is made or migrated, one short
request goes to the LLM server if one is set. Every check catches what can be expected to go wrong and turns it into a
line; it does not know how to print itself in other ways than `report`, and exit codes are the command's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recgraph.doctor import machine, server, shop
from recgraph.doctor.check import Check
from recgraph.errors import RecgraphError
from recgraph.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType


def checks(settings: Settings) -> list[Check]:
    """All checks, in the order they are worth reading: what everything stands on comes first. Takes a few seconds,
    torch is imported."""
    base: tuple[Callable[[Settings], Iterator[Check]], ...] = (machine.python, machine.packages, machine.processor)
    sections = (*base, shop.models, shop.store, shop.adapters, machine.room, server.server, machine.optional)
    return [check for section in sections for check in section(settings)]


def deep(settings: Settings, checkpoint_files: Sequence[Path] = (), mend: bool = False) -> list[Check]:
    """What is found in the files themselves (store/care/health.py): all of them are read. With `mend`, what can be
    mended without losing anything is."""
    from recgraph.store.care.health import examine

    found = []
    for one in examine(Path(os.path.expanduser(settings.store)), checkpoint_files):
        if mend and one.mend is not None:
            try:
                found.append(Check(one.name, True, f"mended: {one.found}; {one.mend()}"))
            except (RecgraphError, OSError) as error:
                found.append(Check(one.name, False, f"{one.found}. Not mended: {error}", one.command))
        else:
            found.append(Check(one.name, one.ok, one.found, one.command))
    return found


def report(found: list[Check]) -> RenderableType:
    """The checks as a rich renderable, the mending commands under their lines and a verdict below."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    marks = {
        True: Text("ok", style="green"),
        False: Text("broken", style="bold red"),
        None: Text("absent", style="yellow"),
    }
    table = Table.grid(padding=(0, 2))
    for check in found:
        table.add_row(marks[check.ok], Text(check.name, style="bold"), Text(check.found))
        if check.mend:
            table.add_row("", "", Text(f"→ {check.mend}", style="cyan"))
    broken = [check.name for check in found if check.ok is False]
    verdict = (
        Text(f"To mend: {', '.join(broken)}.", style="bold red")
        if broken
        else Text("Everything needed works.", style="green")
    )
    return Group(table, Text(), verdict)
