"""What is said of boards, the same on the page and in Markdown: numbers, leads, warnings, settings, what the figures
rest on. Ablations are told in the same words (evaluation/leaderboard/ablations.py).

A figure that a result does not have is shown as "–", never as 0. A system is told to be better than another only where
they are separable (evaluation/result.py). How anything looks is unknown here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from recgraph.evaluation.leaderboard.boards import PROTOCOLS, SPLITS, Board
from recgraph.evaluation.origin import Origin
from recgraph.evaluation.result import MAIN, Figure, Line

MISSING = "–"
SEEN = {
    "excluded": "items of the history are no candidates",
    "ranked": "every item is a candidate, those of the history too",
}
DROPPED = {  # why cases were not asked
    "records": "fewer than 10 or more than 25 records",
    "warm target": "the target is in the training events",
    "target seen": "the target is in the history",
}


# ── Numbers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _whole(number: int | None) -> str:
    return MISSING if number is None else f"{number:,}"


def whole_list(numbers: Sequence[int], without: str = MISSING) -> str:
    """7, 8, 9."""
    return ", ".join(str(number) for number in numbers) or without


def shown(number: float | None, name: str = MAIN, *, sign: bool = False) -> str:
    """A metric's value with four decimals (novelty, in bits, with two), a true minus, and no minus before zero."""
    if number is None:
        return MISSING
    digits = 2 if name.startswith("novelty") else 4
    plus = "+" if sign and round(number, digits) else ""
    return f"{round(number, digits) + 0.0:{plus}.{digits}f}".replace("-", "−")


def bounds(figure: Figure, name: str = MAIN, *, sign: bool = False) -> str:
    """0.0527–0.0579, with signs +0.0118 to +0.0153; "" without an interval."""
    if figure.low is None or figure.high is None:
        return ""
    return (" to " if sign else "–").join(shown(bound, name, sign=sign) for bound in (figure.low, figure.high))


def within(figure: Figure, name: str = MAIN, *, sign: bool = False) -> str:
    """0.0553 (0.0527–0.0579)."""
    found = bounds(figure, name, sign=sign)
    return shown(figure.mean, name, sign=sign) + (f" ({found})" if found else "")


def amount(number: float | None) -> str:
    """Seconds or milliseconds with about three digits; what rounding has made 0 is told as little."""
    if number is None:
        return MISSING
    if number < 0.01:
        return "< 0.01"
    return f"{number:,.{2 if number < 10 else 1 if number < 100 else 0}f}"


def chance(p: float | None) -> str:
    """p < .001, or p = .541; it does not break into two lines."""
    number = MISSING if p is None else "< .001" if p < 0.001 else f"= {p:.3f}".replace("0.", ".")
    return f"p {number}".replace(" ", "\u00a0")


def title(metric: str) -> str:
    """NDCG@10 of ndcg@10."""
    name, at, k = metric.partition("@")
    return ({"ndcg": "NDCG", "mrr": "MRR"}.get(name, name.capitalize())) + at + k


# ── Sentences ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def lead(board: Board) -> str:
    """What a board says, in a sentence or two."""
    best = board.lines[0]
    if len(board.lines) == 1 or best.against is None:
        return alone(best.name, best.figure(), of=len(board.lines))
    figure = f"{title(MAIN)} {within(best.figure())}"
    by = f"{within(best.against.difference, sign=True)}, {chance(best.against.p_holm)}"
    if best.separable:
        return f"{best.name} is best: {figure}. Its lead over {best.against.other} is {by}."
    near = [
        line.name for line in board.lines[1:] if line.against and not line.separable and line.name != best.against.other
    ]
    others = f" Not separable from {best.name} either: {', '.join(near)}." if near else ""
    return (
        f"No winner: {best.name}, {figure}, and {best.against.other} are not separable; the difference is {by}.{others}"
    )


def alone(name: str, figure: Figure, *, of: int) -> str:
    """The first of so many, where there is nothing to compare it with."""
    said = "is alone here" if of == 1 else "is first, but nothing was compared case by case"
    return f"{name} {said}: {title(MAIN)} {within(figure)}."


def warnings(lines: Sequence[Line]) -> list[str]:
    """What a reader of single figures has to know."""
    found = []
    for line in lines:
        if line.missing_cases or line.unknown_cases:
            missed = f"{line.missing_cases or 0:,} cases without a list count as missed"
            found.append(f"{line.name}: {missed}, {line.unknown_cases or 0:,} lists are of no case.")
        if invalid := line.figure("invalid").mean:
            found.append(f"{line.name}: {invalid:.1%} of the first ten name no product of the shop.")
    return found


def settings_text(settings: Mapping[str, Any]) -> str:
    """recency 0.6, window 50; by name, however a file orders them."""
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
        for name, value in sorted(settings.items())
    }
    return ", ".join(f"{name} {text}" for name, text in texts.items()) or "none"


def _elsewhere(lines: Sequence[Line]) -> list[str]:
    """Which systems were fitted and asked on another machine than that of the result."""
    where = {line.machine: [other.name for other in lines if other.machine == line.machine] for line in lines}
    return [f"{', '.join(names)} on {machine}" for machine, names in where.items() if machine]


def asked(cases: int, sample: int | None) -> str:
    """How many cases, and whether these are a sample."""
    return f"{cases:,}" + (f", a sample of at most {sample:,} drawn with a fixed seed" if sample else "")


def origin_facts(origin: Origin, elsewhere: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Where figures were made, and what of them `elsewhere`."""
    code = (origin.revision or MISSING).removesuffix("+")
    changed = " with changes that are in no commit" if (origin.revision or "").endswith("+") else ""
    return [
        ("code", code + changed),
        ("machine", "; ".join([origin.machine or MISSING, *elsewhere])),
        ("date", origin.date or MISSING),
        ("seconds", MISSING if origin.seconds is None else f"{origin.seconds:,.1f}"),
        ("command", origin.command or MISSING),
    ]


def facts(board: Board) -> list[tuple[str, str]]:
    """What the figures rest on: names and what is to be said, in the order of reading."""
    found = board.result
    left_out = (
        ", ".join(
            f"{count:,} ({DROPPED.get(why, why)})" for why, count in sorted((found.dropped or {}).items()) if count
        )
        or "none"
    )
    texts = {
        "data": f"{found.origin.data_hash or MISSING} (hash of what systems are given and asked), "
        f"{_whole(found.items)} items",
        "split": f"{found.split}: {SPLITS[found.split][1]}" if found.split in SPLITS else found.split,
        "protocol": f"{found.protocol}: {PROTOCOLS[found.protocol][1]}"
        if found.protocol in PROTOCOLS
        else found.protocol,
        "seen items": f"{found.seen}: {SEEN[found.seen]}" if found.seen in SEEN else found.seen,
        "cases": asked(found.cases, found.sample),
        "dropped cases": MISSING if found.dropped is None else left_out,
        "seeds": whole_list(found.seeds or ()),
    }
    return [*texts.items(), *origin_facts(found.origin, _elsewhere(board.lines))]
