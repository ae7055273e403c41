"""Candidates and how lists of them become one: mixup as F 4.4, reciprocal rank fusion, the query memory's products as a
list.

Plain functions of lists; what the lists are made of (embeddings, transitions, a learnt network) is tools/retrieve.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recgraph.store.records import Event
from recgraph.tools.memory import MemoryHit

# The lists that are fused where no fusion was learnt, in the order of ties: neighbours of the predicted ID and title (F
# 4.4); what followed such a history; what is near it for CORE's encoder; what the user looked at last and did not buy;
# titles near the history's; the query memory; titles near the query. Tuned on half of 586 shoppers of the simulated
# shop (last purchase of six weeks, history and last query given) and half of 4,473 users of Beauty (history only),
# reported on the other halves, without an LLM; the weights of "id" and "title" wait for a trained one.
# Recall@10/NDCG@10 of the fusion against its best list: a fresh query .416/.238 (memory .287/.168, text .300/.162); a
# query under way .939/.709 (viewed .949/.754, sequence .631/.449); Beauty .095/.055 (sequence .090/.053). At most two
# of a style: .345/.215 and .857/.678; four: .403/.234 and .928/.706, because shoppers compare the colours of one style.
HISTORY_LED: Mapping[str, float] = {
    "id": 0.3,
    "title": 0.3,
    "sequence": 1.0,
    "core": 1.0,
    "viewed": 1.0,
    "near": 0.75,
    "memory": 0.3,
    "text": 0.3,
}
QUERY_LED: Mapping[str, float] = {
    "id": 0.3,
    "title": 0.3,
    "sequence": 0.3,
    "core": 0.3,
    "viewed": 0.3,
    "near": 0.3,
    "memory": 1.0,
    "text": 1.0,
}
# Cormack 2009 fuses dozens of rankings with 60; few lists that each know something else want their top counted more: 10
# was best of 10, 20, 30, 60.
RRF_CONSTANT = 10


@dataclass(frozen=True, slots=True)
class Candidate:
    """A catalogue item that may be recommended. `score` descends within one answer and compares nothing beyond it.

    `source` contributed most, `sources` are all that had the item: id | title | sequence | memory | text | popular.
    `fits`: how many of the named parts of the wish it fits; what fits more comes first.
    """

    item_id: str
    score: float
    source: str
    sources: tuple[str, ...]
    fits: int = 0


def mixup(id_list: Sequence[str], title_list: Sequence[str], k: int, n: int = 1) -> list[str]:
    """F 4.4: the top `n` of the ID list, then the title list up to `k`, without repeats.

    Where the title list is too short, the rest of the ID list follows; where the ID list is shorter than `n`, more of
    the title list.
    """
    return list(dict.fromkeys([*id_list[: max(n, 0)], *title_list, *id_list]))[: max(k, 0)]


def fuse(
    lists: Mapping[str, Sequence[str]],
    k: int | None = None,
    weights: Mapping[str, float] = HISTORY_LED,
    constant: float = RRF_CONSTANT,
) -> list[Candidate]:
    """Weighted reciprocal rank fusion: an item's score is the sum over the lists of weight / (constant + rank), ranks
    from 1.

    Ties: the item that stands in the earlier list, there the higher one, comes first. A list without a weight counts
    with 1, one of weight 0 not at all. Only the first mention of an item in a list counts.
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
    found = [
        Candidate(item_id, sum(share.values()), max(share, key=lambda source: share[source]), tuple(share))
        for item_id, share in ranked
    ]
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

    Otherwise the newest search of the history is this query and an item follows it: the visit is under way and its
    items say more.
    """
    if not query.strip():
        return False
    for place in range(len(history) - 1, -1, -1):
        if history[place].action == "search":
            same = history[place].query.strip().casefold() == query.strip().casefold()
            return not (same and place < len(history) - 1)
    return True
