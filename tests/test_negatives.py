"""What task FIT learns to answer with No: nothing that was not on sale, nothing that the same visit took, and what the
product itself would have shown."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder

from recgraph.errors import SettingsError
from recgraph.store import snapshot
from recgraph.store.db import Store
from recgraph.tools.retrieve import Retriever
from recgraph.train.examples import stage as examples
from recgraph.train.examples.negatives import POOLS, Negatives
from recgraph.train.examples.rows import Row, columns_of, read_rows, write_columns, write_rows
from recgraph.train.examples.served import Served
from recgraph.train.params import load_params, settings_of
from recgraph.train.prepare import Case
from recgraph.train.shop.others import build_shop, check_seeds

MakeStore = Callable[..., Store]
ITEMS = [
    "item_id,title,category,brand,color,size,price,parent_id,first_seen,in_stock",
    *(f"S{n:02},Plain Shirt {n:02},shirts,Fenn,Olive,M,40,,2025-01-01,true" for n in range(10)),
    *(f"B{n:02},Plain Boots {n:02},boots,Fenn,Olive,M,40,,2025-01-01,true" for n in range(30)),
    "TWIN,Plain Shirt 00 Plum,shirts,Fenn,Plum,M,40,S00,2025-01-01,true",
    "GONE,Sold Out Shirt,shirts,Fenn,Olive,M,40,,2025-01-01,false",
    "LATE,Shirt of Autumn,shirts,Fenn,Olive,M,40,,2025-09-01,true",
]
ASKED = datetime(2025, 3, 12, 10)
EVENTS = """user_id,ts,action,item_id,query,position
U1,2025-03-01 10:00:00,purchase,S05,,
U1,2025-03-12 10:00:00,search,,olive shirt,
U1,2025-03-12 10:01:00,click,S00,olive shirt,1
U1,2025-03-12 10:05:00,purchase,S00,olive shirt,1
U1,2025-03-12 10:06:00,purchase,S01,olive shirt,2
U1,2025-03-12 10:07:00,purchase,B00,,
U1,2025-03-14 10:00:00,purchase,S02,,
U2,2025-03-12 10:06:00,purchase,S03,,
"""
PAGE = [
    "query,item_id,position,ts",
    *(f"olive shirt,S0{n},{n + 1},2025-03-12 10:00:00" for n in range(4)),
]
CASE = Case("train", "U1", ASKED, "olive shirt", "S00", ASKED + timedelta(minutes=5), 4, False)


@pytest.fixture
def shop(make_store: MakeStore) -> Store:
    return make_store(ITEMS, EVENTS, PAGE)


class First:
    """Stands for `Served`."""

    def __init__(self, *item_ids: str) -> None:
        self.item_ids, self.asked = item_ids, list[Case]()

    def first(self, case: Case, *_: object) -> list[str]:
        self.asked.append(case)
        return list(self.item_ids)


def drawn(store: Store, pool: int = 60, seed: int = 7, first: Any = None, case: Case = CASE) -> Mapping[str, str]:
    found = Negatives(store, pool, seed, first).of(case, [], [])
    assert len(found) == len(dict(found))
    return dict(found)


def test_only_what_was_on_sale_is_a_negative(shop: Store) -> None:
    assert not {"GONE", "LATE"} & set(drawn(shop))
    assert "LATE" in drawn(shop, case=replace(CASE, as_of=datetime(2025, 9, 2)))
    assert len(drawn(shop)) == 10 + 30 - 3  # all shirts and boots but the three of the same visit


def test_a_second_purchase_of_the_visit_is_no_negative_and_a_later_one_is(shop: Store) -> None:
    found = drawn(shop)
    assert not {"S00", "TWIN", "S01", "B00"} & set(found)  # S01 was bought by the same search, B00 into the basket
    assert found["S02"] == found["S03"] == "shown"  # bought two days later, and by another shopper
    assert found["S05"] == "alike"  # bought before


@pytest.mark.parametrize("seed", range(4))
def test_hard_ones_are_among_the_first_of_the_product(shop: Store, seed: int) -> None:
    first = First("S00", "B07", "S02", "B08", "B09", "TWIN", "S01")
    found = drawn(shop, 3, seed, first)
    assert first.asked == [CASE]
    hard = {item_id for item_id, kind in found.items() if kind == "hard"}
    assert hard <= {"B07", "B08", "B09"} | {"S02"}
    assert len(hard) >= 2
    assert Counter(found.values()).keys() == set(POOLS)


def test_other_kinds_do_not_depend_on_a_ranking(shop: Store) -> None:
    plain, hard = drawn(shop, 4), drawn(shop, 4, first=First("B07", "B08", "B09"))
    assert {item_id: kind for item_id, kind in hard.items() if kind != "hard"} == plain
    assert drawn(shop, 4, seed=8) != plain


def test_the_product_shows_what_fits_and_was_on_sale(shop: Store) -> None:
    served = Served(Retriever.build(shop, FakeEncoder()), FakeEncoder())
    found = [one.item_id for one in served.candidates(CASE, shop.history("U1", ASKED), [], count=50)]
    assert len(found) == len(set(found))
    assert not {"GONE", "LATE", "S05"} & set(found)  # sold out, not yet there, bought
    assert len(found) == 10 + 30 + 1 - 1
    assert served.first(CASE, [], []) == [one.item_id for one in served.candidates(CASE, [], [], count=50)][:20]


# ── The file ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def rows_of(group: int, text: str) -> list[Row]:
    users = [f"{text}\n[Task]\nNEXT", *(f"{text}\n[Task]\nFIT\n{n}" for n in range(3)), "", "other"]
    return [Row("train", "U1", group, group, f"I{n}", "system", user, "Yes", "next") for n, user in enumerate(users)]


def test_columns_put_in_a_line_are_the_rows_again(tmp_path: Path) -> None:
    first, second = rows_of(0, "a context 🧦"), rows_of(1, "a context, and more")
    write_columns(tmp_path / "a.parquet", [columns_of(first), columns_of(second)])
    assert read_rows(tmp_path / "a.parquet", "train") == {0: first, 1: second}


def test_what_a_row_shares_with_the_one_before_is_written_once(tmp_path: Path) -> None:
    rows = rows_of(0, "word " * 50_000)
    columns = columns_of(rows)
    assert sum(map(len, columns["user"])) < 300_000
    write_rows(tmp_path / "a.parquet", rows)
    assert read_rows(tmp_path / "a.parquet", "train") == {0: rows}
    systems = [row.system for row in read_rows(tmp_path / "a.parquet", "train")[0]]
    assert len({id(text) for text in systems}) == 1  # half a million rows hold one


# ── Shops of other seeds ──────────────────────────────────────────────────────────────────────────────────────────────

SMALL = {"seed": 3, "shoppers": 60, "products": 300, "events": 1500, "days": 120}


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the stages before `examples` leave it, without trained parts."""
    from recgraph.train.shop import others

    monkeypatch.setattr(others, "chosen_encoder", lambda *_: FakeEncoder())
    monkeypatch.setattr("recgraph.train.memory.chosen_encoder", lambda *_: FakeEncoder())
    monkeypatch.setattr(examples, "chat_of", lambda _: None)
    monkeypatch.setattr(examples, "find_llm", lambda _: Path())
    params = Path(__file__).parent.parent / "params.yaml"
    (tmp_path / "params.yaml").write_text(params.read_text("utf-8"), "utf-8")
    from recgraph.train import evidence

    empty = tmp_path / "encoder" / "data" / "title_embeddings"
    empty.mkdir(parents=True)
    (empty / "encoder.json").write_text('{"folder": "", "ready": "", "fitted_before": null}', "utf-8")
    evidence.keep(empty)
    return tmp_path


def params_of(folder: Path, **own: Any) -> dict[str, Any]:
    params = load_params(folder)
    limits = {
        "train_cases": 12,
        "valid_cases": 2,
        "test_cases": 6,
        "summary_users": 2,
        "pool": 2,
        "processes": 1,
        "shops": [],
    }
    return {**params, "shop": SMALL, "examples": {**params["examples"], **limits, **own}}


def test_a_seed_that_is_the_demos_or_named_twice_is_refused(pipeline: Path) -> None:
    params = params_of(pipeline)
    check_seeds(params, (4, 5))
    with pytest.raises(SettingsError, match=r"examples\.shops names 3, the seed of the demo's shop"):
        check_seeds(params, (4, 3))
    with pytest.raises(SettingsError, match=r"examples\.shops names 4 twice"):
        check_seeds(params, (4, 4))


def test_processes_share_the_cases_of_each_shop_by_time_and_change_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "_SLICE", 4)
    rng = np.random.default_rng(1)
    shops = {
        name: (tmp_path, [replace(CASE, seq=n, as_of=ASKED + timedelta(days=int(rng.integers(90)))) for n in range(10)])
        for name in ("", "shop 4: ")
    }
    own = settings_of(examples.ExamplesParams, load_params(Path(__file__).parent.parent)["examples"], "examples")
    one, three = (list(examples._parts(shops, "time", replace(own, processes=count))) for count in (1, 3))
    assert [(part.name, len(part.cases)) for part in one] == [("", 10), ("shop 4: ", 10)]
    assert [len(part.cases) for part in three] == [5, 5, 5, 5]  # in fours there are two of each shop
    assert [pair for part in three for pair in part.cases] == [pair for part in one for pair in part.cases]
    assert sorted(group for part in one for group, _ in part.cases) == list(range(20))
    for part in three:
        assert [case.as_of for _, case in part.cases] == sorted(case.as_of for _, case in part.cases)


def test_processes_are_begun_with_one_thread_and_the_setting_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with examples._one_thread():
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "5"
    assert "MKL_NUM_THREADS" not in os.environ


@pytest.mark.slow
def test_shops_of_other_seeds_give_cases_to_learn_from_and_none_to_be_held_out(pipeline: Path) -> None:
    own, encoder = pipeline / "own", pipeline / "encoder"
    build_shop(params_of(pipeline), encoder, 3, own, print)
    (own / "params.yaml").write_text((pipeline / "params.yaml").read_text("utf-8"), "utf-8")
    notes: list[str] = []
    examples.run(params_of(pipeline), own, notes.append)
    file = own / "data" / "examples" / "recommend.parquet"
    alone = {part: read_rows(file, part) for part in ("train", "valid", "test")}
    examples.run(params_of(pipeline, shops=[4, 5]), own, notes.append)
    more = {part: read_rows(file, part) for part in ("train", "valid", "test")}

    def told(groups: Mapping[int, list[Row]]) -> list[list[Row]]:
        return [[replace(row, group=0) for row in rows] for rows in groups.values()]

    assert told(more["valid"]) == told(alone["valid"])
    assert told(more["test"]) == told(alone["test"])
    by_shop = Counter(rows[0].user_id.rpartition(": ")[0] for rows in more["train"].values())
    assert by_shop == {"": 12, "shop 4": 12, "shop 5": 12}
    assert [rows for rows in told(more["train"]) if ": " not in rows[0].user_id] == told(alone["train"])
    first = [rows[0].user_id.rpartition(": ")[0] for _, rows in sorted(more["train"].items())][:18]
    assert set(first) == set(by_shop)  # any cut is a fair sample
    with snapshot.open_folder(own / "data" / "prepare" / "all") as store:
        mine = set(store.catalogue().item_ids)
    others = {row.item_id for rows in more["train"].values() for row in rows if ": " in row.user_id}
    assert others
    assert not others & mine
    assert all({row.kind for row in rows} >= {"next", "positive", "random"} for rows in more["train"].values())
    assert any(row.kind == "hard" for rows in more["train"].values() for row in rows)
    examples.run(params_of(pipeline, shops=[5, 4]), own, notes.append)
    assert read_rows(file, "train") == more["train"]
    facts = own / "data" / "prepare" / "all" / "meta.json"
    facts.write_text(facts.read_text("utf-8").replace('"simulated"', '"was_simulated"'), "utf-8")
    examples.run(params_of(pipeline, shops=[4, 5]), own, notes.append)
    assert told(read_rows(file, "train")) == told(alone["train"])
    assert any(note.startswith("examples.shops is left out") for note in notes)
