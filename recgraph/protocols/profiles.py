"""The profile of the agent that asks (UCP): fetched from addresses that the operator has allowed, and from no other.

An address comes from outside, so it is a way to make this machine ask for something. It has to be on the list letter by
letter, https, without a redirect; its host is resolved once, every address of it has to be public, and the connection
goes to the very address that was looked at, so that a name that changes its answer in between gains nothing. All of it
together, name look-up too, has two seconds and 128 KiB. Which tools there are is unknown here.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import re
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError
from ucp_sdk.models.schemas.profile import PlatformSchema

from recgraph.protocols.access import Refused
from recgraph.tools.llm.untrusted import one_line

VERSION = "2026-08-25"  # of UCP
SECONDS = 2.0
MOST_BYTES = 128 * 1024
_LONGEST = 2048  # characters of an address
_KEPT_SECONDS, _FAILED_SECONDS = 300.0, 60.0
_AT_ONCE = 4  # fetches under way, whoever asks
_NAT64, _UNICAST, _EXAMPLES = map(ipaddress.IPv6Network, ("64:ff9b::/96", "2000::/3", "3fff::/20"))
_AGENT = re.compile(r'(?:^|,)\s*profile\s*=\s*"([^"\\]{0,2048})"')

Resolve = Callable[[str, int], Sequence[str]]
Dial = Callable[[str, str, int, float], socket.socket]


def profile_of_header(header: str) -> str:
    """The profile address of a UCP-Agent header (`profile="https://..."`); "" where it names none."""
    found = _AGENT.search(header[: 2 * _LONGEST])
    return found[1] if found else ""


@dataclass
class Profiles:
    """Profiles of the `allowed` addresses. An address that is not allowed is not fetched, and its agent served like one
    that names none. Thread-safe."""

    allowed: Collection[str] = ()
    resolve: Resolve = field(default=lambda host, port: _resolved(host, port))
    dial: Dial = field(default=lambda address, host, port, seconds: _dialled(address, host, port, seconds))

    def __post_init__(self) -> None:
        self._lock, self._free = threading.Lock(), threading.BoundedSemaphore(_AT_ONCE)
        self._kept: OrderedDict[str, tuple[float, frozenset[str] | Refused]] = OrderedDict()

    def capabilities(self, address: str) -> frozenset[str] | None:
        """The names of the capabilities that the agent has in our version; None where nothing is known of it.
        Refused."""
        if address:
            _check(address)
        if address not in self.allowed:
            return None
        now = time.monotonic()
        with self._lock:
            until, known = self._kept.get(address, (0.0, frozenset[str]()))
        if now >= until:
            known = self._fetched(address)
            good = not isinstance(known, Refused)
            with self._lock:
                self._kept[address] = now + (_KEPT_SECONDS if good else _FAILED_SECONDS), known
        if isinstance(known, Refused):
            raise Refused(known.code, known.status, str(known))
        return known

    def _fetched(self, address: str) -> frozenset[str] | Refused:
        """In a thread of its own, which is left behind when the time is over: a name look-up cannot be stopped."""
        if not self._free.acquire(blocking=False):
            return _unreachable("too many profiles are being fetched")
        done: list[frozenset[str] | Refused] = []
        until = time.monotonic() + SECONDS

        def work() -> None:
            try:
                done.append(_supported(self._read(address, until)))
            except Refused as refused:
                done.append(refused)
            except (OSError, http.client.HTTPException, ValueError) as error:
                done.append(_unreachable(one_line(str(error), 100) or type(error).__name__))
            finally:
                self._free.release()

        thread = threading.Thread(target=work, name="ucp-profile", daemon=True)
        thread.start()
        thread.join(SECONDS)
        return done[0] if done else _unreachable(f"no answer within {SECONDS:.0f} s")

    def _read(self, address: str, until: float) -> bytes:
        parts = urlsplit(address)
        host, port = str(parts.hostname), parts.port or 443
        found = self.resolve(host, port)
        if not found or not all(map(_public, found)):
            raise Refused("invalid_profile_url", 400, "The agent's profile is not at a public address.")
        with (
            self.dial(found[0], host, port, max(until - time.monotonic(), 0.01)) as opened,
            _cut_after(until - time.monotonic(), opened),
        ):
            return _got(opened, parts.path + (f"?{parts.query}" if parts.query else ""), parts.netloc)


def _check(address: str) -> None:
    """Refused for what is no https address that could be fetched."""
    try:
        parts = urlsplit(address)
        plain = parts.scheme == "https" and parts.hostname and parts.username is None and (parts.port or 443) > 0
    except ValueError:
        plain = False
    if not plain or len(address) > _LONGEST or not address.isascii() or re.search(r"[\s\x00-\x1f\x7f#\\]", address):
        raise Refused("invalid_profile_url", 400, "The agent's profile has to be an https address.")


def _resolved(host: str, port: int) -> list[str]:
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _public(address: str) -> bool:
    """Whether an IP address is one of the open internet; of an IPv6 one that carries an IPv4 one, whether that is."""
    try:
        told = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(told, ipaddress.IPv6Address):
        inner = told.ipv4_mapped or told.sixtofour or (told.teredo[1] if told.teredo else None)
        if told in _NAT64:
            inner = ipaddress.IPv4Address(int(told) & 0xFFFFFFFF)
        if inner is not None:
            return _public(str(inner))
        # Of the other forms that carry an IPv4 address, and of site-local ones, Python says that they are global.
        if told not in _UNICAST or told in _EXAMPLES:
            return False
    return told.is_global and not told.is_multicast


def _dialled(address: str, host: str, port: int, seconds: float) -> socket.socket:
    """A TLS connection to an IP address, whose certificate has to be the host's."""
    begun = time.monotonic()
    plain = socket.create_connection((address, port), timeout=seconds)
    try:
        with _cut_after(begun + seconds - time.monotonic(), plain):
            return ssl.create_default_context().wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


@contextmanager
def _cut_after(seconds: float, opened: socket.socket) -> Iterator[None]:
    """Ends what the block reads: a server that sends a byte a second never runs into a socket's own timeout."""

    def cut() -> None:
        with suppress(OSError):
            descriptor.shutdown(socket.SHUT_RDWR)

    # Of its own, because TLS takes the other one's away while it shakes hands.
    with socket.socket(fileno=os.dup(opened.fileno())) as descriptor:
        clock = threading.Timer(max(seconds, 0.01), cut)
        clock.daemon = True
        clock.start()
        try:
            yield
        finally:
            clock.cancel()
            clock.join()


def _got(opened: socket.socket, path: str, host: str) -> bytes:
    """The body of a GET over an open connection."""
    told = f"GET {path or '/'} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
    opened.sendall(told.encode("ascii"))
    answer = http.client.HTTPResponse(opened, method="GET")
    try:
        answer.begin()
        if answer.status != 200:
            raise _unreachable(f"it answers {answer.status}")
        body = answer.read(MOST_BYTES + 1)
    finally:
        answer.close()
    if len(body) > MOST_BYTES:
        raise Refused("profile_malformed", 422, "The agent's profile is larger than 128 KiB.")
    return body


def _supported(body: bytes) -> frozenset[str]:
    """The capabilities of a profile that are there in our version."""
    try:
        told: Any = json.loads(body)
        profile = PlatformSchema.model_validate(told)
    except (ValueError, ValidationError, RecursionError):
        raise Refused("profile_malformed", 422, "The agent's profile is no UCP profile.") from None
    if profile.ucp.version != VERSION:
        raise Refused(
            "version_unsupported", 422, f"Version {profile.ucp.version} is not supported; this shop speaks {VERSION}."
        )
    named = profile.ucp.capabilities or {}
    return frozenset(name for name, entries in named.items() if any(entry.version == VERSION for entry in entries))


def _unreachable(why: str) -> Refused:
    return Refused("profile_unreachable", 424, f"The agent's profile cannot be read: {why}.")
