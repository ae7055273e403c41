"""Prompts and answers to learn from: what a case may know, what is never a negative, and that training reads the texts
a run sends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from fakes import FakeEncoder, FakeLLM

from recgraph.errors import StoreError
from recgraph.graph.prompts import answer_text, fit_prompts, system_text
from recgraph.graph.recommender import Recommender
from recgraph.settings import Settings, load_settings
from recgraph.store.db import Store
from recgraph.tools.llm.protocol import Prompt
from recgraph.tools.memory import QueryMemory
from recgraph.train.examples.negatives import POOLS
from recgraph.train.examples.rows import Row, read_rows, write_rows
from recgraph.train.examples.stage import Writer, choose
from recgraph.train.prepare import PARTS, Case

# ── Which cases are taken ─────────────────────────────────────────────────────────────────────────────────────────────


def cases(users: int = 120, each: int = 3) -> list[Case]:
    """Every user has `each` cases of every part."""
    day = datetime(2025, 3, 1)
    made = [
        (part, f"U{user}", PARTS.index(part) * each + n) for part in PARTS for user in range(users) for n in range(each)
    ]
    return [Case(part, user, day, "", "I1", day, seq, False) for part, user, seq in made]


def names(chosen: list[Case], part: str) -> list[tuple[str, int]]:
    return [(case.user_id, case.seq) for case in chosen if case.part == part]


def test_held_out_users_are_in_valid_and_test_only() -> None:
    chosen = choose(cases(), {}, 0.2, 7)
    users = {part: {case.user_id for case in chosen if case.part == part} for part in PARTS}
    assert not users["train"] & (users["valid"] | users["test"])
    assert users["valid"] == users["test"]
    assert users["train"] | users["test"] == {f"U{n}" for n in range(120)}
    assert 0.1 < len(users["test"]) / 120 < 0.3
    # without limits nothing is lost
    assert Counter(user for user, _ in names(chosen, "train")) == dict.fromkeys(users["train"], 3)


@pytest.mark.parametrize(("held_out", "parts"), [(0.0, {"train"}), (1.0, {"valid", "test"})])
def test_nobody_or_everybody_is_held_out(held_out: float, parts: set[str]) -> None:
    assert {case.part for case in choose(cases(), {}, held_out, 7)} == parts


def test_the_same_seed_takes_the_same_cases_in_whatever_order_they_come() -> None:
    limits = {"train": 50, "valid": 10, "test": 20}
    assert choose(cases(), limits, 0.2, 7) == choose(reversed(cases()), limits, 0.2, 7)
    assert choose(cases(), limits, 0.2, 7) != choose(cases(), limits, 0.2, 8)


def test_a_limit_cuts_and_changes_nothing_else() -> None:
    whole = choose(cases(), {"train": 0, "valid": 0, "test": 0}, 0.2, 7)
    limits = {"train": 50, "valid": 1, "test": 10_000}
    cut = choose(cases(), limits, 0.2, 7)
    for part in PARTS:
        assert names(cut, part) == names(whole, part)[: limits[part]]
    assert [case.part for case in cut] == sorted((case.part for case in cut), key=PARTS.index)


def test_a_user_stays_in_its_part_as_others_are_added() -> None:
    few, many = choose(cases(60), {}, 0.2, 7), choose(cases(120), {}, 0.2, 7)
    old = {f"U{n}" for n in range(60)}
    assert few == [case for case in many if case.user_id in old]


# ── What a case becomes ───────────────────────────────────────────────────────────────────────────────────────────────

SHIRTS, BOOTS = range(10), range(10, 20)
ITEMS = [
    "item_id,title,category,brand,color,size,price,parent_id,first_seen,in_stock",
    *(f"{item_id},Harrow Placket Tunic {color},shirts,Harrow,{color},M,48,STYLE,2025-01-01,true"
      for item_id, color in (("TARGET", "Teal"), ("TWIN", "Plum"), ("THIRD", "Ochre"))),
    *(f"N{n:02},Plain Garment {n:02},{'shirts' if n in SHIRTS else 'boots'},Fenn,Olive,M,{40 + n},,2025-01-01,true" for n in (*SHIRTS, *BOOTS)),
    "LATER,Plain Garment of Autumn,shirts,Fenn,Olive,M,50,,2025-09-01,true",
]  # fmt: skip
ASKED = datetime(2025, 3, 12, 10)  # a Wednesday
EVENTS = """user_id,ts,action,item_id,query,position
U1,2025-03-01 10:00:00,click,N00,,
U1,2025-03-02 10:00:00,click,N01,,
U1,2025-03-02 10:05:00,purchase,N02,,
U1,2025-03-03 10:00:00,search,,olive boots,
U1,2025-03-04 10:00:00,click,N11,,
U1,2025-03-12 10:00:00,search,,linen shirt,
U1,2025-03-12 10:00:00,click,N13,,
U1,2025-03-12 10:01:00,click,TARGET,linen shirt,1
U1,2025-03-12 10:02:00,search,,late secret words,
U1,2025-03-12 10:03:00,click,N14,late secret words,1
U1,2025-03-12 10:05:00,purchase,TARGET,linen shirt,1
U2,2025-03-01 10:00:00,click,N05,,
"""
EXPOSURES = [
    "query,item_id,position,ts",
    *(f"linen shirt,{item_id},{place},2025-02-20 09:00:00" for place, item_id in enumerate(("N03", "N04", "N08"), 1)),
    *(
        f"linen shirt,{item_id},{place},2025-03-12 10:00:00"
        for place, item_id in enumerate(("TARGET", "TWIN", "N06", "N07", "N15"), 1)
    ),
    "linen shirt,N09,1,2025-03-12 10:30:00",
    *(f"late secret words,{item_id},{place},2025-03-12 10:02:00" for place, item_id in enumerate(("N14", "N16"), 1)),
]
SAME_WEEK = "linen shirt,TARGET,1,2025-03-11 09:00:00"  # two days after that week began, a day before the search
BOUGHT = Case("train", "U1", ASKED, "linen shirt", "TARGET", ASKED + timedelta(minutes=5), 11, False)
EARLIER = Case("train", "U1", datetime(2025, 3, 2, 10, 5), "", "N02", datetime(2025, 3, 2, 10, 5), 3, False)
MakeStore = Callable[..., Store]


def writer(store: Store, pool: int = 6, seed: int = 7) -> Writer:
    return Writer(store, FakeEncoder(), None, Settings(), pool, seed)


def head(row: Row) -> str:
    return row.user.rpartition("\n")[0]


def sections(user: str) -> dict[str, list[str]]:
    """Heading → its lines."""
    found = {}
    for part in user.split("\n\n"):
        heading, *lines = part.split("\n")
        found[heading] = lines
    return found


@pytest.fixture
def shop(make_store: MakeStore) -> Store:
    return make_store(ITEMS, EVENTS, [*EXPOSURES, SAME_WEEK])


@pytest.mark.slow
def test_the_prompt_knows_what_was_done_strictly_before_the_search_and_nothing_else(shop: Store) -> None:
    following, *fit = writer(shop).rows(BOUGHT, 0)
    shown = sections(following.user)
    order = (
        "Preference Summary, Current Search, Recent Items, Facts, Earlier Events, Top Results of Similar Searches, Task"
    )
    assert list(shown) == [f"[{heading}]" for heading in order.split(", ")]
    assert [line.split()[1:3] for line in shown["[Recent Items]"]] == [
        ["click", "N01"],
        ["purchase", "N02"],
        ["click", "N11"],
    ]
    assert [line.split()[1] for line in shown["[Earlier Events]"]] == ["click", "search"]
    for text in (following.user, *map(head, fit)):
        # bought and clicked afterwards, clicked in the very second of the search, and what a later search said and
        # showed
        for secret in (
            "TARGET",
            "Placket",
            "Teal",
            "N13",
            "Garment 13",
            "secret",
            "N14",
            "Garment 14",
            "N16",
            "Garment 16",
        ):
            assert secret not in text


def test_a_target_without_a_search_knows_nothing_of_its_own_moment(shop: Store) -> None:
    following, *fit = writer(shop).rows(EARLIER, 3)
    assert list(sections(following.user)) == ["[Preference Summary]", "[Recent Items]", "[Facts]", "[Task]"]
    assert "N02" not in following.user
    assert "olive boots" not in following.user
    assert "shown" not in {row.kind for row in fit}
    assert {row.group for row in (following, *fit)} == {3}


def test_the_query_memory_knows_earlier_weeks_only(shop: Store) -> None:
    [hit] = QueryMemory(shop, FakeEncoder(), ASKED).lookup("linen shirt", 1, 2)
    assert "TARGET" in hit.item_ids  # as of the search itself it would have told
    following, *_ = writer(shop).rows(BOUGHT, 0)
    lines = sections(following.user)["[Top Results of Similar Searches]"]
    assert [line.split()[1] for line in lines] == ["N03", "N04"]


def test_a_week_begins_on_monday_and_is_then_in_the_past(shop: Store) -> None:
    for moment, first in ((datetime(2025, 3, 16, 23, 59, 59), "N03"), (datetime(2025, 3, 17), "TARGET")):
        following, *_ = writer(shop).rows(replace(BOUGHT, as_of=moment, user_id="U2"), 0)
        assert sections(following.user)["[Top Results of Similar Searches]"][0].split()[1] == first


@pytest.mark.parametrize("seed", range(8))
def test_negatives_are_other_styles_each_once_and_of_their_kind(shop: Store, seed: int) -> None:
    _, *fit = writer(shop, seed=seed).rows(BOUGHT, 0)
    target, *wrong = fit
    assert (target.item_id, target.kind, target.answer) == ("TARGET", "positive", "Yes")
    assert {row.answer for row in wrong} == {"No"}
    assert {row.kind for row in wrong} == set(POOLS) - {"hard"}  # those need a ranking
    chosen = [row.item_id for row in wrong]
    assert len(chosen) == len(set(chosen))
    assert not {"TARGET", "TWIN", "THIRD"} & set(chosen)
    by_kind = {kind: {row.item_id for row in wrong if row.kind == kind} for kind in POOLS}
    # the page of this search, not of that half an hour later or of the week before
    assert by_kind["shown"] == {"N06", "N07", "N15"}
    assert by_kind["alike"] <= {f"N{n:02}" for n in SHIRTS}  # never what was not yet sold
    assert len(by_kind["alike"]) == 6


def test_a_pool_holds_so_many_of_each_kind(shop: Store) -> None:
    _, *fit = writer(shop, pool=2).rows(BOUGHT, 0)
    assert Counter(row.kind for row in fit) == {"positive": 1, "shown": 2, "alike": 2, "random": 2}


def test_a_case_gives_the_same_rows_whatever_was_rendered_before(shop: Store) -> None:
    alone, again, other = writer(shop), writer(shop), writer(shop, seed=8)
    again.rows(EARLIER, 0)
    again.rows(BOUGHT, 1)
    assert alone.rows(BOUGHT, 2) == again.rows(BOUGHT, 2)
    assert alone.rows(BOUGHT, 2)[2:] != other.rows(BOUGHT, 2)[2:]


def test_answers_and_shared_beginnings(shop: Store) -> None:
    following, *fit = writer(shop).rows(BOUGHT, 0)
    items = shop.items([row.item_id for row in fit])
    assert following.answer == answer_text(items["TARGET"]) == "ID: TARGET\nTitle: Harrow Placket Tunic Teal"
    assert (following.kind, following.part, following.user_id, following.seq) == ("next", "train", "U1", 11)
    assert {row.system for row in (following, *fit)} == {system_text("fashion")}
    assert len({head(row) for row in fit}) == 1
    assert [row.user.rpartition("\n")[2] for row in fit] == [items[row.item_id].title for row in fit]
    assert head(fit[0]).endswith("\n\n[Task]\nFIT\n\n[Next Item]")
    context = head(fit[0]).removesuffix("\n\n[Task]\nFIT\n\n[Next Item]")
    assert following.user == f"{context}\n\n[Task]\nNEXT"  # so that one reading serves both
    assert fit_prompts(context, [items["TARGET"]], wording="fashion") == [Prompt(fit[0].system, fit[0].user)]


@pytest.mark.slow
@pytest.mark.parametrize("case", [BOUGHT, EARLIER])
def test_training_reads_the_prompts_that_a_run_sends(make_store: MakeStore, case: Case) -> None:
    store = make_store(ITEMS, EVENTS, EXPOSURES)  # nothing shown in the week of the search: there a run knows more
    following, *fit = writer(store).rows(case, 0)
    store.close()
    llm = FakeLLM("ID: N03\nTitle: Plain Garment 03")
    # where the model ranks alone, it is asked about all candidates
    settings = load_settings({}, "/nonexistent", store=str(store.path), candidates=50, rerank_weight=1.0)
    with Recommender(Store.open(store.path), settings, FakeEncoder(), llm) as recommender:  # type: ignore[arg-type]
        recommender.recommend(case.user_id, case.query, as_of=case.as_of)
    assert llm.asked == [Prompt(following.system, following.user)]
    judged = {Prompt(row.system, row.user) for row in fit}
    assert len(judged & set(llm.scored)) > 10
    assert {prompt.user.rpartition("\n")[0] for prompt in llm.scored} == {head(row) for row in fit}
    assert Prompt(fit[0].system, fit[0].user) in llm.scored


# ── Files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

ODD = ("", "two\nlines and \ttab", "quotes \" ' and , ; \\", "naïve 日本語 🧦 \u200b", "{x|y} %s $1")


def rows() -> list[Row]:
    groups = ((4, "train"), (1, "test"), (2, "train"))
    made = [
        Row(part, f"U{group}", group + 1, group, f"I{n}", text, text * 2, "Yes\n", "next")
        for group, part in groups
        for n, text in enumerate(ODD)
    ]
    return [*made, replace(made[0], answer="last")]  # a row of group 4 after those of group 2


def test_rows_come_back_as_they_were_by_part_and_group(tmp_path: Path) -> None:
    file = tmp_path / "recommend.parquet"
    write_rows(file, rows())
    for part, groups in (("train", [4, 2]), ("test", [1]), ("valid", [])):
        found = read_rows(file, part)
        assert list(found) == groups
        assert found == {group: [row for row in rows() if row.group == group] for group in groups}
    assert all(type(row.seq) is type(row.group) is int for row in read_rows(file, "train")[4])


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_rows(tmp_path / name, rows())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_rows_are_a_file_too(tmp_path: Path) -> None:
    write_rows(tmp_path / "recommend.parquet", [])
    assert read_rows(tmp_path / "recommend.parquet", "train") == {}


def test_a_missing_file_names_the_stage_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="recgraph train examples"):
        read_rows(tmp_path / "recommend.parquet", "train")
