"""Which products fit a wish: codes, masks, shares, and what would bring more."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recgraph.store.db import Store
from recgraph.store.records import Item
from recgraph.tools.wish.facet_files import load_facets, save_facets
from recgraph.tools.wish.facets import Facets, Relaxation
from recgraph.tools.wish.renewed import facets_with
from recgraph.tools.wish.wish import Like, Price, Wish

ITEMS = """item_id,title,category,brand,color,size,price,description,material,Gender,season,url
A1,"Fenn Wool Boots, Black",Shoes > Boots,Fenn,Black/White,42,140,Warm and dry,"60% Wool, 40% Leather",Women,Autumn/Winter,http://a/1
A2,"Fenn Suede Boots, Brown",Shoes > Boots,Fenn,Brown,43,99.99,,Suede,Men,Autumn/Winter,http://a/2
A3,"Harrow Shirt, navy blue",Shirts,Harrow,,M,59.99,,Linen,Unisex,Spring/Summer,http://a/3
A4,"Women's Harrow Dress, black",Dresses,Harrow,,S,,,,,,http://a/4
A5,Gift card,,,,,20,,,,,http://a/5
"""


@pytest.fixture(scope="module")
def store(loaded_stores: Callable[[str, Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("facets")
    (folder / "items.csv").write_text(ITEMS, encoding="utf-8")
    with Store.open(loaded_stores("facets", folder)) as opened:
        yield opened


@pytest.fixture(scope="module")
def facets(store: Store) -> Facets:
    return Facets.of(store)


def fits(facets: Facets, **want: tuple[str, ...] | str) -> list[int]:
    values = {name: (one,) if isinstance(one, str) else one for name, one in want.items()}
    return [int(one) for one in facets.fits(Wish(values))]


def may(facets: Facets, wish: Wish) -> list[bool]:
    return [bool(one) for one in facets.may(wish)]


def test_attributes_go_by_one_name_and_addresses_are_none(facets: Facets) -> None:
    assert set(facets.attributes) == {"category", "brand", "color", "size", "department", "material", "season"}


def test_a_value_that_names_several_counts_for_each(facets: Facets) -> None:
    assert fits(facets, color="White")[:2] == fits(facets, color="Black")[:2] == [1, 0]
    assert fits(facets, category="Shoes") == fits(facets, category="Boots") == [1, 1, 0, 0, 0]
    assert fits(facets, material="leather") == [1, 0, 0, 0, 0]
    assert fits(facets, season="winter") == [1, 1, 0, 0, 0]


def test_a_title_tells_the_colour_and_the_department_where_nothing_else_does(facets: Facets) -> None:
    assert fits(facets, color="Black") == [1, 0, 0, 1, 0]
    assert fits(facets, color="navy blue") == [0, 0, 1, 0, 0]
    assert fits(facets, department="Women") == [1, 0, 1, 1, 0], "what is for all is for women, too"


def test_named_attributes_are_counted_and_any_of_their_values_fits(facets: Facets) -> None:
    assert fits(facets, category="Boots", color=("Black", "Brown"), brand="Fenn") == [3, 3, 0, 1, 0]
    assert fits(facets, category="Hats", planet="Mars") == [0, 0, 0, 0, 0]


def test_hard_parts_hold_and_the_unknown_is_under_no_bound(facets: Facets) -> None:
    assert may(facets, Wish(price=Price(at_most=99.99))) == [False, True, True, False, True]
    assert may(facets, Wish(price=Price(at_least=99.99))) == [True, True, False, False, False]
    assert may(facets, Wish(avoid={"color": ("black",)})) == [False, True, True, False, True]
    assert may(facets, Wish({"size": ("42", "43")}, required=("size",))) == [True, True, False, False, False]
    assert may(facets, Wish(avoid={"department": ("Women",)})) == [False, True, True, False, True]


def test_relaxations_say_which_hard_part_brings_how_many(facets: Facets) -> None:
    wish = Wish({"size": ("42",)}, {"color": ("Black",)}, ("size",), Price(at_most=150))
    offered = np.ones(facets.n_items, bool)
    assert facets.relaxations(wish, offered) == (Relaxation("size 42", 3), Relaxation("not Black", 1))
    assert facets.relaxations(wish, ~offered) == ()


def test_what_is_named_and_out_of_reach_is_what_relaxing_would_bring(facets: Facets) -> None:
    """"boots under 90" showed other things, and said nothing of the boots just above it."""
    wish = Wish({"category": ("Boots",)}, price=Price(at_most=90))
    offered = np.ones(facets.n_items, bool)
    assert facets.relaxations(wish, offered) == (Relaxation("under 90", 2),)
    assert facets.relaxations(wish, offered, enough=True) == (Relaxation("under 90", 2),)
    there = Wish({"category": ("Boots",)}, price=Price(at_most=99.99))
    assert facets.relaxations(there, offered, enough=True) == ()


def test_where_no_part_alone_brings_more_the_fewest_that_do_together_are_told(facets: Facets) -> None:
    wish = Wish({"size": ("S",)}, {"brand": ("Fenn",)}, ("size",), Price(at_most=50))
    offered = np.array([True, True, True, False, False])
    assert facets.relaxations(wish, offered) == (Relaxation("size S and under 50", 1),)
    offered = np.array([True, True, False, False, False])
    assert facets.relaxations(wish, offered) == (Relaxation("not Fenn and size S and under 50", 2),)


@pytest.mark.slow
@given(data=st.data())
def test_what_a_relaxation_is_said_to_bring_comes_when_the_part_is_given_up(
    facets: Facets, data: st.DataObject
) -> None:
    def some(name: str) -> tuple[str, ...]:
        spelled = sorted(facets.attributes[name].spelling.values())
        return tuple(data.draw(st.lists(st.sampled_from(spelled), max_size=2, unique=True)))

    bound = st.sampled_from([None, 10, 60, 99.99, 150])
    wish = Wish(
        {"size": some("size"), "category": some("category")},
        {name: some(name) for name in ("color", "brand", "material")},
        ("size", "category"),
        Price(data.draw(bound), data.draw(bound)),
    )
    offered = np.array(data.draw(st.lists(st.booleans(), min_size=5, max_size=5)))
    now = int((facets.may(wish) & offered).sum())
    found = facets.relaxations(wish, offered)
    assert bool(found) == bool((offered & ~facets.may(wish)).any())
    for one in found:
        parts = set(one.part.split(" and "))
        less = Wish(
            {name: values for name, values in wish.want.items() if f"{name} {' or '.join(values)}" not in parts},
            {
                name: tuple(value for value in values if f"not {value}" not in parts)
                for name, values in wish.avoid.items()
            },
            wish.required,
            Price(
                None if any(part.startswith("under") for part in parts) else wish.price.at_most,
                None if any(part.startswith("over") for part in parts) else wish.price.at_least,
            ),
        )
        assert int((facets.may(less) & offered).sum()) - now == one.more > 0


def test_an_avoided_value_holds_by_the_text_where_the_attribute_is_not_filled_in(
    make_store: Callable[..., Store],
) -> None:
    store = make_store(
        "item_id,title,material,brand\nA,Leather boots,Leather,Harrow & Pine\nB,Leather bag,,\n"
        "C,Harrow and Pine cap,,\nD,Leatherette belt of wool,Wool,Fenn\nE,Belt,,"
    )
    facets = Facets.of(store)
    assert may(facets, Wish(avoid={"material": ("Leather",)})) == [False, False, True, True, True]
    assert may(facets, Wish(avoid={"brand": ("Harrow & Pine",)})) == [False, True, False, True, True]
    assert may(facets, Wish(avoid={"words": ("boots",)})) == [False, True, True, True, True]
    assert may(facets, Wish(avoid={"lining": ("wool belt",)})) == [True, True, True, False, True]
    changed = facets_with(facets, {4: Item("E", "Leather belt"), 5: Item("F", "Boots of leather")})
    assert may(changed, Wish(avoid={"material": ("Leather",)})) == [False, False, True, True, False, False]
    assert may(changed, Wish(avoid={"words": ("boots",)})) == [False, True, True, True, True, False]


def test_several_values_are_the_same_in_any_order(facets: Facets) -> None:
    assert may(facets, Wish(avoid={"color": ("White/Black",)})) == [False, True, True, True, True]


def test_bounds_are_exact_where_prices_are_large(make_store: Callable[..., Store]) -> None:
    facets = Facets.of(make_store("item_id,title,price\nA,a,2000001\nB,b,2000000\nC,c,59.99\nD,d,60.00"))
    assert may(facets, Wish(price=Price(at_most=2_000_000))) == [False, True, True, True]
    assert may(facets, Wish(price=Price(at_least=2_000_001))) == [True, False, False, False]
    assert may(facets, Wish(price=Price(at_most=59.99))) == [False, False, True, False]


def test_features_are_shares_of_the_parts_that_fit(facets: Facets) -> None:
    wish = Wish({"color": ("Black",), "brand": ("Harrow",)}, soft=("winter",), text="warm boots")
    rows = np.array([0, 3, 4])
    assert facets.features(wish, rows).tolist() == [[0.5, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert facets.features(Wish(), rows).tolist() == [[0.0, 0.0, 0.0]] * 3


@pytest.mark.parametrize(
    ("like", "share"),
    [
        (Like("A1", "cheaper"), [0, 1, 0, 0, 0]),
        (Like("A2", "dearer"), [1, 0, 0, 0, 0]),
        (Like("A2", "warmer"), [1, 1, 0, 0, 0]),
        (Like("A2", "other", "color"), [1, 0, 0, 0, 0]),
        (Like("A2", "same", "brand"), [1, 1, 0, 0, 0]),
        (Like("nothing", "cheaper"), [0, 0, 0, 0, 0]),
    ],
)
def test_a_product_to_go_by_ranks_what_stands_to_it_as_asked(facets: Facets, like: Like, share: list[int]) -> None:
    assert facets.features(Wish(like=like), np.arange(5))[:, 1].tolist() == share


def test_a_price_to_be_near_to_fades_to_half_and_double(facets: Facets) -> None:
    near = facets.features(Wish(price=Price(about=140)), np.arange(5))[:, 1]
    assert near[0] == 1
    assert 0 < near[1] < 1
    assert near[3] == near[4] == 0


def test_cheap_is_said_of_a_category(facets: Facets) -> None:
    assert facets.features(Wish(soft=("cheap",)), np.arange(5))[:, 1].tolist() == [0.5, 1.0, 1.0, 0.0, 1.0]


def test_rows_are_those_of_the_catalogue(store: Store, facets: Facets) -> None:
    ids = store.catalogue().item_ids
    assert [facets.row(item_id) for item_id in ids] == list(range(len(ids)))
    assert facets.row("nothing") is None


def test_a_store_without_products_has_no_facets(make_store: Callable[..., Store]) -> None:
    facets = Facets.of(make_store())
    assert facets.n_items == 0
    assert not facets.attributes
    assert facets.may(Wish(price=Price(at_most=1))).shape == facets.fits(Wish({"color": ("Red",)})).shape == (0,)
    assert facets.features(Wish(text="a shirt"), np.zeros(0, np.int64)).shape == (0, 3)


def test_facets_come_back_from_a_folder_as_they_were(facets: Facets, tmp_path: Path) -> None:
    save_facets(facets, tmp_path)
    kept = load_facets(tmp_path)
    wish = Wish(
        {"color": ("Black",), "category": ("Boots",)}, {"brand": ("Harrow",)}, (), Price(150), None, ("winter",), "warm"
    )
    rows = np.arange(facets.n_items)
    assert kept.may(wish).tolist() == facets.may(wish).tolist()
    assert kept.fits(wish).tolist() == facets.fits(wish).tolist()
    assert kept.features(wish, rows).tolist() == facets.features(wish, rows).tolist()
    assert (kept.heads, kept.title_words, kept.row("A3")) == (facets.heads, facets.title_words, 2)


def test_a_product_that_does_not_say_an_attribute_fits_it_where_its_text_holds_all_the_words(
    make_store: Callable[..., Store],
) -> None:
    """A brass telescope without a material came behind thirty pieces of jewellery for "brass telescope"."""
    store = make_store(
        "item_id,title,material,category\nA,Hoop Earrings,Plated Brass,Jewellery\nB,Brass telescope,,\nC,Brass lamp,,\n"
        "D,Brass telescope of steel,Steel,"
    )
    facets = Facets.of(store)
    wish = Wish({"material": ("Plated Brass",)}, text="brass telescope")
    assert facets.fits(wish).tolist() == [1, 1, 0, 0]
    assert facets.fits(Wish({"material": ("Plated Brass",)})).tolist() == [1, 0, 0, 0]


def test_what_a_category_costs_is_kept_with_the_facets(facets: Facets, tmp_path: Path) -> None:
    save_facets(facets, tmp_path)
    assert load_facets(tmp_path).cheapness.tolist() == facets.cheapness.tolist()
    assert isinstance(load_facets(tmp_path).__dict__["cheapness"].base, np.memmap), "sorting is not done again"


def test_a_price_that_no_index_can_hold_is_unknown(make_store: Callable[..., Store]) -> None:
    """A fuzzer's 1e300 stopped every later opening with a ConversionException."""
    store = make_store("\n    item_id,title,price\n    A,Shirt,20\n    B,Coat,30\n", "")
    store.upsert_items([{"item_id": "B", "price": 1e300}])
    assert Facets.of(store).prices[0] == 20
    assert np.isnan(Facets.of(store).prices[1])
