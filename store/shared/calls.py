"""The writes that a shared store's users may ask its owner for, each a whole function of `store/`, and how their
arguments and answers travel: as JSON of records, times, mappings and arrays, and nothing that could run.

Who asks, and how it gets there, is unknown here (store/shared/remote.py, owner.py).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from datetime import datetime
from typing import Any

import numpy as np

from recgraph.errors import StoreBusy, StoreError, StoreReadOnly
from recgraph.store import changes, vectors
from recgraph.store.care import erasure, pending
from recgraph.store.records import Event, Summary

Write = Callable[..., Any]  # of a cursor in a transaction, and the arguments
EVENTS, BLOCK, FORGET = "record_events", "block", "forget"  # a block: several of the others as one
WRITES: dict[str, Write] = {
    EVENTS: changes.record_events,
    "upsert_items": changes.upsert_items,
    "summaries": pending.insert,
    "vectors": vectors.write,
    "meta": changes.set_meta,
    FORGET: erasure.forget_rows,
}
_ERRORS: dict[str, type[Exception]] = {
    one.__name__: one for one in (StoreError, StoreBusy, StoreReadOnly, ValueError, TypeError)
}


def name_of(write: Write) -> str:
    """Under which name a write is asked for."""
    return next(name for name, function in WRITES.items() if function is write)


def is_repeatable(name: str, arguments: Sequence[Any]) -> bool:
    """Whether asking twice does no harm: all but events without ids, which would be there twice."""
    return name != EVENTS or (len(arguments) > 1 and bool(arguments[1]))


def packed(value: object) -> str:
    """Arguments or an answer as text."""
    return json.dumps(_plain(value), ensure_ascii=True, allow_nan=True)


def unpacked(text: str) -> Any:
    """The opposite of `packed`; lists for all sequences. ValueError, TypeError for what it did not write."""
    return _whole(json.loads(text))


def packed_error(error: Exception) -> str:
    """An answer that raises."""
    kind = type(error).__name__
    return packed({"error": kind if kind in _ERRORS else "StoreError", "text": str(error)})


def answer_of(text: str) -> Any:
    """What a write gave; raises what it raised."""
    answer = unpacked(text)
    if "error" in answer:
        raise _ERRORS.get(answer["error"], StoreError)(answer["text"])
    return answer["value"]


def _plain(value: object) -> object:
    """JSON's own: what it lacks is an object of one name; a mapping is a list of pairs, so that no key of a shop's is
    taken for such a name."""
    if isinstance(value, Event):
        return {"event": [_plain(one) for one in astuple(value)]}
    if isinstance(value, Summary):
        return {"summary": [_plain(one) for one in astuple(value)]}
    if isinstance(value, datetime):
        return {"time": value.isoformat()}
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value, "<f4")
        return {"floats": [list(array.shape), base64.b64encode(array.tobytes()).decode()]}
    if isinstance(value, Mapping):
        return {"map": [[_plain(key), _plain(one)] for key, one in value.items()]}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _whole(value: Any) -> Any:
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "event":
        return Event(*map(_whole, content))
    if kind == "summary":
        values = [_whole(one) for one in content]
        values[6] = tuple((text, tuple(seqs)) for text, seqs in values[6])
        values[7] = tuple(values[7])
        return Summary(*values)
    if kind == "time":
        return datetime.fromisoformat(content)
    if kind == "floats":
        return np.frombuffer(base64.b64decode(content[1]), "<f4").reshape(content[0])
    if kind == "map":
        return {_whole(key): _whole(one) for key, one in content}
    raise ValueError(f"'{kind}' is nothing that is sent to a shared store.")
