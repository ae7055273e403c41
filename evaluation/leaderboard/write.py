"""One leaderboard out of the results that `recgraph evaluate --out` kept. Command: `recgraph leaderboard`.

    metrics/leaderboard/*.json   what goes in, a result a file
    metrics/leaderboard.json     all of them, sorted, with the sha256 of their canonical JSON
    metrics/leaderboard.html     the page (evaluation/leaderboard/page.py)
    LEADERBOARD.md               the same tables as Markdown
    metrics/leaderboard/*.csv    a tidy row a system, for `dvc plots show`

What is written hangs on the results alone: no clock, no environment; equal results give equal bytes. So whoever has the results can `check`
that the rest is what they give. The sha256 is a signature in that it stands for all of them: a git tag signed with `git tag -s` vouches for it.
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
from recgraph.evaluation.leaderboard.boards import (
    MAIN,
    MISSING,
    Against,
    Board,
    Line,
    amount,
    board,
    chance,
    lead,
    read_result,
    short_settings,
    title,
    warnings,
    whole_list,
    within,
)
from recgraph.evaluation.leaderboard.page import page

RESULTS = "metrics/leaderboard"
MERGED = "metrics/leaderboard.json"
PAGE = "metrics/leaderboard.html"
MARKDOWN = "LEADERBOARD.md"

NOTES = (
    "Systems are ordered by NDCG@10: 1 where the product that was really chosen stands first, less the further down it is, 0 below the tenth place. "
    "Recall@10 is the share of cases where it is among the first ten.",
    "Numbers in brackets or below a figure are its 95 % bootstrap interval over users. Products with equal scores count by their expected rank.",
    "A best value is bold only where the interval of its paired difference from the second excludes zero and p (randomisation test, Holm's "
    "correction for all comparisons of the table) is below .05. Elsewhere the systems are not separable, whatever the order says.",
    f"What was not measured is shown as {MISSING}. Seconds of fitting are the mean over the seeds, milliseconds those of scoring one case.",
    "Figures of different protocols, splits, samples or data hashes must not be compared with each other.",
)


def write(folder: str | Path = ".") -> tuple[list[Path], str]:
    """Writes the leaderboard of a project folder; the files, and the sha256 of the results. StoreError without a result or for a broken one."""
    files, digest = _made(Path(folder))
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text)
    return list(files), digest


def check(folder: str | Path = ".") -> tuple[list[Path], str]:
    """Makes everything again and compares; the files, and the sha256. StoreError that names every file that is missing, is not what the
    results give, or belongs to no result, and a sha256 that is not that of the results."""
    files, digest = _made(Path(folder))
    wrong = []
    for file, text in files.items():
        if not file.is_file():
            wrong.append(f"{file} is missing")
        elif file.read_bytes() != text:
            wrong.append(f"{file} is not what the results give" + (_digests(file, digest) if file.name == Path(MERGED).name else ""))
    wrong += [f"{file} belongs to no result" for file in sorted((Path(folder) / RESULTS).glob("*.csv")) if file not in files]
    if wrong:
        raise StoreError(f"{'; '.join(wrong)}. If the results are right, make it again: recgraph leaderboard")
    return list(files), digest


def _digests(file: Path, digest: str) -> str:
    """What the merged file says of its sha256, where that is wrong."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        said, own = told.get("sha256"), sha256(told.get("results"))
    except (ValueError, AttributeError):
        return " (it is no JSON of a leaderboard)"
    if said != own:
        return f" (its sha256 {said} is not that of its own results, {own})"
    return f" (sha256 {said}, but the results have {digest})" if said != digest else ""


def sha256(results: Any) -> str:
    """Of the canonical JSON: sorted keys, no blanks, UTF-8."""
    return hashlib.sha256(json.dumps(results, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")).hexdigest()


def _made(folder: Path) -> tuple[dict[Path, bytes], str]:
    """Every file and what has to be in it."""
    results = {file.stem: read_result(file) for file in sorted((folder / RESULTS).glob("*.json"))}
    if not results:
        raise StoreError(f"{folder / RESULTS} has no result; make one: recgraph evaluate --out {folder / RESULTS}/NAME.json")
    digest, boards = sha256(results), sorted((board(name, result) for name, result in results.items()), key=Board.order)
    merged = json.dumps({"results": results, "sha256": digest}, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    notes = (*NOTES, *_differing(boards))
    made = {MARKDOWN: markdown(boards, digest, notes), MERGED: merged, PAGE: page(boards, digest, notes)}
    made |= {f"{RESULTS}/{one.name}.csv": table(one) for one in boards}
    return {folder / name: text.encode("utf-8", "replace") for name, text in made.items()}, digest


def _differing(boards: Sequence[Board]) -> list[str]:
    """Data sets whose boards of one split come from different data."""
    said = []
    for (dataset, split), found in groupby(sorted(boards, key=lambda one: (one.dataset, one.split)), key=lambda one: (one.dataset, one.split)):
        hashes = sorted({one.data_hash for one in found})
        if len(hashes) > 1:
            said.append(f"{dataset}, split {split}, was evaluated on different data ({', '.join(hashes)}): do not compare these tables.")
    return said


def table(found: Board) -> str:
    """A tidy row a system as CSV: numbers as they are, an empty field for what is missing."""
    metrics, ks = found.metrics, sorted({k for line in found.lines for k, _ in line.curve})
    bounds = ("mean", "low", "high")
    fixed = ("dataset", "split", "protocol", "seen", "cases", "system", "reads")
    compared = ("against", "difference", "difference_low", "difference_high", "p_holm", "separable")
    columns = [name if bound == "mean" else f"{name}_{bound}" for name in metrics for bound in bounds]
    groups = [(group, name) for group in ("cold", "warm") for name in ("recall@10", MAIN)]
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    extra = [f"{name}_{group}" for group, name in groups] + [f"curve@{k}" for k in ks]
    rows.writerow([*fixed, *columns, *compared, "fit_seconds", "score_ms", *extra])
    for line in found.lines:
        told: list[object] = [found.dataset, found.split, found.protocol, found.seen, found.cases, line.name, " ".join(line.uses)]
        told += [getattr(line.figure(name), bound) for name in metrics for bound in bounds]
        told += _against(line.against) if line.against else [None] * len(compared)
        told += [line.fit_seconds, line.score_ms]
        told += [line.group(group, name).mean for group, name in groups]
        rows.writerow([*told, *(dict(line.curve).get(k) for k in ks)])
    return file.getvalue()


def _against(told: Against) -> list[object]:
    difference = told.difference
    return [told.other, difference.mean, difference.low, difference.high, told.p_holm, "yes" if told.separable else "no"]


# ── Markdown ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def markdown(boards: Sequence[Board], digest: str, notes: Sequence[str]) -> str:
    """The tables, with what each rests on. Names are escaped."""
    parts = ["# Leaderboard", f"Made by `recgraph leaderboard`; the page with plots is `{PAGE}`. sha256 of all results: `{digest}`"]
    parts += ["\n".join(f"- {_plain(note)}" for note in notes)]
    for dataset, found in groupby(boards, key=lambda one: one.dataset):
        parts += [f"## {_plain(dataset)}", *(text for one in found for text in _section(one))]
    return "\n\n".join(parts) + "\n"


def _section(found: Board) -> list[str]:
    head = ["System", "Reads", *(title(name) for name in found.columns), "From the best, Holm p", "Fit, s", "A case, ms", "Seeds"]
    rows = [head, [":--", ":--", *["--:"] * (len(head) - 2)]]
    for place, line in enumerate(found.lines):
        figures = [within(line.figure(name), name) for name in found.columns]
        if place == 0 and line.separable:
            figures[0] = f"**{figures[0]}**"
        rows.append([_plain(line.name), _plain(", ".join(line.uses) or MISSING), *figures, _compared(line, first=place == 0)])
        rows[-1] += [amount(line.fit_seconds), amount(line.score_ms), whole_list(line.seeds, "none")]
    facts = [f"- {name}: {_code(text) if name == 'command' else _plain(text)}" for name, text in found.facts]
    settings = [f"- {_plain(line.name)}: {_plain(short_settings(line))}" for line in found.lines]
    return [
        f"### {_plain(found.title)}",
        _plain(lead(found)),
        *(f"**Note:** {_plain(text)}" for text in warnings(found)),
        "\n".join(f"| {' | '.join(row)} |" for row in rows),
        "\n".join(facts),
        "<details><summary>Settings</summary>\n\n" + "\n".join(settings) + "\n\n</details>",
    ]


def _compared(line: Line, *, first: bool) -> str:
    if line.against is None:
        return MISSING
    over = f" over {_plain(line.against.other)}" if first else ""
    unsure = "" if line.separable else ", not separable"
    return f"{within(line.against.difference, sign=True)}{over}, {_plain(chance(line.against.p_holm))}{unsure}"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: on one line, with what could be markup escaped."""
    return re.sub(r"([\\`*_{}\[\]<>&|#~$])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Inside as many backticks as it does not have itself."""
    text = " ".join(text.split())
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks} {text} {ticks}"
