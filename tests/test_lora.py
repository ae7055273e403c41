"""LoRA training: killed and resumed, two processes against one, QLoRA against LoRA, hard examples, and what an epoch is
made of.

The base model is a Llama of two layers with SmolLM2's tokenizer, so that a training takes seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import make_dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from recgraph.errors import ModelMissing, SettingsError
from recgraph.tools.llm.places import find_llm
from recgraph.tools.llm.protocol import Prompt
from recgraph.train.examples.rows import Row
from recgraph.train.lora import exam, training
from recgraph.train.lora.job import draw, first
from recgraph.train.lora.tokens import Lesson, Tokens
from recgraph.train.lora.training import LoraSettings, train
from recgraph.train.lora.trees import Example
from recgraph.train.params import settings_of

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings(
        "ignore::FutureWarning",
        "ignore::DeprecationWarning",
        "ignore:.*pin_memory.*:UserWarning",
        "ignore::ResourceWarning",
    ),
]
SETTINGS = LoraSettings(rank=4, alpha=8, dropout=0.1, learning_rate=2e-2, batch=4, tree_tokens=160, save_steps=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random chat model in Hugging Face format."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(find_llm(""))
    except ModelMissing as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("models") / "Tiny"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def examples(base: Path, count: int = 24) -> list[Example]:
    """Shoppers who like an even or an odd number, and products that have one."""
    tokens = Tokens(base)
    pairs = [(number // 4, number) for number in range(count)]
    told = [Prompt("A shop.", f"Shopper {who} likes {who % 2}. Product {what}") for who, what in pairs]
    answers = ["Yes" if who % 2 == what % 2 else "No" for who, what in pairs]
    return tokens.examples(
        [
            Lesson(prompt, answer, group=who, stop=False)
            for prompt, answer, (who, _) in zip(told, answers, pairs, strict=True)
        ]
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def test_training_lowers_the_loss_and_is_the_same_again(base: Path, tmp_path: Path) -> None:
    epochs = [examples(base)] * 3
    one, two = (train(base, epochs, SETTINGS, tmp_path / name) for name in ("one", "two"))
    losses = [loss for _, _, loss, _ in one.curve]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.2  # the frozen random head allows little
    assert (one.adapter / "adapter_model.safetensors").read_bytes() == (
        two.adapter / "adapter_model.safetensors"
    ).read_bytes()
    assert one.cost["tokens"] < one.cost["plain_tokens"] / 2
    assert one.cost["peak_memory_gib"] > 0


def test_a_killed_training_goes_on_to_the_same_result(base: Path, tmp_path: Path) -> None:
    epochs = [examples(base)] * 3
    whole = train(base, epochs, SETTINGS, tmp_path / "whole")

    script = (
        "import os, sys, threading, time; from pathlib import Path; from tests_lora import main; "
        "threading.Thread(target=lambda: ([time.sleep(.005) for _ in iter(lambda: Path(sys.argv[2], 'epochs', "
        "'checkpoint-4', 'trainer_state.json')"
        ".is_file(), True)], os._exit(9)), daemon=True).start(); main(sys.argv[1], sys.argv[2])"
    )
    (tmp_path / "tests_lora.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nfrom test_lora import SETTINGS, examples, train\n"
        "def main(base, work):\n    train(Path(base), [examples(Path(base))] * 3, SETTINGS, Path(work))\n",
        encoding="utf-8",
    )
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(base), str(tmp_path / "cut")],
        cwd=tmp_path,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert ended.returncode == 9  # killed between two steps, no adapter written
    assert not (tmp_path / "cut" / "epochs" / "adapter").exists()
    lines: list[str] = []
    again = train(base, epochs, SETTINGS, tmp_path / "cut", lines.append)
    assert any("going on from checkpoint-" in line for line in lines)
    assert (whole.adapter / "adapter_model.safetensors").read_bytes() == (
        again.adapter / "adapter_model.safetensors"
    ).read_bytes()
    assert [step for _, step, _, _ in again.curve] == [step for _, step, _, _ in whole.curve]


def test_a_checkpoint_cut_off_while_it_was_written_is_passed_over(base: Path, tmp_path: Path) -> None:
    epochs = [examples(base)] * 3
    whole = train(base, epochs, SETTINGS, tmp_path / "cut")
    newest = tmp_path / "cut" / "epochs" / f"checkpoint-{whole.curve[-1][1]}"
    # stands for the one before, which is deleted only when the next is whole
    older = shutil.copytree(newest, newest.with_name("checkpoint-1"))
    (newest / "trainer_state.json").write_text("", encoding="utf-8")
    shutil.copytree(newest, newest.with_name("checkpoint-99"))
    (newest.with_name("checkpoint-99") / "trainer_state.json").write_text('{"global_step": 9', encoding="utf-8")
    lines: list[str] = []
    train(base, epochs, SETTINGS, tmp_path / "cut", lines.append)
    assert any(f"going on from {older.name}" in line for line in lines)


def test_two_processes_give_the_loss_of_one_within_a_hundredth(base: Path, tmp_path: Path) -> None:
    # Without dropout: each process draws its own.
    script = tmp_path / "pair.py"
    script.write_text(
        f"import json, os, sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from dataclasses import replace\nfrom pathlib import Path\nfrom test_lora import SETTINGS, examples, train\n"
        "trained = train(Path(sys.argv[1]), [examples(Path(sys.argv[1]))] * 2, replace(SETTINGS, dropout=0.0), "
        "Path(sys.argv[2]))\n"
        "if os.environ.get('RANK', '0') == '0':\n    Path(sys.argv[2], "
        "'curve.json').write_text(json.dumps(trained.curve))\n",
        encoding="utf-8",
    )
    engine = Path(__file__).resolve().parent.parent / "train" / "lora" / "engines" / "torchrun_cpu.yaml"
    launch = [sys.executable, "-W", "ignore", "-m", "accelerate.commands.launch", "--config_file", str(engine)]
    alone = [sys.executable, "-W", "ignore", str(script), str(base), str(tmp_path / "one")]
    together = [*launch, "--num_processes", "2", str(script), str(base), str(tmp_path / "two")]
    for command in (alone, together):
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    one, two = (json.loads((tmp_path / name / "curve.json").read_text()) for name in ("one", "two"))
    assert len(one) == len(two)
    assert [loss for _, _, loss, _ in two] == pytest.approx([loss for _, _, loss, _ in one], rel=0.01)


def test_qlora_learns_as_lora_does(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    epochs = [examples(base)] * 3
    settings = LoraSettings(rank=4, alpha=8, dropout=0.0, learning_rate=2e-2, batch=4, tree_tokens=160, save_steps=50)
    plain = train(base, epochs, settings, tmp_path / "plain")
    packed = train(base, epochs, LoraSettings(**{**vars_of(settings), "quantize": "nf4"}), tmp_path / "packed")
    ends = [float(np.mean([loss for _, _, loss, _ in trained.curve[-4:]])) for trained in (plain, packed)]
    assert ends[1] == pytest.approx(ends[0], abs=0.15)
    assert weights(plain.adapter).keys() == weights(packed.adapter).keys()


def vars_of(settings: LoraSettings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def test_the_hardest_fifth_is_trained_further_and_measured_in_between(base: Path, tmp_path: Path) -> None:
    settings = LoraSettings(
        rank=4, alpha=8, learning_rate=2e-2, batch=4, tree_tokens=160, retrain_share=0.2, retrain_epochs=3
    )
    between: list[Path] = []
    trained = train(base, [examples(base, 20)], settings, tmp_path / "work", after=between.append)
    assert len(trained.hard) == 4  # of 20
    assert trained.cost["examples"] == 20 + 3 * 4
    assert {phase for phase, *_ in trained.curve} == {"epochs", "hard examples"}
    assert between[0] != trained.adapter
    assert any(
        not torch.equal(a, b)
        for a, b in zip(weights(between[0]).values(), weights(trained.adapter).values(), strict=True)
    )


def rows(groups: int, pool: int = 4) -> dict[int, Sequence[Row]]:
    def row(group: int, item: str, answer: str, kind: str) -> Row:
        return Row("train", f"U{group}", 1, group, item, "A shop.", f"Shopper {group}. Product {item}", answer, kind)

    wrong = [(f"{kind}{n}", kind) for kind in ("random", "alike", "shown") for n in range(pool)]
    return {
        group: [row(group, "T", "Yes", "positive"), *(row(group, item, "No", kind) for item, kind in wrong)]
        for group in range(groups)
    }


def test_negatives_are_drawn_anew_each_epoch_and_weigh_as_much_as_the_target(base: Path) -> None:
    tokens = Tokens(base)
    settings = LoraSettings(negatives=3)
    first_epoch, second_epoch = (draw(rows(5), settings, epoch, tokens) for epoch in (0, 1))
    assert len(first_epoch) == 5 * 4
    assert [list(example.prompt) for example in first_epoch] != [list(example.prompt) for example in second_epoch]
    assert [list(e.prompt) for e in draw(rows(5), settings, 0, tokens)] == [list(e.prompt) for e in first_epoch]
    for group in range(5):
        own = [example.weight for example in first_epoch if example.group == group]
        assert own == pytest.approx([1.0, 1 / 3, 1 / 3, 1 / 3])


def test_judgements_count_as_much_as_is_set_beside_the_answer_to_next(base: Path) -> None:
    case = [replace(rows(1)[0][0], answer="ID: I1\nTitle: Red Boots", kind="next"), *rows(1)[0]]
    drawn = draw({0: case}, LoraSettings(negatives=2, fit_weight=0.5), 0, Tokens(base))
    assert [example.weight for example in drawn] == pytest.approx([1.0, 0.5, 0.25, 0.25])


def test_one_negative_a_case_is_the_papers_one_to_one(base: Path) -> None:
    drawn = draw(rows(4), LoraSettings(negatives=1), 0, Tokens(base))
    assert [example.weight for example in drawn] == [1.0] * 8


def test_an_id_that_the_prompt_does_not_show_is_not_learnt_on_request(base: Path) -> None:
    def row(user: str) -> Row:
        return Row("train", "ann", 1, 1, "SX4ZT6", "Sell.", user, "ID: SX4ZT6\nTitle: Red Boots", "positive")

    tokens, careful = Tokens(base), LoraSettings(unseen_ids=False)
    (shown,) = draw({1: [row("1. SX4ZT6 Red Boots")]}, careful, 0, tokens)
    (hidden,) = draw({1: [row("1. another")]}, careful, 0, tokens)
    assert shown.silent == (0, 0)
    assert tokens.tokenizer.decode(list(hidden.answer)[slice(*hidden.silent)]) == " SX4ZT6"
    assert draw({1: [row("1. another")]}, LoraSettings(), 0, tokens)[0].silent == (0, 0)


def test_examples_in_a_batch_are_those_one_by_one_and_no_text_is_read_twice(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, answer = Tokens(base), "ID: SX4ZT6\nTitle: Red Boots"
    prompts = [Prompt("Sell.", f"{number}. another") for number in (1, 2, 3)]
    lessons = [Lesson(prompt, answer, silent=silent) for prompt in prompts for silent in ("", "SX4ZT6")]
    lessons += [Lesson(prompts[0], "Yes", weight=0.5, group=7, stop=False)]
    alone = [tokens.examples([lesson])[0] for lesson in lessons]
    read: list[str] = []

    def counted(texts: Sequence[str]) -> list[list[int]]:
        read.extend(texts)
        return [list(one) for one in tokens.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    monkeypatch.setattr(tokens._chat, "encode_all", counted)
    assert tokens.examples(lessons) == alone
    # The prompts of seven lessons as they come; their end, alone and with the answer, what stands before its id, what up
    # to it, and "Yes".
    assert len(read) == len(lessons) + 5


def test_an_answer_has_the_tokens_it_has_behind_the_whole_prompt(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, answer = Tokens(base), "ID: SX4ZT6\nTitle: Red Boots"
    lessons = [
        Lesson(Prompt("Sell.", f"{end}"), answer, silent="SX4ZT6") for end in ("a. ", "b\n\n", "\n c", "d <|", "é")
    ]
    by_its_end = tokens.examples(lessons)
    assert len(tokens._chat.tail(tokens._chat.render(lessons[0].prompt)[0])) < 40
    monkeypatch.setattr(tokens._chat, "_begins_anew", False)
    assert tokens.examples(lessons) == by_its_end


def test_the_exam_asks_for_perplexity_where_models_run(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ran on the processor of a host with a card."""
    moved: list[str] = []
    fake = SimpleNamespace(to=lambda device: moved.append(device))
    monkeypatch.setattr(exam, "load_base", lambda _: fake)
    monkeypatch.setattr(exam, "placement", lambda: ("cuda", torch.bfloat16))
    monkeypatch.setattr(exam, "perplexities", lambda _, examples: [4.0] * len(examples))
    sat = exam.Exam.__new__(exam.Exam)
    sat._job = SimpleNamespace(base=base)  # type: ignore[assignment]
    sat._written = rows(2)
    assert sat._perplexity(None) == pytest.approx(4.0)
    assert moved == ["cuda"]


def test_recomputing_has_the_name_that_the_installed_transformers_knows() -> None:
    new = make_dataclass("New", ["activation_checkpointing", "gradient_checkpointing"])
    old = make_dataclass("Old", ["gradient_checkpointing"])
    assert training._recomputing(new) == "activation_checkpointing"
    assert training._recomputing(old) == "gradient_checkpointing"


def test_fewer_cases_are_the_first_ones() -> None:
    assert list(first(rows(5), 2)) == [0, 1]
    assert list(first(rows(5), 0)) == [0, 1, 2, 3, 4]


def test_an_example_that_would_have_to_be_cut_is_an_error(base: Path) -> None:
    with pytest.raises(SettingsError, match="max_tokens is 16"):
        Tokens(base).examples([Lesson(Prompt("A shop.", "word " * 40), "Yes")], 16)


def test_settings_of_an_adapter_are_checked() -> None:
    with pytest.raises(SettingsError, match=r"presets\.x\.fit\.r is no parameter"):
        settings_of(LoraSettings, {"r": 8}, "presets.x.fit")
    with pytest.raises(SettingsError, match=r"presets.x.fit.rank is 'many'"):
        settings_of(LoraSettings, {"rank": "many"}, "presets.x.fit")
    with pytest.raises(SettingsError, match="modules is 'some'"):
        LoraSettings(modules="some")
