"""What can be reached at all on the simulated shop: the held-out cases, sat by judges that have the shop's own
generating model (train/shop/judge.py).

    python benchmarks/ceiling.py [--folder .] [--forks 600] [--steps 90] [--tastes 15] [--processes 2] [--cases 0]

Reads params.yaml, data/prepare and data/examples of the folder, trades the year again with its seed, and scores just
the rows of the part test: those of task FIT, the target and its negatives, by log-odds, and for task NEXT the product
that is named. Prints one JSON line, for each judge:

- `auc` over all negatives but the `hard` ones and `auc_KIND` by kind, pooled over cases as train/lora/exam.py pools
  them, and `within`, `within_KIND` in each case;
- how often the most likely product is the target (`exact_id`), also where only a product may be named whose id stands
  in the prompt (`exact_id_shown`), and how sure the judge was of it (`expected`);
- NDCG@10 and Recall@10 over the whole catalogue.

Each with the 2.5 and 97.5 % points of a bootstrap over cases. `shown` says in how many prompts of NEXT the target's id
stands: a model can name no other, unless it was taught it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recgraph import __version__
from recgraph.evaluation.origin import machine
from recgraph.train.examples.rows import read_rows
from recgraph.train.metrics import auc, ndcg, places, recall
from recgraph.train.params import Params, block, load_params
from recgraph.train.pipeline import progress, split_folder
from recgraph.train.prepare import Case, read_cases
from recgraph.train.shop.judge import Judge, Purchase, Tastes, WatchedTrade, visible
from recgraph.train.shop.stage import ShopParams
from recgraph.train.shop.year import LAST_DAY, trade_year

JUDGES = ("page", "taste", "history")
LEAST = 1e-9  # a chance that forks did not find is not zero
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Effort:
    """How ways a judge tries out, how many steps it looks for tastes and how many of those it takes."""

    forks: int
    steps: int
    tastes: int


@dataclass(frozen=True)
class Sat:
    """A held-out case as adapters sit it: the prompt of NEXT, and the products of FIT with their kinds ("positive" the
    target)."""

    case: Case
    prompt: str
    item_ids: Sequence[str]
    kinds: Sequence[str]


@dataclass(frozen=True)
class Known:
    """A case with what the shop knows of it: the purchase, its search among the purchase's turns (-1: none) and the
    second it was asked, the product's number."""

    case: Case
    purchase: Purchase
    asked: int
    second: int
    target: int


@dataclass(frozen=True)
class Shop:
    """The year as it was traded, and the products' numbers by id."""

    trade: WatchedTrade
    first: datetime
    days: int
    place: Mapping[str, int]

    @classmethod
    def of(cls, params: ShopParams, heat_from: float = 0.0) -> Shop:
        WatchedTrade.heat_from = heat_from
        trade, first = trade_year(
            WatchedTrade, params.seed, params.shoppers, params.products, params.events, params.days
        )
        place = {product.item_id: number for number, product in enumerate(trade.listings.products)}
        return cls(trade, first, params.days, place)

    def known(self, case: Case) -> Known:
        """LookupError where this shop never traded the case."""
        second = int((case.ts - self.first).total_seconds())
        purchase = self.trade.purchases.get((second, case.user_id, self.place.get(case.item_id, -1)))
        if purchase is None:
            raise LookupError(f"{case.user_id} bought no {case.item_id} at {case.ts}: data/prepare is of another shop.")
        asked_at = int((case.as_of - self.first).total_seconds())
        turns = [number for number, turn in enumerate(purchase.turns) if case.query and turn.second == asked_at]
        return Known(case, purchase, turns[0] if turns else -1, asked_at, self.place[case.item_id])


def judged(shop: Shop, cases: Sequence[Known], effort: Effort, seed: int) -> list[dict[str, Floats]]:
    """For each case each judge's chances of the products. Cases of one shopper are best asked together, in order of
    time: the tastes that are found go on from each other."""
    judge = Judge(shop.trade, effort.forks, seed)
    tastes = Tastes(judge, shop.days, seed)
    found = []
    for known in cases:
        who = known.purchase.at.who
        seen = visible(shop.trade.threads.get(who.user_id, []), known.second)
        drawn = tastes.draw(who, seen, effort.steps, effort.tastes)
        found.append(
            {
                "page": judge.chances(known.purchase, known.asked, [None], page=True),
                "taste": judge.chances(known.purchase, known.asked, [None]),
                "history": judge.chances(known.purchase, known.asked, drawn),
            }
        )
    return found


# ── Measures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def log_odds(chance: Floats | float) -> Floats:
    held = np.clip(chance, LEAST, 1 - LEAST)
    return np.asarray(np.log(held) - np.log1p(-held))


def measure_fit(scored: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """AUC of cases, each with its scores by kind ("positive" the target's): pooled (`auc`, `auc_KIND`), and the mean
    within cases (`within`, `within_KIND`)."""
    kinds = sorted({kind for case in scored for kind in case} - {"positive"})
    found: dict[str, float] = {}
    for name, some in (("", [kind for kind in kinds if kind != "hard"]), *((f"_{kind}", [kind]) for kind in kinds)):
        wrong = [[score for kind in some for score in case.get(kind, ())] for case in scored]
        found[f"auc{name}"] = auc([case["positive"][0] for case in scored], [one for case in wrong for one in case])
        within = [auc(case["positive"], case_wrong) for case, case_wrong in zip(scored, wrong, strict=True)]
        found[f"within{name}"] = float(np.nanmean(within)) if not np.isnan(within).all() else float("nan")
    return found


def measure_next(chances: Sequence[Floats], target: Sequence[int], shown: Sequence[list[int]]) -> dict[str, Floats]:
    """By name what each case adds: `exact_id`, `exact_id_shown`, `ndcg@10`, `recall@10` and `expected`, the chance that
    the judge itself gives its first."""
    wanted = np.array(target)
    at = places(np.stack(chances), wanted)
    best = [some[int(said[some].argmax())] if some else -1 for some, said in zip(shown, chances, strict=True)]
    return {
        "exact_id": np.array([said.argmax() == one for said, one in zip(chances, target, strict=True)], float),
        "exact_id_shown": (np.array(best) == wanted).astype(float),
        "expected": np.array([said.max() for said in chances]),
        "ndcg@10": ndcg(at, 10),
        "recall@10": recall(at, 10),
    }


def with_interval(
    count: int, measured: Callable[[NDArray[np.int64]], Mapping[str, float]], draws: int, seed: int = 7
) -> dict[str, list[float]]:
    """Each measure of all cases, with the 2.5 and 97.5 % points of what drawn cases give."""
    rng = np.random.default_rng(seed)
    again = [measured(rng.integers(count, size=count)) for _ in range(draws)]
    return {
        name: [
            round(float(x), 4)
            for x in (value, *np.nanpercentile([one.get(name, np.nan) for one in again], [2.5, 97.5]))
        ]
        for name, value in measured(np.arange(count)).items()
    }


# ── The run ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_TRADED: list[tuple[Shop, Sequence[Known]]] = []  # made before processes are forked, so that none is sent any of it


def _judged_part(part: Sequence[int], effort: Effort, seed: int) -> list[dict[str, Floats]]:
    shop, cases = _TRADED[0]
    return judged(shop, [cases[number] for number in part], effort, seed)


def judged_by_all(
    shop: Shop, cases: Sequence[Known], effort: Effort, seed: int, processes: int
) -> list[dict[str, Floats]]:
    """As `judged`, in the order of `cases`, by several processes; all cases of a shopper by one."""
    _TRADED[:] = [(shop, cases)]
    parts: dict[str, list[int]] = {}
    for number in sorted(range(len(cases)), key=lambda number: cases[number].second):
        parts.setdefault(cases[number].case.user_id, []).append(number)
    found: dict[int, dict[str, Floats]] = {}
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork")) as pool:
        jobs = [pool.submit(_judged_part, part, effort, seed + part[0]) for part in parts.values()]
        for part, job in zip(parts.values(), progress(jobs, "Judging shoppers"), strict=True):
            found.update(zip(part, job.result(), strict=True))
    return [found[number] for number in range(len(cases))]


def report(shop: Shop, sat: Sequence[Sat], said: Sequence[Mapping[str, Floats]]) -> dict[str, object]:
    """All that is measured of held-out cases by what each judge said of them."""
    cases = [shop.known(one.case) for one in sat]
    target = [known.target for known in cases]
    shown = [[number for item_id, number in shop.place.items() if item_id in one.prompt] for one in sat]
    found: dict[str, object] = {
        "cases": len(cases),
        "searched": sum(known.asked >= 0 for known in cases),
        "shown": sum(one in some for one, some in zip(target, shown, strict=True)),
        "negatives": dict(Counter(kind for one in sat for kind in one.kinds if kind != "positive")),
    }
    for judge in JUDGES:
        chances = [one[judge] for one in said]
        scored = [_by_kind(shop, one, log_odds(chance)) for one, chance in zip(sat, chances, strict=True)]
        each = measure_next(chances, target, shown)
        found[judge] = {
            **with_interval(len(sat), partial(_fit_of, scored), 200),
            **with_interval(len(sat), partial(_means_of, each), 1000),
        }
    return found


def _fit_of(scored: Sequence[Mapping[str, Sequence[float]]], rows: NDArray[np.int64]) -> dict[str, float]:
    return measure_fit([scored[row] for row in rows.tolist()])


def _means_of(each: Mapping[str, Floats], rows: NDArray[np.int64]) -> dict[str, float]:
    return {name: float(one[rows].mean()) for name, one in each.items()}


def _by_kind(shop: Shop, one: Sat, odds: Floats) -> dict[str, list[float]]:
    scored: dict[str, list[float]] = {}
    for item_id, kind in zip(one.item_ids, one.kinds, strict=True):
        scored.setdefault(kind, []).append(float(odds[shop.place[item_id]]))
    return scored


def read_sat(params: Params, folder: Path) -> list[Sat]:
    """The test cases of data/examples, in their order."""
    by_event = {(case.user_id, case.seq): case for case in read_cases(split_folder(params, folder), "test")}
    found = []
    for following, *fit in read_rows(folder / "data" / "examples" / "recommend.parquet", "test").values():
        case = by_event[following.user_id, following.seq]
        found.append(Sat(case, following.user, [row.item_id for row in fit], [row.kind for row in fit]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("."), help="where params.yaml and data are")
    parser.add_argument("--forks", type=int, default=600, help="ways that each judge tries out for a case")
    parser.add_argument("--steps", type=int, default=90, help="of the search for a shopper's taste")
    parser.add_argument("--tastes", type=int, default=15, help="that are taken of those found")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cases", type=int, default=0, help="the first so many; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    started, params = time.perf_counter(), load_params(asked.folder)
    sat = read_sat(params, asked.folder)[: asked.cases or None]
    own = block(params, "shop", ShopParams)
    since = min(one.case.as_of for one in sat) - timedelta(days=1)
    shop = Shop.of(own, heat_from=(since - LAST_DAY).days + own.days - 1)
    known = [shop.known(one.case) for one in sat]
    effort = Effort(asked.forks, asked.steps, asked.tastes)
    said = judged_by_all(shop, known, effort, asked.seed, asked.processes)
    print(
        json.dumps(
            {
                "version": __version__,
                "machine": machine(),
                "load": round(os.getloadavg()[0], 1),
                "date": str(date.today()),
                "command": f"python benchmarks/ceiling.py {' '.join(sys.argv[1:])}".strip(),
                "seconds": round(time.perf_counter() - started),
                **report(shop, sat, said),
            }
        )
    )


if __name__ == "__main__":
    main()
