"""The leaderboard's plots as static SVG: bars with intervals, recall against latency, recall@k, cold against warm, low
resource; of an ablation, NDCG@10 over the number of recent items.

A colour says what a system reads and is the same in every plot; which system a mark is, is written beside it and in its
tooltip. What they are drawn with is in evaluation/leaderboard/svg.py; how the page around looks, its colours too, in
page.css.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from xml.etree.ElementTree import Element

from recgraph.evaluation.leaderboard import svg
from recgraph.evaluation.leaderboard.ablations import AblationBoard
from recgraph.evaluation.leaderboard.boards import Board
from recgraph.evaluation.leaderboard.svg import WIDTH, add, element
from recgraph.evaluation.leaderboard.words import shown, within
from recgraph.evaluation.leaderboard.words import title as metric_title
from recgraph.evaluation.result import MAIN, Figure, Line

READS = {  # class of the colour: what is written in the legend
    "ids": "item ids",
    "both": "ids and text",
    "text": "text alone",
    "query": "queries too",
    "llm": "a language model",
    "run": "made elsewhere",
}
_ROW = 22
_BESIDE = 4  # pixels between the intervals of curves at one place
_LABELLED = 6  # curves with a colour and a name; more cannot be told apart


def reads(line: Line) -> str:
    """The class of a system's colour."""
    uses = set(line.uses)
    for one in ("run", "llm", "query"):
        if one in uses:
            return one
    return "both" if {"ids", "text"} <= uses else "text" if "text" in uses else "ids"


def charts(board: Board, key: str) -> list[Element]:
    """Every plot that a board has figures for. `key` sets the ids of one board's elements apart from another's."""
    made = [
        chart(board, f"{key}-{number}")
        for number, chart in enumerate((bars, latency, curves, cold_and_warm, low_resource))
    ]
    return [one for one in made if one is not None]


# ── The plots ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def bars(board: Board, key: str) -> Element | None:
    """NDCG@10 of every system with its interval."""
    lines = [line for line in board.lines if line.figure(MAIN).mean is not None]
    if not lines:
        return None
    left, bottom = _gutter(lines), _ROW * len(lines) + 6
    x = svg.scale(0, max(_top(line.figure(MAIN)) for line in lines), left, WIDTH - 52)
    drawing = svg.grid(element("g"), x, 4, bottom)
    for row, line in enumerate(lines):
        figure, middle = line.figure(MAIN), 6 + _ROW * row + _ROW / 2
        group = element("g", element("title", f"{line.name}: {within(figure)}"), class_=reads(line))
        add(group, svg.label(svg.shortened(line.name), left - 8, middle + 4, "end", "name"))
        add(group, svg.bar(left, middle - 7, x(figure.mean or 0) - left, 14))
        if figure.low is not None and figure.high is not None:
            add(group, svg.line(x(figure.low), middle, x(figure.high), middle, "whisker"))
        add(group, svg.label(shown(figure.mean), x(_top(figure)) + 6, middle + 4, "start", "value"))
        drawing.append(group)
    described = "; ".join(f"{line.name} {within(line.figure(MAIN))}" for line in lines)
    return _figure(
        key, f"{metric_title(MAIN)} with 95 % intervals", "longer is better", described, bottom + 20, drawing
    )


def latency(board: Board, key: str) -> Element | None:
    """Recall@10 against milliseconds a case, for the systems that have both."""
    lines = [line for line in board.lines if line.score_ms and line.figure("recall@10").mean is not None]
    if len(lines) < 2:
        return None
    left, top, bottom = 58, 12, 250
    times = [line.score_ms or 1 for line in lines]
    x, y = (
        svg.log_scale(min(times), max(times), left + 14, WIDTH - 24),
        svg.scale(0, max(_top(line.figure("recall@10")) for line in lines), bottom, top),
    )
    drawing = svg.axes(element("g"), x, y, left, bottom, "recall@10", "ms a case (log scale)")
    taken = [(x(line.score_ms or 1) - 6, y(line.figure("recall@10").mean or 0) - 6, 12.0, 12.0) for line in lines]
    for line in lines:
        figure, at = line.figure("recall@10"), (x(line.score_ms or 1), y(line.figure("recall@10").mean or 0))
        group = element(
            "g", element("title", f"{line.name}: recall@10 {within(figure)}, {line.score_ms:g} ms"), class_=reads(line)
        )
        if figure.low is not None and figure.high is not None:
            add(group, svg.line(at[0], y(figure.low), at[0], y(figure.high), "spread"))
        add(group, svg.dot(*at))
        add(group, svg.beside(line.name, at, taken, bottom))
        drawing.append(group)
    left_out = len(board.lines) - len(lines)
    note = f"up and left is better{f'; {left_out} without a time' if left_out else ''}"
    described = "; ".join(
        f"{line.name} {shown(line.figure('recall@10').mean)} at {line.score_ms:g} ms" for line in lines
    )
    return _figure(key, "Recall@10 against latency", note, described, bottom + 38, drawing)


def curves(board: Board, key: str) -> Element | None:
    """Recall@k over k."""
    found = [
        (line.name, reads(line), [(float(k), Figure(value)) for k, value in sorted(line.curve.items())])
        for line in board.lines
        if len(line.curve) > 1
    ]
    return _curves(key, "Recall@k", "recall@k", "k (log scale)", found, lambda k: f"{k:g}", svg.log_scale)


def low_resource(board: Board, key: str) -> Element | None:
    """NDCG@10 over the share of the users that was learnt from."""
    classes, found = {line.name: reads(line) for line in board.lines}, []
    for name, points in board.low_resource.items():
        known = [(share, Figure(figure.mean)) for share, figure in points if figure.mean is not None]
        if len(known) > 1:
            found.append((name, classes.get(name, "ids"), known))
    found.sort(key=lambda one: (-(one[2][-1][1].mean or 0), one[0]))
    return _curves(
        key,
        "Learnt from fewer users",
        "NDCG@10",
        "share of users (log scale)",
        found,
        lambda share: f"{100 * share:g} %",
        svg.log_scale,
    )


def by_recent(board: AblationBoard, key: str) -> Element | None:
    """NDCG@10 with its intervals over the number of recent items, a curve a paradigm."""
    found = [(name, "llm", points) for name, points in board.by_recent.items() if len(points) > 1]
    return _curves(
        key, "By the number of recent items", "NDCG@10", "recent items", found, lambda n: f"{n:g}", svg.scale
    )


def cold_and_warm(board: Board, key: str) -> Element | None:
    """NDCG@10 where the target was in the training events, and where it was not."""
    groups = ("cold", "warm")
    lines = [line for line in board.lines if all(line.group(name, MAIN).mean is not None for name in groups)]
    if not lines:
        return None
    left, bottom = _gutter(lines), _ROW * len(lines) + 6
    x = svg.scale(0, max(line.group(name, MAIN).mean or 0 for line in lines for name in groups), left, WIDTH - 20)
    drawing = svg.grid(element("g"), x, 4, bottom)
    for row, line in enumerate(lines):
        cold, warm = (line.group(name, MAIN).mean or 0 for name in groups)
        middle = 6 + _ROW * row + _ROW / 2
        group = element(
            "g", element("title", f"{line.name}: cold {shown(cold)}, warm {shown(warm)}"), class_=reads(line)
        )
        add(
            group,
            svg.label(svg.shortened(line.name), left - 8, middle + 4, "end", "name"),
            svg.line(x(cold), middle, x(warm), middle, "between"),
        )
        add(group, svg.dot(x(warm), middle), svg.dot(x(cold), middle, "hollow"))
        drawing.append(group)
    counts = {name: lines[0].groups[name].cases for name in groups}
    note = f"NDCG@10; ○ {counts['cold']:,} cases with a cold target, ● {counts['warm']:,} with a warm one"
    described = "; ".join(
        f"{line.name} cold {shown(line.group('cold', MAIN).mean)}, warm {shown(line.group('warm', MAIN).mean)}"
        for line in lines
    )
    return _figure(key, "Cold against warm targets", note, described, bottom + 20, drawing)


def _curves(
    key: str,
    title: str,
    of: str,
    over: str,
    found: Sequence[tuple[str, str, Sequence[tuple[float, Figure]]]],
    tick: Callable[[float], str],
    scaled: Callable[[float, float, float, float], svg.Scale],
) -> Element | None:
    if not found:
        return None
    left, top, bottom, right = 58, 12, 250, WIDTH - 130
    ks = sorted({k for *_, points in found for k, _ in points})
    x, y = (
        scaled(ks[0], ks[-1], left + 8, right),
        svg.scale(0, max(_top(figure) for *_, points in found for _, figure in points), bottom, top),
    )
    drawing = svg.axes(element("g"), svg.Scale(x.at, tuple(ks), tick), y, left, bottom, of, over)
    named = found[:_LABELLED]
    ends = svg.spread([y(points[-1][1].mean or 0) for *_, points in named], 15, bottom)
    for place, (name, colour, points) in reversed(list(enumerate(found))):  # the best last, on top
        values = ", ".join(f"{tick(k)}: {within(figure)}" for k, figure in points)
        group = element(
            "g", element("title", f"{name}, {of} at {values}"), class_=colour if place < _LABELLED else "rest"
        )
        marks = [(x(k) + (_BESIDE * place if figure.half else 0), y(figure.mean or 0)) for k, figure in points]
        path = " ".join(f"{svg.rounded(across)},{svg.rounded(up)}" for across, up in marks)
        dash = sum(other == colour for _, other, _ in found[:place]) if place < _LABELLED else 0
        add(group, element("polyline", points=path, class_=f"curve dash{min(dash, 3)}"))
        if place < _LABELLED:
            add(group, svg.line(marks[-1][0] + 3, marks[-1][1], right + 14, ends[place], "leader"))
            for (across, _), (_, figure) in zip(marks, points, strict=True):
                if figure.low is not None and figure.high is not None:
                    add(group, svg.line(across, y(figure.low), across, y(figure.high), "spread"))
            add(group, *(svg.dot(*mark, "small") for mark in marks))
            add(group, svg.label(svg.shortened(name, 15), right + 17, ends[place] + 4, "start", "name"))
        drawing.append(group)
    rest = len(found) - len(named)
    note = f"the best {len(named)} are named, {rest} more are grey" if rest else "higher is better"
    described = "; ".join(f"{name} {within(points[-1][1])} at {tick(points[-1][0])}" for name, _, points in found)
    return _figure(key, title, note, described, bottom + 38, drawing)


def _figure(key: str, title: str, note: str, described: str, height: float, drawing: Element) -> Element:
    """A plot under its title; `described` is read to who cannot see it."""
    ids = f"{key}-title", f"{key}-described"
    labels = element("title", title, id=ids[0]), element("desc", described, id=ids[1])
    drawn = element(
        "svg", *labels, drawing, viewBox=f"0 0 {WIDTH} {svg.rounded(height)}", role="img", aria_labelledby=" ".join(ids)
    )
    return element("figure", element("figcaption", element("b", title), " ", element("small", note)), drawn)


def _gutter(lines: Sequence[Line]) -> float:
    return min(150.0, max(60.0, 16 + 7.2 * max(len(svg.shortened(line.name)) for line in lines)))


def _top(figure: Figure) -> float:
    return max(figure.mean or 0, figure.high or 0)
