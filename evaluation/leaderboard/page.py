"""The leaderboard as one HTML page: tables, plots (evaluation/leaderboard/charts.py) and what the figures rest on.

Nothing is loaded from elsewhere and there is no script: the page forbids both to itself. It is built of elements, so names cannot break out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from xml.etree.ElementTree import Element, tostring

from recgraph.evaluation.leaderboard.boards import Board, by_k
from recgraph.evaluation.leaderboard.charts import charts, element, legend, reads
from recgraph.evaluation.leaderboard.words import (
    MISSING,
    amount,
    bounds,
    chance,
    facts,
    lead,
    settings_text,
    shown,
    title,
    warnings,
    whole_list,
)
from recgraph.evaluation.result import MAIN, Figure, Line

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(boards: Sequence[Board], digest: str, notes: Sequence[str]) -> str:
    """The whole page. `boards` in the order to show, `digest` the sha256 of the results, `notes` on how to read it."""
    keys = {board.name: f"b{number}" for number, board in enumerate(boards, 1)}
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", "recgraph leaderboard"),
        element("style", _STYLE),
    )
    shops = [_shop(dataset, list(found), keys) for dataset, found in groupby(boards, key=lambda board: board.dataset)]
    body = element("body", element("main", _opening(boards, digest, notes, keys), *shops))
    return "<!DOCTYPE html>\n" + tostring(element("html", head, body, lang="en"), encoding="unicode", method="html") + "\n"


def _opening(boards: Sequence[Board], digest: str, notes: Sequence[str], keys: dict[str, str]) -> Element:
    systems = len({line.name for board in boards for line in board.lines})
    counted = f"Data sets: {len({board.dataset for board in boards})}, comparisons: {len(boards)}, systems: {systems}"
    rows = []
    for board in boards:
        best = board.lines[0]
        rows.append(
            element(
                "tr",
                element("td", element("a", board.title, href=f"#{keys[board.name]}"), element("small", f"{board.dataset}, {board.result.cases:,} cases")),
                element("td", element("b", best.name) if best.separable else best.name, "" if best.separable else element("small", _unsure(board))),
                element("td", shown(best.figure(MAIN).mean), element("small", bounds(best.figure(MAIN))), class_="n"),
            )
        )
    return element(
        "section",
        element("h1", "recgraph leaderboard"),
        element("p", "Which recommender names the next product best? Every system here was asked the same.", class_="lede"),
        element("p", f"{counted}; measured by ", element("code", "recgraph evaluate"), "."),
        _table("Every comparison and its best system", ("Comparison", "Best system", title(MAIN)), rows, words=2),
        element("h2", "How to read it"),
        element("ul", *(element("li", note) for note in notes), class_="notes"),
        element("p", "Colours say what a system reads:", legend(boards)) if boards else None,
        element("p", "sha256 of all results: ", element("code", digest)),
        element("p", element("code", "recgraph leaderboard --check"), " makes this page again from the results and fails if a byte differs."),
    )


def _unsure(board: Board) -> str:
    best = board.lines[0]
    if len(board.lines) == 1:
        return "the only one"
    return f"not separable from {best.against.other}" if best.against else "not compared"


def _shop(dataset: str, boards: Sequence[Board], keys: dict[str, str]) -> Element:
    return element("section", element("h2", dataset, class_="shop"), *(_board(board, keys[board.name]) for board in boards))


def _board(board: Board, key: str) -> Element:
    said = [element("p", text, class_="warning") for text in warnings(board)]
    return element(
        "section",
        element("h3", board.title),
        element("p", lead(board), class_="lead"),
        *said,
        element("div", *charts(board, key), class_="charts"),
        _short_table(board),
        element("details", element("summary", "Every figure"), _full_table(board)),
        element("details", element("summary", "Settings of the systems"), element("dl", *_settings(board), class_="settings")),
        element("details", element("summary", "What these figures rest on"), element("dl", *_pairs(facts(board)), class_="facts"), open="open"),
        id=key,
        class_="board",
    )


def _short_table(board: Board) -> Element:
    head = ("System", *(title(name) for name in board.columns), "From the best, Holm p", "Fit, s", "A case, ms", "Seeds")
    rows = []
    for place, line in enumerate(board.lines, 1):
        figures = [_cell(line.figure(name), name, bold=place == 1 and name == MAIN and line.separable) for name in board.columns]
        rows.append(
            element(
                "tr",
                element("th", element("span", f"{place} ", class_="place"), line.name, _reads(line), scope="row"),
                *figures,
                _compared(line, first=place == 1),
                element("td", amount(line.fit_seconds), class_="n"),
                element("td", amount(line.score_ms), class_="n"),
                element("td", whole_list(line.seeds, "none"), class_="n"),
            )
        )
    return _table(f"{board.dataset}, {board.title}", head, rows)


def _reads(line: Line) -> Element:
    return element("small", element("i", class_=f"key {reads(line)}"), ", ".join(line.uses) or MISSING)


def _compared(line: Line, *, first: bool) -> Element:
    """The difference from the best; of the best from the second."""
    against = line.against
    if against is None:
        return element("td", MISSING, class_="n")
    told = [f"over {against.other}"] if first else []
    told += [] if against.separable else ["not separable"]
    return element(
        "td",
        shown(against.difference.mean, sign=True),
        " ",
        element("span", chance(against.p_holm)),
        element("small", bounds(against.difference, sign=True)),
        element("small", ", ".join(told)) if told else None,
        class_="n" if against.separable else "n unsure",
    )


def _cell(figure: Figure, name: str, *, bold: bool = False) -> Element:
    mean = shown(figure.mean, name)
    return element("td", element("b", mean) if bold else mean, element("small", bounds(figure, name)), class_="n")


def _full_table(board: Board) -> Element:
    popular = sorted({name for line in board.lines for name in line.popular or {}}, key=by_k)
    groups = [(group, name) for group in ("cold", "warm") for name in ("recall@10", MAIN)]
    ks = board.ks
    head = ["System", *(title(name) for name in board.metrics)]
    head += [f"{title(name)}, negatives by popularity" for name in popular] + [f"{title(name)}, {group}" for group, name in groups]
    head += [f"Recall@{k}" for k in ks if f"recall@{k}" not in board.metrics]
    rows = []
    for line in board.lines:
        cells = [_cell(line.figure(name), name) for name in board.metrics]
        cells += [_cell(Figure((line.popular or {}).get(name)), name) for name in popular]
        cells += [_cell(line.group(group, name), name) for group, name in groups]
        cells += [_cell(Figure(line.curve.get(k)), "recall") for k in ks if f"recall@{k}" not in board.metrics]
        rows.append(element("tr", element("th", line.name, scope="row"), *cells))
    return _table(f"Every figure of {board.dataset}, {board.title}", head, rows)


def _settings(board: Board) -> list[Element]:
    return _pairs([(line.name, settings_text(line)) for line in board.lines])


def _pairs(told: Sequence[tuple[str, str]]) -> list[Element]:
    return [one for name, text in told for one in (element("dt", name), element("dd", text))]


def _table(caption: str, head: Sequence[str], rows: Sequence[Element], words: int = 1) -> Element:
    """A table that scrolls by itself where the screen is narrow; a keyboard reaches it. Behind `words` columns there are numbers."""
    names = [element("th", name, scope="col", class_="n" if place >= words else None) for place, name in enumerate(head)]
    made = element("table", element("thead", element("tr", *names)), element("tbody", *rows))
    return element("div", made, class_="wide", tabindex="0", role="region", aria_label=caption)


_STYLE = """
:root { color-scheme: light dark; --back: #fcfcfa; --card: #fff; --ink: #1d2327; --soft: #59636b; --line: #e1e4e6; --accent: #1f5fbf;
  --ids: #3f6fc4; --both: #c9660a; --text: #2b8a5d; --query: #8450c4; --llm: #c23a72; --run: #66727c; --warn: #fff4dc }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171a; --card: #1b1f23; --ink: #e6e9eb; --soft: #9aa5ad; --line: #31383e; --accent: #82b1ff;
    --ids: #7aa5f0; --both: #f0a04b; --text: #5cc795; --query: #b693f0; --llm: #f083ae; --run: #a3afb8; --warn: #3a3016 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif }
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1rem 4rem }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .5rem } h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem }
h3 { margin: 0 0 .25rem; font-size: 1.1rem }
h2.shop { font-size: 1.6rem; margin-top: 3.5rem; border-bottom: 2px solid var(--ink); padding-bottom: .25rem; overflow-wrap: anywhere }
p { margin: .5rem 0; max-width: 46rem; overflow-wrap: anywhere } .lede { font-size: 1.1rem } .lead { font-size: 1.05rem; margin-bottom: 1rem }
a { color: var(--accent) } code { font-size: .88em; overflow-wrap: anywhere }
small, td span { color: var(--soft); font-size: .78rem; font-weight: 400 } td small, tbody th small { display: block }
.n { text-align: right; white-space: nowrap }
.board { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.25rem; margin: 1.25rem 0; scroll-margin-top: 1rem }
.wide { overflow-x: auto } .wide:focus-visible, summary:focus-visible { outline: 2px solid var(--accent) }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .45rem .7rem .45rem 0; vertical-align: top; border-bottom: 1px solid var(--line) }
thead th { color: var(--soft); font-weight: 600; font-size: .8rem; white-space: nowrap; vertical-align: bottom }
tbody th { font-weight: 600; min-width: 8rem; overflow-wrap: anywhere }
th.n { text-align: right } .place { color: var(--soft) } .unsure { color: var(--soft) }
.warning { background: var(--warn); border-radius: 6px; padding: .4rem .7rem }
.charts { columns: 24rem 2; column-gap: 2rem; margin: 1.5rem 0 .5rem }
figure { margin: 0 0 1.5rem; max-width: 38rem; break-inside: avoid } figcaption { margin-bottom: .3rem } figcaption small { white-space: normal }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; font-variant-numeric: tabular-nums }
svg text { fill: var(--ink) } svg .tick { fill: var(--soft); font-size: 11px } svg .value { fill: var(--soft) }
.grid { stroke: var(--line) } .axis { stroke: var(--soft) } .whisker { stroke: var(--ink); stroke-width: 1.5 }
.leader { stroke: var(--soft); stroke-width: .7 } .spread { stroke: var(--c); stroke-width: 1.5; opacity: .6 }
.ids { --c: var(--ids) } .both { --c: var(--both) } .text { --c: var(--text) } .query { --c: var(--query) } .llm { --c: var(--llm) }
.run { --c: var(--run) } .rest { --c: var(--line) }
.bar, .dot { fill: var(--c) } .dot { stroke: var(--card); stroke-width: 1.2 } .hollow { fill: var(--card); stroke: var(--c); stroke-width: 2 }
.between { stroke: var(--c); stroke-width: 2; opacity: .5 } .curve { fill: none; stroke: var(--c); stroke-width: 2 }
.dash1 { stroke-dasharray: 7 3 } .dash2 { stroke-dasharray: 2 3 } .dash3 { stroke-dasharray: 9 3 2 3 }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; margin: .3rem 0 }
.notes { padding-left: 1.2rem; max-width: 46rem }
.key { display: inline-block; width: .75em; height: .75em; border-radius: 3px; background: var(--c); margin-right: .45em }
details { margin: .4rem 0 } summary { cursor: pointer; font-weight: 600; padding: .2rem 0 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: .4rem 0; font-size: .88rem } dt { color: var(--soft) }
dd { margin: 0; overflow-wrap: anywhere; min-width: 0 }
@media (max-width: 36rem) {
  main { padding: 1.2rem .8rem 3rem } .board { padding: .9rem .8rem; border-radius: 8px } h1 { font-size: 1.7rem }
  dl { grid-template-columns: 1fr; gap: 0 } dd { margin-bottom: .5rem }
  .board tbody th, .board thead th:first-child { position: sticky; left: 0; background: var(--card) } }
@media print { body { background: none } .board { break-inside: avoid-page } }
"""
