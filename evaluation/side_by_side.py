"""The product with many settings over one store, side by side: what does not hang on the settings is there once. What
they are asked, and what for, is unknown here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from recgraph.evaluation.asked_once import AskedOnce
from recgraph.graph.fits import Fits
from recgraph.graph.recommendation import Recommendation
from recgraph.graph.recommender import Recommender, open_chosen
from recgraph.graph.state import State
from recgraph.settings import Settings, load_settings
from recgraph.store.db import Store
from recgraph.tools.embed import Encoder, encoder_of
from recgraph.tools.llm.open import InUse
from recgraph.tools.llm.places import DEFAULT
from recgraph.tools.llm.protocol import LLM

PATIENCE = 600.0  # seconds for a recommendation in which nothing falls back because the machine is slow


class _Quiet(Recommender):
    """The product's recommender, leaving nothing behind: the summaries of one variant must not make the next one
    cheaper."""

    def _save(self, state: State) -> list[str]:
        return []

    def _log(self, found: Recommendation, request: Mapping[str, object]) -> str | None:
        return None


def chosen_of(store: Path, settings: Mapping[str, Any]) -> Settings:
    """All settings of a variant. There is always a language model, which is what the papers' parts are parts of: the
    one at hand where no setting says otherwise. SettingsError."""
    chosen = load_settings(store=str(store), **settings)
    return chosen if chosen.llm or chosen.llm_url else replace(chosen, llm=DEFAULT)


def model_of(chosen: Settings) -> tuple[str, ...]:
    """What decides which language model and adapters are opened."""
    return chosen.llm, chosen.llm_url, chosen.llm_api_key, chosen.adapter


class SideBySide:
    """Opens recommenders over the store at `path` that ask one language model with one adapter set, which is loaded
    once and asked once (`AskedOnce`). Those with the same text encoder share what is fitted as of a moment.

    Close it, or use it in a `with` block, which closes them all.
    """

    def __init__(self, path: Path) -> None:
        """Raises StoreError."""
        self.store, self._exit = Store.open(path), ExitStack()
        self._exit.callback(self.store.close)
        self._model: tuple[LLM | None, InUse] | None = None
        self._fits: dict[str, Fits] = {}
        self.asked: AskedOnce | None = None

    def open(self, chosen: Settings) -> Recommender:
        """One more. Raises what `Recommender.open` raises."""
        if chosen.embedder not in self._fits:
            fits = self._fits[chosen.embedder] = Fits(self.store, self.encoder(chosen))
            self._exit.callback(fits.close)
        if self._model is None:
            self._model = self.model(chosen)
            self.asked = AskedOnce(self._model[0]) if self._model[0] else None
        llm, adapters = self._model
        # Time that a reused answer saves must not serve for something else, where time is short. Nor are costs kept:
        # what reused answers take is not what the stages cost on this machine.
        asked = self.asked if chosen.deadline >= PATIENCE else llm
        fits = self._fits[chosen.embedder]
        return self._exit.enter_context(_Quiet(self.store, chosen, fits.encoder, asked, adapters=adapters, fits=fits))

    def encoder(self, chosen: Settings) -> Encoder:
        """The text encoder of a variant."""
        return encoder_of(self.store, chosen.embedder)

    def model(self, chosen: Settings) -> tuple[LLM | None, InUse]:
        """The language model of all variants, and its adapters."""
        return open_chosen(chosen, self.store)

    def begin(self) -> None:
        """Before each answer: `AskedOnce.begin`."""
        if self.asked:
            self.asked.begin()

    def waited(self) -> float:
        """After it: `AskedOnce.waited`."""
        return self.asked.waited() if self.asked else 0.0

    def close(self) -> None:
        """Closes the recommenders, what they share, and the store."""
        self._exit.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
