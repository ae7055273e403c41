"""recgraph: a recommender for shops whose products carry text. The lazy face: importing it costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recgraph.errors import RecgraphError
    from recgraph.graph.recommender import Recommender
    from recgraph.settings import Settings

__all__ = ["RecgraphError", "Recommender", "Settings", "__version__"]
__version__ = "0.1.0"

_HOMES = {
    "RecgraphError": "recgraph.errors",
    "Recommender": "recgraph.graph.recommender",
    "Settings": "recgraph.settings",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recgraph' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
