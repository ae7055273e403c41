"""Erasure, proven by the bytes: after `forget` no file beside the store holds the shopper's id or their rare words."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import duckdb
import numpy as np
import pytest
from click.testing import CliRunner
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder

from recgraph.cli import main
from recgraph.graph.recommender import Recommender
from recgraph.settings import load_settings
from recgraph.store.care import checkpoints, pending, runlog
from recgraph.store.care.rewrite import rewritten
from recgraph.store.db import Store
from recgraph.store.forget import ERASING, forget_item, forget_user, text_key
from recgraph.store.ingest.load import ingest
from recgraph.store.records import Summary
from recgraph.store.runs import RunLog

MakeStore = Callable[..., Store]
USER, WORDS = "shopperZebra77", ("quokkahide", "xylographed")
EVENTS = (
    SHOP_EVENTS.rstrip()
    + f"""
{USER},2025-02-09 10:00:00,search,,{WORDS[0]} boots,
{USER},2025-02-09 10:01:00,click,B1BRWN,{WORDS[0]} boots,1
{USER},2025-02-09 10:02:00,search,,linen shirt,
{USER},2025-02-09 10:03:00,purchase,S2OLIV,linen shirt,3
{USER},never,click,S2OLIV,{WORDS[1]},3
"""
)
EXPOSURES = SHOP_EXPOSURES.rstrip() + f"\n{WORDS[0]} boots,B2BLCK,1,2025-02-09\n"


def places_of(folder: Path, *texts: str) -> list[str]:
    """The files below a folder in which one of the texts stands, in any case."""
    marks = [text.lower().encode() for text in texts]
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return [str(file.relative_to(folder)) for file in files if any(mark in file.read_bytes().lower() for mark in marks)]


def ask(path: Path, user: str, query: str) -> None:
    settings = load_settings({}, "/nonexistent", store=str(path), llm="none")
    checkpoint = str(path.with_name("runs.sqlite"))
    with Recommender(Store.open(path), settings, FakeEncoder(), None, checkpoint=checkpoint) as recommender:
        recommender.recommend(user, query)


@pytest.mark.slow
def test_no_byte_of_a_forgotten_shopper_is_left_in_any_file(tmp_path: Path) -> None:
    tables, folder = tmp_path / "tables", tmp_path / "shop"
    tables.mkdir()
    folder.mkdir()
    for name, text in (("items", SHOP_ITEMS), ("events", EVENTS), ("exposures", EXPOSURES)):
        (tables / f"{name}.csv").write_text(text)
    path = folder / "shop.duckdb"
    ingest(path, "tables", [tables])
    ask(path, USER, f"{WORDS[0]} boots")
    ask(path, "U2", f"{WORDS[0]} boots")  # another's run remembers what the shopper searched
    ask(path, "U1", "linen shirt")
    with Store.open(path) as store:
        store.save_vectors("query", "m", [text_key(f"{WORDS[0]} boots"), text_key("linen shirt")], np.ones((2, 3)))
        store.path.with_name("shop.duckdb.index").mkdir()
        (folder / "shop.duckdb.index" / "facets").write_text(WORDS[0])
        pending.keep(path, [Summary("h", USER, "recurrent", 0, 0, 1, (("Likes hides.", (1,)),), (1,), "profile", "1")])
    assert {"shop.duckdb", "shop.runs.duckdb", "runs.sqlite"} <= set(places_of(folder, USER))
    done = CliRunner().invoke(main, ["forget", "--user", USER, "--yes", "--store", str(path)])
    assert done.exit_code == 0, done.output
    assert places_of(folder, USER, *WORDS) == []
    assert sorted(file.name for file in folder.iterdir()) == ["runs.sqlite", "shop.duckdb", "shop.runs.duckdb"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    with Store.open(path) as store:
        assert store.meta(ERASING) is None
        assert [event.item_id for event in store.history("U1") if event.item_id][:2] == ["S1OLIV", "S1NAVY"]
        assert store.memory_queries() == ["blazer", "linen shirt", "wool jumper"]
        assert list(store.vectors("query", "m", [text_key("linen shirt"), text_key(f"{WORDS[0]} boots")])) == [
            text_key("linen shirt")
        ]
        assert store._all("SELECT rowid, user_id FROM events ORDER BY rowid") == sorted(
            store._all("SELECT rowid, user_id FROM events"), key=lambda row: (row[1], row[0])
        )
    assert [run["user_id"] for run in RunLog(path).recent()] == ["U1"]
    ask(path, "U1", "linen shirt")
    again = CliRunner().invoke(main, ["forget", "--user", USER, "--yes", "--store", str(path)])
    assert again.exit_code == 1


def test_what_may_still_hold_a_shopper_is_named(make_store: MakeStore) -> None:
    store = make_store(SHOP_ITEMS, EVENTS)
    store.set_meta("adapter", "warm")
    store.close()
    folder = store.path.parent
    runner = CliRunner()
    assert runner.invoke(main, ["export", str(folder / "snap"), "--store", str(store.path)]).exit_code == 0
    (folder / "shop.duckdb.damaged").write_text("")
    told = runner.invoke(main, ["forget", "--user", USER, "--yes", "--store", str(store.path)]).output
    for part in (str(folder / "snap"), "shop.duckdb.damaged", "adapters warm", "recgraph export FOLDER"):
        assert part in told


def test_an_erasure_that_was_cut_off_before_the_file_was_written_anew_is_ended_by_the_next(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(SHOP_ITEMS, EVENTS)
    monkeypatch.setattr("recgraph.store.forget.rewritten", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        forget_user(store, USER)
    assert store.meta(ERASING)
    monkeypatch.setattr("recgraph.store.forget.rewritten", rewritten)
    assert not any(forget_user(store, USER).values())
    assert store.meta(ERASING) is None
    assert places_of(store.path.parent, USER) == ["shop-tables/events.csv"]


@pytest.mark.slow
def test_old_runs_are_pruned_from_the_run_log_and_from_checkpoints(make_store: MakeStore) -> None:
    path = make_store(SHOP_ITEMS, SHOP_EVENTS).path
    ask(path, "U1", "linen shirt")
    log = RunLog(path)
    with duckdb.connect(str(log.place)) as con:
        con.execute("UPDATE runs SET written = written - INTERVAL 31 DAY, user_id = 'oldtimer'")
    log.append({"run_id": "new", "user_id": "U2"})
    assert runlog.prune(path, timedelta(days=30)) == 1
    assert [run["run_id"] for run in log.recent()] == ["new"]
    assert places_of(path.parent, "oldtimer") == []
    [file] = checkpoints.files_beside(path)
    assert checkpoints.prune(file, timedelta(days=30)) == 0
    assert checkpoints.prune(file, timedelta(0)) == 1
    runner = CliRunner()
    assert "Deleted 0 runs" in runner.invoke(main, ["prune", "--runs-older-than", "30d", "--store", str(path)]).output
    wrong = runner.invoke(main, ["prune", "--runs-older-than", "soon", "--store", str(path)])
    assert wrong.exit_code == 2
    assert "e.g. 30d" in wrong.output


def test_what_is_made_beside_a_store_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "shop.duckdb"
    with Store.create(path) as store:
        store.set_meta("a", "b")
        pending.keep(path, [])
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        assert len(files) == 3  # the log too
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    path.chmod(0o640)
    with Store.open(path) as store:
        store.set_meta("a", "c")
        rewritten(store._database, path)
        assert store.meta("a") == "c"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640  # as it was set
    RunLog(path).append(json.loads('{"run_id": "1", "user_id": "u"}'))
    assert stat.S_IMODE((tmp_path / "shop.runs.duckdb").stat().st_mode) == 0o600


@pytest.mark.slow
@pytest.mark.parametrize("cut_off_in", ["runlog.forget", "checkpoints.forget", "_forget_in_store", "erase"])
def test_forgetting_that_was_cut_off_is_ended_by_the_next_call(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, cut_off_in: str
) -> None:
    """Once the events were gone nobody knew which words had been theirs alone, and another's run kept them."""
    store = make_store(SHOP_ITEMS, EVENTS, EXPOSURES)
    store.close()
    for user in (USER, "U2"):
        ask(store.path, user, f"{WORDS[0]} boots")
    with monkeypatch.context() as patch, Store.open(store.path) as opened:

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(f"recgraph.store.forget.{cut_off_in}", killed)
        with pytest.raises(KeyboardInterrupt):
            forget_user(opened, USER)
    with Store.open(store.path) as opened:
        forget_user(opened, USER)
    beside = [name for name in places_of(store.path.parent, USER, *WORDS) if not name.startswith("shop-tables")]
    assert beside == []


def test_a_product_that_is_off_the_catalogue_already_is_nothing_to_forget(make_store: MakeStore) -> None:
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    assert forget_item(store, "S1OLIV")["items"] == 1
    revision = store.revision()
    assert not any(forget_item(store, "S1OLIV").values())
    assert store.revision() == revision
