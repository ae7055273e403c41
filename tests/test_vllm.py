"""A real vLLM server on the CPU, in float32, against the in-process model: both must say the same.

The server runs in a Python of its own: RECGRAPH_VLLM_PYTHON, else .venv-vllm/bin/python in the repository; without one
the tests skip.
"""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs recgraph[local]")
pytest.importorskip("langchain_openai", reason="needs recgraph[vllm]")

import torch

from recgraph.errors import LLMError, LLMTimeout, ModelMissing
from recgraph.tools.llm.adapter_sets import AdapterSet, find_set, portable
from recgraph.tools.llm.forms import form_regex
from recgraph.tools.llm.local import LocalLLM
from recgraph.tools.llm.open import open_adapted
from recgraph.tools.llm.places import find_llm, quiet_transformers
from recgraph.tools.llm.protocol import Form, Prompt
from recgraph.tools.llm.server import MAX_CHOICES, ServerLLM

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]  # a server compiles as it starts

REPOSITORY = Path(__file__).resolve().parent.parent
START_SECONDS = 300  # 20-40 s on two free cores; the first start on a machine also compiles
SERVED = "SmolLM2-135M-Instruct"
SHARED = "A shopper bought red running shoes, a blue cotton shirt and a rain jacket. " * 12


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return find_llm()
    except ModelMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def tuned(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterSet:
    """A set of two random adapters, one as wide as the server takes and one narrow, saved as training saves them."""
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    place = tmp_path_factory.mktemp("sets") / "tuned"
    wide = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        for seed, (task, rank, targets) in enumerate((("next", 16, wide), ("fit", 8, ["q_proj", "v_proj"]))):
            torch.manual_seed(seed)
            made = peft.get_peft_model(
                model, peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, task_type="CAUSAL_LM")
            )
            for name, weight in made.named_parameters():
                if "lora_B" in name:  # peft's are zero, and would change nothing
                    torch.nn.init.normal_(weight, std=0.1)
            made.save_pretrained(place / task)
            portable(place / task, SERVED)
            model = made.unload()
    return find_set(str(place))


@pytest.fixture(scope="module")
def server(folder: Path, tuned: AdapterSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerLLM]:
    python = Path(os.environ.get("RECGRAPH_VLLM_PYTHON") or REPOSITORY / ".venv-vllm" / "bin" / "python")
    if not python.is_file():
        pytest.skip(f"no Python with vLLM at {python} (set RECGRAPH_VLLM_PYTHON)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    command = [
        str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", SERVED, "--dtype", "float32",
        "--host", "127.0.0.1", "--port", str(port), "--max-model-len", "4096", "--shutdown-timeout", "30",
        "--enable-lora", "--max-lora-rank", "16", "--max-loras", "2",
        "--lora-modules", *(f"tuned-{task}={place}" for task, place in tuned.tasks.items()),
        "--enable-prompt-tokens-details", "--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}',
    ]  # fmt: skip
    quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=os.environ | quiet, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield wait_for(f"http://127.0.0.1:{port}/v1", process, log)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=10)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> ServerLLM:
    started = time.monotonic()
    while time.monotonic() - started < START_SECONDS:
        if process.poll() is not None:
            pytest.fail(f"the vLLM server ended with {process.returncode}:\n{log.read_text()[-3000:]}")
        llm = ServerLLM(url)
        try:
            llm.connect()
            print(f"vLLM started in {time.monotonic() - started:.0f} s")
            return llm
        except LLMError:
            time.sleep(1)
    pytest.fail(f"the vLLM server did not start within {START_SECONDS} s:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def local(folder: Path) -> LocalLLM:
    return LocalLLM(folder, dtype=torch.float32, device="cpu")


def candidates(count: int) -> list[Prompt]:
    names = ("red running socks", "a blue hat", "a cookbook", "green trousers made of soft cotton")
    return [
        Prompt("Answer with Yes or No.", f"{SHARED}Would they buy {names[i % 4]}, offer {i}?") for i in range(count)
    ]


def timed(name: str, started: float) -> None:
    print(f"{name}: {time.monotonic() - started:.2f} s")


def test_the_server_tells_what_it_serves(server: ServerLLM) -> None:
    assert (server.name, server.parameters, set(server.adapters)) == (SERVED, 135_000_000, {"tuned-next", "tuned-fit"})


def test_server_and_process_give_the_same_probabilities(server: ServerLLM, local: LocalLLM) -> None:
    prompts = candidates(20)
    server.score(prompts[:1])  # the first request with log-probabilities compiles
    for name in ("20 candidates, cold prefix shared", "20 candidates, warm"):
        started = time.monotonic()
        served, usage = server.score(prompts)
        timed(name, started)
    found, counted = local.score(prompts)
    assert usage.prompt == counted.prompt
    for (yes, no), (local_yes, local_no) in zip(served, found, strict=True):
        assert math.exp(yes) == pytest.approx(math.exp(local_yes), abs=1e-3)
        assert math.exp(no) == pytest.approx(math.exp(local_no), abs=1e-3)
        assert 1 / (1 + math.exp(no - yes)) == pytest.approx(1 / (1 + math.exp(local_no - local_yes)), abs=1e-3)


def test_server_and_process_agree_with_the_same_adapters(
    server: ServerLLM, folder: Path, tuned: AdapterSet, tmp_path: Path
) -> None:
    served, used = open_adapted("tuned", None, tmp_path / "shop.duckdb", url=f"{server._root}/v1")
    assert used.names == {"next": "tuned-next", "fit": "tuned-fit"}
    assert (used.label, used.weights) == (tuned.label, tuned.weights)  # the server's folders can be read here
    local = LocalLLM(
        folder, {task: str(place) for task, place in tuned.tasks.items()}, dtype=torch.float32, device="cpu"
    )
    prompts = candidates(8)
    said: dict[str | None, float] = {}
    for task in (None, "next", "fit"):
        found = served.score(prompts, adapter=used.names[task] if task else None)[0]
        for (yes, no), (local_yes, local_no) in zip(found, local.score(prompts, adapter=task)[0], strict=True):
            assert math.exp(yes) == pytest.approx(math.exp(local_yes), abs=1e-3)
            assert 1 / (1 + math.exp(no - yes)) == pytest.approx(1 / (1 + math.exp(local_no - local_yes)), abs=1e-3)
        said[task] = found[0][0] - found[0][1]
    print(f"logit of Yes against No: {said}")
    assert min(abs(said[a] - said[b]) for a, b in ((None, "next"), (None, "fit"), ("next", "fit"))) > 0.1


def test_a_set_the_server_does_not_have_is_refused_or_done_without(server: ServerLLM, tmp_path: Path) -> None:
    url, store = f"{server._root}/v1", tmp_path / "shop.duckdb"
    with pytest.raises(
        LLMError, match="no adapter of the set 'other'; it serves SmolLM2-135M-Instruct, tuned-next, tuned-fit"
    ):
        open_adapted("other", None, store, url=url)
    (note,) = open_adapted("", "other", store, url=url)[1].notes
    assert "untrained answers" in note


def test_server_and_process_write_the_same_greedy_text(server: ServerLLM, local: LocalLLM) -> None:
    questions = ("What is the capital of France?", f"{SHARED}Summarise what they like in one sentence.")
    prompts = [Prompt("You are helpful.", question) for question in questions]
    started = time.monotonic()
    served, usage = server.generate(prompts, max_tokens=24)
    timed("two answers of up to 24 tokens", started)
    assert [answer.text for answer in served] == [answer.text for answer in local.generate(prompts, max_tokens=24)[0]]
    assert "Paris" in served[0].text
    assert usage.completion > 10


def test_a_form_holds_on_the_server(server: ServerLLM) -> None:
    form = Form("ID: ", ("B0012XK9QE", "97423.56831", "U-17/3 (new)"), "\nTitle: ")
    prompt = Prompt(
        "Name one product by ID and title.",
        "B0012XK9QE: Nike Air shoes\n97423.56831: Blue cotton shirt\nThe shopper likes shirts.",
    )
    answer = server.generate([prompt], max_tokens=40, form=form)[0][0]
    assert re.fullmatch(form_regex(form), answer.text)


def test_a_form_of_as_many_ids_as_allowed_works(server: ServerLLM) -> None:
    ids = tuple(f"B{number * 7919 % 10**9:09d}" for number in range(MAX_CHOICES))
    for name in ("grammar of the most choices, compiled", "the same again"):
        started = time.monotonic()
        answer = server.generate(
            [Prompt("Name one product.", f"{ids[17]}: Blue shirt")], max_tokens=24, form=Form("ID: ", ids, "\nTitle: ")
        )[0][0]
        timed(name, started)
    assert answer.text.split("\n")[0].removeprefix("ID: ") in ids


def test_the_deadline_holds_while_the_real_server_writes(server: ServerLLM) -> None:
    started = time.monotonic()
    # Sixteen stories: one alone may come to an early end of its own on a fast machine, and then nothing is late.
    stories = [
        Prompt("You write very long stories.", f"Tell all that happened to captain {number} on a voyage of a year.")
        for number in range(16)
    ]
    with pytest.raises(LLMTimeout):
        server.generate(stories, max_tokens=2000, deadline=started + 0.5)
    assert time.monotonic() - started < 3
