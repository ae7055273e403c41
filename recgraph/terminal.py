"""How text reaches a terminal: what a shop, a shopper or a server wrote is data there, and can neither move the cursor
nor reorder a line.

`printable` is the one function that cleans; the console that all commands print with runs everything it draws through
it once more, so that no command can forget. JSON keeps its data as it is: `json_text` writes the same characters as
escapes. Knows nothing of what is shown.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import asdict
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

REPLACED = "\N{REPLACEMENT CHARACTER}"
# Controls (C0, DEL, C1), line and paragraph separators, lone surrogates; and what cannot be seen: zero-width, bidi and
# other format characters.
_UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    r"\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """One line in which nothing acts: white space becomes blanks, a control character `\N{REPLACEMENT CHARACTER}`, what
    cannot be seen goes."""
    return _UNSAFE.sub(lambda found: _shown_as(found.group()), text)


def _shown_as(character: str) -> str:
    if character.isspace():
        return " "
    return REPLACED if unicodedata.category(character) in ("Cc", "Cs") else ""


def json_text(value: Any) -> str:
    """Indented JSON, the same data byte for byte once read; characters that would act on a terminal stand as
    escapes."""
    return _UNSAFE.sub(_escaped, json.dumps(value, ensure_ascii=False, indent=2))


def plain(record: Any) -> dict[str, Any]:
    """A record's fields as JSON takes them, times in ISO form."""
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(record).items()}


def _escaped(found: re.Match[str]) -> str:
    character = found.group()
    return (
        character if character == "\n" else json.dumps(character)[1:-1]
    )  # newlines of a text are escaped already; these part the lines


def say(text: str, **style: Any) -> None:
    """`click.secho` of a line that may hold data."""
    click.secho(printable(text), **style)


@cache
def console_class() -> type[Console]:
    """Rich's console, without its markup, and with every segment cleaned; made late, because rich takes its time to be
    imported."""
    from collections.abc import Iterable

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class PlainConsole(Console):
        """Brackets and colons are text here, and only rich's own control segments control."""

        def __init__(self, **options: Any) -> None:
            super().__init__(highlight=False, markup=False, emoji=False, **options)

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for part in super().render(renderable, options):
                yield part if part.control or part.text == "\n" else Segment(_lines_printable(part.text), part.style)

    return PlainConsole


def _lines_printable(text: str) -> str:
    """As `printable`, the line ends kept: rich parts some lines itself."""
    return "\n".join(map(printable, text.split("\n")))
