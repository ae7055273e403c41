"""Who asks at a protocol's door, what its operator has set, and the one way to refuse. Which keys there are is the
entrance's subject (http/access.py). Knows no operation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from recgraph.errors import RecgraphError, SettingsError
from recgraph.http.keys import Grant
from recgraph.http.problems import Refusal
from recgraph.protocols.money import currency_code

_CODES = {"no-key": "unauthorized", "scope": "insufficient_scope", "other-user": "insufficient_scope"}


class Refused(RecgraphError):
    """A request that is not served. `code` is UCP's word for why, `status` that of HTTP."""

    def __init__(self, code: str, status: int, message: str) -> None:
        super().__init__(message)
        self.code, self.status = code, status


@dataclass(frozen=True)
class ProtocolOptions:
    """What an operator sets. `profiles`: addresses of agents' profiles that may be fetched; `currency`: an ISO 4217
    code where the shop's own word for it says none; `url`: where the server is reached from outside."""

    profiles: tuple[str, ...] = ()
    currency: str = ""
    url: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> ProtocolOptions:
        """RECGRAPH_AGENT_PROFILES (parted by blanks), RECGRAPH_CURRENCY, RECGRAPH_PUBLIC_URL. SettingsError."""
        currency = environment.get("RECGRAPH_CURRENCY", "").strip()
        url = environment.get("RECGRAPH_PUBLIC_URL", "").strip().rstrip("/")
        if currency and not currency_code(currency):
            raise SettingsError(f"RECGRAPH_CURRENCY is '{currency[:20]}'; give an ISO 4217 code such as EUR.")
        if url and not url.startswith(("https://", "http://")):
            raise SettingsError(f"RECGRAPH_PUBLIC_URL is '{url[:80]}'; give an address such as https://shop.example.")
        return cls(tuple(environment.get("RECGRAPH_AGENT_PROFILES", "").split()), currency, url)


@dataclass(frozen=True)
class Caller:
    """Who asks: by which grant, as which agent (its profile's address), and for which shopper ("" for nobody known)."""

    grant: Grant
    profile: str = ""
    user_id: str = field(default="")

    @classmethod
    def of(cls, grant: Grant, profile: str = "") -> Caller:
        """Of a grant: personal where its key is bound to one shopper."""
        return cls(grant, profile, grant.user_id)


def refused(refusal: Refusal) -> Refused:
    """A refusal at the entrance, in UCP's words."""
    return Refused(_CODES.get(refusal.kind, refusal.kind), refusal.status, refusal.detail)
