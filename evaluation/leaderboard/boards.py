"""Results of `recgraph evaluate` as a leaderboard reads them: `Board`s with their lines best first, and the words said of each.

A figure that a result does not have is None and shown as "–", never as 0. A system is told to be better than another only where the interval
of their paired difference excludes zero and Holm's p is below .05; else the two are not separable. Which files a leaderboard consists of,
and how it looks, is unknown here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recgraph.errors import StoreError

MISSING = "–"
MAIN = "ndcg@10"  # what systems are ordered by and compared in
LEVEL = 0.05

PROTOCOLS = {  # in the order they are shown: title, and what a case asks
    "full": ("Full ranking", "the target among all items listed by then"),
    "category": ("Within the category", "the target among the items of its category (F 5.1)"),
    "sampled": ("Against drawn items", "users with 10 to 25 records, the target among 20 drawn items (T 5.1); flatters everybody"),
    "cold": ("Cold items", "only targets that nobody had in the training events (F 5.4)"),
}
SPLITS = {
    "time": ("split in time", "one cut for everybody; what comes after is predicted"),
    "loo": ("leave-one-out", "each user's last target is predicted; other users' future is known, as in most papers"),
}
SEEN = {"excluded": "items of the history are no candidates", "ranked": "every item is a candidate, those of the history too"}

DROPPED = {  # why cases were not asked
    "records": "fewer than 10 or more than 25 records",
    "warm target": "the target is in the training events",
    "target seen": "the target is in the history",
}


@dataclass(frozen=True)
class Figure:
    """A mean and the bounds of its 95 % interval; None for what is not known."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Against:
    """A system's NDCG@10 less that of `other`, case by case: the best system, or for the best itself the second."""

    other: str
    difference: Figure
    p_holm: float | None

    @property
    def separable(self) -> bool:
        """Whether the difference is more than chance."""
        low, high = self.difference.low, self.difference.high
        apart = low is not None and high is not None and (low > 0 or high < 0)
        return apart and (self.p_holm is None or self.p_holm < LEVEL)


@dataclass(frozen=True)
class Line:
    """A system and its figures. `groups` has for cold and warm targets the number of cases and the figures; `curve` is recall by k; `popular`
    are the figures under negatives drawn by popularity (sampled)."""

    name: str
    uses: tuple[str, ...]
    settings: Mapping[str, Any]
    seeds: tuple[int, ...]
    fit_seconds: float | None
    score_ms: float | None
    metrics: Mapping[str, Figure]
    against: Against | None
    groups: Mapping[str, tuple[int, Mapping[str, Figure]]]
    curve: tuple[tuple[int, float], ...]
    popular: Mapping[str, Figure]
    missing_cases: int
    unknown_cases: int

    def figure(self, name: str) -> Figure:
        """Of a metric; without numbers where the result has none."""
        return self.metrics.get(name, Figure())

    def group(self, group: str, name: str) -> Figure:
        """Of a metric over the cold or the warm cases."""
        return self.groups.get(group, (0, {}))[1].get(name, Figure())

    @property
    def separable(self) -> bool:
        """Whether it is really worse than the best, or as the best really better than the second."""
        return self.against is not None and self.against.separable


@dataclass(frozen=True)
class Board:
    """One result: `lines` best first by NDCG@10, `facts` what the figures rest on, `low_resource` (share of users, NDCG@10) by system, `name`
    the file's without .json."""

    name: str
    dataset: str
    split: str
    protocol: str
    seen: str
    cases: int
    data_hash: str
    lines: tuple[Line, ...]
    low_resource: Mapping[str, tuple[tuple[float, Figure], ...]]
    sampled: bool
    facts: tuple[tuple[str, str], ...]

    @property
    def title(self) -> str:
        """What sets it apart from the data set's other boards."""
        words = [PROTOCOLS.get(self.protocol, (self.protocol,))[0], SPLITS.get(self.split, (self.split,))[0]]
        words += ["history's items ranked"] if self.seen == "ranked" else []
        words += [f"sample of {self.cases:,} cases"] if self.sampled else []
        usual = f"{self.dataset}-{self.split}-{self.protocol}"
        extra = self.name.removeprefix(usual).strip("-") if self.name.startswith(usual) else self.name
        return ", ".join(words) + (f": {extra}" if extra else "")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric that a line has, by name and k."""
        return tuple(sorted({name for line in self.lines for name in line.metrics}, key=by_k))

    @property
    def columns(self) -> tuple[str, ...]:
        """The metrics of the short table."""
        wanted = (MAIN, "recall@3", "recall@10", "mrr@3", "mrr@10") if self.protocol == "sampled" else (MAIN, "recall@10", "mrr")
        return tuple(name for name in wanted if name in self.metrics)

    def order(self) -> tuple[Any, ...]:
        """Boards of one data set sort by it: full first, and the split that leaks nothing before the other."""
        ranks = [list(known).index(name) if name in known else len(known) for known, name in ((PROTOCOLS, self.protocol), (SPLITS, self.split))]
        return (self.dataset, *ranks, self.protocol, self.split, self.sampled, self.seen, self.name)


def read_result(file: Path) -> dict[str, Any]:
    """The JSON of one result file, its keys sorted, numbers that are none (NaN) as None. StoreError for a file that is no JSON object."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"), parse_constant=lambda _: None, object_pairs_hook=lambda pairs: dict(sorted(pairs)))
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} cannot be read as a result ({error}); make it again: recgraph evaluate … --out {file}") from None
    if not isinstance(found, dict):
        raise StoreError(f"{file} holds no result; make it again: recgraph evaluate … --out {file}")
    return found


def board(name: str, result: Mapping[str, Any]) -> Board:
    """A result as a board. StoreError, naming it, for one that `recgraph evaluate` has not written."""
    try:
        return _board(name, result)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        told = f"without {error}" if isinstance(error, KeyError) else str(error)
        raise StoreError(f"{name}.json is no result of recgraph evaluate ({told}); make it again: recgraph evaluate … --out {name}.json") from None


def _board(name: str, result: Mapping[str, Any]) -> Board:
    lines = sorted((_line(told) for told in result["systems"]), key=lambda line: (-_or(line.figure(MAIN).mean, -1), line.name))
    if not lines:
        raise ValueError("it has no system")
    low_resource: dict[str, list[tuple[float, Figure]]] = {}
    for told in result.get("low_resource") or ():
        low_resource.setdefault(str(told["system"]), []).append((float(told["share"]), _figure(told.get(MAIN))))
    cases = int(result["cases"])
    return Board(
        name=name,
        dataset=str(result["dataset"]),
        split=str(result["split"]),
        protocol=str(result["protocol"]),
        seen=str(result["seen"]),
        cases=cases,
        data_hash=str(result.get("data_hash") or ""),
        lines=tuple(lines),
        low_resource={system: tuple(sorted(found, key=lambda one: one[0])) for system, found in low_resource.items()},
        sampled=bool(result.get("sample")) and result["sample"] == cases,
        facts=tuple(_facts(result)),
    )


def _line(told: Mapping[str, Any]) -> Line:
    against = told.get("against")
    groups = {group: dict(found) for group, found in (told.get("groups") or {}).items()}
    return Line(
        name=str(told["name"]),
        uses=tuple(str(one) for one in told.get("uses") or ()),
        settings=dict(told.get("settings") or {}),
        seeds=tuple(int(seed) for seed in told.get("seeds") or ()),
        fit_seconds=_number(told.get("fit_seconds")),
        score_ms=_number(told.get("score_ms")),
        metrics=_figures(told["metrics"]),
        against=_against(against) if against else None,
        groups={group: (int(found.pop("cases")), _figures(found)) for group, found in groups.items()},
        curve=tuple(sorted((int(k), number) for k, value in (told.get("curve") or {}).items() if (number := _number(value)) is not None)),
        popular=_figures(told.get("popular_negatives") or {}),
        missing_cases=int(told.get("missing_cases") or 0),
        unknown_cases=int(told.get("unknown_cases") or 0),
    )


def _against(told: Mapping[str, Any]) -> Against:
    return Against(str(told["best"]), _figure({**told, "mean": told["difference"]}), _number(told.get("p_holm")))


def _figures(told: Mapping[str, Any]) -> dict[str, Figure]:
    return {str(name): _figure(value) for name, value in told.items()}


def _figure(told: Any) -> Figure:
    """A bare number is one without an interval."""
    if isinstance(told, Mapping):
        return Figure(*(_number(told.get(name)) for name in ("mean", "low", "high")))
    return Figure(_number(told))


def _number(told: Any) -> float | None:
    if told is None:
        return None
    if isinstance(told, bool) or not isinstance(told, int | float):
        raise ValueError(f"{told!r} is no number")
    return float(told) if math.isfinite(told) else None


def _or(number: float | None, other: float) -> float:
    return other if number is None else number


def _facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the figures rest on: names and what is to be said, in the order of reading."""
    split, protocol, seen = str(result["split"]), str(result["protocol"]), str(result["seen"])
    dropped, revision, seconds = result.get("dropped"), str(result.get("revision") or ""), _number(result.get("seconds"))
    left_out = ", ".join(f"{int(count):,} ({DROPPED.get(why, why)})" for why, count in (dropped or {}).items() if count) or "none"
    sample = result.get("sample")
    drawn = f", a sample of at most {int(sample):,} drawn with a fixed seed" if sample else ""
    said = {
        "data": f"{result.get('data_hash') or MISSING} (hash of what systems are given and asked), {_whole(result.get('items'))} items",
        "split": f"{split}: {SPLITS[split][1]}" if split in SPLITS else split,
        "protocol": f"{protocol}: {PROTOCOLS[protocol][1]}" if protocol in PROTOCOLS else protocol,
        "seen items": f"{seen}: {SEEN[seen]}" if seen in SEEN else seen,
        "cases": f"{_whole(result['cases'])}{drawn}",
        "dropped cases": MISSING if dropped is None else left_out,
        "seeds": whole_list(result.get("seeds") or ()),
        "code": f"{revision.removesuffix('+')}{' with changes that are in no commit' if revision.endswith('+') else ''}" or MISSING,
        "machine": str(result.get("machine") or MISSING),
        "date": str(result.get("date") or MISSING),
        "seconds": MISSING if seconds is None else f"{seconds:,.1f}",
        "command": str(result.get("command") or MISSING),
    }
    return list(said.items())


# ── Numbers and sentences ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _whole(number: Any) -> str:
    return MISSING if number is None else f"{int(number):,}"


def whole_list(numbers: Sequence[int], without: str = MISSING) -> str:
    """7, 8, 9."""
    return ", ".join(str(number) for number in numbers) or without


def shown(number: float | None, name: str = MAIN, *, sign: bool = False) -> str:
    """A metric's value with four decimals (novelty, in bits, with two), a true minus, and no minus before zero."""
    if number is None:
        return MISSING
    digits = 2 if name.startswith("novelty") else 4
    return f"{round(number, digits) + 0.0:{'+' if sign and round(number, digits) else ''}.{digits}f}".replace("-", "−")


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
    told = MISSING if p is None else "< .001" if p < 0.001 else f"= {p:.3f}".replace("0.", ".")
    return f"p {told}".replace(" ", "\u00a0")


def by_k(metric: str) -> tuple[str, int]:
    """To sort metrics: recall@5 before recall@10."""
    name, _, k = metric.partition("@")
    return name, int(k) if k.isdigit() else 0


def title(metric: str) -> str:
    """NDCG@10 of ndcg@10."""
    name, at, k = metric.partition("@")
    return ({"ndcg": "NDCG", "mrr": "MRR"}.get(name, name.capitalize())) + at + k


def lead(found: Board) -> str:
    """What a board says, in a sentence or two."""
    best = found.lines[0]
    says = f"{title(MAIN)} {within(best.figure(MAIN))}"
    if len(found.lines) == 1 or best.against is None:
        alone = "is alone here" if len(found.lines) == 1 else "is first, but nothing was compared case by case"
        return f"{best.name} {alone}: {says}."
    by = f"{within(best.against.difference, sign=True)}, {chance(best.against.p_holm)}"
    if best.separable:
        return f"{best.name} is best: {says}. Its lead over {best.against.other} is {by}."
    near = [line.name for line in found.lines[1:] if line.against and not line.separable and line.name != best.against.other]
    others = f" Not separable from {best.name} either: {', '.join(near)}." if near else ""
    return f"No winner: {best.name}, {says}, and {best.against.other} are not separable; the difference is {by}.{others}"


def warnings(found: Board) -> list[str]:
    """What a reader of single figures has to know."""
    said = []
    for line in found.lines:
        if line.missing_cases or line.unknown_cases:
            missed, unknown = f"{line.missing_cases:,} cases without a list count as missed", f"{line.unknown_cases:,} lists are of no case"
            said.append(f"{line.name}: {missed}, {unknown}.")
        invalid = line.figure("invalid").mean
        if invalid:
            said.append(f"{line.name}: {invalid:.1%} of the first ten name no product of the shop.")
    return said


def short_settings(line: Line) -> str:
    """recency 0.6, window 50."""
    told = {name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for name, value in line.settings.items()}
    return ", ".join(f"{name} {value}" for name, value in told.items()) or "none"
