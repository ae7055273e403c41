"""What the tools `recommend` and `explain_recommendation` answer: parts of the public JSON (DESIGN 8), every text of
them cleaned for a model to read. Knows no protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recgraph.graph.nodes import MOST_EVENTS
from recgraph.protocols.catalog import valid_address
from recgraph.service import Service
from recgraph.tools.llm.untrusted import harmless, nameable

_TITLE, _TEXT = 200, 600  # characters


def recommended(found: Mapping[str, Any]) -> dict[str, Any]:
    """An answer: its products with reasons, what was understood, and its run."""
    return {
        "run_id": found["run_id"],
        "items": [_line(line) for line in found["items"] if nameable(line["item_id"])],
        **_beside(found),
    }


def explanation(past: Mapping[str, Any], service: Service, item_id: str = "") -> dict[str, Any]:
    """A run of the log: where its products came from, and the events behind them, as a person can read them. Of one
    product where it is named; no `items` where it was not among them."""
    lines = [
        line for line in past["items"] if nameable(line["item_id"]) and (not item_id or line["item_id"] == item_id)
    ]
    seqs = {seq for line in lines for seq in line["evidence"]["event_seqs"]}
    history = service.recommender.store.history(past["user_id"], limit=MOST_EVENTS) if seqs else []
    events = {event.seq: event for event in history if event.seq in seqs}
    names = service.items(sorted({event.item_id for event in events.values() if event.item_id}))
    told: dict[int, dict[str, str]] = {}
    for seq, event in events.items():
        product = names.get(event.item_id)
        whole = {
            "when": event.ts.isoformat(),
            "action": event.action,
            "product": harmless(product.name, _TITLE) if product else "",
            "query": harmless(event.query, _TITLE),
        }
        told[seq] = {name: value for name, value in whole.items() if value}
    items = [
        {
            **_line(line),
            "events": [told[seq] for seq in line["evidence"]["event_seqs"] if seq in told],
            "searches": [harmless(query, _TITLE) for query in line["evidence"]["queries"]],
        }
        for line in lines
    ]
    return {"run_id": past["run_id"], "query": harmless(past["query"], _TEXT), "items": items, **_beside(past)}


def _line(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rank": line["rank"],
        "item_id": line["item_id"],
        "title": harmless(line["title"], _TITLE) or line["item_id"],
        "price": line["price"],
        "currency": harmless(line["currency"], 12),
        "reason": harmless(line["reason"], _TEXT),
        "source": line["source"],
        "score": line["score"],
        "evidence": {"event_seqs": list(line["evidence"]["event_seqs"])},
        "url": valid_address(line["url"]),
    }


def _beside(found: Mapping[str, Any]) -> dict[str, Any]:
    degraded = [one for one in found["degraded"] if found["user_id"] or not one.startswith("load_history:")]
    return {
        "summary": harmless(found["summary"]["text"], 4 * _TEXT),
        "understood": [harmless(part, _TITLE) for part in found["understood"]["parts"]],
        "relaxed": [{"part": harmless(one["part"], _TITLE), "more": one["more"]} for one in found["relaxed"]],
        "plan": [harmless(one, _TITLE) for one in found.get("plan") or ()],
        "degraded": [harmless(one, _TITLE) for one in degraded],
    }
