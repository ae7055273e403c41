"""The commands that measure: evaluate, leaderboard, tune, ablate. They are part of `recgraph` (cli.py) and follow its
rules.

What is measured, and how, is in evaluation/; what a terminal shows of it in recgraph/tables.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recgraph.errors import SettingsError
from recgraph.options import consoles, store_option

if TYPE_CHECKING:
    from rich.console import Console

    from recgraph.evaluation.ask import Options, Reporter
    from recgraph.evaluation.compare import EvaluationPlan
    from recgraph.evaluation.workshop import Workshop

SPLIT = click.option("--split", type=click.Choice(["time", "loo"]), default="time", show_default=True)


def asked_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds what all systems are asked alike; the command gets it as `options`."""

    @click.option(
        "--protocol", type=click.Choice(["full", "category", "sampled", "cold"]), default="full", show_default=True
    )
    @click.option(
        "--seen",
        type=click.Choice(["excluded", "ranked"]),
        default="excluded",
        show_default=True,
        help="what becomes of the history's items",
    )
    @click.option(
        "--seeds",
        default="7",
        show_default=True,
        metavar="NUMBERS",
        help="each trains every system that draws; figures are means over them",
    )
    @click.option(
        "--sample",
        type=click.IntRange(0),
        default=0,
        metavar="N",
        help="so many cases, drawn with a fixed seed  [default: all]",
    )
    @click.option(
        "--negatives",
        type=click.Choice(["both", "even"]),
        default="both",
        show_default=True,
        help="sampled: also by popularity, or not",
    )
    @wraps(command)
    def with_options(protocol: str, seen: str, seeds: str, sample: int, negatives: str, **others: Any) -> Any:
        return command(options=_options(protocol, seen, seeds, sample, negatives), **others)

    return with_options


def plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds which cases of a store are asked, what else is measured on them, and where answers are kept; the command
    gets all of it as `plan`."""

    @SPLIT
    @asked_options
    @click.option(
        "--items",
        type=click.Choice(["all", "named"]),
        default="all",
        show_default=True,
        help="named: leave out what has an id alone",
    )
    @click.option(
        "--shares",
        default="",
        metavar="NUMBERS",
        help="low resource: learn from such shares of the users too, e.g. .1,.3",
    )
    @click.option(
        "--learn-from",
        "categories",
        multiple=True,
        metavar="CATEGORY",
        help="zero-shot (F 5.4): learn from this category alone, ask for products of the others; may be repeated",
    )
    @click.option(
        "--run",
        "runs",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="measure rankings made elsewhere (see above)",
    )
    @click.option(
        "--keep",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="FOLDER",
        help="keep each system's answers: go on after a kill",
    )
    @wraps(command)
    def with_plan(
        split: str,
        items: str,
        options: Options,
        shares: str,
        categories: tuple[str, ...],
        runs: tuple[Path, ...],
        keep: Path | None,
        **others: Any,
    ) -> Any:
        from recgraph.evaluation.compare import EvaluationPlan

        plan = EvaluationPlan(split, items, options, runs, _shares(shares), categories, keep, _command_line())
        return command(plan=plan, **others)

    return with_plan


def _options(protocol: str, seen: str, seeds: str, sample: int, negatives: str) -> Options:
    from recgraph.evaluation.ask import Options

    try:
        numbers = tuple(int(seed) for seed in seeds.split(","))
    except ValueError:
        raise SettingsError(f"--seeds is '{seeds}'; give whole numbers, e.g. 7 or 7,8,9.") from None
    return Options(protocol, seen, numbers, sample, negatives=negatives)


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(sorted({float(share) for share in _words(text)}))
    except ValueError:
        raise SettingsError(f"--shares is '{text}'; give numbers above 0 and below 1, e.g. .1,.3.") from None


def _words(text: str) -> list[str]:
    """What stands between commas."""
    return [one.strip() for one in text.split(",") if one.strip()]


def _command_line() -> str:
    import sys
    from shlex import join

    return join(["recgraph", *sys.argv[1:]])


def _workshop(store: str | None) -> Workshop:
    """What systems share, by this folder's settings and its params.yaml."""
    from recgraph.evaluation.systems import tuned_settings
    from recgraph.evaluation.workshop import Workshop
    from recgraph.settings import load_settings

    settings = load_settings(store=store)
    place = Path(os.path.expanduser(settings.store))
    return Workshop(place, settings.cache_folder, settings.embedder, tuned_settings())


def _reporter(screen: Console, tell: Callable[..., None]) -> Reporter:
    from recgraph.evaluation.ask import Reporter

    return Reporter(lambda text: screen.print(text, style="dim"), tell)


class _NamingSystems(click.Command):
    """A command whose help ends in the systems there are, read where they are registered, and only when it is asked."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from recgraph.evaluation.systems import entries

        with formatter.section("Systems"):
            formatter.write_dl(
                [
                    ("all", ", ".join(entries(["all"]))),
                    ("llm", ", ".join(entries(["llm"])) + " (a second or more a case: --sample)"),
                ]
            )
        formatter.write_paragraph()
        formatter.write_text("Tuned settings of a system: the block `baselines` of params.yaml in this folder.")


@click.command(cls=_NamingSystems)
@click.option(
    "--systems",
    "--system",
    "names",
    default="",
    metavar="NAMES",
    help="with commas between; `all` without LLM, `llm` with  [default: four fast]",
)
@plan_options
@click.option(
    "--export",
    "exported",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="write the rankings of the one --system instead",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="keep the whole result as JSON")
@store_option
def evaluate(names: str, plan: EvaluationPlan, exported: Path | None, out: Path | None, store: str | None) -> None:
    """Measure recommenders on purchases that were held out.

    \b
    Splits:     time      one cut for everybody: the last 30 days are
                          predicted, the 30 before are to choose by
                loo       each user's last target, as most papers do;
                          it leaks other users' future
    Protocols:  full      the target among all items listed by then
                category  among the items of its category (F 5.1)
                sampled   among 20 drawn items, users with 10 to 25
                          records (T 5.1); it flatters everybody
                cold      only targets that nobody had before the cut
                          (F 5.4)

    Rankings go in (--run) and out (--export) as FILE.parquet with user, seq, items (a list), or as a TREC run:
    user#seq Q0 item rank score tag.
    """
    from recgraph import panel, tables
    from recgraph.evaluation import compare, result_files
    from recgraph.evaluation.systems import QUICK

    console, screen = consoles()
    workshop = _workshop(store)
    with panel.bars(screen) as tell:
        reporter = _reporter(screen, tell)
        if exported:
            count = compare.export(plan, _words(names), exported, workshop, reporter)
        else:
            found = compare.evaluate_store(plan, _words(names) or (() if plan.runs else QUICK), workshop, reporter)
    if exported:
        click.echo(
            f"{exported}: {count:,} rankings; "
            f"measure them with: recgraph evaluate --split {plan.split} --run {exported}"
        )
        return
    console.print(tables.evaluation(found))
    if out:
        result_files.write(found, out)
        click.echo(f"Kept in {out}")


@click.command()
@click.option(
    "--folder",
    default=".",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="where metrics/leaderboard and metrics/ablations are",
)
@click.option("--check", is_flag=True, help="write nothing; fail where a file is not what the results give")
def leaderboard(folder: Path, check: bool) -> None:
    """Make tables and a page of all results and ablations.

    \b
    Reads   metrics/leaderboard/NAME.json  of recgraph evaluate --out
            metrics/ablations/NAME.json    of recgraph ablate
    Writes  LEADERBOARD.md
            metrics/leaderboard.html       the same with plots
            metrics/leaderboard.json       all results, with their sha256
            metrics/leaderboard/NAME.csv   a row a system, for dvc plots

    Equal results give equal files, byte for byte.
    """
    from recgraph.evaluation.leaderboard import write as boards

    files, digest = boards.check(folder) if check else boards.write(folder)
    click.echo(f"{', '.join(map(str, files))}\n{'Checked' if check else 'Written'}. sha256 of the results: {digest}")


@click.command()
@click.option("--systems", "--system", "names", required=True, metavar="NAMES", help="with commas between")
@SPLIT
@click.option("--trials", type=int, default=6, show_default=True, help="of each system; the first is what it has now")
@click.option("--minutes", type=float, default=10.0, show_default=True, help="of each system; no trial begins later")
@click.option("--share", type=float, default=1.0, show_default=True, help="of the users, to learn from")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="baselines.yaml",
    show_default=True,
    metavar="FILE",
    help="where the block goes",
)
@store_option
def tune(names: str, split: str, trials: int, minutes: float, share: float, out: Path, store: str | None) -> None:
    """Choose settings of evaluate's systems on validation cases.

    Each gets the same budget. FILE becomes a block `baselines` for params.yaml. Beside it the trials are kept as JSON
    lines: after a kill the same command goes on.
    """
    from recgraph import panel, tables
    from recgraph.evaluation import tune

    console, screen = consoles()
    with panel.bars(screen) as tell:
        budget = tune.Budget(trials, minutes, share)
        found = tune.tune_store(split, _words(names), _workshop(store), budget, out, _reporter(screen, tell).note)
    console.print(tables.trials(found))
    click.echo(f"{out.read_text(encoding='utf-8')}\nKept in {out}; put it into params.yaml.")


def variant_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds what some ablations have to be told, and settings of all variants; the command gets them as `given` and
    `common`."""

    @click.option("--models", default="", metavar="FOLDERS", help="for models: base models, with commas between")
    @click.option("--adapters", default="", metavar="SETS", help="for perplexity: without and with further training")
    @click.option(
        "--encoder", default="", metavar="FOLDER", help="for table3: another text embedding (CLIP) beside the default"
    )
    @click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="NAME=VALUE",
        help="a setting of all variants, e.g. adapter=none",
    )
    @wraps(command)
    def with_variants(models: str, adapters: str, encoder: str, sets: tuple[str, ...], **others: Any) -> Any:
        given = {"models": _words(models), "adapters": _words(adapters), "encoder": encoder}
        return command(given=given, common=_pairs(sets), **others)

    return with_variants


def _pairs(sets: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for pair in sets:
        setting, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError(f"--set is '{pair}'; write NAME=VALUE, e.g. adapter=none.")
        found[setting] = value
    return found


@click.command()
@click.argument("name", metavar="NAME")
@click.option(
    "--cases",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    metavar="N",
    help="drawn with a fixed seed; 0: all",
)
@SPLIT
@variant_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="where the result goes  [default: metrics/ablations/NAME.json]",
)
@click.option(
    "--export",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="write the lists of each variant there",
)
@store_option
def ablate(
    name: str,
    cases: int,
    split: str,
    given: dict[str, Any],
    common: dict[str, str],
    out: Path | None,
    export: Path | None,
    store: str | None,
) -> None:
    """Measure variants of the recommender on held-out purchases.

    \b
    NAME:  table3       without attributes, memory, text or ID embedding
                        (F table 3)
           mixup        N = 0, 1, 2, 5, 10, 20 (F 4.4)
           history      0 to 10 recent items, both paradigms (T figure 9)
           models       base models (T figures 10 and 11)
           perplexity   adapters with and without further training on
                        hard examples (F 4.3)
           constrained  answers held to the products shown, to the
                        catalogue, or free
           llm          what a language model adds to the product as it is
                        served, and to the mixup of F

    Answers are kept in data/ablations/NAME: the same command goes on after a kill. What --export writes can stand
    beside other systems: recgraph evaluate --seen ranked --sample N --run FOLDER/VARIANT.parquet
    """
    from recgraph import panel, tables
    from recgraph.evaluation import result_files
    from recgraph.evaluation.ablate import Question, ablate, variants
    from recgraph.settings import load_settings

    console, screen = consoles()
    place = Path(load_settings(store=store).store).expanduser()
    keep, told = Path("data") / "ablations" / name, _command_line()
    question = Question(place, keep, split, cases, common=common, command=told, export=export)
    with panel.bars(screen) as tell:
        found = ablate(name, variants(name, **given), question, reporter=_reporter(screen, tell))
    console.print(tables.ablation(found))
    file = out or Path("metrics") / "ablations" / f"{name}.json"
    result_files.write(found, file)
    click.echo(f"Kept in {file}" + (f", the lists in {export}" if export else ""))
