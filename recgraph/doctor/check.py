"""A line of the doctor's report, and what several checks need: how a module is loaded, how packages are installed.

What is checked is unknown here.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

INSTALL = "make install   (or, in the sources: pip install -c constraints.txt -e '.[local,vllm]')"
INSTALL_TRAIN = "pip install -c constraints.txt -e '.[train]'   (in the sources)"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's report. `ok`: True works, False does not and should, None is not there and need not be.

    `mend` is the command that mends it, "" where nothing is wrong.
    """

    name: str
    ok: bool | None
    found: str
    mend: str = ""


def load(name: str) -> Any:
    """The module, or the reason as a string: a broken build shows as OSError (a missing library) as often as
    ImportError."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return f"{name} cannot be imported: {error}"
