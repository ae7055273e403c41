"""A run as the run log keeps it: the answer, and beside it the request and what the answer hung on, so that it can be
given again (`Recommender.replay`). How two answers differ is in difference.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any

from recgraph.errors import SettingsError, StoreError
from recgraph.graph.budget import LeftOut
from recgraph.graph.state import State
from recgraph.settings import Settings
from recgraph.store.db import Store
from recgraph.store.records import show_time
from recgraph.tools.llm.protocol import LLM, Remembering
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
WARM = (
    "The language model had read for other requests before, whose numbers it went on from; here it began afresh. In "
    "bfloat16 that moves `yes` in the second digit, with RECGRAPH_DTYPE=float32 not in the fourth."
)


@dataclass(frozen=True)
class Begun:
    """How a run began: at which moment (UTC), and whether its language model was `warm`, with states of earlier
    prompts."""

    at: datetime
    warm: bool = False

    @classmethod
    def now(cls, llm: LLM | None) -> Begun:
        return cls(datetime.now(UTC).replace(tzinfo=None), isinstance(llm, Remembering) and llm.warm)


def request_of(
    asked: State, settings: Settings, conditions: Mapping[str, str], begun: Begun, answered: State
) -> dict[str, Any]:
    """What the log keeps of a request, as plain data: what was `asked` and how that `begun`, the settings that shape an
    answer, the conditions it was answered under; of the run that `answered` it the keys of the summaries that were made
    for it, and what was left out."""
    given, wish, as_of = asked.get("given"), asked.get("wish"), asked.get("as_of")
    return {
        "query": asked.get("query") or "",
        "k": asked["k"],
        "as_of": as_of.isoformat() if as_of else None,
        "at": begun.at.isoformat(),
        "warm": begun.warm,
        "paradigm": asked["paradigm"],
        "mode": asked["mode"],
        "given": {**given.to_dict(), "dropped": list(given.dropped)} if given else None,
        "wish": wish.to_dict() if wish else None,
        "shown": list(asked.get("shown") or ()),
        "exclude": list(asked.get("exclude") or ()),
        "settings": {name: getattr(settings, name) for name in _SETTINGS},
        "conditions": dict(conditions),
        "made": [summary.input_hash for summary in answered.get("made") or ()],
        "left_out": [asdict(one) for one in answered.get("left_out") or ()],
    }


@cache
def recgraph_version() -> str:
    """That of the installed package, read from its files once: each answer tells it."""
    return version("recgraph")


@dataclass(frozen=True)
class PastRun:
    """A run as the log has it: the `answer`, which is the public JSON, and the `request`."""

    answer: Mapping[str, Any]
    request: Mapping[str, Any]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> PastRun:
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
    def was_warm(self) -> bool:
        """Whether its language model went on from what it had read for earlier requests."""
        return bool(self.request["warm"])

    @property
    def revision(self) -> str:
        """The store's, then."""
        return str(self.request["conditions"]["revision"])

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

    @property
    def left_out(self) -> list[LeftOut]:
        """What the time had no room for."""
        return [LeftOut(**one) for one in self.request.get("left_out") or ()]

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
            "at": datetime.fromisoformat(request["at"]),
            "paradigm": request["paradigm"],
            "mode": request["mode"],
            "given": given,
            "wish": wish,
            "shown": list(request["shown"]),
            "exclude": list(request.get("exclude") or ()),  # a run of an earlier version names none
        }

    def as_of(self, store: Store) -> datetime | None:
        """The moment at which the store of now knows what it knew then: that of the run; where it was answered as of
        now, the first event that came since or, where the store cannot name what came, the time of the run."""
        if self.request["as_of"]:
            return datetime.fromisoformat(self.request["as_of"])
        if not self.is_moved(store):
            return None
        changes = store.changes_since(self.revision)
        if changes is None:
            return datetime.fromisoformat(self.request["at"])
        new = set(changes.events)
        users = dict.fromkeys(user_id for user_id, _ in changes.events)
        times = [event.ts for user_id in users for event in store.history(user_id) if (user_id, event.seq) in new]
        return min(times, default=None)

    def is_moved(self, store: Store) -> bool:
        """Whether the store is of another revision now."""
        return bool(self.revision != store.revision())

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
