"""`recgraph serve --workers N`: this process owns the store and answers nobody; N others share its socket and answer.

A worker is a `recgraph serve` of its own over the shared store. One that ends is started again, a little later each
time; all end when this one does, even where it is killed. What they answer is unknown here.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recgraph.errors import StoreError
from recgraph.terminal import say

if TYPE_CHECKING:
    from recgraph.store.shared.owner import Owner

GRACE = 45.0  # seconds that workers have to answer what is in flight; they take 30 for it (serve.py)
LOOK = 0.2  # seconds between two looks at them
FIRST_WAIT, LONGEST_WAIT, WELL = 0.5, 30.0, 60.0  # seconds: a worker that lived WELL is started again after the first
PARENT = "RECGRAPH_PARENT_FD"  # names the end of a pipe that closes with this process


class Crew:
    """`count` workers, each started with `command`, which name the socket by its number. Use `run`."""

    def __init__(
        self, command: Sequence[str], listener: socket.socket, count: int, environment: dict[str, str]
    ) -> None:
        self._command, self._listener = list(command), listener
        self._read, self._write = os.pipe()
        self._environment = {**os.environ, **environment, PARENT: str(self._read)}
        self._workers: list[subprocess.Popen[bytes] | None] = [None] * count
        self._due, self._born, self._wait = [0.0] * count, [0.0] * count, [FIRST_WAIT] * count
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        """Keeps them at work until `stop`; then lets them answer what is in flight."""
        try:
            while not self._stopped.wait(LOOK):
                for place in range(len(self._workers)):
                    self._tend(place)
        finally:
            self._end()

    def _tend(self, place: int) -> None:
        worker, now = self._workers[place], time.monotonic()
        if worker is not None and worker.poll() is not None:
            wait = FIRST_WAIT if now - self._born[place] > WELL else self._wait[place]
            say(f"Worker {place + 1} ended ({worker.returncode}); another begins in {wait:g} s", err=True)
            self._workers[place], self._due[place] = None, now + wait
            self._wait[place] = min(LONGEST_WAIT, 2 * wait)
        elif worker is None and now >= self._due[place]:
            passed = (self._listener.fileno(), self._read)
            self._workers[place] = subprocess.Popen(self._command, env=self._environment, pass_fds=passed)
            self._born[place] = now

    def _end(self) -> None:
        alive = [worker for worker in self._workers if worker is not None and worker.poll() is None]
        for worker in alive:
            worker.send_signal(signal.SIGTERM)
        last = time.monotonic() + GRACE
        for worker in alive:
            try:
                worker.wait(max(0.0, last - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        os.close(self._write)
        os.close(self._read)


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def owned(owner: Owner, crew: Crew) -> None:
    """Runs the crew while the owner serves, until SIGTERM or SIGINT. Raises what ended the owner."""
    wrong: list[StoreError] = []
    ready = threading.Event()

    def serve() -> None:
        try:
            owner.run(ready.set)
        except StoreError as error:
            wrong.append(error)
        finally:
            ready.set()
            crew.stop()

    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: crew.stop())
    thread = threading.Thread(target=serve, name="recgraph-owner")
    thread.start()
    ready.wait()
    try:
        crew.run()
    finally:
        owner.stop()
        thread.join()
    if wrong:
        raise wrong[0]


def command_of(address: str, keys: Path | str, listener: socket.socket, options: Sequence[str]) -> list[str]:
    """What starts a worker: `recgraph serve` on a socket that is there already."""
    command = [sys.executable, "-m", "recgraph.cli", "serve", "--store", address, "--keys", str(keys)]
    return [*command, "--socket", str(listener.fileno()), *options]


def end_with_parent() -> None:
    """In a worker: a parent that is killed closes its end of the pipe, and this process ends as by SIGTERM."""
    number = os.environ.get(PARENT, "")
    if not number.isdigit():
        return

    def watch() -> None:
        os.read(int(number), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="recgraph-parent", daemon=True).start()
