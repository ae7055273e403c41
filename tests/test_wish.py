"""Wishes as data: how those of a conversation add up, and how they go into JSON and out of it."""

import pytest

from recgraph.errors import SettingsError
from recgraph.tools.wish.wish import Like, Price, Wish

BOOTS = Wish({"color": ("Black",), "category": ("Boots",)}, {"brand": ("Harrow",)}, price=Price(at_most=100))


def test_a_later_word_on_an_attribute_wins_and_all_else_stays() -> None:
    both = BOOTS.then(Wish({"color": ("Brown",)}, price=Price(at_least=50)))
    assert both.want == {"category": ("Boots",), "color": ("Brown",)}
    assert both.avoid == {"brand": ("Harrow",)}
    assert (both.price.at_least, both.price.at_most) == (50, 100)


def test_what_is_not_wanted_any_more_is_gone_and_what_is_wanted_again_is_not_avoided() -> None:
    assert BOOTS.then(Wish(avoid={"color": ("Black",)})).want == {"category": ("Boots",)}
    assert BOOTS.then(Wish({"brand": ("Harrow",)})).avoid == {}


def test_what_is_dropped_is_gone() -> None:
    assert not BOOTS.then(Wish(dropped=("price",))).price
    assert BOOTS.then(Wish(dropped=("color", "brand"))) == Wish({"category": ("Boots",)}, price=Price(at_most=100))


def test_a_bound_that_contradicts_an_earlier_one_replaces_it() -> None:
    assert Price(at_most=50).then(Price(at_least=80)) == Price(at_least=80)
    assert Price(at_least=80).then(Price(at_most=50)) == Price(at_most=50)
    assert Price(at_most=50, at_least=20).then(Price(about=90)) == Price(about=90)


def test_filters_are_hard_and_win_over_words() -> None:
    wish = BOOTS.with_filters({"color": ("Red",)}, {"material": ("Wool",)}, Price(at_most=60))
    assert wish.want["color"] == ("Red",)
    assert wish.required == ("color",)
    assert wish.named == ("category",)
    assert wish.hard
    assert wish.price.at_most == 60


def test_a_wish_goes_through_json_unchanged() -> None:
    wish = Wish(
        {"size": ("M", "L")},
        {"color": ("Red",)},
        ("size",),
        Price(1.5, None, 3),
        Like("A1", "other", "color"),
        ("x",),
        "y",
    )
    assert Wish.from_dict(wish.to_dict()) == wish
    assert Wish.from_dict({"want": {"color": "Red"}}) == Wish({"color": ("Red",)})


def test_a_wish_given_ready_made_may_name_attributes_as_people_do() -> None:
    wish = Wish({"Colour": "black", "Farbe": ["Navy", ""]}, {"Fabric": ("Wool",), "brand": ()}, ("COLOR",))  # type: ignore[dict-item]
    assert wish == Wish({"color": ("black", "Navy")}, {"material": ("Wool",)}, ("color",))
    assert wish.hard


def test_amounts_are_shown_as_people_read_them() -> None:
    assert Wish(price=Price(16_777_216, 59.9)).parts("€") == ["under €16777216", "over €59.90"]


def test_what_is_no_wish_is_refused_in_one_sentence() -> None:
    with pytest.raises(SettingsError, match="no wish"):
        Wish.from_dict({"price": {"at_most": "cheap"}})
    with pytest.raises(SettingsError, match="relation is 'greener'"):
        Like("A1", "greener")


def test_the_parts_of_a_wish_are_words_to_show() -> None:
    wish = Wish(
        {"color": ("Black",)},
        {"brand": ("Harrow",)},
        price=Price(at_most=60),
        like=Like("A", "other", "size"),
        text="warm",
    )
    assert wish.parts("€") == ["Black", "not Harrow", "under €60", "other size", "“warm”"]
    assert not Wish()
