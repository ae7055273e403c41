"""The agent's profile is fetched from allowed addresses alone, and never from inside the network."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("ucp_sdk")

from recgraph.protocols import profiles as module
from recgraph.protocols.access import Refused
from recgraph.protocols.profiles import VERSION, Profiles, profile_of_header

AGENT = "https://agent.example/profile.json"
SEARCH = "dev.ucp.shopping.catalog.search"
PUBLIC = "93.184.215.14"


def platform(version: str = VERSION) -> dict[str, Any]:
    page = {"version": version, "spec": "https://ucp.dev/spec", "schema": "https://ucp.dev/schema.json"}
    return {"ucp": {"version": version, "services": {}, "payment_handlers": {}, "capabilities": {SEARCH: [page]}}}


@pytest.fixture
def agent() -> Iterator[Callable[..., Profiles]]:
    """agent(answer, resolved=..., drip=...) -> Profiles whose connections end at a small server in this process."""
    opened: list[socket.socket] = []

    def make(answer: bytes, resolved: tuple[str, ...] = (PUBLIC,), drip: float = 0.0) -> Profiles:
        asked: list[tuple[str, str]] = []

        def serve(end: socket.socket) -> None:
            end.recv(4096)
            try:
                for piece in [answer[i : i + 1] for i in range(len(answer))] if drip else [answer]:
                    end.sendall(piece)
                    time.sleep(drip)
            except OSError:
                pass
            end.close()

        def dial(address: str, host: str, port: int, seconds: float) -> socket.socket:
            asked.append((address, host))
            here, there = socket.socketpair()
            opened.extend((here, there))
            threading.Thread(target=serve, args=(there,), daemon=True).start()
            return here

        found = Profiles([AGENT], resolve=lambda host, port: resolved, dial=dial)
        found.asked = asked  # type: ignore[attr-defined]
        return found

    yield make
    for one in opened:
        one.close()


def http(body: object, status: str = "200 OK", more: str = "") -> bytes:
    told = json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(told)}\r\n{more}\r\n".encode() + told


def test_a_profile_is_read_once_at_the_address_that_was_looked_at(agent: Callable[..., Any]) -> None:
    profiles = agent(http(platform()))
    assert profiles.capabilities(AGENT) == {SEARCH}
    assert profiles.capabilities(AGENT) == {SEARCH}
    assert profiles.asked == [(PUBLIC, "agent.example")]


def test_an_address_that_is_not_allowed_is_not_fetched(agent: Callable[..., Any]) -> None:
    profiles = agent(http(platform()))
    for address in ("", "https://agent.example/profile.json?x", "https://other.example/"):
        assert profiles.capabilities(address) is None
    assert Profiles().capabilities(AGENT) is None
    assert profiles.asked == []


@pytest.mark.parametrize(
    "address",
    ["http://agent.example/p", "file:///etc/passwd", "https://", "https://u:p@agent.example/", "https://a b/", "gopher://x",
     "https://agent.example/\r\nHost: x", "https://agent.example:99999/", "https://agent.example/#x", "nothing"],
)  # fmt: skip
def test_what_is_no_plain_https_address_is_refused(address: str) -> None:
    with pytest.raises(Refused) as refused:
        Profiles([address]).capabilities(address)
    assert (refused.value.code, refused.value.status) == ("invalid_profile_url", 400)


@pytest.mark.parametrize(
    "inside",
    ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1", "fe80::1%eth0", "fd00::1",
     "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "224.0.0.1", "nonsense"],
)  # fmt: skip
def test_a_name_that_leads_inside_is_refused_before_a_connection(agent: Callable[..., Any], inside: str) -> None:
    profiles = agent(http(platform()), resolved=(PUBLIC, inside))
    with pytest.raises(Refused, match="not at a public address"):
        profiles.capabilities(AGENT)
    assert profiles.asked == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (http({}, "302 Found", "Location: http://169.254.169.254/\r\n"), "profile_unreachable"),
        (http({}, "500 Oops"), "profile_unreachable"),
        (http({"ucp": {}}), "profile_malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnot json!", "profile_malformed"),
        (http({"ucp": "x" * 200_000}), "profile_malformed"),
        (http(platform("2025-01-01")), "version_unsupported"),
        (b"garbage", "profile_unreachable"),
    ],
)
def test_what_does_not_answer_well_is_refused_and_remembered(
    agent: Callable[..., Any], answer: bytes, code: str
) -> None:
    profiles = agent(answer)
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            profiles.capabilities(AGENT)
        assert refused.value.code == code
    assert len(profiles.asked) == 1


def test_a_server_that_drips_bytes_is_cut_off(agent: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.2)
    begun = time.monotonic()
    with pytest.raises(Refused) as refused:
        agent(http(platform()), drip=0.02).capabilities(AGENT)
    assert refused.value.code == "profile_unreachable"
    assert time.monotonic() - begun < 1


def test_the_header_names_the_profile() -> None:
    assert profile_of_header(f'profile="{AGENT}"') == AGENT
    assert profile_of_header(f'version="1", profile="{AGENT}";a=1') == AGENT
    assert profile_of_header("profile=token") == profile_of_header("") == ""
