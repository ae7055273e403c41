"""Several processes that answer on one socket: started again when they end, and ended with the one that started them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

pytest.importorskip("uvicorn", reason="the doors need the extra `serve`")

from recgraph.http.serve import _options
from recgraph.http.workers import PARENT, Crew, command_of

# Says who it is to whoever connects to the socket whose number it is given, until SIGTERM.
ANSWERS = """
import os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    with listener.accept()[0] as one:
        one.sendall(str(os.getpid()).encode())
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one


def who(listener: socket.socket) -> int:
    while True:  # one that is killed takes with it the connection it had accepted
        with suppress(ConnectionError), socket.create_connection(listener.getsockname(), timeout=20) as one:
            if told := one.recv(20):
                return int(told)


def until(right: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not right():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_worker_is_started_again_and_all_end_with_the_crew(listener: socket.socket) -> None:
    crew = Crew([sys.executable, "-c", ANSWERS, str(listener.fileno())], listener, 2, {})
    thread = threading.Thread(target=crew.run)
    thread.start()
    seen: set[int] = set()
    try:
        first = who(listener)
        os.kill(first, signal.SIGKILL)
        until(lambda: bool(seen.add(who(listener)) or (len(seen - {first}) == 2)))
    finally:
        crew.stop()
        thread.join(60)
    assert not any(map(is_there, seen))


@pytest.mark.slow
def test_a_worker_ends_where_its_parent_is_killed() -> None:
    code = (
        "import os, time; from recgraph.http.workers import end_with_parent; end_with_parent(); print(1, flush=True);"
        "time.sleep(60)"
    )
    ours, theirs = os.pipe()
    command, environment = [sys.executable, "-c", code], {**os.environ, PARENT: str(ours)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, pass_fds=(ours,)) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"1\n"
        os.close(theirs)
        assert worker.wait(30) == -signal.SIGTERM
    os.close(ours)


def test_a_worker_is_told_what_its_parent_was(listener: socket.socket) -> None:
    names = ("rate", "concurrent", "queue", "max_body", "llm")
    given = {**dict.fromkeys(names, 3), "llm_url": None}
    options = _options("127.0.0.1", ("shop.example",), given)
    assert options[:4] == ["--host", "127.0.0.1", "--rate", "3"]
    assert options[-2:] == ["--allow-host", "shop.example"]
    assert "--llm-url" not in options
    command = command_of("quack:127.0.0.1:1", "shop.keys.json", listener, options)
    assert command[command.index("--socket") + 1] == str(listener.fileno())
