"""Ablations: variants of the product over held-out cases, figures by hand, and a killed one that goes on where it
was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fakes import FakeEncoder, FakeLLM, item

from recgraph.cli import main
from recgraph.errors import SettingsError
from recgraph.evaluation.ablate import NAMES, Answer, Question, Variant, ablate, variants, variations
from recgraph.evaluation.ask import Options, Reporter
from recgraph.evaluation.compare import EvaluationPlan, evaluate_store
from recgraph.evaluation.result import MeanTokens
from recgraph.evaluation.result_files import text_of
from recgraph.evaluation.side_by_side import SideBySide, chosen_of, model_of
from recgraph.evaluation.workshop import Workshop
from recgraph.graph.reader import TitlesOnly
from recgraph.graph.recommender import Recommender
from recgraph.settings import Settings, load_settings
from recgraph.store.db import Store
from recgraph.tables import ablation
from recgraph.tools.llm.open import InUse
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
    """Opens the product with stand-ins for its models, and remembers with which settings; `llms` are those that were
    loaded, one after the other, `there` how many are in use."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.settings: list[Settings] = []
        self.llms: list[FakeLLM] = []
        self.there = 0
        self.seconds = seconds

    def __call__(self, store: Path) -> SideBySide:
        outer = self

        class StandIns(SideBySide):
            def open(self, chosen: Settings) -> Recommender:
                outer.settings.append(chosen)
                return super().open(chosen)

            def encoder(self, chosen: Settings) -> Any:
                return FakeEncoder()

            def model(self, chosen: Settings) -> Any:
                outer.there += 1
                assert outer.there == 1, "two language models are in memory"
                outer.llms.append(SlowLLM(outer.seconds))
                return outer.llms[-1], InUse()

            def close(self) -> None:
                super().close()
                outer.there -= 1

        return StandIns(store)


class SlowLLM(FakeLLM):
    """Names a product, and then none; each answer takes so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__("ID: I3\nTitle: Thing 3", "nonsense")
        self.seconds = seconds

    def generate(self, *asked: Any, **more: Any) -> Any:
        time.sleep(self.seconds)
        return super().generate(*asked, **more)


def stops_after(count: int) -> Reporter:
    """Kills an ablation as soon as so many answers are there."""

    def tell(what: str, done: int = 0, of: int = 0) -> None:
        if done == count:
            raise KeyboardInterrupt

    return Reporter(tell=tell)


def cases_of(n: int) -> Cases:
    empty = tuple(np.zeros(0, np.int64) for _ in range(n))
    return Cases(empty, empty, empty, np.zeros(n, np.int64), np.arange(n), ("",) * n, np.zeros(n), np.arange(n))  # type: ignore[arg-type]


def test_who_asks_for_a_product_that_nobody_knew_yet_is_not_asked(make_store: Callable[..., Store]) -> None:
    """As of the moment of a case such a product is not shown, so every variant would have 0 there."""
    said: list[str] = []
    new = "u0,2025-05-20,purchase,NEW"
    undated = make_store([*ITEMS, "NEW,New Thing,cat0,Maker0,red"], [*events(), new])
    undated.close()
    question = Question(undated.path, undated.path.parent / "kept", count=0)
    chosen = [Variant("alone", {"llm": "none"})]
    found = ablate("llm", chosen, question, opener=Opened(), reporter=Reporter(note=said.append))
    [told] = [line for line in said if "not asked" in line]
    assert told.startswith("shop: 1 of 11 cases are not asked.")
    assert found.cases == 10


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
    assert all(one.wording == "general" and one.deadline == 600 for one in opened.settings)
    assert [len(llm.asked) for llm in opened.llms] == [4]  # the prompts of both are the same, and are asked once
    assert not any(llm.scored for llm in opened.llms)  # the order of F has no Yes or No
    for line in result.variants:
        assert line.tokens == MeanTokens(10.0, 5.0, 0.0)
        assert line.invalid == 0.75  # the queue's first answer is a product, the others are nonsense
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
        ablate("constrained", chosen, question, opener=Opened(), reporter=stops_after(7))
    files = sorted(tmp_path.glob("*.jsonl"))
    assert sorted(len(file.read_text().splitlines()) for file in files) == [3, 4]  # case by case
    torn = next(file for file in files if len(file.read_text().splitlines()) == 3)
    with torn.open("a") as file:
        file.write('{"case": "u1#')  # cut off while it was written
    again, notes = Opened(), list[str]()
    result = ablate("constrained", chosen, question, opener=again, reporter=Reporter(notes.append))
    assert len(again.llms[0].asked) == 10 - 7
    assert [note.split(": ")[1].split(",")[0] for note in notes] == [
        "4 cases answered before",
        "3 cases answered before",
    ]
    last = Opened()
    once_more = ablate("constrained", chosen, question, opener=last)
    assert not last.settings  # nothing is opened where nothing is missing
    assert [line.metrics for line in once_more.variants] == [line.metrics for line in result.variants]
    other = Opened()
    ablate("constrained", chosen[:1], replace(question, common={"recent": 1}), opener=other)
    assert len(other.llms[0].asked) == 5  # other settings are other answers


@pytest.mark.slow
def test_exported_lists_have_the_same_figures_beside_other_systems(shop: Path, tmp_path: Path) -> None:
    question = Question(shop, tmp_path / "kept", count=6, export=tmp_path / "lists")
    result = ablate("mixup", variants("mixup")[:2], question, opener=Opened())
    ablate("mixup", variants("mixup")[:2], question, opener=Opened())  # from kept answers, over the same files
    for one in result.variants:
        run = tmp_path / "lists" / f"{one.name.lower().replace('=', '-')}.parquet"
        plan = EvaluationPlan(options=Options(seen="ranked", sample=6), runs=(run,))
        systems = evaluate_store(plan, ["popularity"], Workshop(shop)).lines
        assert [line.name for line in systems] == ["popularity", run.stem]
        assert systems[1].missing_cases == 0
        assert [systems[1].figure(name) for name in ("ndcg@10", "recall@10", "mrr")] == [
            one.figure(name) for name in ("ndcg@10", "recall@10", "mrr")
        ]


@pytest.mark.slow
def test_a_variant_without_a_language_model_asks_none(shop: Path, tmp_path: Path) -> None:
    chosen = {one.name: one for one in variants("llm")}
    assert load_settings({}, "/nonexistent", **chosen["retrieval alone"].settings).asks_llm is False
    assert len({model_of(chosen_of(shop, one.settings)) for one in chosen.values()}) == 2  # the one at hand, and none
    question = Question(shop, tmp_path, count=2)
    [alone] = ablate("llm", [chosen["retrieval alone"]], question).variants
    assert (alone.tokens.prompt, alone.invalid, alone.degraded) == (0.0, 0.0, 0.0)


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
    shown, hidden = opened.llms[0].asked[0::2], opened.llms[0].asked[1::2]
    assert all("Maker" in prompt.user for prompt in shown)
    assert not any("Maker" in prompt.user or "cat" in prompt.user for prompt in hidden)
    assert [p.user.count("Thing") > 0 for p in hidden] == [True] * 3


@pytest.mark.slow
def test_an_answer_that_is_reused_costs_what_it_cost_when_it_was_asked(shop: Path, tmp_path: Path) -> None:
    opened = Opened(seconds=0.3)
    result = ablate("mixup", variants("mixup")[:3], Question(shop, tmp_path, count=2), opener=opened)
    assert len(opened.llms[0].asked) == 2
    assert [line.ms.median >= 300 for line in result.variants] == [True] * 3


@pytest.mark.slow
def test_one_language_model_at_a_time_is_in_memory(shop: Path, tmp_path: Path) -> None:
    chosen = [Variant(name, {"llm": llm, "rerank_weight": 0.0}) for name, llm in (("a", "x"), ("b", "y"), ("c", "x"))]
    opened = Opened()
    result = ablate("models", chosen, Question(shop, tmp_path, count=2), opener=opened)
    assert [one.llm for one in opened.settings] == ["x", "x", "y"]
    assert [len(llm.asked) for llm in opened.llms] == [2, 2]
    assert [line.name for line in result.variants] == ["a", "b", "c"]  # in the order given


@pytest.mark.slow
def test_a_variant_without_judgements_asks_for_none_beside_one_that_has_them(shop: Path, tmp_path: Path) -> None:
    chosen = [Variant("with", {"rerank_weight": 1.0}), Variant("without", {"rerank_weight": 0.0})]
    opened = Opened()
    with_them, without = ablate("own", chosen, Question(shop, tmp_path, count=2), opener=opened).variants
    assert len(opened.llms[0].scored) > 0
    assert with_them.tokens.prompt > without.tokens.prompt == 10.0


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
        ablate("mixup", variants("mixup"), Question(shop, tmp_path, common={"colour": "red"}), opener=Opened())
    ran = CliRunner().invoke(main, ["ablate", "table4", "--store", str(shop)])
    assert ran.exit_code == 2
    assert "'table4' is no ablation" in ran.output
    ran = CliRunner().invoke(main, ["ablate", "mixup", "--store", str(shop), "--set", "adapter"])
    assert "write NAME=VALUE" in ran.output
