"""What a person sees in the terminal: the recommendation panel, live progress, and the small tables of the other
commands. No logic.

Texts of the shop and its shoppers go through `printable` where they are put in, so that widths are right; ids are never
cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from recgraph.store.records import Event, Item, show_time
from recgraph.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from recgraph.graph.recommendation import Recommendation
    from recgraph.graph.recommender import Step
    from recgraph.store.columns import Reject, Rejected, UserRow
    from recgraph.store.ingest.load import Preview
    from recgraph.store.ingest.report import IngestReport
    from recgraph.store.ingest.staging import Reading
    from recgraph.tools.wish.wish import Wish

    Tell = Callable[..., None]  # (what, done, of)

_DEMO_COUNTS = {"users": "shoppers", "items": "products", "events": "searches, clicks, carts and purchases of a year"}
_ACTIONS = {
    "search": ("search", "searches"),
    "click": ("click", "clicks"),
    "cart": ("cart", "carts"),
    "purchase": ("purchase", "purchases"),
}
_STEPS = {
    "load_history": "Reading the history",
    "understand": "Understanding the search",
    "recall_memory": "Recalling what similar searches showed",
    "summarize": "Summarising the history",
    "recommend": "Asking the model for the next product",
    "retrieve": "Finding it in the catalogue",
    "rerank": "Asking the model about each candidate",
    "explain": "Giving reasons",
}
_RECENT_SHOWN = 5
_WAYS_SHOWN = 3  # parts of a wish that could give way
_SLOWEST_SHOWN = 3  # nodes whose times are worth a reader's while


def money(price: float | None, currency: str) -> str:
    """A price with its currency, "" where unknown."""
    return "" if price is None else f"{currency}{price:,.2f}"


def event_line(event: Event, items: Mapping[str, Item], *, with_id: bool = False) -> Text:
    """One event as a line to be cut at its end: number, when, what was done, to what; the id, where wanted, before the
    name."""
    line = Text.assemble(
        (f"{event.seq:>5}  ", "dim"), (f"{show_time(event.ts):>16}  ", "dim"), no_wrap=True, overflow="ellipsis"
    )
    line.append(
        f"{event.action:<9}", style={"purchase": "bold green", "cart": "yellow", "search": "cyan"}.get(event.action, "")
    )
    item = items.get(event.item_id)
    if event.action == "search":
        line.append(f"“{printable(event.query)}”")
        return line
    if with_id or item is None:
        line.append(printable(event.item_id), style="dim" if item else "")
    if item:
        line.append(f"{'  ' if with_id else ''}{printable(item.name)}")
    return line


def recommendation(found: Recommendation, *, shop: str, simulated: str, currency: str) -> RenderableType:
    """The panel of `recgraph run`: who asked, what is known of them, the products with their reasons, and what
    answered."""
    parts: list[RenderableType] = [Padding(_brief(found), (0, 0, 1, 0))]
    if found.wish:
        parts.insert(0, Padding(understood(found.wish, currency), (0, 0, 1, 0)))
    if found.summary:
        parts.append(Padding(_summary(found), (0, 0, 1, 0)))
    if found.items:
        parts.append(_products(found, currency))
    if found.relaxed:
        parts.append(Padding(_relaxed(found), (1 if found.items else 0, 0, 0, 0)))
    parts.append(Padding(_footer(found), (1 if found.items else 0, 0, 0, 0)))
    if simulated:
        parts.append(Text(printable(simulated), style="dim italic"))
    title = Text.assemble((printable(shop) or "recgraph", "bold"), f" · for {printable(found.user_id)}")
    if found.query:
        title.append(f" · “{printable(found.query)}”", style="cyan")
    return Panel(Group(*parts), title=title, border_style="blue", padding=(1, 2))


def understood(wish: Wish, currency: str) -> Text:
    """What was understood, a few words a part, on a line."""
    parts = " · ".join(printable(part) for part in wish.parts(currency))
    return Text.assemble(("Understood  ", "bold"), (parts or "nothing that products can be told by", "cyan"))


def _relaxed(found: Recommendation) -> Text:
    """Why there are so few, or none of what was named, and what each hard part that could give way would bring."""
    count = len(found.items)
    if count and max(line.fits for line in found.items) < len(found.wish.named):
        named = ", ".join(printable(" or ".join(found.wish.want[name])) for name in found.wish.named)
        fit = f"None of these is all that was named ({named})"
        return Text(f"{fit}; {_ways(found)}.", style="yellow")
    fit = f"Only {count} product{' fits' if count == 1 else 's fit'}" if count else "No product fits"
    return Text(f"{fit} what was asked for: {_ways(found)}.", style="yellow")


def _ways(found: Recommendation) -> str:
    return ", ".join(f"{one.more:,} more without “{printable(one.part)}”" for one in found.relaxed[:_WAYS_SHOWN])


def _brief(found: Recommendation) -> RenderableType:
    if not found.history:
        return Text(f"No history yet{': the answer rests on the search' if found.query else ''}.", style="dim")
    counts: Counter[str] = Counter(event.action for event in found.history)
    numbers = ", ".join(
        f"{counts[action]} {names[counts[action] != 1]}" for action, names in _ACTIONS.items() if counts[action]
    )
    first, last = (_day(found.history[place].ts) for place in (0, -1))
    head = Text.assemble(("History  ", "bold"), f"{numbers} · {first if first == last else f'{first} to {last}'}")
    return Group(head, *(event_line(event, found.known_items) for event in found.history[-_RECENT_SHOWN:]))


def _day(ts: datetime) -> str:
    shown = show_time(ts)
    return shown[:10] if shown[0].isdigit() else shown


def _summary(found: Recommendation) -> RenderableType:
    assert found.summary is not None
    text = Text.assemble(("Summary  ", "bold"))
    for sentence, seqs in found.summary.sentences:
        text.append(f"{printable(sentence)} ")
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
    """A product on two lines: its name, cut where the terminal ends, and below it its id, whole, with the reason."""
    judged = any(line.yes is not None for line in found.items)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, expand=True, show_edge=False)
    table.add_column("#", justify="right", style="bold")
    table.add_column("Product, id and reason", ratio=1)
    table.add_column("Price", justify="right", no_wrap=True)
    if judged:
        table.add_column("Yes", justify="right", no_wrap=True)
    table.add_column("From", style="dim", no_wrap=True)
    named = len(found.wish.named)
    before = named
    for line in found.items:
        if line.fits < before:
            first = line is found.items[0]
            table.add_row("", Text(_fewer(line.fits, named, first), style="yellow"))
            before = line.fits
        name = Text(printable(line.item.name), style="bold", overflow="ellipsis", no_wrap=True)
        why = Text.assemble(
            (printable(line.item.item_id), "dim cyan"), ("  " + printable(line.reason), "dim italic"), overflow="fold"
        )
        yes = ["–" if line.yes is None else f"{line.yes:.0%}"] if judged else []
        table.add_row(str(line.rank), Group(name, why), money(line.item.price, currency), *yes, line.source)
    return table


def _fewer(fits: int, named: int, first: bool) -> str:
    """Where products begin that are not all that was named."""
    if named == 1:
        return "Nothing fits what was named; near it:" if first else "What was named ends here; near it:"
    begin = "Nothing fits all that was named; " if first else "All that fits more ends here; "
    return f"{begin}of its {named} parts these fit {fits or 'none'}:"


def _footer(found: Recommendation) -> RenderableType:
    asked = bool(found.tokens.prompt or found.tokens.completion)
    who = " with ".join(printable(name) for name in (found.models["llm"], found.models["adapter"]) if name)
    lines = [_guess(found)] if found.prediction and found.prediction.item_id else []
    unasked = "" if found.models["llm"] == "none" else " (the language model was not asked)"
    by = f"{who} and retrieval" if asked else f"retrieval alone{unasked}"
    lines.append(Text.assemble(("Answered by  ", "bold"), f"{by}, in {_seconds(found.timings_ms['total'])}"))
    if any(line.yes is not None for line in found.items) and not found.models["adapter"]:
        lines.append(
            Text(
                "Yes is the untrained base model's opinion; without an adapter it hardly counts in the order.",
                style="dim",
            )
        )
    nodes = sorted(((ms, node) for node, ms in found.timings_ms.items() if node != "total" and ms >= 1), reverse=True)[
        :_SLOWEST_SHOWN
    ]
    details = [f"{node.replace('_', ' ')} {_seconds(ms)}" for ms, node in nodes]
    if asked:
        details.append(f"{found.tokens.prompt:,} prompt tokens ({found.tokens.cached:,} cached)")
    if found.blocks:
        details.append(f"{found.cached_blocks} of {found.blocks} summary blocks cached")
    lines.append(Text(" · ".join([*details, f"run {found.run_id}"]), style="dim"))
    lines.extend(Text(f"– {one}", style="dim") for one in found.left_out)
    style = "yellow" if found.items else "bold yellow"
    lines.extend(Text(f"! {printable(note)}", style=style) for note in found.degraded)
    return Group(*lines)


def _guess(found: Recommendation) -> Text:
    """The product that the model named, and how it wrote its title where that differs."""
    from recgraph.graph.prompts import (
        clean,
    )  # loads torch, which a run has loaded anyway and the other commands do without

    assert found.prediction is not None
    named = found.known_items.get(found.prediction.item_id)
    wrote = clean(found.prediction.title, 60)
    line = Text.assemble(
        ("Model's guess  ", "bold"),
        f"{printable(named.name) if named else wrote} ",
        (printable(found.prediction.item_id), "dim"),
    )
    if named and wrote and wrote != clean(named.name, 60):
        line.append(f" (it wrote “{wrote}”)", style="dim")
    return line


def _seconds(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


@contextmanager
def bars(console: Console) -> Iterator[Tell]:
    """Progress bars for long work: yields a function (what, done, of). Nothing is drawn where the console is no
    terminal."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        *(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int = 0, of: int = 0) -> None:
            what = printable(what)
            if what not in tasks:
                if not console.is_terminal:
                    console.print(f"{what} ({of:,})" if of else what, style="dim")
                tasks[what] = progress.add_task(what, total=of or None)
            for name, task in tasks.items():
                progress.update(task, visible=name == what)
            progress.update(tasks[what], completed=done, total=of or None)

        yield tell


def follow(steps: Iterator[Step | Recommendation], tell: Tell | None) -> Recommendation:
    """Tells what a run does now and gives back its recommendation. None is for where nobody looks."""
    from recgraph.graph.recommendation import Recommendation

    names = list(_STEPS)
    if tell:
        tell(_STEPS[names[0]])
    for step in steps:
        if isinstance(step, Recommendation):
            return step
        if tell and step.node in names:
            inside = step.detail.startswith(("block", "merge"))
            following = step.node if inside else names[min(names.index(step.node) + 1, len(names) - 1)]
            tell(f"{_STEPS[following]}{f' ({step.detail} done)' if inside else ''}")
    raise AssertionError("a run ends in a recommendation")


def demo(shop: str, store: str, counts: Mapping[str, int], trained: str, missing: str) -> RenderableType:
    """What `recgraph demo` made. `trained` says on what the trained parts were trained, `missing` why there are none
    that could be used."""
    table = Table.grid(padding=(0, 2))
    size = ", ".join(f"{counts[name]:,} {what}" for name, what in _DEMO_COUNTS.items())
    table.add_row(Text("  Shop"), Text(f"{size}; all invented"))
    if missing:
        table.add_row(Text("  Untrained", style="yellow"), Text(f"counts and hand-set weights answer. {missing}"))
    else:
        table.add_row(Text("  Trained"), Text(f"{trained}; an earlier --as-of does without"))
    return Group(Text(f"{printable(shop)} is in {printable(store)}", style="bold"), table)


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
        Text(
            f"{report.files} file{'s' if report.files != 1 else ''}"
            f"{f' of format {report.format}' if report.format != 'auto' else ''} into {store} in {report.seconds:.1f} s"
        ),
        table,
        *(Text(f"· {printable(note)}") for note in report.notes),
        *(
            Text(f"{one.count:>9,}  {printable(one.reason)} ({printable(one.example)})", style="yellow")
            for one in report.rejected[:_REASONS_SHOWN]
        ),
    ]
    if report.rejects:
        parts.append(Text("See the rejected rows with `recgraph rejects`.", style="yellow"))
    if any(one.reason.startswith("action ") for one in report.rejected):
        option = "--map events.action:NAME=click (or cart, purchase, search, return, ignore)"
        parts.append(Text(f"Say what the name of an event means: {option}.", style="yellow"))
    if report.alarming:
        lost = f"{report.rows_lost:,} of {report.rows:,} rows ({report.share_lost:.0%}) were rejected"
        parts.append(Text(f"{lost}: look at the reasons. What was good is kept.", style="bold red"))
    return Group(*parts)


_REASONS_SHOWN = 8


def rejected(reasons: Sequence[Rejected], rows: Sequence[Reject]) -> RenderableType:
    """What `recgraph rejects` shows: counts by reason, then rows, each in one line of the terminal."""
    if not reasons:
        return Text("No row was rejected.")
    parts: list[RenderableType] = [Text(f"{one.count:>9,}  {printable(one.reason)}") for one in reasons]
    lines = []
    for row in rows:
        place = f"{row.source.rsplit('/', 1)[-1]}:{row.line}"
        lines.append(
            Text(
                f"{printable(place)}  {printable(row.reason)}  {printable(row.raw)}", no_wrap=True, overflow="ellipsis"
            )
        )
    return Group(*parts, Text(), *lines)


def _readings(readings: Sequence[Reading]) -> list[Text]:
    """What each file was taken for, and where each of our columns comes from: one line a file, its columns and notes
    below."""
    lines = []
    for reading in readings:
        line = Text(f"{printable(reading.source.label)}: {reading.name}")
        for ours, theirs in reading.columns:
            line.append(f"\n  {ours} ", style="cyan").append(
                "← " + printable(theirs if len(theirs) < 90 else theirs[:87] + "...")
            )
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
            lines.append(
                Text("  " + ", ".join(f"{name}={printable(str(value)[:60])}" for name, value in filled.items()))
            )
    if found.counts["rejects"]:
        lines.append(Text(f"rows rejected: {found.counts['rejects']:,}", style="red"))
        lines += [
            Text(f"  {printable(source)}, line {line}: {printable(reason)}")
            for source, line, reason in found.rejects[:5]
        ]
    return Group(*lines, Text("A dry run: nothing was written."))


def users(rows: Sequence[UserRow]) -> Table:
    """`recgraph users`: an id is folded where it is wider than the terminal, never cut."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("user", min_width=_widest([row.user_id for row in rows], 40), overflow="fold")
    for name in ("events", "purchases", "first", "last"):
        table.add_column(name, justify="right" if name in ("events", "purchases") else "left", overflow="fold")
    for row in rows:
        table.add_row(
            printable(row.user_id), f"{row.events:,}", f"{row.purchases:,}", show_time(row.first), show_time(row.last)
        )
    return table


def products(rows: Sequence[Item], currency: str, width: int) -> Table:
    """`recgraph items` on so many columns: ids whole, titles wrapped; where room is short, first `since` and then
    `category` are left out."""
    cells = [
        (
            printable(item.item_id),
            Text(printable(item.name)),
            printable(item.category),
            money(item.price, currency),
            _since(item),
        )
        for item in rows
    ]
    least = 20  # columns of a title
    wide_price = _widest([cell[3] for cell in cells], 16)
    wide_id = _widest(
        [cell[0] for cell in cells], width - least - wide_price - 10
    )  # three columns have ten blanks around them, a further one three
    room = width - wide_id - wide_price - 10
    with_category = room - least >= _CATEGORY + 3
    with_since = room - least >= _CATEGORY + 3 + _DATE + 3
    room -= with_category * (_CATEGORY + 3) + with_since * (_DATE + 3)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("item", min_width=wide_id, overflow="fold")
    table.add_column("title", max_width=max(1, room), overflow="fold")
    if with_category:
        table.add_column("category", no_wrap=True, overflow="ellipsis", max_width=_CATEGORY)
    table.add_column("price", justify="right", no_wrap=True, min_width=wide_price)
    if with_since:
        table.add_column("since", no_wrap=True, min_width=_DATE)
    for item_id, title, category, price, since in cells:
        table.add_row(item_id, title, *([category] if with_category else []), price, *([since] if with_since else []))
    return table


_CATEGORY, _DATE = 18, 10  # columns of a category and of a date


def _since(item: Item) -> str:
    return show_time(item.first_seen).split(" ")[0] if item.first_seen and item.first_seen.year > 1970 else ""


def _widest(texts: Sequence[str], most: int) -> int:
    """Columns of the widest of the texts, at most `most`, at least 1."""
    return max(1, min(most, max(map(cell_len, texts), default=1)))
