"""One adapter for both tasks of the recommender, or one each: what adapters of a folder can do on its held-out cases.

    recgraph train examples                                            # in a folder with params.yaml and data/
    recgraph train sft --task recommend; recgraph train sft --task next; recgraph train sft --task fit
    python benchmarks/tasks.py --folder . both=adapters/mine/recommend next=adapters/mine/next fit=adapters/mine/fit

Each adapter, and the base model, sits both tasks: NEXT written freely (the target's exact id, an invalid answer is a
miss), and Yes or No to the target and to the products that were not chosen (AUC, pooled, and the mean of cases, which
can be compared case by case). Differences are from the first adapter, paired, with the 95 % interval of a bootstrap
over shoppers. Prints a JSON line for each.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from exam import sit
from numpy.typing import NDArray

from recgraph import __version__
from recgraph.evaluation.origin import machine
from recgraph.evaluation.statistics import intervals
from recgraph.store.parquet import read_table
from recgraph.tools.llm.local import LocalLLM
from recgraph.tools.llm.places import find_llm
from recgraph.train.examples.rows import Row, read_rows
from recgraph.train.lora.exam import Judgement, judge, measure_fit
from recgraph.train.metrics import auc

Floats = NDArray[np.float64]


def by_case(judged: Sequence[Judgement], cases: int) -> Floats:
    """float64[cases]: the AUC within each case, against all but the `hard` products; nan where there is none."""
    found = np.full(cases, np.nan)
    for case in range(cases):
        own = [one for one in judged if one.case == case]
        right = [one.score for one in own if one.kind == "positive"]
        wrong = [one.score for one in own if one.kind not in ("positive", "hard")]
        if right and wrong:
            found[case] = auc(right, wrong)
    return found


def told(values: Floats, first: Floats | None, users: NDArray[np.int64]) -> dict[str, list[float]]:
    """The mean with its interval, and the same of the difference from the first adapter."""
    parts = {"": values} | ({" from the first": values - first} if first is not None else {})
    there = {name: ~np.isnan(part) for name, part in parts.items()}
    found = {name: intervals(part[there[name]], users[there[name]])[0] for name, part in parts.items()}
    return {name: [round(value, 4) for value in (one.mean, one.low, one.high)] for name, one in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapters", nargs="+", metavar="NAME=FOLDER", help="the first is what others are compared with")
    parser.add_argument("--folder", type=Path, default=Path(), help="where data/examples and data/prepare are")
    parser.add_argument("--cases", type=int, default=0, help="held-out cases of NEXT; 0: all")
    parser.add_argument("--judged", type=int, default=100, help="so many of these with Yes/No too")
    asked = parser.parse_args()
    folders = dict(one.split("=", 1) for one in asked.adapters)
    groups: dict[int, list[Row]] = {}
    for case, rows in read_rows(asked.folder / "data" / "examples" / "recommend.parquet", "test").items():
        groups[case] = sorted(rows, key=lambda row: row.judged)  # that of NEXT first
    cases = list(groups.values())[: asked.cases or None]
    known = list(read_table(asked.folder / "data" / "prepare" / "all" / "items.parquet")["item_id"])
    users = np.unique([rows[0].user_id for rows in cases], return_inverse=True)[1]
    judged = {number: rows[1:] for number, rows in enumerate(cases[: asked.judged])}
    before = os.getloadavg()[0]
    llm = LocalLLM(find_llm(), folders)
    first: dict[str, Floats] = {}
    for name in (*folders, None):
        begun = time.perf_counter()
        found = judge(llm, judged, name)
        sat = sit(cases, known, llm, name)
        figures = {"exact id": np.array([one.right for one in sat], np.float64), "auc": by_case(found, len(judged))}
        line: dict[str, Any] = {"adapter": name or "the base model", "folder": folders.get(name or "", "")}
        for what, values in figures.items():
            of = told(values, first.get(what), users[: len(values)])
            line |= {what + extra: interval for extra, interval in of.items()}
            first.setdefault(what, values)
        line |= {"cases": len(cases), "shoppers": len(np.unique(users)), "judged": len(judged)}
        line["fit"] = {key: round(value, 4) for key, value in measure_fit(found).items()}
        line["invalid"] = round(1 - float(np.mean([one.valid for one in sat])), 4)
        facts = {"version": __version__, "machine": machine(), "load": [round(before, 1), round(os.getloadavg()[0], 1)]}
        facts |= {"date": str(date.today()), "command": f"python {' '.join(sys.argv)}"}
        print(json.dumps({**facts, **line, "seconds": round(time.perf_counter() - begun)}), flush=True)


if __name__ == "__main__":
    main()
