"""Results of `recgraph evaluate` as boards: best first, with a title of their own, in an order to be shown in.

Which files a leaderboard consists of, what is said of a line and how it looks is unknown here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from recgraph.evaluation.result import MAIN, Figure, Line, Result

PROTOCOLS = {  # in the order they are shown: title, and what a case asks
    "full": ("Full ranking", "the target among all items listed by then"),
    "category": ("Within the category", "the target among the items of its category (F 5.1)"),
    "sampled": (
        "Against drawn items",
        "users with 10 to 25 records, the target among 20 drawn items (T 5.1); flatters everybody",
    ),
    "cold": ("Cold items", "only targets that nobody had in the training events (F 5.4)"),
}
SPLITS = {
    "time": ("split in time", "one cut for everybody; what comes after is predicted"),
    "loo": ("leave-one-out", "each user's last target is predicted; other users' future is known, as in most papers"),
}


@dataclass(frozen=True)
class Board:
    """One result, under the `name` of its file without .json."""

    name: str
    result: Result

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """Best first by NDCG@10."""
        return tuple(self.result.ordered)

    @property
    def dataset(self) -> str:
        return self.result.dataset

    @property
    def sampled(self) -> bool:
        """Whether there were more cases than were asked."""
        return bool(self.result.sample) and self.result.sample == self.result.cases

    @property
    def title(self) -> str:
        """What sets it apart from the data set's other boards."""
        found = self.result
        words = [PROTOCOLS.get(found.protocol, (found.protocol,))[0], SPLITS.get(found.split, (found.split,))[0]]
        words += ["history's items ranked"] if found.seen == "ranked" else []
        words += [f"sample of {found.cases:,} cases"] if self.sampled else []
        usual = f"{found.dataset.split(',')[0]}-{found.split}-{found.protocol}"
        extra = self.name.removeprefix(usual).strip("-") if self.name.startswith(usual) else self.name
        told = {found.seen, str(found.cases)}  # as file names have what the words say
        extra = "-".join(word for word in extra.split("-") if word not in told)
        return ", ".join(words) + (f": {extra}" if extra else "")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric that a line has, by name and k."""
        return tuple(sorted({name for line in self.lines for name in line.metrics}, key=by_k))

    @property
    def columns(self) -> tuple[str, ...]:
        """The metrics of the short table."""
        sampled = self.result.protocol == "sampled"
        wanted = (MAIN, "recall@3", "recall@10", "mrr@3", "mrr@10") if sampled else (MAIN, "recall@10", "mrr")
        return tuple(name for name in wanted if name in self.metrics)

    @property
    def ks(self) -> tuple[int, ...]:
        """Of the curves."""
        return tuple(sorted({k for line in self.lines for k in line.curve}))

    @cached_property
    def low_resource(self) -> Mapping[str, tuple[tuple[float, Figure], ...]]:
        """(share of users, NDCG@10) by system, the smallest share first."""
        found: dict[str, list[tuple[float, Figure]]] = {}
        for one in self.result.low_resource:
            found.setdefault(one.system, []).append((one.share, one.figure))
        return {system: tuple(sorted(points, key=lambda point: point[0])) for system, points in found.items()}

    def order(self) -> tuple[str, int, int, str, str, bool, str, str]:
        """Boards of one data set sort by it: full first, and the split that leaks nothing before the other."""
        protocol, split = self.result.protocol, self.result.split
        ranks = [
            [*known].index(name) if name in known else len(known)
            for known, name in ((PROTOCOLS, protocol), (SPLITS, split))
        ]
        return (self.dataset, ranks[0], ranks[1], protocol, split, self.sampled, self.result.seen, self.name)


def by_k(metric: str) -> tuple[str, int]:
    """To sort metrics: recall@5 before recall@10."""
    name, _, k = metric.partition("@")
    return name, int(k) if k.isdigit() else 0
