"""API keys: who may ask what. A file beside the store keeps their hashes; `recgraph keys` writes it, a server reads it.

A key is 32 random bytes, so one round of SHA-256 is enough to keep it by: there is nothing to guess. The file is read
again when it has changed, so that a key is revoked while a server runs. What an endpoint asks for is unknown here.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import tempfile
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from recgraph.errors import SettingsError

SCOPES = ("recommend", "events", "catalog", "erase")
PREFIX = "rg_"  # so that a key that lies about somewhere is known for one
_LONGEST = 200  # characters of a token that are looked at


@dataclass(frozen=True)
class Grant:
    """What a caller may do: its `scopes` and, with `user_id`, with one shopper's data alone. `key` names the key in
    logs and limits: the start of its hash, "" where no keys are asked for."""

    scopes: frozenset[str] = frozenset(SCOPES)
    user_id: str = ""
    key: str = ""

    def may(self, scope: str) -> bool:
        return scope in self.scopes

    def sees(self, user_id: str) -> bool:
        """Whether this shopper's data may be asked for."""
        return not self.user_id or self.user_id == user_id


@dataclass(frozen=True)
class Key:
    """A key as the file keeps it: the hash, never the token."""

    name: str
    sha256: str = field(repr=False)
    scopes: tuple[str, ...]
    user_id: str
    made: str

    def grant(self) -> Grant:
        return Grant(frozenset(self.scopes), self.user_id, self.sha256[:8])


class Keys:
    """The keys of one file. Without the file everything is allowed, which a server does on loopback alone; once it has
    been seen there, its loss allows nothing."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(os.path.expanduser(path))
        self._lock = threading.Lock()
        self._known: tuple[tuple[int, int, int], tuple[Key, ...]] | None = None

    @classmethod
    def beside(cls, store: str | Path) -> Keys:
        """Those of a store: shop.duckdb has them in shop.keys.json."""
        return cls(Path(os.path.expanduser(store)).with_suffix(".keys.json"))

    @property
    def required(self) -> bool:
        """Whether a key is asked for."""
        return self._known is not None or self.path.exists()

    def grant(self, token: str) -> Grant | None:
        """What the bearer of a token may do; None for one that is not known. Every key is compared, in constant
        time."""
        if not self.required:
            return Grant()
        given = hashlib.sha256(token[:_LONGEST].encode("utf-8", "replace")).hexdigest()
        found = [key for key in self.all() if hmac.compare_digest(key.sha256, given)]
        return found[0].grant() if found and len(token) <= _LONGEST else None

    def all(self) -> tuple[Key, ...]:
        """All keys of the file; none where it is gone. SettingsError for a file that is none of keys."""
        try:
            told = self.path.stat()
        except OSError:
            return ()
        stamp = told.st_mtime_ns, told.st_size, told.st_ino
        with self._lock:
            if self._known is None or self._known[0] != stamp:
                self._known = stamp, _read(self.path)
            return self._known[1]

    def add(self, name: str, scopes: Collection[str], user_id: str = "") -> str:
        """Makes a key and gives its token, which is kept nowhere. SettingsError for a name that is taken, an unknown
        scope or none."""
        _check(name, scopes)
        if user_id and "catalog" in scopes:
            raise SettingsError("A key of one shopper opens no catalogue; leave out --scope catalog or --user.")
        token = PREFIX + secrets.token_urlsafe(32)
        made = datetime.now(UTC).isoformat(timespec="seconds")
        chosen = tuple(scope for scope in SCOPES if scope in scopes)
        key = Key(name, hashlib.sha256(token.encode()).hexdigest(), chosen, user_id, made)
        with FileLock(self.path.with_name(self.path.name + ".lock"), mode=0o600):
            if any(one.name == name for one in self.all()):
                raise SettingsError(f"There is a key '{name}' already: recgraph keys revoke {name}")
            self._write((*self.all(), key))
        return token

    def revoke(self, name: str) -> None:
        """Takes a key away. SettingsError where there is none of that name."""
        with FileLock(self.path.with_name(self.path.name + ".lock"), mode=0o600):
            left = tuple(key for key in self.all() if key.name != name)
            if len(left) == len(self.all()):
                raise SettingsError(f"There is no key '{name}'. Those that are: recgraph keys list")
            self._write(left)

    def _write(self, keys: tuple[Key, ...]) -> None:
        """The whole file anew, readable by its owner alone."""
        rows = [{name: getattr(key, name) for name in ("name", "sha256", "scopes", "user_id", "made")} for key in keys]
        handle, beside = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)  # mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"keys": rows}, file, indent=1, ensure_ascii=False)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, self.path)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise


def _check(name: str, scopes: Collection[str]) -> None:
    if not (name.isprintable() and 0 < len(name.strip()) <= 60):
        raise SettingsError("The name of a key is 1 to 60 printable characters.")
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        wrong = f"'{unknown[0]}' is no scope" if unknown else "A key without a scope opens nothing"
        raise SettingsError(f"{wrong}; there are {', '.join(SCOPES)}.")


def _read(path: Path) -> tuple[Key, ...]:
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["keys"]
        return tuple(Key(row["name"], row["sha256"], tuple(row["scopes"]), row["user_id"], row["made"]) for row in rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        wrong = f"{path} is no file of keys ({error})."
        raise SettingsError(f"{wrong} Move it away and make keys: recgraph keys add NAME") from None
