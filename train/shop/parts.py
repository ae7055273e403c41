"""Stage `parts`: the trained parts of the simulated shop, small enough to come with recgraph, and `give`, which puts
them into the store of `recgraph demo`. Command: `recgraph train parts`.

    train/shop/shipped/parts.json          whose they are: a hash of the shop, split, encoder, a hash of each file
    train/shop/shipped/<stage>/…           what the stages wrote (tools/trained.py says which), large tables in float16
    train/shop/shipped/texts.safetensors   the vectors of all titles and queries, a byte a number

They are the demo's alone: CORE knows products by their ids, the ranking what that shop's sources are worth. So they are
given to the very shop they were trained on and to no other. What a part holds is unknown here; whatever files a stage
writes are packed, and equal files give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from recgraph.errors import ModelMissing, StoreError
from recgraph.store import snapshot
from recgraph.store.db import Store
from recgraph.store.parquet import read_table
from recgraph.tools.trained import FOLDERS, META, TrainedParts, published_facts
from recgraph.train import leaks
from recgraph.train.params import Params, block, text
from recgraph.train.pipeline import Note, needed, split_folder
from recgraph.train.prepare import read_facts

SHIPPED = Path(__file__).with_name("shipped")
MANIFEST, TEXTS = "parts.json", "texts.safetensors"
_EVIDENCE = "evidence.parquet"  # what a stage has read: for the leak detector, not for serving
# a tensor of fewer numbers stays as it is: norms, biases and deviations to divide by bear rounding least
_LARGE = 1024
_STEPS = 127  # of a vector's largest number, in one byte: the cosine with what it was is above 0.9999

Numbers = NDArray[np.generic]


@dataclass(frozen=True)
class PartsParams:
    """The block `parts` of params.yaml: where they go, from params.yaml's folder."""

    folder: str


def run(params: Params, folder: Path, note: Note) -> None:
    """Params: parts.folder, data, split. Reads what `prepare`, the trainings and the embeddings wrote. Of another shop
    than the one that the stage `shop` makes nothing is written: what comes with recgraph stays the demo's."""
    target, split = folder / block(params, "parts", PartsParams).folder, split_folder(params, folder)
    if text(params, "data") != "data/shop":
        note(f"{target} is left as it is: it is for the simulated shop, and data is {text(params, 'data')}")
        return
    leaks.check_folder(folder, split, ("id_embeddings", "title_embeddings", "memory", "textformer"))
    with snapshot.open_folder(needed(folder / "data" / "prepare" / "all", "prepare")) as store:
        size = pack(folder / "data", store, read_facts(split)["split"], target)
    note(f"{target}: {size / 1e6:.1f} MB")


def pack(data: Path, store: Store, split: str, target: Path) -> int:
    """Writes the parts of a store's shop from the pipeline's `data` in place of what is in `target`; their bytes.
    StoreError where a stage has not run, or its encoder was trained, which is not shipped."""
    titles = json.loads((needed(data / "title_embeddings", "title_embeddings") / "encoder.json").read_text("utf-8"))
    if titles["folder"]:
        raise StoreError(
            f"The title encoder is {titles['encoder']}, which does not come with recgraph. Use the ready one: "
            "dvc exp run -S title_embeddings.encoder=ready"
        )
    files = {TEXTS: save(dict(_packed_texts(data, store)))}
    for stage in FOLDERS:
        for file in sorted(needed(data / stage, stage).iterdir()):
            if file.name != _EVIDENCE:
                content = file.read_bytes()
                files[f"{stage}/{file.name}"] = _halved(content) if file.suffix == ".safetensors" else content
    told = {
        "shop": shop_hash(store),
        "label": store.meta("simulated"),
        "split": split,
        "encoder": titles["name"],
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    files[MANIFEST] = (json.dumps(told, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    shutil.rmtree(target, ignore_errors=True)
    for name, content in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    return sum(map(len, files.values()))


def give(store_path: str | Path, folder: Path = SHIPPED) -> dict[str, Any]:
    """Publishes the parts in a demo's store and returns what its META then says; what `dvc repro` published there, or
    an earlier call, is left alone.

    ModelMissing, and nothing is written, where the parts are not there, damaged, or another shop's. StoreBusy,
    StoreReadOnly.
    """
    told, digest = _manifest(folder)
    with Store.create(store_path) as store:
        before = published_facts(store)
        if before and before.get("parts", digest) == digest:
            return before
        if shop_hash(store) != told["shop"]:
            whose = str(told["label"]).partition(":")[0]
            raise ModelMissing(
                f"The trained parts that come with recgraph are of another shop ({whose}). To train this one's: "
                "docs/training.md"
            )
        with tempfile.TemporaryDirectory(prefix="recgraph-parts-") as scratch:
            _unpack(folder, told, Path(scratch))
            parts = TrainedParts.load(Path(scratch))
        facts = {"revision": store.revision(), "split": told["split"], "parts": digest, **parts.facts()}
        facts["titles"] = {"model": told["encoder"], "fitted_before": None}
        with store.writing():
            _give_texts(store, folder, told["encoder"])
            parts.publish(store)
            store.set_meta(META, json.dumps(facts, sort_keys=True))
        return facts


def shop_hash(store: Store) -> str:
    """16 hex digits of what is trained on: products, their texts, what shoppers took, and what was searched. A store's
    revision is another with another DuckDB."""
    catalogue, events = store.catalogue(), store.sequences()
    digest = hashlib.sha256(json.dumps([list(catalogue.item_ids), *_texts(store), events.user_ids]).encode())
    for column in (events.user, events.item, events.ts, events.action):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()[:16]


def _texts(store: Store) -> tuple[list[str], list[str]]:
    """The titles and the queries of a shop, each once, in the order of their packed vectors."""
    return sorted(set(store.catalogue().names)), sorted(set(store.memory_queries()))


# ── Packing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _packed_texts(data: Path, store: Store) -> Iterator[tuple[str, Numbers]]:
    """Of titles and queries the int8[n, d] and, "….scale", the float32[n] to multiply them by."""
    places = (("title_embeddings", "titles", "text"), ("memory", "queries", "query"))
    for texts, (stage, name, column) in zip(_texts(store), places, strict=True):
        made = read_table(needed(data / stage / f"{name}.parquet", stage))
        row_of = {one: row for row, one in enumerate(made[column])}
        if missing := [one for one in texts if one not in row_of]:
            raise StoreError(f"{stage} has no vector of '{missing[0]}'. Make it again with: recgraph train {stage}")
        vectors = np.asarray(made["vector"], np.float32)[[row_of[one] for one in texts]]
        scale = np.maximum(np.abs(vectors).max(1), 1e-12) / _STEPS
        yield name, np.rint(vectors / scale[:, None]).astype(np.int8)
        yield f"{name}.scale", scale.astype(np.float32)


def _halved(content: bytes) -> bytes:
    """The tensors of a file, large ones in float16. StoreError where a number is too large for it."""
    tensors = load(content)
    for name, tensor in tensors.items():
        if tensor.dtype == np.float32 and tensor.size >= _LARGE:
            if float(np.abs(tensor).max()) > float(np.finfo(np.float16).max):
                raise StoreError(f"'{name}' has numbers that float16 does not hold; it cannot be shipped.")
            tensors[name] = tensor.astype(np.float16)
    return save(tensors)


# ── Unpacking ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _manifest(folder: Path) -> tuple[dict[str, Any], str]:
    """parts.json and its hash, every file having been held against its own. ModelMissing."""
    again = "Get them again with: git checkout train/shop/shipped (or install recgraph anew)"
    try:
        written = (folder / MANIFEST).read_bytes()
        told: dict[str, Any] = json.loads(written)
        wrong = [
            name
            for name, digest in told["files"].items()
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest
        ]
    except OSError as error:
        raise ModelMissing(f"The trained parts are not all there: {error}. {again}") from None
    except (ValueError, KeyError) as error:
        raise ModelMissing(f"The trained parts are damaged: {folder / MANIFEST} says {error!r}. {again}") from None
    if wrong:
        raise ModelMissing(f"The trained parts are damaged: {folder / wrong[0]} is not what it was made as. {again}")
    return told, hashlib.sha256(written).hexdigest()[:16]


def _unpack(folder: Path, told: Mapping[str, Any], data: Path) -> None:
    """The stages' folders as `pack` found them, all numbers float32 again."""
    for name in told["files"]:
        if name == TEXTS:
            continue
        content = (folder / name).read_bytes()
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(_widened(content) if name.endswith(".safetensors") else content)


def _widened(content: bytes) -> bytes:
    tensors = load(content)
    return save({name: one.astype(np.float32) if one.dtype == np.float16 else one for name, one in tensors.items()})


def _give_texts(store: Store, folder: Path, encoder: str) -> None:
    """Keeps the titles' and the queries' vectors, of length 1 again, under the encoder's name."""
    from recgraph.tools.embed import text_key  # torch takes two seconds, and comes with it

    packed = load((folder / TEXTS).read_bytes())
    for kind, name, texts in zip(("title", "query"), ("titles", "queries"), _texts(store), strict=True):
        vectors = packed[name] * packed[f"{name}.scale"][:, None]
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        store.save_vectors(kind, encoder, [text_key(one) for one in texts], vectors.astype(np.float32))
