"""Measures the systems on the shops of the leaderboard and writes it: metrics/leaderboard/*.json, LEADERBOARD.md and
the page.

\b
    python benchmarks/leaderboard.py --data ../shared/data                      # everything; hours on two cores
    python benchmarks/leaderboard.py --data ../shared/data --shop fashion --systems popularity,text-knn,fused
    python benchmarks/leaderboard.py --shop shop                                # the simulated shop needs no data
    # T table 2:
    python benchmarks/leaderboard.py --data ../shared/data --shop beauty --shop mind --protocol sampled \\
        --systems all,llm

The last is for a GPU: there give the language models more `cases` than the 200 of params.yaml (block baselines).
Without one, `--systems tallrec,recgraph-hierarchical,recgraph-recurrent --sample 200 --negatives even` took 98 minutes
on Beauty, beside other work.

    # 16 CPUs and a GPU, and the tables somewhere else:
    python benchmarks/leaderboard.py --data ../shared/data --jobs 16 --on-gpu bert4rec,fused,textformer --fit-only

Stores and answers are kept in data/leaderboard: killed and started again, it goes on where it was; a system whose code
or settings changed is fitted anew. The commands it runs are printed, each can be run by hand. Run it in a clean
checkout: a result names the commit. With `--jobs` systems are fitted side by side, each with one thread; `--fit-only`
leaves their answers in data/leaderboard/answers, which may be copied to another machine's checkout of the same commit
and are found there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
WORK = Path("data/leaderboard")
KEEP = WORK / "answers"
RESULTS = Path("metrics/leaderboard")


@dataclass(frozen=True)
class Shop:
    """Where a shop's raw logs are, in which format, and what is asked: (split, protocol) pairs; `shares` are those of a
    full ranking."""

    format: str
    source: str
    asked: tuple[tuple[str, str], ...]
    items: str = "all"
    shares: str = ""


SHOPS = {
    "beauty": Shop("sequences", "amazon-beauty-2014", (("loo", "full"), ("loo", "sampled"))),
    "fashion": Shop("open-ecommerce", "fashion-purchases", (("loo", "category"), ("loo", "full"))),
    "eshop": Shop("uci-eshop", "eshop-clothing-2008/clicks.csv.gz", (("time", "full"),)),
    "mind": Shop("mind", "mind-sample", (("loo", "sampled"),), "named"),  # most of its news have no title
    "shop": Shop("", "", (("time", "full"), ("time", "category")), shares=".1,.3"),  # simulated
}


def run(*words: str | Path, **environment: str) -> int:
    """A recgraph command, shown before it runs. Its exit status, unless it is to be 0: then CalledProcessError."""
    told = ["recgraph", *map(str, words)]
    click.secho(
        "$ " + " ".join([*(f"{name}={value}" for name, value in environment.items()), *told]), bold=True, err=True
    )
    return subprocess.run(
        [sys.executable, "-c", "from recgraph.cli import main; main(prog_name='recgraph')", *told[1:]],
        cwd=ROOT,
        env=os.environ | environment,
        check=not environment,
    ).returncode


def fit(boards: dict[str, list[str]], systems: str, jobs: int, on_gpu: Iterable[str]) -> None:
    """Fits and asks each system of each board in a process of its own, those first that took longest before. Vectors of
    texts are made first, as many systems read them."""
    from recgraph.evaluation.systems import entries

    took = {}
    for board in boards:
        if (result := ROOT / RESULTS / f"{board}.json").is_file():
            lines = json.loads(result.read_text(encoding="utf-8"))["systems"]
            took |= {(board, line["name"]): line["fit_seconds"] or 0.0 for line in lines}
    names = list(entries(systems.split(",")))
    first = [(board, "text-knn") for board in boards if "text-knn" in names]
    rest = [(board, name) for name in names for board in boards if name != "text-knn"]
    rest.sort(key=lambda one: -took.get(one, 300.0))
    began = time.perf_counter()

    def one(job: tuple[str, str]) -> None:
        board, name = job
        place = {} if name in on_gpu else {"CUDA_VISIBLE_DEVICES": ""}
        status = run("evaluate", *boards[board], "--systems", name, OMP_NUM_THREADS="1", **place)
        told = f"{board} {name}: {'done' if status == 0 else f'failed with {status}'}"
        click.secho(f"{told}, {time.perf_counter() - began:,.0f} s", fg="red" if status else None, err=True)

    with ThreadPoolExecutor(jobs) as pool:
        for part in (first, rest):
            list(pool.map(one, part))


@click.command(help=__doc__)
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="the folder of the real data sets"
)
@click.option("--shop", "shops", multiple=True, type=click.Choice(list(SHOPS)), help="these only")
@click.option("--systems", default="all", show_default=True, help="with commas between")
@click.option("--seeds", default="7", show_default=True)
@click.option(
    "--protocol", "protocols", multiple=True, type=click.Choice(["full", "category", "sampled"]), help="these only"
)
@click.option("--sample", default=0, metavar="N", help="so many cases [all]")
@click.option(
    "--negatives",
    type=click.Choice(["both", "even"]),
    default="both",
    show_default=True,
    help="of the protocol sampled",
)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="systems fitted side by side")
@click.option("--on-gpu", default="", metavar="NAMES", help="with --jobs: the systems that see the GPU [none]")
@click.option("--fit-only", is_flag=True, help="keep the answers, make no tables")
def main(
    data: Path | None,
    shops: tuple[str, ...],
    systems: str,
    seeds: str,
    protocols: tuple[str, ...],
    sample: int,
    negatives: str,
    jobs: int,
    on_gpu: str,
    fit_only: bool,
) -> None:
    (ROOT / WORK).mkdir(parents=True, exist_ok=True)
    boards: dict[str, list[str]] = {}
    for name in shops or SHOPS:
        shop, store = SHOPS[name], WORK / f"{name}.duckdb"
        if not (ROOT / store).exists():
            if shop.format and data is None:
                raise click.UsageError(f"The shop {name} needs --data, the folder that holds {shop.source}.")
            source = (data or Path()).resolve() / shop.source
            run(*(["ingest", shop.format, source, "--store", store] if shop.format else ["demo", "--store", store]))
        for split, protocol in shop.asked:
            if protocols and protocol not in protocols:
                continue
            asked = ["--store", store, "--split", split, "--protocol", protocol, "--seeds", seeds]
            asked += ["--items", shop.items] if shop.items != "all" else []
            asked += ["--shares", shop.shares] if shop.shares and protocol == "full" else []
            asked += ["--sample", str(sample)] if sample else []
            asked += ["--negatives", negatives] if protocol == "sampled" else []
            boards[f"{name}-{split}-{protocol}{f'-{sample}' if sample else ''}"] = [
                *map(str, asked),
                "--keep",
                str(KEEP),
            ]
    if jobs > 1:
        fit(boards, systems, jobs, on_gpu.split(","))
    if fit_only:
        return
    for board, asked in boards.items():
        run("evaluate", *asked, "--systems", systems, "--out", WORK / f"{board}.json")
    # Only now, so that the checkout is the commit that was measured until all is measured.
    (ROOT / RESULTS).mkdir(parents=True, exist_ok=True)
    for result in sorted((ROOT / WORK).glob("*.json")):
        shutil.copy(result, ROOT / RESULTS / result.name)
    run("leaderboard")


if __name__ == "__main__":
    main()
