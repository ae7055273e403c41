"""The agent's profile is fetched from allowed addresses alone, and never from inside the network."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from within import within

pytest.importorskip("ucp_sdk")

from recgraph.protocols import profiles as module
from recgraph.protocols.access import Refused
from recgraph.protocols.profiles import VERSION, Profiles, _public, profile_of_header

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
     "::ffff:10.0.0.1", "::ffff:0:10.0.0.1", "::127.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::a00:1", "2002:a00:1::", "fec0::1",
     "3fff::1", "ff02::1", "224.0.0.1", "127.1", "2130706433", "nonsense"],
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
    with within(1):
        with pytest.raises(Refused) as refused:
            agent(http(platform()), drip=0.02).capabilities(AGENT)
        assert refused.value.code == "profile_unreachable"


def test_the_header_names_the_profile() -> None:
    assert profile_of_header(f'profile="{AGENT}"') == AGENT
    assert profile_of_header(f'version="1", profile="{AGENT}";a=1') == AGENT
    assert profile_of_header("profile=token") == profile_of_header("") == ""


# ── A real server, over TLS, that means harm ──────────────────────────────────────────────────────────────────────────


class Hostile:
    """An https server of this machine whose certificate the fetch trusts; what it sends is up to `behave`."""

    def __init__(self, certificate: Path, behave: Callable[[socket.socket], None]) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        self.listener, self.behave, self.met = socket.create_server(("127.0.0.1", 0)), behave, 0
        self.port = self.listener.getsockname()[1]
        self.address = f"https://agent.example:{self.port}/profile.json"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                plain, _ = self.listener.accept()
                self.met += 1
                with suppress(OSError), self.context.wrap_socket(plain, server_side=True) as end:
                    end.recv(4096)
                    self.behave(end)


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Hostile]]:
    """hostile(behave) -> a server that the name agent.example leads to, as if its address were a public one."""
    certificate, servers, known, trusting = tmp_path / "agent.pem", list[Hostile](), _public, ssl.create_default_context
    certificate.write_bytes(certificate_of("agent.example"))
    monkeypatch.setattr(module, "_public", lambda address: address == "127.0.0.1" or known(address))
    monkeypatch.setattr(module, "_resolved", lambda host, port: ["127.0.0.1"])
    monkeypatch.setattr(module.ssl, "create_default_context", lambda: trusting(cafile=str(certificate)))

    def make(behave: Callable[[socket.socket], None]) -> Hostile:
        servers.append(Hostile(certificate, behave))
        return servers[-1]

    yield make
    for server in servers:
        server.listener.close()


def certificate_of(name: str) -> bytes:
    """A key and a certificate that it signed itself, as PEM."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    plain, pem = serialization.NoEncryption(), serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    return private + bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))


def refused_by(address: str) -> Refused:
    with pytest.raises(Refused) as refused:
        Profiles([address]).capabilities(address)
    return refused.value


def test_a_profile_is_fetched_over_tls(hostile: Callable[..., Hostile]) -> None:
    server = hostile(lambda end: end.sendall(http(platform())))
    assert Profiles([server.address]).capabilities(server.address) == {SEARCH}


def test_a_redirect_is_not_followed(hostile: Callable[..., Hostile]) -> None:
    inside = hostile(lambda end: end.sendall(http(platform())))
    leads_inside = http({}, "302 Found", f"Location: {inside.address}\r\n")
    assert refused_by(hostile(lambda end: end.sendall(leads_inside)).address).code == "profile_unreachable"
    assert inside.met == 0


def test_an_endless_body_is_read_to_its_limit_and_no_further(hostile: Callable[..., Hostile]) -> None:
    sent = 0

    def pour(end: socket.socket) -> None:
        nonlocal sent
        end.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            end.sendall(b" " * 65_536)
            sent += 65_536

    assert refused_by(hostile(pour).address).code == "profile_malformed"
    assert sent < 20_000_000  # what lies in buffers on the way


def test_a_certificate_of_another_name_is_refused(
    hostile: Callable[..., Hostile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = hostile(lambda end: end.sendall(http(platform())))
    assert refused_by(server.address.replace("agent.example", "other.example")).code == "profile_unreachable"


def test_a_handshake_that_never_ends_frees_its_place(
    hostile: Callable[..., Hostile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte of it would have had the whole time anew, and four such servers all the places there are."""
    monkeypatch.setattr(module, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            end, _ = listener.accept()
            with end, suppress(OSError):
                end.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KB, a byte at a time
                for _ in range(100):
                    time.sleep(0.05)
                    end.sendall(b"\x02")

        hostile(lambda end: None)  # whose names and certificate count
        threading.Thread(target=drip, daemon=True).start()
        address = f"https://agent.example:{listener.getsockname()[1]}/profile.json"
        profiles = Profiles([address])
        with pytest.raises(Refused):
            profiles.capabilities(address)
        end = time.monotonic() + 2
        while profiles._free._value < module._AT_ONCE:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_a_name_that_changes_its_answer_is_asked_once_and_the_address_looked_at_is_dialled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DNS rebinding: public for the check, inside for the connection."""
    answers, dialled = [PUBLIC, "127.0.0.1"], list[tuple[str, int]]()

    def asked(host: str, port: int, **_: Any) -> list[Any]:
        assert host == "agent.example"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers.pop(0), port))]

    def dial(place: tuple[str, int], timeout: float) -> socket.socket:
        dialled.append(place)
        raise OSError("no network here")

    monkeypatch.setattr(module.socket, "getaddrinfo", asked)
    monkeypatch.setattr(module.socket, "create_connection", dial)
    assert refused_by(AGENT).code == "profile_unreachable"
    assert dialled == [(PUBLIC, 443)]
