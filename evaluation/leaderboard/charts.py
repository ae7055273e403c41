"""The leaderboard's plots as static SVG: bars with intervals, recall against latency, recall@k, cold against warm, low resource.

A colour says what a system reads and is the same in every plot; which system a mark is, is written beside it and in its tooltip. Elements are
built, never pasted, so names cannot break out of them. Positions are rounded, so equal results give equal bytes. How the page around looks,
its colours too, is in evaluation/leaderboard/page.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from recgraph.evaluation.leaderboard.boards import Board
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
WIDTH = 420
_ROW = 22
_LABELLED = 6  # curves with a colour and a name; more cannot be told apart
_BLOCKS = {"p", "div", "section", "table", "thead", "tbody", "tr", "details", "figure", "svg", "g", "li", "h1", "h2", "h3", "dl", "dt", "dd", "ul"}

Inside = Element | str | None


def element(tag: str, *inside: Inside, **attributes: object) -> Element:
    """An element; class_ is class, aria_label is aria-label, an attribute that is None is left out. Blocks end their line."""
    given = {name.rstrip("_").replace("_", "-"): str(value) for name, value in attributes.items() if value is not None}
    made = Element(tag, given)
    made.tail = "\n" if tag in _BLOCKS else None
    add(made, *inside)
    return made


def add(to: Element, *inside: Inside) -> None:
    """Elements and text, in their order."""
    for one in inside:
        if isinstance(one, Element):
            to.append(one)
        elif one:
            if len(to):
                to[-1].tail = (to[-1].tail or "") + one
            else:
                to.text = (to.text or "") + one


def reads(line: Line) -> str:
    """The class of a system's colour."""
    uses = set(line.uses)
    for one in ("run", "llm", "query"):
        if one in uses:
            return one
    return "both" if {"ids", "text"} <= uses else "text" if "text" in uses else "ids"


def charts(board: Board, key: str) -> list[Element]:
    """Every plot that a board has figures for. `key` sets the ids of one board's elements apart from another's."""
    made = [chart(board, f"{key}-{number}") for number, chart in enumerate((bars, latency, curves, cold_and_warm, low_resource))]
    return [one for one in made if one is not None]


# ── The plots ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def bars(board: Board, key: str) -> Element | None:
    """NDCG@10 of every system with its interval."""
    lines = [line for line in board.lines if line.figure(MAIN).mean is not None]
    if not lines:
        return None
    left, bottom = _gutter(lines), _ROW * len(lines) + 6
    x = _scale(0, max(_top(line.figure(MAIN)) for line in lines), left, WIDTH - 52)
    drawing = _grid(element("g"), x, 4, bottom)
    for row, line in enumerate(lines):
        figure, middle = line.figure(MAIN), 6 + _ROW * row + _ROW / 2
        group = element("g", element("title", f"{line.name}: {within(figure)}"), class_=reads(line))
        add(group, _text(_cut(line.name), left - 8, middle + 4, "end", "name"))
        add(group, _rect(left, middle - 7, x(figure.mean or 0) - left, 14))
        if figure.low is not None and figure.high is not None:
            add(group, _line(x(figure.low), middle, x(figure.high), middle, "whisker"))
        add(group, _text(shown(figure.mean), x(_top(figure)) + 6, middle + 4, "start", "value"))
        drawing.append(group)
    told = "; ".join(f"{line.name} {within(line.figure(MAIN))}" for line in lines)
    return _figure(key, f"{metric_title(MAIN)} with 95 % intervals", "longer is better", told, bottom + 20, drawing)


def latency(board: Board, key: str) -> Element | None:
    """Recall@10 against milliseconds a case, for the systems that have both."""
    lines = [line for line in board.lines if line.score_ms and line.figure("recall@10").mean is not None]
    if len(lines) < 2:
        return None
    left, top, bottom = 58, 12, 250
    times = [line.score_ms or 1 for line in lines]
    x, y = _log_scale(min(times), max(times), left + 14, WIDTH - 24), _scale(0, max(_top(line.figure("recall@10")) for line in lines), bottom, top)
    drawing = _axes(element("g"), x, y, left, bottom, "recall@10", "ms a case (log scale)")
    taken = [(x(line.score_ms or 1) - 6, y(line.figure("recall@10").mean or 0) - 6, 12.0, 12.0) for line in lines]
    for line in lines:
        figure, at = line.figure("recall@10"), (x(line.score_ms or 1), y(line.figure("recall@10").mean or 0))
        group = element("g", element("title", f"{line.name}: recall@10 {within(figure)}, {line.score_ms:g} ms"), class_=reads(line))
        if figure.low is not None and figure.high is not None:
            add(group, _line(at[0], y(figure.low), at[0], y(figure.high), "spread"))
        add(group, _dot(*at))
        add(group, _beside(line.name, at, taken, bottom))
        drawing.append(group)
    left_out = len(board.lines) - len(lines)
    note = f"up and left is better{f'; {left_out} without a time' if left_out else ''}"
    told = "; ".join(f"{line.name} {shown(line.figure('recall@10').mean)} at {line.score_ms:g} ms" for line in lines)
    return _figure(key, "Recall@10 against latency", note, told, bottom + 38, drawing)


def curves(board: Board, key: str) -> Element | None:
    """Recall@k over k."""
    found = [(line.name, reads(line), [(float(k), value) for k, value in sorted(line.curve.items())]) for line in board.lines if len(line.curve) > 1]
    return _curves(key, "Recall@k", "recall@k", "k (log scale)", found, lambda k: f"{k:g}")


def low_resource(board: Board, key: str) -> Element | None:
    """NDCG@10 over the share of the users that was learnt from."""
    classes, found = {line.name: reads(line) for line in board.lines}, []
    for name, points in board.low_resource.items():
        known = [(share, figure.mean) for share, figure in points if figure.mean is not None]
        if len(known) > 1:
            found.append((name, classes.get(name, "ids"), known))
    found.sort(key=lambda one: (-one[2][-1][1], one[0]))
    return _curves(key, "Learnt from fewer users", "NDCG@10", "share of users (log scale)", found, lambda share: f"{100 * share:g} %")


def cold_and_warm(board: Board, key: str) -> Element | None:
    """NDCG@10 where the target was in the training events, and where it was not."""
    groups = ("cold", "warm")
    lines = [line for line in board.lines if all(line.group(name, MAIN).mean is not None for name in groups)]
    if not lines:
        return None
    left, bottom = _gutter(lines), _ROW * len(lines) + 6
    x = _scale(0, max(line.group(name, MAIN).mean or 0 for line in lines for name in groups), left, WIDTH - 20)
    drawing = _grid(element("g"), x, 4, bottom)
    for row, line in enumerate(lines):
        cold, warm = (line.group(name, MAIN).mean or 0 for name in groups)
        middle = 6 + _ROW * row + _ROW / 2
        group = element("g", element("title", f"{line.name}: cold {shown(cold)}, warm {shown(warm)}"), class_=reads(line))
        add(group, _text(_cut(line.name), left - 8, middle + 4, "end", "name"), _line(x(cold), middle, x(warm), middle, "between"))
        add(group, _dot(x(warm), middle), _dot(x(cold), middle, "hollow"))
        drawing.append(group)
    counts = {name: lines[0].groups[name].cases for name in groups}
    note = f"NDCG@10; ○ {counts['cold']:,} cases with a cold target, ● {counts['warm']:,} with a warm one"
    told = "; ".join(f"{line.name} cold {shown(line.group('cold', MAIN).mean)}, warm {shown(line.group('warm', MAIN).mean)}" for line in lines)
    return _figure(key, "Cold against warm targets", note, told, bottom + 20, drawing)


def _curves(
    key: str,
    title: str,
    of: str,
    over: str,
    found: Sequence[tuple[str, str, Sequence[tuple[float, float]]]],
    tick: Callable[[float], str],
) -> Element | None:
    if not found:
        return None
    left, top, bottom, right = 58, 12, 250, WIDTH - 130
    ks = sorted({k for *_, points in found for k, _ in points})
    x, y = _log_scale(ks[0], ks[-1], left + 8, right), _scale(0, max(value for *_, points in found for _, value in points), bottom, top)
    drawing = _axes(element("g"), _Scale(x.at, tuple(ks), tick), y, left, bottom, of, over)
    named = found[:_LABELLED]
    ends = _spread([y(points[-1][1]) for *_, points in named], 15, bottom)
    for place, (name, colour, points) in reversed(list(enumerate(found))):  # the best last, on top
        told = ", ".join(f"{tick(k)}: {shown(value)}" for k, value in points)
        group = element("g", element("title", f"{name}, {of} at {told}"), class_=colour if place < _LABELLED else "rest")
        path = " ".join(f"{_round(x(k))},{_round(y(value))}" for k, value in points)
        dash = sum(other == colour for _, other, _ in found[:place]) if place < _LABELLED else 0
        add(group, element("polyline", points=path, class_=f"curve dash{min(dash, 3)}"))
        if place < _LABELLED:
            add(group, _line(x(points[-1][0]) + 3, y(points[-1][1]), right + 14, ends[place], "leader"))
            add(group, *(_dot(x(k), y(value), "small") for k, value in points))
            add(group, _text(_cut(name, 15), right + 17, ends[place] + 4, "start", "name"))
        drawing.append(group)
    rest = len(found) - len(named)
    note = f"the best {len(named)} are named, {rest} more are grey" if rest else "higher is better"
    told = "; ".join(f"{name} {shown(points[-1][1])} at {tick(points[-1][0])}" for name, _, points in found)
    return _figure(key, title, note, told, bottom + 38, drawing)


# ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _number(value: float) -> str:
    return f"{float(f'{value:.3g}'):,g}"


@dataclass(frozen=True)
class _Scale:
    """From values to pixels, with the values that get a tick."""

    at: Callable[[float], float]
    ticks: Sequence[float]
    label: Callable[[float], str] = _number

    def __call__(self, value: float) -> float:
        return self.at(value)


def _scale(low: float, high: float, start: float, end: float) -> _Scale:
    """Linear, from `low` to a round value from `high` on; never finer than what is printed, so that next to nothing looks like it."""
    high = max(high, low + 0.001)
    step = _step((high - low) / 5)
    count = math.ceil((high - low) / step - 1e-9)
    ticks = [round(low + step * number, 10) for number in range(count + 1)]
    return _Scale(lambda value: start + (value - low) / (step * count) * (end - start), ticks)


def _step(least: float) -> float:
    """1, 2, 2.5 or 5 times a power of ten, the first from `least` on."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * times for times in (1, 2, 2.5, 5, 10) if power * times >= least * (1 - 1e-9))


def _log_scale(low: float, high: float, start: float, end: float) -> _Scale:
    """Logarithmic, with room around a single value; ticks at powers of ten, and between them or at the ends where there are few."""
    if high <= low:
        low, high = low / 2, high * 2
    first, last = math.log10(low), math.log10(high)
    powers = range(math.floor(first), math.ceil(last) + 1)
    times = (1, 2, 5) if last - first < 2 else (1,)
    ticks = [value for power in powers for one in times if low * 0.999 <= (value := one * 10.0**power) <= high * 1.001]
    ticks = ticks if len(ticks) > 1 else [low, high]
    return _Scale(lambda value: start + (math.log10(value) - first) / (last - first) * (end - start), ticks)


def _grid(drawing: Element, x: _Scale, top: float, bottom: float) -> Element:
    for value in x.ticks:
        add(drawing, _line(x(value), top, x(value), bottom, "grid"), _text(x.label(value), x(value), bottom + 14, "middle", "tick"))
    return drawing


def _axes(drawing: Element, x: _Scale, y: _Scale, left: float, bottom: float, up: str, across: str) -> Element:
    for value in y.ticks:
        add(drawing, _line(left, y(value), WIDTH - 8, y(value), "grid"), _text(y.label(value), left - 6, y(value) + 4, "end", "tick"))
    for value in x.ticks:
        add(drawing, _line(x(value), bottom, x(value), bottom + 4, "axis"), _text(x.label(value), x(value), bottom + 17, "middle", "tick"))
    add(drawing, _line(left, bottom, WIDTH - 8, bottom, "axis"), _text(across, (left + WIDTH) / 2, bottom + 33, "middle", "tick"))
    add(drawing, element("text", up, transform=f"rotate(-90) translate({_round(-bottom / 2 - 6)} 9)", text_anchor="middle", class_="tick"))
    return drawing


def _figure(key: str, title: str, note: str, told: str, height: float, drawing: Element) -> Element:
    """A plot under its title; `told` is read to who cannot see it."""
    ids = f"{key}-title", f"{key}-told"
    labels = element("title", title, id=ids[0]), element("desc", told, id=ids[1])
    svg = element("svg", *labels, drawing, viewBox=f"0 0 {WIDTH} {_round(height)}", role="img", aria_labelledby=" ".join(ids))
    return element("figure", element("figcaption", element("b", title), " ", element("small", note)), svg)


def _gutter(lines: Sequence[Line]) -> float:
    return min(150.0, max(60.0, 16 + 7.2 * max(len(_cut(line.name)) for line in lines)))


def _cut(name: str, longest: int = 18) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _top(figure: Figure) -> float:
    return max(figure.mean or 0, figure.high or 0)


def _spread(wanted: Sequence[float], apart: float, lowest: float) -> list[float]:
    """Heights as near to the wanted as they go without being nearer to each other than `apart`, none below `lowest`."""
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    found, last = list(wanted), -math.inf
    for place in order:
        found[place] = last = max(wanted[place], last + apart)
    last = lowest + apart
    for place in reversed(order):
        found[place] = last = min(found[place], last - apart)
    return found


Box = tuple[float, float, float, float]


def _beside(name: str, at: tuple[float, float], taken: list[Box], bottom: float) -> Element | None:
    """A mark's name where there is room for it, else nothing: its tooltip has it."""
    label = _cut(name)
    wide = 7.0 * len(label)
    for x, y, anchor in _around(at):
        left = x if anchor == "start" else x - wide if anchor == "end" else x - wide / 2
        box = (left, y - 11, wide, 13.0)
        if left < 60 or left + wide > WIDTH or y - 11 < 0 or y > bottom - 2:
            continue
        if not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return _text(label, x, y, anchor, "name")
    return None


def _around(at: tuple[float, float]) -> Iterator[tuple[float, float, str]]:
    x, y = at
    yield from ((x + 9, y + 4, "start"), (x - 9, y + 4, "end"), (x, y - 10, "middle"), (x, y + 19, "middle"))
    yield from ((x + 8, y - 8, "start"), (x - 8, y - 8, "end"), (x + 8, y + 16, "start"), (x - 8, y + 16, "end"))


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[0] + other[2] and other[0] < one[0] + one[2] and one[1] < other[1] + other[3] and other[1] < one[1] + one[3]


def _round(number: float) -> str:
    return f"{round(number, 1) + 0.0:g}"


def _text(text: str, x: float, y: float, anchor: str, class_: str) -> Element:
    return element("text", text, x=_round(x), y=_round(y), text_anchor=anchor, class_=class_)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Element:
    return element("line", x1=_round(x1), y1=_round(y1), x2=_round(x2), y2=_round(y2), class_=class_)


def _rect(x: float, y: float, width: float, height: float) -> Element:
    return element("rect", x=_round(x), y=_round(y), width=_round(max(width, 0)), height=_round(height), rx=2, class_="bar")


def _dot(x: float, y: float, class_: str = "") -> Element:
    return element("circle", cx=_round(x), cy=_round(y), r=2.5 if class_ == "small" else 4.5, class_=f"dot {class_}".strip())
