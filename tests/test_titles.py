"""Title encoders: pairs, hard negatives, metrics, the LSTM and the fine-tuning, the stage, and serving a store with
what was trained."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs recgraph[local]")
pytest.importorskip("transformers", reason="needs recgraph[local]")

import torch

from recgraph.errors import ModelMissing, SettingsError
from recgraph.evaluation.compare import evaluate
from recgraph.evaluation.systems import systems
from recgraph.evaluation.workshop import Workshop
from recgraph.store.db import Store
from recgraph.store.parquet import read_table
from recgraph.tools.embed import encoder_of, open_encoder, text_key
from recgraph.tools.llm.places import find_encoder
from recgraph.tools.lstm import LSTMEncoder, TitleLSTM, padded, read_tokenizer, save_lstm
from recgraph.train import prepare, title_embeddings
from recgraph.train.networks import titles
from recgraph.train.networks.title_pairs import NEXT_PURCHASE, QUERY, Pairs, Titles, mine, pairs_of, retrieval
from recgraph.train.networks.titles import FinetuneSettings, LSTMSettings, train_lstm, triplet_loss
from recgraph.train.task import read_task

ITEMS = """item_id,title,parent_id
S1,Red sneakers size 40,SNEAKER
S2,Red sneakers size 41,SNEAKER
B1,Leather boots,
C1,Wool coat,
C2,Wool coat,
H1,Straw hat,
"""
EVENTS = """user_id,ts,action,item_id,query
u1,2025-01-01T10:00:00,search,,trainers
u1,2025-01-01T10:01:00,click,B1,Trainers
u1,2025-01-01T10:02:00,purchase,S1,trainers
u1,2025-01-03T10:00:00,search,,winter coat
u1,2025-01-03T10:05:00,purchase,C1,
u2,2025-01-04T10:00:00,search,,straw
u2,2025-01-04T12:00:00,purchase,H1,
u2,2025-01-05T12:00:00,purchase,B1,boots
"""
TINY = LSTMSettings(words="random", word_dim=8, dim=6, epochs=3, batch=4, lr=0.05, nearest=1)


@pytest.fixture(scope="module", autouse=True)
def _needs_the_tokenizer() -> None:
    try:
        find_encoder()
    except ModelMissing as error:
        pytest.skip(str(error))


@pytest.fixture
def shop(make_store: Callable[..., Store]) -> Store:
    return make_store(items=ITEMS, events=EVENTS)


def named(pairs: Pairs, known: Titles) -> list[tuple[str, str]]:
    return [(pairs.queries[query], known.texts[title]) for query, title in pairs.positive.tolist()]


def test_variants_and_equal_titles_are_one_group(shop: Store) -> None:
    known = Titles.of(shop.catalogue())
    assert known.texts == ["Leather boots", "Red sneakers size 40", "Red sneakers size 41", "Straw hat", "Wool coat"]
    assert known.group[1] == known.group[2]
    assert len(set(known.group.tolist())) == 4
    assert known.of_item["C1"] == known.of_item["C2"] == 4


def test_a_pair_is_a_query_and_what_was_bought_after_it(shop: Store) -> None:
    """The coat's purchase names no query but follows a search within the hour; the hat's comes two hours later and was
    not asked for."""
    known = Titles.of(shop.catalogue())
    pairs = pairs_of(shop, known)
    assert pairs.source == QUERY
    assert named(pairs, known) == [
        ("boots", "Leather boots"),
        ("trainers", "Red sneakers size 40"),
        ("winter coat", "Wool coat"),
    ]
    clicked = pairs_of(shop, known, "click")
    assert ("trainers", "Leather boots") in named(clicked, known)
    boots, sneakers = known.group[0], known.group[1]
    assert pairs.matches[pairs.queries.index("trainers")] == {boots, sneakers}, "what was clicked is no negative either"


def test_without_queries_a_pair_is_a_purchase_and_the_next_one(make_store: Callable[..., Store]) -> None:
    """One basket has no order: coat and hat of one moment both follow the boots, and the hat alone is what the sneakers
    come after."""
    events = """user_id,ts,action,item_id
        u1,2025-01-01,purchase,B1
        u1,2025-01-02,purchase,C1
        u1,2025-01-02,purchase,H1
        u1,2025-01-03,purchase,S1
        u1,2025-01-04,purchase,S2
        u2,2025-01-01,click,H1
        u2,2025-01-05,purchase,S2"""
    store = make_store(items=ITEMS, events=events)
    known = Titles.of(store.catalogue())
    pairs = pairs_of(store, known)
    assert pairs.source == NEXT_PURCHASE
    assert sorted(named(pairs, known)) == [
        ("Leather boots", "Straw hat"),
        ("Leather boots", "Wool coat"),
        ("Straw hat", "Red sneakers size 40"),
    ]
    assert int(known.group[0]) in pairs.matches[pairs.queries.index("Leather boots")], (
        "a title is no negative of itself"
    )


def corner(*degrees: float) -> Any:
    turned = np.radians(degrees)
    return np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)


def test_hard_negatives_are_the_nearest_that_do_not_match() -> None:
    known = Titles(["a", "a2", "b", "c"], np.array([0, 0, 1, 2]), {})
    pairs = Pairs(
        QUERY, ["x", "y", "z"], np.array([[0, 0], [1, 2]]), [frozenset({0}), frozenset({1}), frozenset({0, 1, 2})]
    )
    found = mine(pairs, known, pairs.positive, corner(0, 40, 10), corner(5, 6, 30, 90), 1, np.random.default_rng(0))
    # x matches a and its variant: b is nearest; a is asked by x and z: y. y matches b: a2; b is asked by y and z: x.
    assert found.tolist() == [[2, 1], [1, 0]]
    everything = Pairs(QUERY, ["x"], np.array([[0, 0]]), [frozenset({0, 1, 2})])
    assert mine(
        everything, known, everything.positive, corner(0), corner(5, 6, 30, 90), 1, np.random.default_rng(0)
    ).tolist() == [[-1, -1]]


def test_retrieval_counts_groups_and_leaves_out_what_asks() -> None:
    group = np.array([0, 0, 1, 2])
    titles_at = corner(0, 10, 30, 90)
    found = retrieval(corner(0, 0), [1, 2], titles_at, group)
    assert found == {"recall@1": 0.0, "recall@10": 1.0, "mrr": round((1 / 2 + 1 / 3) / 2, 4), "cases": 2}
    assert retrieval(corner(0, 0), [1, 2], titles_at, group, hidden=[0, 0])["recall@1"] == 0.5
    assert retrieval(corner(0), [0], titles_at, group, hidden=[0])["recall@1"] == 1.0, (
        "the wanted group is never hidden"
    )
    assert retrieval(np.zeros((0, 2), np.float32), [], titles_at, group)["cases"] == 0


def test_a_constant_encoder_gets_its_expected_rank() -> None:
    same = corner(*[0] * 20)
    found = retrieval(same[:1], [3], same, np.arange(20))
    assert found["recall@1"] == 1 / 20
    assert found["recall@10"] == 10 / 20
    assert found["mrr"] == pytest.approx(sum(1 / rank for rank in range(1, 21)) / 20, abs=1e-4)


def test_the_triplet_loss_by_hand() -> None:
    one = torch.tensor([[1.0, 0.0]])
    negatives = torch.tensor([[[0.6, 0.8], [0.0, 1.0]]])
    both, first = torch.tensor([[True, True]]), torch.tensor([[True, False]])
    assert triplet_loss(one, one, negatives, both, 0.5).item() == pytest.approx(((0.5 - 1 + 0.6) + 0) / 2)
    assert triplet_loss(one, one, negatives, first, 0.5).item() == pytest.approx(0.1)
    assert triplet_loss(one, one, negatives, torch.zeros_like(both), 0.5).item() == 0


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_padding_changes_no_vector(pooling: str) -> None:
    torch.manual_seed(1)
    model = TitleLSTM(20, 4, 5, pooling).eval()
    with torch.inference_mode():
        together = model(*padded([[1, 2, 3], [4], []]))
        alone = torch.cat([model(*padded([row])) for row in ([1, 2, 3], [4], [])])
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.allclose(together.norm(dim=1), torch.ones(3))


def state_of(model: Any) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(shop: Store, tmp_path: Path) -> None:
    known = Titles.of(shop.catalogue())
    pairs = pairs_of(shop, known)
    with titles.threads(1):
        first, losses = train_lstm(pairs, known, TINY, tmp_path / "a")
        second, again = train_lstm(pairs, known, TINY, tmp_path / "b")
        third, _ = train_lstm(pairs, known, replace(TINY, seed=8), tmp_path / "c")
    assert state_of(first) == state_of(second)
    assert losses == again
    assert state_of(first) != state_of(third)


def test_a_killed_training_goes_on_and_ends_the_same(
    shop: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Titles.of(shop.catalogue())
    pairs = pairs_of(shop, known)
    told: list[str] = []

    def dies(*given: Any) -> Any:
        if len(told) == 2:
            raise KeyboardInterrupt
        return mine(*given)

    with titles.threads(1):
        whole, losses = train_lstm(pairs, known, TINY, tmp_path / "whole")
        monkeypatch.setattr(titles, "mine", dies)
        with pytest.raises(KeyboardInterrupt):
            train_lstm(pairs, known, TINY, tmp_path / "killed", told.append)
        monkeypatch.setattr(titles, "mine", mine)
        resumed, again = train_lstm(pairs, known, TINY, tmp_path / "killed", told.append)
        assert told[2] == "Going on after epoch 2 of 3"
        assert state_of(whole) == state_of(resumed)
        assert losses == again
        train_lstm(pairs, known, replace(TINY, margin=0.3), tmp_path / "killed", told.append)
    assert told[4] == told[4].replace("Going on", ""), "a checkpoint of other settings is not gone on from"
    assert {file.suffix for file in (tmp_path / "killed").iterdir()} == {".safetensors", ".json"}


@pytest.mark.slow
def test_training_brings_a_query_near_its_title(make_store: Callable[..., Store], tmp_path: Path) -> None:
    """Words that share no letter with the titles: only the pairs can teach them."""
    words = ["alpha", "bravo", "charlie", "delta"]
    things = ["boots", "coat", "hat", "shirt"]
    items = ["item_id,title", *(f"{thing}{n},{'red' if n else 'blue'} {thing}" for thing in things for n in (0, 1))]
    events = ["user_id,ts,action,item_id,query"]
    events += [
        f"u{n},2025-01-0{1 + n}T10:0{at}:00,purchase,{thing}{n},{word}"
        for n in (0, 1)
        for at, (word, thing) in enumerate(zip(words, things, strict=True))
    ]
    store = make_store(items=items, events=events)
    known = Titles.of(store.catalogue())
    model, losses = train_lstm(
        pairs_of(store, known), known, replace(TINY, dim=16, lr=0.02, dropout=0.0, epochs=15), tmp_path / "c"
    )
    assert losses[-1] < 0.05 < losses[0]
    save_lstm(model, read_tokenizer(find_encoder() / "tokenizer.json", 64), tmp_path / "lstm", 64, {})
    encoder = LSTMEncoder(tmp_path / "lstm")
    near = encoder.encode(words) @ encoder.encode([f"blue {thing}" for thing in things]).T
    assert near.argmax(axis=1).tolist() == [0, 1, 2, 3]


def saved(folder: Path) -> Path:
    torch.manual_seed(3)
    save_lstm(TitleLSTM(30522, 4, 5), read_tokenizer(find_encoder() / "tokenizer.json", 8), folder, 8, {"pairs": QUERY})
    return folder


@pytest.mark.slow
def test_an_evaluation_reads_texts_with_the_encoder_that_is_named(
    tmp_path: Path, make_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of another shop, which is zero-shot there; its answers are not taken for those of the default one."""
    monkeypatch.setenv("RECGRAPH_EMBEDDER", str(saved(tmp_path / "lstm")))
    days = [f"u{user},2025-01-{day:02d},purchase,I{(user + day) % 6}" for user in range(9) for day in range(1, 5)]
    store = make_store(
        ["item_id,title", *(f"I{n},{'red blue'.split()[n % 2]} shoe {n}" for n in range(6))],
        ["user_id,ts,action,item_id", *days],
    )
    task = read_task(store, "shop", "loo")
    for embedder in (str(tmp_path / "lstm"), None):
        chosen = systems(["text-knn"], Workshop(embedder=embedder or ""))
        assert evaluate(task, chosen, keep=tmp_path / "kept", embedder=embedder or "").embedder == embedder
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_an_lstm_folder_is_served_like_a_sentence_encoder(tmp_path: Path) -> None:
    encoder = open_encoder(str(saved(tmp_path / "lstm")))
    assert isinstance(encoder, LSTMEncoder)
    vectors = encoder.encode(["red shoes", "", "red shoes " * 50])
    assert vectors.shape == (3, encoder.dim)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert np.allclose(vectors[2], encoder.encode(["red shoes " * 60])[0]), "texts are cut at max_tokens"
    assert encoder.name.startswith("lstm-")
    assert encoder.encode([]).shape == (0, 5)
    (tmp_path / "lstm" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ModelMissing, match="cannot be loaded"):
        open_encoder(str(tmp_path / "lstm"))


def test_a_store_names_no_encoder_outside_of_known_folders(
    shop: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store could name a hub id, whose code ran after a `y` under the progress bar."""
    opened: list[str] = []
    monkeypatch.setattr("recgraph.tools.embed.open_encoder", opened.append)
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.json").write_text("{}")
    (tmp_path / "link").symlink_to(elsewhere)
    for named in ("someone/evil-encoder", str(elsewhere), f"../{elsewhere.name}", "link", "/etc"):
        with shop.writing():
            shop.set_meta("embedder", named)
        with pytest.raises(ModelMissing, match=r"which is not here.*RECGRAPH_EMBEDDER=FOLDER, where you trust it"):
            encoder_of(shop)
    assert not opened
    encoder_of(shop, "someone/own-choice")
    assert opened == ["someone/own-choice"]


def test_no_model_brings_code_of_its_own() -> None:
    root = Path(__file__).parents[1]
    files = [
        file for room in ("tools", "graph", "train", "evaluation", "benchmarks") for file in (root / room).rglob("*.py")
    ]
    calls = [
        (file, node)
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and re.fullmatch(r"Auto\w+\.from_pretrained", ast.unparse(node.func))
    ]
    assert len(calls) > 6
    trusting = [
        f"{file}:{node.lineno}"
        for file, node in calls
        if not any(word.arg == "trust_remote_code" and ast.unparse(word.value) == "False" for word in node.keywords)
    ]
    assert trusting == []


@pytest.mark.slow
def test_a_store_is_served_by_the_encoder_it_was_published_with(shop: Store, tmp_path: Path) -> None:
    assert encoder_of(shop).name.startswith("all-MiniLM-L6-v2-")
    with shop.writing():
        shop.set_meta("embedder", "data/lstm")
    with pytest.raises(ModelMissing, match=r"embedded by 'data/lstm', which is not here.*RECGRAPH_EMBEDDER"):
        encoder_of(shop)
    saved(shop.path.parent / "data" / "lstm")
    assert encoder_of(shop).name.startswith("lstm-")
    assert encoder_of(shop, "sentence-transformers/all-MiniLM-L6-v2").name.startswith("all-MiniLM-L6-v2-"), (
        "a setting wins"
    )


OWN = {
    "encoder": "lstm",
    "ready": "",
    "dtype": "float32",
    "positives": "purchase",
    "cases": 0,
    "seed": 7,
    "threads": 1,
    "lstm": {"words": "random", "word_dim": 8, "dim": 6, "epochs": 2},
}


def prepared(folder: Path, store: Store, **changed: Any) -> dict[str, Any]:
    params = {
        "data": str(store.path),
        "split": "loo",
        "prepare": {"start": "search", "valid_days": 30, "test_days": 30},
    }
    prepare.run(params, folder, lambda _: None)
    return {**params, "title_embeddings": {**OWN, **changed}}


LAST_OUT = "user_id,ts,action,item_id,query\n" + "".join(
    f"u{user},2025-01-0{day}T1{user}:00:00,purchase,{item},{query}\n"
    for user in range(3)
    for day, (item, query) in enumerate(
        [("S1", "trainers"), ("C1", "winter coat"), ("B1", "boots"), ("H1", "hat"), ("S2", "sneakers")], start=1
    )
)


@pytest.mark.slow
def test_the_stage_writes_titles_encoder_and_metrics_the_same_twice(
    make_store: Callable[..., Store], tmp_path: Path
) -> None:
    store = make_store(items=ITEMS, events=LAST_OUT)
    store.close()
    params = prepared(tmp_path, store)
    out = tmp_path / "data" / "title_embeddings"
    kept = []
    for _ in range(2):
        title_embeddings.run(params, tmp_path, lambda _: None)
        files = sorted(
            [*(file for file in out.rglob("*") if file.is_file()), tmp_path / "metrics" / "title_embeddings.json"]
        )
        kept.append({str(file.relative_to(tmp_path)): file.read_bytes() for file in files})
    assert kept[0] == kept[1]
    assert {file.name for file in out.iterdir()} == {"titles.parquet", "encoder.json", "evidence.parquet", "lstm"}
    columns = read_table(out / "titles.parquet")
    assert columns["text"] == [
        "Leather boots",
        "Red sneakers size 40",
        "Red sneakers size 41",
        "Straw hat",
        "Wool coat",
    ]
    assert columns["key"][0] == text_key("Leather boots")
    encoder = title_embeddings.chosen_encoder(tmp_path)
    assert np.allclose(columns["vector"], encoder.encode(columns["text"]), atol=1e-6)
    facts = json.loads((out / "encoder.json").read_text())
    assert facts["name"] == encoder.name
    assert (facts["encoder"], facts["folder"], facts["pairs"], facts["fitted_before"]) == ("lstm", "lstm", QUERY, None)
    metrics = json.loads((tmp_path / "metrics" / "title_embeddings.json").read_text())
    assert metrics["valid"]["cases"] == 3
    assert len(metrics["loss"]) == 2
    assert not (tmp_path / ".checkpoints" / "title_embeddings").exists()


@pytest.mark.slow
def test_a_shop_without_queries_says_so(make_store: Callable[..., Store], tmp_path: Path) -> None:
    silent = "\n".join(line.rsplit(",", 1)[0] for line in LAST_OUT.splitlines())
    store = make_store(items=ITEMS, events=silent)
    store.close()
    told: list[str] = []
    title_embeddings.run(prepared(tmp_path, store), tmp_path, told.append)
    assert any("no queries" in line for line in told)
    metrics = json.loads((tmp_path / "metrics" / "title_embeddings.json").read_text())
    assert (metrics["pairs"], metrics["valid"]["cases"]) == (NEXT_PURCHASE, 3)


@pytest.mark.slow
def test_nothing_after_the_cut_is_learnt_from(make_store: Callable[..., Store], tmp_path: Path) -> None:
    """The last two purchases of everybody (hat, sneakers) are held out: no pair may name their queries."""
    store = make_store(items=ITEMS, events=LAST_OUT)
    store.close()
    prepared(tmp_path, store)
    with title_embeddings.open_folder(tmp_path / "data" / "prepare" / "loo" / "train") as train:
        assert pairs_of(train, Titles.of(train.catalogue())).queries == ["boots", "trainers", "winter coat"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoder": "bert"}, "title_embeddings.encoder is 'bert'.*ready, lstm, finetuned"),
        ({"lstm": {"width": 3}}, r"title_embeddings\.lstm\.width is no parameter"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
    ],
)
def test_wrong_params_are_named(
    make_store: Callable[..., Store], tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    store = make_store(items=ITEMS, events=LAST_OUT)
    store.close()
    with pytest.raises(SettingsError, match=message):
        title_embeddings.run(prepared(tmp_path, store, **changed), tmp_path, lambda _: None)


@pytest.mark.train
def test_fine_tuning_resumes_with_the_same_bytes_and_says_nothing(
    shop: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The trainer of sentence-transformers itself, on a BERT of one layer with the real tokenizer."""
    pytest.importorskip("sentence_transformers", reason="needs recgraph[train]")
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    base = tmp_path / "base"
    BertModel(
        BertConfig(vocab_size=30522, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    ).save_pretrained(base)
    AutoTokenizer.from_pretrained(find_encoder()).save_pretrained(base)
    known = Titles.of(shop.catalogue())
    pairs = pairs_of(shop, known, "click")
    settings = FinetuneSettings(base=str(base), epochs=2, batch=2, lr=1e-2)
    capfd.readouterr()
    with titles.threads(1):
        whole, losses = titles.finetune(pairs, known, settings, tmp_path / "whole")
        checkpoint = tmp_path / "killed"
        told: list[str] = []

        class Killed(BaseException):
            pass

        def die_after_one(line: str) -> None:
            told.append(line)
            if "epoch 2" in line:
                raise Killed

        with pytest.raises(Killed):
            titles.finetune(pairs, known, settings, checkpoint, die_after_one)
        resumed, again = titles.finetune(pairs, known, settings, checkpoint, told.append)
    assert "Going on after epoch 1 of 2" in told
    assert losses == again
    assert state_of(whole) == state_of(resumed)
    titles.save_finetuned(whole, tmp_path / "finetuned")
    encoder = open_encoder(str(tmp_path / "finetuned"))
    assert np.allclose(encoder.encode(known.texts), whole.encode(known.texts, normalize_embeddings=True), atol=2e-2)
    assert capfd.readouterr() == ("", "")
