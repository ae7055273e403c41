"""Who asks, and whether they may: the key of a request, its scope, its rate, and whose data it may name; and what all
doors of a server share beside that.

A key bound to a user learns nothing of others, not even whether there is a run of an id. What is behind a door is
unknown here.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import Request, Security
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers
from starlette.types import Scope

from recgraph.errors import SettingsError
from recgraph.http.keys import Grant, Keys
from recgraph.http.limits import Gate, Limits, Rates
from recgraph.http.metrics import Meters
from recgraph.http.problems import Refusal, unauthorized

_BEARER = HTTPBearer(auto_error=False, description="A key of `recgraph keys add`; none is asked for on loopback.")
_log = logging.getLogger(__name__)


class Access:
    """Lets requests in by the keys of one server."""

    def __init__(self, keys: Keys, rates: Rates) -> None:
        self.keys, self.rates = keys, rates

    def known(self, headers: Mapping[str, str]) -> Grant:
        """What the sender of a request with these headers may do (`Authorization: Bearer`, or `X-API-Key`). Refusal
        401, 503."""
        kind, _, token = headers.get("authorization", "").partition(" ")
        try:
            found = self.keys.grant(token.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "").strip())
        except SettingsError as error:
            _log.error("keys: %s", error)
            raise Refusal(503, "keys", "The file of keys cannot be read. Its operator has to act.") from None
        if found is None:
            raise unauthorized()
        return found

    def admitted(self, scope: Scope) -> Grant:
        """The same of a request, which is counted among those of its key. Refusal 401, 429, 503."""
        found = self.known(Headers(scope=scope))
        scope["recgraph.key"] = found.key
        self.rates.count(found.key)
        return found

    def asks(self, scope: str = "") -> Callable[[Request, Any], Awaitable[Grant]]:
        """A dependency: the grant of who asks, which has to have this scope; any key will do without one."""

        async def granted(request: Request, _: Annotated[Any, Security(_BEARER)]) -> Grant:
            return with_scope(self.admitted(request.scope), scope)

        return granted


class Entrance:
    """What all doors of one server share: who may come in and how often, how many are worked on, and the counters."""

    def __init__(self, keys: Keys, limits: Limits | None = None) -> None:
        self.limits, self.meters = limits or Limits(), Meters()
        self.access = Access(keys, Rates(self.limits.rate))
        self.answering = Gate(self.limits.answering, self.limits.queue)
        self.writing = Gate(self.limits.writing, self.limits.queue)  # and look-ups
        self.meters.watch("answering", lambda: self.answering.inside)
        self.meters.watch("writing", lambda: self.writing.inside)


def with_scope(grant: Grant, scope: str) -> Grant:
    """The grant, where it has the scope. Refusal 403."""
    if scope and not grant.may(scope):
        raise Refusal(403, "scope", f"This key lacks the scope {scope}.")
    return grant


def check_sees(grant: Grant, user_id: str) -> None:
    """Refusal 403 for a key that is bound to another user."""
    if not grant.sees(user_id):
        raise Refusal(403, "other-user", "This key is bound to another user.")


def check_unbound(grant: Grant) -> None:
    """Refusal 403 for a key that is bound to a user."""
    if grant.user_id:
        raise Refusal(403, "bound", "This key is bound to a user, and what it asks for is of all of the shop.")
