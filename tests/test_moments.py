"""The moment `as_of` with an offset: the same moment as in UTC, whichever way it comes in."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder, FakeLLM

from recgraph.cli import main
from recgraph.graph.recommender import Recommender
from recgraph.settings import Settings
from recgraph.store.db import Store
from recgraph.store.records import as_utc

# The click at 09:01 lies between 09:30 in Berlin (08:30 UTC) and 09:30 UTC.
PLAIN, AHEAD = datetime(2025, 3, 1, 8, 30), datetime(2025, 3, 1, 9, 30, tzinfo=timezone(timedelta(hours=1)))


@pytest.fixture
def shop(make_store: Callable[..., Store]) -> Path:
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    store.close()
    return store.path


def test_a_moment_with_an_offset_is_the_same_moment() -> None:
    assert as_utc(AHEAD) == as_utc(PLAIN.replace(tzinfo=UTC)) == as_utc(PLAIN) == PLAIN
    assert as_utc("2025-03-01T09:30:00+01:00") == PLAIN
    assert as_utc(None) is None


def test_an_answer_as_of_a_moment_with_an_offset_knows_what_came_before_it(shop: Path) -> None:
    """It was compared with the store's times by its figures, or not at all: naive and aware cannot be."""
    with Recommender(Store.open(shop), Settings(store=str(shop)), FakeEncoder(), FakeLLM()) as recommender:
        recommender.warm_up(AHEAD)
        found = recommender.recommend("U1", as_of=AHEAD)
        assert (found.as_of, len(found.history)) == (PLAIN, 4)
        assert recommender.recommend("U1", as_of=datetime(2025, 3, 1, 9, 30)).history[-1].item_id == "K1GREY"
        state = recommender.graph.invoke({"user_id": "U1", "as_of": AHEAD})
        assert (state["as_of"], len(state["history"])) == (PLAIN, 4)
        assert recommender.replay(found.run_id).equal


def test_the_store_takes_moments_with_an_offset(shop: Path) -> None:
    with Store.open(shop) as store:
        assert store.history("U1", AHEAD) == store.history("U1", PLAIN)
        assert store.popular(AHEAD, days=30.0) == store.popular(PLAIN, days=30.0)


@pytest.mark.parametrize("time", ["2025-03-01T09:30:00+01:00", "2025-03-01T08:30:00Z", "2025-03-01 08:30"])
def test_so_do_the_commands(shop: Path, time: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recgraph.graph.recommender.encoder_of", lambda *_: FakeEncoder())
    shown = CliRunner().invoke(main, ["history", "--user", "U1", "--as-of", time, "--json", "--store", str(shop)])
    assert len(json.loads(shown.stdout)) == 4
    run = ["run", "--user", "U1", "--as-of", time, "--llm", "none", "--json", "--store", str(shop)]
    assert json.loads(CliRunner().invoke(main, run).stdout)["as_of"] == "2025-03-01T08:30:00"
