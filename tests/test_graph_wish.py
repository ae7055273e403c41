"""The wish in a run: what is understood holds through every node, adds up over a conversation, and is told in the answer.

The words are understood here by a fake that knows a handful of them; what real words mean is test_understand.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import click, item

from recgraph.errors import SettingsError
from recgraph.graph.blend import blend
from recgraph.graph.explain import _as_asked, _Reason
from recgraph.graph.wish import Conversations, as_asked, heard
from recgraph.store.records import Item
from recgraph.tools.candidates import Candidate
from recgraph.tools.wish.filters import filters
from recgraph.tools.wish.spelling import fold
from recgraph.tools.wish.wish import Like, Price, Wish

BOOTS = item("B", "Otter Hiking Boots", category="boots", brand="Otter", color="Black", size="42", price=50.0)


def facets(**values: Sequence[str]) -> Any:
    """Facets that know of these values and no products."""
    attributes = {name: SimpleNamespace(spelling={fold(one): one for one in known}) for name, known in values.items()}
    return SimpleNamespace(attributes=attributes)


SHOP = facets(color=["Black", "Navy", "Moss"], category=["boots", "Shirts"], brand=["Harrow"])


def listen(text: str, seen: Sequence[Item], shown: Sequence[Item]) -> Wish:
    """Knows "black", "boots", "under N" and "cheaper"."""
    words = text.split()
    want: dict[str, tuple[str, ...]] = {}
    for name, word in (("color", "black"), ("color", "navy"), ("category", "boots")):
        if word in words:
            want[name] = (word,)
    most = float(words[words.index("under") + 1]) if "under" in words else None
    near = [*seen, *shown]
    return Wish(
        want, price=Price(most), like=Like(near[-1].item_id, "cheaper") if "cheaper" in words and near else None
    )


def state(**known: Any) -> Any:
    return {"history": [], "items": {}, "query": "", **known}


def test_wishes_of_a_conversation_add_up_and_the_last_answer_can_be_meant() -> None:
    first = heard(state(query="black boots"), listen, {})
    assert first == Wish({"color": ("black",), "category": ("boots",)})
    second = heard(state(query="cheaper under 60", wish=first, shown=["B"]), listen, {"B": BOOTS})
    assert second == Wish(first.want, price=Price(60.0), like=Like("B", "cheaper"))
    assert heard(state(query="navy", wish=second), listen, {}).want == {"category": ("boots",), "color": ("navy",)}


def test_the_newest_products_of_the_history_are_heard_of_last() -> None:
    items = {name: item(name) for name in "ABC"}
    told: list[list[str]] = []

    def listening(text: str, seen: Sequence[Item], shown: Sequence[Item]) -> Wish:
        told.append([one.item_id for one in seen])
        return Wish()

    history = [click(1, "A"), click(2, "B"), click(3, "A"), click(4, "C"), click(5, "gone")]
    heard(state(query="such", history=history, items=items), listening, {})
    assert told == [["B", "A", "C"]]


def test_a_wish_given_ready_made_wins_over_the_words() -> None:
    given = filters(SHOP, {"color": ["navy"]}, {})
    found = heard(state(query="black boots", given=given), listen, {})
    assert found == Wish({"category": ("boots",), "color": ("Navy",)}, required=("color",))


def test_filters_are_hard_and_spelled_as_the_shop_does() -> None:
    made = filters(SHOP, {"category": ["shirts"]}, {"color": ["MOSS", "moss"]}, Price(at_most=60))
    assert made == Wish({"category": ("Shirts",)}, {"color": ("Moss",)}, ("category",), Price(at_most=60))
    assert made.hard
    assert made.named == ()


@pytest.mark.parametrize(
    ("want", "said"),
    [
        ({"color": ["blak"]}, "No product has the color 'blak'; near it are Black."),
        ({"color": ["zzz"]}, "No product has the color 'zzz'; there are Black, Moss, Navy."),
        ({"fit": ["slim"]}, "No product has a 'fit'; there are brand, category, color."),
    ],
)
def test_a_filter_that_no_product_has_is_refused_with_near_ones(want: dict[str, list[str]], said: str) -> None:
    with pytest.raises(SettingsError) as error:
        filters(SHOP, want, {})
    assert str(error.value) == said


def test_bounds_that_leave_nothing_between_them_are_refused() -> None:
    with pytest.raises(SettingsError, match="No price is at least 60 and at most 50"):
        filters(SHOP, {}, {}, Price(at_most=50, at_least=60))


def test_a_conversation_is_of_one_user_and_the_oldest_is_forgotten() -> None:
    kept = Conversations(kept=2)
    kept.keep("u", "1", Wish(text="a"), ["A"])
    assert kept.last("u", "1") == (Wish(text="a"), ("A",))
    assert kept.last("v", "1") == (None, ())
    kept.keep("u", "1", Wish(text="b"), [])
    assert kept.last("u", "1") == (Wish(text="b"), ("A",))  # an empty answer shows nothing that could be meant
    for thread in "23":
        kept.keep("u", thread, None, [])
    assert kept.last("u", "1") == (None, ())


@pytest.mark.parametrize("weight", [0.0, 0.1, 1.0])
def test_no_answer_of_the_model_moves_a_product_past_one_that_fits_more(weight: float) -> None:
    candidates = [
        Candidate(name, 1.0, "text", ("text",), fits) for name, fits in zip("ABCDE", (2, 2, 1, 1, 0), strict=True)
    ]
    yes = [(-5.0, -0.1), (-4.0, -0.1), (-0.2, -3.0), (-0.1, -3.0), (-0.01, -9.0)]
    found = blend(candidates, yes, weight)
    assert [line.candidate.fits for line in found] == [2, 2, 1, 1, 0]
    if weight == 1.0:
        assert [line.candidate.item_id for line in found] == ["B", "A", "D", "C", "E"]


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.9, 1.0])
def test_what_a_title_says_to_a_model_is_worth_three_places_at_most_unless_it_ranks_alone(weight: float) -> None:
    """Between its falling for one text and its being lifted for another."""
    candidates = [Candidate(str(place), 0.0, "text", ("text",)) for place in range(20)]
    for place in range(20):
        stands = []
        for yes, no in ((True, False), (False, True)):  # it alone has talked the model round, and all but it
            said = [(-0.01, -9.0) if (yes if one == place else no) else (-5.0, -0.1) for one in range(20)]
            found = [line.candidate.item_id for line in blend(candidates, said, weight)]
            assert sorted(found, key=int) == [one.item_id for one in candidates]
            stands.append(found.index(str(place)))
        assert stands == [0, 19] if weight == 1 else stands[0] <= place <= stands[1] <= stands[0] + 3


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_model_says_it_moves_no_product_far_nor_past_one_that_fits_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fits = sorted(rng.integers(0, 3, 20).tolist(), reverse=True)
    candidates = [Candidate(str(place), 0.0, "text", ("text",), fit) for place, fit in enumerate(fits)]
    found = blend(candidates, [(float(one), float(-one)) for one in rng.normal(size=20)], 0.9)
    assert [line.candidate.fits for line in found] == fits
    moved = [int(line.candidate.item_id) - place for place, line in enumerate(found)]
    assert min(moved) >= -1
    assert max(moved) <= 2


def test_a_reason_begins_with_what_the_product_has_of_what_was_asked() -> None:
    asked = Wish({"color": ("Navy", "Black"), "category": ("boots",), "brand": ("Otter",), "size": ("42",)})
    assert as_asked(BOOTS, asked) == "Black boots by Otter in size 42"
    assert as_asked(BOOTS, Wish({"brand": ("Otter",)}, price=Price(at_most=60))) == "By Otter"
    assert as_asked(BOOTS, Wish(price=Price(at_most=60))) == ""
    assert as_asked(BOOTS, Wish({"color": ("Red",)})) == ""
    assert as_asked(BOOTS, Wish(avoid={"color": ("Red",)})) == ""
    assert as_asked(BOOTS, None) == ""


def test_what_the_shop_says_of_a_product_decides_and_its_title_only_where_it_says_nothing() -> None:
    brown = item("X", "Black Forest Cake Tin", color="Brown")
    assert as_asked(brown, Wish({"color": ("Black",)})) == ""
    assert as_asked(item("X", "Black tin"), Wish({"color": ("Black",)})) == "Black"
    assert as_asked(item("X", attributes={"Material": "Merino wool"}), Wish({"material": ("wool",)})) == "Wool"
    assert as_asked(item("X", category="snow_boots"), Wish({"category": ("snow_boots",)})) == "Snow boots"


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("You looked at it twice, last on 30 Dec.", "Black boots, as asked; you looked at it twice, last on 30 Dec."),
        ("Its title fits the search.", "Black boots, as asked."),
        ("Fills the list: nobody has looked at it yet.", "Black boots, as asked."),
        ("Black boots, like the Ankle Boots you bought on 1 May.", "Black boots, as asked; like the Ankle Boots you bought on 1 May."),
        ("Boots by Otter, like the Ankle Boots you bought.", "Black boots, as asked; boots by Otter, like the Ankle Boots you bought."),
    ],
)  # fmt: skip
def test_a_reason_does_not_say_the_same_twice(reason: str, told: str) -> None:
    wish = Wish({"color": ("Black",), "category": ("boots",)})
    assert _as_asked(BOOTS, state(wish=wish), _Reason(reason)).text == told


def test_by_odds_a_product_passes_others_as_far_as_its_odds_outweigh_their_places() -> None:
    candidates = [Candidate(name, 0.0, "sequence", ("sequence",), 0) for name in "abc"]
    # places: 0, -.69, -1.10; to be above the first, the second needs log odds of more than 1.39 at odds of a half
    for logit, order in ((1.38, "abc"), (1.40, "bac")):
        found = blend(candidates, [(0.0, 0.0), (logit, 0.0), (0.0, 0.0)], 0.1, 0.5)
        assert "".join(line.candidate.item_id for line in found) == order


def test_by_odds_nothing_moves_further_than_below_a_weight_of_one() -> None:
    """With a large model, whose weight is 1, odds would have lifted a product by nineteen places."""
    candidates = [Candidate(str(place), 0.0, "sequence", ("sequence",), 0) for place in range(20)]
    found = blend(candidates, [(float(place), 0.0) for place in range(20)], 1.0, 5.0)
    order = [int(line.candidate.item_id) for line in found]
    assert max(place - number for number, place in enumerate(order)) == 2
    assert max(number - place for number, place in enumerate(order)) == 1
