"""What several test files share: where the real data sets lie, and a factory of small stores written in the test
itself.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from recgraph.store.db import Store
from recgraph.store.ingest.load import ingest

REPOSITORY = Path(__file__).resolve().parent.parent
TABLES = ("items", "events", "exposures")

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # beside other workers torch's threads wait for each other; before torch is imported, for children too
    os.environ.setdefault("OMP_NUM_THREADS", "1")


# Importing torch, transformers and their like makes millions of objects that stay: looking through them for garbage
# again and again took six of thirteen seconds of each process, and some of every long test after that.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of the real data sets: RECGRAPH_DATA, else ../shared/data beside the repository. Skips the test where
    it is missing.
    """
    folder = Path(os.environ.get("RECGRAPH_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not at {folder} (set RECGRAPH_DATA)")
    return folder


@pytest.fixture(scope="session")
def loaded_stores(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], Path]:
    """loaded_stores(name, folder of tables) -> a closed store of these tables, made once in a session: many tests start
    from the same shop.
    """
    made: dict[tuple[str, ...], Path] = {}

    def load(name: str, folder: Path) -> Path:
        key = (
            name,
            *(
                file.read_text(encoding="utf-8") if file.exists() else ""
                for file in (folder / f"{table}.csv" for table in TABLES)
            ),
        )
        if key not in made:
            path = tmp_path_factory.mktemp("loaded") / f"{name}.duckdb"
            ingest(path, "tables", [folder])
            made[key] = path
        return made[key]

    return load


@pytest.fixture
def make_store(tmp_path: Path, loaded_stores: Callable[[str, Path], Path]) -> Iterator[Callable[..., Store]]:
    """make_store(items=..., events=..., exposures=...) -> an open, reading Store of the test's own, filled through the
    `tables` reader.

    Each argument is CSV text, the header line first, or a list of such lines. Several stores in one test need different
    `name`s.
    """
    opened: list[Store] = []

    def make(
        items: str | Sequence[str] = "",
        events: str | Sequence[str] = "",
        exposures: str | Sequence[str] = "",
        name: str = "shop",
    ) -> Store:
        folder = tmp_path / f"{name}-tables"
        folder.mkdir()
        for kind, text in zip(TABLES, (items, events, exposures), strict=True):
            lines = text.strip().splitlines() if isinstance(text, str) else list(text)
            if lines:
                (folder / f"{kind}.csv").write_text("\n".join(line.strip() for line in lines) + "\n", encoding="utf-8")
        path = tmp_path / f"{name}.duckdb"
        if any(folder.iterdir()):
            shutil.copyfile(loaded_stores(name, folder), path)
        else:
            Store.create(path).close()
        opened.append(Store.open(path))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models run in float32, whatever this machine's processor multiplies: for what hangs on small differences of their
    numbers."""
    monkeypatch.setenv("RECGRAPH_DTYPE", "float32")
