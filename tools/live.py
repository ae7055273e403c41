"""The retriever of now: what a running process knows of events, prices, stock and products that came after its parts
were fitted.

A retriever never changes. On a new revision of the store `renewed` makes another one that shares what was fitted and
has its own copies of what changed: prices and attributes, what is offered, how often products were taken, and the new
products, whose rows follow after the catalogue's and which are found by their texts at once. What is counted from many
events (what follows what, neighbours by shoppers) and trained stays as it was fitted. After enough changes all is
fitted anew in a thread of its own, and takes the place of the old as a whole; until then the old one answers.
"""

from __future__ import annotations

import logging
import threading
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recgraph.errors import RecgraphError
from recgraph.store.changes import Changes
from recgraph.store.columns import Catalogue
from recgraph.store.db import Store
from recgraph.store.live.beside import Beside
from recgraph.store.records import EPOCH, Event, Item, is_named
from recgraph.tools.catalogue_files import ChangedTexts
from recgraph.tools.embed import Encoder, embed
from recgraph.tools.grown import FirstRows, GrownIndex
from recgraph.tools.index import VectorIndex, Vectors
from recgraph.tools.ranking import PoolReader, Ranker
from recgraph.tools.retrieve import Retriever
from recgraph.tools.sources.base import Past
from recgraph.tools.sources.kept import Built
from recgraph.tools.sources.registry import SOURCES, make
from recgraph.tools.sources.textformer import unit
from recgraph.tools.sources.transitions import TransitionTable
from recgraph.tools.sources.words import Lengths
from recgraph.tools.taken import Taken
from recgraph.tools.wish.facets import Facets
from recgraph.tools.wish.renewed import facets_with

MOST_AT_ONCE = 2000  # changes that are taken in between two answers; more are left to the thread that fits all anew
_log = logging.getLogger(__name__)
_ENOUGH, _SHARE = 200, 0.01  # changes after which all is fitted anew: so many, and this share of the events
_WEIGHTS = np.array([1, 2, 3])  # of a click, a cart, a purchase, as `Store.popular` weighs them
_ACTIONS = {"click": 0, "cart": 1, "purchase": 2}


@dataclass(frozen=True)
class _Snapshot:
    """A retriever, the revision it knows, the one that it was fitted on, and how many changes came since then."""

    revision: str
    retriever: Retriever
    fitted: str
    changes: int = 0


class Live:
    """Hands out the retriever of the store's newest revision. Thread-safe.

    The first call fits one, and all who ask meanwhile wait for it; after that nobody waits for a fit. A fit that fails
    is tried again after the next change, and the old one answers on; the log says why.
    """

    def __init__(self, store: Store, fit: Callable[[float | None], Retriever], enough: int | None = None) -> None:
        """`fit` makes a retriever of all the store has, with as much as is done at a moment (`time.monotonic()`; None:
        all). `enough` changes bring about a new one (None: 200, or a hundredth of the events where that is more)."""
        self._store, self._fit, self._given = store, fit, enough
        self._lock = threading.Lock()
        self._now: _Snapshot | None = None
        self._fitting: Beside | None = None
        self._closed = False

    @property
    def revision(self) -> str:
        """The revision that the retriever handed out last knows; the store's where there is none yet."""
        return self._now.revision if self._now else self._store.revision()

    @property
    def fitted(self) -> str:
        """The revision that all of the retriever handed out last was fitted on; the store's where there is none yet."""
        return self._now.fitted if self._now else self._store.revision()

    def __call__(self, until: float | None = None) -> Retriever:
        """The retriever of now."""
        now = self._now
        if now is not None and now.retriever.complete and now.revision == self._store.revision():
            return now.retriever
        with self._lock:
            if self._now is None or not self._now.retriever.complete:
                self._now = self._fitted(until)
            elif self._now.revision != self._store.revision():
                self._catch_up(self._now)
            return self._now.retriever

    def wait(self, seconds: float | None = None) -> None:
        """Returns when no fit is under way, or after so many seconds."""
        thread = self._fitting
        if thread is not None:
            thread.join(seconds)

    def close(self) -> None:
        """Lets a fit that is under way end, and starts no other."""
        self._closed = True
        self.wait()

    def _fitted(self, until: float | None) -> _Snapshot:
        # Before the store is read: what is written meanwhile is taken in once more, which costs a count too many at
        # most.
        revision = self._store.revision()
        return _Snapshot(revision, self._fit(until), revision)

    def _catch_up(self, now: _Snapshot) -> None:
        changes = self._store.changes_since(now.revision)
        if changes is None or len(changes) > MOST_AT_ONCE:
            self._start()
            return
        self._now = _Snapshot(
            changes.revision,
            renewed(now.retriever, self._store, changes),
            now.fitted,
            now.changes + len(changes),
        )
        enough = self._given or max(_ENOUGH, int(_SHARE * now.retriever.fitted.taken.ever.sum()))
        if self._now.changes >= enough:
            self._start()

    def _start(self) -> None:
        if self._closed or (self._fitting is not None and self._fitting.is_alive()):
            return
        self._fitting = Beside("recgraph-refit", self._refit)
        self._fitting.start()

    def _refit(self) -> None:
        try:
            made = self._fitted(None)
        except RecgraphError as error:  # the store was closed, or another process writes it
            _log.warning("Retrieval answers on as it was; fitting it anew failed: %s", error)
            return
        with self._lock:
            self._now = made


# ── One retriever from another ────────────────────────────────────────────────────────────────────────────────────────


def renewed(old: Retriever, store: Store, changes: Changes) -> Retriever:
    """The retriever that knows the changes; it shares with the old one all that they do not touch. Products are those
    of the store now; rows of new ones follow after the old ones."""
    fitted, n = old.fitted, len(old.catalogue.item_ids)
    items = store.items(changes.item_ids)
    new = sorted(item_id for item_id in items if item_id not in old.rows)
    added = {item_id: n + place for place, item_id in enumerate(new)}
    rows: Mapping[str, int] = ChainMap(added, old.rows) if new else old.rows  # type: ignore[arg-type]
    by_row = {rows[item_id]: item for item_id, item in items.items()}
    events = _events(store, changes)
    taken = _taken(fitted.taken, rows, events, len(new))
    facets = facets_with(fitted.facets, by_row) if fitted.facets and by_row else fitted.facets
    catalogue, titles, past = fitted.catalogue, fitted.titles, fitted.past
    texts = {row: item.name for row, item in by_row.items() if row >= n or item.name != catalogue.names[row]}
    if by_row:
        catalogue = _catalogue(catalogue, by_row, len(new))
    if texts:
        named = {row: text for row, text in texts.items() if is_named(by_row[row].item_id, text)}
        vectors = _vectors(store, old.encoder, named, fitted.lengths)
        nothing = np.zeros(titles.dim, np.float32)
        more = {row: vectors.get(row, nothing) for row in texts}
        titles = GrownIndex(titles, new, more)
        past = _past(past, catalogue.names, titles, more)
    made = replace(
        fitted,
        catalogue=catalogue,
        titles=titles,
        ids=GrownIndex(fitted.ids, new, {}) if new else fitted.ids,
        transitions=TransitionTable(_longer(fitted.transitions.table, len(new))) if new else fitted.transitions,
        taken=taken,
        facets=facets,
        past=past,
        ranker=_ranker(fitted.ranker, n, past if texts else None, taken, facets),
    )
    return Retriever(made, old.encoder, old.per_style, rows)


def _events(store: Store, changes: Changes) -> list[Event]:
    """The events that came, as the store has them."""
    seqs: dict[str, set[int]] = {}
    for user_id, seq in changes.events:
        seqs.setdefault(user_id, set()).add(seq)
    return [event for user_id, wanted in seqs.items() for event in store.history(user_id) if event.seq in wanted]


def _catalogue(old: Catalogue, items: Mapping[int, Item], more: int) -> Catalogue:
    """The columns with other values in some rows, and `more` rows."""

    def column(values: Sequence[str], of: Callable[[Item], str]) -> Sequence[str]:
        return ChangedTexts(values, {row: of(item) for row, item in items.items()}, more)

    def flags(values: NDArray[np.bool_], of: Callable[[Item], bool]) -> NDArray[np.bool_]:
        made = np.concatenate([values, np.zeros(more, np.bool_)])
        for row, item in items.items():
            made[row] = of(item)
        return made

    seen = np.concatenate([old.first_seen, np.zeros(more, old.first_seen.dtype)])
    for row, item in items.items():
        seen[row] = np.datetime64(item.first_seen or EPOCH, "us")
    return Catalogue(
        item_ids=column(old.item_ids, lambda item: item.item_id),
        titles=column(old.titles, lambda item: item.title),
        names=column(old.names, lambda item: item.name),
        parent_ids=column(old.parent_ids, lambda item: item.parent_id),
        categories=column(old.categories, lambda item: item.category),
        first_seen=seen,
        in_stock=flags(old.in_stock, lambda item: item.in_stock),
        listed=flags(old.listed, lambda item: item.listed),
    )


def _vectors(store: Store, encoder: Encoder, texts: Mapping[int, str], lengths: Lengths) -> dict[int, Vectors]:
    """The vectors of some texts by row. They are not kept in the store: the next fit does that."""
    read = [lengths.read(text) for text in texts.values()]
    made = embed(store, encoder, "title", read, save=False)
    return dict(zip(texts, lengths.scaled(made, read), strict=True))


def _past(old: Past, names: Sequence[str], titles: VectorIndex, more: Mapping[int, Vectors]) -> Past:
    """The past with other texts: the index over them and, where there is a text transformer, the one over what it reads
    of them."""
    kept = Built()
    kept.index("titles", lambda: titles)
    former = old.former
    if former is not None:
        rows, base = list(more), old.kept.index(former.name, lambda: _missing(former.name))
        read = unit(former.items(np.array([more[row] for row in rows], np.float32)))
        known = {row: read[place] * bool(more[row].any()) for place, row in enumerate(rows)}
        kept.index(former.name, lambda: GrownIndex(base, (), known))
    return replace(old, names=names, kept=kept)


def _missing(name: str) -> VectorIndex:
    raise AssertionError(f"the index {name} is made with its source, before a retriever is handed out")


def _ranker(old: Ranker, n: int, past: Past | None, taken: Taken, facets: Facets | None) -> Ranker:
    """The ranker over a catalogue that grew from `n` rows: sources that read texts are made anew of a `past` with other
    texts (which costs nothing: its indexes are there), all others go on saying what they say."""
    reader, sources = old.reader, dict(old.reader.sources)
    if past is not None:
        for name, source in sources.items():
            sources[name] = make(name, past) if "vectors" in SOURCES[name].needs else FirstRows(source, n)
    counts = taken.ever.sum(1)
    return Ranker(PoolReader(sources, counts, reader.depth, reader.pool, reader.again, facets), old.learnt)


def _longer(table: sp.csr_matrix, more: int) -> sp.csr_matrix:
    """The same steps between more items; the arrays are shared."""
    ends = np.concatenate([table.indptr, np.full(more, table.indptr[-1], table.indptr.dtype)])
    n = table.shape[0] + more
    return sp.csr_matrix((table.data, table.indices, ends), shape=(n, n), copy=False)


def _taken(old: Taken, rows: Mapping[str, int], events: Sequence[Event], more: int) -> Taken:
    """The counts with these events, and with `more` rows; what is popular is put in order anew among what it was and
    what they touch."""
    if not more and not events:
        return old
    ever, recent = (np.concatenate([counts, np.zeros((more, 3), counts.dtype)]) for counts in (old.ever, old.recent))
    touched = dict[str, None]()
    for event in events:
        row = rows.get(event.item_id)
        if row is not None and event.action in _ACTIONS:
            ever[row, _ACTIONS[event.action]] += 1
            recent[row, _ACTIONS[event.action]] += old.moment is not None
            touched[event.item_id] = None
    popular = [item_id for item_id in dict.fromkeys((*old.popular, *touched)) if item_id in rows]
    at = [rows[item_id] for item_id in popular]
    order: list[int] = np.lexsort((-(ever[at] @ _WEIGHTS), -(recent[at] @ _WEIGHTS))).tolist() if at else []
    return replace(old, popular=tuple(popular[place] for place in order), ever=ever, recent=recent)
