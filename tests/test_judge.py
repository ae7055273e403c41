"""The judge that has the simulated shop's own model: watching changes no byte, its chances are those of the shop, and
benchmarks/ceiling.py measures with it."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recgraph.train.metrics import auc
from recgraph.train.prepare import Case
from recgraph.train.shop import trade as trading
from recgraph.train.shop import year
from recgraph.train.shop.catalogue import build_listings, query_words, wording_chance
from recgraph.train.shop.judge import Judge, Purchase, Searched, Tastes, WatchedTrade, _log_clicked, visible
from recgraph.train.shop.year import trade_year, write_shop

SMALL: dict[str, int] = {"shoppers": 60, "products": 400, "events": 1500}
WRITTEN = "c36589df66e5d63d76e37f8084bae4d4b828a82d09302bdc417c5d08c113ac7a"


def watched() -> WatchedTrade:
    return trade_year(WatchedTrade, 3, days=365, **SMALL)[0]


@pytest.fixture(scope="module")
def year_of() -> WatchedTrade:
    return watched()


@pytest.fixture
def ceiling(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import ceiling  # type: ignore[import-not-found]

    yield ceiling
    sys.modules.pop("ceiling", None)


def searched(trade: WatchedTrade) -> list[tuple[Purchase, int, int]]:
    """Purchases that a search of their visit led to: the last turn, and what was bought."""
    return [(one, len(one.turns) - 1, product) for (_, _, product), one in trade.purchases.items() if one.turns]


def test_the_shop_of_a_seed_stays_the_same_to_the_byte(tmp_path: Path) -> None:
    """What was trained on the demo's shop is given to that very shop alone: a draw more or less would make another."""
    write_shop(tmp_path, seed=3, **SMALL)
    written = b"".join((tmp_path / name).read_bytes() for name in ("items.csv", "events.csv", "exposures.csv"))
    assert hashlib.sha256(written).hexdigest() == WRITTEN


def test_watching_a_trade_changes_nothing_of_it(year_of: WatchedTrade) -> None:
    plain, _ = trade_year(trading.Trade, 3, days=365, **SMALL)
    assert year_of.events == plain.events
    assert year_of.exposures == plain.exposures


def test_every_purchase_and_every_search_is_noted(year_of: WatchedTrade) -> None:
    events = Counter(event[2] for event in year_of.events)
    assert len(year_of.purchases) == events["purchase"] > 100
    turns = [turn for threads in year_of.threads.values() for thread in threads for turn in thread]
    assert len(turns) == events["search"]
    positions = [event[5] for event in year_of.events if event[2] == "click" and event[5] is not None]
    assert sorted(place + 1 for turn in turns for place in turn.clicked) == sorted(positions)
    assert all(len({turn.intent.target for turn in thread}) == 1 for thread in year_of.threads["U123"])


def test_words_are_as_likely_as_they_are_drawn() -> None:
    rng = np.random.default_rng(1)
    style = next(one.style for one in build_listings(rng, 200, 365).products if one.style.material == "Wool")
    named = ("colour", "shape", "brand", "department")
    drawn = Counter(frozenset(query_words(rng, style, "Olive", named).items()) for _ in range(8000))
    assert sum(wording_chance(style, "Olive", dict(words)) for words in drawn) == pytest.approx(1, abs=0.01)
    for words, count in drawn.most_common(5):
        assert wording_chance(style, "Olive", dict(words)) == pytest.approx(count / 8000, abs=0.02)
    assert wording_chance(style, "Olive", {"colour": "navy", "noun": style.cut.asked[0]}) == 0


def test_the_chance_of_some_clicks_is_how_often_they_are_the_strongest() -> None:
    rng, pull = np.random.default_rng(2), np.array([1.0, 0.5, -0.3, 0.0])
    drawn = np.sort(np.argsort(-(pull + rng.gumbel(size=(20_000, 4))), axis=1)[:, :2], axis=1)
    for clicked in ([0, 1], [1, 2], [2, 3]):
        share = (drawn == clicked).all(axis=1).mean()
        assert np.exp(_log_clicked(pull[None], clicked))[0] == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("page", [False, True])
def test_a_judge_that_knows_the_taste_finds_what_was_bought(year_of: WatchedTrade, page: bool) -> None:
    judge, right, wrong = Judge(year_of, 30, 1), [], []
    for purchase, asked, product in searched(year_of)[:40]:
        chances = judge.chances(purchase, asked, [None], page)
        assert chances.sum() == pytest.approx(1)
        right.append(chances[product])
        wrong.extend(chances[judge.rng.integers(len(chances), size=20)])
    assert auc(right, wrong) > 0.9
    assert np.mean(right) > 0.2


def test_what_is_in_the_cart_is_what_will_be_bought(year_of: WatchedTrade) -> None:
    judge = Judge(year_of, 30, 1)
    carts = [(product, one) for (_, _, product), one in year_of.purchases.items() if one.open >= 0]
    assert carts
    assert all(judge.chances(one, -1, [None])[product] == 1 for product, one in carts)


def test_a_judge_does_not_see_what_its_search_will_lead_to(year_of: WatchedTrade) -> None:
    purchase, asked, _ = next(one for one in searched(year_of) if one[0].turns[-1].clicked)
    turn = purchase.turns[asked]
    judge = Judge(year_of, 30, 1)
    before = judge.chances(purchase, asked, [None])
    clicked, turn.clicked = turn.clicked, [7 - place for place in turn.clicked]
    again = Judge(year_of, 30, 1).chances(purchase, asked, [None])
    turn.clicked = clicked
    assert np.array_equal(before, again)
    assert visible([purchase.turns], turn.second)[-1][-1].clicked == []
    assert visible([purchase.turns], turn.second + 1)[-1][-1].clicked == clicked
    assert visible([purchase.turns], purchase.turns[0].second - 1) == []


def test_tastes_that_explain_what_was_done_are_nearer_to_the_true_one(year_of: WatchedTrade) -> None:
    busiest = max(year_of.threads, key=lambda user: len(year_of.threads[user]) if user != "U123" else 0)
    threads: list[list[Searched]] = year_of.threads[busiest]
    tastes = Tastes(Judge(year_of, 1, 1), 365, 1, shoppers=400)
    who = next(one for one in year_of.shoppers if one.user_id == busiest)
    drawn = tastes.draw(who, threads, 30, 10)
    near = np.mean([one.before for one in drawn], axis=0) - tastes.mean[: len(who.before)]
    true = who.before - tastes.mean[: len(who.before)]
    assert np.corrcoef(near, true)[0, 1] > 0.15
    nothing = tastes.draw(year_of.shoppers[0], [], 3, 2)
    assert len(nothing) == 2


def test_in_a_shop_without_chance_the_judge_is_never_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = year._draw_taste
    monkeypatch.setattr(year, "_draw_taste", lambda rng, personas: 400 * drawn(rng, personas))
    monkeypatch.setattr(trading, "ON_PAGE", 0.0)
    trade = watched()
    judge, right, wrong = Judge(trade, 10, 1), [], []
    for purchase, asked, product in searched(trade)[:40]:
        owned = {listing for _, listing in purchase.at.who.bought[: purchase.owned]}
        if purchase.at.visit.wish or owned & set(purchase.intent.rows.tolist() if purchase.intent else ()):
            continue
        chances = judge.chances(purchase, asked, [None])
        right.append(chances[product])
        wrong.extend(np.delete(chances, product))
    assert len(right) > 5
    assert auc(right, wrong) == 1


def sat(ceiling: Any, trade: WatchedTrade, count: int) -> tuple[Any, list[Any]]:
    """Purchases after a single search as held-out cases, each with five products that were not bought."""
    first, ids = datetime(2025, 1, 1), [product.item_id for product in trade.listings.products]
    rng, found = np.random.default_rng(5), []
    for (second, user, product), one in trade.purchases.items():
        if len(one.turns) == 1 and len(found) < count:
            asked, bought = (first + timedelta(seconds=number) for number in (one.turns[0].second, second))
            case = Case("test", user, asked, one.turns[0].asked.text, ids[product], bought, 1, False)
            wrong = [ids[row] for row in rng.integers(len(ids), size=6).tolist() if row != product][:5]
            found.append(
                ceiling.Sat(
                    case, f"1. click {ids[product]} Shirt", [ids[product], *wrong], ["positive", *["random"] * 5]
                )
            )
    return ceiling.Shop(trade, first, 365, {item_id: number for number, item_id in enumerate(ids)}), found


def test_no_judge_is_worse_than_chance(ceiling: Any, year_of: WatchedTrade) -> None:
    shop, cases = sat(ceiling, year_of, 15)
    said = ceiling.judged(shop, [shop.known(one.case) for one in cases], ceiling.Effort(20, 3, 2), 1)
    found = ceiling.report(shop, cases, said)
    assert (found["cases"], found["shown"], found["negatives"]) == (15, 15, {"random": 75})
    for judge in ceiling.JUDGES:
        told = found[judge]
        assert 0.5 < told["auc"][1] <= told["auc"][0] <= told["auc"][2] <= 1
        assert told["within_random"][0] > 0.5
        assert told["exact_id_shown"][0] == 1  # each prompt shows one id, the target's
        assert told["ndcg@10"][0] <= told["recall@10"][0]


def test_a_case_of_another_shop_is_refused(ceiling: Any, year_of: WatchedTrade) -> None:
    shop, [one] = sat(ceiling, year_of, 1)
    with pytest.raises(LookupError, match="another shop"):
        shop.known(replace(one.case, ts=one.case.ts + timedelta(seconds=1)))


def test_auc_is_pooled_over_cases_and_within_each(ceiling: Any) -> None:
    scored = [{"positive": [3.0], "random": [1.0, 2.0], "shown": [4.0]}, {"positive": [0.0], "random": [-1.0]}]
    found = ceiling.measure_fit(scored)
    assert found["auc"] == (3 + 1) / 8  # 3 beats 1, 2 and -1; 0 beats -1
    assert found["auc_random"] == (3 + 1) / 6
    assert found["within_random"] == 1
    assert found["within"] == (2 / 3 + 1) / 2
    assert found["auc_shown"] == found["within_shown"] == 0
    assert "auc_alike" not in found


def test_the_most_likely_product_is_counted_and_what_the_prompt_shows(ceiling: Any) -> None:
    chances = [np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.2, 0.7])]
    found = ceiling.measure_next(chances, [0, 1], [[1, 2], [0, 1]])
    assert found["exact_id"].tolist() == [1, 0]
    assert found["exact_id_shown"].tolist() == [0, 1]
    assert found["ndcg@10"].tolist() == [1, pytest.approx(1 / np.log2(3))]
    assert found["expected"].tolist() == [0.5, 0.7]
    assert found["recall@10"].tolist() == [1, 1]


def test_an_interval_holds_what_it_is_of(ceiling: Any) -> None:
    values = np.arange(100.0)
    found = ceiling.with_interval(100, lambda rows: {"mean": float(values[rows].mean())}, 200)
    value, low, high = found["mean"]
    assert value == 49.5
    assert 40 < low < value < high < 60
