"""From a predicted text, a query and a history to catalogue items: mixup as F 4.4, and the fusion of more sources
(DESIGN 4, `retrieve`).

Where a fusion was learnt and published (tools/ranking.py), its network ranks what the counted sources, CORE and the
text transformer say; what it has not learnt comes on top with a hand-set weight: the LLM's prediction always, the query
where no case to learn from had one. Without a published fusion all lists are fused by hand-set weights.

Every candidate says which source brought it. The LLM that predicts, the reranking and the user's summary are unknown
here; so is who asks: what must not be recommended comes in as arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from recgraph.errors import SettingsError
from recgraph.settings import MODES
from recgraph.store.db import Catalogue, Store
from recgraph.store.records import Event, is_named
from recgraph.tools.candidates import (
    HISTORY_LED,
    QUERY_LED,
    Candidate,
    fuse,
    is_fresh,
    memory_list,
    memory_scores,
    mixup,
)
from recgraph.tools.embed import Encoder, Progress, embed_until
from recgraph.tools.index import Mask, VectorIndex, Vectors
from recgraph.tools.memory import MemoryHit
from recgraph.tools.ranking import Found, LearntRanking, Ranker
from recgraph.tools.sources.base import Past, Request
from recgraph.tools.sources.core import Core
from recgraph.tools.sources.text import LEANING
from recgraph.tools.sources.textformer import TextFormer
from recgraph.tools.sources.transitions import TransitionTable, id_embedding, session_vector
from recgraph.tools.taken import Taken, TakenItem
from recgraph.tools.wish.facets import Facets, Relaxation
from recgraph.tools.wish.wish import Wish

# What the network ranks is one list among those that it has not learnt. Beside its weight of 1 an LLM's item that it
# does not have at all, first of "id" and of "title", comes about eighth, and one that it has twentieth about second.
LEARNT = 1.0
_SHOWN_AS = {
    "core": "sequence",
    "viewed": "sequence",
    "near": "title",
}  # lists without a name of their own in the public JSON (DESIGN 8)
DEPTH = 100  # how far down each list is read
VIEWED = (
    5  # so many of the products last looked at; all of them would fill the answer with what the user has seen already
)
# a title below this share of the best one's similarity is no neighbour: in a small shop everything would be one
NEAR_ENOUGH = 0.5


def _close(found: Sequence[tuple[str, float]]) -> list[str]:
    """The keys of a search's answer that are NEAR_ENOUGH to what was asked."""
    return [key for key, score in found if score > 0 and score >= NEAR_ENOUGH * found[0][1]]


def _public(candidate: Candidate) -> Candidate:
    """The candidate with the source names of DESIGN 8."""
    names = tuple(dict.fromkeys(_SHOWN_AS.get(source, source) for source in candidate.sources))
    return replace(candidate, source=_SHOWN_AS.get(candidate.source, candidate.source), sources=names)


def _as_found(candidate: Candidate, found: Found | None) -> Candidate:
    """A candidate of the list "fused" with the names of the sources behind it."""
    if found is None:
        return candidate
    others = tuple(name for name in candidate.sources if name not in ("fused", *found.sources))
    source = found.source if candidate.source == "fused" else candidate.source
    if source == "popular" and others:  # a reason only where there is no other
        source = others[0]
    return replace(candidate, source=source, sources=(*others, *found.sources))


@dataclass(frozen=True, slots=True)
class RetrievalQuery:
    """What retrieval is asked: what the LLM predicted, the query, the user's history and what the query memory holds of
    the query.

    `k` candidates are wanted. `mode` "paper" is F 4.4 and nothing else, with the top `mixup_n` of the ID list first;
    "fused" takes all sources. What the user purchased in `history` (unless `exclude_purchased` is off) and the items in
    `exclude` are never shown. SettingsError for another mode.
    """

    predicted_id: str = ""
    predicted_title: str = ""
    query: str = ""
    history: Sequence[Event] = ()
    memory: Sequence[MemoryHit] = ()
    k: int = 20
    mode: str = "fused"
    mixup_n: int = 1
    exclude: Collection[str] = ()
    exclude_purchased: bool = True
    wish: Wish | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise SettingsError(f"mode is '{self.mode}'; it must be one of {', '.join(MODES)}.")


@dataclass(frozen=True, slots=True)
class Fitted:
    """What is known of a catalogue as of the moment `before` (None: all there is): indexes over its titles and ids, in
    its order, what followed what, and what was taken. With `core`, over the same catalogue, `ids` is its item table.
    `fused` is the learnt fusion, over the same catalogue; without it all is fused by hand-set weights. `unembedded`
    titles are in the index as zeros, for the time was up before they were embedded."""

    catalogue: Catalogue
    before: datetime | None
    titles: VectorIndex
    ids: VectorIndex
    transitions: TransitionTable
    taken: Taken
    core: Core | None = None
    fused: Ranker | None = None
    unembedded: int = 0
    facets: Facets | None = None


def eligible(catalogue: Catalogue, before: datetime | None) -> Mask:
    """bool[items]: what is in stock and listed and, with a moment, was first seen before it."""
    if before is None:
        return catalogue.offered
    return np.asarray(catalogue.offered & (catalogue.first_seen < np.datetime64(before, "us")), np.bool_)


class Retriever:
    """Everything retrieval needs, in memory, as of one moment. Thread-safe once built: nothing in it changes."""

    def __init__(self, fitted: Fitted, encoder: Encoder, per_style: int = 3) -> None:
        """At most `per_style` products of one parent_id are shown as long as there are others."""
        self.fitted, self.per_style = fitted, per_style
        self.catalogue, self.titles, self.core, self.fused = fitted.catalogue, fitted.titles, fitted.core, fitted.fused
        self._encoder = encoder
        self._row_of = {item_id: row for row, item_id in enumerate(fitted.catalogue.item_ids)}
        self.eligible: Mask = eligible(fitted.catalogue, fitted.before)

    @property
    def complete(self) -> bool:
        """Whether every title that says something is embedded."""
        return not self.fitted.unembedded

    @classmethod
    def build(
        cls,
        store: Store,
        encoder: Encoder,
        before: datetime | None = None,
        progress: Progress | None = None,
        *,
        titles: VectorIndex | None = None,
        until: float | None = None,
        per_style: int = 3,
    ) -> Retriever:
        """Embeds the titles the store has no vectors of and fits the transitions on what happened before `before`.

        The ID embedding is the CORE that was published in the store, if it knows nothing later than that; else it is
        fitted from the transitions, and nothing stands in for CORE's encoder. Likewise the fusion: it is the published
        one, if it knows nothing later and was learnt with this encoder; its sources are fitted here, as of `before`. It
        is not used without one of them: CORE or the text transformer, which may be missing, know too much or read
        another encoder's vectors.

        `progress` is told (done, total) of the titles; at `until` (`time.monotonic()`) embedding ends, done or not.
        `titles` is the whole index of an earlier retriever of the same store: titles do not depend on the moment. An
        empty store is fine: there is nothing to retrieve then.
        """
        catalogue = store.catalogue()
        unembedded = 0
        if titles is None or titles.keys != tuple(catalogue.item_ids):
            titles, unembedded = _embedded(store, encoder, catalogue, progress, until)
        sequences = store.sequences(before)
        core = Core.published(store, before)
        core = core.over(catalogue.item_ids) if core else None
        n = len(catalogue.item_ids)
        fitted = Fitted(
            catalogue,
            before,
            titles,
            VectorIndex(catalogue.item_ids, core.units() if core else id_embedding(sequences, n)),
            TransitionTable.fit(sequences, n),
            Taken.of(store, sequences, n, before),
            core,
            _published_ranking(store, encoder, Past(sequences, catalogue.names, None, core), titles, before),
            unembedded,
            Facets.of(store),
        )
        return cls(fitted, encoder, per_style)

    def candidates(self, asked: RetrievalQuery, among: Mask | None = None) -> list[Candidate]:
        """min(k, what may be shown) distinct items, best first; `among` bool[items] stands in for what is eligible.

        In mode "paper" the newest item of the history stands in where there is no prediction. "fused" fuses the learnt
        fusion's list or all lists by hand-set weights, others for a query the user has not yet followed (`is_fresh`).
        In both, what is missing at the end is filled from the popular items, then from the catalogue in its order.
        """
        allowed = self._allowed(asked, self.eligible if among is None else among)
        k = min(asked.k, int(allowed.sum()))
        if k <= 0:
            return []
        if asked.mode == "paper":
            return self._filled(self._mixed(asked, k, allowed), k, allowed, None)
        depth = max(DEPTH, 4 * k)
        weights = QUERY_LED if is_fresh(asked.query, asked.history) else HISTORY_LED
        if self.fused:
            found = self._learnt(self.fused, asked, depth, allowed, weights)
        else:
            found = [_public(candidate) for candidate in fuse(self.lists(asked, depth, allowed), weights=weights)]
        return self._filled(found, k, allowed, self.per_style)

    def relaxations(self, wish: Wish, exclude: Collection[str] = ()) -> tuple[Relaxation, ...]:
        """Which hard parts could give way."""
        if self.fitted.facets is None:
            return ()
        return self.fitted.facets.relaxations(wish, self._allowed(RetrievalQuery(exclude=exclude), self.eligible))

    def taken(self, item_id: str) -> TakenItem:
        """How often shoppers took a product, as of the moment of this retriever. Nothing for an unknown id."""
        return self.fitted.taken.item(self._row_of.get(item_id))

    def led_to(self, item_id: str, item_ids: Iterable[str]) -> frozenset[str]:
        """Those of `item_ids` from which shoppers went on to the product."""
        row, known = self._row_of.get(item_id), [one for one in dict.fromkeys(item_ids) if one in self._row_of]
        if row is None or not known:
            return frozenset()
        follows = self.fitted.transitions.table[[self._row_of[one] for one in known], row].toarray().ravel()
        return frozenset(one for one, strength in zip(known, follows, strict=True) if strength > 0)

    def name_of(self, item_id: str) -> str:
        """The name a catalogue item is shown by. Raises KeyError for an unknown id."""
        return self.catalogue.names[self._row_of[item_id]]

    def lists(self, asked: RetrievalQuery, depth: int, allowed: Mask) -> dict[str, list[str]]:
        """The lists that are fused where no fusion was learnt, at most `depth` item_ids each; one that has nothing to
        go by is empty."""
        seen = [event.item_id for event in asked.history if event.item_id in self._row_of]
        taste = self._taste(seen)
        title, query = self._encoded([asked.predicted_title, asked.query])
        if query.any():
            query = query + LEANING * taste
        near_title, near, near_query = map(_close, self.titles.search(np.stack([title, taste, query]), depth, allowed))
        rows = [self._row_of[item_id] for item_id in seen]
        return {
            "id": self._near_id(asked.predicted_id, depth, allowed),
            "title": near_title,
            "sequence": [self.catalogue.item_ids[row] for row, _ in self.fitted.transitions.next(rows, depth, allowed)],
            "core": self._near_session(rows, depth, allowed),
            "viewed": [item_id for item_id in dict.fromkeys(reversed(seen)) if self._may(item_id, allowed)][:VIEWED],
            "near": near,
            "memory": [item_id for item_id in memory_list(asked.memory) if self._may(item_id, allowed)][:depth],
            "text": near_query,
        }

    def request(
        self, query: str, history: Sequence[Event], memory: Sequence[MemoryHit], vector: Vectors | None = None
    ) -> Request:
        """The request as the sources of a fusion read it; the query's `vector` is made where it is not given."""
        rows = np.array([self._row_of[event.item_id] for event in history if event.item_id in self._row_of], np.int64)
        if vector is None:
            vector = self._encoded([query])[0]
        held = tuple(
            (self._row_of[item_id], score)
            for item_id, score in memory_scores(memory).items()
            if item_id in self._row_of
        )
        return Request(rows, query.strip(), vector, held, is_fresh(query, history))

    def _learnt(
        self, fused: Ranker, asked: RetrievalQuery, depth: int, allowed: Mask, weights: Mapping[str, float]
    ) -> list[Candidate]:
        """What the network ranks, and on top of it the lists that it has not learnt."""
        title, query = self._encoded([asked.predicted_title, asked.query])
        request = self.request(asked.query, asked.history, asked.memory, query)
        found = {self.catalogue.item_ids[one.row]: one for one in fused.first(request, allowed, depth)}
        lists = {
            "fused": list(found),
            "id": self._near_id(asked.predicted_id, depth, allowed),
            "title": _close(self.titles.search(title, depth, allowed)[0]),
        }
        if not fused.knows("memory"):
            lists["memory"] = [item_id for item_id in memory_list(asked.memory) if self._may(item_id, allowed)][:depth]
        if not fused.knows("query-text", "query-words") and query.any():
            seen = [event.item_id for event in asked.history if event.item_id in self._row_of]
            lists["text"] = _close(self.titles.search(query + LEANING * self._taste(seen), depth, allowed)[0])
        return [
            _as_found(candidate, found.get(candidate.item_id))
            for candidate in fuse(lists, weights={**weights, "fused": LEARNT})
        ]

    def _mixed(self, asked: RetrievalQuery, k: int, allowed: Mask) -> list[Candidate]:
        """F 4.4, of the prediction or else of the newest item."""
        predicted_id, title = asked.predicted_id, asked.predicted_title
        last = next((event.item_id for event in reversed(asked.history) if event.item_id in self._row_of), "")
        if not predicted_id and not title and last:
            predicted_id, title = last, self.name_of(last)
        by_id = self._near_id(predicted_id, k, allowed)
        by_title = [key for key, _ in self.titles.search(self._encoded([title]), k, allowed)[0]]
        first = set(by_id[: max(asked.mixup_n, 0)])
        found = []
        for rank, item_id in enumerate(mixup(by_id, by_title, k, asked.mixup_n), start=1):
            source = "id" if item_id in first or item_id not in by_title else "title"
            both = tuple(name for name, ids in (("id", by_id), ("title", by_title)) if item_id in ids)
            found.append(Candidate(item_id, 1.0 / rank, source, both))
        return found

    def _near_id(self, item_id: str, k: int, allowed: Mask) -> list[str]:
        """The item itself, where it may be shown, and its neighbours in the ID embedding; a cold item has no
        neighbours."""
        if item_id not in self._row_of:
            return []
        vector = self.fitted.ids.vector(item_id)
        near = [] if vector is None else [key for key, _ in self.fitted.ids.search(vector, k, allowed)[0]]
        itself = [item_id] if self._may(item_id, allowed) else []
        return list(dict.fromkeys([*itself, *near]))[:k]

    def _near_session(self, rows: Sequence[int], k: int, allowed: Mask) -> list[str]:
        """The items nearest to what CORE's encoder makes of a history, the history's own left out: as near as they are,
        "viewed" brings them."""
        if self.core is None:
            return []
        others = allowed.copy()
        others[list(rows)] = False
        return [key for key, _ in self.fitted.ids.search(self.core.session_vector(rows), k, others)[0]]

    def _encoded(self, texts: Sequence[str]) -> Vectors:
        """float32[len(texts), dim] in one forward pass; a zero row for an empty text."""
        vectors = np.zeros((len(texts), self._encoder.dim), dtype=np.float32)
        asked = [place for place, text in enumerate(texts) if text.strip()]
        if asked:
            vectors[asked] = self._encoder.encode([texts[place].strip() for place in asked])
        return vectors

    def _taste(self, item_ids: Sequence[str]) -> Vectors:
        """The recency-weighted mean of a history's title vectors, normalised; zero where no title is known."""
        known = [vector for item_id in item_ids if (vector := self.titles.vector(item_id)) is not None]
        return (
            session_vector(np.stack(known), range(len(known)))
            if known
            else np.zeros(self._encoder.dim, dtype=np.float32)
        )

    def _may(self, item_id: str, allowed: Mask) -> bool:
        row = self._row_of.get(item_id)
        return row is not None and bool(allowed[row])

    def _allowed(self, asked: RetrievalQuery, among: Mask) -> Mask:
        allowed = among.copy()
        bought = (event.item_id for event in asked.history if event.action == "purchase" and asked.exclude_purchased)
        allowed[[self._row_of[item_id] for item_id in (*bought, *asked.exclude) if item_id in self._row_of]] = False
        if asked.wish and self.fitted.facets:
            allowed &= self.fitted.facets.may(asked.wish)
        return allowed

    def _filled(self, found: Sequence[Candidate], k: int, allowed: Mask, per_style: int | None) -> list[Candidate]:
        """The first k of `found`, filled up; first with the limit of a style, and without it only if k is not
        reached."""
        chosen: dict[str, Candidate] = {}
        styles: dict[str, int] = {}
        for limit in (per_style, None) if per_style is not None else (None,):
            for candidate in self._in_order(found, allowed):
                if len(chosen) == k:
                    break
                style = self.catalogue.parent_ids[self._row_of[candidate.item_id]]
                full = limit is not None and style != "" and styles.get(style, 0) >= limit
                if candidate.item_id not in chosen and not full:
                    chosen[candidate.item_id] = candidate
                    styles[style] = styles.get(style, 0) + 1
        return list(chosen.values())

    def _in_order(self, found: Sequence[Candidate], allowed: Mask) -> Iterable[Candidate]:
        yield from found
        yield from (
            Candidate(item_id, 0.0, "popular", ("popular",))
            for item_id in self.fitted.taken.popular
            if self._may(item_id, allowed)
        )
        yield from (
            Candidate(self.catalogue.item_ids[row], 0.0, "popular", ("popular",)) for row in np.flatnonzero(allowed)
        )


def _embedded(
    store: Store, encoder: Encoder, catalogue: Catalogue, progress: Progress | None, until: float | None
) -> tuple[VectorIndex, int]:
    """The index of the titles, and how many are not in it because the time was up. Of an untitled product without
    attributes nothing is known; its vector stays zero and is never found."""
    named = [row for row, item_id in enumerate(catalogue.item_ids) if is_named(item_id, catalogue.names[row])]
    vectors = np.zeros((len(catalogue.item_ids), encoder.dim), dtype=np.float32)
    found, left = embed_until(until, store, encoder, "title", [catalogue.names[row] for row in named], progress)
    vectors[named] = found.reshape(len(named), encoder.dim)
    return VectorIndex(catalogue.item_ids, vectors), left


def _published_ranking(
    store: Store, encoder: Encoder, past: Past, titles: VectorIndex, before: datetime | None
) -> Ranker | None:
    """The learnt fusion over a past, where one was published that may be used."""
    fusion = LearntRanking.published(store, before)
    if fusion is None or fusion.config["encoder"] != encoder.name:
        return None
    known = [titles.vector(item_id) for item_id in titles.keys]
    nothing = np.zeros(encoder.dim, dtype=np.float32)
    vectors = np.stack([nothing if vector is None else vector for vector in known])
    former = TextFormer.published(store, before)
    former = former if former and former.config["encoder"] == encoder.name else None
    return Ranker.of(fusion, replace(past, vectors=vectors, former=former))
