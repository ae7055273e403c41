"""What a language model adds to rankings that are there, by how much it learnt from: Yes/No of the first ten, on the
shops of the leaderboard.

    recgraph evaluate --store beauty.duckdb --split loo --systems fused --export fused.parquet
    python benchmarks/worth_lists.py --store beauty.duckdb --run fused.parquet --learnt base,default,60,200

`--learnt` names what answers, one after the other: `base` is the model alone, `default` (or another set, or its folder:
one that was trained on a card, say) an adapter from elsewhere, a number an adapter that goes on from `default` with so
many train cases of this shop. How much a Yes
counts is learnt as in worth.py, on half of the users, and measured on the other half.

A case whose target is not among the first ten has an NDCG@10 of 0 in any order of them, so only the others are asked,
`--cases` of them: what they differ by, times their share of all cases, is the difference of all. Its interval is a
bootstrap over the users asked, times that share. Prints a line of JSON for each; answers are kept in --keep.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from worth import Answered, by_users, gains, ranked

from recgraph import __version__
from recgraph.evaluation.ask import Asked, Options, ask, measure_lists
from recgraph.evaluation.origin import machine
from recgraph.evaluation.rankings import read_rankings
from recgraph.evaluation.systems import systems
from recgraph.evaluation.workshop import Workshop
from recgraph.store.db import Store
from recgraph.train.pipeline import progress
from recgraph.train.task import only_named, read_task

DEPTH = 10
# as params.yaml has them for two cores
LEARNING = {"start": "default", "lora": {"negatives": 4, "batch": 20}}
WAYS = ("with Yes/No", "Yes/No as it is served", "Yes/No alone")


def settings_for(learnt: str) -> dict[str, Any]:
    """Those of the system whose model learnt so."""
    if learnt.isdigit():
        return {**LEARNING, "cases": int(learnt)}
    return {"adapter": "none" if learnt == "base" else learnt}


def asked_rows(asked: Asked, first: Any, count: int, seed: int) -> Any:
    """The cases whose target is among the first ten, `count` of them at most."""
    within = np.flatnonzero((first[:, :DEPTH] == asked.cases.target[:, None]).any(1))
    if not count or count >= len(within):
        return within
    return np.sort(np.random.default_rng(seed).choice(within, count, replace=False))


def answers(asked: Asked, rows: Any, first: Any, system: Any) -> list[Answered]:
    """What the system's model says of the first ten of each of these cases."""
    found = []
    for row in progress(rows.tolist(), "Asking"):
        items = first[row, :DEPTH]
        begun = time.perf_counter()
        [logits] = system.scores_among(asked.cases.of(np.array([row])), items[None])
        took = time.perf_counter() - begun
        names = [asked.task.item_ids[item] for item in items]
        target, user = asked.task.item_ids[int(asked.cases.target[row])], str(asked.cases.user[row])
        found.append(Answered(user, target, names, [0] * len(names), logits.tolist(), "", names, (0.0, took)))
    return found


def report(cases: Sequence[Answered], share: float) -> dict[str, Any]:
    """What each way to rank gains over all cases, and what the model costs."""
    found = ranked(cases)
    base, _ = gains(found["the ranking"][0])
    more = {way: [share * part for part in by_users(cases, gains(found[way][0])[0] - base)] for way in WAYS}
    targets = [one.logits[one.candidates.index(one.target)] for one in cases]
    above = [
        float(np.mean([target > other, target == other], axis=1) @ [1, 0.5])
        for one, target in zip(cases, targets, strict=True)
        for other in [np.delete(one.logits, one.candidates.index(one.target))]
    ]
    seconds = float(np.median([one.seconds[1] for one in cases]))
    return {
        "cases": len(cases),
        "share": share,
        "ndcg@10": share * float(base.mean()),
        "more": more,
        "auc within the first ten": by_users(cases, np.array(above)),
        "seconds a case": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--split", default="loo")
    parser.add_argument("--protocol", default="full", choices=["full", "category", "sampled"])
    parser.add_argument("--items", default="all", choices=["all", "named"], help="named: without what has an id alone")
    parser.add_argument("--run", type=Path, required=True, help="rankings, as recgraph evaluate --export writes them")
    parser.add_argument("--system", default="tallrec", help="how a case is told to the model")
    parser.add_argument("--learnt", default="base,default,60,200")
    parser.add_argument("--cases", type=int, default=300, help="of those with the target among the first ten; 0: all")
    parser.add_argument("--keep", type=Path, default=Path("worth"))
    given = parser.parse_args()
    with Store.open(given.store) as opened:
        task = read_task(opened, given.store.stem, given.split)
    task = only_named(task) if given.items == "named" else task
    asked = ask(task, Options(given.protocol))
    first = measure_lists(read_rankings(given.run, task), asked).first
    rows = asked_rows(asked, first, given.cases, seed=7)
    share = float((first[:, :DEPTH] == asked.cases.target[:, None]).any(1).mean())
    given.keep.mkdir(parents=True, exist_ok=True)
    for learnt in given.learnt.split(","):
        name = "-".join((given.store.stem, given.system, learnt.strip("/").replace("/", "-"), str(len(rows))))
        before, kept = os.getloadavg()[0], given.keep / f"{name}.json"
        if not kept.exists():
            workshop = Workshop(given.store, given.keep, tuned={given.system: settings_for(learnt)})
            system: Any = systems([given.system], workshop)[given.system](7)
            system.fit(task, lambda text: print(text, file=sys.stderr, flush=True))
            told = {
                "cost": system.training_cost,
                "answers": [asdict(one) for one in answers(asked, rows, first, system)],
            }
            kept.write_text(json.dumps(told, default=dict), encoding="utf-8")
        told = json.loads(kept.read_text(encoding="utf-8"))
        cases = [Answered(**one) for one in told["answers"]]
        facts = {"version": __version__, "machine": machine(), "load": [round(before, 1), round(os.getloadavg()[0], 1)]}
        what = {
            "date": str(date.today()),
            "command": f"python {' '.join(sys.argv)}",
            "shop": task.name,
            "learnt": learnt,
        }
        print(json.dumps({**facts, **what, "training": told["cost"], **report(cases, share)}), flush=True)


if __name__ == "__main__":
    main()
