"""VectorIndex: exact answers, ties, masks, zero vectors, and the inverted file against exact search."""

from __future__ import annotations

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
    few = np.arange(len(keys)) < 20
    assert [k for k, _ in lists.search(asked, 30, few)[0]] == [k for k, _ in exact.search(asked, 30, few)[0]]
