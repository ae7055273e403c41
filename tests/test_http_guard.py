"""What the HTTP door refuses, and what it never says: keys, scopes, other users' data, sizes, paths, hosts, logs."""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from within import within

pytest.importorskip("fastapi")
pytest.importorskip("mcp")  # here: it keeps the stderr it is imported under, and a CliRunner has its own

import httpx
from serving import Served, copied_shop, serving

from recgraph.cli import main
from recgraph.errors import RecgraphError, SettingsError, StoreBusy, StoreReadOnly
from recgraph.http.keys import Keys
from recgraph.http.limits import Limits
from recgraph.http.logs import JsonLines
from recgraph.http.serve import check_open, listening


@pytest.fixture
def shop(loaded_stores: Callable[[str, Path], Path], tmp_path: Path) -> Path:
    return copied_shop(loaded_stores, tmp_path)


@pytest.fixture(scope="module")
def server(loaded_stores: Callable[[str, Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for all tests of this file that leave it as they found it, or nearly so."""
    with serving(
        copied_shop(loaded_stores, tmp_path_factory.mktemp("served")), Limits(body=2000, body_seconds=1.0)
    ) as served:
        yield served


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def raw(server: Served, request: bytes) -> str:
    """What a client that sends these bytes gets."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts).decode()


def status_of(server: Served, target: str, *headers: str, method: str = "GET") -> int:
    lines = [f"{method} {target} HTTP/1.1", *(headers or ("Host: localhost",)), "Connection: close", "", ""]
    return int(raw(server, "\r\n".join(lines).encode("latin-1")).split(" ")[1])


# ── Keys ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_key_or_with_a_wrong_one_nothing_but_health_is_told(shop: Path) -> None:
    keys = Keys.beside(shop)
    token = keys.add("web", ["recommend"])
    with serving(shop, keys=keys) as server:
        for headers in ({}, bearer("wrong"), bearer(token + "x"), {"Authorization": f"Basic {token}"}):
            for method, path in (("GET", "/v1/users"), ("GET", "/metrics"), ("DELETE", "/v1/users/U1")):
                refused = server.client.request(method, path, headers=headers)
                assert refused.status_code == 401
                assert refused.headers["www-authenticate"] == "Bearer"
                assert refused.json()["type"] == "urn:recgraph:problem:no-key"
        assert server.client.get("/health").status_code == 200
        assert server.client.get("/v1/users", headers=bearer(token)).status_code == 200
        assert server.client.get("/metrics", headers=bearer(token)).status_code == 200


def test_a_key_does_what_its_scopes_say_and_nothing_after_it_is_revoked(shop: Path) -> None:
    keys = Keys.beside(shop)
    token = keys.add("web", ["recommend"])
    event = {"events": [{"user_id": "U1", "action": "click", "item_id": "S1OLIV"}]}
    with serving(shop, keys=keys) as server:
        refused = server.client.post("/v1/events", json=event, headers=bearer(token))
        assert (refused.status_code, refused.json()["detail"]) == (403, "This key lacks the scope events.")
        assert (
            server.client.post("/v1/items", json={"items": [{"item_id": "X"}]}, headers=bearer(token)).status_code
            == 403
        )
        assert server.client.delete("/v1/users/U1", headers=bearer(token)).status_code == 403
        Keys.beside(shop).revoke("web")
        assert server.client.get("/v1/users", headers=bearer(token)).status_code == 401


def test_a_key_of_one_user_learns_and_writes_nothing_of_others(shop: Path) -> None:
    keys = Keys.beside(shop)
    mine = bearer(keys.add("U2's phone", ["recommend", "events", "erase"], "U2"))
    all_of_it = bearer(keys.add("backend", ["recommend"]))
    with serving(shop, keys=keys) as server:
        client = server.client
        ask = {"user_id": "U1", "query": "boots", "thread": "t"}
        theirs = client.post("/v1/recommendations", json=ask, headers=all_of_it).json()["run_id"]
        assert client.post("/v1/recommendations", json=ask, headers=mine).status_code == 403
        assert client.post("/v1/recommendations", json={**ask, "stream": True}, headers=mine).status_code == 403
        assert client.get("/v1/users/U1/summary", headers=mine).status_code == 403
        assert client.get("/v1/users", headers=mine).status_code == 403
        assert client.delete("/v1/users/U1", headers=mine).status_code == 403
        for path in (f"/v1/runs/{theirs}", f"/v1/runs/{theirs}/replay"):
            assert client.get(path, headers=mine).json()["type"] == "urn:recgraph:problem:unknown-run"
        event = {"user_id": "U1", "action": "click", "item_id": "S1OLIV"}
        both = {"events": [{**event, "user_id": "U2"}, event]}
        assert client.post("/v1/events", json=both, headers=mine).status_code == 403
        invented = {"events": [{**event, "user_id": "U2", "item_id": "INVENTED"}]}
        assert client.post("/v1/events", json=invented, headers=mine).status_code == 422
        own = client.post("/v1/recommendations", json={"user_id": "U2"}, headers=mine)
        assert own.status_code == 200
        assert client.get(f"/v1/runs/{own.json()['run_id']}", headers=mine).status_code == 200


def test_a_broken_file_of_keys_opens_nothing_and_is_not_quoted(shop: Path) -> None:
    keys = Keys.beside(shop)
    token = keys.add("web", ["recommend"])
    with serving(shop, keys=keys) as server:
        keys.path.write_text("{")
        refused = server.client.get("/v1/users", headers=bearer(token))
        assert refused.status_code == 503
        assert str(shop.parent) not in refused.text


def test_an_address_that_others_reach_is_refused_without_keys(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "shop.keys.json")
    check_open("127.0.0.1", keys)
    check_open("::1", keys)
    for host in ("0.0.0.0", "192.168.1.7", "::", "shop.example"):
        with pytest.raises(SettingsError, match=r"anybody who reaches it could ask.*recgraph keys add NAME"):
            check_open(host, keys)
    keys.add("web", ["recommend"])
    check_open("0.0.0.0", keys)


def test_keys_are_made_listed_and_revoked_by_commands(tmp_path: Path) -> None:
    file = ["--file", str(tmp_path / "k.json")]
    runner = CliRunner()
    made = runner.invoke(
        main, ["keys", "add", "web", "--scope", "recommend", "--scope", "events", "--user", "U1", *file]
    )
    token = made.stdout.strip()
    assert token.startswith("rg_")
    grant = Keys(tmp_path / "k.json").grant(token)
    assert grant is not None
    assert (sorted(grant.scopes), grant.user_id) == (["events", "recommend"], "U1")
    shown = runner.invoke(main, ["keys", "list", *file]).stdout
    assert "web  recommend, events  user U1" in shown
    assert token not in shown
    assert runner.invoke(main, ["keys", "revoke", "web", *file]).exit_code == 0
    assert Keys(tmp_path / "k.json").grant(token) is None
    refused = runner.invoke(main, ["serve", "--host", "0.0.0.0", "--store", str(tmp_path / "none.duckdb")])
    assert refused.exit_code == 2
    assert "anybody who reaches it could ask" in refused.stderr


@pytest.mark.parametrize(("given", "threads"), [(None, "1"), ("3", "3")])
def test_a_command_that_gives_several_answers_at_once_has_numpy_work_in_one_thread(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str | None, threads: str
) -> None:
    for door in ("serve", "mcp"):
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", given or "")
        if given is None:
            monkeypatch.delenv("OPENBLAS_NUM_THREADS")
        refused = CliRunner().invoke(main, [door, "--store", str(tmp_path / "none.duckdb"), "--llm", "none"])
        assert refused.exit_code == 1
        assert os.environ["OPENBLAS_NUM_THREADS"] == threads
    seen = "import sys, recgraph.cli; print('numpy' in sys.modules)"  # from then on it would not count
    assert subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True).stdout == "False\n"


# ── Rates, sizes, queues ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_that_asks_too_often_is_told_when_to_come_again(shop: Path) -> None:
    with serving(shop, Limits(rate="3/minute")) as server:
        told = [server.client.get("/v1/users") for _ in range(4)]
        assert [answer.status_code for answer in told] == [200, 200, 200, 429]
        assert 1 <= int(told[-1].headers["retry-after"]) <= 60
    with pytest.raises(SettingsError, match="The rate is 'often'"), serving(shop, Limits(rate="often")):
        pass


def test_a_body_that_is_too_large_is_refused_by_its_length_and_by_its_chunks(server: Served) -> None:
    large = json.dumps({"user_id": "U1", "query": "x" * 3000}).encode()
    headers = {"content-type": "application/json"}
    by_length = server.client.post("/v1/recommendations", content=large, headers=headers)
    chunks = (large[start : start + 500] for start in range(0, len(large), 500))
    by_chunks = server.client.post("/v1/recommendations", content=chunks, headers=headers)
    for refused in (by_length, by_chunks):
        assert refused.status_code == 413
        assert refused.json()["detail"] == "A request may have 2,000 bytes. Send it in parts."
    assert status_of(server, "/v1/events", "Host: localhost", f"Content-Length: {'9' * 400}", method="POST") in (
        400,
        413,
    )


def test_a_body_that_drips_is_cut_off(server: Served) -> None:
    with within(5):
        head = (
            b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        assert raw(server, head).startswith("HTTP/1.1 408")


def test_a_body_that_is_no_json_or_of_another_type_is_refused(server: Served) -> None:
    for content, kind in (
        (b"{", "application/json"),
        (b"{}", "text/plain"),
        (b"\xff\xfe", "application/json"),
        (b"[" * 1900, "application/json"),
    ):
        refused = server.client.post("/v1/events", content=content, headers={"content-type": kind})
        assert refused.status_code in (400, 422), content[:10]
        assert refused.headers["content-type"] == "application/problem+json"


def test_a_body_of_two_lengths_is_refused(server: Served) -> None:
    body = b'{"user_id": "U1"}'
    lengths = b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    told = raw(server, b"POST /v1/recommendations HTTP/1.1\r\nHost: localhost\r\n" + lengths)
    assert told.startswith("HTTP/1.1 400 ")
    assert "connection: close" in told.lower()


def test_the_parts_of_an_answer_do_not_wait_for_each_other() -> None:
    with listening("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/recommendations", {"user_id": "U1", "k": "5"}),
        ("/v1/recommendations", {"user_id": "U1", "stream": 1}),
        ("/v1/recommendations", {"user_id": "U1", "filters": {"price": {"at_most": "60"}}}),
        ("/v1/chat", {"user_id": "U1", "text": "boots", "stream": 0}),
        ("/v1/items", {"items": [{"item_id": "S2OLIV", "in_stock": "no"}]}),
        ("/v1/items", {"items": [{"item_id": "S2OLIV", "price": True}]}),
        ("/v1/events", {"events": [{"user_id": "U1", "action": "search", "query": "x", "ts": 1764244800}]}),
        ("/v1/events", {"events": [{"user_id": "U1", "action": "search", "query": "x", "ts": "1764244800"}]}),
    ],
)
def test_a_value_of_another_type_is_refused_and_not_guessed(server: Served, path: str, body: dict[str, Any]) -> None:
    assert server.client.post(path, json=body).status_code == 422


def test_half_a_character_is_refused(server: Served) -> None:
    body = b'{"user_id": "U1", "query": "\\ud83d"}'
    assert (
        server.client.post(
            "/v1/recommendations", content=body, headers={"content-type": "application/json"}
        ).status_code
        == 422
    )


def test_more_than_the_queue_holds_is_asked_to_come_again(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(shop, Limits(answering=1, queue=1)) as server:
        begun, go = threading.Event(), threading.Event()
        summary = server.service.summary

        def slow(user_id: str) -> dict[str, Any]:
            begun.set()
            go.wait(10)
            return summary(user_id)

        monkeypatch.setattr(server.service, "summary", slow)
        statuses: list[int] = []

        def ask() -> None:
            statuses.append(httpx.get(f"{server.url}/v1/users/U1/summary", timeout=20).status_code)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        begun.wait(10)
        for _ in range(100):
            if 'recgraph_inside{gate="answering"} 2.0' in server.client.get("/metrics").text:
                break
            time.sleep(0.02)
        full = server.client.get("/v1/users/U1/summary")
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        assert full.json()["type"] == "urn:recgraph:problem:full"
        assert server.client.get("/health").status_code == 200
        go.set()
        for thread in threads:
            thread.join()
        assert statuses == [200, 200]


@pytest.mark.parametrize(
    "error", [StoreBusy("/srv/shop.duckdb is held by process 7"), StoreReadOnly("/srv/shop.duckdb")]
)
def test_a_store_that_is_busy_is_a_503_without_paths(
    server: Served, error: RecgraphError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(server.service, "record", fails)
    event = {"user_id": "U1", "action": "click", "item_id": "S1OLIV"}
    refused = server.client.post("/v1/events", json={"events": [event]})
    assert refused.status_code == 503
    assert "/srv" not in refused.text
    assert ("retry-after" in refused.headers) == isinstance(error, StoreBusy)


# ── Paths, hosts, origins, headers ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "target",
    [
        "/v1/users/a%2Fb/summary",
        "/v1/users/%2e%2e/summary",
        "/v1/users/../runs/x",
        "/v1//users",
        "/v1/users/U1%00/summary",
        "/v1/users/U1%0d%0aX: y/summary",
        "/v1/users/a\\b/summary",
        "/v1/users/%252e%252e/summary",
        "/v1/users/" + "x" * 3000 + "/summary",
    ],
)
def test_tricks_with_paths_are_refused(server: Served, target: str) -> None:
    assert status_of(server, target) == 400


def test_other_paths_and_methods_are_problems_too(server: Served) -> None:
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("PUT", "/v1/events", 405),
        ("GET", "/v1/users/", 404),
        ("TRACE", "/health", 405),
    ):
        refused = server.client.request(method, path)
        assert refused.status_code == status
        assert refused.headers["content-type"] == "application/problem+json"


def test_a_name_that_was_rebound_to_this_machine_is_refused(server: Served) -> None:
    assert status_of(server, "/health", "Host: evil.example") == 400
    assert status_of(server, "/health", "Host: localhost:8000") == 200
    assert status_of(server, "/health", "Host: [::1]:8000") == 200


def test_a_page_of_another_site_may_not_ask_where_no_key_is_needed(server: Served) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        refused = server.client.get("/v1/users", headers=headers)
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:recgraph:problem:origin")
        assert "access-control-allow-origin" not in refused.headers
    assert server.client.get("/v1/users", headers={"Origin": server.url}).status_code == 200


def test_every_answer_carries_its_id_and_headers_for_browsers(server: Served) -> None:
    for path in ("/health", "/nothing", "/v1/users/a%2Fb/summary"):
        answer = server.client.get(path, headers={"X-Request-ID": "order-7.1"})
        assert answer.headers["x-request-id"] == "order-7.1"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers
    odd = server.client.get("/nothing", headers={"X-Request-ID": "x" * 100})
    assert odd.headers["x-request-id"] == odd.json()["request_id"] != "x" * 100


# ── Crashes and logs ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_crash_is_a_500_that_tells_nothing(
    server: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def crash(user_id: str) -> None:
        raise RuntimeError(f"secret of {user_id}")

    monkeypatch.setattr(server.service, "summary", crash)
    answer = server.client.get("/v1/users/U1/summary")
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:recgraph:problem:fault")
    assert answer.headers["connection"] == "close"  # else the next request of this client is cut off
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_log_has_templates_and_no_ids_no_words_and_no_text_of_errors(
    server: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(user_id: str) -> None:
        raise RuntimeError(f"secret of {user_id}")

    with caplog.at_level(logging.INFO):
        server.ask(query="linen shirt")
        server.client.get("/v1/users/U1/summary")
        server.client.get("/nothing/U1")
        monkeypatch.setattr(server.service, "summary", crash)
        server.client.get("/v1/users/U1/summary")
        for _ in range(100):  # the crash is logged after it was answered
            if any(record.exc_info for record in caplog.records):
                break
            time.sleep(0.02)
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records if record.name != "httpx"]
    requests = [line for line in lines if line["message"] == "request"]
    assert [(line["path"], line["status"]) for line in requests if line["path"] != "/ready"] == [
        ("/v1/recommendations", 200),
        ("/v1/users/{user_id}/summary", 200),
        ("unmatched", 404),
        ("/v1/users/{user_id}/summary", 500),
    ]
    told = json.dumps(lines)
    assert "RuntimeError" in told
    for secret in ("U1", "linen", "secret"):
        assert secret not in told
