"""The leaderboard as one HTML page: tables, plots (evaluation/leaderboard/charts.py) and what the figures rest on.

How it is laid out is in page.html.j2, how it looks in page.css; here is what they are given. Nothing is loaded from
elsewhere and there is no script: the page forbids both to itself. Whatever is text is escaped, so names cannot break
out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from xml.etree.ElementTree import Element, tostring

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from recgraph.evaluation.leaderboard import ablations, words
from recgraph.evaluation.leaderboard.ablations import AblationBoard
from recgraph.evaluation.leaderboard.boards import Board, by_k
from recgraph.evaluation.leaderboard.charts import READS, by_recent, charts, reads
from recgraph.evaluation.leaderboard.injection import FAMILY_HEAD, HEAD, LEAD, TITLE, Injection
from recgraph.evaluation.result import MAIN, Figure, Line

_HERE = Path(__file__).parent
_GROUPS = [(group, name) for group in ("cold", "warm") for name in ("recall@10", MAIN)]


def page(
    boards: Sequence[Board],
    digest: str,
    notes: Sequence[str],
    ablated: Sequence[AblationBoard] = (),
    attacks: Injection | None = None,
) -> str:
    """The whole page. `boards` and ablations in the order to show, `digest` the sha256 of the results, `notes` on how
    to read it, and what `attacks` on texts moved."""
    keys = {board.name: f"b{number}" for number, board in enumerate(boards, 1)}
    numbers = {board.name: f"a{number}" for number, board in enumerate(ablated, 1)}
    inside = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    inside.filters |= {
        "amount": words.amount,
        "bounds": words.bounds,
        "chance": words.chance,
        "facts": words.facts,
        "lead": words.lead,
        "shown": words.shown,
        "title": words.title,
        "warnings": words.warnings,
        "whole_list": words.whole_list,
        "by_recent": lambda board: _drawn(by_recent(board, f"{numbers[board.name]}-0")),
        "charts": lambda board: _drawn(*charts(board, keys[board.name])),
        "costs": ablations.costs,
        "figure_names": _figure_names,
        "figures": _figures,
        "key": lambda board: keys[board.name],
        "reads": reads,
        "settings": lambda lines: [(line.name, words.settings_text(line.settings)) for line in lines],
        "unsure": _unsure,
    }
    found = {reads(line) for board in boards for line in board.lines}
    return inside.get_template("page.html.j2").render(
        ablated=ablated,
        ablation_words={"title": ablations.TITLE, "lead": ablations.LEAD, "head": ablations.HEAD},
        ablation_metrics=ablations.METRICS,
        attacks=attacks,
        attack_words={"title": TITLE, "lead": LEAD, "head": HEAD, "families": FAMILY_HEAD},
        boards=boards,
        digest=digest,
        legend=[(name, label) for name, label in READS.items() if name in found],
        main=MAIN,
        missing=words.MISSING,
        notes=notes,
        shops=[(dataset, list(several)) for dataset, several in groupby(boards, key=lambda board: board.dataset)],
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        systems=len({line.name for board in boards for line in board.lines}),
    )


def _drawn(*plots: Element | None) -> Markup:
    """Those that there are. They are built of elements, so names cannot break out of them."""
    return Markup("".join(tostring(one, encoding="unicode", method="html") for one in plots if one is not None))


def _unsure(board: Board) -> str:
    """Why the first system is not told to be the best."""
    best = board.lines[0]
    if len(board.lines) == 1:
        return "the only one"
    return f"not separable from {best.against.other}" if best.against else "not compared"


def _popular(board: Board) -> list[str]:
    return sorted({name for line in board.lines for name in line.popular or {}}, key=by_k)


def _more_ks(board: Board) -> list[int]:
    """Of the curves, where the metrics do not have them."""
    return [k for k in board.ks if f"recall@{k}" not in board.metrics]


def _figure_names(board: Board) -> list[str]:
    """The columns of the table with every figure."""
    names = [words.title(name) for name in board.metrics]
    names += [f"{words.title(name)}, negatives by popularity" for name in _popular(board)]
    names += [f"{words.title(name)}, {group}" for group, name in _GROUPS]
    return names + [f"Recall@{k}" for k in _more_ks(board)]


def _figures(board: Board, line: Line) -> list[tuple[str, Figure]]:
    """Each with its metric, in the order of the columns."""
    found = [(name, line.figure(name)) for name in board.metrics]
    found += [(name, Figure((line.popular or {}).get(name))) for name in _popular(board)]
    found += [(name, line.group(group, name)) for group, name in _GROUPS]
    return found + [("recall", Figure(line.curve.get(k))) for k in _more_ks(board)]
