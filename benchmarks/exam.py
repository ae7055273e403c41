"""An adapter's exam on simulated shops that it never learnt from: more held-out shoppers than its own shop has.

    python benchmarks/exam.py [--folder .] [--seeds 101,102] [--cases 500] [--judged 100] [--adapter default]

Reads params.yaml and data/title_embeddings of the folder, as `dvc repro` leaves them, and makes a shop of each seed as
the stage `examples` does (train/shop/others.py). Nobody in them was learnt from, so all their shoppers sit it: test
cases, after the cut in time, `--cases` of each shop and of the first `--judged` of these also the Yes/No prompts. What
is asked is train/lora/exam.py's: task NEXT, written freely (an invalid answer is a miss), and AUC of Yes/No against the
same kinds of negatives. Prints a JSON line for each shop and one for all, `exact_id` with its 95 % interval by a
bootstrap over shoppers. `shown` says how often the target's id stands in the prompt.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np

from recgraph import __version__
from recgraph.errors import SettingsError
from recgraph.evaluation.origin import machine
from recgraph.evaluation.statistics import intervals
from recgraph.graph.prompts import parse_next
from recgraph.settings import Settings
from recgraph.store.snapshot import open_folder
from recgraph.tools.llm.adapter_sets import AdapterSet, find_set
from recgraph.tools.llm.local import LocalLLM
from recgraph.tools.llm.places import find_llm
from recgraph.tools.llm.protocol import Prompt
from recgraph.train.examples.rows import Row
from recgraph.train.examples.served import Served
from recgraph.train.examples.stage import ExamplesParams, Writer, chat_of, choose
from recgraph.train.lora.exam import Judgement, judge, measure_fit
from recgraph.train.memory import read_queries
from recgraph.train.params import Params, block, load_params
from recgraph.train.pipeline import progress, split_folder
from recgraph.train.prepare import read_cases
from recgraph.train.shop.others import build_shop, check_seeds

TOGETHER = 20  # prompts that are answered at once


@dataclass(frozen=True)
class Sat:
    """A case's rows, that of NEXT first, whether the answer named the target, and whether it named a product at all."""

    rows: Sequence[Row]
    right: bool
    valid: bool

    @property
    def shown(self) -> bool:
        return self.rows[0].item_id in self.rows[0].user


def rows_of(params: Params, folder: Path, cases: int) -> tuple[list[list[Row]], list[str]]:
    """The rows of a shop's test cases, by case, and the ids of its catalogue."""
    own, split = block(params, "examples", ExamplesParams), split_folder(params, folder)
    # Held out is everybody: no shopper of this shop was learnt from.
    chosen = choose(read_cases(split, "test"), {"test": cases}, 1.0, own.seed)
    with open_folder(folder / "data" / "prepare" / "all") as store, open_folder(split / "train") as train:
        encoder = read_queries(folder, store)
        served = Served.of(train, encoder, folder)
        chat, settings = chat_of(find_llm(own.llm)), Settings(wording=own.wording)
        writer = Writer(store, encoder, chat, settings, own.pool, own.seed, served)
        by_time = sorted(chosen, key=lambda case: case.as_of)  # cases of a week share a query memory
        found = {case: writer.rows(case, 0) for case in progress(by_time, "Writing prompts")}
        return [found[case] for case in chosen], list(store.catalogue().item_ids)


def shop_rows(params: Params, folder: Path, seed: int, cases: int) -> tuple[list[list[Row]], list[str]]:
    """Those of a shop that is made for it; the users' names begin with the seed."""
    with tempfile.TemporaryDirectory(prefix="recgraph-exam-") as scratch:
        shop = Path(scratch) / "shop"
        build_shop(params, folder, seed, shop, lambda text: print(text, file=sys.stderr))
        groups, known = rows_of(params, shop, cases)
    return [[replace(row, user_id=f"{seed}:{row.user_id}") for row in rows] for rows in groups], known


def sit(groups: Sequence[Sequence[Row]], known: Sequence[str], llm: LocalLLM, adapter: str | None) -> list[Sat]:
    """The cases of task NEXT."""
    ids, found = frozenset(known), list[Sat]()
    parts = [groups[low : low + TOGETHER] for low in range(0, len(groups), TOGETHER)]
    for part in progress(parts, "Asking"):
        asked = [Prompt(rows[0].system, rows[0].user) for rows in part]
        answers, _ = llm.generate(asked, max_tokens=64, adapter=adapter)
        for rows, answer in zip(part, answers, strict=True):
            told = parse_next(answer.text, lambda _: True, {})
            valid = told.valid and told.item_id in ids
            found.append(Sat(rows, valid and told.item_id == rows[0].item_id, valid))
    return found


def report(sat: Sequence[Sat], fit: Mapping[str, float]) -> dict[str, object]:
    users = np.unique([one.rows[0].user_id for one in sat], return_inverse=True)[1]
    [right] = intervals(np.array([one.right for one in sat], np.float64), users)
    return {
        "cases": len(sat),
        "users": len(np.unique(users)),
        "shown": round(float(np.mean([one.shown for one in sat])), 4),
        "exact_id": [round(value, 4) for value in (right.mean, right.low, right.high)],
        "invalid": round(1 - float(np.mean([one.valid for one in sat])), 4),
        "fit": {name: round(value, 4) for name, value in fit.items()},
    }


def unseen(params: Params, text: str, one: AdapterSet | None) -> list[int]:
    """The seeds in a text with commas. SettingsError for those of shops that were learnt from."""
    seeds = [int(seed) for seed in text.split(",")]
    check_seeds(params, seeds)
    if one and (met := sorted(set(seeds) & set(block(params, "examples", ExamplesParams).shops))):
        raise SettingsError(f"--seeds names {met[0]}, a shop that adapters learn from (examples.shops). Name others.")
    return seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(), help="where params.yaml and data are")
    parser.add_argument("--seeds", default="101,102", help="of the shops, with commas between")
    parser.add_argument("--cases", type=int, default=500, help="of each shop; 0: all")
    parser.add_argument("--judged", type=int, default=100, help="so many of these with Yes/No too")
    parser.add_argument("--adapter", default="default", help="a set, or none")
    asked = parser.parse_args()
    params, before = load_params(asked.folder), os.getloadavg()[0]
    one = find_set(asked.adapter) if asked.adapter != "none" else None
    names = one.names if one else {}
    seeds = unseen(params, asked.seeds, one)
    llm = LocalLLM(find_llm(), {name: str(folder) for name, folder in one.adapters.items()} if one else None)

    def tell(shop: str, sat: Sequence[Sat], judged: Sequence[Judgement], started: float) -> None:
        fit = measure_fit(judged) if judged else {}
        facts = {
            "version": __version__,
            "machine": machine(),
            "load": [round(before, 1), round(os.getloadavg()[0], 1)],
            "date": str(date.today()),
            "command": f"python {' '.join(sys.argv)}",
            "adapter": one.label if one else "none",
            "shop": shop,
            "seconds": round(time.perf_counter() - started),
        }
        print(json.dumps({**facts, **report(sat, fit)}), flush=True)

    begun = time.perf_counter()
    every: list[Sat] = []
    judged: list[Judgement] = []
    for seed in seeds:
        started = time.perf_counter()
        groups, known = shop_rows(params, asked.folder, seed, asked.cases)
        sat = sit(groups, known, llm, names.get("next"))
        asked_of = dict(enumerate((rows[1:] for rows in groups[: asked.judged]), start=len(every)))
        some = judge(llm, asked_of, names.get("fit"))
        tell(f"seed {seed}", sat, some, started)
        every, judged = every + sat, judged + some
    if len(seeds) > 1:
        tell("all", every, judged, begun)


if __name__ == "__main__":
    main()
