"""The leak detector: one purchase from after the cut is planted in each fitted part, and each is refused by its name;
the clean shop is measured.

Eight users search and buy on days 1, 4, 7, 10 and 13; the last two purchases are held out in both splits. The planted
one is u1's of day 10, the only one of PLANT, two hours before anybody else's of that day.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder

pytest.importorskip("torch", reason="needs recgraph[local]")
pytest.importorskip("transformers", reason="needs recgraph[local]")

from recgraph.errors import ModelMissing, SettingsError, StoreError
from recgraph.evaluation.baselines.counted import PopularitySystem, TransitionsSystem
from recgraph.evaluation.compare import evaluate as compare
from recgraph.settings import Settings
from recgraph.store import snapshot
from recgraph.store.db import Store
from recgraph.store.ingest.load import ingest
from recgraph.store.parquet import read_table
from recgraph.tools.llm.places import find_encoder
from recgraph.tools.llm.protocol import Usage
from recgraph.train import (
    evaluate,
    evidence,
    id_embeddings,
    leaks,
    memory,
    prepare,
    publish,
    ranking,
    summarize,
    textformer,
    title_embeddings,
)
from recgraph.train.examples.rows import write_rows
from recgraph.train.examples.stage import Writer
from recgraph.train.leaks import Cut
from recgraph.train.prepare import Case, read_cases
from recgraph.train.task import Cases, Events, Note, Reranker, Scores, System, Task, Within, read_task

pytestmark = pytest.mark.slow  # most fit a pipeline of their own, to plant a leak in it
CUT, PLANTED, AFTER = datetime(2025, 1, 10, 8), datetime(2025, 1, 10, 8, 5), datetime(2025, 1, 10, 9)
ITEMS = ["item_id,title,category", *(f"I{n},{colour} {kind},{kind}" for n, (colour, kind) in enumerate(
    (colour, kind) for colour in ("Red", "Blue", "Green", "White") for kind in ("shirt", "boots", "coat"))), "PLANT,Golden crown,crown"]  # fmt: skip
DAYS = (1, 4, 7, 10, 13)
PARAMS: dict[str, Any] = {
    "data": "shop.duckdb",
    "split": "time",
    "preset": "default",
    "prepare": {"start": "search", "valid_days": 2, "test_days": 2},
    "summarize": {"summarizer": "profile", "paradigms": ["recurrent", "hierarchical"], "block": 2, "merge": 2, "users": 0},
    "id_embeddings": {"dim": 8, "inner": 16, "epochs": 1, "threads": 1},
    "title_embeddings": {
        "encoder": "lstm", "ready": "", "dtype": "float32", "positives": "click", "cases": 0, "seed": 7, "threads": 1,
        "lstm": {"words": "random", "word_dim": 8, "dim": 8, "epochs": 1, "batch": 4, "nearest": 1},
    },
    "memory": {"threads": 1},
    "textformer": {"dim": 8, "epochs": 1},
    "ranking": {"networks": 1, "epochs": 1},
    "evaluate": {"cases": 0, "seed": 7, "ks": [1, 5, 10]},
    "publish": {"store": "recgraph.duckdb"},
}  # fmt: skip
SPLITS = pytest.mark.parametrize("split", ["time", "loo"])


def _shop() -> tuple[list[str], list[str]]:
    events, shown = ["user_id,ts,action,item_id,query"], ["query,item_id,position,ts"]
    for user in range(1, 9):
        for turn, day in enumerate(DAYS):
            planted = (user, day) == (1, 10)
            at, item = (
                f"2025-01-{day:02} {'08' if planted else '10'}",
                "PLANT" if planted else f"I{(user * 5 + turn * 7) % 12}",
            )
            query = "crown" if planted else ("shirt", "boots", "coat")[(user + turn) % 3]
            events += [
                f"u{user},{at}:00,search,,{query}",
                f"u{user},{at}:03,click,{item},{query}",
                f"u{user},{at}:05,purchase,{item},{query}",
            ]
            shown += [f"{query},{item},1,{at}:00", f"{query},I{user},2,{at}:00"]
    return events, shown


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the stages up to `textformer` have run on the shop."""
    try:
        find_encoder()
    except ModelMissing as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("clean")
    (folder / "tables").mkdir()
    for name, lines in zip(("items", "events", "exposures"), (ITEMS, *_shop()), strict=True):
        (folder / "tables" / f"{name}.csv").write_text("\n".join(lines) + "\n")
    ingest(folder / "shop.duckdb", "tables", [folder / "tables"])
    for stage in (prepare, summarize, id_embeddings, title_embeddings, memory, textformer):
        stage.run(PARAMS, folder, lambda _: None)
    return folder


@pytest.fixture
def folder(clean: Path, tmp_path: Path) -> Path:
    """A copy of it to plant in."""
    return Path(shutil.copytree(clean, tmp_path / "work"))


def plant(folder: Path, split: str = "time", *tables: str) -> None:
    """Puts u1's visit of day 10 into the train part, or only into some of its tables."""
    train, new = folder / "data" / "prepare" / split / "train", folder / "planted"
    cut = Cut.of(train.parent)
    with Store.open(folder / "shop.duckdb") as store:
        snapshot.write(
            store,
            new,
            before=AFTER if split == "time" else None,
            until={**cut.users, "u1": AFTER} if cut.users else None,
        )
    for table in tables or ("events", "exposures"):
        shutil.copy(new / f"{table}.parquet", train / f"{table}.parquet")


def run(stage: Any, folder: Path, split: str = "time") -> None:
    stage.run({**PARAMS, "split": split}, folder, lambda _: None)


def plain(folder: Path) -> Store:
    return Store.open(folder / "shop.duckdb")


# ── The pipeline ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_shop_without_a_leak_is_measured_and_published(folder: Path) -> None:
    write_examples(
        folder, [case for case in read_cases(folder / "data" / "prepare" / "time") if case.part == "train"][:4]
    )
    run(ranking, folder)
    run(evaluate, folder)
    told = json.loads((folder / "metrics" / "evaluate.json").read_text())
    assert {"popularity", "transitions", "core", "fused"} <= set(told["all"])
    run(publish, folder)
    assert (folder / "recgraph.duckdb").is_file()


@SPLITS
def test_the_cut_is_where_the_first_held_out_case_is_asked(folder: Path, split: str) -> None:
    cut = Cut.of(folder / "data" / "prepare" / split)
    with plain(folder) as store:
        assert Cut.of_task(read_task(store, "shop", split, valid_days=2, test_days=2)) == cut
    assert cut.moment == (datetime(2025, 1, 10) if split == "time" else None)
    assert cut.users.get("u1") == (CUT if split == "loo" else None)


@SPLITS
def test_a_ranking_that_learnt_from_a_test_case_is_refused(folder: Path, split: str) -> None:
    """It may learn from validation cases, and from nothing of the test cases on."""
    run(ranking, folder, split)
    at = folder / "data" / "prepare" / split
    leaks.check_folder(folder, at, [])
    evidence.keep(
        folder / "data" / "ranking", evidence.of_cases("The learnt ranking", "ranking", read_cases(at, "test"))
    )
    with pytest.raises(
        SettingsError, match=r"The learnt ranking knows what user u\d did with 'I\d+' at .*recgraph train ranking"
    ):
        leaks.check_folder(folder, at, [])


@SPLITS
def test_core_with_a_planted_purchase_is_refused(folder: Path, split: str) -> None:
    run(id_embeddings, folder, split)
    leaks.check_folder(folder, folder / "data" / "prepare" / split, ["id_embeddings"])
    plant(folder, split)
    run(id_embeddings, folder, split)
    with pytest.raises(
        SettingsError,
        match=r"^CORE knows what user u1 did with 'PLANT' at 2025-01-10 08:05:00.*recgraph train id_embeddings",
    ):
        run(evaluate, folder, split)


@SPLITS
def test_a_text_transformer_with_a_planted_purchase_is_refused(folder: Path, split: str) -> None:
    run(textformer, folder, split)
    leaks.check_folder(folder, folder / "data" / "prepare" / split, ["textformer"])
    plant(folder, split)
    run(textformer, folder, split)
    with pytest.raises(
        SettingsError,
        match=r"^The text transformer knows what user u1 did with 'PLANT' at 2025-01-10 08:05.*train textformer",
    ):
        run(evaluate, folder, split)


@SPLITS
def test_title_pairs_with_a_planted_purchase_are_refused(folder: Path, split: str) -> None:
    run(title_embeddings, folder, split)
    leaks.check_folder(folder, folder / "data" / "prepare" / split, ["title_embeddings"])
    plant(folder, split)
    run(title_embeddings, folder, split)
    with pytest.raises(
        SettingsError,
        match=r"^The title encoder with its pairs knows what user u1 did with 'PLANT'.*train title_embeddings",
    ):
        leaks.check_folder(folder, folder / "data" / "prepare" / split, ["title_embeddings"])
    run(memory, folder, split)
    with pytest.raises(SettingsError, match=r"^The memory's encoder knows what user u1 did with 'PLANT'.*train memory"):
        leaks.check_folder(folder, folder / "data" / "prepare" / split, ["memory"])


def fitted_while_evaluating(folder: Path, split: str) -> None:
    with snapshot.open_folder(folder / "data" / "prepare" / split / "train") as train:
        leaks.check_train(train, Cut.of(folder / "data" / "prepare" / split))


@SPLITS
def test_a_memory_of_what_a_held_out_search_showed_is_refused(folder: Path, split: str) -> None:
    fitted_while_evaluating(folder, split)
    plant(folder, split, "exposures")
    with pytest.raises(
        SettingsError, match=r"^The query memory knows what a search for 'crown' showed at 2025-01-10 08:00:00"
    ):
        fitted_while_evaluating(folder, split)


@SPLITS
def test_popularity_with_a_planted_purchase_is_refused(folder: Path, split: str) -> None:
    plant(folder, split, "events")
    with pytest.raises(
        SettingsError,
        match=r"^Popularity knows what user u1 did with 'PLANT' at 2025-01-10 08:05:00.*recgraph train prepare",
    ):
        fitted_while_evaluating(folder, split)


def test_the_stage_refuses_before_it_measures(folder: Path) -> None:
    plant(folder, "time", "events")
    with pytest.raises(SettingsError, match=r"^Popularity knows"):
        run(evaluate, folder)
    assert not (folder / "metrics" / "evaluate.json").exists()


def test_a_memory_of_a_shop_without_exposures_is_what_its_users_did(make_store: Callable[..., Store]) -> None:
    store = make_store(ITEMS, _shop()[0])
    with pytest.raises(SettingsError, match="The query memory knows what user u"):
        leaks.refuse(Cut("time", CUT), evidence.of_memory("The query memory", "evaluate", store))
    leaks.refuse(Cut("time", CUT), evidence.of_memory("The query memory", "evaluate", store, CUT))


def write_examples(folder: Path, cases: list[Case]) -> None:
    """data/examples as the stage writes it, without a model's tokens."""
    with plain(folder) as store:
        rows = [
            Writer(store, FakeEncoder(), None, Settings(), 2, 7).rows(case, number) for number, case in enumerate(cases)
        ]
    write_rows(folder / "data" / "examples" / "recommend.parquet", [row for one in rows for row in one])


def test_sft_examples_with_a_planted_purchase_are_refused(folder: Path) -> None:
    """The held-out purchase as something to learn from; as something to be measured by it may be there."""
    held = next(case for case in read_cases(folder / "data" / "prepare" / "time") if case.item_id == "PLANT")
    write_examples(folder, [held])
    leaks.check_folder(folder, folder / "data" / "prepare" / "time")
    write_examples(folder, [replace(held, part="train")])
    with pytest.raises(
        SettingsError, match=r"^SFT examples \(recommend\) knows what user u1 did with 'PLANT'.*recgraph train examples"
    ):
        run(publish, folder)
    assert not (folder / "recgraph.duckdb").exists()


def test_a_prompt_that_shows_what_comes_later_is_not_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = next(case for case in read_cases(folder / "data" / "prepare" / "time") if case.item_id == "PLANT")
    whole = Store.history
    monkeypatch.setattr(Store, "history", lambda self, user_id, before=None, limit=None: whole(self, user_id))
    with pytest.raises(SettingsError, match=r"history of example u1#12 holds event 10 of 2025-01-10 08:00:00"):
        write_examples(folder, [held])


@pytest.mark.parametrize("place", ["event_seqs", "sentences", "upto_seq"])
@pytest.mark.parametrize("paradigm", ["recurrent", "hierarchical"])
def test_summaries_with_a_planted_purchase_are_refused(folder: Path, place: str, paradigm: str) -> None:
    """It is found under what u1 had done before, the first three events; that summaries of later moments know the
    purchase is right."""
    file, split = folder / "data" / "summarize" / "summaries.parquet", folder / "data" / "prepare" / "time"
    summaries = snapshot.read_summaries(file)
    assert any(12 in summary.event_seqs for summary in summaries if summary.user_id == "u1")
    row = next(n for n, one in enumerate(summaries) if (one.user_id, one.paradigm, one.upto_seq) == ("u1", paradigm, 3))
    beyond: dict[str, Any] = {
        "event_seqs": (*summaries[row].event_seqs, 12),
        "sentences": (*summaries[row].sentences, ("Wears crowns.", (12,))),
    }
    changed = {"upto_seq": 12, "event_seqs": beyond["event_seqs"]} if place == "upto_seq" else {place: beyond[place]}
    with plain(folder) as store:
        summarize.check_summaries(store, summaries, read_cases(split, "valid"), block=2, merge=2)
    summaries[row] = replace(summaries[row], **changed)
    snapshot.write_summaries(file, summaries)
    which = (
        r"the one of u1#12, asked at 2025-01-10 08:00:00"
        if place == "upto_seq"
        else f"the {paradigm} one up to event 3"
    )
    with pytest.raises(
        SettingsError,
        match=rf"^The summaries know what comes later: {which}, rests on event 12 of user u1.*train summarize",
    ):
        run(publish, folder)


def test_a_part_without_evidence_is_refused_with_what_makes_it(folder: Path) -> None:
    (folder / "data" / "id_embeddings" / "evidence.parquet").unlink()
    with pytest.raises(StoreError, match=r"evidence.*recgraph train id_embeddings"):
        run(evaluate, folder)


# ── recgraph evaluate ─────────────────────────────────────────────────────────────────────────────────────────────────


def task_of(folder: Path, split: str) -> Task:
    with plain(folder) as store:
        return read_task(store, "shop", split, valid_days=2, test_days=2)


@SPLITS
def test_systems_fitted_on_a_planted_purchase_are_refused(clean: Path, split: str) -> None:
    task = task_of(clean, split)
    made = {"popularity": lambda _: PopularitySystem(), "transitions": lambda _: TransitionsSystem()}
    assert compare(task, made).cases == 8
    item, seconds = task.item_ids.index("PLANT"), (PLANTED - datetime(1970, 1, 1)).total_seconds()
    columns = ((task.train.user, 0), (task.train.item, item), (task.train.time, seconds), (task.train.action, 2))
    planted = Events(*(np.append(column, np.array(value, column.dtype)) for column, value in columns))  # type: ignore[arg-type]
    with pytest.raises(
        SettingsError, match=r"^popularity, transitions would know what user u1 did with 'PLANT' at 2025-01-10 08:05:00"
    ):
        compare(replace(task, train=planted), made)


def test_a_history_that_goes_on_to_the_target_is_refused(clean: Path) -> None:
    task = task_of(clean, "time")
    with pytest.raises(
        SettingsError,
        match=r"history of a test case of user u1 goes on to 2025-01-10 08:05:00; it is asked at 2025-01-09",
    ):
        leaks.check_task(replace(task, test=replace(task.test, time=task.test.time - 4 * 86_400)))
    with pytest.raises(SettingsError, match=r"validation case of shop is asked at .* after the first test case"):
        leaks.check_task(replace(task, valid=task.test, test=task.valid))


class Peeks(System):
    """Ranks the target first where it is told it, and remembers the test cases it was fitted with."""

    name = "peeks"

    def fit(self, task: Task, note: Note) -> None:
        self.n_items, self.tests = task.n_items, len(task.test)

    def scores(self, cases: Cases) -> Scores:
        return (np.arange(self.n_items)[None] == cases.target[:, None]).astype(np.float32)


def test_no_system_is_told_the_answers(clean: Path) -> None:
    task, system = task_of(clean, "time"), Peeks()
    (line,) = compare(task, {"peeks": lambda _: system}).lines
    assert system.tests == 0
    # A constant scorer, then: 10 of the 13 items less those the history holds.
    chance = np.mean([10 / (13 - len(set(rows))) for rows in task.test.history])
    assert line.metrics["recall@1"].mean == pytest.approx(chance / 10, abs=1e-6)


def test_what_a_system_brings_along_is_looked_at(folder: Path) -> None:
    plant(folder)
    run(id_embeddings, folder)
    task, system = task_of(folder, "time"), Peeks()
    system.seen = tuple(evidence.kept(folder / "data" / "id_embeddings", "id_embeddings"))
    with pytest.raises(SettingsError, match=r"^CORE knows what user u1 did with 'PLANT'"):
        compare(task, {"peeks": lambda _: system})


class Reranks(Peeks, Reranker):
    depth = 3

    def scores_among(self, cases: Cases, candidates: Any) -> Scores:
        self.used += Usage(prompt=len(cases))
        return (candidates == cases.target[:, None]).astype(np.float32)


def test_a_system_that_reranks_is_told_no_more(clean: Path) -> None:
    task = task_of(clean, "time")
    system: Any = leaks.fit(Reranks(), task, print)
    assert not system.scores_among(task.test, task.test.target[:, None]).any()
    assert (system.depth, system.used, system.name) == (3, Usage(prompt=8), "peeks")


class Narrows(Peeks, Within):
    def scores_within(self, cases: Cases, allowed: Any) -> Scores:
        assert allowed.shape == (len(cases), self.n_items)
        return self.scores(cases)


def test_a_system_that_is_told_where_to_look_is_told_no_more(clean: Path) -> None:
    task = task_of(clean, "time")
    system: Any = leaks.fit(Narrows(), task, print)
    assert not system.scores_within(task.test, np.ones((len(task.test), task.n_items), bool)).any()


@SPLITS
def test_a_part_that_only_says_until_when_it_knows_is_taken_at_its_word(clean: Path, split: str) -> None:
    cut = Cut.of(clean / "data" / "prepare" / split)
    first = {"time": "2025-01-10T00:00:00", "loo": "2025-01-10T08:00:00"}[split]
    leaks.refuse(cut, evidence.of_told("Adapter next", "sft", first))
    for later in ("2025-01-10T08:00:01", None):
        with pytest.raises(
            SettingsError,
            match=rf"^Adapter next knows what everybody did at .*; the cut .* is {first.replace('T', ' ')}",
        ):
            leaks.refuse(cut, evidence.of_told("Adapter next", "sft", later))


@SPLITS
def test_what_learns_from_validation_cases_holds_to_the_cut_of_the_test_cases(clean: Path, split: str) -> None:
    folder = clean / "data" / "prepare" / split
    valid, test = (
        evidence.of_cases("The learnt ranking", "ranking", read_cases(folder, part)) for part in ("valid", "test")
    )
    leaks.refuse(Cut.of(folder, "test"), valid)
    for cut, seen in ((Cut.of(folder), valid), (Cut.of(folder, "test"), test)):
        with pytest.raises(SettingsError, match=r"^The learnt ranking knows what user u\d did"):
            leaks.refuse(cut, seen)


# ── Evidence ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_evidence_comes_back_as_it_was_kept(make_store: Callable[..., Store], tmp_path: Path) -> None:
    store = make_store(ITEMS, _shop()[0])
    seen = evidence.of_sequences("CORE", "id_embeddings", store.sequences(), store.catalogue().item_ids)
    assert (list(seen.user_id), seen.what[0], seen.ts[0].item()) == (
        [f"u{n}" for n in range(1, 9)],
        "I9",
        datetime(2025, 1, 13, 10, 5),
    )
    assert list(evidence.of_store("all", "", store).ts) == list(seen.ts)
    evidence.keep(tmp_path, seen, replace(seen, piece="other"))
    first, second = evidence.kept(tmp_path, "id_embeddings")
    assert (first.piece, second.piece, list(first.what), first.ts.tolist()) == (
        "CORE",
        "other",
        list(seen.what),
        seen.ts.tolist(),
    )
    evidence.keep(tmp_path)
    assert evidence.kept(tmp_path, "id_embeddings") == []  # a part that is not fitted has seen nothing
    assert set(read_table(tmp_path / "evidence.parquet")) == {"piece", "stage", "user_id", "ts", "what"}
