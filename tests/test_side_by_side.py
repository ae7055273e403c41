"""Recommenders with many settings over one store: what they share, and a language model that is asked each thing once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import SHOP_EVENTS, SHOP_ITEMS, FakeEncoder, FakeLLM

from recgraph.errors import LLMUnavailable
from recgraph.evaluation.asked_once import AskedOnce
from recgraph.evaluation.side_by_side import SideBySide, chosen_of
from recgraph.settings import Settings
from recgraph.store.db import Store
from recgraph.store.records import as_utc
from recgraph.tools.llm.open import InUse
from recgraph.tools.llm.protocol import Form, Prompt

MOMENT, LATER = as_utc("2025-03-01"), as_utc("2025-04-01")


class StandIns(SideBySide):
    def encoder(self, chosen: Settings) -> Any:
        return FakeEncoder()

    def model(self, chosen: Settings) -> Any:
        return FakeLLM("ID: S1OLIV\nTitle: Shirt"), InUse()


@pytest.fixture
def shop(make_store: Callable[..., Store]) -> Path:
    store = make_store(SHOP_ITEMS, SHOP_EVENTS)
    path = store.path
    store.close()
    return path


def prompt(text: str) -> Prompt:
    return Prompt("You know a shop.", text)


def test_settings_share_what_is_fitted_unless_their_encoders_differ(shop: Path) -> None:
    with StandIns(shop) as opened:
        one, two, other = (
            opened.open(chosen_of(shop, {"mode": "paper", **settings}))
            for settings in ({"mixup": 1}, {"attributes": "hidden"}, {"embedder": "another"})
        )
        assert one._retriever(MOMENT) is two._retriever(MOMENT)
        assert one._memory(MOMENT) is two._memory(MOMENT)
        assert one.llm is two.llm is other.llm
        assert other._retriever(MOMENT) is not one._retriever(MOMENT)


def test_a_recommender_that_is_closed_leaves_the_others_what_they_share(shop: Path) -> None:
    with StandIns(shop) as opened:
        one, two = (opened.open(chosen_of(shop, {"mixup": n})) for n in (0, 1))
        one.close()
        assert two.recommend("U1", as_of=MOMENT).items
        assert not shop.with_suffix(".runs.duckdb").exists()


def test_moments_share_what_hangs_on_the_catalogue_alone_until_it_changes(shop: Path) -> None:
    with StandIns(shop) as opened:
        product = opened.open(chosen_of(shop, {}))
        first, later = (product._retriever(moment).fitted for moment in (MOMENT, LATER))
        assert first.facets is later.facets
        assert first.catalogue is later.catalogue
        assert first.past.words.table is later.past.words.table
        assert len(first.past.events.item) < len(later.past.events.item)
        product.upsert([{"item_id": "S1OLIV", "title": "Harrow Linen Shirt", "brand": "Elsewhere"}])
        renewed = product._retriever(LATER).fitted
        assert renewed.facets is not later.facets
        assert "Elsewhere" in renewed.facets.attributes["brand"].column.raw


def test_with_little_time_every_answer_is_asked_for(shop: Path) -> None:
    with StandIns(shop) as opened:
        patient, hasty = (opened.open(chosen_of(shop, {"deadline": seconds})) for seconds in (600, 5))
        assert isinstance(patient.llm, AskedOnce)
        assert isinstance(hasty.llm, FakeLLM)


def test_an_equal_request_is_asked_once_and_another_one_again() -> None:
    llm = FakeLLM("a", "b", "c", "d", "e", "f")
    once = AskedOnce(llm)
    first = once.generate([prompt("x")], adapter="next")
    assert once.generate([prompt("x")], adapter="next", deadline=time.monotonic() + 9) == first
    assert len(llm.asked) == 1
    form = Form("ID: ", ("S1", "S2"), "")
    for other in ({"adapter": None}, {"max_tokens": 5}, {"form": form}, {"form": Form("ID: ", ("S1",), "")}):
        assert once.generate([prompt("x")], **{"adapter": "next", **other}) != first
    assert once.generate([prompt("y")], adapter="next") != first
    assert len(llm.asked) == 6
    scores = once.score([prompt("x"), prompt("y")], adapter="fit")
    assert once.score([prompt("x"), prompt("y")], adapter="fit") == scores
    once.score([prompt("x"), prompt("y")], adapter="fit", answers=("Ja", "Nein"))
    assert len(llm.scored) == 4


def test_what_failed_or_was_cut_off_is_asked_again() -> None:
    llm = FakeLLM("a", raises=LLMUnavailable("away"))
    once = AskedOnce(llm)
    with pytest.raises(LLMUnavailable):
        once.generate([prompt("x")])
    llm.raises = None
    assert once.generate([prompt("x")])[0][0].text == "a"

    class Late(FakeLLM):
        def score(self, prompts: Any, **more: Any) -> Any:
            found, usage = super().score(prompts, **more)
            return found[: 1 if len(self.scored) == len(prompts) else None], usage

    late = AskedOnce(Late())
    assert len(late.score([prompt("x"), prompt("y")])[0]) == 1
    assert len(late.score([prompt("x"), prompt("y")])[0]) == 2


def test_reused_answers_tell_the_time_they_took_and_those_at_once_count_once() -> None:
    once = AskedOnce(FakeLLM("a"))
    once._reused = [(1.0, 3.0), (2.0, 4.0), (2.5, 3.5), (10.0, 11.0)]
    assert once.waited() == pytest.approx((4.0 - 1.0) + (11.0 - 10.0))
    once.begin()
    assert once.waited() == 0.0


def test_an_answer_begins_without_what_earlier_prompts_left() -> None:
    class Keeping(FakeLLM):
        warm, afresh = True, 0

        def start_afresh(self) -> None:
            self.afresh += 1

    llm = Keeping()
    AskedOnce(llm).begin()
    assert llm.afresh == 1
