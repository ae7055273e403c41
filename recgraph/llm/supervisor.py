"""Keeps a vLLM server running: starts it, asks it for a token every few seconds, starts it again where it died or fell
silent, and ends it gently.

vLLM's /health says 200 while its engine is dead, so only an answer counts. The server and what it starts are a process
group of their own, which is ended as a whole; where this process is killed, the kernel ends the server (launch.py). The
command line and what the server is good for are not known here: `Launch` tells it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from recgraph.errors import LLMError
from recgraph.llm.launch import DRAIN_SECONDS, Launch, check_port
from recgraph.tools.llm.untrusted import harmless

_LINES = 3  # of the log, told where the server died
_TELLING = re.compile(r"error|exception|cannot|killed|memory|unrecognized", re.IGNORECASE)  # lines that say why
_LOG_BYTES = 64 << 10  # of its end that are read for them


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited for what, in seconds."""

    start: float = 900.0  # for the first token; a large model is read from a disk, kernels are compiled
    warm: float = 300.0  # for one of the calls that compile
    answer: float = 30.0  # for a canary, behind the work of everybody else
    pause: float = 5.0  # between two canaries
    silent: int = 3  # canaries in a row without an answer, then the server is ended
    first_wait: float = 1.0  # before it is started again; doubled each time
    longest_wait: float = 60.0
    starts: int = 6  # in a row without `steady` seconds of service between them; then it is given up
    steady: float = 120.0
    drain: float = DRAIN_SECONDS + 10.0


class Supervisor:
    """Runs one server until a signal comes. `say` hears one line of news at a time."""

    def __init__(self, launch: Launch, log: Path, say: Callable[[str], None], patience: Patience | None = None) -> None:
        self._launch, self._log, self._say = launch, log, say
        self._patience = patience or Patience()
        self._process: subprocess.Popen[bytes] | None = None
        self._ending, self._at_once = threading.Event(), False
        self._warmed = False

    def run(self) -> None:
        """Returns when a SIGTERM or SIGINT came and the server has ended. LLMError where it does not start, or dies
        time and again."""
        with self._signals():
            failed = 0
            try:
                while not self._ending.is_set():
                    served, reason = self._serve()
                    if self._ending.is_set():
                        break
                    failed = 1 if served >= self._patience.steady else failed + 1
                    if not self._warmed or failed >= self._patience.starts:
                        raise LLMError(f"{reason} {self._last_lines()}The whole log: {self._log}")
                    wait = min(self._patience.longest_wait, self._patience.first_wait * 2 ** (failed - 1))
                    self._say(f"{reason} {self._last_lines()}Started again in {wait:g} s.")
                    self._ending.wait(wait)
            finally:
                self._end()

    # ── One life of the server ────────────────────────────────────────────────────────────────────────────────────────

    def _serve(self) -> tuple[float, str]:
        """Starts and watches the server until it is dead: the seconds it served, and why it did no longer."""
        begun = time.monotonic()
        check_port(self._launch.host, self._launch.port)
        self._process = self._started()
        reason = self._until_ready(begun)
        if reason:
            self._end()
            return 0.0, reason
        if not self._warmed:
            self._warm_up()
        self._say(f"ready after {time.monotonic() - begun:.0f} s")
        self._warmed, ready = True, time.monotonic()
        reason = self._watch()
        self._end()
        return time.monotonic() - ready, reason

    def _started(self) -> subprocess.Popen[bytes]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self._log.replace(self._log.with_suffix(".log.1"))
        output = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return subprocess.Popen(
                self._launch.command,
                env=os.environ | self._launch.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            os.close(output)

    def _until_ready(self, begun: float) -> str:
        """Waits for the first token; why there was none, or "" where there was or nothing is waited for any more."""
        while not self._ending.wait(0.5):
            if gone := self._gone():
                return gone
            if self._canary(self._patience.answer):
                return ""
            if time.monotonic() - begun > self._patience.start:
                return f"The vLLM server gave no token within {self._patience.start:g} s."
        return "ended"

    def _watch(self) -> str:
        silent = 0
        while not self._ending.wait(self._patience.pause):
            if gone := self._gone():
                return gone
            silent = 0 if self._canary(self._patience.answer) else silent + 1
            if silent >= self._patience.silent and not self._gone():
                return f"The vLLM server is there, but gave no token {silent} times in a row."
        return ""

    def _gone(self) -> str:
        code = self._process.poll() if self._process else 0
        if code is None:
            return ""
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        return f"The vLLM server {how}."

    def _warm_up(self) -> None:
        """What compiles at its first call: each adapter, probabilities, forms. A call that fails is told, no more: the
        requests of others will say what is wrong with it."""
        for model in (self._launch.name, *self._launch.adapters):
            chat = {"model": model, "messages": [{"role": "user", "content": "Yes or No?"}], "max_tokens": 4}
            for kind, path, body in (
                ("probabilities", "/v1/chat/completions", {**chat, "logprobs": True, "logprob_token_ids": [1, 2]}),
                ("forms", "/v1/chat/completions", {**chat, "structured_outputs": {"regex": "ID: (A|B)"}}),
                ("scoring", "/generative_scoring", _questions(model)),
            ):
                if self._ending.is_set():
                    return
                status = self._post(path, body, self._patience.warm)
                if status != 200 and not (status == 404 and kind == "scoring"):  # which older versions have not
                    self._say(f"warming up {model}: {kind} answered with {status or 'nothing'}")

    # ── Asking it ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _canary(self, seconds: float) -> bool:
        body = {"model": self._launch.name, "prompt": "1", "max_tokens": 1}
        return self._post("/v1/completions", body, seconds) == 200

    def _post(self, path: str, body: dict[str, Any], seconds: float) -> int:
        """The status of the answer, 0 where none came."""
        place = urlsplit(self._launch.url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=seconds)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._launch.key or 'EMPTY'}"}
        try:
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            answer.read(1 << 20)
            return answer.status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def _last_lines(self) -> str:
        """The lines at the end of the log in which the reason mostly stands, as one harmless line; "" for an empty
        log."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_BYTES))
                lines = file.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        lines = [line.strip()[-300:] for line in lines if line.strip()]
        telling = [line for line in lines[-200:] if _TELLING.search(line)] or lines
        told = harmless(" | ".join(telling[-_LINES:]), 900)
        if self._launch.key:
            told = told.replace(self._launch.key, "***")
        return f"Its last words: {told} " if told else ""

    # ── Ending it ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """The first signal ends the server gently, the second at once."""

        def hear(number: int, frame: FrameType | None) -> None:
            self._at_once = self._ending.is_set()
            self._ending.set()

        before = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self) -> None:
        """Ends the server and all it started. Answers under way are waited for, unless it is to end at once."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            until = time.monotonic() + self._patience.drain
            while process.poll() is None and time.monotonic() < until and not self._at_once:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
        with contextlib.suppress(ProcessLookupError):  # nothing of the group is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _questions(model: str) -> dict[str, Any]:
    return {"model": model, "query": "Yes or", "items": [" No?", " not?"], "label_token_ids": [1, 2]}
