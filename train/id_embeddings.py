"""Stage `id_embeddings`: trains CORE on the events before the cut (F 4.4). Command: `recgraph train id_embeddings`.

    data/id_embeddings/items.parquet      item_id, vector (length 1), norm, sorted by item_id; an item without events
                                          has no row
    data/id_embeddings/core.safetensors   the encoder's weights, `cold` (the vector of all items without a row) among
                                          them
    data/id_embeddings/config.json        settings, fitted_before, and what it was trained on
    data/id_embeddings/evidence.parquet   what it saw (train/evidence.py)
    metrics/id_embeddings.json, metrics/id_embeddings_loss.csv

What CORE learns from are all events with an item, an event that repeats the item before it left out.
`data/id_embeddings.part` is the checkpoint: it is there while a training is under way, and the next run goes on from
it. How the model works is in `train.core`.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file

from recgraph.errors import StoreError
from recgraph.store import snapshot
from recgraph.store.columns import Sequences
from recgraph.store.parquet import read_table, write_table
from recgraph.train import evidence
from recgraph.train.metrics import Places, summary
from recgraph.train.networks.batches import Rows
from recgraph.train.networks.core import CoreSettings, HeldOut, TrainedCore, ranks, train
from recgraph.train.params import Params, block
from recgraph.train.pipeline import Note, needed, split_folder

OUT = Path("data") / "id_embeddings"
PURCHASE = 2  # in Sequences.action


def run(params: Params, folder: Path, note: Note) -> None:
    """Params: the fields of `CoreSettings`. Reads data/prepare/all and data/prepare/<split>, writes data/id_embeddings
    and metrics."""
    settings = block(params, "id_embeddings", CoreSettings)
    split, part = split_folder(params, folder), folder / OUT.with_suffix(".part")
    facts = json.loads((split / "split.json").read_text(encoding="utf-8"))
    with snapshot.open_folder(split / "train") as store:
        item_ids, learnt = store.catalogue().item_ids, store.sequences()
    with snapshot.open_folder(needed(folder / "data" / "prepare" / "all", "prepare")) as store:
        everything = store.sequences()
    if not len(learnt.item):
        raise StoreError(
            f"No event in {split / 'train'} names an item, so there is nothing to train CORE on. Ingest events first."
        )
    warm = np.unique(learnt.item)
    row_of = np.full(len(item_ids), -1, dtype=np.int64)
    row_of[warm] = np.arange(len(warm))
    items, starts = sequences(learnt, row_of)
    cases = read_cases(read_table(split / "cases.parquet"), everything, item_ids, row_of)
    note(
        f"CORE: {len(items):,} events of {len(starts) - 1:,} users on {len(warm):,} items; "
        f"{len(item_ids) - len(warm):,} items have none"
    )
    trained = train(items, starts, len(warm), settings, cases["valid"], part)
    best, last = trained.epochs[trained.best], len(trained.epochs)
    shown = {name: places for name, one in cases.items() if len(one) for places in [ranks(trained.model, one)]}
    note(f"best epoch {trained.best + 1} of {last}, loss {best['loss']:.3f}, {trained.seconds:.1f} s an epoch")
    for name, (_, served) in shown.items():
        found = summary(served)
        note(
            f"{name}: Recall@10 {found['recall@10']:.4f}, NDCG@10 {found['ndcg@10']:.4f} over {len(served):,} cases, "
            "purchased items left out"
        )
    config = {
        **asdict(settings),
        "fitted_before": facts["fitted_before"],
        "split": facts["split"],
        "items": len(warm),
        "events": len(items),
    }
    save(trained, [item_ids[row] for row in warm], config, folder / OUT)
    evidence.keep(folder / OUT, evidence.of_sequences("CORE", "id_embeddings", learnt, item_ids))
    _metrics(trained, shown, folder / "metrics")
    shutil.rmtree(part, ignore_errors=True)


def sequences(events: Sequences, row_of: Rows) -> tuple[Rows, Rows]:
    """Item rows of all users one after another, repeats left out, and where each user begins, the end of all last."""
    fresh = np.ones(len(events.item), dtype=np.bool_)
    fresh[1:] = (events.item[1:] != events.item[:-1]) | (events.user[1:] != events.user[:-1])
    user = events.user[fresh]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(user)) + 1, [len(user)]]).astype(np.int64)
    return row_of[events.item[fresh]], starts


def read_cases(table: dict[str, Any], events: Sequences, item_ids: Sequence[str], row_of: Rows) -> dict[str, HeldOut]:
    """The valid and the test cases with their users' histories: all events with an item before `as_of`, in rows of the
    model, cold ones -1.

    What was purchased before is hidden from the ranking, as it is when recommending.
    """
    user_of = {user_id: number for number, user_id in enumerate(events.user_ids)}
    begin = np.searchsorted(events.user, np.arange(len(events.user_ids) + 1))
    place_of = {item_id: place for place, item_id in enumerate(item_ids)}
    rows, parts = row_of[events.item], np.array(table["part"])
    found: dict[str, HeldOut] = {}
    for part in ("valid", "test"):
        history: list[Rows] = []
        hidden: list[Rows] = []
        chosen = np.flatnonzero(parts == part)
        for case in chosen:
            user = user_of.get(table["user_id"][case], -1)
            first, end = (0, 0) if user < 0 else (int(begin[user]), int(begin[user + 1]))
            end = first + int(np.searchsorted(events.ts[first:end], table["as_of"][case]))
            known = rows[first:end]
            hidden.append(known[events.action[first:end] == PURCHASE])
            history.append(known[_changes(events.item[first:end])])
        target = np.array([row_of[place_of[table["item_id"][case]]] for case in chosen], dtype=np.int64)
        found[part] = HeldOut(history, target, hidden)
    return found


def _changes(items: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which items differ from the one before."""
    changed = np.ones(len(items), dtype=np.bool_)
    changed[1:] = items[1:] != items[:-1]
    return changed


def save(trained: TrainedCore, item_ids: list[str], config: dict[str, Any], folder: Path) -> None:
    """Writes what `tools.core.Core.load` reads; `item_ids` are those of the model's rows, sorted."""
    weights = {name: value.detach().contiguous() for name, value in trained.model.state_dict().items()}
    table = weights.pop("items.weight").numpy()
    norms = np.linalg.norm(table[:-1], axis=1).astype(np.float32)
    shutil.rmtree(folder, ignore_errors=True)
    write_table(folder / "items.parquet", {"item_id": item_ids, "vector": table[:-1] / norms[:, None], "norm": norms})
    save_file({**weights, "cold": trained.model.items.weight[-1].detach().clone()}, folder / "core.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _metrics(trained: TrainedCore, shown: dict[str, tuple[Places, Places]], folder: Path) -> None:
    """`seen` counts every item as a candidate, the plain names leave out what the user purchased before."""
    folder.mkdir(parents=True, exist_ok=True)
    told: dict[str, Any] = {"best_epoch": trained.best + 1, "epochs": len(trained.epochs)}
    for part, (all_items, served) in shown.items():
        told[part] = {"cases": len(served), **summary(served), "seen": summary(all_items)}
    (folder / "id_embeddings.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    with (folder / "id_embeddings_loss.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [name for name in trained.epochs[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "epoch": int(row["epoch"]) + 1} for row in trained.epochs)
