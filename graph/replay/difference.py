"""A past answer beside the one of now: whether they are the same, which products moved, what else differs.

They are compared as public JSON, byte for byte, but for what cannot be the same: the run's id, its times, the tokens
that a process had in its cache, and what the disk said ("save: ..."). How an answer is given again is unknown here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recgraph.graph.recommendation import Recommendation
from recgraph.graph.replay.past import WARM, PastRun

_SHOWN = 80  # characters of a value in a difference


@dataclass(frozen=True)
class Difference:
    """A value of the public JSON that is another one now: its `path` (`items[0].reason`), and both as JSON text."""

    path: str
    then: str
    now: str


@dataclass(frozen=True)
class Moved:
    """A product that stands elsewhere in the list now: its ranks; None where it was, or is, not in it."""

    item_id: str
    title: str
    then: int | None
    now: int | None


@dataclass(frozen=True)
class Replay:
    """A past answer beside the one of now. `gone` says, a sentence each, what the past answer hung on and is another
    one now; the answers may be equal all the same."""

    then: Mapping[str, Any]
    now: Recommendation
    gone: Sequence[str]
    differences: Sequence[Difference]

    @property
    def equal(self) -> bool:
        return not self.differences

    @property
    def moved(self) -> list[Moved]:
        """Those that stand elsewhere in the list, in the order of then, the new ones last."""
        lines = {line.item.item_id: (line.rank, line.item.title) for line in self.now.items}
        found = []
        for line in self.then["items"]:
            rank, title = lines.pop(line["item_id"], (None, line["title"]))
            if rank != line["rank"]:
                found.append(Moved(line["item_id"], title, line["rank"], rank))
        return found + [Moved(item_id, title, None, rank) for item_id, (rank, title) in lines.items()]

    def to_dict(self) -> dict[str, Any]:
        """As plain data; `answer` is the one of now."""
        return {
            "run_id": self.then["run_id"],
            "equal": self.equal,
            "gone": list(self.gone),
            "moved": [asdict(one) for one in self.moved],
            "differences": [asdict(one) for one in self.differences],
            "answer": self.now.to_dict(),
        }


def beside(past: PastRun, now: Recommendation, conditions: Mapping[str, str]) -> Replay:
    """A past answer and the one of now, which was given under these conditions."""
    moved = past.revision != conditions["revision"]
    # as the log keeps it: half a character, of which some ids are made, is "?" there
    told = json.dumps(now.to_dict(), ensure_ascii=False, default=str).encode(errors="replace")
    differences = tuple(_differences(_comparable(past.answer, moved), _comparable(json.loads(told), moved)))
    gone = past.gone(conditions, now.as_of) + ([WARM] if differences and past.was_warm else [])
    return Replay(past.answer, now, gone, differences)


def _comparable(answer: Mapping[str, Any], moved: bool) -> dict[str, Any]:
    """What has to be equal of an answer; with another revision its name and the moment that stands for it do not."""
    kept = {name: value for name, value in answer.items() if name not in ("run_id", "timings_ms")}
    kept["tokens"] = {name: value for name, value in answer["tokens"].items() if name != "cached"}
    kept.setdefault("plan", [])  # not in what was logged before there were plans
    kept["degraded"] = [note for note in answer["degraded"] if not note.startswith("save:")]
    if moved:
        del kept["as_of"]
        kept["models"] = {name: value for name, value in answer["models"].items() if name != "store_revision"}
    return kept


def _differences(then: object, now: object, path: str = "") -> Iterator[Difference]:
    """The leaves that are not the same text."""
    if isinstance(then, dict) and isinstance(now, dict):
        for name in dict.fromkeys((*then, *now)):
            yield from _differences(then.get(name), now.get(name), f"{path}.{name}" if path else str(name))
    elif isinstance(then, list) and isinstance(now, list):
        for place in range(max(len(then), len(now))):
            one, other = (values[place] if place < len(values) else None for values in (then, now))
            yield from _differences(one, other, f"{path}[{place}]")
    elif (told := json.dumps(then, ensure_ascii=False)) != (other := json.dumps(now, ensure_ascii=False)):
        yield Difference(path, _cut(told), _cut(other))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
