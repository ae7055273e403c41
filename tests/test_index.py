"""VectorIndex: exact answers, ties, masks, zero vectors, and the inverted file against exact search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recgraph.tools.index import VectorIndex

UNIT = np.array([[1, 0], [0.8, 0.6], [0, 1], [0, 0]], dtype=np.float32)


def unit_vectors(n: int, dim: int = 32, seed: int = 0) -> np.ndarray:
    """Vectors around 50 centres, as embeddings of products lie."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((50, dim))[random.integers(0, 50, n)] + 0.7 * random.standard_normal((n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_the_nearest_comes_first_and_zero_vectors_are_never_found() -> None:
    index = VectorIndex(["right", "slope", "up", "cold"], UNIT)
    assert index.search(UNIT[:1], 10) == [[("right", 1.0), ("slope", pytest.approx(0.8)), ("up", 0.0)]]
    assert index.search(np.zeros(2, dtype=np.float32), 3) == [[]]
    assert index.search(UNIT[:2], 1) == [[("right", 1.0)], [("slope", 1.0)]]


def test_a_mask_is_applied_inside_the_search_so_that_it_never_shortens_the_answer() -> None:
    index = VectorIndex(["right", "slope", "up", "cold"], UNIT)
    assert [key for key, _ in index.search(UNIT[0], 2, np.array([False, True, True, True]))[0]] == ["slope", "up"]
    assert index.search(UNIT[0], 2, np.zeros(4, dtype=bool)) == [[]]


@pytest.mark.parametrize("exact_below", [10_000, 10])
def test_equal_scores_come_in_key_order_however_many_tie(exact_below: int) -> None:
    index = VectorIndex([f"k{n:03d}" for n in range(300)], np.tile(UNIT[1], (300, 1)), exact_below)
    assert [key for key, _ in index.search(UNIT[1], 3)[0]] == ["k000", "k001", "k002"]
    odd = np.arange(300) % 2 == 1
    assert [key for key, _ in index.search(UNIT[1], 3, odd)[0]] == ["k001", "k003", "k005"]


def test_a_key_gives_its_vector_and_an_unknown_or_cold_one_gives_none() -> None:
    index = VectorIndex(["right", "slope", "up", "cold"], UNIT)
    assert np.allclose(index.vector("slope"), [0.8, 0.6])
    assert index.vector("cold") is None
    assert index.vector("nobody") is None
    assert (len(index), index.row("up"), index.row("nobody")) == (4, 2, None)


def test_an_index_of_nothing_finds_nothing() -> None:
    index = VectorIndex([], np.zeros((0, 2), dtype=np.float32))
    assert index.search(UNIT[0], 5) == [[]]
    assert VectorIndex(["cold"], np.zeros((1, 2), dtype=np.float32)).search(UNIT[0], 5) == [[]]


@pytest.mark.parametrize(
    ("keys", "vectors"),
    [(["a"], UNIT), (["a", "a"], UNIT[:2]), (["a"], np.array([[np.nan, 0]], dtype=np.float32))],
    ids=["numbers differ", "keys repeat", "not finite"],
)
def test_wrong_input_is_refused(keys: list[str], vectors: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"keys|finite"):
        VectorIndex(keys, vectors)


def test_a_query_of_another_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match="dimension 3"):
        VectorIndex(["a"], UNIT[:1]).search(np.ones(3, dtype=np.float32), 1)


def test_without_keys_rows_are_found() -> None:
    index = VectorIndex(None, UNIT)
    rows, scores = index.nearest(UNIT[1], 2)
    assert (rows.tolist(), scores.tolist()) == ([1, 0], [1.0, pytest.approx(0.8)])
    assert index.vectors([0, 3]).tolist() == [[1, 0], [0, 0]]
    with pytest.raises(ValueError, match="no keys"):
        index.search(UNIT[0], 1)


def test_the_moments_are_those_of_all_products_with_known_vectors() -> None:
    vectors, query = unit_vectors(300), unit_vectors(1, seed=4)[0].astype(np.float64)
    vectors[17] = 0
    mean, spread = VectorIndex(None, vectors).moments
    products = np.delete(vectors, 17, axis=0) @ query
    assert mean @ query == pytest.approx(products.mean(), rel=1e-5)
    assert query @ spread @ query == pytest.approx(products.var(), rel=1e-5)


def test_an_inverted_file_comes_back_mapped_from_its_files(tmp_path: Path) -> None:
    vectors = unit_vectors(400)
    vectors[5] = 0
    made = VectorIndex(None, vectors, exact_below=100)
    made.save(tmp_path, "titles")
    back = VectorIndex.load(tmp_path, "titles")
    assert (back.exact, back.n_known, len(back)) == (False, 399, 400)
    assert np.array_equal(back.nearest(vectors[0], 20)[0], made.nearest(vectors[0], 20)[0])
    assert np.array_equal(back.vectors(np.arange(400)), made.vectors(np.arange(400)))
    assert back.stored.dtype == np.float16
    assert not back.stored.flags.owndata
    assert 5 not in back.nearest(vectors[0], 400)[0]


@pytest.mark.slow
def test_the_inverted_file_finds_what_the_exact_search_finds() -> None:
    vectors = unit_vectors(6_000)
    keys = [str(n) for n in range(len(vectors))]
    exact, lists = VectorIndex(keys, vectors), VectorIndex(keys, vectors, exact_below=1_000)
    assert (exact.exact, lists.exact) == (True, False)
    asked = unit_vectors(100, seed=1)
    half = np.arange(len(keys)) % 2 == 0
    for allowed in (None, half):
        pairs = zip(exact.search(asked, 10, allowed), lists.search(asked, 10, allowed), strict=True)
        recall = np.mean([len({k for k, _ in one} & {k for k, _ in other}) / 10 for one, other in pairs])
        assert recall > 0.95
    hardly = np.arange(len(keys)) % 2 == 1  # 3,000 rows are more than are compared one by one
    hardly[4500:] = False
    assert [k for k, _ in lists.search(asked[0], 30, hardly)[0]] == [
        k for k, _ in exact.search(asked[0], 30, hardly)[0]
    ]
    few = np.arange(len(keys)) < 20
    assert [k for k, _ in lists.search(asked, 30, few)[0]] == [k for k, _ in exact.search(asked, 30, few)[0]]
