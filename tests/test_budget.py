"""What fits into the time of a request is chosen by what the stages cost here, and the answer's plan says what did not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder, FakeLLM

from recgraph.errors import LLMTimeout
from recgraph.graph.budget import LATEST, PROBED, Costs, LeftOut, Repeated, TimeBudget
from recgraph.graph.recommender import Recommender
from recgraph.settings import Settings
from recgraph.store.db import Store


def costing(**seconds: float) -> TimeBudget:
    """A budget that knows what each part costs: a block, the prediction, twenty candidates."""
    costs = Costs()
    for part, units in (("summarize", 1), ("recommend", 1), ("rerank", 20)):
        if part in seconds:
            costs.note(part, units, seconds[part])  # type: ignore[arg-type]
    return TimeBudget(costs)


def within(seconds: float) -> float:
    return time.monotonic() + seconds


def test_all_is_done_where_the_time_suffices_or_nothing_was_measured() -> None:
    known = costing(summarize=1.0, recommend=1.8, rerank=0.9)
    assert known.choose("summarize", 2, within(10), {"recommend": 1, "rerank": 20}) == (2, None)
    assert known.choose("recommend", 1, None, {}) == (1, None)
    assert TimeBudget().choose("recommend", 1, within(0.01), {}) == (1, None)


def test_new_summaries_give_way_first_then_candidates_then_reranking_then_the_prediction() -> None:
    budget = costing(summarize=1.0, recommend=1.8, rerank=0.84)
    follows = {"recommend": 1, "rerank": 20}
    kept, left_out = budget.choose("summarize", 1, within(3.0), follows)  # type: ignore[arg-type]
    assert kept == 0
    assert left_out is not None
    assert left_out.needed == pytest.approx(1 + 1.8 + 0.84)
    assert str(left_out).startswith("summarize: no new blocks; what was known before serves (needs about 3.64 s, 3.00 s")
    assert budget.choose("recommend", 1, within(2.0), {}) == (1, None)
    fewer, _ = budget.choose("rerank", 20, within(0.61), {})
    assert fewer == 12  # .03 s a unit, of which the shared prompt is worth eight
    assert budget.choose("rerank", 20, within(0.2), {})[0] == 0  # fewer than five are not worth asking about
    assert budget.choose("recommend", 1, within(0.8), {})[0] == 0


def test_a_part_that_was_left_out_often_is_tried_again_once() -> None:
    budget = costing(recommend=5.0)
    chosen = [budget.choose("recommend", 1, within(1.0), {})[0] for _ in range(2 * PROBED)]
    assert [n for n, one in enumerate(chosen) if one] == [PROBED - 1, 2 * PROBED - 1]


def test_a_slow_first_call_weighs_nothing_beside_later_ones() -> None:
    costs = Costs()
    costs.note("recommend", 1, 7.0)
    assert costs.rate("recommend") == 7.0
    for _ in range(LATEST):
        costs.note("recommend", 1, 0.5)
    assert costs.rate("recommend") == 0.5


def test_what_the_deadline_ended_costs_at_least_that() -> None:
    budget = TimeBudget()
    for part, error in (("recommend", LLMTimeout("late")), ("rerank", ValueError("broken"))):
        with suppress(LLMTimeout, ValueError), budget.timed(part, 1):  # type: ignore[arg-type]
            time.sleep(0.02)
            raise error
    assert (budget.costs.rate("recommend") or 0) >= 0.02
    assert budget.costs.rate("rerank") is None


def test_a_request_that_came_late_makes_nothing_cheaper() -> None:
    budget = costing(recommend=9.0)
    for _ in range(LATEST):
        with suppress(LLMTimeout), budget.timed("recommend", 1):
            raise LLMTimeout("late")
    assert budget.costs.rate("recommend") == 9.0


def test_costs_outlive_the_process_and_another_model_has_its_own(tmp_path: Path) -> None:
    file = tmp_path / "cache" / "costs.json"
    for key, seconds in (("small", 0.5), ("large", 3.0)):
        costs = Costs(file, key)
        costs.note("recommend", 1, seconds)
        costs.keep()
    assert Costs(file, "small").rate("recommend") == 0.5
    assert Costs(file, "large").rate("recommend") == 3.0
    assert [one.name for one in file.parent.iterdir()] == ["costs.json"]


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"m": 3}', '{"m": {"recommend": [[1, "x"]]}}', "[" * 5000])
def test_a_costs_file_that_is_not_ours_costs_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "costs.json"
    file.write_text(text)
    costs = Costs(file, "m")
    assert costs.rate("recommend") is None
    costs.note("recommend", 1, 1.0)
    costs.keep()
    assert Costs(file, "m").rate("recommend") == 1.0


def test_costs_that_cannot_be_kept_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    costs = Costs(tmp_path / "file" / "costs.json", "m")
    costs.note("recommend", 1, 1.0)
    costs.keep()
    assert costs.rate("recommend") == 1.0
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_candidates_that_the_deadline_left_unscored_make_the_others_no_cheaper() -> None:
    budget = TimeBudget()
    with budget.timed("rerank", 20) as done:
        time.sleep(0.02)
        done(2)
    assert (budget.costs.rate("rerank") or 0) >= 0.02 / (2 + 8)


def test_a_past_choice_is_repeated_whatever_the_time() -> None:
    past = LeftOut("rerank", 7, 20, 2.0, 1.0)
    repeated = Repeated([past])
    assert repeated.choose("rerank", 20, within(100), {}) == (7, past)
    assert repeated.choose("recommend", 1, within(0), {}) == (1, None)


def test_an_answer_says_what_its_deadline_left_no_room_for_and_is_replayed_so(
    make_store: Callable[..., Store], tmp_path: Path
) -> None:
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    settings, file = replace(Settings(), store=str(store.path)), tmp_path / "costs.json"
    llm = FakeLLM("ID: K2OLIV\nTitle: Harrow Wool Jumper, Olive, M")
    with Recommender(Store.open(store.path), settings, FakeEncoder(), llm, costs=Costs(file, "fake")) as shop:
        assert shop.recommend("U1", "linen shirt").to_dict()["plan"] == []
    assert set(json.loads(file.read_text())["fake"]) == {"recommend", "rerank"}
    slow = {"recommend": [[1, 9.0]], "rerank": [[20, 9.0]]}
    file.write_text(json.dumps({"fake": slow}))
    with Recommender(Store.open(store.path), settings, FakeEncoder(), llm, costs=Costs(file, "fake")) as shop:
        found = shop.recommend("U1", "linen shirt", deadline=5.0)
        assert [one.part for one in found.left_out] == ["recommend", "rerank"]
        assert found.prediction is None
        assert found.items
        assert not found.degraded
        assert found.to_dict()["plan"][0].startswith("recommend: no prediction; retrieved without one (needs")
        again = shop.replay(found.run_id)
        assert again.equal, again.differences
