"""Stage `publish`: everything the other stages made, in the one store that `recgraph run` uses. Command:
`recgraph train publish`.

The store holds the shop's tables, the summaries of both paradigms, the vectors of all titles and queries, CORE with its
item table, the text transformer and the learnt ranking; so a run over it has nothing to train and nothing to write.
What each piece was fitted on is in its meta `published`, which adapters go with it in `adapter`.

The file is built beside its place and renamed, so that a killed publish leaves the old store. Only a store that
`publish` or `recgraph demo` made is ever replaced: your own is never touched.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recgraph.errors import SettingsError, StoreError
from recgraph.store import snapshot
from recgraph.store.db import Store
from recgraph.store.ingest.side import take_place
from recgraph.tools.llm.adapter_sets import ADAPTERS, AdapterCard, adapter_fingerprint
from recgraph.tools.trained import FOLDERS, META, TrainedParts, published_facts
from recgraph.train import leaks
from recgraph.train.memory import read_queries
from recgraph.train.params import Params, block, text
from recgraph.train.pipeline import Note, needed, split_folder
from recgraph.train.prepare import read_cases, read_facts
from recgraph.train.summarize import SummarizeParams, check_summaries
from recgraph.train.title_embeddings import encoder_place, sample

CHECKED = 50  # held-out cases whose summaries are looked at: 65 ms each in the simulated shop


def check_replaceable(path: Path) -> None:
    """Raises StoreError where `path` is anything but a store that `publish` or `recgraph demo` made and nobody has
    added to since."""
    if not path.exists():
        return
    instead = (
        "Let publish write elsewhere: set publish.store in params.yaml "
        "(or: dvc exp run -S publish.store=other.duckdb), or move the file away."
    )
    try:
        with Store.open(path) as store:
            published, simulated, revision = published_facts(store), store.meta("simulated"), store.revision()
    except StoreError as error:
        raise StoreError(f"publish cannot replace {path}: {error} {instead}") from error
    if not published and simulated is None:
        raise StoreError(f"publish will not replace {path}: neither it nor `recgraph demo` made that store. {instead}")
    if published and published["revision"] != revision:
        raise StoreError(
            f"publish will not replace {path}: something was ingested into it since it was published. {instead}"
        )


def adapters_of(folder: Path, preset: str) -> dict[str, dict[str, Any]]:
    """What is known of the adapters of a preset: name → fingerprint and fitted_before, of those that are there."""
    found: dict[str, dict[str, Any]] = {}
    for name in ADAPTERS:
        place = folder / "adapters" / preset / name
        card = AdapterCard.read(place)
        if card is not None:
            found[name] = {
                "weights": adapter_fingerprint(place),
                "fitted_before": card.data.get("fitted_before"),
                "source": card.data.get("source"),
            }
    return found


def fill(store: Store, folder: Path, split_at: Path, preset: str, summarized: SummarizeParams) -> dict[str, Any]:
    """Puts summaries, vectors, CORE, the text transformer and the ranking into the store and returns what `published`
    says. SettingsError where one knows what it may not."""
    summaries = needed(folder / "data" / "summarize" / "summaries.parquet", "summarize")
    leaks.check_folder(folder, split_at)
    cases = sample(read_cases(split_at, "valid", "test"), CHECKED, seed=7)
    check_summaries(store, snapshot.read_summaries(summaries), cases, block=summarized.block, merge=summarized.merge)
    snapshot.load_summaries(store, summaries)
    encoder = read_queries(folder, store)
    for stage in FOLDERS:
        needed(folder / "data" / stage, stage)
    parts = TrainedParts.load(folder / "data")
    parts.publish(store)
    split = read_facts(split_at)
    titles = json.loads((folder / "data" / "title_embeddings" / "encoder.json").read_text(encoding="utf-8"))
    store.set_meta("adapter", preset)
    place = encoder_place(folder)
    if place:
        # Where it lies under this folder it is named from the store's own, so that both can be moved together.
        store.set_meta("embedder", os.path.relpath(place, store.path.parent) if Path(place).is_dir() else place)
    told = {
        "revision": store.revision(),
        "split": split["split"],
        **parts.facts(),
        "titles": {"model": encoder.name, "fitted_before": titles.get("fitted_before")},
        "adapters": adapters_of(folder, preset),
    }
    store.set_meta(META, json.dumps(told, sort_keys=True))
    return told


@dataclass(frozen=True)
class PublishParams:
    """The block `publish` of params.yaml: the path of the store, from params.yaml's folder."""

    store: str


def run(params: Params, folder: Path, note: Note) -> None:
    """Params: publish.store, data, split, preset, summarize. Reads the outs of prepare, summarize, the embeddings and
    memory, and the adapters' cards."""
    target = folder / block(params, "publish", PublishParams).store
    if target.suffix != ".duckdb":
        raise SettingsError(f"publish.store is '{target.name}' in params.yaml; it must be the path of a .duckdb file.")
    if target.resolve() == (folder / text(params, "data")).resolve():
        raise SettingsError(
            f"publish.store is '{target.name}', the store of `data`. Name another: dvc exp run -S "
            "publish.store=other.duckdb"
        )
    check_replaceable(target)
    split, preset, summarized = (
        split_folder(params, folder),
        text(params, "preset"),
        block(params, "summarize", SummarizeParams),
    )
    building = target.with_name(target.name + ".publish")
    _remove(building)
    with snapshot.load(needed(folder / "data" / "prepare" / "all", "prepare"), building) as store:
        published, counts = fill(store, folder, split, preset, summarized), store.counts()
    take_place(building, target)
    note(
        f"{target}: {counts['users']:,} users, {counts['items']:,} items, {counts['events']:,} events, "
        f"{counts['summaries']:,} summaries, "
        f"{counts['embeddings']:,} vectors; adapters: "
        f"{', '.join(published['adapters']) or f'none in adapters/{preset}'}"
    )


def _remove(building: Path) -> None:
    for leftover in (building, building.with_name(building.name + ".wal")):
        leftover.unlink(missing_ok=True)
