"""One recommendation as it leaves recgraph, and its public JSON (DESIGN 8), which the terminal, HTTP, MCP and Python
share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from recgraph.graph.budget import LeftOut
from recgraph.graph.state import Prediction, Recommended, State
from recgraph.store.records import Event, Item, Summary
from recgraph.tools.llm.protocol import Usage
from recgraph.tools.memory import MemoryHit
from recgraph.tools.wish.facets import Relaxation
from recgraph.tools.wish.wish import Wish

NODES = ("load_history", "understand", "recall_memory", "summarize", "recommend", "retrieve", "rerank", "explain")
# The first word of a note in `degraded`, up to its colon; "other" stands for what is none of these.
KINDS = (*NODES, "adapter", "save", "store")
# Under which names shops keep the address of a product's page and of its picture among its attributes.
_PAGES = ("url", "link", "product_url", "product_link", "permalink", "page_url")
_BETWEEN = re.compile(r"[\s|;]+|,(?=https?://)")  # a comma may be part of an address
_PICTURES = ("image_url", "image_link", "image", "images", "image_src", "picture", "thumbnail", "img")


def kinds_of(degraded: Sequence[str]) -> set[str]:
    """What was missing, from a list that is known beforehand: the notes themselves may hold what a shopper typed."""
    return {kind if kind in KINDS else "other" for kind in (note.partition(":")[0] for note in degraded)}


@dataclass(frozen=True)
class Recommendation:
    """What one run found. `items` are in rank order and always in the catalogue; `degraded` lists what had to be done
    without. `wish` is what was understood of the query and of the conversation before it; where fewer products than
    asked for fit its hard parts, `relaxed` says which could give way. `left_out` is what the deadline had no room for
    (`plan` in the JSON). `currency` is the shop's."""

    run_id: str
    user_id: str
    query: str
    as_of: datetime | None
    paradigm: str
    mode: str
    history: Sequence[Event]
    known_items: Mapping[str, Item]
    summary: Summary | None
    blocks: int
    cached_blocks: int
    memory: Sequence[MemoryHit]
    prediction: Prediction | None
    items: Sequence[Recommended]
    timings_ms: Mapping[str, float]
    tokens: Usage
    models: Mapping[str, str]
    degraded: Sequence[str]
    wish: Wish = field(default_factory=Wish)
    relaxed: Sequence[Relaxation] = ()
    left_out: Sequence[LeftOut] = ()
    currency: str = ""

    @classmethod
    def of(
        cls, state: State, timings_ms: Mapping[str, float], models: Mapping[str, str], currency: str = ""
    ) -> Recommendation:
        """From the final state of a run."""
        return cls(
            run_id=state["run_id"],
            user_id=state["user_id"],
            query=state["query"],
            as_of=state.get("as_of"),
            paradigm=state["paradigm"],
            mode=state["mode"],
            history=state["history"],
            known_items=state["items"],
            summary=state.get("summary"),
            blocks=state.get("blocks") or 0,
            cached_blocks=state.get("cached_blocks") or 0,
            memory=state.get("memory") or (),
            prediction=state.get("prediction"),
            items=state["recommended"],
            timings_ms=timings_ms,
            tokens=state.get("tokens") or Usage(),
            models=models,
            degraded=tuple(state.get("degraded") or ()),
            wish=state.get("wish") or Wish(),
            relaxed=tuple(state.get("relaxed") or ()),
            left_out=tuple(state.get("left_out") or ()),
            currency=currency,
        )

    def to_dict(self) -> dict[str, Any]:
        """The public JSON as plain data. Beyond DESIGN 8 each item carries its reason's `evidence` and how many named
        parts of the wish it `fits`."""
        summary, facts = self.summary, self.run_facts()
        return {
            "run_id": self.run_id,
            "user_id": self.user_id,
            "query": self.query,
            "understood": {**self.wish.to_dict(), "parts": self.wish.parts(self.currency)},
            "relaxed": [{"part": one.part, "more": one.more} for one in self.relaxed],
            "as_of": self.as_of.isoformat() if self.as_of else None,
            "summary": {
                "paradigm": self.paradigm,
                "text": summary.text if summary else "",
                "blocks": self.blocks,
                "cached": self.cached_blocks,
                "event_seqs": list(summary.event_seqs) if summary else [],
            },
            "memory": [
                {"query": hit.query, "similarity": round(hit.similarity, 4), "item_ids": list(hit.item_ids)}
                for hit in self.memory
            ],
            "prediction": facts["prediction"],
            "items": [_item(line, self.currency) for line in self.items],
            "timings_ms": {
                **{node: round(self.timings_ms.get(node, 0.0), 1) for node in NODES},
                "total": round(self.timings_ms["total"], 1),
            },
            "tokens": facts["tokens"],
            "models": facts["models"],
            "plan": facts["plan"],
            "degraded": list(self.degraded),
        }

    def run_facts(self) -> dict[str, Any]:
        """What the JSON says of how the answer was made: models, prediction, tokens, plan."""
        tokens = {"prompt": self.tokens.prompt, "completion": self.tokens.completion, "cached": self.tokens.cached}
        return {
            "models": dict(self.models),
            "prediction": _prediction(self.prediction),
            "tokens": tokens,
            "plan": [str(one) for one in self.left_out],
        }


def rounded(number: float | None) -> float | None:
    """A score as the JSON has it."""
    return None if number is None else round(number, 4)


def _prediction(prediction: Prediction | None) -> dict[str, Any]:
    found = prediction or Prediction("", "", valid=False)
    return {"item_id": found.item_id, "title": found.title, "valid": found.valid, "repaired": found.repaired}


def _item(line: Recommended, currency: str) -> dict[str, Any]:
    return {
        "rank": line.rank,
        "item_id": line.item.item_id,
        "title": line.item.title,
        "price": line.item.price,
        "currency": currency,
        "parent_id": line.item.parent_id,
        "url": _address(line.item, _PAGES),
        "image_url": _address(line.item, _PICTURES),
        "score": rounded(line.score),
        "yes": rounded(line.yes),
        "fits": line.fits,
        "source": line.source,
        "reason": line.reason,
        "evidence": {"event_seqs": list(line.event_seqs), "queries": list(line.queries)},
    }


def addresses(item: Item) -> tuple[str | None, str | None]:
    """Where a product's page and its picture are, as far as the shop says."""
    return _address(item, _PAGES), _address(item, _PICTURES)


def _address(item: Item, names: Sequence[str]) -> str | None:
    """The first web address under one of the names, or None. Any other scheme is left out: what a catalogue says is
    data, and a page may follow it."""
    told = {name.casefold().replace(" ", "_"): value for name, value in item.attributes.items()}
    found = (word for name in names for word in _BETWEEN.split(told.get(name, "").strip()))
    return next((word for word in found if word.startswith(("https://", "http://"))), None)
