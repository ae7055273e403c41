"""What belongs together for a title encoder (F 4.4): positive pairs, hard negatives mined with FAISS, and the retrieval
metrics. No training.

A pair is a query and the title of a product that was bought after it. A shop without queries gives next-purchase pairs:
the title last bought stands where the query stood. Titles that differ only as variants of one product (`parent_id`) are
one group: none of them is a negative where another one is a match, and finding any of them counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recgraph.store.db import Catalogue, Store
from recgraph.store.records import is_named
from recgraph.tools.index import VectorIndex, Vectors

Numbers = NDArray[np.int64]
QUERY, NEXT_PURCHASE = "query", "next_purchase"  # where the pairs come from
ACTIONS = ("click", "cart", "purchase")
_AT_ONCE = 256  # questions scored together in the metrics


@dataclass(frozen=True)
class Titles:
    """The distinct names of a catalogue, sorted. `group[t]` numbers the product that title t belongs to; `of_item` maps
    item_id → title."""

    texts: list[str]
    group: Numbers
    of_item: dict[str, int]

    @classmethod
    def of(cls, catalogue: Catalogue) -> Titles:
        """Products of which nothing is known (untitled, without attributes) have no title. Equal texts are in one
        group."""
        named = [row for row, item_id in enumerate(catalogue.item_ids) if is_named(item_id, catalogue.names[row])]
        parents: dict[str, str] = {}
        for row in named:
            parents.setdefault(catalogue.names[row], catalogue.parent_ids[row] or "text " + catalogue.names[row])
        texts = sorted(parents)
        number = {parent: place for place, parent in enumerate(sorted(set(parents.values())))}
        place_of = {text: place for place, text in enumerate(texts)}
        group = np.array([number[parents[text]] for text in texts], dtype=np.int64)
        return cls(texts, group, {catalogue.item_ids[row]: place_of[catalogue.names[row]] for row in named})


@dataclass(frozen=True)
class Pairs:
    """Positive pairs. `positive` is int[n, 2] rows (query, title); `matches[q]` are the groups that are no negatives of
    query q.

    `source` is QUERY or NEXT_PURCHASE.
    """

    source: str
    queries: list[str]
    positive: Numbers
    matches: list[frozenset[int]]


def pairs_of(store: Store, titles: Titles, positives: str = "purchase") -> Pairs:
    """The pairs of everything in the store: query → product bought after it, or next-purchase pairs where no query led
    anywhere.

    `positives` is the least of ACTIONS that makes a pair; whatever was clicked is never a negative.
    """
    led = [
        (query, titles.of_item[item_id], done) for query, item_id, done in store.answers() if item_id in titles.of_item
    ]
    if not led:
        return _next_pairs(store, titles)
    queries = sorted({query for query, _, _ in led})
    place = {query: number for number, query in enumerate(queries)}
    positive = sorted({(place[query], title) for query, title, done in led if done >= ACTIONS.index(positives)})
    return _pairs(QUERY, titles, queries, positive, ((place[query], title) for query, title, _ in led))


def _next_pairs(store: Store, titles: Titles) -> Pairs:
    """The item before → the item, for each purchase of a user (each event where nothing was purchased).

    "Before" is the last one strictly earlier: what was bought at one time has no order (DESIGN 7). A title never asks
    for itself.
    """
    rows = store.sequences()
    keep = rows.action == 2 if (rows.action == 2).any() else np.ones(len(rows.item), dtype=bool)
    user, ts = rows.user[keep], rows.ts[keep]
    place_of = np.array([titles.of_item.get(item_id, -1) for item_id in store.catalogue().item_ids], dtype=np.int64)
    title = place_of[rows.item[keep]]
    fresh = np.ones(len(user), dtype=bool)
    fresh[1:] = (user[1:] != user[:-1]) | (ts[1:] != ts[:-1])
    # the row just before the first one of the same user and time
    before = np.flatnonzero(fresh)[np.cumsum(fresh) - 1] - 1
    known = (before >= 0) & (user[before] == user) & (title >= 0) & (title[before] >= 0)
    known[known] &= titles.group[title[known]] != titles.group[title[before[known]]]
    positive = sorted(set(zip(title[before[known]].tolist(), title[known].tolist(), strict=True)))
    asking = sorted({query for query, _ in positive})
    place = {title: number for number, title in enumerate(asking)}
    itself = [(place[query], query) for query in asking]
    positive = [(place[query], answer) for query, answer in positive]
    return _pairs(NEXT_PURCHASE, titles, [titles.texts[query] for query in asking], positive, [*itself, *positive])


def _pairs(
    source: str, titles: Titles, queries: list[str], positive: list[tuple[int, int]], led: Iterable[tuple[int, int]]
) -> Pairs:
    matches: list[set[int]] = [set() for _ in queries]
    for query, title in led:
        matches[query].add(int(titles.group[title]))
    return Pairs(
        source, queries, np.array(positive, dtype=np.int64).reshape(-1, 2), [frozenset(groups) for groups in matches]
    )


def mine(
    pairs: Pairs,
    titles: Titles,
    positive: Numbers,
    query_vectors: Vectors,
    title_vectors: Vectors,
    nearest: int,
    rng: np.random.Generator,
) -> Numbers:
    """int[n, 2] for int[n, 2] pairs: the nearest title that is no match for the query, the nearest query that is no
    match for the title.

    With `nearest` above 1 each is drawn among that many nearest. -1 where everything matches.
    """
    size = np.bincount(titles.group)
    asked_by: defaultdict[int, int] = defaultdict(int)
    for groups in pairs.matches:
        for group in groups:
            asked_by[group] += 1
    title_index = VectorIndex([str(place) for place in range(len(titles.texts))], title_vectors)
    query_index = VectorIndex([str(place) for place in range(len(pairs.queries))], query_vectors)
    near_title: dict[int, list[int]] = {}
    for query in np.unique(positive[:, 0]).tolist():
        matched = pairs.matches[query]
        found = _nearest(title_index, query_vectors[query], nearest + sum(int(size[group]) for group in matched))
        near_title[query] = [title for title in found if int(titles.group[title]) not in matched][:nearest]
    near_query: dict[int, list[int]] = {}
    for title in np.unique(positive[:, 1]).tolist():
        group = int(titles.group[title])
        found = _nearest(query_index, title_vectors[title], nearest + asked_by[group])
        near_query[title] = [query for query in found if group not in pairs.matches[query]][:nearest]
    draws = rng.random((len(positive), 2))
    negatives = np.full((len(positive), 2), -1, dtype=np.int64)
    for row, (query, title) in enumerate(positive.tolist()):
        for side, choices in enumerate((near_title[query], near_query[title])):
            if choices:
                negatives[row, side] = choices[int(draws[row, side] * len(choices))]
    return negatives


def _nearest(index: VectorIndex, vector: Vectors, k: int) -> list[int]:
    return [int(key) for key, _ in index.search(vector[None], k)[0]]


def retrieval(
    query_vectors: Vectors,
    wanted: Sequence[int],
    title_vectors: Vectors,
    group: Numbers,
    hidden: Sequence[int] | None = None,
    top: Sequence[int] = (1, 10),
) -> dict[str, Any]:
    """Title retrieval: Recall@k, MRR and the number of cases, over all groups; a group scores as its best title.

    Row i of float32[n, d] asks for group `wanted[i]`; group `hidden[i]` (what asks cannot be the answer; -1 for none)
    is left out unless it is the wanted one. Equal scores count as their expected rank: a constant encoder gets k /
    groups, not 1 (DESIGN 7).
    """
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(group[order]) > 0])
    place = {int(number): at for at, number in enumerate(group[order][starts])}
    recalls: dict[int, float] = dict.fromkeys(top, 0.0)
    reciprocal = 0.0
    for start in range(0, len(wanted), _AT_ONCE):
        scores = np.round(query_vectors[start : start + _AT_ONCE] @ title_vectors[order].T, 5)
        best = np.maximum.reduceat(scores, starts, axis=1)
        for row, line in enumerate(best):
            answer = int(wanted[start + row])
            score = line[place[answer]]
            asks = int(hidden[start + row]) if hidden is not None else -1
            if asks not in (-1, answer):
                line[place[asks]] = -np.inf
            above, equal = int((line > score).sum()), int((line == score).sum())
            for k in top:
                recalls[k] += min(max(k - above, 0) / equal, 1.0)
            reciprocal += float((1.0 / np.arange(above + 1, above + equal + 1)).mean())
    n = max(len(wanted), 1)
    return {
        **{f"recall@{k}": round(value / n, 4) for k, value in recalls.items()},
        "mrr": round(reciprocal / n, 4),
        "cases": len(wanted),
    }
