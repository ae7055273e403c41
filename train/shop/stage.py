"""Stage `shop`: the simulated shop as a snapshot in data/shop, for whoever has no data of their own. The shop itself is
in `train/shop/year.py`."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from recgraph.store import snapshot
from recgraph.store.db import Store
from recgraph.train.params import Params, block
from recgraph.train.pipeline import Note
from recgraph.train.shop.year import make_demo


@dataclass(frozen=True)
class ShopParams:
    """The block `shop` of params.yaml, as `make_demo` takes it."""

    seed: int
    shoppers: int
    products: int
    events: int
    days: int


def run(params: Params, folder: Path, note: Note) -> None:
    """Params: the fields of `ShopParams`. Writes data/shop."""
    own = block(params, "shop", ShopParams)
    target = folder / "data" / "shop"
    with tempfile.TemporaryDirectory(prefix="recgraph-shop-") as scratch:
        store = Path(scratch) / "shop.duckdb"
        make_demo(store, own.seed, own.shoppers, own.products, own.events, own.days, note)
        with Store.open(store) as opened:
            shutil.rmtree(target, ignore_errors=True)
            rows = snapshot.write(opened, target)
    note(f"{target}: " + ", ".join(f"{count:,} {table}" for table, count in rows.items()))
