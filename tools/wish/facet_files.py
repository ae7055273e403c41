"""Facets in a folder, memory-mapped: opening a store of millions of products reads none of them, and processes share
the memory. That a folder belongs to one revision of one store is for its owner to see to.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recgraph.store.facets import CodedColumn, TextRows
from recgraph.tools.wish.facets import Attribute, Facets

_TOLD = "facets.json"


def save_facets(facets: Facets, folder: Path) -> None:
    """Writes the files of a folder that exists: an array each, and what is words as JSON."""
    for name, attribute in facets.attributes.items():
        np.save(folder / f"{_file(facets, name)}.npy", attribute.column.codes)
    np.save(folder / "prices.npy", facets.prices)
    np.save(folder / "cheapness.npy", facets.cheapness)
    for name, texts in (("ids", facets.ids), ("texts", facets.texts)):
        np.save(folder / f"{name}.npy", np.frombuffer(texts.data, np.uint8))
        np.save(folder / f"{name}.starts.npy", texts.starts)
    told = {
        "raw": {name: attribute.column.raw for name, attribute in facets.attributes.items()},
        "title_words": dict(facets.title_words),
        "heads": {head: list(map(list, some)) for head, some in facets.heads.items()},
    }
    (folder / _TOLD).write_text(json.dumps(told), encoding="utf-8")


def load_facets(folder: Path) -> Facets:
    """What `save_facets` wrote. OSError where a file is missing."""
    told = json.loads((folder / _TOLD).read_text(encoding="utf-8"))
    columns = {
        name: CodedColumn(raw, _mapped(folder / f"column-{number}.npy"))
        for number, (name, raw) in enumerate(told["raw"].items())
    }
    found = Facets(
        {name: Attribute.of(name, column) for name, column in columns.items()},
        _mapped(folder / "prices.npy"),
        _texts(folder, "ids"),
        _texts(folder, "texts"),
        told["title_words"],
        {head: [(str(category), int(times)) for category, times in some] for head, some in told["heads"].items()},
    )
    found.cheapness = _mapped(folder / "cheapness.npy")  # sorting a large catalogue takes its time
    return found


def _file(facets: Facets, name: str) -> str:
    """The shop named the attribute: no name for a file."""
    return f"column-{list(facets.attributes).index(name)}"


def _texts(folder: Path, name: str) -> TextRows:
    return TextRows(_mapped(folder / f"{name}.npy").data, _mapped(folder / f"{name}.starts.npy"))


def _mapped(path: Path) -> NDArray[Any]:
    """As a plain array: the parts of a numpy.memmap take microseconds to cut out, and thousands are."""
    return np.asarray(np.load(path, mmap_mode="r"))
