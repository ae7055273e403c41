"""Around a training: what an adapter is measured by, where its checkpoints lie, which negatives it sees and what is
left for DVC to read.

The training itself is in test_lora.py and test_dvc.py.
"""

from __future__ import annotations

import csv
import json
import math
from array import array
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeLLM, item
from safetensors.torch import load_file, save_file

from recgraph.errors import SettingsError, StoreError
from recgraph.graph.prompts import VERSIONS, answer_text
from recgraph.tools.llm.adapter_sets import AdapterCard
from recgraph.tools.llm.places import fingerprint
from recgraph.tools.llm.protocol import Prompt, Usage
from recgraph.train.examples.rows import Row, write_rows
from recgraph.train.lora.exam import judge, measure_fit, measure_next
from recgraph.train.lora.job import Job, _negatives, train_job
from recgraph.train.lora.stage import _write_metrics
from recgraph.train.lora.training import LoraSettings, TrainedAdapter, save_small
from recgraph.train.lora.trees import Example

# ── What an adapter can do ────────────────────────────────────────────────────────────────────────────────────────────

TITLES = {
    "A1": "Red Shirt",
    "B2": "Blue Shirt",
    "C3": "Green Shirt",
    "D4": "Grey Boots",
    "E5": "Pink Dress",
    "F6": "Navy Coat",
}


def asked(item_id: str, group: int) -> Row:
    return Row(
        "test",
        f"U{group}",
        1,
        group,
        item_id,
        "A shop.",
        f"Shopper {group}",
        answer_text(item(item_id, TITLES[item_id])),
        "next",
    )


def test_next_is_measured_by_hand() -> None:
    wanted = {group: [asked(item_id, group)] for group, item_id in enumerate(TITLES)}
    answers = (
        "ID: A1\nTitle: Red Shirt",  # right
        "ID: ZZ9\nTitle: Blue Shirt",  # no such product: a miss for both, though the title is right
        "The next one is C3, the Green Shirt",  # not the form: a miss for both, though it could be repaired
        "ID: D4\nTitle: Some other boots",  # the right id alone
        "ID: A1\nTitle: Pink Dress",  # the right title alone
        "ID: F6\nTitle: Some other coat",  # the right id alone
    )
    llm = FakeLLM(*answers, *answers)
    found = measure_next(llm, wanted, TITLES, None)
    shares = {
        "invalid": pytest.approx(2 / 6),
        "invalid_format": 1 / 6,
        "unknown_id": 1 / 6,
        "exact_id": 3 / 6,
        "exact_title": 2 / 6,
    }
    assert found == {"answers": 6.0} | shares | {f"constrained_{name}": share for name, share in shares.items()}
    assert llm.asked == [Prompt("A shop.", f"Shopper {group}") for group in range(6)] * 2
    free, held = llm.forms
    assert free is None
    assert [choice.strip() for choice in held.choices] == sorted(TITLES)


def test_a_long_title_is_right_as_the_prompts_cut_it() -> None:
    title = "Harrow " + "very " * 30 + "long shirt"
    row = replace(asked("A1", 0), answer=answer_text(item("A1", title)))
    assert measure_next(FakeLLM(row.answer, row.answer), {0: [row]}, TITLES, None)["exact_title"] == 1


def test_nothing_to_ask_gives_shares_of_nothing() -> None:
    assert set(measure_next(FakeLLM(), {}, TITLES, None).values()) == {0.0}


class Judge(FakeLLM):
    """Says Yes with the logit difference that stands last in the prompt, at a level that tells nothing."""

    def score(
        self, prompts: Sequence[Prompt], *, adapter: str | None = None, **_: Any
    ) -> tuple[list[tuple[float, float]], Usage]:
        self.adapter = adapter
        levels = [-3.0 - 5 * place for place, _ in enumerate(prompts)]
        return [
            (level + float(prompt.user.split()[-1]), level) for level, prompt in zip(levels, prompts, strict=True)
        ], Usage()


def judged(group: int, **scores: Sequence[float]) -> list[Row]:
    return [
        Row(
            "test",
            f"U{group}",
            1,
            group,
            f"{kind}{n}",
            "A shop.",
            f"Product {score}",
            "Yes" if kind == "positive" else "No",
            kind,
        )
        for kind, values in scores.items()
        for n, score in enumerate(values)
    ]


def test_fit_is_measured_by_hand() -> None:
    groups = {0: judged(0, positive=[2], random=[-1], alike=[2]), 1: judged(1, positive=[0], random=[1], alike=[2])}
    llm = Judge()
    found = measure_fit(judge(llm, groups, "exam"))
    assert llm.adapter == "exam"
    assert found == {
        "cases": 2.0,
        "prompts": 6.0,
        "auc": pytest.approx((1 + 1 + 1 / 2 + 1 / 2 + 1) / 8),  # 2 beats -1 and 1 and ties with 2 and 2; 0 beats -1
        "auc_random": 3 / 4,  # 2 > -1, 2 > 1, 0 > -1, but 0 < 1
        "auc_alike": (1 / 2 + 1 / 2) / 4,  # 2 = 2 twice; 0 < 2 twice
        # the level, less the score where the answer is Yes
        "judged_perplexity": pytest.approx(math.exp((1 + 8 + 13 + 3 + 8 + 13) / 6)),
    }  # no `shown` product, so nothing is said about them


def test_a_constant_scorer_is_worth_a_half() -> None:
    groups = {group: judged(group, positive=[0], random=[0, 0], alike=[0], shown=[0, 0, 0]) for group in range(5)}
    found = measure_fit(judge(FakeLLM(), groups, None))
    assert {name: number for name, number in found.items() if "auc" in name} == {
        "auc": 0.5,
        "auc_random": 0.5,
        "auc_alike": 0.5,
        "auc_shown": 0.5,
    }
    # the fake says e^-1 to Yes and e^-0.5 to No
    assert found["judged_perplexity"] == pytest.approx(math.exp((5 * 1 + 30 * 0.5) / 35))


def test_nobody_held_out_gives_no_number_and_no_error() -> None:
    found = measure_fit(judge(FakeLLM(), {}, None))
    assert (found["cases"], found["prompts"]) == (0, 0)
    assert math.isnan(found["auc"])
    assert math.isnan(found["judged_perplexity"])


# ── What it learns from ───────────────────────────────────────────────────────────────────────────────────────────────


def pool(**counts: int) -> list[Row]:
    return judged(0, **{kind: range(count) for kind, count in counts.items()})


def test_negatives_take_kinds_in_turn() -> None:
    wrong = pool(random=4, alike=1, shown=2)
    orders = set()
    for seed in range(40):
        found = _negatives(wrong, 7, np.random.default_rng(seed))
        assert sorted(row.item_id for row in found) == sorted(row.item_id for row in wrong)  # all of them, each once
        kinds = [row.kind for row in found]
        assert [set(kinds[:3]), set(kinds[3:5]), kinds[5:]] == [
            {"random", "alike", "shown"},
            {"random", "shown"},
            ["random", "random"],
        ]
        orders.add(kinds[0])
        for count in range(8):
            assert _negatives(wrong, count, np.random.default_rng(seed)) == found[:count]
    assert orders == {"random", "alike", "shown"}  # none is always the first: one negative a case sees them all
    assert _negatives([], 3, np.random.default_rng(0)) == []


# ── Which training it is ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """What passes for a model as long as nobody runs it."""
    folder = tmp_path / "Tiny"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text("{}", encoding="utf-8")
    save_file({"weight": torch.zeros(4)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def params(base: Path, tmp_path: Path) -> dict[str, Any]:
    write_rows(tmp_path / "data" / "examples" / "recommend.parquet", pool(positive=1, random=2))
    presets = {"default": {"recommend": {"rank": 16}, "fit": {"rank": 4}}, "small": {"recommend": {"rank": 4}}}
    return {
        "task": "fit",
        "preset": "default",
        "presets": presets,
        "sft": {"llm": str(base), "threads": 1, "engine": "single", "processes": 2},
    }


def changed(params: dict[str, Any], where: str, to: object) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(params))
    *path, last = where.split(".")
    block = copied
    for name in path:
        block = block[name]
    block[last] = to
    return copied


def test_a_job_is_read_from_the_params(params: dict[str, Any], base: Path, tmp_path: Path) -> None:
    job = Job.of(params, tmp_path)
    assert (job.task, job.preset, job.base, job.settings) == ("fit", "default", base, LoraSettings(rank=4))
    assert job.work.parent == tmp_path / "data" / "sft"
    assert job.work.name.startswith("default-fit-")
    assert {row.part for row in job.groups("test")[0]} == {"test"}
    assert Job.of(params, tmp_path) == job


@pytest.mark.parametrize(
    ("where", "to", "said"),
    [
        ("preset", "huge", "preset is 'huge' in params.yaml; it must be one of default, small"),
        ("presets.default.fit", {"r": 8}, r"presets.default.fit.r is no parameter"),
        ("presets.default.fit", {"rank": "many"}, r"presets.default.fit.rank is 'many'"),
        ("sft", {"threads": 1}, r"does not set sft.llm"),
        ("presets", None, "no block `presets:`"),
    ],
)
def test_wrong_params_are_named(params: dict[str, Any], tmp_path: Path, where: str, to: object, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Job.of(changed(params, where, to), tmp_path)


def test_missing_examples_name_the_stage_that_writes_them(params: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"summarize\.parquet.*recgraph train examples"):
        Job.of(changed(params, "task", "summarize"), tmp_path)


def test_an_adapter_for_one_task_learns_from_the_rows_of_that_task_alone(
    params: dict[str, Any], tmp_path: Path
) -> None:
    row = pool(positive=1, random=2)[0]
    rows = [replace(row, answer="ID: I1\nTitle: Boots", kind="next"), *pool(positive=1, random=2)]
    write_rows(tmp_path / "data" / "examples" / "recommend.parquet", rows)
    kinds = {
        task: [row.kind for row in Job.of(changed(params, "task", task), tmp_path).groups("test")[0]]
        for task in ("recommend", "next", "fit")
    }
    fit = ["positive", "random", "random"]
    assert kinds == {"recommend": ["next", *fit], "next": ["next"], "fit": fit}
    assert Job.of(changed(params, "task", "next"), tmp_path).settings.rank == 16  # as the one for both tasks


def test_what_decides_the_weights_decides_the_work_folder(params: dict[str, Any], base: Path, tmp_path: Path) -> None:
    work = Job.of(params, tmp_path).work
    others = {
        Job.of(changed(params, where, to), tmp_path).work
        for where, to in (
            ("presets.default.fit.rank", 8),
            ("presets.default.fit.seed", 8),
            ("sft.threads", 2),
            ("preset", "small"),
        )
    }
    assert len(others | {work}) == 5
    for where, to in (
        ("presets.default.recommend", {"rank": 99}),
        ("presets.default.summarize", {"rank": 2}),
        ("presets.other", {}),
        ("presets.default.fit.eval_cases", 3),
        ("presets.default.fit.save_steps", 3),
    ):
        assert Job.of(changed(params, where, to), tmp_path).work == work
    assert Job.of(changed(params, "presets.default.fit.alpha", 16), tmp_path).work == work  # the default, spelled out
    write_rows(tmp_path / "data" / "examples" / "recommend.parquet", pool(positive=1, random=3))
    more = Job.of(params, tmp_path).work
    save_file({"weight": torch.ones(4)}, base / "model.safetensors")
    assert len({work, more, Job.of(params, tmp_path).work}) == 3


def test_an_adapter_of_a_kept_preset_stays_while_base_and_settings_are_its_own(
    params: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    kept = changed(params, "sft.keep", ["default"])
    settings = asdict(Job.of(kept, tmp_path).settings)
    learnt = {name: value for name, value in settings.items() if name != "seed"} | {"threads": 4}
    facts, target = {"source": "simulated", "fitted_before": "2025-11-02T00:00:00"}, tmp_path / "adapters"
    target.mkdir()
    (target / "adapter_model.safetensors").write_bytes(b"weights")
    prompts = VERSIONS["fit"]
    card = AdapterCard("fit", "Tiny", fingerprint(base), "default", learnt, facts, prompt_version=prompts)

    def keeps(changes: dict[str, Any], own: AdapterCard = card, of: dict[str, str] = facts) -> bool:
        own.write(target)
        return Job.of(changes, tmp_path).keeps(target, of)

    assert keeps(kept)  # written before there was a seed, on other threads
    write_rows(tmp_path / "data" / "examples" / "recommend.parquet", pool(positive=1, random=3))
    assert keeps(kept)
    assert keeps(changed(kept, "presets.default.fit.eval_cases", 3))
    assert not keeps(params)
    assert not keeps(changed(kept, "preset", "small"))
    assert not keeps(changed(kept, "presets.default.fit.rank", 8))
    assert not keeps(kept, replace(card, prompt_version="0"))
    assert not keeps(kept, of=facts | {"source": "Mine"})
    assert not keeps(kept, of=facts | {"fitted_before": "2025-10-01T00:00:00"})
    save_file({"weight": torch.ones(4)}, base / "model.safetensors")
    assert not keeps(kept)
    assert keeps(kept, replace(card, base_fingerprint=fingerprint(base)))
    (target / "adapter_model.safetensors").unlink()
    assert not keeps(kept, replace(card, base_fingerprint=fingerprint(base)))


def test_no_rows_to_train_on_are_an_error_that_names_the_param(
    params: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recgraph.train.lora.job.Tokens", lambda base: None)
    with pytest.raises(StoreError, match=r"examples\.train_cases"):
        train_job(Job.of(params, tmp_path), lambda line: None)  # all rows are of the part test


# ── What is left behind ───────────────────────────────────────────────────────────────────────────────────────────────


def test_an_adapter_is_saved_in_half_the_size_under_the_same_names(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    weights = {f"model.layers.{n}.lora_{side}.weight": torch.randn(64, 64) for n in range(2) for side in "AB"}
    save_file(weights, tmp_path / "in" / "adapter_model.safetensors")
    (tmp_path / "in" / "adapter_config.json").write_text('{"r": 64}', encoding="utf-8")
    (tmp_path / "in" / "optimizer.pt").write_bytes(b"not for shipping")
    save_small(tmp_path / "in", tmp_path / "out")
    small = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert small.keys() == weights.keys()
    for name, tensor in small.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, weights[name].to(torch.bfloat16))
    before, after = ((tmp_path / name / "adapter_model.safetensors").stat().st_size for name in ("in", "out"))
    assert after == pytest.approx(before / 2, rel=0.02)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert (tmp_path / "out" / "adapter_config.json").read_text(encoding="utf-8") == '{"r": 64}'


def test_metrics_are_one_json_each_and_a_curve_with_one_running_step(tmp_path: Path) -> None:
    curve = [
        ("epochs", 1, 3.0, 1e-3),
        ("epochs", 2, 2.0, 1e-3),
        ("epochs", 3, 1.5, 0.0),
        ("hard examples", 1, 4.0, 1e-3),
        ("hard examples", 2, 3.5, 0.0),
    ]
    metrics = {"before": {"exact_id": 0.1}, "before_retraining": {"exact_id": 0.2}, "after": {"exact_id": 0.3}}
    _write_metrics(
        tmp_path / "metrics" / "sft" / "default",
        "next",
        metrics,
        TrainedAdapter(tmp_path, curve, [], {"seconds": 12.5}),
    )
    folder = tmp_path / "metrics" / "sft" / "default"
    assert sorted(file.name for file in folder.iterdir()) == ["next.json", "next_cost.json", "next_loss.csv"]
    assert json.loads((folder / "next.json").read_text(encoding="utf-8")) == metrics
    assert json.loads((folder / "next_cost.json").read_text(encoding="utf-8"))["seconds"] == 12.5
    with (folder / "next_loss.csv").open(encoding="utf-8", newline="") as handle:
        lines = [(row["step"], row["phase"], row["loss"]) for row in csv.DictReader(handle)]
    assert lines == [
        ("1", "epochs", "3.000000"),
        ("2", "epochs", "2.000000"),
        ("3", "epochs", "1.500000"),
        ("4", "hard examples", "4.000000"),
        ("5", "hard examples", "3.500000"),
    ]


# ── What travels to a machine with a card ─────────────────────────────────────────────────────────────────────────────


def test_a_job_that_travels_is_the_one_that_was_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    from learn import Learning, read_job, write_job

    draw = np.random.default_rng(0)

    def example(trunk: list[int], number: int) -> Example:
        more = draw.integers(0, 49_152, int(draw.integers(1, 9))).tolist()
        return Example(array("i", trunk + more), array("i", [number, 2]), 1 / (number + 1), number, (0, number % 2))

    epochs = [[example([1, 2, 3, 4][: number % 5], number) for number in range(20)] for _ in range(2)]
    epochs[1].append(epochs[1][-1])  # the same again: nothing of it is left to travel
    what = Learning({"rank": 4}, "default", "llm-systems/1")
    write_job(tmp_path / "job.npz", epochs, what)
    assert read_job(tmp_path / "job.npz") == (epochs, what)
