"""What a batch is of, as `manifest.json` of its folder says: the store's revision, the settings, whose answers. From it
follows what may be gone on with, what may be kept, and what has to be made anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recgraph.errors import StoreError
from recgraph.graph.replay.past import recgraph_version
from recgraph.settings import Settings
from recgraph.store.batch.tables import put_in_place
from recgraph.store.db import Store
from recgraph.tools.trained import published_fingerprint

FILE = "manifest.json"
ALL = "all"
_FORM = 1  # of the rows: one more where their columns change
# Where things lie, what it costs and who may ask say nothing of an answer.
_NO_CONDITIONS = ("store", "cache", "llm_url", "llm_api_key", "deadline")
_ADVICE = (
    "Take another folder; or --since-last, which answers the users with a new event and keeps the rows of all others; "
    "or --again, which deletes what is there and begins anew."
)


@dataclass(frozen=True)
class Manifest:
    """`conditions` are what rows hang on beside the store's events: settings, trained parts, recgraph's version.
    `users` is "all" or what tells the ids of a file apart. `keeps`: rows of users without a new event stay, where they
    are of the same conditions. `counts` are there when it has ended: users, answered, kept, empty, degraded, unknown,
    rows."""

    revision: str
    users: str
    conditions: Mapping[str, Any]
    keeps: bool = False
    begun: str = ""
    ended: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store, settings: Settings, users: str) -> Manifest:
        """Of a batch that begins now."""
        told = {name: value for name, value in asdict(settings).items() if name not in _NO_CONDITIONS}
        told["llm"] = settings.llm if settings.asks_llm else "none"
        made_by = {"served": bool(settings.llm_url), "adapter_of_store": store.meta("adapter") or ""}
        parts = {"parts": published_fingerprint(store), "version": recgraph_version(), "form": _FORM}
        return cls(store.revision(), users, {**told, **made_by, **parts}, begun=_now())

    @property
    def label(self) -> str:
        """What the files of this batch carry."""
        return _digest([self.revision, self.users, self.common])

    @property
    def common(self) -> str:
        """What rows have in common that may stand side by side."""
        return _digest(self.conditions)

    def differences(self, other: Manifest) -> list[str]:
        """What is another one here than there, as "k 20 (was 10)"."""
        mine, theirs = self._facts(), other._facts()
        return [f"{name} {mine.get(name)} (was {theirs.get(name)})" for name in mine if mine[name] != theirs.get(name)]

    def _facts(self) -> dict[str, Any]:
        return {"store revision": self.revision, "users": self.users, **self.conditions}

    def in_place_of(self, before: Manifest, folder: Path, since_last: bool) -> Manifest:
        """This one, where it may take the place of another one of the folder. StoreError where it may not, with what is
        another one."""
        other = "; ".join(self.differences(before))
        if not since_last:
            raise StoreError(f"{folder} holds a batch of something else: {other}. {_ADVICE}")
        if before.common != self.common:
            raise StoreError(
                f"{folder} holds a batch that was made otherwise: {other}. Its rows do not go with new ones: take "
                "another folder, or --again, which deletes what is there and begins anew."
            )
        return replace(self, keeps=True)

    def ended_with(self, counts: Mapping[str, int]) -> Manifest:
        """The same when all is done."""
        return replace(self, ended=_now(), counts=dict(counts))

    def write(self, folder: Path) -> None:
        """Puts it into the folder, whole or not at all. StoreError where that cannot be written."""
        new = folder / f"{FILE}.new"
        try:
            new.write_text(json.dumps({**asdict(self), "label": self.label}, indent=2) + "\n", encoding="utf-8")
            put_in_place(new, folder / FILE)
        except OSError as error:
            raise StoreError(f"{folder / FILE} cannot be written: {error}.") from error

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """The folder's; None where no batch was begun there. StoreError where it is not one of ours."""
        try:
            told = json.loads((folder / FILE).read_text(encoding="utf-8"))
            told.pop("label", None)
            return cls(**told)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise StoreError(f"{folder / FILE} is no manifest of a batch ({error}). Take another folder.") from error


def _digest(of: Any) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
