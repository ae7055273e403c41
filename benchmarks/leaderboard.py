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

Stores and answers are kept in data/leaderboard: killed and started again, it goes on where it was; a system whose code
or settings changed is fitted anew. The commands it runs are printed, each can be run by hand. Run it in a clean
checkout: a result names the commit.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
WORK = Path("data/leaderboard")
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


def run(*words: str | Path) -> None:
    """A recgraph command, shown before it runs."""
    told = ["recgraph", *map(str, words)]
    click.secho("$ " + " ".join(told), bold=True, err=True)
    subprocess.run(
        [sys.executable, "-c", "from recgraph.cli import main; main(prog_name='recgraph')", *told[1:]],
        cwd=ROOT,
        check=True,
    )


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
def main(
    data: Path | None,
    shops: tuple[str, ...],
    systems: str,
    seeds: str,
    protocols: tuple[str, ...],
    sample: int,
    negatives: str,
) -> None:
    (ROOT / WORK).mkdir(parents=True, exist_ok=True)
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
            out = f"{name}-{split}-{protocol}{f'-{sample}' if sample else ''}.json"
            asked = ["--store", store, "--split", split, "--protocol", protocol, "--systems", systems, "--seeds", seeds]
            asked += ["--items", shop.items] if shop.items != "all" else []
            asked += ["--shares", shop.shares] if shop.shares and protocol == "full" else []
            asked += ["--sample", str(sample)] if sample else []
            asked += ["--negatives", negatives] if protocol == "sampled" else []
            run("evaluate", *asked, "--keep", WORK / "answers", "--out", WORK / out)
    # Only now, so that the checkout is the commit that was measured until all is measured.
    (ROOT / RESULTS).mkdir(parents=True, exist_ok=True)
    for result in sorted((ROOT / WORK).glob("*.json")):
        shutil.copy(result, ROOT / RESULTS / result.name)
    run("leaderboard")


if __name__ == "__main__":
    main()
