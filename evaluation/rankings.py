"""Rankings as files, so that anybody's system is measured by the same evaluator: Parquet or a TREC run.

    FILE.parquet   columns `user` (text), `seq` (the target event's number, as in data/prepare/<split>/cases.parquet;
                   may be left out where no user has two cases), `items` (a list of item ids, best first)
    any other      a TREC run, six words a line: `user#seq Q0 item rank score tag`; `user` alone will do where no user
                   has two cases. Names with white space, # or % are percent-encoded. As in trec_eval the score orders a
                   list; equal scores are ties and their order, like that of a scorer's, gains nothing. A rank that
                   contradicts the score is refused.

An item that the shop does not have stays in its place and is counted as invalid, a case that the run leaves out is a
miss, one the shop does not have is counted. Nothing is measured here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from recgraph.errors import SettingsError, StoreError
from recgraph.store.parquet import read_table, write_table
from recgraph.train.task import Cases, Rows, Task

_PARQUET = b"PAR1"


@dataclass(frozen=True)
class Rankings:
    """`lists` by the case's name (`case_ids`): item rows int64[m] (-1: no product of the shop), and the place of each
    among different scores int64[m], from 0, ascending. A name may be of no case."""

    name: str
    lists: Mapping[str, tuple[Rows, Rows]]


def case_ids(task: Task, cases: Cases) -> list[str]:
    """The name of each case: `user#seq`, percent-encoded. SettingsError for cases that are of no store."""
    if not task.user_ids or len(cases.seq) != len(cases):
        raise SettingsError(f"The cases of {task.name} name no users and events; read the task from a store.")
    return [
        f"{_word(task.user_ids[user])}#{seq}" for user, seq in zip(cases.user.tolist(), cases.seq.tolist(), strict=True)
    ]


def write_rankings(file: str | Path, task: Task, cases: Cases, first: Rows, tag: str = "recgraph") -> None:
    """Writes the items `first` int64[n, k] of each case, best first, -1 where there is no more; the file's ending says
    in which form."""
    path, lists = Path(file), [[task.item_ids[item] for item in row if item >= 0] for row in first.tolist()]
    names = case_ids(task, cases)
    if path.suffix == ".parquet":
        write_table(
            path,
            {
                "user": [task.user_ids[user] for user in cases.user.tolist()],
                "seq": cases.seq.astype(np.int32),
                "items": lists,
            },
        )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as opened:
        for name, items in zip(names, lists, strict=True):
            opened.writelines(
                f"{name} Q0 {_word(item)} {rank} {len(items) + 1 - rank} {_word(tag)}\n"
                for rank, item in enumerate(items, 1)
            )


def read_rankings(file: str | Path, task: Task, name: str = "") -> Rankings:
    """Reads a run of `task`'s test cases. StoreError, naming the line, for what is none: a line too short, an item
    twice, a list twice."""
    path = Path(file)
    if not path.is_file():
        raise StoreError(f"There is no file {path}.")
    with path.open("rb") as opened:
        start = opened.read(len(_PARQUET))
    names = case_ids(task, task.test)
    alone = _alone([one.rpartition("#")[0] for one in names], names)
    found = _read_parquet(path, task, alone) if start == _PARQUET else _read_trec(path, task, alone)
    if not found:
        raise StoreError(f"{path} has no ranking in it.")
    return Rankings(name or path.stem, found)


def _alone(owners: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """The case's name by its user's, of users with one case; "" for others."""
    found: dict[str, str] = {}
    for owner, name in zip(owners, names, strict=True):
        found[owner] = "" if owner in found else name
    return found


def _read_parquet(path: Path, task: Task, alone: Mapping[str, str]) -> dict[str, tuple[Rows, Rows]]:
    with path.open("rb") as opened:
        opened.seek(-len(_PARQUET), 2)
        if opened.read() != _PARQUET:
            raise StoreError(f"{path} is a Parquet file that is cut off; write it again.")
    columns: dict[str, Any] = read_table(path)
    missing = [column for column in ("user", "items") if column not in columns]
    if missing:
        raise StoreError(
            f"{path} has no column {missing[0]} but {', '.join(columns)}; it must have user, seq and items."
        )
    users, lists, row_of = list(columns["user"]), columns["items"], _rows(task)
    numbers = columns.get("seq")
    found: dict[str, tuple[Rows, Rows]] = {}
    for line, (user, items) in enumerate(zip(users, lists, strict=True), 1):
        where = f"{path}, row {line}"
        if user is None or not isinstance(items, list) or None in items:
            raise StoreError(f"{where}: user or items is missing, or items is no list of item ids.")
        owner = _word(str(user))
        case = _case(owner if numbers is None else f"{owner}#{int(numbers[line - 1])}", alone, where)
        if case in found:
            raise StoreError(f"{where}: the second list of case {case}.")
        rows, seen = [], set()
        for item in items:
            if item in seen:
                raise StoreError(f"{where}: item {item} stands in the list twice.")
            seen.add(item)
            rows.append(row_of.get(str(item), -1))
        found[case] = (np.array(rows, np.int64), np.arange(len(rows), dtype=np.int64))
    return found


def _read_trec(path: Path, task: Task, alone: Mapping[str, str]) -> dict[str, tuple[Rows, Rows]]:
    lines: dict[str, list[tuple[float, int, int, int]]] = {}  # by case: score, rank, item row, line
    names: dict[str, set[str]] = {}
    row_of = _rows(task)
    try:
        with path.open(encoding="utf-8") as opened:
            for number, text in enumerate(opened, 1):
                words = text.split()
                if not words:
                    continue
                where = f"{path}, line {number}"
                if len(words) != 6:
                    raise StoreError(
                        f"{where}: {len(words)} words; a run has six a line: user#seq Q0 item rank score tag."
                    )
                try:
                    rank, score = int(words[3]), float(words[4])
                except ValueError:
                    raise StoreError(f"{where}: rank '{words[3]}' or score '{words[4]}' is not a number.") from None
                if score != score:
                    raise StoreError(f"{where}: the score is not a number.")
                case = _case(words[0], alone, where)
                if words[2] in names.setdefault(case, set()):
                    raise StoreError(f"{where}: item {words[2]} stands in the list of {case} twice.")
                names[case].add(words[2])
                lines.setdefault(case, []).append((score, rank, row_of.get(words[2], -1), number))
    except UnicodeDecodeError:
        raise StoreError(f"{path} is neither a Parquet file nor text in UTF-8.") from None
    return {case: _ordered(entries, path) for case, entries in lines.items()}


def _ordered(entries: list[tuple[float, int, int, int]], path: Path) -> tuple[Rows, Rows]:
    """The rows by falling score, with their place among different scores."""
    entries.sort(key=lambda entry: (-entry[0], entry[1]))
    level = [0] * len(entries)
    for place, (before, after) in enumerate(pairwise(entries), 1):
        if after[1] < before[1]:
            raise StoreError(
                f"{path}, line {after[3]}: rank {after[1]} has a smaller score than rank {before[1]} of the same list."
            )
        level[place] = level[place - 1] + (after[0] < before[0])
    return np.array([entry[2] for entry in entries], np.int64), np.array(level, np.int64)


def _case(name: str, alone: Mapping[str, str], where: str) -> str:
    """The full name of a case. A user's name alone is enough, unless they have several cases."""
    if name in alone and not alone[name]:
        raise StoreError(f"{where}: {name} has several cases; name one of them with its event's number, {name}#SEQ.")
    return alone.get(name, name)


def _rows(task: Task) -> dict[str, int]:
    """Item rows by name, plain and percent-encoded."""
    plain = {item: row for row, item in enumerate(task.item_ids)}
    return {**{_word(item): row for item, row in plain.items()}, **plain}


def _word(name: str) -> str:
    """A name as one word."""
    return re.sub(r"[\s#%]", lambda found: quote(found[0]), name)
