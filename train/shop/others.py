"""Simulated shops of other seeds than the demo's, to learn from: cases cost nothing there, and nobody is held out.

Such a shop stands in a folder as the stages `prepare`, `title_embeddings` and `memory` would leave it, with vectors by
the pipeline's own encoder. It has no trained parts: CORE and the ranking know products by their ids.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from recgraph.errors import SettingsError
from recgraph.store.parquet import write_table
from recgraph.store.snapshot import open_folder
from recgraph.tools.embed import text_key
from recgraph.train import memory, prepare
from recgraph.train.networks.title_pairs import Titles
from recgraph.train.networks.titles import threads
from recgraph.train.params import Params, block
from recgraph.train.pipeline import Note
from recgraph.train.shop.stage import ShopParams
from recgraph.train.shop.year import make_demo
from recgraph.train.title_embeddings import OUT, chosen_encoder


def check_seeds(params: Params, seeds: Sequence[int]) -> None:
    """SettingsError for a seed that is the demo's, whose users are held out, or that is named twice."""
    own = block(params, "shop", ShopParams).seed
    for place, seed in enumerate(seeds):
        if seed == own:
            raise SettingsError(
                f"examples.shops names {seed}, the seed of the demo's shop (shop.seed in params.yaml), whose users are "
                "held out. Name other seeds."
            )
        if seed in seeds[:place]:
            raise SettingsError(f"examples.shops names {seed} twice in params.yaml. Name each seed once.")


def build_shop(params: Params, folder: Path, seed: int, target: Path, note: Note) -> None:
    """Makes the shop in the folder `target`. `folder` is params.yaml's, where the encoder is. StoreError before the
    stage `title_embeddings` has run there."""
    own = block(params, "shop", ShopParams)
    target.mkdir(parents=True)
    make_demo(target / "shop.duckdb", seed, own.shoppers, own.products, own.events, own.days)
    prepare.run({**params, "data": "shop.duckdb"}, target, lambda _: None)
    (target / "shop.duckdb").unlink()
    shutil.copytree(folder / OUT, target / OUT)
    with open_folder(target / "data" / "prepare" / "all") as store:
        titles = Titles.of(store.catalogue()).texts
    with threads(block(params, "memory", memory.MemoryParams).threads):
        vectors = chosen_encoder(target, torch.float32).encode(titles)
    write_table(
        target / OUT / "titles.parquet",
        {"key": [text_key(text) for text in titles], "text": titles, "vector": vectors},
    )
    memory.run(params, target, lambda _: None)
    note(f"a shop of seed {seed} to learn from: {len(titles):,} titles")
