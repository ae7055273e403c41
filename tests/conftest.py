"""What several test files share: where the real data sets lie, and a factory of small stores written in the test itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from recgraph.store.db import Store
from recgraph.store.ingest.load import ingest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of the real data sets: RECGRAPH_DATA, else ../shared/data beside the repository. Skips the test where it is missing."""
    folder = Path(os.environ.get("RECGRAPH_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not at {folder} (set RECGRAPH_DATA)")
    return folder


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """make_store(items=..., events=..., exposures=...) -> an open, reading Store, filled through the `tables` reader.

    Each argument is CSV text, the header line first, or a list of such lines. Several stores in one test need different `name`s.
    """
    opened: list[Store] = []

    def make(items: str | Sequence[str] = "", events: str | Sequence[str] = "", exposures: str | Sequence[str] = "", name: str = "shop") -> Store:
        folder = tmp_path / f"{name}-tables"
        folder.mkdir()
        for kind, text in (("items", items), ("events", events), ("exposures", exposures)):
            lines = text.strip().splitlines() if isinstance(text, str) else list(text)
            if lines:
                (folder / f"{kind}.csv").write_text("\n".join(line.strip() for line in lines) + "\n", encoding="utf-8")
        path = tmp_path / f"{name}.duckdb"
        if any(folder.iterdir()):
            ingest(path, "tables", [folder])
        else:
            Store.create(path).close()
        opened.append(Store.open(path))
        return opened[-1]

    yield make
    for store in opened:
        store.close()
