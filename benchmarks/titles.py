"""Title retrieval of the encoders side by side (F 4.4): which share of held-out purchases each finds from the query, or
the purchase before.

Reads a snapshot folder or an ingested store, splits it as the stage `prepare` does, trains what needs training on the
train part and measures all on the same cases. What docs/results.md says about title encoders comes from here.

    python benchmarks/titles.py --data data/shop [--split time] [--part test] [--encoders ready,lstm,finetuned]
        [--set lstm.epochs=5 ...]
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from recgraph.store.snapshot import open_folder
from recgraph.tools.embed import TextEncoder, open_encoder
from recgraph.train import prepare
from recgraph.train.networks.title_pairs import Titles, pairs_of
from recgraph.train.networks.titles import threads
from recgraph.train.title_embeddings import TitleParams, measure, sample, train_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="snapshot folder or .duckdb store")
    parser.add_argument("--split", default="time", choices=("time", "loo"))
    parser.add_argument("--part", default="valid", choices=("valid", "test"))
    parser.add_argument("--encoders", default="ready,lstm,finetuned")
    parser.add_argument("--positives", default="purchase")
    parser.add_argument("--cases", type=int, default=5000, help="at most so many cases, drawn with the seed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="ENCODER.NAME=VALUE",
        help="settings of LSTMSettings and FinetuneSettings",
    )
    asked = parser.parse_args()
    block = {
        "encoder": "ready",
        "dtype": "float32",
        "positives": asked.positives,
        "cases": asked.cases,
        "seed": asked.seed,
        "threads": asked.threads,
    }
    own: dict[str, dict[str, object]] = {"lstm": {}, "finetuned": {}}
    for given in asked.set:
        name, text = given.split("=", 1)
        kind, field = name.split(".", 1)
        own[kind][field] = json.loads(text) if text[:1] in "0123456789" else text
    params = TitleParams.of({"title_embeddings": {**block, **own}})
    print(
        f"{platform.machine()}, {asked.threads} threads, torch {torch.__version__}, {asked.data}, {asked.split} "
        f"split, {asked.part}, {asked.set}"
    )
    with tempfile.TemporaryDirectory(prefix="recgraph-titles-") as scratch, threads(asked.threads):
        folder = Path(scratch)
        data = str(Path(asked.data).resolve())
        prepare.run(
            {"data": data, "split": asked.split, "prepare": {"start": "search", "valid_days": 30, "test_days": 30}},
            folder,
            lambda _: None,
        )
        prepared = folder / "data" / "prepare"
        with open_folder(prepared / asked.split / "train") as store:
            titles = Titles.of(store.catalogue())
            pairs = pairs_of(store, titles, asked.positives)
        cases = sample(prepare.read_cases(prepared / asked.split, asked.part), asked.cases, asked.seed)
        print(
            f"{len(pairs.positive):,} {pairs.source} pairs, {len(pairs.queries):,} queries, {len(titles.texts):,} "
            "titles"
        )
        with open_folder(prepared / "all") as store:
            for kind in asked.encoders.split(","):
                started = time.perf_counter()
                settings = replace(params, encoder=kind).trained
                losses = (
                    train_encoder(settings, pairs, titles, folder / kind, folder / "checkpoints" / kind, {}, print)
                    if settings
                    else []
                )
                trained = time.perf_counter() - started
                encoder = TextEncoder(dtype=torch.float32) if kind == "ready" else open_encoder(str(folder / kind))
                started = time.perf_counter()
                vectors = encoder.encode(titles.texts)
                applied = time.perf_counter() - started
                found = measure(encoder, vectors, store, cases, titles, pairs.source)
                print(
                    f"{kind}: {found}, trained in {trained:.0f} s, {len(titles.texts) / applied:.0f} titles/s, loss "
                    f"{losses}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
