"""Ablations: variants of the product over held-out cases, figures by hand, and a killed one that goes on where it
was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fakes import FakeEncoder, FakeLLM, item

from recgraph.cli import main
from recgraph.errors import SettingsError
from recgraph.evaluation.ablate import NAMES, Answer, Question, Variant, _Quiet, ablate, variants, variations
from recgraph.evaluation.ask import Reporter
from recgraph.evaluation.result import MeanTokens
from recgraph.evaluation.result_files import text_of
from recgraph.graph.nodes import TitlesOnly
from recgraph.graph.recommender import Recommender
from recgraph.settings import load_settings
from recgraph.store.db import Store
from recgraph.tables import ablation
from recgraph.train.task import Cases

ITEMS = ["item_id,title,category,brand,color", *(f"I{n},Thing {n},cat{n % 2},Maker{n % 3},red" for n in range(12))]


def events() -> list[str]:
    """Ten users buy five things in turn, the last of them in the last month."""
    lines = ["user_id,ts,action,item_id"]
    for user in range(10):
        for step in range(5):
            lines.append(f"u{user},2025-0{step + 1}-{user + 1:02d},purchase,I{(user + step) % 12}")
    return lines


@pytest.fixture
def shop(make_store: Callable[..., Store]) -> Path:
    store = make_store(ITEMS, events())
    path = store.path
    store.close()
    return path


class Opened:
    """Opens the product with stand-ins for its models, and remembers for which settings."""

    def __init__(self, fail_after: int = 10**9) -> None:
        self.settings: list[Mapping[str, Any]] = []
        self.llms: list[FakeLLM] = []
        self.left = fail_after

    def __call__(self, store: Path, settings: Mapping[str, Any]) -> Recommender:
        self.settings.append(settings)
        self.llms.append(FakeLLM("ID: I3\nTitle: Thing 3", "nonsense"))
        outer = self

        class Counted(_Quiet):
            def recommend(self, *asked: Any, **more: Any) -> Any:
                outer.left -= 1
                if outer.left < 0:
                    raise KeyboardInterrupt
                return super().recommend(*asked, **more)

        chosen = load_settings({}, "/nonexistent", store=str(store), **settings)
        return Counted(Store.open(store), chosen, FakeEncoder(), self.llms[-1])  # type: ignore[arg-type]


def cases_of(n: int) -> Cases:
    empty = tuple(np.zeros(0, np.int64) for _ in range(n))
    return Cases(empty, empty, empty, np.zeros(n, np.int64), np.arange(n), ("",) * n, np.zeros(n), np.arange(n))  # type: ignore[arg-type]


def test_figures_are_those_of_the_ranks() -> None:
    def answers(*ranks: int) -> list[Answer]:
        return [
            Answer(f"u{n}#1", rank, n == 0, False, 100 * (n + 1), 5, 0, 10.0 * (n + 1)) for n, rank in enumerate(ranks)
        ]

    first, second = variations(
        [Variant("one"), Variant("two")], [answers(1, 0, 3, 12), answers(2, 0, 0, 0)], cases_of(4), 7
    )
    assert first.metrics["recall@10"].mean == pytest.approx(2 / 4)
    assert first.metrics["ndcg@10"].mean == pytest.approx((1 + 1 / 2) / 4)
    assert first.metrics["mrr"].mean == pytest.approx((1 + 1 / 3 + 1 / 12) / 4, abs=1e-6)
    assert first.metrics["ceiling"].mean == pytest.approx(3 / 4)
    assert (first.invalid, first.tokens.prompt, first.ms.median) == (0.25, 250.0, 25.0)
    assert first.against is None
    assert second.against is not None
    difference: Any = second.against.difference
    assert difference.mean == pytest.approx((1 / np.log2(3) - 1 - 1 / 2) / 4, abs=1e-6)
    assert difference.low <= difference.mean <= difference.high


def test_every_ablation_names_settings_that_there_are() -> None:
    for name in NAMES:
        for one in variants(name, models=("a", "b"), adapters=("a", "b"), encoder="clip"):
            load_settings({}, "/nonexistent", **one.settings)
    assert len(variants("history")) == 2 * 11
    assert variants("history")[0].settings["recent"] == 3
    assert [one.settings["mixup"] for one in variants("mixup")] == [1, 0, 2, 5, 10, 20]
    assert len(variants("table3")) == 7  # six of the paper's rows and CLIP's, where there is an encoder
    assert variants("table3", encoder="/models/clip")[-1].name == "w/ clip text embedding"
    with pytest.raises(SettingsError, match="'table4' is no ablation"):
        variants("table4")
    with pytest.raises(SettingsError, match="--models names 1 of 1"):
        variants("models", models=("a",))


@pytest.mark.slow
def test_all_variants_are_asked_the_same_and_the_store_stays_as_it_is(shop: Path, tmp_path: Path) -> None:
    before = shop.stat().st_size
    opened = Opened()
    question = Question(shop, tmp_path / "kept", count=4, common={"wording": "general"})
    result = ablate("mixup", variants("mixup")[:2], question, opener=opened)
    assert result.cases == 4
    assert [line.name for line in result.variants] == ["N=1", "N=0"]
    assert all(one["wording"] == "general" and one["deadline"] == 600 for one in opened.settings)
    assert [len(llm.asked) for llm in opened.llms] == [4, 4]
    assert not any(llm.scored for llm in opened.llms)  # the order of F has no Yes or No
    assert result.variants[0].tokens == MeanTokens(10.0, 5.0, 0.0)
    assert result.variants[0].invalid == 0.75  # the queue's first answer is a product, the others are nonsense
    assert not shop.with_suffix(".runs.duckdb").exists()
    with Store.open(shop) as store:
        assert store.counts()["summaries"] == 0
    assert before > 0
    assert [line["name"] for line in json.loads(text_of(result))["variants"]] == ["N=1", "N=0"]
    ablation(result)


@pytest.mark.slow
def test_a_killed_ablation_goes_on_where_it_was(shop: Path, tmp_path: Path) -> None:
    chosen, question = variants("constrained")[:2], Question(shop, tmp_path, count=5)
    with pytest.raises(KeyboardInterrupt):
        ablate("constrained", chosen, question, opener=Opened(fail_after=7))
    files = sorted(tmp_path.glob("*.jsonl"))
    assert sorted(len(file.read_text().splitlines()) for file in files) == [2, 5]
    torn = next(file for file in files if len(file.read_text().splitlines()) == 2)
    with torn.open("a") as file:
        file.write('{"case": "u1#')  # cut off while it was written
    again, notes = Opened(), list[str]()
    result = ablate("constrained", chosen, question, opener=again, reporter=Reporter(notes.append))
    assert len(again.settings) == 1
    assert len(again.llms[0].asked) == 3
    assert [note.split(": ")[1].split(",")[0] for note in notes] == [
        "5 cases answered before",
        "2 cases answered before",
    ]
    once_more = ablate("constrained", chosen, question, opener=Opened(fail_after=0))
    assert [line.metrics for line in once_more.variants] == [line.metrics for line in result.variants]
    other = Opened()
    ablate("constrained", chosen[:1], replace(question, common={"recent": 1}), opener=other)
    assert len(other.llms[0].asked) == 5  # other settings are other answers


@pytest.mark.slow
def test_the_target_and_what_came_later_are_not_in_the_prompts(shop: Path, tmp_path: Path) -> None:
    opened = Opened()
    ablate("constrained", variants("constrained")[:1], Question(shop, tmp_path, count=0), opener=opened)
    for prompt in opened.llms[0].asked:  # each user buys I<n> … I<n+4>, the last one is asked for
        shown = {number for number in range(12) if f"I{number} " in prompt.user}
        assert 0 < len(shown) <= 4


@pytest.mark.slow
def test_hidden_attributes_are_in_no_prompt(shop: Path, tmp_path: Path) -> None:
    opened = Opened()
    ours, plain = variants("table3")[:2]
    ablate("table3", [ours, plain], Question(shop, tmp_path, count=3), opener=opened)
    shown, hidden = opened.llms
    assert all("Maker" in prompt.user for prompt in shown.asked)
    assert not any("Maker" in prompt.user or "cat" in prompt.user for prompt in hidden.asked)
    assert [p.user.count("Thing") > 0 for p in hidden.asked] == [True] * 3


def test_a_product_without_a_title_keeps_its_name_when_attributes_are_hidden() -> None:
    whole = replace(item("X"), title="", brand="Fenn", category="bags")

    class Reader:
        def history(self, *_: Any) -> list[Any]:
            return []

        def items(self, _: Any) -> dict[str, Any]:
            return {"X": whole}

    found = TitlesOnly(Reader()).items(["X"])["X"]
    assert (found.name, found.brand, found.category) == (whole.name, "", "")


def test_wrong_settings_and_ablations_are_told_before_anything_is_loaded(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'colour' is no setting of recgraph"):
        ablate("mixup", variants("mixup"), Question(shop, tmp_path, common={"colour": "red"}), opener=Opened(0))
    ran = CliRunner().invoke(main, ["ablate", "table4", "--store", str(shop)])
    assert ran.exit_code == 2
    assert "'table4' is no ablation" in ran.output
    ran = CliRunner().invoke(main, ["ablate", "mixup", "--store", str(shop), "--set", "adapter"])
    assert "write NAME=VALUE" in ran.output
