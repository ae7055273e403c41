"""The filters of `recgraph run`: every product printed holds to them, and what cannot be held to is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS

from recgraph.cli import main
from recgraph.store.db import Store


@pytest.fixture
def run(make_store: Callable[..., Store]) -> Callable[..., Result]:
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    store.close()

    def asked(*arguments: str) -> Result:
        whom = ("run", "--user", "someone", "--new-user", "--llm", "none", "--store", str(store.path))
        return CliRunner().invoke(main, [*whom, *arguments], env={"COLUMNS": "100", "NO_COLOR": "1"})

    return asked


def answer(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "right"),
    [
        (["--category", "Boots", "--max-price", "145"], {"B1BRWN"}),
        (["--category", "shirts", "--min-price", "50"], {"S2OLIV"}),
        (["--want", "colour=olive", "--want", "color=Navy", "--not", "brand=fenn", "--max-price", "60"], {"S1OLIV", "S1NAVY"}),
        (["--not", "category=shirts", "--not", "category=boots", "--max-price", "80", "--mode", "paper"], {"K2OLIV", "NOTITL"}),
        (["--query", "black boots", "--not", "color=black", "--category", "boots"], {"B1BRWN"}),
    ],
)  # fmt: skip
def test_every_product_holds_to_the_filters(run: Callable[..., Result], options: list[str], right: set[str]) -> None:
    found = answer(run("--json", *options))
    assert {line["item_id"] for line in found["items"]} == right
    assert found["relaxed"], "fewer than ten say what could give way"


@pytest.mark.slow
def test_an_unwanted_value_that_no_product_has_is_said_and_a_wanted_one_is_refused(run: Callable[..., Result]) -> None:
    found = answer(run("--json", "--not", "brand=Harow"))
    assert "understand: No product has the brand 'Harow'; near it are Harrow." in found["degraded"]
    assert found["understood"]["avoid"] == {"brand": ["Harow"]}
    assert "! understand: No product has the brand 'Harow'" in run("--not", "brand=Harow").output
    refused = run("--category", "boats")
    assert refused.exit_code != 0
    assert "No product has the category 'boats'; near it are boots" in refused.output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--want", "olive"], "--want is 'olive'; write NAME=VALUE"),
        (["--not", "brand="], "--not is 'brand='; write NAME=VALUE"),
        (["--not", "planet=Mars"], "No product has a 'planet'; there are brand, category, color"),
        (["--min-price", "60", "--max-price", "50"], "No price is at least 60 and at most 50"),
        (["--max-price", "-1"], "-1"),
    ],
)
def test_a_filter_that_cannot_be_read_is_named(run: Callable[..., Result], options: list[str], said: str) -> None:
    done = run(*options)
    assert done.exit_code != 0
    assert said in " ".join(done.output.split())
