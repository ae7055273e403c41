"""From a predicted text, a query and a history to catalogue items: mixup as F 4.4, and the fusion of more sources (DESIGN 4, `retrieve`).

Where a fusion was learnt and published (tools/ranking.py), its network ranks what the counted sources, CORE and the text transformer say; what it
has not learnt comes on top with a hand-set weight: the LLM's prediction always, the query where no case to learn from had one. Without a
published fusion all lists are fused by hand-set weights.

Every candidate says which source brought it. The LLM that predicts, the reranking and the user's summary are unknown here; so is who
asks: what must not be recommended comes in as arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from recgraph.errors import SettingsError
from recgraph.settings import MODES
from recgraph.store.db import Catalogue, Store
from recgraph.store.records import Event, is_named
from recgraph.tools.embed import Encoder, Progress, embed
from recgraph.tools.index import VectorIndex, Vectors
from recgraph.tools.memory import MemoryHit
from recgraph.tools.ranking import Found, Fusion, Ranker
from recgraph.tools.sources.base import Past, Request
from recgraph.tools.sources.core import Core
from recgraph.tools.sources.text import LEANING
from recgraph.tools.sources.textformer import TextFormer
from recgraph.tools.sources.transitions import TransitionTable, fit, session_vector

# The lists that are fused where no fusion was learnt, in the order of ties:
# neighbours of the predicted ID and title (F 4.4); what followed such a history; what is near
# it for CORE's encoder; what the user looked at last and did not buy; titles near the history's; the query memory; titles near the query.
# Tuned on half of 586 shoppers of the simulated shop (last purchase of six weeks, history and last query given) and half of 4,473 users of
# Beauty (history only), reported on the other halves, without an LLM; the weights of "id" and "title" wait for a trained one.
# Recall@10/NDCG@10 of the fusion against its best list: a fresh query .416/.238 (memory .287/.168, text .300/.162); a query under way .939/.709
# (viewed .949/.754, sequence .631/.449); Beauty .095/.055 (sequence .090/.053). At most two of a style: .345/.215 and .857/.678; four: .403/.234
# and .928/.706, because shoppers compare the colours of one style.
HISTORY_LED: Mapping[str, float] = {"id": 0.3, "title": 0.3, "sequence": 1.0, "core": 1.0, "viewed": 1.0, "near": 0.75, "memory": 0.3, "text": 0.3}
QUERY_LED: Mapping[str, float] = {"id": 0.3, "title": 0.3, "sequence": 0.3, "core": 0.3, "viewed": 0.3, "near": 0.3, "memory": 1.0, "text": 1.0}
# What the network ranks is one list among those that it has not learnt. Beside its weight of 1 an LLM's item that it does not have at all, first of
# "id" and of "title", comes about eighth, and one that it has twentieth about second.
LEARNT = 1.0
_SHOWN_AS = {"core": "sequence", "viewed": "sequence", "near": "title"}  # lists without a name of their own in the public JSON (DESIGN 8)
# Cormack 2009 fuses dozens of rankings with 60; few lists that each know something else want their top counted more: 10 was best of 10, 20, 30, 60.
RRF_CONSTANT = 10
DEPTH = 100  # how far down each list is read
VIEWED = 5  # so many of the products last looked at; all of them would fill the answer with what the user has seen already
NEAR_ENOUGH = 0.5  # a title below this share of the best one's similarity is no neighbour: in a small shop everything would be one
POPULAR_DAYS = 30.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A catalogue item that may be recommended. `score` descends within one answer and compares nothing beyond it.

    `source` contributed most, `sources` are all that had the item: id | title | sequence | memory | text | popular.
    """

    item_id: str
    score: float
    source: str
    sources: tuple[str, ...]


def mixup(id_list: Sequence[str], title_list: Sequence[str], k: int, n: int = 1) -> list[str]:
    """F 4.4: the top `n` of the ID list, then the title list up to `k`, without repeats.

    Where the title list is too short, the rest of the ID list follows; where the ID list is shorter than `n`, more of the title list.
    """
    return list(dict.fromkeys([*id_list[: max(n, 0)], *title_list, *id_list]))[: max(k, 0)]


def fuse(
    lists: Mapping[str, Sequence[str]], k: int | None = None, weights: Mapping[str, float] = HISTORY_LED, constant: float = RRF_CONSTANT
) -> list[Candidate]:
    """Weighted reciprocal rank fusion: an item's score is the sum over the lists of weight / (constant + rank), ranks from 1.

    Ties: the item that stands in the earlier list, there the higher one, comes first. A list without a weight counts with 1, one of
    weight 0 not at all. Only the first mention of an item in a list counts.
    """
    shares: dict[str, dict[str, float]] = {}
    for source, item_ids in lists.items():
        weight = weights.get(source, 1.0)
        if weight <= 0:
            continue
        for rank, item_id in enumerate(dict.fromkeys(item_ids), start=1):
            shares.setdefault(item_id, {})[source] = weight / (constant + rank)
    # sorted and max keep the first of equals, so both ties follow the order of `lists`.
    ranked = sorted(shares.items(), key=lambda pair: -round(sum(pair[1].values()), 12))
    found = [Candidate(item_id, sum(share.values()), max(share, key=lambda source: share[source]), tuple(share)) for item_id, share in ranked]
    return found if k is None else found[: max(k, 0)]


def memory_list(hits: Sequence[MemoryHit]) -> list[str]:
    """The products of several memory hits as one list, by `memory_scores`."""
    scores = memory_scores(hits)
    return sorted(scores, key=lambda item_id: -round(scores[item_id], 12))


def memory_scores(hits: Sequence[MemoryHit]) -> dict[str, float]:
    """The products of several memory hits: each mention counts similarity / its position, and they add up."""
    scores: dict[str, float] = {}
    for hit in hits:
        for position, item_id in enumerate(hit.item_ids, start=1):
            scores[item_id] = scores.get(item_id, 0.0) + max(hit.similarity, 0.0) / position
    return scores


def is_fresh(query: str, history: Sequence[Event]) -> bool:
    """Whether a query says more than the history: it is there, and the user has not yet looked at anything under it.

    Otherwise the newest search of the history is this query and an item follows it: the visit is under way and its items say more.
    """
    if not query.strip():
        return False
    for place in range(len(history) - 1, -1, -1):
        if history[place].action == "search":
            same = history[place].query.strip().casefold() == query.strip().casefold()
            return not (same and place < len(history) - 1)
    return True


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


class Retriever:
    """Everything retrieval needs, in memory, as of one moment. Thread-safe once built.

    Eligible are the products in stock and, with `before`, first seen before it. `titles` and `ids` are indexes over the catalogue's
    item_ids in its order, `popular` item_ids, best first. With `core`, over the same catalogue, `ids` is its item table. `fused` is the learnt
    fusion, over the same catalogue; without it all is fused by hand-set weights.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        encoder: Encoder,
        titles: VectorIndex,
        ids: VectorIndex,
        transitions: TransitionTable,
        popular: Sequence[str],
        before: datetime | None = None,
        per_style: int = 3,
        core: Core | None = None,
        fused: Ranker | None = None,
    ) -> None:
        self.catalogue, self.before, self.per_style, self.core, self.fused = catalogue, before, per_style, core, fused
        self.titles = titles
        self._encoder, self._ids, self._transitions, self._popular = encoder, ids, transitions, tuple(popular)
        self._row_of = {item_id: row for row, item_id in enumerate(catalogue.item_ids)}
        self.eligible: NDArray[np.bool_] = catalogue.offered
        if before is not None:
            self.eligible &= catalogue.first_seen < np.datetime64(before, "us")

    @classmethod
    def build(
        cls,
        store: Store,
        encoder: Encoder,
        before: datetime | None = None,
        progress: Progress | None = None,
        per_style: int = 3,
        titles: VectorIndex | None = None,
        core: Core | None = None,
    ) -> Retriever:
        """Embeds the titles the store has no vectors of and fits the transitions on what happened before `before`.

        The ID embedding is the CORE that was published in the store, if it knows nothing later than that (`core` is another one to use);
        else it is fitted from the transitions, and nothing stands in for CORE's encoder. Likewise the fusion: it is the published one, if it
        knows nothing later and was learnt with this encoder; its sources are fitted here, as of `before`. It is not used without one of them: CORE
        or the text transformer, which may be missing, know too much or read another encoder's vectors.

        `progress` is told (done, total) of the titles. `titles` is the index of an earlier retriever of the same store: titles do not depend
        on the moment. An empty store is fine: there is nothing to retrieve then.
        """
        catalogue = store.catalogue()
        n = len(catalogue.item_ids)
        if titles is None or titles.keys != tuple(catalogue.item_ids):
            # Of an untitled product without attributes nothing is known; its vector stays zero and is never found.
            told = [row for row, item_id in enumerate(catalogue.item_ids) if is_named(item_id, catalogue.names[row])]
            vectors = np.zeros((n, encoder.dim), dtype=np.float32)
            vectors[told] = embed(store, encoder, "title", [catalogue.names[row] for row in told], progress).reshape(len(told), encoder.dim)
            titles = VectorIndex(catalogue.item_ids, vectors)
        sequences = store.sequences(before)
        recent = store.popular(before, days=POPULAR_DAYS, limit=500)
        popular = dict.fromkeys(item_id for item_id, _ in [*recent, *store.popular(before, limit=500)])
        core = core or Core.published(store, before)
        core = core.over(catalogue.item_ids) if core else None
        fusion, fused = Fusion.published(store, before), None
        if fusion and fusion.config["encoder"] == encoder.name:
            known = [titles.vector(item_id) for item_id in catalogue.item_ids]
            nothing = np.zeros(encoder.dim, dtype=np.float32)
            vectors = np.stack([nothing if vector is None else vector for vector in known])
            former = TextFormer.published(store, before)
            former = former if former and former.config["encoder"] == encoder.name else None
            fused = Ranker.of(fusion, Past(sequences, catalogue.names, vectors, core, former))
        return cls(
            catalogue,
            encoder,
            titles,
            VectorIndex(catalogue.item_ids, core.units() if core else fit(sequences, n)),
            TransitionTable.fit(sequences, n),
            list(popular),
            before,
            per_style,
            core,
            fused,
        )

    def candidates(
        self,
        *,
        predicted_id: str | None = None,
        predicted_title: str = "",
        query: str = "",
        history: Sequence[Event] = (),
        memory: Sequence[MemoryHit] = (),
        k: int = 20,
        mode: str = "fused",
        mixup_n: int = 1,
        exclude: Collection[str] = (),
        exclude_purchased: bool = True,
    ) -> list[Candidate]:
        """min(k, what may be shown) distinct eligible items, best first.

        `mode` "paper" is F 4.4 and nothing else; only where there is no prediction the newest item of the history stands in for it.
        "fused" fuses all sources, the learnt fusion's or all lists by hand-set weights, others for a query the user has not yet followed
        (`is_fresh`), and shows at most `per_style` products of one parent_id, as long as there are others.

        In both, what the user purchased in `history` (unless `exclude_purchased` is off), the items in `exclude` and what is out of
        stock are never shown, and what is missing at the end is filled from the popular items, then from the catalogue in its order.

        Raises SettingsError for another mode.
        """
        if mode not in MODES:
            raise SettingsError(f"mode is '{mode}'; it must be one of {', '.join(MODES)}.")
        allowed = self._allowed(history if exclude_purchased else (), exclude)
        k = min(k, int(allowed.sum()))
        if k <= 0:
            return []
        depth = max(DEPTH, 4 * k)
        if mode == "paper":
            last = next((event.item_id for event in reversed(history) if event.item_id in self._row_of), "")
            if not predicted_id and not predicted_title and last:
                predicted_id, predicted_title = last, self.catalogue.names[self._row_of[last]]
            found = self._mixed(predicted_id, predicted_title, k, mixup_n, allowed)
        else:
            weights = QUERY_LED if is_fresh(query, history) else HISTORY_LED
            if self.fused:
                found = self._learnt(self.fused, predicted_id, predicted_title, query, history, memory, depth, allowed, weights)
            else:
                lists = self.lists(predicted_id, predicted_title, query, history, memory, depth, allowed)
                found = [_public(candidate) for candidate in fuse(lists, weights=weights)]
        return self._filled(found, k, allowed, self.per_style if mode == "fused" else None)

    def name_of(self, item_id: str) -> str:
        """The name a catalogue item is shown by. Raises KeyError for an unknown id."""
        return self.catalogue.names[self._row_of[item_id]]

    def lists(
        self,
        predicted_id: str | None,
        predicted_title: str,
        query: str,
        history: Sequence[Event],
        memory: Sequence[MemoryHit],
        depth: int,
        allowed: NDArray[np.bool_],
    ) -> dict[str, list[str]]:
        """The lists that are fused where no fusion was learnt, at most `depth` item_ids each; one that has nothing to go by is empty."""
        seen = [event.item_id for event in history if event.item_id in self._row_of]
        taste = self._taste(seen)
        title, asked = self._encoded([predicted_title, query])
        if asked.any():
            asked = asked + LEANING * taste
        near_title, near, near_query = map(_close, self.titles.search(np.stack([title, taste, asked]), depth, allowed))
        rows = [self._row_of[item_id] for item_id in seen]
        return {
            "id": self._near_id(predicted_id, depth, allowed),
            "title": near_title,
            "sequence": [self.catalogue.item_ids[row] for row, _ in self._transitions.next(rows, depth, allowed)],
            "core": self._near_session(rows, depth, allowed),
            "viewed": [item_id for item_id in dict.fromkeys(reversed(seen)) if self._may(item_id, allowed)][:VIEWED],
            "near": near,
            "memory": [item_id for item_id in memory_list(memory) if self._may(item_id, allowed)][:depth],
            "text": near_query,
        }

    def request(self, query: str, history: Sequence[Event], memory: Sequence[MemoryHit], vector: Vectors | None = None) -> Request:
        """The request as the sources of a fusion read it; the query's `vector` is made where it is not given."""
        rows = np.array([self._row_of[event.item_id] for event in history if event.item_id in self._row_of], np.int64)
        if vector is None:
            vector = self._encoded([query])[0]
        held = tuple((self._row_of[item_id], score) for item_id, score in memory_scores(memory).items() if item_id in self._row_of)
        return Request(rows, query.strip(), vector, held, is_fresh(query, history))

    def _learnt(
        self,
        fused: Ranker,
        predicted_id: str | None,
        predicted_title: str,
        query: str,
        history: Sequence[Event],
        memory: Sequence[MemoryHit],
        depth: int,
        allowed: NDArray[np.bool_],
        weights: Mapping[str, float],
    ) -> list[Candidate]:
        """What the network ranks, and on top of it the lists that it has not learnt."""
        title, asked = self._encoded([predicted_title, query])
        found = {self.catalogue.item_ids[one.row]: one for one in fused.first(self.request(query, history, memory, asked), allowed, depth)}
        lists = {
            "fused": list(found),
            "id": self._near_id(predicted_id, depth, allowed),
            "title": _close(self.titles.search(title, depth, allowed)[0]),
        }
        if not fused.knows("memory"):
            lists["memory"] = [item_id for item_id in memory_list(memory) if self._may(item_id, allowed)][:depth]
        if not fused.knows("query-text", "query-words") and asked.any():
            seen = [event.item_id for event in history if event.item_id in self._row_of]
            lists["text"] = _close(self.titles.search(asked + LEANING * self._taste(seen), depth, allowed)[0])
        return [_as_found(candidate, found.get(candidate.item_id)) for candidate in fuse(lists, weights={**weights, "fused": LEARNT})]

    def _mixed(self, predicted_id: str | None, title: str, k: int, n: int, allowed: NDArray[np.bool_]) -> list[Candidate]:
        by_id = self._near_id(predicted_id, k, allowed)
        by_title = [key for key, _ in self.titles.search(self._encoded([title]), k, allowed)[0]]
        first = set(by_id[: max(n, 0)])
        found = []
        for rank, item_id in enumerate(mixup(by_id, by_title, k, n), start=1):
            source = "id" if item_id in first or item_id not in by_title else "title"
            both = tuple(name for name, ids in (("id", by_id), ("title", by_title)) if item_id in ids)
            found.append(Candidate(item_id, 1.0 / rank, source, both))
        return found

    def _near_id(self, item_id: str | None, k: int, allowed: NDArray[np.bool_]) -> list[str]:
        """The item itself, where it may be shown, and its neighbours in the ID embedding; a cold item has no neighbours."""
        if not item_id or item_id not in self._row_of:
            return []
        vector = self._ids.vector(item_id)
        near = [] if vector is None else [key for key, _ in self._ids.search(vector, k, allowed)[0]]
        itself = [item_id] if self._may(item_id, allowed) else []
        return list(dict.fromkeys([*itself, *near]))[:k]

    def _near_session(self, rows: Sequence[int], k: int, allowed: NDArray[np.bool_]) -> list[str]:
        """The items nearest to what CORE's encoder makes of a history, the history's own left out: as near as they are, "viewed" brings them."""
        if self.core is None:
            return []
        others = allowed.copy()
        others[list(rows)] = False
        return [key for key, _ in self._ids.search(self.core.session_vector(rows), k, others)[0]]

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
        return session_vector(np.stack(known), range(len(known))) if known else np.zeros(self._encoder.dim, dtype=np.float32)

    def _may(self, item_id: str, allowed: NDArray[np.bool_]) -> bool:
        row = self._row_of.get(item_id)
        return row is not None and bool(allowed[row])

    def _allowed(self, history: Sequence[Event], exclude: Iterable[str]) -> NDArray[np.bool_]:
        allowed = self.eligible.copy()
        bought = (event.item_id for event in history if event.action == "purchase")
        rows = [self._row_of[item_id] for item_id in (*bought, *exclude) if item_id in self._row_of]
        allowed[rows] = False
        return allowed

    def _filled(self, found: Sequence[Candidate], k: int, allowed: NDArray[np.bool_], per_style: int | None) -> list[Candidate]:
        """The first k of `found`, filled up; first with the limit of a style, and without it only if k is not reached."""
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

    def _in_order(self, found: Sequence[Candidate], allowed: NDArray[np.bool_]) -> Iterable[Candidate]:
        yield from found
        yield from (Candidate(item_id, 0.0, "popular", ("popular",)) for item_id in self._popular if self._may(item_id, allowed))
        yield from (Candidate(self.catalogue.item_ids[row], 0.0, "popular", ("popular",)) for row in np.flatnonzero(allowed))
