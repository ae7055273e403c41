"""A past answer given again: what the run log keeps of a request beside its answer, under which conditions it was
answered, and how the answer of now differs.

The answers are compared as public JSON, byte for byte, but for what cannot be the same: the run's id, its times, the
tokens that a process had in its cache, and what the disk said ("save: ..."). How an answer is made is unknown here; see
`Recommender.replay`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from importlib.metadata import version
from typing import Any

from recgraph.errors import SettingsError, StoreError
from recgraph.graph.recommendation import Recommendation
from recgraph.graph.state import State
from recgraph.settings import Settings
from recgraph.store.db import Store
from recgraph.store.records import show_time
from recgraph.tools.wish.wish import Wish

REQUEST = "request"  # the key of a logged run under which it stands
_OPENED = ("store", "cache", "llm", "llm_url", "llm_api_key", "adapter", "embedder")  # what opens models, not answers
_ASKED = ("k", "paradigm", "mode", "deadline")  # settings that a request has of its own
_SETTINGS = tuple(one.name for one in fields(Settings) if one.name not in (*_OPENED, *_ASKED))
_CONDITIONS = {
    "llm": "The language model was {then} and is {now} now: choose it with --llm or --llm-url.",
    "adapter": "The adapters were {then} and are {now} now: choose them with --adapter.",
    "embedder": "The sentence encoder was {then} and is {now} now: the setting embedder chooses it.",
    "parts": "The trained parts of retrieval ({then}) were published anew ({now}).",
    "version": "recgraph was version {then} and is {now} now.",
}
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


def request_of(
    asked: State, settings: Settings, conditions: Mapping[str, str], at: datetime, made: Sequence[str]
) -> dict[str, Any]:
    """What the log keeps of a request, as plain data: what was `asked`, when (`at`, UTC), the settings that shape an
    answer, the conditions it was answered under, and the keys of the summaries that were `made` for it."""
    given, wish, as_of = asked.get("given"), asked.get("wish"), asked.get("as_of")
    return {
        "query": asked.get("query") or "",
        "k": asked["k"],
        "as_of": as_of.isoformat() if as_of else None,
        "at": at.isoformat(),
        "paradigm": asked["paradigm"],
        "mode": asked["mode"],
        "given": {**given.to_dict(), "dropped": list(given.dropped)} if given else None,
        "wish": wish.to_dict() if wish else None,
        "shown": list(asked.get("shown") or ()),
        "settings": {name: getattr(settings, name) for name in _SETTINGS},
        "conditions": dict(conditions),
        "made": list(made),
    }


def recgraph_version() -> str:
    """That of the installed package."""
    return version("recgraph")


@dataclass(frozen=True)
class Past:
    """A run as the log has it: the `answer`, which is the public JSON, and the `request`."""

    answer: Mapping[str, Any]
    request: Mapping[str, Any]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Past:
        """From a row of the log. StoreError for a run that was logged without its request."""
        answer = {name: value for name, value in record.items() if name != REQUEST}
        request = record.get(REQUEST)
        if not isinstance(request, dict):
            raise StoreError(
                f"Run '{record.get('run_id')}' cannot be given again: its request was not kept. It was logged by a "
                "version of recgraph that kept the answer alone."
            )
        return cls(answer, request)

    @property
    def adapter(self) -> str:
        """The adapter set to open by: its name, "none" for none; "" where the store's own could not be used then."""
        label = str(self.answer["models"]["adapter"])
        if label:
            return label.rpartition("-")[0]
        return "" if any(note.startswith("adapter:") for note in self.answer["degraded"]) else "none"

    @property
    def uses_llm(self) -> bool:
        return bool(self.answer["models"]["llm"] != "none")

    def settings(self, own: Settings) -> Settings:
        """The settings of then, over the `own` models. SettingsError for one that is no setting now."""
        told = self.request["settings"]
        if unknown := sorted(set(told) - set(_SETTINGS)):
            raise SettingsError(
                f"Run '{self.answer['run_id']}' cannot be given again: it was answered with the setting "
                f"'{unknown[0]}', which this version of recgraph does not have."
            )
        return replace(own, **told, **{name: self.request[name] for name in ("k", "paradigm", "mode")})

    def asked(self, as_of: datetime | None) -> State:
        """The input of the run, as of a moment."""
        request = self.request
        given, wish = (None if request[name] is None else Wish.from_dict(request[name]) for name in ("given", "wish"))
        if given is not None:
            given = replace(given, dropped=tuple(request["given"]["dropped"]))
        return {
            "run_id": self.answer["run_id"],
            "user_id": self.answer["user_id"],
            "query": request["query"],
            "k": request["k"],
            "as_of": as_of,
            "paradigm": request["paradigm"],
            "mode": request["mode"],
            "given": given,
            "wish": wish,
            "shown": list(request["shown"]),
        }

    def as_of(self, store: Store) -> datetime | None:
        """The moment at which the store of now knows what it knew then: that of the run; where it was answered as of
        now, the first event that came since or, where the store cannot name what came, the time of the run."""
        if self.request["as_of"]:
            return datetime.fromisoformat(self.request["as_of"])
        if not self.is_moved(store):
            return None
        changes = store.changes_since(self.request["conditions"]["revision"])
        if changes is None:
            return datetime.fromisoformat(self.request["at"])
        new = set(changes.events)
        users = dict.fromkeys(user_id for user_id, _ in changes.events)
        times = [event.ts for user_id in users for event in store.history(user_id) if (user_id, event.seq) in new]
        return min(times, default=None)

    def is_moved(self, store: Store) -> bool:
        """Whether the store is of another revision now."""
        return bool(self.request["conditions"]["revision"] != store.revision())

    def gone(self, now: Mapping[str, str], as_of: datetime | None) -> list[str]:
        """What the answer hung on and is another one `now`, a sentence each."""
        then: Mapping[str, str] = self.request["conditions"]
        found = [
            sentence.format(then=then.get(name) or "none", now=now[name] or "none")
            for name, sentence in _CONDITIONS.items()
            if then.get(name) != now[name]
        ]
        if then["revision"] != now["revision"]:
            known = f": answered as of {show_time(as_of)}, which hides later events" if as_of else ""
            found.append(f"The store's revision was {then['revision']} and is {now['revision']} now{known}.")
        elif then["fitted"] != now["fitted"]:
            found.append(
                f"Retrieval was fitted on revision {then['fitted']} of the store and had taken in what came since; "
                f"here it is fitted on {now['fitted']}."
            )
        return found

    def beside(self, now: Recommendation, conditions: Mapping[str, str]) -> Replay:
        """With the answer of now, which was given under these conditions."""
        moved = self.request["conditions"]["revision"] != conditions["revision"]
        # as the log keeps it: half a character, of which some ids are made, is "?" there
        told = json.dumps(now.to_dict(), ensure_ascii=False, default=str).encode(errors="replace")
        differences = _differences(_comparable(self.answer, moved), _comparable(json.loads(told), moved))
        return Replay(self.answer, now, self.gone(conditions, now.as_of), tuple(differences))


def _comparable(answer: Mapping[str, Any], moved: bool) -> dict[str, Any]:
    """What has to be equal of an answer; with another revision its name and the moment that stands for it do not."""
    kept = {name: value for name, value in answer.items() if name not in ("run_id", "timings_ms")}
    kept["tokens"] = {name: value for name, value in answer["tokens"].items() if name != "cached"}
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
