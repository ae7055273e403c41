"""The text transformer: it learns which text follows, ranks items nobody had, and reads the query where there is
one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs recgraph[local]")

from fakes import FakeEncoder  # noqa: E402

from recgraph.errors import SettingsError, StoreError  # noqa: E402
from recgraph.evaluation.baselines.counted import sequences_of  # noqa: E402
from recgraph.store.db import Store  # noqa: E402
from recgraph.tools.sources.base import Past, Request  # noqa: E402
from recgraph.tools.sources.registry import make, possible  # noqa: E402
from recgraph.tools.sources.said import whole  # noqa: E402
from recgraph.tools.sources.textformer import TextFormer as Served  # noqa: E402
from recgraph.train import evidence, leaks, prepare, textformer  # noqa: E402
from recgraph.train.networks.text import TextFormerSystem, TextSettings  # noqa: E402
from recgraph.train.prepare import read_facts  # noqa: E402
from recgraph.train.task import Cases, Events, Task, read_task  # noqa: E402

WORDS = ("red", "blue", "green", "grey", "pink", "gold", "white", "black")
SETTINGS = TextSettings(
    dim=32,
    layers=1,
    heads=1,
    dropout=0.0,
    attention_dropout=0.0,
    negatives=0,
    batch=64,
    epochs=12,
    patience=12,
    learning_rate=5e-3,
)


def cases_of(histories: list[list[int]], targets: list[int], query: tuple[str, ...] = ()) -> Cases:
    rows = tuple(np.array(one, np.int64) for one in histories)
    n = len(rows)
    actions, times = (
        tuple(np.full(len(one), 2, np.int8) for one in rows),
        tuple(np.arange(len(one), dtype=np.float64) for one in rows),
    )
    return Cases(
        rows, actions, times, np.array(targets), np.arange(n), query or ("",) * n, np.full(n, 1e9), np.arange(n)
    )


def task_of(train: list[list[int]], valid: Cases, texts: tuple[str, ...]) -> Task:
    n = len(texts)
    user = np.repeat(np.arange(len(train)), [len(one) for one in train])
    item = np.array([row for one in train for row in one], np.int64)
    events = Events(user, item, np.arange(len(item), dtype=np.float64), np.full(len(item), 2, np.int8))
    return Task(
        "shop",
        "loo",
        tuple(f"i{row}" for row in range(n)),
        texts,
        np.full(n, -1),
        np.full(n, -np.inf),
        events,
        valid,
        valid,
        None,
    )


def pairs() -> Task:
    """Boots of a colour are followed by a scarf of it. Items 0-7 are boots, 8-15 scarves; the black ones (7, 15) nobody
    had."""
    texts = tuple(f"{word} boots" for word in WORDS) + tuple(f"{word} scarf" for word in WORDS)
    train = [[colour, colour + 8] for colour in range(7)] * 12
    return task_of(train, cases_of([[colour] for colour in range(7)], [colour + 8 for colour in range(7)]), texts)


def test_it_learns_which_text_follows_and_ranks_what_nobody_had() -> None:
    task = pairs()
    system = TextFormerSystem(SETTINGS, encoder=FakeEncoder())
    system.fit(task, lambda _: None)
    found = system.scores(cases_of([[colour] for colour in range(8)], [0] * 8))
    assert np.isfinite(found).all()
    assert found[:7, 8:15].argmax(axis=1).tolist() == list(range(7))
    assert found[7].argmax() == 15  # black boots, and a black scarf, of which train says nothing
    again = TextFormerSystem(SETTINGS, encoder=FakeEncoder())
    again.fit(task, lambda _: None)
    assert np.array_equal(again.scores(task.valid), system.scores(task.valid))


def test_an_item_is_its_text_and_has_no_vector_of_its_own() -> None:
    task = pairs()
    twins = replace(task, texts=(*task.texts[:15], task.texts[8]))  # the last scarf is named like the first
    system = TextFormerSystem(replace(SETTINGS, epochs=2), encoder=FakeEncoder())
    system.fit(twins, lambda _: None)
    found = system.scores(cases_of([[0], [3]], [8, 8]))
    assert found[:, 8] == pytest.approx(found[:, 15], abs=1e-6)


def searching(make_store: Callable[..., Store], users: int = 40) -> Path:
    """Everybody takes something white, then searches for a colour, and buys the scarf of it."""
    items = [
        "item_id,title",
        *(f"{kind[0].upper()}{n},{word} {kind}" for kind in ("boots", "scarf") for n, word in enumerate(WORDS)),
    ]
    lines = ["user_id,ts,action,item_id,query"]
    for user in range(users):
        colour, month = user % 6, 1 if user < users - 8 else 6
        day = f"2025-{month:02d}-{user % 25 + 1:02d}"
        lines += [f"u{user},{day}T09:00:00,purchase,B6,", f"u{user},{day}T10:00:00,search,,{WORDS[colour]}"]
        lines += [f"u{user},{day}T11:00:00,purchase,S{colour},{WORDS[colour]}"]
    lines.append("zoe,2025-06-28T09:00:00,purchase,B6,")
    store = make_store(items, lines)
    path = store.path
    store.close()
    return path


@pytest.mark.slow
def test_the_query_is_read_where_there_is_one(make_store: Callable[..., Store]) -> None:
    path = searching(make_store)
    with Store.open(path) as store:
        task = read_task(store, "shop", "time")
    told: list[str] = []
    system = TextFormerSystem(SETTINGS, path, queries=True, encoder=FakeEncoder())
    system.fit(task, told.append)
    assert told[0].startswith("textformer-query: 32 searches among 64 events")
    row = {item_id: number for number, item_id in enumerate(task.item_ids)}
    asked = cases_of([[row["B6"]]] * 3, [row["S0"]] * 3, ("red", "blue", "black"))  # nobody has searched for black
    found = system.scores(asked)
    best = [task.item_ids[one] for one in found.argmax(axis=1)]
    assert best[:2] == ["S0", "S1"]
    assert found.shape == (3, task.n_items)
    without = TextFormerSystem(SETTINGS, path, encoder=FakeEncoder())
    without.fit(task, lambda _: None)
    blind = without.scores(asked)
    assert np.array_equal(blind[0], blind[1])  # it cannot tell the three apart
    nothing = system.scores(replace(asked, query=("", "", "")))
    assert np.array_equal(nothing[0], nothing[1])
    alone = system.scores(cases_of([[]], [0], ("red",)))
    assert np.isfinite(alone).all()


@pytest.mark.parametrize("split", ["time", "loo"])
def test_searches_past_the_cut_are_not_read(make_store: Callable[..., Store], split: str) -> None:
    """Each user searches before each of four purchases, and once more after the last one; the last two purchases are
    held out."""
    items = ["item_id,title", *(f"S{n},{word} scarf" for n, word in enumerate(WORDS))]
    lines = ["user_id,ts,action,item_id,query"]
    for user in range(6):
        for turn, day in enumerate((1, 10, 40, 70)):
            at = f"2025-{1 + day // 30:02d}-{1 + day % 30:02d}"
            lines += [
                f"u{user},{at}T10:00:00,search,,{WORDS[turn]} {turn}",
                f"u{user},{at}T11:00:00,purchase,S{(user + turn) % 8},{WORDS[turn]} {turn}",
            ]
        lines.append(f"u{user},2025-03-25T10:00:00,search,,late")
    store = make_store(items, lines)
    task = read_task(store, "shop", split)
    system = TextFormerSystem(replace(SETTINGS, epochs=1), store, queries=True, encoder=FakeEncoder())
    system.fit(task, lambda _: None)
    held = {query for cases in (task.valid, task.test) for query in cases.query}
    assert held == {f"{WORDS[turn]} {turn}" for turn in (2, 3)}
    assert set(system._asked) == {f"{WORDS[turn]} {turn}" for turn in (0, 1)}
    assert len(system._events) == 2 * len(task.train)
    leaks.refuse(leaks.Cut.of_task(task), *system.seen)
    later = replace(system.seen[0], ts=system.seen[0].ts + np.timedelta64(60, "D"))
    with pytest.raises(SettingsError, match="What textformer-query learnt of searches knows what user u"):
        leaks.refuse(leaks.Cut.of_task(task), later)


def test_what_serves_in_numpy_is_what_was_trained(make_store: Callable[..., Store], tmp_path: Path) -> None:
    """With queries and without, longer than is read, with repeats; out of memory, a folder and a store."""
    path = searching(make_store)
    with Store.open(path) as store:
        task = read_task(store, "shop", "time")
    system = TextFormerSystem(
        replace(SETTINGS, epochs=2, heads=2, layers=2, max_length=6), path, queries=True, encoder=FakeEncoder()
    )
    system.fit(task, lambda _: None)
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, task.n_items, size).tolist() for size in (1, 2, 5, 6, 9)] + [[3, 3, 3, 1], [2]]
    queries = ("red", "", "unheard blue", "", "gold", "white", "")
    # each clicked, then bought: more than is read
    histories.append(np.repeat(rng.integers(0, task.n_items, 60), 2).tolist())
    queries = (*queries, "")
    asked = cases_of(histories, [0] * 8, queries)
    former = system.served(encoder=FakeEncoder.name, fitted_before="2025-03-01T00:00:00")
    former.save(tmp_path / "former")
    with Store.open(path, write=True) as store:
        with store.writing():
            former.publish(store)
        later, early = Served.published(store, datetime(2025, 3, 1)), Served.published(store, datetime(2025, 2, 28))
    assert early is None  # it knows what happened on that day
    requests = [
        Request(history, query, FakeEncoder().encode([query])[0] if query else None)
        for history, query in zip(asked.history, asked.query, strict=True)
    ]
    temperature = system.settings.temperature
    for one in (former, Served.load(tmp_path / "former"), later):
        past = Past(sequences_of(task.train), task.texts, FakeEncoder().encode(task.texts), former=one)
        assert whole(make("textformer", past).ask(requests), past.n_items) == pytest.approx(
            system.scores(asked) * temperature, abs=2e-5
        )
    nothing = whole(make("textformer", past).ask([Request(np.zeros(0, np.int64))]), past.n_items)
    assert not nothing.any()
    with pytest.raises(StoreError, match="recgraph train textformer"):
        Served.load(tmp_path / "none")


def test_an_item_without_a_name_is_not_ranked() -> None:
    task = pairs()
    system = TextFormerSystem(replace(SETTINGS, epochs=1), encoder=FakeEncoder())
    system.fit(task, lambda _: None)
    vectors = FakeEncoder().encode(task.texts)
    vectors[4] = 0
    past = Past(sequences_of(task.train), task.texts, vectors, former=system.served())
    red = FakeEncoder().encode(["red"])[0]
    said = make("textformer", past).ask([Request(np.array([0])), Request(np.array([0]), "red", red)])
    assert 4 not in said.first(0, past.n_items)
    assert said.at(np.array([[4], [4]]))[0, 0] == said.mean[0]
    found = whole(said, past.n_items)
    assert np.array_equal(found[0], found[1])  # it has learnt from no search
    assert "textformer" in possible(past)
    with pytest.raises(SettingsError, match="without a trained text transformer"):
        make("textformer", replace(past, former=None))


PARAMS = {
    "data": "shop.duckdb", "split": "time", "prepare": {"start": "search", "valid_days": 30, "test_days": 20},
    "textformer": {"dim": 8, "epochs": 2, "seed": 7},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False])
def test_the_stage_writes_the_same_bytes_twice(
    make_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """And where no product has a name there is nothing to learn, which is no error."""
    folder = searching(make_store).parent
    if not named:
        other = make_store(
            "item_id,category\nA,x\nB,x",
            ["user_id,ts,action,item_id", *(f"u,2025-0{n}-02,click,A" for n in range(1, 7))],
            name="plain",
        )
        other.close()
        (folder / "plain.duckdb").replace(folder / "shop.duckdb")
    monkeypatch.setattr(textformer, "read_queries", lambda *_: FakeEncoder())
    monkeypatch.setattr(textformer, "title_vectors", lambda _, __, names: FakeEncoder().encode(names))
    prepare.run(PARAMS, folder, lambda _: None)
    told: list[str] = []
    textformer.run(PARAMS, folder, told.append)
    out = folder / "data" / "textformer"
    first = {file.name: file.read_bytes() for file in [*out.iterdir(), folder / "metrics" / "textformer.json"]}
    textformer.run(PARAMS, folder, told.append)
    assert first == {file.name: file.read_bytes() for file in [*out.iterdir(), folder / "metrics" / "textformer.json"]}
    found = Served.load(out)
    if named:
        assert found is not None
        assert found.config["fitted_before"] == read_facts(folder / "data" / "prepare" / "time")["fitted_before"]
        assert found.config["encoder"] == FakeEncoder.name
        pieces = {seen.piece: seen for seen in evidence.kept(out, "textformer")}
        assert set(pieces) == {"The text transformer", "What textformer-query learnt of searches"}
        assert set(pieces["What textformer-query learnt of searches"].what) <= set(WORDS)
        shown = json.loads((folder / "metrics" / "textformer.json").read_text())["epochs"]
        assert [set(one) for one in shown] == [{"loss", "valid_ndcg@10"}] * 2
    else:
        assert found is None
        assert "nothing to learn from" in told[-1]
    with pytest.raises(SettingsError, match=r"textformer\.cosine is false"):
        textformer.run({**PARAMS, "textformer": {"cosine": False}}, folder, told.append)
    with pytest.raises(SettingsError, match=r"textformer\.size is no parameter"):
        textformer.run({**PARAMS, "textformer": {"size": 3}}, folder, told.append)


def test_the_target_is_not_looked_at() -> None:
    task = pairs()
    system = TextFormerSystem(replace(SETTINGS, epochs=1), encoder=FakeEncoder())
    system.fit(task, lambda _: None)
    asked = cases_of([[0], [1, 9]], [8, 9])
    assert np.array_equal(system.scores(asked), system.scores(replace(asked, target=np.array([0, 0]))))
