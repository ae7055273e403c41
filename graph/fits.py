"""What is read of one store and fitted on it with one encoder, as of now and of moments. Several recommenders may share
it. Settings, language models and the graph are unknown here.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from recgraph.graph.moments import OfMoments
from recgraph.graph.wish import Vocabularies
from recgraph.store.db import Store
from recgraph.store.live.kept import KeptReader
from recgraph.tools.embed import Encoder
from recgraph.tools.index import VectorIndex
from recgraph.tools.live import Live
from recgraph.tools.memory import QueryMemory
from recgraph.tools.remembered import RememberingEncoder
from recgraph.tools.retrieve import Retriever
from recgraph.tools.sources.kept import Built
from recgraph.tools.trained import published_fingerprint


class Fits:
    """Over `store`, with `encoder`, which remembers: what it `reader` read lately, the retriever of now (`live`) and
    those of moments, the query `memory` of a moment, and the shop's `vocabularies`. Thread-safe.

    `served` says whether a retriever of now was made, `parts` which trained parts the last fit took.
    """

    def __init__(self, store: Store, encoder: Encoder, progress: Callable[[str, int, int], None] | None = None) -> None:
        """`progress` is told of long work. The store is closed by who opened it."""
        remembering = RememberingEncoder(encoder)
        self.store, self.encoder, self._progress = store, remembering, progress
        self.reader = KeptReader(store, remembering.forget)
        self.vocabularies = Vocabularies(remembering)
        self.served, self.parts = False, published_fingerprint(store)
        # What hangs on no moment, the titles and what else is built of texts, and the revision that both are of: one
        # value, for fits of now and of moments run at the same time.
        self._texts: tuple[str, VectorIndex | None, Built] = ("", None, Built())
        self.live = Live(store, lambda until: self._fit(None, until))
        self._of_moments = OfMoments(self._fit, store.revision)
        self.memory = OfMoments(
            lambda as_of, _: QueryMemory(
                store, self.encoder, as_of, self._reporter("Embedding queries"), self.reader.items
            ),
            store.revision,
            lambda known: (changes := store.changes_since(known)) is None or bool(changes.queries),
        )

    def retriever(self, as_of: datetime | None, until: float | None = None) -> Retriever:
        """That of now, which follows the store; or the one of a moment."""
        return self.live(until) if as_of is None else self._of_moments(as_of, until)

    def close(self) -> None:
        """Lets a fit that is under way end."""
        self.live.close()

    def _fit(self, as_of: datetime | None, until: float | None) -> Retriever:
        revision, (known, titles, texts) = self.store.revision(), self._texts
        changes = self.store.changes_since(known)
        same = changes is not None and not changes.item_ids  # a product may be called something else since
        built = Retriever.build(
            self.store,
            self.encoder,
            as_of,
            self._reporter("Embedding titles"),
            titles=titles if same else None,
            texts=texts if known == revision else None,
            until=until,
        )
        self._texts = revision, built.titles if built.complete else None, built.texts
        self.parts = published_fingerprint(self.store)
        self.served = self.served or as_of is None
        return built

    def _reporter(self, what: str) -> Callable[[int, int], None] | None:
        """The progress function that one piece of work reports (done, of) to."""
        progress = self._progress
        return None if progress is None else lambda done, of: progress(what, done, of)
