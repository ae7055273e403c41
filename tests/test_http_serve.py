"""`recgraph serve` as a process: it says where it is, serves the example, ends what is in flight, closes the store."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

import httpx
from serving import copied_shop, wait_until_ready

from recgraph.http.keys import Keys
from recgraph.store.db import Store

ROOT = Path(__file__).resolve().parents[1]
# The command with a small encoder, so that no model is loaded.
SERVE = """import sys
sys.path.insert(0, {tests!r})
from fakes import FakeEncoder
import recgraph.graph.recommender as core
core.encoder_of = lambda *_: FakeEncoder()
from recgraph.cli import main
main()"""


@contextmanager
def process(store: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The running command and its address."""
    command = [sys.executable, "-c", SERVE.format(tests=str(ROOT / "tests")), "serve"]
    given = [*command, "--store", str(store), "--llm", "none", "--port", "0", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(given, **pipes, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as running:  # type: ignore[call-overload]
        assert running.stdout is not None
        try:
            line = running.stdout.readline()
            assert "Serving" in line, (line, running.communicate(timeout=30))
            yield running, re.findall(r"http://\S+", line)[0]
        finally:
            running.kill()


@pytest.mark.slow
def test_the_example_runs_against_the_command_which_then_ends_and_closes_its_store(
    loaded_stores: Callable[[str, Path], Path], tmp_path: Path
) -> None:
    store = copied_shop(loaded_stores, tmp_path)
    key = Keys.beside(store).add("shop", ["recommend", "events"])
    with process(store) as (running, url):
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}) as client:
            wait_until_ready(client)
        given = [sys.executable, str(ROOT / "examples" / "http_client.py"), url, "U1", "linen shirt"]
        done = subprocess.run(
            given, capture_output=True, text=True, env={**os.environ, "RECGRAPH_KEY": key}, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert "load_history understand recall_memory" in done.stdout
        assert "202 {'written': 1, 'known': 0}\n202 {'written': 0, 'known': 1}" in done.stdout
        assert "is not shown again" in done.stdout
        running.send_signal(signal.SIGTERM)
        assert running.stdout is not None
        # the line after the address; what was read together with that is lost to `communicate`
        assert "Who may ask: the 1 keys of" in running.stdout.readline()
        _, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert "Stopped; the store is closed." in err
    assert "U1" not in err
    assert key not in err
    with Store.open(store, write=True) as opened:
        assert opened.history("U1")[-1].action == "purchase"


@pytest.mark.slow
def test_what_is_in_flight_is_answered_when_the_server_is_told_to_stop(
    loaded_stores: Callable[[str, Path], Path], tmp_path: Path
) -> None:
    store = copied_shop(loaded_stores, tmp_path)
    with process(store) as (running, url):
        with httpx.Client(base_url=url) as client:
            wait_until_ready(client)
        statuses: list[int] = []

        def ask() -> None:
            asked = {"user_id": "U1", "query": "linen shirt"}
            statuses.append(httpx.post(f"{url}/v1/recommendations", json=asked, timeout=30).status_code)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        with httpx.Client(base_url=url) as client:
            for _ in range(200):
                told = re.findall(r'recgraph_inside\{gate="answering"\} (\d+)', client.get("/metrics").text)
                if int(told[0]) >= 4:
                    break
        running.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(30)
        assert running.wait(60) == 0
    # those that had not connected yet are not answered: none is answered with an error
    assert set(statuses) == {200}
    assert len(statuses) >= 4


@pytest.mark.slow
def test_a_server_that_is_told_to_stop_before_it_is_ready_stops(
    loaded_stores: Callable[[str, Path], Path], tmp_path: Path
) -> None:
    """Ctrl-C while it imported could be lost, and the lock of imports with it: it never got ready and never ended. And
    the signal was dropped between the line that says where it is and the moment uvicorn hears signals."""
    store = copied_shop(loaded_stores, tmp_path)
    for number in (signal.SIGINT, signal.SIGTERM):
        with process(store) as (running, _):
            running.send_signal(number)
            assert running.wait(60) in (0, -number)
    command = [sys.executable, "-c", SERVE.format(tests=str(ROOT / "tests")), "serve", "--store", str(store)]
    told = """import signal, sys, threading
def stop():
    while not {"recgraph.http.serve", "recgraph.panel"} <= set(sys.modules): pass
    signal.raise_signal(signal.SIGINT)
threading.Thread(target=stop, daemon=True).start()
"""
    command[2] = told + command[2]
    done = subprocess.run([*command, "--port", "0", "--llm", "none"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
