"""What sources say of a few items is what they would say of all: mean, deviation, the first and each score against dense
formulas, for every kind of answer, in small catalogues and by the ways of large ones; and what is kept of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from recgraph.store.columns import Sequences
from recgraph.tools.index import VectorIndex
from recgraph.tools.sources import makers, said, sums
from recgraph.tools.sources.base import Past, Request, Said
from recgraph.tools.sources.counted import (
    ItemKNN,
    Popularity,
    SessionKNN,
    SessionKNNSettings,
    Transitions,
    TwoStep,
    TwoStepSettings,
    Viewed,
)
from recgraph.tools.sources.kept import Built
from recgraph.tools.sources.makers import MakerTransitions
from recgraph.tools.sources.registry import make, possible
from recgraph.tools.sources.said import ByWords, Dense, Led, Near, Sparse, whole
from recgraph.tools.sources.text import PredictedId, PredictedTitle, QueryText, QueryWords, TextKNN, WordKNN
from recgraph.tools.sources.transitions import scaled, transition_counts
from recgraph.tools.sources.words import Words

ITEMS = 120
NOBODY = np.zeros(0, np.int64)
WORDS = ("black", "boots", "red", "wool", "scarf", "oil", "soap", "zest", "hat", "rain")


def agrees(answer: Said, dense: np.ndarray) -> None:
    """A `Said` against the scores of all items, -inf for one that cannot be ranked."""
    n, items = dense.shape
    pool = np.random.default_rng(5).permuted(np.tile(np.arange(items), (n, 1)), axis=1)[:, : items // 2]
    at = answer.at(pool)
    may = np.arange(items) % 3 > 0
    for line, scores in enumerate(dense.astype(np.float64)):
        ranked = np.isfinite(scores)
        if not scores[ranked].any():
            assert (answer.mean[line], answer.deviation[line]) == (0, 1)
            assert not len(answer.first(line, 10))
            assert not at[line].any()
            continue
        mean = scores[ranked].mean()
        assert answer.mean[line] == pytest.approx(mean, rel=1e-4)
        assert answer.deviation[line] == pytest.approx(scores[ranked].std(), rel=1e-4)
        told = np.where(ranked, scores, mean)[pool[line]]
        assert at[line] == pytest.approx(told, rel=1e-4, abs=1e-6)
        for allowed in (None, may):
            high = np.flatnonzero((scores > mean) & (True if allowed is None else allowed))
            order = high[np.argsort(-scores[high].round(5), kind="stable")]
            assert answer.first(line, 10, allowed).tolist() == order[:10].tolist()
            found = answer.first(line, items, allowed)  # scores that differ in the last digit alone change places
            assert sorted(found.tolist()) == sorted(order.tolist())
            assert scores[found] == pytest.approx(scores[order], rel=1e-5)


def past() -> Past:
    """Forty users with up to nine events, names of three words, vectors of which two are zero."""
    rng = np.random.default_rng(0)
    user = np.sort(rng.integers(0, 40, 250)).astype(np.int32)
    item = np.minimum(rng.zipf(1.3, 250), ITEMS - 20).astype(np.int32) - 1
    ts = np.datetime64("2025-01-01", "us") + np.sort(rng.integers(0, 86_400 * 90, 250)).astype("timedelta64[s]")
    events = Sequences(user, item, ts, rng.integers(0, 3, 250).astype(np.int8), [])
    names = [" ".join(rng.choice(WORDS, 3)) + f" {row % 17}" for row in range(ITEMS)]
    return Past(events, names, unit(rng, 16, 0.3), ids=unit(rng, 8, 0.0))


def unit(rng: np.random.Generator, dim: int, lean: float) -> np.ndarray:
    vectors = rng.standard_normal((ITEMS, dim)) + lean
    vectors[[7, 80]] = 0
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).astype(np.float32)


PAST = past()
HISTORIES = [[0, 1, 2, 5], [3], [4, 0, 4], []]
ASKED = [Request(np.array(one, np.int64)) for one in HISTORIES]


def read(recency: float) -> np.ndarray:
    weights = np.zeros((len(HISTORIES), ITEMS))
    for line, history in enumerate(HISTORIES):
        for age, row in enumerate(reversed(history)):
            weights[line, row] += recency**age
    return weights


def cosines(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Nothing is said to a zero query, nor of a zero vector where something is said."""
    scores = queries @ vectors.T
    scores[:, ~vectors.any(1)] = -np.inf
    scores[~queries.any(1)] = 0
    return scores


def taste(recency: float) -> np.ndarray:
    mean = read(recency) @ PAST.vectors
    return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-9)


def test_popularity_and_what_was_seen() -> None:
    counts = np.bincount(PAST.events.item, minlength=ITEMS).astype(np.float32)
    agrees(Popularity(PAST).ask(ASKED), np.tile(counts, (4, 1)))
    seen = np.zeros((4, ITEMS), np.float32)
    seen[0, [0, 1, 2, 5]], seen[1, 3], seen[2, [4, 0]] = [0.25, 0.5, 0.75, 1], 1, [1, 2 / 3]
    agrees(Viewed(PAST).ask(ASKED), seen)


def test_what_follows_and_who_had_the_same() -> None:
    table = scaled(transition_counts(PAST.events, ITEMS, 50), 0.3, 0.1).toarray()
    agrees(Transitions(PAST).ask(ASKED), read(0.6) @ table)
    had = np.zeros((40, ITEMS))
    had[PAST.events.user, PAST.events.item] = 1
    norm = np.sqrt(had.sum(0))
    cosine = had.T @ had / (np.outer(norm, norm) + 40)
    np.fill_diagonal(cosine, 0)
    agrees(ItemKNN(PAST).ask(ASKED), read(0.7) @ cosine)


def test_neighbours_by_sessions() -> None:
    settings = SessionKNNSettings(near=1.0, before=1.0, rarity=0.0, long=0.0)
    user, item = PAST.events.user, PAST.events.item
    had = np.zeros((40, ITEMS))
    had[user, item] = 1
    events = np.zeros((40, ITEMS))
    np.add.at(events, (user, item), 1)
    agrees(SessionKNN(PAST, settings).ask(ASKED), read(0.6) @ had.T @ events)


def test_two_items_tell_which_way_a_shopper_goes() -> None:
    """Up the stairs 0, 1, 2 and down again: after 1 half go to 2 and half to 0, after 0 and 1 all to 2."""
    way = [0, 1, 2] * 4 + [2, 1, 0] * 4
    users = np.repeat(np.arange(8, dtype=np.int32), 3)
    ts = np.full(24, np.datetime64("2025-01-01", "us"))
    shop = Past(Sequences(users, np.array(way, np.int32), ts, np.zeros(24, np.int8), []), ("",) * 4)
    answer = TwoStep(shop, TwoStepSettings(prior=4)).ask(
        [Request(np.array(one, np.int64)) for one in ([1], [0, 1], [3, 1], [3], [])]
    )
    said_of = whole(answer, 4)
    assert said_of[0] == pytest.approx([0.5, 0, 0.5, 0])
    # four steps after the pair and four by the last items, of which 0 (weight .3) goes to 1
    after = np.array([1, 0.3 * 2, 1, 0])
    assert said_of[1] == pytest.approx((4 * after / after.sum() + [0, 0, 4, 0]) / 8, rel=1e-4)
    assert said_of[2] == pytest.approx(said_of[0], rel=1e-4)  # nobody went that way
    assert not said_of[3:].any()


def test_of_an_item_that_many_had_the_latest_count() -> None:
    """Users 0 to 4 had item 0 and then their own; user 1 came last, then user 3."""
    days = np.array([1, 1, 9, 9, 2, 2, 8, 8, 3, 3], "datetime64[D]").astype("datetime64[us]")
    item = np.array([0, 1, 0, 2, 0, 3, 0, 4, 0, 5], np.int32)
    events = Sequences(np.repeat(np.arange(5, dtype=np.int32), 2), item, days, np.zeros(10, np.int8), [])
    answer = SessionKNN(Past(events, ("",) * 6), SessionKNNSettings(latest=2)).ask([Request(np.array([0]))])
    assert set(answer.first(0, 9).tolist()) - {0} == {2, 4}


def test_makers() -> None:
    of = makers.makers(PAST.names)
    onehot = np.eye(of.max() + 1)[of]
    steps = onehot.T @ transition_counts(PAST.events, ITEMS).toarray() @ onehot
    steps = steps * np.maximum(steps.sum(0), 1) ** -0.2
    steps /= np.maximum(steps.sum(1, keepdims=True), 1e-12)
    count = (np.bincount(PAST.events.item, minlength=ITEMS) + 0.5) ** 0.5
    share = count / (onehot.T @ count)[of] ** 0.5
    agrees(MakerTransitions(PAST).ask(ASKED), (read(0.8) @ onehot @ steps)[:, of] * share)


def tf_idf(names: list[str]) -> np.ndarray:
    return Words.of(names).table.toarray()


def words_of(text: str) -> np.ndarray:
    """What is read of a text, a number for each word of the catalogue."""
    found = np.zeros(PAST.words.table.shape[1], np.float32)
    columns, weights = PAST.words.read(text)
    found[columns] = weights
    return found


def test_words() -> None:
    table = tf_idf(list(PAST.names))
    agrees(WordKNN(PAST).ask(ASKED), read(0.8) @ table @ table.T)
    asked = [Request(NOBODY, "black boots"), Request(NOBODY, "zest"), Request(NOBODY, "unheard of")]
    wanted = np.stack([words_of(one.query) for one in asked])
    agrees(QueryWords(PAST).ask(asked), wanted @ table.T)


def test_words_of_a_large_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """By lists of words: exact where none is cut; where some are, the mean still is."""
    texts = ["black boots", "zest", ""]
    table, wanted = tf_idf(list(PAST.names)), [PAST.words.read(text) for text in texts]
    dense = np.stack([words_of(text) for text in texts]) @ table.T
    agrees(ByWords(wanted, PAST.words), dense)
    monkeypatch.setattr(said, "_POSTINGS", 40)
    answer = ByWords(wanted, PAST.words)
    assert answer.mean == pytest.approx(dense.mean(1), rel=1e-4)
    assert answer.deviation[:2] == pytest.approx(dense[:2].std(1), rel=1e-3), "common words go together"
    assert answer.at(np.tile(np.arange(ITEMS), (3, 1))) == pytest.approx(dense, abs=1e-6)
    best = dense[0].max()
    assert dense[0, answer.first(0, 3)] == pytest.approx([best] * 3, rel=0.3)


def test_sums_of_rows_are_those_of_a_product() -> None:
    table, weights = (sp.random(50, 70, 0.2, "csr", np.float32, np.random.default_rng(seed)) for seed in (1, 2))
    for row in weights[:4, :50].tocsr():
        expected = row @ table
        columns, values = sums.weighted((row.indices, row.data), table)  # nothing is left over from the time before
        assert np.array_equal(columns, expected.indices)
        assert np.array_equal(values, expected.data)
        asked = np.array([3, 60, 3])
        assert np.array_equal(sums.looked_up((columns, values), asked, 70), expected.toarray()[0, asked])


def test_the_strongest_of_each_row_are_kept() -> None:
    table = sp.csr_matrix(np.array([[0, 3, 1, 3], [5, 0, 0, 0], [1, 1, 1, 1]], np.float32))
    assert sums.strongest(table, 2).toarray().tolist() == [[0, 3, 0, 3], [5, 0, 0, 0], [1, 1, 0, 0]]


def test_a_typing_error_finds_the_word() -> None:
    assert np.array_equal(words_of("blak bootts"), words_of("black boots"))
    assert not words_of("zzzzzzz ht").any()  # no word is near, and a short one has too many neighbours


def test_texts_near_to_the_history_and_the_query() -> None:
    agrees(TextKNN(PAST).ask(ASKED), cosines(PAST.vectors, taste(0.2)))
    vector = PAST.vectors[11]
    asked = [replace(one, query="x", vector=vector) for one in ASKED[:2]] + ASKED[2:]
    wanted = np.concatenate([vector + 0.3 * taste(0.6)[:2], np.zeros((2, 16))])
    agrees(QueryText(PAST).ask(asked), cosines(PAST.vectors, wanted))


def test_the_moments_of_vectors_that_are_nearly_alike() -> None:
    """A variance of a millionth of the squared mean: the difference of two float32 would be noise."""
    rng = np.random.default_rng(3)
    vectors = (np.ones((500, 8)) + 1e-3 * rng.standard_normal((500, 8))).astype(np.float32)
    answer, scores = Near(VectorIndex(None, vectors), vectors[:1]), vectors.astype(np.float64) @ vectors[0]
    assert answer.deviation[0] == pytest.approx(scores.std(), rel=1e-4)


def test_what_a_language_model_named_stands_first_with_its_neighbours() -> None:
    asked = [replace(ASKED[0], predicted=9), replace(ASKED[1], predicted=7), *ASKED[2:]]
    answer = PredictedId(PAST).ask(asked)
    scores = PAST.ids @ PAST.ids[9]
    near = np.flatnonzero((scores > scores[PAST.ids.any(1)].mean()) & (np.arange(ITEMS) != 9))
    assert answer.first(0, 4).tolist() == [9, *near[np.argsort(-scores[near])][:3]]
    assert 9 not in answer.first(0, ITEMS, np.arange(ITEMS) != 9)
    assert answer.first(1, 4).tolist() == [7]  # nothing is known of it, so it has no neighbours
    assert answer.at(np.array([[9, 8], [7, 8], [9, 7], [9, 7]])).tolist()[1:] == [[1, 0], [0, 0], [0, 0]]
    assert not len(answer.first(2, 4))
    titles = [replace(ASKED[0], predicted_title=PAST.vectors[11]), *ASKED[1:]]
    agrees(PredictedTitle(PAST).ask(titles), cosines(PAST.vectors, np.stack([PAST.vectors[11], *np.zeros((3, 16))])))


def test_a_source_without_a_better_way_scores_all() -> None:
    scores = np.random.default_rng(1).standard_normal((3, ITEMS)).astype(np.float32)
    scores[0, 4], scores[1] = -np.inf, 0
    agrees(Dense(scores), scores)


def test_an_item_that_is_asked_for_twice_is_told_twice() -> None:
    answer = Sparse([(np.array([1, 2]), np.array([2, 1], np.float32))], 3)
    assert answer.at(np.array([[1, 0, 1, 2, 2]])).tolist() == [[2, 0, 2, 1, 1]]
    assert Led(answer, [0]).at(np.array([[0, 0, 1]])).tolist() == [[1, 1, 2]]


@pytest.mark.parametrize("asked", [[], [Request(NOBODY)]], ids=["no request", "nothing known"])
def test_every_source_answers_who_has_nothing(asked: list[Request]) -> None:
    for name in possible(PAST):
        answer = make(name, PAST).ask(asked)
        assert whole(answer, ITEMS).shape == (len(asked), ITEMS), name
        if asked and name != "popularity":
            assert not len(answer.first(0, 5)), name


def test_what_was_kept_in_a_folder_says_the_same_and_is_not_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [replace(one, query="black hat", vector=PAST.vectors[3], predicted=2) for one in ASKED]
    first = replace(PAST, kept=Built(tmp_path))
    said_first = {name: whole(make(name, first).ask(asked), ITEMS) for name in possible(first)}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    for name in ("transition_counts", "makers"):
        monkeypatch.setattr(makers, name, None)
    monkeypatch.setattr(Words, "of", None)
    again = replace(PAST, kept=Built(tmp_path))
    for name, expected in said_first.items():
        assert np.array_equal(whole(make(name, again).ask(asked), ITEMS), expected), name
