"""Who asks, and whether they may: the key of a request, its scope, its rate, and whose data it may name.

A key bound to a user learns nothing of others, not even whether there is a run of an id.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from recgraph.errors import SettingsError
from recgraph.http.keys import Grant, Keys
from recgraph.http.limits import Rates
from recgraph.http.problems import Refusal, unauthorized

_BEARER = HTTPBearer(auto_error=False, description="A key of `recgraph keys add`; none is asked for on loopback.")
_log = logging.getLogger(__name__)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]


class Access:
    """Lets requests in by the keys of one server."""

    def __init__(self, keys: Keys, rates: Rates) -> None:
        self.keys, self.rates = keys, rates

    def grant(self, request: Request, token: str) -> Grant:
        """What the bearer of a token may do, counted among the requests of its key. Refusal 401, 429, 503."""
        try:
            found = self.keys.grant(token)
        except SettingsError as error:
            _log.error("keys: %s", error)
            raise Refusal(503, "keys", "The file of keys cannot be read. Its operator has to act.") from None
        if found is None:
            raise unauthorized()
        request.scope["recgraph.key"] = found.key
        self.rates.count(found.key)
        return found

    def asks(self, scope: str = "") -> Callable[[Request, Any], Awaitable[Grant]]:
        """A dependency: the grant of who asks, which has to have this scope; any key will do without one."""

        async def granted(request: Request, credentials: Credentials) -> Grant:
            grant = self.grant(request, credentials.credentials if credentials else "")
            if scope and not grant.may(scope):
                raise Refusal(403, "scope", f"This key lacks the scope {scope}.")
            return grant

        return granted


def check_sees(grant: Grant, user_id: str) -> None:
    """Refusal 403 for a key that is bound to another user."""
    if not grant.sees(user_id):
        raise Refusal(403, "other-user", "This key is bound to another user.")


def check_unbound(grant: Grant) -> None:
    """Refusal 403 for a key that is bound to a user."""
    if grant.user_id:
        raise Refusal(403, "bound", "This key is bound to a user, and what it asks for is of all of the shop.")
