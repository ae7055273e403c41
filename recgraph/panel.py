"""What a person sees in the terminal: the recommendation panel, live progress, and the small tables of the other commands. No logic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from recgraph.store.records import Event, Item, show_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from recgraph.graph.recommendation import Recommendation
    from recgraph.graph.recommender import Step
    from recgraph.store.columns import Reject, Rejected, UserRow
    from recgraph.store.ingest.load import Preview
    from recgraph.store.ingest.report import IngestReport
    from recgraph.store.ingest.staging import Reading

_ACTIONS = {"search": ("search", "searches"), "click": ("click", "clicks"), "cart": ("cart", "carts"), "purchase": ("purchase", "purchases")}
_STEPS = {
    "load_history": "Reading the history",
    "recall_memory": "Recalling what similar searches showed",
    "summarize": "Summarising the history",
    "recommend": "Asking the model for the next product",
    "retrieve": "Finding it in the catalogue",
    "rerank": "Asking the model about each candidate",
    "explain": "Giving reasons",
}
_RECENT_SHOWN = 5


def money(price: float | None, currency: str) -> str:
    """A price with its currency, "" where unknown."""
    return "" if price is None else f"{currency}{price:,.2f}"


def event_line(event: Event, items: dict[str, Item] | None = None) -> Text:
    """One event as a line: when, what was done, to what."""
    line = Text()
    line.append(f"{show_time(event.ts):>16}  ", style="dim")
    line.append(f"{event.action:<9}", style={"purchase": "bold green", "cart": "yellow", "search": "cyan"}.get(event.action, ""))
    item = (items or {}).get(event.item_id)
    line.append(f"“{event.query}”" if event.action == "search" else item.name if item else event.item_id)
    return line


def recommendation(found: Recommendation, *, shop: str, simulated: str, currency: str) -> RenderableType:
    """The panel of `recgraph run`."""
    parts: list[RenderableType] = [Padding(_brief(found), (0, 0, 1, 0))]
    if found.summary:
        parts.append(Padding(_summary(found), (0, 0, 1, 0)))
    parts.append(_products(found, currency))
    parts.append(Padding(_footer(found), (1, 0, 0, 0)))
    if simulated:
        parts.append(Text(simulated, style="dim italic"))
    title = Text.assemble((shop or "recgraph", "bold"), f" · for {found.user_id}")
    if found.query:
        title.append(f" · “{found.query}”", style="cyan")
    return Panel(Group(*parts), title=title, subtitle=Text("simulated shop", style="dim") if simulated else None, border_style="blue", padding=(1, 2))


def _brief(found: Recommendation) -> RenderableType:
    if not found.history:
        return Text("No history yet: the answer rests on the search and on what is popular.", style="dim")
    counts: Counter[str] = Counter(event.action for event in found.history)
    said = ", ".join(f"{counts[action]} {names[counts[action] != 1]}" for action, names in _ACTIONS.items() if counts[action])
    first, last = show_time(found.history[0].ts), show_time(found.history[-1].ts)
    head = Text.assemble(
        ("History  ", "bold"), f"{said} · {first[:10] if first[0].isdigit() else first} to {last[:10] if last[0].isdigit() else last}"
    )
    lines = [event_line(event, dict(found.known_items)) for event in found.history[-_RECENT_SHOWN:]]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(head, *lines)


def _summary(found: Recommendation) -> RenderableType:
    assert found.summary is not None
    text = Text.assemble(("Summary  ", "bold"))
    for sentence, seqs in found.summary.sentences:
        text.append(f"{sentence} ")
        text.append(f"[{_ranges(seqs)}] ", style="dim")
    return text


def _ranges(seqs: Sequence[int]) -> str:
    """Event numbers in short: "3, 5–9, …" with at most four parts."""
    parts: list[list[int]] = []
    for seq in sorted(seqs):
        if parts and seq == parts[-1][1] + 1:
            parts[-1][1] = seq
        else:
            parts.append([seq, seq])
    shown = [str(a) if a == b else f"{a}–{b}" for a, b in parts[:4]]
    return ", ".join(shown) + (", …" if len(parts) > 4 else "")


def _products(found: Recommendation, currency: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), expand=True, show_edge=False)
    table.add_column("#", justify="right", style="bold")
    table.add_column("Product and reason", ratio=1)
    table.add_column("Price", justify="right", no_wrap=True)
    table.add_column("Yes", justify="right", no_wrap=True)
    table.add_column("From", style="dim", no_wrap=True)
    for line in found.items:
        product = Text(line.item.name, style="bold", overflow="ellipsis", no_wrap=True)
        yes = "–" if line.yes is None else f"{line.yes:.0%}"
        table.add_row(str(line.rank), Group(product, Text(line.reason, style="dim italic")), money(line.item.price, currency), yes, line.source)
    return table


def _footer(found: Recommendation) -> RenderableType:
    from recgraph.graph.prompts import clean  # loads torch, which a run has loaded anyway and the other commands do without

    lines = []
    if found.prediction and found.prediction.item_id:
        named = found.known_items.get(found.prediction.item_id)
        wrote = clean(found.prediction.title, 60)
        said = Text.assemble(("Model's guess  ", "bold"), f"{named.name if named else wrote} ", (found.prediction.item_id, "dim"))
        if named and wrote and wrote != clean(named.name, 60):
            said.append(f" (it wrote “{wrote}”)", style="dim")
        lines.append(said)
    if any(line.yes is not None for line in found.items) and not found.models["adapter"]:
        lines.append(Text("Yes is the untrained base model's opinion; without an adapter it hardly counts in the order.", style="dim"))
    times = " · ".join(f"{node.replace('_', ' ')} {_seconds(ms)}" for node, ms in found.timings_ms.items() if node != "total" and ms >= 1)
    cached = f", {found.cached_blocks} of {found.blocks} summary blocks cached" if found.blocks else ""
    lines.append(Text(f"{_seconds(found.timings_ms['total'])} in all: {times}", style="dim"))
    model = " with ".join(filter(None, (found.models["llm"], found.models["adapter"])))
    lines.append(
        Text(
            f"{model} · {found.tokens.prompt:,} prompt tokens ({found.tokens.cached:,} cached){cached} · run {found.run_id}",
            style="dim",
        )
    )
    lines.extend(Text(f"! {note}", style="yellow") for note in found.degraded)
    return Group(*lines)


def _seconds(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


@contextmanager
def bars(console: Console) -> Iterator[Callable[..., None]]:
    """Progress bars for long work: yields a function (what, done, of). Nothing is drawn where the console is no terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int = 0, of: int = 0) -> None:
            if what not in tasks:
                if not console.is_terminal:
                    console.print(f"{what} ({of:,})" if of else what, style="dim")
                for earlier in tasks.values():
                    progress.update(earlier, visible=False)
                tasks[what] = progress.add_task(what, total=of or None)
            progress.update(tasks[what], completed=done, total=of or None)

        yield tell


def follow(steps: Iterator[Step | Recommendation], console: Console) -> Recommendation:
    """Shows a run's steps live and gives back its recommendation."""
    from recgraph.graph.recommendation import Recommendation

    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        names = list(_STEPS)
        task = progress.add_task(_STEPS[names[0]])
        for step in steps:
            if isinstance(step, Recommendation):
                return step
            if step.node in names:
                here = names.index(step.node)
                following = step.node if step.detail.startswith(("block", "merge")) else names[min(here + 1, len(names) - 1)]
                progress.update(task, description=f"{_STEPS[following]}{f' ({step.detail} done)' if following == step.node and step.detail else ''}")
    raise AssertionError("a run ends in a recommendation")


def ingested(report: IngestReport, store: str) -> RenderableType:
    """What `recgraph ingest` did."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    rows = {
        "users": report.users,
        "items, new": report.items_new,
        "  of them known by events only": report.items_unlisted,
        "items, changed": report.items_changed,
        "items, off sale": report.items_off_sale,
        "events, read": report.events_read,
        "events, new": report.events_new,
        "exposures, new": report.exposures_new,
        "rows rejected": report.rows_lost,
        "rows kept without a value": report.rejects - report.rows_lost,
    }
    seldom = ("  of them known by events only", "items, off sale", "rows kept without a value")
    for name, count in rows.items():
        if count or name not in seldom:
            table.add_row(name, Text(f"{count:,}", justify="right"))
    parts: list[RenderableType] = [
        *_readings(report.readings),
        Text(f"{report.files} file{'s' if report.files != 1 else ''} of format {report.format} into {store} in {report.seconds:.1f} s"),
        table,
        *(Text(f"· {printable(note)}") for note in report.notes),
        *(Text(f"{one.count:>9,}  {printable(one.reason)} ({printable(one.example)})", style="yellow") for one in report.rejected[:_REASONS_SHOWN]),
    ]
    if report.rejects:
        parts.append(Text("See the rejected rows with `recgraph rejects`.", style="yellow"))
    if any(one.reason.startswith("action ") for one in report.rejected):
        option = "--map events.action:NAME=click (or cart, purchase, search, return, ignore)"
        parts.append(Text(f"Say what the name of an event means: {option}.", style="yellow"))
    if report.alarming:
        said = f"{report.rows_lost:,} of {report.rows:,} rows ({report.share_lost:.0%}) were rejected: look at the reasons. What was good is kept."
        parts.append(Text(said, style="bold red"))
    return Group(*parts)


_REASONS_SHOWN = 8


def printable(text: str) -> str:
    """A text of a file without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def rejected(reasons: Sequence[Rejected], rows: Sequence[Reject]) -> RenderableType:
    """What `recgraph rejects` shows: counts by reason, then rows, each in one line of the terminal."""
    if not reasons:
        return Text("No row was rejected.")
    parts: list[RenderableType] = [Text(f"{one.count:>9,}  {printable(one.reason)}") for one in reasons]
    lines = []
    for row in rows:
        place = f"{row.source.rsplit('/', 1)[-1]}:{row.line}"
        lines.append(Text(f"{printable(place)}  {printable(row.reason)}  {printable(row.raw)}", no_wrap=True, overflow="ellipsis"))
    return Group(*parts, Text(), *lines)


def _readings(readings: Sequence[Reading]) -> list[Text]:
    """What each file was taken for, and where each of our columns comes from: one line a file, its columns and notes below."""
    lines = []
    for reading in readings:
        line = Text(f"{printable(reading.source.label)}: {reading.name}")
        for ours, theirs in reading.columns:
            line.append(f"\n  {ours} ", style="cyan").append("← " + printable(theirs if len(theirs) < 90 else theirs[:87] + "..."))
        for note in reading.notes:
            line.append(f"\n  ! {printable(note)}", style="yellow")
        lines.append(line)
    return lines


def previewed(found: Preview) -> RenderableType:
    """What `recgraph ingest --dry-run` would do: what each file is, and the first rows as they would be stored."""
    lines = [*_readings(found.readings), *(Text(f"· {printable(note)}") for note in found.notes)]
    for kind, rows in found.rows:
        for number, row in enumerate(rows):
            if not number:
                lines.append(Text(f"{kind}, the first of {found.counts[kind]:,} that were looked at:", style="bold"))
            filled = {name: value for name, value in row.items() if value not in (None, "", {})}
            lines.append(Text("  " + ", ".join(f"{name}={printable(str(value)[:60])}" for name, value in filled.items())))
    if found.counts["rejects"]:
        lines.append(Text(f"rows rejected: {found.counts['rejects']:,}", style="red"))
        lines += [Text(f"  {printable(source)}, line {line}: {printable(reason)}") for source, line, reason in found.rejects[:5]]
    return Group(*lines, Text("A dry run: nothing was written."))


def users(rows: Sequence[UserRow]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("user", "events", "purchases", "first", "last"):
        table.add_column(name, justify="right" if name in ("events", "purchases") else "left")
    for row in rows:
        table.add_row(row.user_id, f"{row.events:,}", f"{row.purchases:,}", show_time(row.first), show_time(row.last))
    return table


def products(rows: Sequence[Item], currency: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("item", no_wrap=True)
    table.add_column("title", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("category", no_wrap=True)
    table.add_column("price", justify="right", no_wrap=True)
    table.add_column("since", no_wrap=True)
    for item in rows:
        since = show_time(item.first_seen).split(" ")[0] if item.first_seen and item.first_seen.year > 1970 else ""
        table.add_row(item.item_id, item.name, item.category, money(item.price, currency), since)
    return table
