"""One leaderboard out of the results that `recgraph evaluate --out` and `recgraph ablate` kept. Command: `recgraph
leaderboard`.

    metrics/leaderboard/*.json   what goes in, a result a file
    metrics/ablations/*.json     those of `recgraph ablate`, where there are any
    metrics/injection.json       and, where it is there, what attacks on texts move (benchmarks/injection.py)
    metrics/leaderboard.json     all of them, sorted, with the sha256 of their canonical JSON
    metrics/leaderboard.html     the page (evaluation/leaderboard/page.py)
    LEADERBOARD.md               the same tables as Markdown
    metrics/leaderboard/*.csv    a tidy row a system, for `dvc plots show`

What is written hangs on the results alone: no clock, no environment; equal results give equal bytes. So whoever has the
results can `check` that the rest is what they give. The sha256 is a signature in that it stands for all of them: a git
tag signed with `git tag -s` vouches for it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from recgraph.errors import StoreError
from recgraph.evaluation.leaderboard import ablations
from recgraph.evaluation.leaderboard.ablations import AblationBoard
from recgraph.evaluation.leaderboard.boards import Board
from recgraph.evaluation.leaderboard.injection import FAMILY_HEAD, HEAD, LEAD, RECORD, TITLE, Injection, Row
from recgraph.evaluation.leaderboard.page import page
from recgraph.evaluation.leaderboard.words import (
    MISSING,
    amount,
    chance,
    facts,
    lead,
    settings_text,
    title,
    warnings,
    whole_list,
    within,
)
from recgraph.evaluation.result import MAIN, Against, Line, Variation
from recgraph.evaluation.result_files import ablation_as_json, as_json, read, read_ablation

RESULTS = "metrics/leaderboard"
ABLATIONS = "metrics/ablations"
MERGED = "metrics/leaderboard.json"
PAGE = "metrics/leaderboard.html"
MARKDOWN = "LEADERBOARD.md"

NOTES = (
    "Systems are ordered by NDCG@10: 1 where the product that was really chosen stands first, less the further "
    "down it is, 0 below the tenth place. "
    "Recall@10 is the share of cases where it is among the first ten.",
    "Numbers in brackets or below a figure are its 95 % bootstrap interval over users. Products with equal scores "
    "count by their expected rank.",
    "A best value is bold only where the interval of its paired difference from the second excludes zero and p "
    "(randomisation test, Holm's correction for all comparisons of the table) is below .05. Elsewhere the systems are "
    "not "
    "separable, whatever the order says.",
    f"What was not measured is shown as {MISSING}. Seconds of fitting are the mean over the seeds, milliseconds "
    "those of scoring one case.",
    "Figures of different protocols, splits, samples or data hashes must not be compared with each other.",
)
# What a data set cannot tell, by its name.
CAUTIONS = {
    "fashion": "The catalogue of fashion is known from purchases alone: most of its products that nobody bought in the "
    "train part are answers of validation or test cases. A system that prefers what nobody has bought gains by that; "
    "fused does, and most of its lead there is this (docs/results.md).",
}


def write(folder: str | Path = ".") -> tuple[list[Path], str]:
    """Writes the leaderboard of a project folder; the files, and the sha256 of the results. StoreError without a result
    or for a broken one."""
    files, digest = _contents(Path(folder))
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text)
    return list(files), digest


def check(folder: str | Path = ".") -> tuple[list[Path], str]:
    """Makes everything again and compares; the files, and the sha256. StoreError that names every file that is missing,
    is not what the results give, or belongs to no result, and a sha256 that is not that of the results."""
    files, digest = _contents(Path(folder))
    wrong = []
    for file, text in files.items():
        if not file.is_file():
            wrong.append(f"{file} is missing")
        elif file.read_bytes() != text:
            wrong.append(
                f"{file} is not what the results give"
                + (_digests(file, digest) if file.name == Path(MERGED).name else "")
            )
    wrong += [
        f"{file} belongs to no result" for file in sorted((Path(folder) / RESULTS).glob("*.csv")) if file not in files
    ]
    if wrong:
        raise StoreError(f"{'; '.join(wrong)}. If the results are right, make it again: recgraph leaderboard")
    return list(files), digest


def _digests(file: Path, digest: str) -> str:
    """What the merged file says of its sha256, where that is wrong."""
    try:
        merged = json.loads(file.read_text(encoding="utf-8"))
        given, own = merged.get("sha256"), sha256(merged.get("results"))
    except (ValueError, AttributeError):
        return " (it is no JSON of a leaderboard)"
    if given != own:
        return f" (its sha256 {given} is not that of its own results, {own})"
    return f" (sha256 {given}, but the results have {digest})" if given != digest else ""


def sha256(results: Any) -> str:
    """Of the canonical JSON: sorted keys, no blanks, UTF-8."""
    return hashlib.sha256(
        json.dumps(results, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    ).hexdigest()


def _contents(folder: Path) -> tuple[dict[Path, bytes], str]:
    """Every file and what has to be in it, and the sha256 of the results."""
    found = {file.stem: read(file) for file in sorted((folder / RESULTS).glob("*.json"))}
    if not found:
        raise StoreError(
            f"{folder / RESULTS} has no result; make one: recgraph evaluate --out {folder / RESULTS}/NAME.json"
        )
    ablated = {file.stem: read_ablation(file) for file in sorted((folder / ABLATIONS).glob("*.json"))}
    results = {name: as_json(one) for name, one in found.items()}
    results |= {f"ablations/{name}": ablation_as_json(one) for name, one in ablated.items()}
    digest, boards = sha256(results), sorted((Board(name, one) for name, one in found.items()), key=Board.order)
    merged = json.dumps({"results": results, "sha256": digest}, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    notes, attacks = (*NOTES, *_cautions(boards), *_different_data(boards)), Injection.read(folder / RECORD)
    variants = sorted((AblationBoard(name, one) for name, one in ablated.items()), key=AblationBoard.order)
    texts = {
        MARKDOWN: markdown(boards, digest, notes, variants, attacks),
        MERGED: merged,
        PAGE: page(boards, digest, notes, variants, attacks),
    }
    texts |= {f"{RESULTS}/{one.name}.csv": table(one) for one in boards}
    return {folder / name: text.encode("utf-8", "replace") for name, text in texts.items()}, digest


def _cautions(boards: Sequence[Board]) -> list[str]:
    """Those of the data sets that are shown."""
    shown = {board.dataset for board in boards}
    return [text for name, text in CAUTIONS.items() if name in shown]


def _different_data(boards: Sequence[Board]) -> list[str]:
    """Data sets whose boards of one split come from different data."""

    def shop(board: Board) -> tuple[str, str]:
        return board.dataset, board.result.split

    notes = []
    for (dataset, split), found in groupby(sorted(boards, key=shop), key=shop):
        hashes = sorted({one.result.origin.data_hash or "" for one in found})
        if len(hashes) > 1:
            notes.append(
                f"{dataset}, split {split}, was evaluated on different data ({', '.join(hashes)}): "
                "do not compare these tables."
            )
    return notes


def table(board: Board) -> str:
    """A tidy row a system as CSV: numbers as they are, an empty field for what is missing."""
    result = board.result
    bounds = ("mean", "low", "high")
    groups = [(group, name) for group in ("cold", "warm") for name in ("recall@10", MAIN)]
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    head = ["dataset", "split", "protocol", "seen", "cases", "system", "reads"]
    head += [name if bound == "mean" else f"{name}_{bound}" for name in board.metrics for bound in bounds]
    head += [
        *_COMPARED,
        "fit_seconds",
        "score_ms",
        *(f"{name}_{group}" for group, name in groups),
        *(f"curve@{k}" for k in board.ks),
    ]
    rows.writerow(head)
    for line in board.lines:
        row: list[object] = [
            board.dataset,
            result.split,
            result.protocol,
            result.seen,
            result.cases,
            line.name,
            " ".join(line.uses),
        ]
        for name in board.metrics:
            figure = line.figure(name)
            row += [figure.mean, figure.low, figure.high]
        row += _compared_fields(line.against)
        row += [line.fit_seconds, line.score_ms, *(line.group(group, name).mean for group, name in groups)]
        rows.writerow([*row, *(line.curve.get(k) for k in board.ks)])
    return file.getvalue()


_COMPARED = ("against", "difference", "difference_low", "difference_high", "p_holm", "separable")


def _compared_fields(against: Against | None) -> list[object]:
    if against is None:
        return [None] * len(_COMPARED)
    difference = against.difference
    return [
        against.other,
        difference.mean,
        difference.low,
        difference.high,
        against.p_holm,
        "yes" if against.separable else "no",
    ]


# ── Markdown ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def markdown(
    boards: Sequence[Board],
    digest: str,
    notes: Sequence[str],
    ablated: Sequence[AblationBoard] = (),
    attacks: Injection | None = None,
) -> str:
    """The tables, with what each rests on. Names are escaped."""
    parts = [
        "# Leaderboard",
        f"Made by `recgraph leaderboard`; the page with plots is `{PAGE}`. sha256 of all results: `{digest}`",
    ]
    parts += ["\n".join(f"- {_plain(note)}" for note in notes)]
    for dataset, found in groupby(boards, key=lambda one: one.dataset):
        parts += [f"## {_plain(dataset)}", *(text for one in found for text in _section(one))]
    if ablated:
        parts += [
            f"## {ablations.TITLE}",
            _plain(ablations.LEAD),
            *(text for one in ablated for text in _ablation(one)),
        ]
    parts += _attacks(attacks) if attacks else []
    return "\n\n".join(parts) + "\n"


def _ablation(board: AblationBoard) -> list[str]:
    rows = [ablations.HEAD, (":--", *["--:"] * (len(ablations.HEAD) - 1))]
    for one in board.found.variants:
        figures = [within(one.figure(name), name) for name in ablations.METRICS]
        rows.append((_plain(one.name), *figures, _compared_text(one.against, first=False), *ablations.costs(one)))
    return [
        f"### {_plain(board.title)}",
        _plain(board.lead),
        _table(rows),
        _rests_on(board.facts),
        _settings(board.found.variants),
    ]


def _attacks(found: Injection) -> list[str]:
    return [
        f"## {TITLE}",
        _plain(LEAD),
        _rows(HEAD, found.rows),
        _rows(FAMILY_HEAD, found.families),
        *map(_plain, found.notes),
        _rests_on(found.facts),
    ]


def _rows(head: Row, rows: Sequence[Row]) -> str:
    return _table([head, (":--", *["--:"] * (len(head) - 1)), *(tuple(map(_plain, row)) for row in rows)])


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _rests_on(facts: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- {name}: {_code(text) if name == 'command' else _plain(text)}" for name, text in facts)


def _settings(lines: Sequence[Line | Variation]) -> str:
    listed = "\n".join(f"- {_plain(line.name)}: {_plain(settings_text(line.settings))}" for line in lines)
    return f"<details><summary>Settings</summary>\n\n{listed}\n\n</details>"


def _section(board: Board) -> list[str]:
    head = [
        "System",
        "Reads",
        *(title(name) for name in board.columns),
        "From the best, Holm p",
        "Fit, s",
        "A case, ms",
        "Seeds",
    ]
    rows = [head, [":--", ":--", *["--:"] * (len(head) - 2)]]
    for place, line in enumerate(board.lines):
        figures = [within(line.figure(name), name) for name in board.columns]
        if place == 0 and line.separable:
            figures[0] = f"**{figures[0]}**"
        rows.append(
            [
                _plain(line.name),
                _plain(", ".join(line.uses) or MISSING),
                *figures,
                _compared_text(line.against, first=place == 0),
            ]
        )
        rows[-1] += [amount(line.fit_seconds), amount(line.score_ms), whole_list(line.seeds, "none")]
    return [
        f"### {_plain(board.title)}",
        _plain(lead(board)),
        *(f"**Note:** {_plain(text)}" for text in warnings(board.lines)),
        _table(rows),
        _rests_on(facts(board)),
        _settings(board.lines),
    ]


def _compared_text(against: Against | None, *, first: bool) -> str:
    if against is None:
        return MISSING
    over = f" over {_plain(against.other)}" if first else ""
    unsure = "" if against.separable else ", not separable"
    return f"{within(against.difference, sign=True)}{over}, {_plain(chance(against.p_holm))}{unsure}"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: on one line, with what could be markup escaped."""
    return re.sub(r"([\\`*_{}\[\]<>&|#~$])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Inside as many backticks as it does not have itself."""
    text = " ".join(text.split())
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks} {text} {ticks}"
