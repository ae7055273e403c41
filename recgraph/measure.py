"""The commands that measure: evaluate, leaderboard, tune, ablate. They are part of `recgraph` (cli.py) and follow its rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recgraph.options import consoles, open_store, store_option


@click.command()
@click.option("--systems", "--system", "names", default="", metavar="NAMES", help="with commas between; `all` without LLM, `llm` with [four fast]")
@click.option("--split", type=click.Choice(["time", "loo"]), default="time", show_default=True)
@click.option("--protocol", type=click.Choice(["full", "category", "sampled", "cold"]), default="full", show_default=True)
@click.option("--seen", type=click.Choice(["excluded", "ranked"]), default="excluded", show_default=True, help="what becomes of the history's items")
@click.option("--seeds", default="7", show_default=True, metavar="NUMBERS", help="each trains every system that draws; figures are means over them")
@click.option("--sample", type=click.IntRange(0), default=0, metavar="N", help="so many cases, drawn with a fixed seed [all]")
@click.option("--negatives", type=click.Choice(["both", "even"]), default="both", show_default=True, help="sampled: also by popularity, or not")
@click.option("--items", type=click.Choice(["all", "named"]), default="all", show_default=True, help="named: leave out what has an id alone")
@click.option("--shares", default="", metavar="NUMBERS", help="low resource: learn from such shares of the users too, e.g. .1,.3")
@click.option("--run", "runs", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="measure rankings made elsewhere (see below)")
@click.option("--export", "exported", type=click.Path(path_type=Path), metavar="FILE", help="write the rankings of the one --system instead")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="keep the whole result as JSON")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER", help="keep each system's answers: go on after a kill")
@store_option
def evaluate(
    names: str,
    split: str,
    protocol: str,
    seen: str,
    seeds: str,
    sample: int,
    negatives: str,
    items: str,
    shares: str,
    runs: tuple[Path, ...],
    exported: Path | None,
    out: Path | None,
    keep: Path | None,
    store: str | None,
) -> None:
    """Measure recommenders on the purchases of a store that were held out.

    \b
    Splits:     time      one cut for everybody: the last 30 days are predicted, the 30 before are to choose by
                loo       each user's last target (what most papers do; it leaks other users' future)
    Protocols:  full      the target among all items listed by then
                category  among the items of its category (F 5.1)
                sampled   users with 10 to 25 records, the target among 20 drawn items (T 5.1); flatters everybody
                cold      only targets that nobody had before the cut (F 5.4)

    \b
    Systems: popularity, popular-7d, transitions, item-knn, text-knn, statistics, gru4rec, narm, nextitnet, sasrec-bce, sasrec,
             sasrec-text, bert4rec, core, ncf, din, dien, ncf-text, din-text, dien-text, session-knn, word-knn, paper, fused,
             textformer, textformer-query;
             with a language model (a second or more a case: --sample): tallrec, llamarec, recgraph-hierarchical, recgraph-recurrent, fused-llm;
             tuned settings: the block `baselines` of params.yaml in this folder.
    Rankings: FILE.parquet with user, seq, items (a list), or a TREC run: user#seq Q0 item rank score tag. Both go in and out.
    """
    import sys
    from shlex import join

    from recgraph import evaluate_command as command
    from recgraph import panel
    from recgraph.settings import load_settings

    console, screen = consoles()
    path, options = load_settings(store=store).store, command.options_of(protocol, seen, seeds, sample, negatives)
    with panel.bars(screen) as tell:
        told: dict[str, Any] = {"note": lambda text: screen.print(text, style="dim"), "tell": tell, "items": items}
        if exported:
            count = command.export(path, split, options, names, exported, **told)
        else:
            told |= {"command": join(["recgraph", *sys.argv[1:]]), "keep": keep}
            result = command.evaluate(path, split, options, names, runs, shares=shares, **told)
    if exported:
        click.echo(f"{exported}: {count:,} rankings; measure them with: recgraph evaluate --split {split} --run {exported}")
        return
    console.print(command.table(result))
    if out:
        command.write(result, out)
        click.echo(f"Kept in {out}")


@click.command()
@click.option("--folder", default=".", type=click.Path(path_type=Path, exists=True, file_okay=False), help="where metrics/leaderboard is")
@click.option("--check", is_flag=True, help="write nothing; fail where a file is not what the results give")
def leaderboard(folder: Path, check: bool) -> None:
    """Make tables and a page of all results in metrics/leaderboard.

    \b
    Reads   metrics/leaderboard/NAME.json     what recgraph evaluate --out has kept
    Writes  LEADERBOARD.md, metrics/leaderboard.html (the same with plots), metrics/leaderboard.json (all results, with
            their sha256), metrics/leaderboard/NAME.csv (a row a system, for dvc plots)

    Equal results give equal files, byte for byte.
    """
    from recgraph.evaluation.leaderboard import write as boards

    files, digest = boards.check(folder) if check else boards.write(folder)
    click.echo(f"{', '.join(map(str, files))}\n{'Checked' if check else 'Written'}. sha256 of the results: {digest}")


@click.command()
@click.option("--systems", "--system", "names", required=True, metavar="NAMES", help="with commas between")
@click.option("--split", type=click.Choice(["time", "loo"]), default="time", show_default=True)
@click.option("--trials", type=int, default=6, show_default=True, help="of each system; the first is what it has now")
@click.option("--minutes", type=float, default=10.0, show_default=True, help="of each system; no trial begins later")
@click.option("--share", type=float, default=1.0, show_default=True, help="of the users, to learn from")
@click.option("--out", type=click.Path(path_type=Path), default="baselines.yaml", show_default=True, metavar="FILE")
@store_option
def tune(names: str, split: str, trials: int, minutes: float, share: float, out: Path, store: str | None) -> None:
    """Choose settings of the systems of `recgraph evaluate` on validation cases, with the same budget for each.

    FILE becomes a block `baselines` for params.yaml. Beside it the trials are kept as JSON lines: after a kill the same command goes on.
    """
    from recgraph import panel
    from recgraph.evaluation import tune
    from recgraph.settings import load_settings

    console, screen = consoles()
    with panel.bars(screen), open_store(load_settings(store=store).store) as opened:
        budget = tune.Budget(trials, minutes, share)
        chosen = [name.strip() for name in names.split(",")]
        told = tune.tune_store(opened, split, chosen, budget, out, note=lambda text: screen.print(text, style="dim"))
    console.print(tune.table(told))
    click.echo(f"{out.read_text(encoding='utf-8')}\nKept in {out}; put it into params.yaml.")


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--cases", type=click.IntRange(0), default=100, show_default=True, metavar="N", help="drawn with a fixed seed; 0: all")
@click.option("--split", type=click.Choice(["time", "loo"]), default="time", show_default=True)
@click.option("--models", default="", metavar="FOLDERS", help="for models: base models, with commas between")
@click.option("--adapters", "adapter_sets", default="", metavar="SETS", help="for perplexity: without and with further training")
@click.option("--encoder", default="", metavar="FOLDER", help="for table3: another text embedding (CLIP) beside the default")
@click.option("--set", "sets", multiple=True, metavar="NAME=VALUE", help="a setting of all variants: adapter=none, wording=general, ...")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="where the result goes [metrics/ablations/NAME.json]")
@store_option
def ablate(
    name: str, cases: int, split: str, models: str, adapter_sets: str, encoder: str, sets: tuple[str, ...], out: Path | None, store: str | None
) -> None:
    """Measure the recommender in several variants on held-out purchases.

    \b
    NAME:  table3       without attributes, memory, text or ID embedding (F table 3)
           mixup        N = 0, 1, 2, 5, 10, 20 (F 4.4)
           history      0 to 10 recent items, both paradigms (T figure 9)
           models       base models (T figures 10 and 11)
           perplexity   adapters with and without further training on hard examples (F 4.3)
           constrained  answers held to the products shown, to the catalogue, or free

    Answers are kept in data/ablations/NAME: the same command goes on after a kill.
    """
    import sys
    from shlex import join

    from recgraph import ablate_command as command
    from recgraph import evaluate_command, panel
    from recgraph.settings import load_settings

    console, screen = consoles()
    listed = {"models": models, "adapters": adapter_sets, "encoder": encoder}
    with panel.bars(screen) as tell:
        told: dict[str, Any] = {"note": lambda text: screen.print(text, style="dim"), "tell": tell}
        place = load_settings(store=store).store
        result = command.ablate(name, place, split, cases, listed, sets, command=join(["recgraph", *sys.argv[1:]]), **told)
    console.print(command.table(result))
    file = out or command.OUT / f"{name}.json"
    evaluate_command.write(result, file)
    click.echo(f"Kept in {file}")
