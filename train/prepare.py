"""Stage `prepare`: what the fitted parts may see, and the cases to learn from, to choose by and to be measured on.
`recgraph train prepare`.

    data/prepare/all/           everything, as a snapshot
    data/prepare/<split>/train/ a snapshot of what fitted parts may see; cases.parquet; split.json

Two splits (DESIGN 7). `time`, the default: test is the last `test_days`, valid the `valid_days` before, everything
earlier is train, for all users at once; nothing that is fitted can know a later day. `loo`, leave one out, as most
papers report: a user's last target is test, the last but one valid, and train is what they did before; of a user with
fewer than three targets everything is train. It leaks other users' future and is there to compare.

A case is a target (`store/cases.py`) and the moment `as_of` from which it is to be predicted: the user's history is
what they did strictly before. With `start: search` that is the moment of the search that led to it, so that the visit's
own clicks on the product (five purchases in six were clicked just before) are not in the history; F 5.1 filters those
clicks, which needs the label. Without a search, and with `start: purchase`, it is the target's own time; where a set
knows only days, its day, so that nothing of the same basket is in the history. A case belongs to the part its `as_of`
falls into; one that straddles a cut is dropped and counted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recgraph.errors import SettingsError
from recgraph.store import snapshot
from recgraph.store.cases import Targets, Times, span, targets
from recgraph.store.db import Store
from recgraph.store.files.objects import is_far
from recgraph.store.parquet import read_table, write_table
from recgraph.train.params import Params, block, text
from recgraph.train.pipeline import Note, needed, split_folder

PARTS = ("train", "valid", "test")
_CLOCK_STARTS = datetime(1971, 1, 1)  # earlier times are event numbers (store/records.py)


@dataclass(frozen=True)
class PrepareParams:
    """The block `prepare` of params.yaml. `valid_days` and `test_days` are whole days, for the split by time alone."""

    start: Literal["search", "purchase"]
    valid_days: int
    test_days: int


@dataclass(frozen=True, slots=True)
class Case:
    """One target to predict from what its user did strictly before `as_of`, given `query` ("" where none led to it).

    `cold`: no event of the train part names the item. `seq` is the target event's number.
    """

    part: str
    user_id: str
    as_of: datetime
    query: str
    item_id: str
    ts: datetime
    seq: int
    cold: bool


@dataclass(frozen=True)
class Split:
    """Which part each target is in ("" dropped), and the cuts: one moment for everybody (`time`) or one a user
    (`loo`)."""

    name: str
    part: NDArray[np.object_]
    valid_from: datetime | None = None
    test_from: datetime | None = None
    until: Mapping[str, datetime] | None = None


def starts(found: Targets, start: str) -> Times:
    """From when each target is to be predicted, datetime64[n]. SettingsError for an unknown `start`."""
    if start not in ("search", "purchase"):
        raise SettingsError(f"prepare.start is '{start}' in params.yaml; it must be search or purchase.")
    return np.where(np.isnat(found.asked) | (start == "purchase"), found.ts, found.asked)


def split_by_time(found: Targets, as_of: Times, last: datetime, valid_days: int, test_days: int) -> Split:
    """Whole days, counted back from the day of the last event. SettingsError where a length is no positive number of
    days."""
    for name, days in (("valid_days", valid_days), ("test_days", test_days)):
        if not isinstance(days, int) or days < 1:
            raise SettingsError(f"prepare.{name} is {days} in params.yaml; it must be at least 1 day.")
    test_from = datetime(last.year, last.month, last.day) + timedelta(days=1 - test_days)
    valid_from = test_from - timedelta(days=valid_days)
    part = np.full(len(found.ts), "", dtype=object)
    part[found.ts < np.datetime64(valid_from)] = "train"
    part[(as_of >= np.datetime64(valid_from)) & (found.ts < np.datetime64(test_from))] = "valid"
    part[as_of >= np.datetime64(test_from)] = "test"
    return Split("time", part, valid_from, test_from)


def split_last_out(found: Targets, as_of: Times) -> Split:
    """Leave one out. Train cases end before their user's valid case begins, as the train snapshot does."""
    part = np.full(len(found.ts), "", dtype=object)
    until: dict[str, datetime] = {}
    edges = (
        np.flatnonzero(np.r_[True, found.user_id[1:] != found.user_id[:-1], True]) if len(found.ts) else np.array([0])
    )
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if high - low < 3:
            part[low:high] = "train"
            continue
        part[high - 1], part[high - 2] = "test", "valid"
        cut = min(as_of[high - 2], as_of[high - 1])
        part[low : high - 2] = np.where(found.ts[low : high - 2] < cut, "train", "")
        until[str(found.user_id[low])] = cut.item()
    return Split("loo", part, until=until)


def write_split(store: Store, folder: Path, found: Targets, as_of: Times, split: Split) -> dict[str, Any]:
    """Writes train/, cases.parquet and split.json and returns what split.json says."""
    rows = snapshot.write(store, folder / "train", before=split.valid_from, until=split.until, label=split.name)
    known = set(read_table(folder / "train" / "events.parquet")["item_id"])
    cold = np.array([item_id not in known for item_id in found.item_id.tolist()], bool)
    kept = np.flatnonzero(split.part != "")
    order = kept[np.lexsort((found.seq[kept], found.user_id[kept].astype(str), split.part[kept].astype(str)))]
    columns = {
        "part": split.part,
        "user_id": found.user_id,
        "as_of": as_of,
        "query": found.query,
        "item_id": found.item_id,
    }
    columns |= {"ts": found.ts, "seq": found.seq, "cold": cold}
    write_table(folder / "cases.parquet", {name: column[order] for name, column in columns.items()})
    counts: dict[str, int] = {f"train_{table}": count for table, count in rows.items()}
    for name in PARTS:
        here = split.part == name
        counts |= {
            f"{name}_cases": int(here.sum()),
            f"{name}_users": len(set(found.user_id[here])),
            f"{name}_cold": int(cold[here].sum()),
        }
    facts = {
        "split": split.name,
        "valid_from": _iso(split.valid_from),
        "test_from": _iso(split.test_from),
        "fitted_before": _iso(split.valid_from),
        "counts": counts | {"dropped_cases": len(found.ts) - len(kept)},
    }
    (folder / "split.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return facts


def read_cases(folder: Path, *parts: str) -> list[Case]:
    """The cases of data/prepare/<split> in their order; of the named parts, or of all. StoreError where they are
    missing."""
    columns = read_table(needed(folder / "cases.parquet", "prepare"))
    plain = (
        columns[name].tolist() if isinstance(columns[name], np.ndarray) else columns[name] for name in Case.__slots__
    )
    return [Case(*row) for row in zip(*plain, strict=True) if not parts or row[0] in parts]


def read_facts(folder: Path) -> dict[str, Any]:
    """split.json of data/prepare/<split>: split, valid_from, test_from, fitted_before (ISO times or None), counts."""
    return dict(json.loads(needed(folder / "split.json", "prepare").read_text(encoding="utf-8")))


def run(params: Params, folder: Path, note: Note) -> None:
    """Params: data (a snapshot folder or a store), split, the fields of `PrepareParams`. Writes data/prepare."""
    own = block(params, "prepare", PrepareParams)
    data, target = text(params, "data"), folder / "data" / "prepare"
    source = data if is_far(data) else folder / data
    if source == folder / "data" / "shop":
        needed(folder / data, "shop")
    with snapshot.open_source(source) as store:
        shutil.rmtree(target, ignore_errors=True)
        snapshot.write(store, target / "all")
        found = targets(store)
        as_of = starts(found, own.start)
        between = span(store)
        splits = [split_last_out(found, as_of)]
        if (
            between is None
            or between[0] < _CLOCK_STARTS
            or between[1] - between[0] <= timedelta(days=own.valid_days + own.test_days)
        ):
            note("no time split: the events have no dates, or span too few days for it")
        else:
            splits.insert(0, split_by_time(found, as_of, between[1], own.valid_days, own.test_days))
        for split in splits:
            counts = write_split(store, target / split.name, found, as_of, split)["counts"]
            note(f"{split.name}: " + ", ".join(f"{counts[f'{part}_cases']:,} {part} cases" for part in PARTS))
    split_folder(params, folder)  # says so now where the chosen split does not exist


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
