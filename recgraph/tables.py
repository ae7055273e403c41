"""Tables in the terminal: adapter sets (the list, one set's cards, two side by side), an evaluation, an ablation, a
tuning's trials, an answer given again. No logic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from recgraph.errors import ModelMissing
from recgraph.terminal import printable
from recgraph.tools.llm.adapter_sets import ADAPTERS, adapter_fingerprint

if TYPE_CHECKING:
    from recgraph.evaluation.result import Ablation, Against, Figure, Line, Result
    from recgraph.evaluation.tune import Trial
    from recgraph.graph.replay.difference import Replay
    from recgraph.tools.llm.adapter_sets import AdapterCard, AdapterSet

_MOVED_SHOWN, _DIFFERENCES_SHOWN = 20, 8

# ── Adapter sets ──────────────────────────────────────────────────────────────────────────────────────────────────────


def listed(sets: Sequence[AdapterSet], default: str, problems: Mapping[str, str]) -> RenderableType:
    """Every set on a line, the default marked; `problems` says by name why a set cannot be read or does not fit."""
    if not sets:
        return Text(
            "No adapter sets here. `dvc repro` trains one into adapters/default; "
            "`recgraph run` answers untrained until then.",
            style="dim",
        )
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "set", "tasks", "base model", "trained on", "MB"):
        table.add_column(name, justify="right" if name == "MB" else "left", overflow="fold")
    for one in sets:
        cards = _readable(one)
        bases, sources = (
            ", ".join(dict.fromkeys(filter(None, names)))
            for names in ((c.base_name for c in cards), map(_source, cards))
        )
        mark = Text("*" if one.name == default else "", style="bold green")
        table.add_row(
            mark,
            Text(one.name, style="bold"),
            ", ".join(one.tasks),
            bases or "?",
            sources or "?",
            f"{one.bytes / 1e6:.1f}",
        )
    notes = [Text(f"! {text}", style="yellow") for text in problems.values() if text]
    default_set = (
        f"A run takes the set marked * ({default})."
        if default
        else "A run takes none by default; to choose one: recgraph adapters use SET"
    )
    return Group(table, *notes, Text(default_set, style="dim"))


def shown(one: AdapterSet) -> RenderableType:
    """The cards of a set: what each adapter was made from, and its metrics before and after training."""
    parts: list[RenderableType] = [Text.assemble((one.label, "bold"), f"  {one.folder}  {one.bytes / 1e6:.1f} MB")]
    for name, folder in one.adapters.items():
        card = one.cards.get(name)
        if card is None:
            parts.append(Text.assemble("\n", (name, "bold cyan"), f"  {folder.name}: without a card (recgraph.json)"))
            continue
        facts = {key: value for key, value in card.flat().items() if not key.startswith("metrics.")}
        tasks = f"  tasks {' and '.join(ADAPTERS[name])}" if len(ADAPTERS[name]) > 1 else ""
        parts += [
            Text.assemble("\n", (name, "bold cyan"), f"  weights {adapter_fingerprint(folder) or 'unreadable'}{tasks}"),
            _facts(facts),
            _metrics(card),
        ]
    return Group(*parts)


def side_by_side(first: AdapterSet, second: AdapterSet) -> RenderableType:
    """Settings, data and metrics of two sets side by side, what differs marked."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "", first.name, second.name):
        table.add_column(name, overflow="fold")
    for adapter in dict.fromkeys([*first.adapters, *second.adapters]):
        table.add_section()
        folders = [one.adapters.get(adapter) for one in (first, second)]
        weights = [adapter_fingerprint(folder) if folder else "–" for folder in folders]
        table.add_row("", Text(adapter, style="bold cyan"), *weights)
        left, right = (one.cards[adapter].flat() if adapter in one.cards else {} for one in (first, second))
        for name in dict.fromkeys([*left, *right]):
            values = [_cell(facts.get(name)) for facts in (left, right)]
            style = "yellow" if values[0] != values[1] else "dim"
            table.add_row(
                Text("≠" if values[0] != values[1] else "", style="bold yellow"),
                name,
                *(Text(value, style=style) for value in values),
            )
    return table


def _facts(facts: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(Text(f"  {name}", style="dim"), Text(_cell(value)))
    return table


def _metrics(card: AdapterCard) -> RenderableType:
    before, after = card.metrics.get("before"), card.metrics.get("after")
    if not isinstance(before, dict) or not isinstance(after, dict):
        return _facts({name: value for name, value in card.flat().items() if name.startswith("metrics.")})
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("metric", "before", "after"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for name in dict.fromkeys([*before, *after]):
        table.add_row(name, _cell(before.get(name)), _cell(after.get(name)))
    others = {name: value for name, value in card.metrics.items() if name not in ("before", "after")}
    return Group(table, _facts(others)) if others else table


def _readable(one: AdapterSet) -> list[AdapterCard]:
    try:
        return list(one.cards.values())
    except ModelMissing:
        return []  # `problems` says why


def _source(card: AdapterCard) -> str:
    return " ".join(str(part) for part in (card.data.get("source"), f"({card.preset})" if card.preset else "") if part)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


# ── Evaluations ───────────────────────────────────────────────────────────────────────────────────────────────────────


def evaluation(result: Result) -> RenderableType:
    """Every system on a line, the best first, and below what the figures rest on."""
    from recgraph.evaluation.leaderboard.words import warnings

    sampled = result.protocol == "sampled"
    wanted = (
        ("recall@10", "mrr@10") if sampled else ("recall@10", "mrr")
    )  # 80 columns; T's others are in the JSON and the leaderboard
    table = _table("system", (*wanted, "ndcg@10", "from best", "p (Holm)", *(() if sampled else ("ms",))))
    for place, line in enumerate(result.ordered):
        against = _against_cells(line.against if place else None)
        cost = [] if sampled else ["" if line.score_ms is None else f"{line.score_ms:.2f}"]
        means = [_number(line.figure(name).mean) for name in wanted]
        table.add_row(line.name.replace("recgraph-", "recgraph-\n"), *means, _with_half(line.figure()), *against, *cost)
    return Group(
        table,
        *(Text(note, style="dim") for note in _notes(result)),
        *(Text(f"! {one}", style="yellow") for one in warnings(result.ordered)),
    )


def _table(first: str, numbers: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(first, style="bold", no_wrap=first == "system")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.4f}"


def _with_half(figure: Figure, sign: str = "") -> str:
    """A mean and half of its interval."""
    return _number(figure.mean, sign) + ("" if figure.half is None else f" ±{figure.half:.4f}")


def _against_cells(against: Against | None) -> tuple[str, str]:
    """A difference and its p."""
    if against is None:
        return "", ""
    p = against.p_holm
    return _with_half(against.difference, "+"), "–" if p is None else "<.001" if p < 0.001 else f"{p:.3f}"


def _notes(result: Result) -> list[str]:
    among = {"category": "all items of the target's category", "sampled": "the target and 20 drawn"}.get(
        result.protocol, "all items"
    )
    seen = "without those of the history" if result.seen == "excluded" else "the history's too"
    dropped = ", ".join(f"{count:,} for {why}" for why, count in (result.dropped or {}).items() if count)
    sample = ", a sample" if result.sample == result.cases else ""
    items = "" if result.items is None else f", {result.items:,} items"
    notes = [
        f"{result.dataset}, split {result.split}, protocol {result.protocol}: {result.cases:,} cases{sample}{items}.",
        f"Candidates are {among}, {seen}." + (f" Not asked: {dropped}." if dropped else ""),
        "Ties count by their expected rank. A case has one right answer, so its hit rate is its recall.",
        "± is half of a 95 % bootstrap interval over users; differences of NDCG@10 are paired; "
        "ms are those of scoring a case.",
    ]
    for name in dict.fromkeys(one.system for one in result.low_resource):
        curve = ", ".join(
            f"{_number(one.figure.mean)} ({one.share:.0%})" for one in result.low_resource if one.system == name
        )
        notes.append(f"Low resource: {name} learns from a share of the users, ndcg@10 {curve}.")
    return notes + [_cost(line) for line in result.ordered if line.tokens]


def _cost(line: Line) -> str:
    """What a recommendation of a language model costs, and what its first stage left it to find."""
    if line.tokens is None:
        return ""
    tokens, ceiling = line.tokens, line.ceiling
    read = f"{tokens.prompt:,.0f} tokens read ({tokens.cached:,.0f} of them known) and {tokens.completion:,.0f} written"
    cost = f"{line.name}: {read}, {(line.score_ms or 0) / 1000:.2f} s a recommendation"
    return cost + (
        f"; {ceiling.recall:.1%} of the targets are among the {ceiling.depth} it reranks." if ceiling else "."
    )


def ablation(found: Ablation) -> RenderableType:
    """Every variant on a line in the given order, then what each costs, and below what the figures rest on."""
    metrics = ("recall@10", "ndcg@10", "mrr")
    figures = _table("variant", (*metrics, "from first", "p (Holm)"))
    costs = _table("variant", ("ceiling", "invalid", "read", "written", "ms"))
    for line in found.variants:
        figures.add_row(
            line.name, *(_number(line.metrics[name].mean) for name in metrics), *_against_cells(line.against)
        )
        tokens = (f"{line.tokens.prompt:,.0f}", f"{line.tokens.completion:,.0f}")
        costs.add_row(
            line.name, _number(line.metrics["ceiling"].mean), f"{line.invalid:.1%}", *tokens, f"{line.ms.median:,.0f}"
        )
    notes = [
        f"{found.dataset}, split {found.split}: {found.cases:,} cases of {found.users:,} users, each as of its moment.",
        "From first: NDCG@10 less that of the first variant, paired; "
        "± is half of a 95 % bootstrap interval over users.",
        "Ceiling: the target is among the candidates. Invalid: the LLM's answer named no product as asked. "
        "Tokens and median ms are of one answer, as if each variant had been asked alone.",
    ]
    degraded = [
        f"! {line.name}: {line.degraded:.1%} of the answers had to do without something."
        for line in found.variants
        if line.degraded
    ]
    return Group(
        figures,
        Text(),
        costs,
        *(Text(one, style="dim") for one in notes),
        *(Text(one, style="yellow") for one in degraded),
    )


def trials(found: Mapping[str, Sequence[Trial]]) -> RenderableType:
    """Every trial of a tuning, each system's best one bold."""
    from recgraph.evaluation.tune import best

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in ("system", "NDCG@10", "seconds", "settings"):
        table.add_column(
            column, justify="right" if column in ("NDCG@10", "seconds") else "left", no_wrap=column != "settings"
        )
    for name, tried in found.items():
        for trial in tried:
            settings = ", ".join(f"{setting} {value}" for setting, value in trial.settings.items())
            style = "bold" if trial is best(tried) else ""
            table.add_row(name, f"{trial.ndcg:.4f}", f"{trial.seconds:.0f}", settings or "defaults", style=style)
    return table


# ── An answer given again ─────────────────────────────────────────────────────────────────────────────────────────────


def replayed(given: Replay) -> RenderableType:
    """Whether it is the same; what it hung on and is another now; the products that moved, and what else differs."""
    then, moved = given.then, given.moved
    count = len(then["items"])
    told = f"Run {then['run_id']} of {printable(str(then['user_id']))}: "
    same = f"the same answer, {count} products, equal but for times."
    parts: list[RenderableType] = [
        Text(told + (same if given.equal else "another answer."), style="green" if given.equal else "bold red")
    ]
    parts += [Text(f"! {printable(sentence)}", style="yellow") for sentence in given.gone]
    if not (given.equal or given.gone):
        parts.append(
            Text(
                "! All that is logged of how it was answered is the same: what differs hangs on time or machine.",
                style="yellow",
            )
        )
    if moved:
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("then", "now"):
            table.add_column(name, justify="right")
        for name in ("id", "product"):
            table.add_column(name, overflow="fold")
        for one in moved[:_MOVED_SHOWN]:
            ranks = ("–" if rank is None else str(rank) for rank in (one.then, one.now))
            table.add_row(*ranks, printable(one.item_id), printable(one.title))
        parts.append(table)
    others = [one for one in given.differences if not (moved and one.path.startswith("items["))]
    parts += [Text(f"{one.path}: {printable(one.then)} → {printable(one.now)}") for one in others[:_DIFFERENCES_SHOWN]]
    if (left := len(moved[_MOVED_SHOWN:]) + len(others[_DIFFERENCES_SHOWN:])) > 0:
        parts.append(Text(f"… and {left} more: --json shows all.", style="dim"))
    return Group(*parts)
