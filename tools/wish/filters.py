"""Filters: attributes and bounds that are given beside the words of a request, as a wish all of which is hard.

A value is one that products have, in the shop's spelling or nearly so; nothing is guessed here, for a filter that is
read wrongly hides products silently. What words of a request mean is understand.py's.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from recgraph.errors import SettingsError
from recgraph.tools.wish.facets import Facets
from recgraph.tools.wish.spelling import fold
from recgraph.tools.wish.wish import WORDS, Price, Values, Wish, attribute_name, shown_amount

_LETTERS = 40  # letters of a wrong value in a message


def filters(
    facets: Facets,
    want: Mapping[str, Sequence[str]],
    avoid: Mapping[str, Sequence[str]],
    price: Price | None = None,
) -> Wish:
    """A wish of filters, all of them hard, in the shop's own spelling. SettingsError for an attribute or a wanted value
    that no product has; it lists near ones. An unwanted value that no product has is held to all the same: one that
    comes later may have it (`unknown_values` says so)."""
    values = {name: attribute.spelling for name, attribute in facets.attributes.items()}
    bounds = price or Price()
    if bounds.at_most is not None and bounds.at_least is not None and bounds.at_least > bounds.at_most:
        raise SettingsError(
            f"No price is at least {shown_amount(bounds.at_least)} and at most {shown_amount(bounds.at_most)}."
        )
    return Wish().with_filters(_spelled(values, want), _spelled(values, avoid, unknown=True), bounds)


def unknown_values(facets: Facets | None, wish: Wish | None) -> list[str]:
    """What of a wish that was given ready-made no product has, a sentence each, with what is near. Nothing where a
    catalogue's facets are not known."""
    found: list[str] = []
    for asked in (wish.want, wish.avoid) if facets and wish else ():
        for name, values in asked.items():
            shop = facets.attributes[name].spelling if facets and name in facets.attributes else None
            if shop is None and name != WORDS:
                known = ", ".join(sorted(facets.attributes) if facets else ())
                found.append(f"No product has a '{_shown(name)}'; there are {known or 'no attributes'}.")
            found += [
                f"No product has the {name} '{_shown(value)}'{_near(value, shop)}."
                for value in values
                if shop is not None and fold(value) not in shop
            ]
    return found


def _spelled(
    shop: Mapping[str, Mapping[str, str]], asked: Mapping[str, Sequence[str]], unknown: bool = False
) -> Values:
    found: dict[str, tuple[str, ...]] = {}
    for told, wanted in asked.items():
        name = attribute_name(told)
        if name not in shop:
            raise SettingsError(f"No product has a '{_shown(told)}'; there are {', '.join(sorted(shop))}.")
        for value in wanted:
            if fold(value) not in shop[name] and not unknown:
                raise SettingsError(f"No product has the {name} '{_shown(value)}'{_near(value, shop[name])}.")
        values = (*found.get(name, ()), *(shop[name].get(fold(value), value) for value in wanted))
        found[name] = tuple(dict.fromkeys(values))
    return found


def _near(value: str, spelled: Mapping[str, str]) -> str:
    """What may have been meant; where nothing is near, some of what there is. `spelled`: by folded key."""
    near = difflib.get_close_matches(fold(value), spelled, n=5, cutoff=0.5)
    if near:
        return f"; near it are {', '.join(spelled[one] for one in near)}"
    some = sorted(spelled.values())
    return f"; there are {', '.join(some[:8])}{' and more' if len(some) > 8 else ''}"


def _shown(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text[:_LETTERS])
