"""A catalogue that is mapped from files reads as the one in memory does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recgraph.store.columns import Catalogue
from recgraph.tools.catalogue_files import ChangedTexts, RowOf, load_catalogue, rows_by_id, save_catalogue

IDS = ["A", "B b", "É1", "", "Z\n2"]


def catalogue(names: list[str] | None = None) -> Catalogue:
    titles = ["Boots", "", "Écharpe 雪", "x" * 300, "Boots"]
    flags = np.array([True, False, True, True, False])
    seen = np.arange(5).astype("datetime64[us]")
    return Catalogue(IDS, titles, names or titles, ["p", "p", "", "q", ""], ["c"] * 5, seen, flags, ~flags)


@pytest.mark.parametrize("names", [None, ["one", "two", "three", "four", "five"]])
def test_what_was_written_reads_the_same(tmp_path: Path, names: list[str] | None) -> None:
    made = catalogue(names)
    save_catalogue(made, tmp_path)
    read = load_catalogue(tmp_path)
    for column in ("item_ids", "titles", "names", "parent_ids", "categories"):
        assert list(getattr(read, column)) == getattr(made, column)
    assert read.names[-1] == made.names[4]
    assert read.names[1:3] == made.names[1:3]
    assert (read.offered == made.offered).all()
    assert (read.first_seen == made.first_seen).all()


def test_a_row_is_found_by_its_id_and_what_is_not_there_is_not(tmp_path: Path) -> None:
    save_catalogue(catalogue(), tmp_path)
    rows = rows_by_id(load_catalogue(tmp_path))
    assert isinstance(rows, RowOf)
    assert [rows[item_id] for item_id in IDS] == [0, 1, 2, 3, 4]
    assert "B" not in rows
    assert rows.get("none") is None
    with pytest.raises(KeyError, match="none"):
        rows["none"]
    with pytest.raises(IndexError, match="row 5 of 5"):
        load_catalogue(tmp_path).item_ids[5]


def test_an_empty_catalogue_has_no_rows(tmp_path: Path) -> None:
    none = np.zeros(0, np.bool_)
    save_catalogue(Catalogue([], [], [], [], [], np.zeros(0, "datetime64[us]"), none, none), tmp_path)
    assert rows_by_id(load_catalogue(tmp_path)).get("A") is None


def test_changed_rows_stand_in_for_the_old_ones_and_new_ones_follow() -> None:
    once = ChangedTexts(["a", "b", "c"], {1: "B", 3: "d"}, 2)
    again = ChangedTexts(once, {0: "A"}, 1)
    assert list(once) == ["a", "B", "c", "d", ""]
    assert list(again) == ["A", "B", "c", "d", "", ""]
    assert again._old == ["a", "b", "c"]
