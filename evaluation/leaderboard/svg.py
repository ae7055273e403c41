"""What plots are drawn with: elements, scales with their ticks, axes, marks and labels that keep clear of each other.

Elements are built, never pasted, so names cannot break out of them. Positions are rounded, so equal values give equal
bytes. Which plots there are is unknown here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

WIDTH = 420
_BLOCKS = {
    "p",
    "div",
    "section",
    "table",
    "thead",
    "tbody",
    "tr",
    "details",
    "figure",
    "svg",
    "g",
    "li",
    "h1",
    "h2",
    "h3",
    "dl",
    "dt",
    "dd",
    "ul",
}

Inside = Element | str | None


def element(tag: str, *inside: Inside, **attributes: object) -> Element:
    """An element; class_ is class, aria_label is aria-label, an attribute that is None is left out. Blocks end their
    line."""
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


def _number(value: float) -> str:
    return f"{float(f'{value:.3g}'):,g}"


@dataclass(frozen=True)
class Scale:
    """From values to pixels, with the values that get a tick."""

    at: Callable[[float], float]
    ticks: Sequence[float]
    label: Callable[[float], str] = _number

    def __call__(self, value: float) -> float:
        return self.at(value)


def scale(low: float, high: float, start: float, end: float) -> Scale:
    """Linear, from `low` to a round value from `high` on; never finer than what is printed, so that next to nothing
    looks like it."""
    high = max(high, low + 0.001)
    step = _step((high - low) / 5)
    count = math.ceil((high - low) / step - 1e-9)
    ticks = [round(low + step * number, 10) for number in range(count + 1)]
    return Scale(lambda value: start + (value - low) / (step * count) * (end - start), ticks)


def _step(least: float) -> float:
    """1, 2, 2.5 or 5 times a power of ten, the first from `least` on."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * times for times in (1, 2, 2.5, 5, 10) if power * times >= least * (1 - 1e-9))


def log_scale(low: float, high: float, start: float, end: float) -> Scale:
    """Logarithmic, with room around a single value; ticks at powers of ten, and between them or at the ends where there
    are few."""
    if high <= low:
        low, high = low / 2, high * 2
    first, last = math.log10(low), math.log10(high)
    powers = range(math.floor(first), math.ceil(last) + 1)
    times = (1, 2, 5) if last - first < 2 else (1,)
    ticks = [value for power in powers for one in times if low * 0.999 <= (value := one * 10.0**power) <= high * 1.001]
    ticks = ticks if len(ticks) > 1 else [low, high]
    return Scale(lambda value: start + (math.log10(value) - first) / (last - first) * (end - start), ticks)


def grid(drawing: Element, x: Scale, top: float, bottom: float) -> Element:
    for value in x.ticks:
        add(
            drawing,
            line(x(value), top, x(value), bottom, "grid"),
            label(x.label(value), x(value), bottom + 14, "middle", "tick"),
        )
    return drawing


def axes(drawing: Element, x: Scale, y: Scale, left: float, bottom: float, up: str, across: str) -> Element:
    for value in y.ticks:
        add(
            drawing,
            line(left, y(value), WIDTH - 8, y(value), "grid"),
            label(y.label(value), left - 6, y(value) + 4, "end", "tick"),
        )
    for value in x.ticks:
        add(
            drawing,
            line(x(value), bottom, x(value), bottom + 4, "axis"),
            label(x.label(value), x(value), bottom + 17, "middle", "tick"),
        )
    add(
        drawing,
        line(left, bottom, WIDTH - 8, bottom, "axis"),
        label(across, (left + WIDTH) / 2, bottom + 33, "middle", "tick"),
    )
    add(
        drawing,
        element(
            "text",
            up,
            transform=f"rotate(-90) translate({rounded(-bottom / 2 - 6)} 9)",
            text_anchor="middle",
            class_="tick",
        ),
    )
    return drawing


def shortened(name: str, longest: int = 18) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


def spread(wanted: Sequence[float], apart: float, lowest: float) -> list[float]:
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


def beside(name: str, at: tuple[float, float], taken: list[Box], bottom: float) -> Element | None:
    """A mark's name where there is room for it, else nothing: its tooltip has it."""
    short = shortened(name)
    wide = 7.0 * len(short)
    for x, y, anchor in _around(at):
        left = x if anchor == "start" else x - wide if anchor == "end" else x - wide / 2
        box = (left, y - 11, wide, 13.0)
        if left < 60 or left + wide > WIDTH or y - 11 < 0 or y > bottom - 2:
            continue
        if not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return label(short, x, y, anchor, "name")
    return None


def _around(at: tuple[float, float]) -> Iterator[tuple[float, float, str]]:
    x, y = at
    yield from ((x + 9, y + 4, "start"), (x - 9, y + 4, "end"), (x, y - 10, "middle"), (x, y + 19, "middle"))
    yield from ((x + 8, y - 8, "start"), (x - 8, y - 8, "end"), (x + 8, y + 16, "start"), (x - 8, y + 16, "end"))


def _overlap(one: Box, other: Box) -> bool:
    return (
        one[0] < other[0] + other[2]
        and other[0] < one[0] + one[2]
        and one[1] < other[1] + other[3]
        and other[1] < one[1] + one[3]
    )


def rounded(number: float) -> str:
    return f"{round(number, 1) + 0.0:g}"


def label(text: str, x: float, y: float, anchor: str, class_: str) -> Element:
    return element("text", text, x=rounded(x), y=rounded(y), text_anchor=anchor, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Element:
    return element("line", x1=rounded(x1), y1=rounded(y1), x2=rounded(x2), y2=rounded(y2), class_=class_)


def bar(x: float, y: float, width: float, height: float) -> Element:
    return element(
        "rect", x=rounded(x), y=rounded(y), width=rounded(max(width, 0)), height=rounded(height), rx=2, class_="bar"
    )


def dot(x: float, y: float, class_: str = "") -> Element:
    return element(
        "circle", cx=rounded(x), cy=rounded(y), r=2.5 if class_ == "small" else 4.5, class_=f"dot {class_}".strip()
    )
