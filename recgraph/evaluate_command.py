"""What `recgraph evaluate` does between its options and the terminal: the store to a task, the names to systems, the result to a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from recgraph.errors import SettingsError

if TYPE_CHECKING:
    from recgraph.evaluation.ask import Options
    from recgraph.train.task import Task

Note = Callable[[str], None]
Tell = Callable[..., None]
DEPTH = 100  # items of an exported list


def options_of(protocol: str, seen: str, seeds: str, sample: int, negatives: str = "both") -> Options:
    """SettingsError for seeds that are no whole numbers, and what `Options` raises."""
    from recgraph.evaluation.ask import Options

    try:
        numbers = tuple(int(seed) for seed in seeds.split(","))
    except ValueError:
        raise SettingsError(f"--seeds is '{seeds}'; give whole numbers, e.g. 7 or 7,8,9.") from None
    return Options(protocol, seen, numbers, sample, negatives=negatives)


def evaluate(
    store: str,
    split: str,
    options: Options,
    names: str,
    runs: Sequence[Path],
    *,
    shares: str = "",
    items: str = "all",
    note: Note,
    tell: Tell,
    command: str = "",
    keep: Path | None = None,
) -> dict[str, Any]:
    """The result, as evaluation/compare.py gives it. With runs and no names the runs alone are measured.

    With `shares`, e.g. ".1,.3", every system is also fitted on the train events of such a share of the users (drawn with the options' seed, a
    smaller one is part of a larger one) and asked the same: `low_resource` of the result. SettingsError for a share that is none. `items` are all
    that the store names, or the `named` of which more than an id is known.
    """
    from recgraph.evaluation import compare
    from recgraph.evaluation.rankings import read_rankings
    from recgraph.evaluation.systems import QUICK, systems, tuned_settings
    from recgraph.train.task import fewer_users

    chosen = systems([name.strip() for name in names.split(",")] if names else () if runs else QUICK, tuned_settings(), store)
    task = _task(store, split, tell, items)
    fewer = {share: fewer_users(task, share, options.seed) for share in _shares(shares)}
    read = [read_rankings(path, task) for path in runs]
    result = compare.evaluate(task, chosen, None, options, runs=read, note=note, tell=tell, command=command, keep=keep)
    if fewer:
        told = {share: compare.evaluate(some, chosen, None, options, note=note, tell=tell, keep=keep) for share, some in fewer.items()}
        result["low_resource"] = [
            {"system": line["name"], "share": share, "ndcg@10": line["metrics"]["ndcg@10"]}
            for share, one in sorted([*told.items(), (1.0, result)])
            for line in one["systems"]
            if line["name"] in chosen
        ]
    return result


def _shares(text: str) -> list[float]:
    try:
        return sorted({float(share) for share in text.split(",") if share.strip()})
    except ValueError:
        raise SettingsError(f"--shares is '{text}'; give numbers above 0 and below 1, e.g. .1,.3.") from None


def export(store: str, split: str, options: Options, name: str, file: Path, *, items: str = "all", note: Note, tell: Tell) -> int:
    """Writes the first items of one system for every case; the number of lists. SettingsError without exactly one system."""
    from recgraph.evaluation.ask import ask, measure
    from recgraph.evaluation.rankings import write_rankings
    from recgraph.evaluation.systems import systems, tuned_settings
    from recgraph.train import leaks

    chosen = systems([one.strip() for one in name.split(",") if one.strip()], tuned_settings(), store)
    if len(chosen) != 1:
        raise SettingsError(f"--export writes the rankings of one system, but --system names {len(chosen)}; name one of them.")
    task = _task(store, split, tell, items)
    leaks.check_task(task, chosen)
    asked = ask(task, options)
    ((label, make),) = chosen.items()
    tell(f"Fitting {label}")
    system = leaks.fit(make(options.seeds[0]), task, note)
    write_rankings(file, task, asked.cases, measure(system, asked, first=DEPTH, seed=options.seed, tell=tell).first, label)
    return len(asked)


def write(result: Mapping[str, Any], file: Path) -> None:
    """The result as JSON; folders are made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _task(store: str, split: str, tell: Tell, items: str) -> Task:
    from recgraph.store.db import Store
    from recgraph.train.task import only_named, read_task

    tell("Reading the store")
    with Store.open(store) as opened:
        task = read_task(opened, Path(store).stem, split)
    return only_named(task) if items == "named" else task


def table(result: Mapping[str, Any]) -> RenderableType:
    """Every system on a line, the best first, and below what the figures rest on."""
    lines = sorted(result["systems"], key=lambda line: -line["metrics"]["ndcg@10"]["mean"])
    sampled = result["protocol"] == "sampled"
    wanted = ("recall@10", "mrr@10") if sampled else ("recall@10", "mrr")  # 80 columns; T's others are in the JSON and the leaderboard
    found = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    found.add_column("system", style="bold", no_wrap=True)
    for name in (*wanted, "ndcg@10", "from best", "p (Holm)", *(() if sampled else ("ms",))):
        found.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        means = [f"{line['metrics'][name]['mean']:.4f}" for name in wanted]
        against, speed = line.get("against"), line["score_ms"]
        compared = [_within(against, "difference", "+"), _chance(against["p_holm"])] if against and line is not lines[0] else ["", ""]
        cost = [] if sampled else ["" if speed is None else f"{speed:.2f}"]
        found.add_row(line["name"].replace("recgraph-", "recgraph-\n"), *means, _within(line["metrics"]["ndcg@10"], "mean"), *compared, *cost)
    return Group(found, *_notes(result, lines))


def _cost(line: Mapping[str, Any]) -> str:
    """What a recommendation of a language model costs, and what its first stage left it to find."""
    tokens, ceiling = line["tokens"], line.get("ceiling")
    told = f"{line['name']}: {tokens['prompt']:,.0f} tokens read ({tokens['cached']:,.0f} of them known) and {tokens['completion']:,.0f} written, "
    told += f"{line['score_ms'] / 1000:.2f} s a recommendation"
    return told + (f"; {ceiling['recall']:.1%} of the targets are among the {ceiling['depth']} it reranks." if ceiling else ".")


def _within(told: Mapping[str, Any], name: str, sign: str = "") -> str:
    return f"{told[name]:{sign}.4f} ±{(told['high'] - told['low']) / 2:.4f}"


def _chance(p: float) -> str:
    return "<.001" if p < 0.001 else f"{p:.3f}"


def _notes(result: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> list[Text]:
    among = {"category": "all items of the target's category", "sampled": "the target and 20 drawn"}.get(result["protocol"], "all items")
    seen = "without those of the history" if result["seen"] == "excluded" else "the history's too"
    dropped = ", ".join(f"{count:,} for {why}" for why, count in result["dropped"].items() if count)
    sample = ", a sample" if result["sample"] == result["cases"] else ""
    said = [
        f"{result['dataset']}, split {result['split']}, protocol {result['protocol']}: {result['cases']:,} cases{sample}, {result['items']:,} items.",
        f"Candidates are {among}, {seen}." + (f" Not asked: {dropped}." if dropped else ""),
        "Ties count by their expected rank. A case has one right answer, so its hit rate is its recall.",
        "± is half of a 95 % bootstrap interval over users; differences of NDCG@10 are paired; ms are those of scoring a case.",
    ]
    notes = [Text(text, style="dim") for text in said]
    for name in dict.fromkeys(one["system"] for one in result.get("low_resource", ())):
        curve = ", ".join(f"{one['ndcg@10']['mean']:.4f} ({one['share']:.0%})" for one in result["low_resource"] if one["system"] == name)
        notes.append(Text(f"Low resource: {name} learns from a share of the users, ndcg@10 {curve}.", style="dim"))
    notes += [Text(_cost(line), style="dim") for line in lines if line.get("tokens")]
    for line in lines:
        if line.get("unknown_cases") or line.get("missing_cases"):
            told = f"{line['missing_cases']:,} cases without a list count as missed, {line['unknown_cases']:,} lists are of no case"
            notes.append(Text(f"! {line['name']}: {told}.", style="yellow"))
        if line["metrics"]["invalid"]["mean"]:
            share = line["metrics"]["invalid"]["mean"]
            notes.append(Text(f"! {line['name']}: {share:.1%} of the first ten name no product of the shop.", style="yellow"))
    return notes
