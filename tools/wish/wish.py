"""What a shopper asks for, as a type: what is wanted and what not, between which prices, like which product, for what.

A `Wish` is frozen plain data. It is made of words by tools/wish/understand.py, or given ready-made; which products fit
it is for tools/wish/facets.py to say. Three strengths (DESIGN 9): *hard* parts hold for every product that is shown,
what fits the *named* ones comes before all that does not, *soft* ones rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from recgraph.errors import SettingsError
from recgraph.tools.wish.spelling import fold
from recgraph.tools.wish.words import NAMES

RELATIONS = ("similar", "cheaper", "dearer", "warmer", "lighter", "other", "same")
Values = Mapping[str, tuple[str, ...]]
WORDS = "words"  # in `avoid`: words that no text of a product may hold, where no attribute knows them


@dataclass(frozen=True, slots=True)
class Price:
    """Bounds in the shop's currency, which are hard, and a price to be near to, which is soft. None: not asked for.
    SettingsError for what is no number."""

    at_most: float | None = None
    at_least: float | None = None
    about: float | None = None

    def __post_init__(self) -> None:
        for name in ("at_most", "at_least", "about"):
            if (value := getattr(self, name)) is not None:
                if not math.isfinite(value):
                    raise SettingsError(f"{name} of a price is {value}; it must be a finite number.")
                object.__setattr__(self, name, float(value))  # 90 and 90.0 are one wish, also as JSON

    def __bool__(self) -> bool:
        return any(one is not None for one in (self.at_most, self.at_least, self.about))

    def then(self, later: Price) -> Price:
        """Both, where they do not contradict each other: an earlier bound that leaves nothing between it and a later
        one is gone, and so is an earlier `about` where a later bound is named."""
        if not later:
            return self
        most, least = self.at_most, self.at_least
        if later.about is not None or (later.at_least is not None and most is not None and later.at_least > most):
            most = None
        if later.about is not None or (later.at_most is not None and least is not None and later.at_most < least):
            least = None
        return Price(
            most if later.at_most is None else later.at_most,
            least if later.at_least is None else later.at_least,
            later.about,
        )


@dataclass(frozen=True, slots=True)
class Like:
    """A product to go by and how what is wanted stands to it: one of RELATIONS. `attribute` is what "other" and "same"
    are said of ("color", "brand"). SettingsError for another relation."""

    item_id: str
    relation: str = "similar"
    attribute: str = ""

    def __post_init__(self) -> None:
        if self.relation not in RELATIONS:
            raise SettingsError(f"relation is '{self.relation}'; it must be one of {', '.join(RELATIONS)}.")


@dataclass(frozen=True, slots=True)
class Wish:
    """`want` and `avoid` map an attribute (category, brand, color, size, department, or any of the shop's) to values:
    one of the wanted ones fits, none of the avoided ones does. Values are spelled as the shop spells them.

    Hard are `avoid`, the bounds of `price`, and `want` of the attributes in `required` (a size that was asked for, a
    filter that was given). Named are the other attributes of `want`. Soft are `like`, `price.about`, `soft` (occasions,
    seasons) and `text`, the words that are left. `dropped` are the attributes ("price" among them) that these words
    take back from earlier ones of the conversation. Names of attributes are brought to the one used here ("Colour":
    color), so that a wish given ready-made is not passed over.
    """

    want: Values = field(default_factory=dict)
    avoid: Values = field(default_factory=dict)
    required: tuple[str, ...] = ()
    price: Price = field(default_factory=Price)
    like: Like | None = None
    soft: tuple[str, ...] = ()
    text: str = ""
    dropped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("want", "avoid"):
            object.__setattr__(self, name, _values(getattr(self, name)))
        for name in ("required", "dropped"):
            object.__setattr__(self, name, tuple(map(attribute_name, getattr(self, name))))

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.want or self.avoid or self.price or self.like or self.soft or self.text)

    @property
    def hard(self) -> bool:
        """Whether anything must hold for every product shown."""
        bounds = self.price.at_most is not None or self.price.at_least is not None
        return bool(self.avoid or bounds or any(name in self.want for name in self.required))

    @property
    def named(self) -> tuple[str, ...]:
        """The attributes whose values come first, in the order they were named."""
        return tuple(name for name in self.want if name not in self.required)

    def then(self, later: Wish) -> Wish:
        """The sum of two wishes of one conversation: what the later one says of an attribute wins, what it drops is
        gone, all else stays."""
        kept = {name: values for name, values in self.want.items() if name not in {*later.dropped, *later.want}}
        for name, values in later.avoid.items():
            left = tuple(value for value in kept.get(name, ()) if value not in values)
            if left:
                kept[name] = left
            else:
                kept.pop(name, None)
        want = {**kept, **later.want}
        avoid = {name: values for name, values in self.avoid.items() if name not in later.dropped}
        for name, values in later.avoid.items():
            avoid[name] = tuple(dict.fromkeys((*avoid.get(name, ()), *values)))
        for name, values in later.want.items():
            avoid[name] = tuple(value for value in avoid.get(name, ()) if value not in values)
        said = set(later.text.split()) if later.text else set()
        avoid[WORDS] = tuple(
            one for one in avoid.get(WORDS, ()) if one in later.avoid.get(WORDS, ()) or one not in said
        )
        return Wish(
            want,
            {name: values for name, values in avoid.items() if values},
            tuple(name for name in dict.fromkeys((*self.required, *later.required)) if name in want),
            (Price() if "price" in later.dropped else self.price).then(later.price),
            later.like or (None if "like" in later.dropped else self.like),
            tuple(dict.fromkeys((*(() if "soft" in later.dropped else self.soft), *later.soft))),
            later.text or self.text,
        )

    def with_filters(self, want: Values, avoid: Values, price: Price) -> Wish:
        """The same with filters that were given beside the words: they win over the words, and are hard."""
        return replace(self.then(Wish(want, avoid, tuple(want), price)), dropped=self.dropped)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the public JSON; `from_dict` reads it."""
        return {
            "want": {name: list(values) for name, values in self.want.items()},
            "avoid": {name: list(values) for name, values in self.avoid.items()},
            "required": list(self.required),
            "price": {name: getattr(self.price, name) for name in ("at_most", "at_least", "about")},
            "like": {"item_id": self.like.item_id, "relation": self.like.relation, "attribute": self.like.attribute}
            if self.like
            else None,
            "soft": list(self.soft),
            "text": self.text,
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Wish:
        """What `to_dict` wrote; what is missing is not asked for. SettingsError for what is no wish."""
        try:
            like = told.get("like")
            return cls(
                _values(told.get("want") or {}),
                _values(told.get("avoid") or {}),
                tuple(map(str, told.get("required") or ())),
                Price(
                    **{
                        name: None if value is None else float(value)
                        for name, value in (told.get("price") or {}).items()
                    }
                ),
                Like(**like) if like else None,
                tuple(map(str, told.get("soft") or ())),
                str(told.get("text") or ""),
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise SettingsError(f"'{str(told)[:80]}' is no wish ({error}); see docs/wishes.md.") from None

    def parts(self, currency: str = "") -> list[str]:
        """What was understood, a few words a part: "black", "boots", "under €60", "not Harrow"."""
        shown = [" or ".join(values) for values in self.want.values()]
        shown += [f"not {value}" for values in self.avoid.values() for value in values]
        for said, value in (("under", self.price.at_most), ("over", self.price.at_least), ("about", self.price.about)):
            shown += [] if value is None else [f"{said} {currency}{shown_amount(value)}"]
        if self.like:
            shown.append(" ".join(word for word in (self.like.relation, self.like.attribute) if word))
        return [*shown, *self.soft, *([f"“{self.text}”"] if self.text else [])]


def shown_amount(value: float) -> str:
    """An amount as a person reads it: 60, 59.99, 16777216."""
    return f"{value:.2f}".removesuffix(".00")


def attribute_name(told: str) -> str:
    """The name used here of an attribute: "Colour" and "farbe" are color."""
    key = fold(told)
    return NAMES.get(key, key)


def _values(told: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, value in told.items():
        values = (value,) if isinstance(value, str) else tuple(one for one in map(str, value) if one.strip())
        key = attribute_name(str(name))
        if values:
            found[key] = tuple(dict.fromkeys((*found.get(key, ()), *values)))
    return found
