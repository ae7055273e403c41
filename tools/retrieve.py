"""From a predicted text, a query, a wish and a history to catalogue items: mixup as F 4.4, and the ranking by many
sources (DESIGN 4, `retrieve`).

What the wish rules out is never shown, in any mode. What it names is ranked level by level: all that fits every named
attribute, best first, then what fits one less, and so on until enough is found; only where no source has anything more
of a level is it filled up from the popular items. How a level is ranked, by what was learnt or by hand, is
tools/ranking.py's. Every candidate says which source brought it. The LLM that predicts, the reranking and the user's
summary are unknown here; so is who asks: what must not be recommended comes in as arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recgraph.errors import SettingsError
from recgraph.settings import MODES
from recgraph.store.db import Catalogue, Sequences, Store
from recgraph.store.records import Event, is_named
from recgraph.tools.candidates import Candidate, is_fresh, memory_scores, mixup
from recgraph.tools.catalogue_files import load_catalogue, rows_by_id, save_catalogue
from recgraph.tools.embed import Encoder, Progress, embed_until
from recgraph.tools.index import Mask, VectorIndex, Vectors
from recgraph.tools.memory import MemoryHit
from recgraph.tools.ranking import LearntRanking, Ranked, Ranker
from recgraph.tools.sources.base import Past, Request
from recgraph.tools.sources.core import Core
from recgraph.tools.sources.kept import Built, beside
from recgraph.tools.sources.textformer import TextFormer
from recgraph.tools.sources.transitions import TransitionTable, id_embedding
from recgraph.tools.sources.words import KEPT as WORDS
from recgraph.tools.sources.words import Lengths
from recgraph.tools.taken import Taken, TakenItem
from recgraph.tools.wish.facet_files import load_facets, save_facets
from recgraph.tools.wish.facets import Facets, Relaxation
from recgraph.tools.wish.wish import Wish

KEPT_FROM = 30_000  # products from which on what is built is kept beside the store; below, building it takes moments
Why = tuple[str, tuple[str, ...]]  # the source that contributed most, and all that had the item
_OF_TEXTS = frozenset({"catalogue", "facets", "makers", *WORDS})  # what is built of the catalogue, whatever happened
_POPULAR: Why = ("popular", ("popular",))
_COMPARED = 100  # candidates at least: what is over the limit of a style needs others behind it
_TOGETHER, _MASKS = 32, 1_000_000  # requests that are read together; fewer, by what of the catalogue each may be shown
_SCORED = 11  # the score of a level's first is 1 / 11 above the level's


@dataclass(frozen=True, slots=True)
class RetrievalQuery:
    """What retrieval is asked: what the LLM predicted, the query, the user's history and what the query memory holds of
    the query.

    `k` candidates are wanted. `wish` is what the query was understood as (tools/wish/understand.py), or what was given.
    `mode` "paper" is F 4.4 and nothing else, with the top `mixup_n` of the ID list first; "fused" takes all sources.
    What the user purchased in `history` (unless `exclude_purchased` is off) and the items in `exclude` are never shown.
    SettingsError for another mode.
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
    its order, what followed what, what was taken, and what ranks. With `core`, over the same catalogue, `ids` is its
    item table. `facets` say what fits a wish. `past` is what the sources were made of. `unembedded` titles are in the
    index as zeros, for the time was up before they were embedded. `lengths` are those of its names."""

    catalogue: Catalogue
    before: datetime | None
    titles: VectorIndex
    ids: VectorIndex
    transitions: TransitionTable
    taken: Taken
    facets: Facets
    ranker: Ranker
    past: Past
    core: Core | None = None
    unembedded: int = 0
    lengths: Lengths = field(default_factory=Lengths)


def eligible(catalogue: Catalogue, before: datetime | None) -> Mask:
    """bool[items]: what is in stock and listed and, with a moment, was first seen before it."""
    if before is None:
        return catalogue.offered
    return np.asarray(catalogue.offered & (catalogue.first_seen < np.datetime64(before, "us")), np.bool_)


@dataclass(frozen=True)
class _Level:
    """What fits `fit` of the named attributes: bool[items] of all that `may` be shown, the `rows` that some source has,
    best first, `why`, which gives (source, all sources) of those at some places, and their chances where learnt."""

    fit: int
    may: Mask
    rows: list[int]
    why: Callable[[list[int]], list[Why]]
    chances: NDArray[np.generic] | None = None


class Retriever:
    """Everything retrieval needs, in memory, as of one moment. Thread-safe once built: nothing in it changes."""

    def __init__(
        self, fitted: Fitted, encoder: Encoder, per_style: int = 3, rows: Mapping[str, int] | None = None
    ) -> None:
        """At most `per_style` products of one parent_id are shown as long as there are others. `rows` are those of the
        catalogue's items by id, where somebody has them."""
        self.fitted, self.per_style = fitted, per_style
        self.catalogue, self.titles, self.ranker = fitted.catalogue, fitted.titles, fitted.ranker
        self.encoder = encoder
        self.rows: Mapping[str, int] = rows_by_id(fitted.catalogue) if rows is None else rows
        self.eligible: Mask = eligible(fitted.catalogue, fitted.before)

    @property
    def complete(self) -> bool:
        """Whether every title that says something is embedded."""
        return not self.fitted.unembedded

    @property
    def texts(self) -> Built:
        """What was built of the catalogue alone, for a retriever of another moment."""
        return self.fitted.past.kept.some(_OF_TEXTS)

    @classmethod
    def build(
        cls,
        store: Store,
        encoder: Encoder,
        before: datetime | None = None,
        progress: Progress | None = None,
        *,
        titles: VectorIndex | None = None,
        texts: Built | None = None,
        until: float | None = None,
        per_style: int = 3,
    ) -> Retriever:
        """Embeds the titles the store has no vectors of and fits the transitions on what happened before `before`.

        The ID embedding is the CORE that was published in the store, if it knows nothing later than that; else it is
        fitted from the transitions, and nothing stands in for CORE's encoder. Likewise the ranking: it is the published
        one, if it knows nothing later and was learnt with this encoder; its sources are fitted here, as of `before`. It
        is not used without one of them: CORE or the text transformer, which may be missing, know too much or read
        another encoder's vectors; then the sources there are are weighed by hand.

        `progress` is told (done, total) of the titles; at `until` (`time.monotonic()`) embedding ends, done or not.
        `titles` is the whole index of an earlier retriever of the same store, `texts` are those of one of the same
        revision: they do not depend on the moment. An empty store is fine: there is nothing to retrieve then.

        What is built of a catalogue of `KEPT_FROM` products and more, as of now, is kept in the folder NAME.index
        beside the store, by the store's revision and what was published in it; the next one who builds it maps it into
        memory.
        """
        kept = texts.some(_OF_TEXTS) if texts else Built()
        unembedded, (learnt, former) = 0, _published(store, encoder, before)
        if before is None and store.counts()["items"] >= KEPT_FROM:
            parts = (
                Core.published_name(store, before),
                former.name if former else "",
                ",".join(learnt.sources if learnt else ()),
            )
            kept = beside(store, encoder.name, *parts)
            kept.warm()
        catalogue = kept.get("catalogue", store.catalogue, save_catalogue, load_catalogue)
        n, lengths = len(catalogue.item_ids), Lengths.of(catalogue.names)
        facets = kept.get("facets", lambda: Facets.of(store), save_facets, load_facets)
        core = Core.kept(store, before, catalogue.item_ids, kept)
        if not kept.has("titles") and (titles is None or tuple(titles.keys) != tuple(catalogue.item_ids)):
            titles, unembedded = _embedded(store, encoder, catalogue, lengths, progress, until)
            kept = kept if not unembedded else kept.some(_OF_TEXTS)
        given, keys = titles, catalogue.item_ids
        titles = kept.index(
            "titles", lambda: given or _embedded(store, encoder, catalogue, lengths, None, None)[0], keys
        )
        sequences = _sequences(store, before, kept)

        def neighbours() -> VectorIndex:
            return VectorIndex(catalogue.item_ids, core.units() if core else id_embedding(sequences, n))

        ids = kept.index("ids", neighbours, keys)
        table = kept.sparse("followers", lambda: TransitionTable.fit(sequences, n).table)
        past = Past(sequences, catalogue.names, titles.stored, core, former, ids.stored, kept)
        fitted = Fitted(
            catalogue,
            before,
            titles,
            ids,
            TransitionTable(table),
            Taken.of(store, sequences, n, before, kept),
            facets,
            Ranker.of(learnt, past, facets),
            past,
            core,
            unembedded,
            lengths,
        )
        return cls(fitted, encoder, per_style)

    def candidates(self, asked: RetrievalQuery, among: Mask | None = None) -> list[Candidate]:
        """`candidates_of` one request."""
        return self.candidates_of([asked], among)[0]

    def candidates_of(self, asked: Sequence[RetrievalQuery], among: Mask | None = None) -> list[list[Candidate]]:
        """Of each request distinct items, best first, at most k; `among` bool[items] stands in for what is eligible.
        All are of one mode and one k. Of a small catalogue many requests are read together, which costs less.

        Fewer than k come where fewer may be shown: what is not eligible, is excluded, or breaks a hard part of the wish
        never is. What fits more of the named attributes comes first, whatever its taste; within such a level at most
        `per_style` of a style, unless too few are left. In mode "paper" the newest item of the history stands in where
        there is no prediction. What no source has follows last in its level: the popular items, then the catalogue in
        its order.
        """
        found: list[list[Candidate]] = []
        together = max(1, min(_TOGETHER, _MASKS // max(len(self.eligible), 1)))
        for start in range(0, len(asked), together):
            part = asked[start : start + together]
            allowed = np.stack([self._allowed(one, self.eligible if among is None else among) for one in part])
            if asked[0].mode == "paper":
                by_levels = list(map(self._mixed, part, allowed))
            else:
                by_levels = self._ranked(part, allowed)
            found += map(self._chosen, part, by_levels)
        return found

    def _chosen(self, asked: RetrievalQuery, steps: Iterator[_Level]) -> list[Candidate]:
        """The first k of the levels."""
        chosen: list[Candidate] = []
        styles: dict[str, int] = {}
        limit = None if asked.mode == "paper" else self.per_style
        while len(chosen) < asked.k and (level := next(steps, None)) is not None:
            picked = self._picked(self._in_order(level), asked.k - len(chosen), limit, styles)
            place = {row: number for number, row in enumerate(level.rows)}
            known = [row for row in picked if row in place]
            why = dict(zip(known, level.why([place[row] for row in known]), strict=True))
            for row in picked:
                score = level.fit + (1 / (_SCORED + place[row]) if row in place else 0.0)
                chance = float(level.chances[place[row]]) if level.chances is not None and row in place else None
                item_id = self.catalogue.item_ids[row]
                chosen.append(Candidate(item_id, score, *why.get(row, _POPULAR), level.fit, chance))
        return chosen

    def relaxations(self, wish: Wish, exclude: Collection[str] = (), *, enough: bool = False) -> tuple[Relaxation, ...]:
        """The hard parts of a wish without which more of what is offered would fit, the one that brings most first;
        with `enough` only those that keep back what the wish names. `exclude` is not counted."""
        allowed = self._allowed(RetrievalQuery(exclude=exclude), self.eligible)
        return self.fitted.facets.relaxations(wish, allowed, enough)

    def taken(self, item_id: str) -> TakenItem:
        """How often shoppers took a product, as of the moment of this retriever. Nothing for an unknown id."""
        return self.fitted.taken.item(self.rows.get(item_id))

    def led_to(self, item_id: str, item_ids: Iterable[str]) -> frozenset[str]:
        """Those of `item_ids` from which shoppers went on to the product."""
        row, known = self.rows.get(item_id), [one for one in dict.fromkeys(item_ids) if one in self.rows]
        if row is None or not known:
            return frozenset()
        follows = self.fitted.transitions.table[[self.rows[one] for one in known], row].toarray().ravel()
        return frozenset(one for one, strength in zip(known, follows, strict=True) if strength > 0)

    def name_of(self, item_id: str) -> str:
        """The name a catalogue item is shown by. Raises KeyError for an unknown id."""
        return self.catalogue.names[self.rows[item_id]]

    def request(
        self,
        query: str,
        history: Sequence[Event],
        memory: Sequence[MemoryHit],
        wish: Wish | None = None,
        predicted: tuple[str, str] = ("", ""),
    ) -> Request:
        """The request as the sources read it; `predicted` is the id and the title that a language model expects."""
        found = (self.rows.get(event.item_id) for event in history)
        rows = np.array([row for row in found if row is not None], np.int64)
        vector, title = self._encoded([query, predicted[1]])
        pairs = ((self.rows.get(item_id), score) for item_id, score in memory_scores(memory).items())
        held = tuple((row, score) for row, score in pairs if row is not None)
        fresh = is_fresh(query, history)
        return Request(rows, query.strip(), vector, held, fresh, wish, self.rows.get(predicted[0]), title)

    def _ranked(self, asked: Sequence[RetrievalQuery], allowed: Mask) -> list[Iterator[_Level]]:
        """Of each request by level: how much fits, what is of it, and its order."""
        requests = [
            self.request(one.query, one.history, one.memory, one.wish, (one.predicted_id, one.predicted_title))
            for one in asked
        ]

        def levels(steps: Iterator[tuple[int, Mask, Ranked]]) -> Iterator[_Level]:
            for fit, level, ranked in steps:
                yield _Level(fit, level, ranked.rows.tolist(), partial(self.ranker.why, ranked), ranked.chances)

        return [levels(steps) for steps in self.ranker.first_of(requests, allowed, max(_COMPARED, 2 * asked[0].k))]

    def _mixed(self, asked: RetrievalQuery, allowed: Mask) -> Iterator[_Level]:
        """The same by F 4.4, of the prediction or else of the newest item."""
        predicted_id, title = asked.predicted_id, asked.predicted_title
        last = next((event.item_id for event in reversed(asked.history) if event.item_id in self.rows), "")
        if not predicted_id and not title and last:
            predicted_id, title = last, self.name_of(last)
        vector = self._encoded([title])[0]
        for fit, level in self.ranker.reader.levels(asked.wish, allowed):
            by_id = self._near_id(predicted_id, asked.k, level)
            by_title = [self.catalogue.item_ids[row] for row in self.titles.nearest(vector, asked.k, level)[0]]
            first, why = set(by_id[: max(asked.mixup_n, 0)]), {}
            for item_id in mixup(by_id, by_title, asked.k, asked.mixup_n):
                source = "id" if item_id in first or item_id not in by_title else "title"
                both = tuple(name for name, ids in (("id", by_id), ("title", by_title)) if item_id in ids)
                why[self.rows[item_id]] = (source, both)
            yield _Level(fit, level, list(why), partial(_told, list(why.values())))

    def _near_id(self, item_id: str, k: int, allowed: Mask) -> list[str]:
        """The item itself, where it may be shown, and its neighbours in the ID embedding; a cold item has no
        neighbours."""
        row, ids = self.rows.get(item_id), self.fitted.ids
        if row is None:
            return []
        near = ids.nearest(ids.vectors(row), k, allowed)[0].tolist() if ids.known[row] else []
        itself = [row] if allowed[row] else []
        return [self.catalogue.item_ids[one] for one in dict.fromkeys([*itself, *near])][:k]

    def _encoded(self, texts: Sequence[str]) -> Vectors:
        """float32[len(texts), dim] in one forward pass; a zero row for an empty text."""
        vectors = np.zeros((len(texts), self.encoder.dim), dtype=np.float32)
        asked = [place for place, text in enumerate(texts) if text.strip()]
        if asked:
            vectors[asked] = self.encoder.encode([texts[place].strip() for place in asked])
        return vectors

    def _allowed(self, asked: RetrievalQuery, among: Mask) -> Mask:
        allowed = among.copy()
        bought = (event.item_id for event in asked.history if event.action == "purchase" and asked.exclude_purchased)
        rows = map(self.rows.get, (*bought, *asked.exclude))
        allowed[[row for row in rows if row is not None]] = False
        return allowed

    def _in_order(self, level: _Level) -> Iterator[int]:
        """The rows of a level: what was ranked, then by popularity, then all others."""
        seen: set[int] = set()
        popular = (self.rows[item_id] for item_id in self.fitted.taken.popular if item_id in self.rows)
        for row in chain(level.rows, popular):
            if level.may[row] and row not in seen:
                seen.add(row)
                yield row
        yield from (row for row in np.flatnonzero(level.may).tolist() if row not in seen)

    def _picked(self, rows: Iterable[int], count: int, per_style: int | None, styles: dict[str, int]) -> list[int]:
        """The first `count`, of one style at most `per_style`, counted in `styles`; what is over that follows only
        where others are too few."""
        found: list[int] = []
        over: list[int] = []
        for row in rows:
            if len(found) == count:
                break
            style = self.catalogue.parent_ids[row]
            full = per_style is not None and style != "" and styles.get(style, 0) >= per_style
            (over if full else found).append(row)
            styles[style] = styles.get(style, 0) + (not full)
        return [*found, *over[: count - len(found)]]


def _told(why: Sequence[Why], places: list[int]) -> list[Why]:
    return [why[place] for place in places]


def _embedded(
    store: Store,
    encoder: Encoder,
    catalogue: Catalogue,
    lengths: Lengths,
    progress: Progress | None,
    until: float | None,
) -> tuple[VectorIndex, int]:
    """The index of the titles, and how many are not in it because the time was up. Of an untitled product without
    attributes nothing is known; its vector stays zero and is never found."""
    named = [row for row, item_id in enumerate(catalogue.item_ids) if is_named(item_id, catalogue.names[row])]
    vectors = np.zeros((len(catalogue.item_ids), encoder.dim), dtype=np.float32)
    read = [lengths.read(catalogue.names[row]) for row in named]
    found, left = embed_until(until, store, encoder, "title", read, progress)
    vectors[named] = lengths.scaled(found.reshape(len(named), encoder.dim), read)
    return VectorIndex(catalogue.item_ids, vectors), left


def _sequences(store: Store, before: datetime | None, kept: Built) -> Sequences:
    """The store's, without who the users are; read at once from where they are kept."""
    read: list[Sequences] = []

    def column(name: str) -> NDArray[Any]:
        def make() -> NDArray[Any]:
            if not read:
                read.append(store.sequences(before))
            return np.asarray(getattr(read[0], name))

        return kept.array(f"events-{name}", make)

    return Sequences(column("user"), column("item"), column("ts"), column("action"))


def _published(
    store: Store, encoder: Encoder, before: datetime | None
) -> tuple[LearntRanking | None, TextFormer | None]:
    """The ranking and the text transformer that were published and may be used with this encoder."""
    learnt, former = LearntRanking.published(store, before), TextFormer.published(store, before)
    return (
        learnt if learnt and learnt.config["encoder"] == encoder.name else None,
        former if former and former.config["encoder"] == encoder.name else None,
    )
