"""Candidates, mixup as F 4.4, the query memory's products as scores, and whether a query says more than a history.

Plain functions of lists; where the lists come from (embeddings, sources, a learnt network) is tools/retrieve.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recgraph.store.records import Event
from recgraph.tools.memory import MemoryHit


@dataclass(frozen=True, slots=True)
class Candidate:
    """A catalogue item that may be recommended. `score` descends within one answer and compares nothing beyond it.

    `source` contributed most, `sources` are all that had the item: id | title | sequence | memory | text | popular.
    `fits` is how many of the attributes that the wish names it fits; whatever orders candidates anew keeps what fits
    more before what fits less. `chance` is how likely a learnt ranking holds it, among all it compared that fit as
    much; None where none was learnt.
    """

    item_id: str
    score: float
    source: str
    sources: tuple[str, ...]
    fits: int = 0
    chance: float | None = None


def mixup(id_list: Sequence[str], title_list: Sequence[str], k: int, n: int = 1) -> list[str]:
    """F 4.4: the top `n` of the ID list, then the title list up to `k`, without repeats.

    Where the title list is too short, the rest of the ID list follows; where the ID list is shorter than `n`, more of
    the title list.
    """
    return list(dict.fromkeys([*id_list[: max(n, 0)], *title_list, *id_list]))[: max(k, 0)]


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
