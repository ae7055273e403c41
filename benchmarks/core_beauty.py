"""CORE on Amazon Beauty, leave-one-out, full ranking over all 12,101 items. What README says about the ID embeddings comes from here.

    python benchmarks/core_beauty.py [--data DIR] [--prefixes] [--part DIR] [--store FILE] [NAME=VALUE ...]

Trains on all but the last two items of each user, chooses the epoch on the last but one, tests on the last with all before it as history.
NAME=VALUE sets a parameter of the block `id_embeddings`; `--prefixes` trains as the reference does, with a copy of the history for each
target. `--part` keeps a checkpoint after each epoch. Prints machine, date, command, each epoch, and Recall@10/NDCG@10 with the history's
own items left out and not.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import yaml

from recgraph import __version__
from recgraph.store.db import Store
from recgraph.store.ingest.load import ingest
from recgraph.train.id_embeddings import sequences
from recgraph.train.metrics import summary
from recgraph.train.networks.core import CoreSettings, HeldOut, ranks, train


def read_beauty(data: Path, store: str) -> tuple[list[np.ndarray], int]:
    """Every user's item rows in order, and the number of items."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(store or f"{scratch}/beauty.duckdb")
        if not path.is_file():
            ingest(path, "sequences", [data / "amazon-beauty-2014"])
        with Store.open(path) as opened:
            n_items = len(opened.catalogue().item_ids)
            items, starts = sequences(opened.sequences(), np.arange(n_items))
    return np.split(items, starts[1:-1]), n_items


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RECGRAPH_DATA", "../shared/data")))
    parser.add_argument("--store", default="", help="an ingested store of Beauty, else one is made")
    parser.add_argument("--prefixes", action="store_true")
    parser.add_argument("--part", type=Path)
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE")
    asked = parser.parse_args()
    settings = CoreSettings.of({name: yaml.safe_load(value) for name, value in (one.split("=") for one in asked.settings)})
    users, n_items = read_beauty(asked.data, asked.store)
    known = [one[:-2] for one in users]
    warm = np.unique(np.concatenate(known))
    row_of = np.full(n_items, -1)
    row_of[warm] = np.arange(len(warm))
    items, starts = row_of[np.concatenate(known)], np.concatenate([[0], np.cumsum([len(one) for one in known])])
    cases = {}
    for name, at in (("valid", -2), ("test", -1)):
        histories = [row_of[one[:at]] for one in users]
        cases[name] = HeldOut(histories, row_of[np.array([one[at] for one in users])], histories)
    print(f"recgraph {__version__}, torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} CPUs (load {os.getloadavg()[0]:.1f})")
    print(f"{datetime.date.today()}, command: python benchmarks/core_beauty.py {' '.join(sys.argv[1:])}")
    print(f"{settings}\n{len(items):,} events, {len(warm):,} of {n_items:,} items trained", flush=True)
    trained = train(items, starts, len(warm), settings, cases["valid"], asked.part, asked.prefixes)
    for row in trained.epochs:
        print(f"  epoch {row['epoch'] + 1:3.0f}  loss {row['loss']:.4f}  valid {row['recall@10']:.4f}/{row['ndcg@10']:.4f}")
    print(f"{trained.seconds:.1f} s an epoch, best epoch {trained.best + 1}")
    for name, one in cases.items():
        for what, places in zip(("history's items ranked too", "history's items left out"), ranks(trained.model, one), strict=True):
            found = summary(places)
            print(f"{name:<6} Recall@10 {found['recall@10']:.4f}  NDCG@10 {found['ndcg@10']:.4f}  ({what})")


if __name__ == "__main__":
    main()
