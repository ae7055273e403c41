"""What is kept in a folder is read ahead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recgraph.tools.sources.kept import Built


def test_the_files_of_a_folder_are_read_ahead_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Built(tmp_path).array("numbers", lambda: np.arange(9))
    opened, read = Path.open, list[str]()

    def noted(self: Path, *how: Any, **more: Any) -> Any:
        read.append(self.name)
        return opened(self, *how, **more)

    monkeypatch.setattr(Path, "open", noted)
    built = Built(tmp_path)
    built.warm()
    built.warm()
    built.wait()
    assert sorted(read) == sorted(file.name for file in tmp_path.rglob("*") if file.is_file())
    assert "array.npy" in read


def test_without_a_folder_or_with_one_that_is_gone_nothing_is_read(tmp_path: Path) -> None:
    for built in (Built(), Built(tmp_path / "none")):
        built.warm()
        built.wait()
