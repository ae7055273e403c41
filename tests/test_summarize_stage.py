"""The stage `summarize`: what it makes ahead is what a run would have made, to the hash and to the byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import SHOP_EVENTS, SHOP_ITEMS, FakeEncoder, FakeLLM

from recgraph.errors import LLMUnavailable, SettingsError
from recgraph.graph.recommender import Recommender
from recgraph.graph.summary.grounding import CatalogueWords
from recgraph.graph.summary.summarizers import LLMSummarizer, ProfileSummarizer
from recgraph.settings import Settings
from recgraph.store import snapshot
from recgraph.store.db import Store
from recgraph.train.summarize import chosen_users, run, summarize_users

PARADIGMS = ["recurrent", "hierarchical"]


def params(**own: Any) -> dict[str, Any]:
    return {"summarize": {"summarizer": "profile", "paradigms": PARADIGMS, "block": 5, "merge": 4, "users": 0, **own}}


@pytest.fixture
def folder(make_store: Callable[..., Store], tmp_path: Path) -> Path:
    """A pipeline folder after `prepare`: a small shop in which U9 has 23 events."""
    ids = [line.split(",")[0] for line in SHOP_ITEMS.strip().splitlines()[1:]]
    many = [f"U9,2025-03-{day:02},click,{ids[day % len(ids)]},," for day in range(1, 24)]
    store = make_store(SHOP_ITEMS, [*SHOP_EVENTS.strip().splitlines(), *many])
    snapshot.write(store, tmp_path / "data" / "prepare" / "all")
    return tmp_path


@pytest.mark.slow
def test_a_run_finds_every_block_cached(folder: Path) -> None:
    notes: list[str] = []
    run(params(), folder, notes.append)
    made = snapshot.read_summaries(folder / "data" / "summarize" / "summaries.parquet")
    assert {summary.paradigm for summary in made} == set(PARADIGMS)
    assert str(len(made)) in notes[0]
    with snapshot.load(folder / "data" / "prepare" / "all", folder / "loaded.duckdb") as store:
        store.save_summaries(made)
        store.take_waiting()
        users = [row.user_id for row in store.users()]
    with Recommender(Store.open(folder / "loaded.duckdb"), Settings(llm="none"), FakeEncoder(), None) as recommender:  # type: ignore[arg-type]
        for user_id in users:
            for paradigm in PARADIGMS:
                found = recommender.recommend(user_id, paradigm=paradigm).to_dict()["summary"]
                assert found["cached"] == found["blocks"] > 0
        assert recommender.store.counts()["summaries"] == len(made)  # none was made anew, merges included


@pytest.mark.slow
def test_two_runs_write_the_same_bytes(folder: Path) -> None:
    out = folder / "data" / "summarize" / "summaries.parquet"
    run(params(), folder, lambda _: None)
    first = out.read_bytes()
    out.unlink()
    run(params(), folder, lambda _: None)
    assert out.read_bytes() == first


def test_a_larger_sample_of_users_contains_the_smaller() -> None:
    users = [f"U{n}" for n in range(50)]
    assert set(chosen_users(users, 5)) < set(chosen_users(users, 20)) < set(chosen_users(users, 0)) == set(users)
    assert chosen_users(reversed(users), 5) == chosen_users(users, 5) != chosen_users(users, 5, seed=1)


@pytest.mark.parametrize("wrong", [{"paradigms": ["both"]}, {"summarizer": "auto"}])
def test_a_wrong_param_is_named(folder: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        run(params(**wrong), folder, lambda _: None)


class Failing(FakeLLM):
    """Answers `left` times, then is gone."""

    left = 1000

    def generate(self, *args: Any, **named: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise LLMUnavailable("gone")
        return super().generate(*args, **named)


@pytest.mark.slow
def test_what_an_llm_wrote_before_a_kill_is_not_asked_for_again(folder: Path) -> None:
    kept = folder / "part"
    with snapshot.open_folder(folder / "data" / "prepare" / "all") as store:
        users = sorted(row.user_id for row in store.users())

        def summaries(llm: FakeLLM, kept: Path | None) -> dict[str, Any]:
            writer = LLMSummarizer(llm, CatalogueWords(store.attribute_values()), wording="fashion")
            return {
                summary.input_hash: summary
                for summary in summarize_users(store, users, writer, PARADIGMS, Settings(), kept)[0]
            }

        whole = Failing("They like clothes.")
        wanted = summaries(whole, None)
        killed = Failing("They like clothes.")
        killed.left = len(whole.asked) - 3
        with pytest.raises(LLMUnavailable):
            summaries(killed, kept)
        again = Failing("They like clothes.")
        assert summaries(again, kept) == wanted
        assert 0 < len(again.asked) < len(whole.asked)


def test_several_users_at_once_give_the_same(folder: Path) -> None:
    with snapshot.open_folder(folder / "data" / "prepare" / "all") as store:
        users = sorted(row.user_id for row in store.users())
        one, several = (
            summarize_users(store, users, ProfileSummarizer(), PARADIGMS, Settings(), at_once=many) for many in (1, 3)
        )
    assert one == several
