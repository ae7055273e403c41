"""What `recgraph ablate` does between its options and the terminal: words to settings, the result to a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from recgraph.errors import SettingsError

KEEP = Path("data") / "ablations"
OUT = Path("metrics") / "ablations"


def ablate(
    name: str,
    store: str,
    split: str,
    count: int,
    listed: Mapping[str, str],
    sets: Sequence[str],
    *,
    note: Callable[[str], None],
    tell: Callable[..., None],
    command: str,
) -> dict[str, Any]:
    """The result, as evaluation/ablate.py gives it. `listed` are the options models, adapters and encoder, `sets` are NAME=VALUE."""
    from recgraph.evaluation.ablate import ablate as run
    from recgraph.evaluation.ablate import variants

    common: dict[str, str] = {}
    for pair in sets:
        setting, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError(f"--set is '{pair}'; write NAME=VALUE, e.g. adapter=none.")
        common[setting] = value
    models, adapters = ([one.strip() for one in listed[option].split(",") if one.strip()] for option in ("models", "adapters"))
    chosen = variants(name, models=models, adapters=adapters, encoder=listed["encoder"])
    told: dict[str, Any] = {"split": split, "count": count, "common": common, "keep": KEEP / name, "note": note, "tell": tell, "command": command}
    return run(Path(store).expanduser(), name, chosen, **told)


def table(result: Mapping[str, Any]) -> RenderableType:
    """Every variant on a line in the given order, then what each costs, and below what the figures rest on."""
    figures, costs = (Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False) for _ in range(2))
    columns = (figures, ("recall@10", "ndcg@10", "mrr", "from first", "p (Holm)")), (costs, ("ceiling", "invalid", "read", "written", "ms"))
    for one, names in columns:
        one.add_column("variant", style="bold")
        for name in names:
            one.add_column(name, justify="right", no_wrap=True)
    for line in result["variants"]:
        metrics, against, tokens = line["metrics"], line.get("against"), line["tokens"]
        compared = ["", ""]
        if against:
            half = (against["high"] - against["low"]) / 2
            compared = [f"{against['difference']:+.4f} ±{half:.4f}", "<.001" if against["p_holm"] < 0.001 else f"{against['p_holm']:.3f}"]
        figures.add_row(line["name"], *(f"{metrics[name]['mean']:.4f}" for name in ("recall@10", "ndcg@10", "mrr")), *compared)
        cost = [f"{tokens['prompt']:,.0f}", f"{tokens['completion']:,.0f}", f"{line['ms']['median']:,.0f}"]
        costs.add_row(line["name"], f"{metrics['ceiling']['mean']:.4f}", f"{line['invalid']:.1%}", *cost)
    said = [
        f"{result['dataset']}, split {result['split']}: {result['cases']:,} cases of {result['users']:,} users, each as of its moment.",
        "From first: NDCG@10 less that of the first variant, paired; ± is half of a 95 % bootstrap interval over users.",
        "Ceiling: the target is among the candidates. Invalid: the LLM's answer named no product as asked. Tokens and median ms are of one answer.",
    ]
    short = [line for line in result["variants"] if line["degraded"]]
    said += [f"! {line['name']}: {line['degraded']:.1%} of the answers had to do without something." for line in short]
    return Group(figures, Text(), costs, *(Text(text, style="yellow" if text.startswith("!") else "dim") for text in said))
