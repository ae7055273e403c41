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
from recgraph.tools.wish.wish import Price, Values, Wish, attribute_name

_LETTERS = 40  # letters of a wrong value in a message


def filters(
    facets: Facets,
    want: Mapping[str, Sequence[str]],
    avoid: Mapping[str, Sequence[str]],
    price: Price | None = None,
) -> Wish:
    """A wish of filters, all of them hard, in the shop's own spelling. SettingsError for an attribute or a value that
    no product has; it lists near ones."""
    values = {name: attribute.spelling for name, attribute in facets.attributes.items()}
    bounds = price or Price()
    if bounds.at_most is not None and bounds.at_least is not None and bounds.at_least > bounds.at_most:
        raise SettingsError(f"No price is at least {bounds.at_least:g} and at most {bounds.at_most:g}.")
    return Wish().with_filters(_spelled(values, want), _spelled(values, avoid), bounds)


def _spelled(shop: Mapping[str, Mapping[str, str]], asked: Mapping[str, Sequence[str]]) -> Values:
    found: dict[str, tuple[str, ...]] = {}
    for told, wanted in asked.items():
        name = attribute_name(told)
        if name not in shop:
            raise SettingsError(f"No product has a '{_shown(told)}'; there are {', '.join(sorted(shop))}.")
        for value in wanted:
            if fold(value) not in shop[name]:
                raise SettingsError(f"No product has the {name} '{_shown(value)}'{_near(value, shop[name])}.")
        values = (*found.get(name, ()), *(shop[name][fold(value)] for value in wanted))
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
