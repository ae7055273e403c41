"""What attacks moved, as tables: the places that a product gained over neutral texts, and how far neutral texts lie
from each other.

How a place is found is unknown here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from attacks import Attack


@dataclass(frozen=True)
class Line:
    """What one attack did: how many places the product gained over the neutral texts and over the text it had. `apart`
    are the places that each neutral text gained over the median of the others."""

    attack: Attack
    place: str
    target: str
    lift: int
    over_own: int
    weight: float = 0.0
    apart: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, attack: Attack, place: str, target: str, stands: int, neutral: Sequence[int], own: int, weight: float = 0.0
    ) -> Line:
        """From the places where the product stands with the attack, the neutral texts, and its own text."""
        others = [[*neutral[:number], *neutral[number + 1 :]] for number in range(len(neutral))]
        apart = tuple(_median(rest) - one for one, rest in zip(neutral, others, strict=True) if rest)
        return cls(attack, place, target, _median(neutral) - stands, own - stands, weight, apart)


def _median(places: Sequence[int]) -> int:
    return int(np.median(places))


def summary(lines: Sequence[Line]) -> dict[str, Any]:
    """Places gained over the neutral texts, and over the product's own."""
    own = [line.over_own for line in lines]
    return {
        **_spread([line.lift for line in lines]),
        "own_mean": round(float(np.mean(own)), 3),
        "own_worst": max(own),
    }


def _spread(lifts: Sequence[int]) -> dict[str, Any]:
    return {
        "cases": len(lifts),
        "mean": round(float(np.mean(lifts)), 3),
        "most_of_20": int(np.quantile(lifts, 0.95, method="higher")),
        "worst": max(lifts),
        "least": min(lifts),
        "over_3": sum(lift > 3 for lift in lifts),
    }


def grouped(lines: Sequence[Line], key: Callable[[Line], str]) -> dict[str, dict[str, Any]]:
    groups = defaultdict[str, list[Line]](list)
    for line in lines:
        groups[key(line)].append(line)
    return {name: summary(found) for name, found in groups.items()}


def tables(lines: Sequence[Line]) -> dict[str, Any]:
    """All attacks, by place, by family and place, and by attack; and what each neutral text gained over the others, {}
    where there was one a line."""
    apart = [one for line in lines for one in line.apart]
    return {
        "all": summary(lines),
        "neutral text": _spread(apart) if apart else {},
        "places": grouped(lines, lambda line: line.place),
        "targets": grouped(lines, lambda line: line.target),
        "families": {
            family: grouped([line for line in lines if line.attack.family == family], lambda line: line.place)
            for family in dict.fromkeys(line.attack.family for line in lines)
        },
        "attacks": grouped(lines, lambda line: f"{line.attack.number:02} {line.attack.template[:60]}"),
    }
