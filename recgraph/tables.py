"""What a person sees of adapter sets in the terminal: the list, one set's cards, two sets side by side. No logic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from recgraph.errors import ModelMissing

if TYPE_CHECKING:
    from recgraph.tools.llm.adapter_sets import AdapterCard, AdapterSet


def listed(sets: Sequence[AdapterSet], default: str, problems: Mapping[str, str]) -> RenderableType:
    """Every set on a line, the default marked; `problems` says by name why a set cannot be read or does not fit."""
    if not sets:
        return Text("No adapter sets here. `dvc repro` trains one into adapters/default; `recgraph run` answers untrained until then.", style="dim")
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "set", "tasks", "base model", "trained on", "MB"):
        table.add_column(name, justify="right" if name == "MB" else "left", overflow="fold")
    for one in sets:
        cards = _readable(one)
        bases, sources = (", ".join(dict.fromkeys(filter(None, told))) for told in ((c.base_name for c in cards), map(_source, cards)))
        mark = Text("*" if one.name == default else "", style="bold green")
        table.add_row(mark, Text(one.name, style="bold"), ", ".join(one.tasks), bases or "?", sources or "?", f"{one.bytes / 1e6:.1f}")
    notes = [Text(f"! {text}", style="yellow") for text in problems.values() if text]
    said = f"A run takes the set marked * ({default})." if default else "A run takes none by default; to choose one: recgraph adapters use SET"
    return Group(table, *notes, Text(said, style="dim"))


def shown(one: AdapterSet) -> RenderableType:
    """The cards of a set: what each adapter was made from, and its metrics before and after training."""
    parts: list[RenderableType] = [Text.assemble((one.label, "bold"), f"  {one.folder}  {one.bytes / 1e6:.1f} MB")]
    for task, folder in one.tasks.items():
        card = one.cards.get(task)
        if card is None:
            parts.append(Text.assemble("\n", (task, "bold cyan"), f"  {folder.name}: without a card (recgraph.json)"))
            continue
        facts = {name: value for name, value in card.flat().items() if not name.startswith("metrics.")}
        parts += [Text.assemble("\n", (task, "bold cyan"), f"  weights {one.weights[task] or 'unreadable'}"), _facts(facts), _metrics(card)]
    return Group(*parts)


def compared(first: AdapterSet, second: AdapterSet) -> RenderableType:
    """Settings, data and metrics of two sets side by side, what differs marked."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "", first.name, second.name):
        table.add_column(name, overflow="fold")
    for task in dict.fromkeys([*first.tasks, *second.tasks]):
        table.add_section()
        table.add_row("", Text(task, style="bold cyan"), first.weights.get(task, "–"), second.weights.get(task, "–"))
        left, right = (one.cards[task].flat() if task in one.cards else {} for one in (first, second))
        for name in dict.fromkeys([*left, *right]):
            values = [_said(facts.get(name)) for facts in (left, right)]
            style = "yellow" if values[0] != values[1] else "dim"
            table.add_row(Text("≠" if values[0] != values[1] else "", style="bold yellow"), name, *(Text(value, style=style) for value in values))
    return table


def _facts(facts: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(Text(f"  {name}", style="dim"), Text(_said(value)))
    return table


def _metrics(card: AdapterCard) -> RenderableType:
    before, after = card.metrics.get("before"), card.metrics.get("after")
    if not isinstance(before, dict) or not isinstance(after, dict):
        return _facts({name: value for name, value in card.flat().items() if name.startswith("metrics.")})
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("metric", "before", "after"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for name in dict.fromkeys([*before, *after]):
        table.add_row(name, _said(before.get(name)), _said(after.get(name)))
    others = {name: value for name, value in card.metrics.items() if name not in ("before", "after")}
    return Group(table, _facts(others)) if others else table


def _readable(one: AdapterSet) -> list[AdapterCard]:
    try:
        return list(one.cards.values())
    except ModelMissing:
        return []  # `problems` says why


def _source(card: AdapterCard) -> str:
    return " ".join(str(part) for part in (card.data.get("source"), f"({card.preset})" if card.preset else "") if part)


def _said(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
