"""What the product itself would show for a case at its moment: the first of its own ranking, made of the train part
alone. The LLM's prediction is no part of it.

Which products of these are learnt from, and how, is unknown here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recgraph.store.db import Store
from recgraph.store.records import Event
from recgraph.tools.candidates import Candidate
from recgraph.tools.embed import Encoder
from recgraph.tools.index import VectorIndex
from recgraph.tools.memory import MemoryHit
from recgraph.tools.retrieve import RetrievalQuery, Retriever, eligible
from recgraph.tools.trained import TrainedParts
from recgraph.tools.wish.understand import understand
from recgraph.tools.wish.vocabulary import Vocabulary
from recgraph.train.prepare import Case
from recgraph.train.vectors import title_vectors

FIRST = 20  # candidates that a run has the LLM rerank


class Served:
    """The ranking of a shop as of its train part; `eligible` then is what was on sale at a case's moment."""

    def __init__(self, retriever: Retriever, encoder: Encoder) -> None:
        self._retriever = retriever
        self._vocabulary = Vocabulary.of(retriever.fitted.facets, encoder)

    @classmethod
    def of(cls, train: Store, encoder: Encoder, folder: Path) -> Served:
        """From the train part, which is written into, and what the stages made of it in `folder`/data; where no ranking
        was learnt there, the sources are weighed by hand."""
        if (folder / "data" / "ranking").is_dir():
            TrainedParts.load(folder / "data").publish(train)
        catalogue = train.catalogue()
        titles = VectorIndex(catalogue.item_ids, title_vectors(folder, catalogue.item_ids, catalogue.names))
        return cls(Retriever.build(train, encoder, titles=titles), encoder)

    def first(self, case: Case, history: Sequence[Event], memory: Sequence[MemoryHit]) -> list[str]:
        """The ids of the first products, best first."""
        return [candidate.item_id for candidate in self.candidates(case, history, memory)]

    def candidates(
        self,
        case: Case,
        history: Sequence[Event],
        memory: Sequence[MemoryHit],
        predicted: tuple[str, str] = ("", ""),
        count: int = FIRST,
    ) -> list[Candidate]:
        """The first products, best first; `predicted` is the id and the title that a language model expects."""
        asked = RetrievalQuery(
            *predicted,
            query=case.query,
            history=history,
            memory=memory,
            k=count,
            wish=understand(case.query, self._vocabulary) if case.query else None,
        )
        return self._retriever.candidates(asked, among=eligible(self._retriever.catalogue, case.as_of))
