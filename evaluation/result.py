"""What an evaluation or an ablation found, as typed values. Every table, board and page is made of these.

A `Figure` that nobody measured is without numbers, never 0. How figures are worked out, kept
(evaluation/result_files.py) and shown is unknown here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recgraph.evaluation.origin import Origin
from recgraph.evaluation.statistics import Interval

MAIN = "ndcg@10"  # what systems are ordered by and compared in
LEVEL = 0.05  # of Holm's p, below which a difference is more than chance


def rounded(number: Any) -> float:
    """As a result keeps numbers: six digits."""
    return round(float(number), 6)


@dataclass(frozen=True)
class Figure:
    """A mean and the bounds of its 95 % interval; None for what is not known."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, found: Interval) -> Figure:
        """Rounded."""
        return cls(rounded(found.mean), rounded(found.low), rounded(found.high))

    @property
    def half(self) -> float | None:
        """Half of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True)
class Against:
    """A system's NDCG@10 less that of `other`, case by case: the best system, or for the best itself the second.
    `p_holm` is the p-value among all comparisons of the result."""

    other: str
    difference: Figure
    p: float | None = None
    p_holm: float | None = None

    @property
    def separable(self) -> bool:
        """Whether the difference is more than chance: its interval excludes zero, and Holm's p is below the level."""
        low, high = self.difference.low, self.difference.high
        apart = low is not None and high is not None and (low > 0 or high < 0)
        return apart and (self.p_holm is None or self.p_holm < LEVEL)


@dataclass(frozen=True)
class MeanTokens:
    """Of one recommendation, on the mean, where a language model takes part: read, written, and read of those that were
    known already."""

    prompt: float
    completion: float
    cached: float


@dataclass(frozen=True)
class Ceiling:
    """What a first stage leaves to find: the recall of its first `depth`, which are reranked."""

    depth: int
    recall: float


@dataclass(frozen=True)
class Group:
    """The cases with a cold target, or those with a warm one: how many, and the means over them."""

    cases: int
    means: Mapping[str, float | None]


@dataclass(frozen=True)
class Line:
    """A system and its figures. `groups` are those of cold and warm targets, `curve` is recall by k, `popular` are
    means under negatives drawn by popularity (sampled). Of rankings made elsewhere the cases without a list are
    `missing_cases`, lists of no case `unknown_cases`. `machine` is where it was fitted and asked, if not where the
    result was made."""

    name: str
    uses: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    fit_seconds: float | None = None
    score_ms: float | None = None
    missing_cases: int | None = None
    unknown_cases: int | None = None
    tokens: MeanTokens | None = None
    ceiling: Ceiling | None = None
    seeds: tuple[int, ...] = ()
    metrics: Mapping[str, Figure] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    curve: Mapping[int, float] = field(default_factory=dict)
    against: Against | None = None
    popular: Mapping[str, float | None] | None = None
    machine: str | None = None

    def figure(self, name: str = MAIN) -> Figure:
        """Of a metric; without numbers where there is none."""
        return self.metrics.get(name, Figure())

    def group(self, group: str, name: str) -> Figure:
        """Of a metric over the cold or the warm cases."""
        return Figure(self.groups[group].means.get(name)) if group in self.groups else Figure()

    @property
    def separable(self) -> bool:
        """Whether it is really worse than the best, or as the best really better than the second."""
        return self.against is not None and self.against.separable


@dataclass(frozen=True)
class Share:
    """Low resource: NDCG@10 of a system that learnt from a share of the users."""

    system: str
    share: float
    figure: Figure


@dataclass(frozen=True)
class Result:
    """One evaluation. `dropped` says why how many cases were not asked, `sample` how many at most were (0: all)."""

    dataset: str
    split: str
    protocol: str
    seen: str
    cases: int
    lines: tuple[Line, ...]
    dropped: Mapping[str, int] | None = None
    sample: int | None = None
    items: int | None = None
    origin: Origin = field(default_factory=Origin)
    seeds: tuple[int, ...] | None = None
    embedder: str | None = None
    low_resource: tuple[Share, ...] = ()

    @property
    def ordered(self) -> list[Line]:
        """Best first by NDCG@10, equal ones by name, those without one last."""
        means = {line.name: line.figure().mean for line in self.lines}
        return sorted(self.lines, key=lambda line: (-(means[line.name] or 0.0), means[line.name] is None, line.name))


@dataclass(frozen=True)
class Milliseconds:
    """Of one answer."""

    median: float
    p95: float


@dataclass(frozen=True)
class Variation:
    """A variant of the product in an ablation; `invalid` and `degraded` are shares of its answers, `against` compares
    with the first variant."""

    name: str
    settings: Mapping[str, Any]
    metrics: Mapping[str, Figure]
    invalid: float
    degraded: float
    tokens: MeanTokens
    ms: Milliseconds
    against: Against | None = None

    def figure(self, name: str = MAIN) -> Figure:
        """Of a metric; without numbers where there is none."""
        return self.metrics.get(name, Figure())


@dataclass(frozen=True)
class Ablation:
    """The product in several variants over the same cases."""

    ablation: str
    dataset: str
    split: str
    cases: int
    users: int
    sample: int
    seed: int
    origin: Origin
    variants: tuple[Variation, ...]
