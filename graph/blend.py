"""What a model's Yes and No make of the order of retrieval (T 4.3, DESIGN 7).

Which candidates are asked about, and what is asked of the model, is unknown here: graph/nodes.py does it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from recgraph.graph.state import Scored
from recgraph.tools.candidates import Candidate

# Share of Yes/No in the order of a small model. With the trained adapter (AUC .89 against random products, .62 against
# those on the same page) 60 held-out cases gave NDCG@10 .376 at 0, .376 at .1, .374 at .5, .296 at 1: it does not
# improve on the fusion's order, and alone it spoils it.
SMALL_WEIGHT = 0.1
# Words in a title that speak to the model lifted a product by up to 14 places (benchmarks/injection.py). What a title
# can win is both together: with its own words the product may fall, and with others be lifted.
MOST_LIFTED, _MOST_FALLEN = 2, 1
# Chance of the first candidate from which on nothing is asked. Of 804 validation cases 35 % have it, and NDCG@10 gains
# .0019 without asking there, .0020 with; the first is the right one in .63 of them, .70 said (benchmarks/worth.py).
SURE = 0.5


def yes_probability(log_yes: float, log_no: float) -> float:
    """p = sigmoid(logit_yes - logit_no): the difference of log-probabilities is the difference of logits (DESIGN 7)."""
    difference = max(-700.0, min(700.0, log_yes - log_no))
    return 1 / (1 + math.exp(-difference))


def paper_eq3(log_yes: float, log_no: float) -> float:
    """T eq. 3 to the letter: a softmax of the two probabilities, which squeezes every p into (0.27, 0.73). Kept to
    compare."""
    yes, no = math.exp(log_yes), math.exp(log_no)
    return math.exp(yes) / (math.exp(yes) + math.exp(no))


def blend(
    candidates: Sequence[Candidate], pairs: Sequence[tuple[float, float]], weight: float, odds: float | None = None
) -> list[Scored]:
    """Orders candidates by (1 - weight) x retrieval + weight x Yes/No, both as z-scores; or, where `odds` are given, by
    the log odds of Yes against No, times these, less the logarithm of the place. Ties keep the order of retrieval. Only
    what fits equally many named parts of the wish changes places, whatever the weight. Below a weight of 1, where the
    model ranks alone (T 4.3), none comes more than `MOST_LIFTED` places before where retrieval has it, and none more
    than `_MOST_FALLEN` behind; `odds` have these bounds whatever the weight.

    `pairs` are log-probabilities of Yes and No, one a candidate. Ranking by the logit difference, not by T eq. 3
    (DESIGN 7).
    """
    retrieval = np.array([-math.log1p(rank) for rank in range(len(candidates))])
    logits = np.array([yes - no for yes, no in pairs])
    if odds is None:
        scores = (1 - weight) * _standard(retrieval) + weight * _standard(logits)
    else:
        scores = retrieval + odds * logits
    levels = np.array([-candidate.fits for candidate in candidates])
    order = np.lexsort((-scores, levels)).tolist()  # stable, the last key first
    if weight < 1 or odds is not None:
        order = _held(order, np.argsort(levels, kind="stable").tolist())
    return [Scored(candidates[i], round(float(scores[i]), 6), yes_probability(*pairs[i])) for i in order]


def is_sure(candidates: Sequence[Candidate], bound: float = SURE) -> bool:
    """Whether a learnt ranking gives its first a chance of at least `bound`, among others that fit the wish as much: a
    model's Yes and No then add next to nothing to its order."""
    first, *others = candidates[:2]
    return bool(others) and others[0].fits == first.fits and first.chance is not None and first.chance >= bound


def in_order(candidates: Sequence[Candidate], below: float = 1.0) -> list[Scored]:
    """As retrieval has them, with scores `below` that fall and no probability."""
    return [Scored(candidate, round(below - 0.01 * (place + 1), 6), None) for place, candidate in enumerate(candidates)]


def _held(order: Sequence[int], before: Sequence[int]) -> list[int]:
    """The order, with none more than `MOST_LIFTED` places before where it was, or `_MOST_FALLEN` behind: in each place
    stands who has to, else the first in the order who may."""
    place, waiting, held = {one: number for number, one in enumerate(before)}, list(order), list[int]()
    while waiting:
        due = [one for one in waiting if place[one] + _MOST_FALLEN == len(held)]
        may = (one for one in waiting if place[one] - MOST_LIFTED <= len(held))
        held.append(due[0] if due else next(may))
        waiting.remove(held[-1])
    return held


def _standard(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    spread = float(values.std())
    return cast(
        "np.ndarray[Any, np.dtype[np.float64]]",
        (values - values.mean()) / spread if spread > 1e-9 else np.zeros_like(values),
    )
