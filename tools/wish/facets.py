"""Which products of a catalogue fit a wish: its attributes as columns of codes, in catalogue order.

An attribute's products are coded by what they say, word for word ("Black/White"); a value ("white") is the set of codes
that say it. So a question about 2.4 million products is a comparison of small integers. How people write a value is
for vocabulary.py to say; ranking is unknown here.

What becomes an attribute: category, brand, color, size, and each key of the catalogue's attributes whose values are few
(at most `MOST_VALUES`, at least `LEAST_PRODUCTS` products each on average, or at most `FEW_VALUES`) and short (at most
`LONGEST` letters on average) and no addresses. Keys that mean one attribute are one (Colour, Farbe: color; gender:
department).
Of a product whose colour or department is not said, the title is asked: the colour words that this shop or people use
("harrow shirt black"), and words such as "women's". A title never outweighs what the attribute says.
A product that says more than `MOST_SAID` values of one attribute says none of them: what has all colours has no colour
that somebody asks for.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recgraph.store.db import Store
from recgraph.store.facets import BASE, CodedColumn, FacetReader, TextRows
from recgraph.tools.wish.spelling import fold, plain
from recgraph.tools.wish.texts import hold, rows_with, words_of
from recgraph.tools.wish.wish import Like, Wish, shown_amount
from recgraph.tools.wish.words import COLOURS, DEPARTMENTS, LIGHT, NAMES, WARM

Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]

# What `Facets.features` says of an item: shares of the named parts, of the soft ones and of the free words that fit.
FEATURES = ("named", "soft", "text")

MOST_READ = 200_000  # products of a catalogue whose texts are read for a negation: 60 ms
MOST_VALUES, LEAST_PRODUCTS, FEW_VALUES, LONGEST = 1000, 3, 60, 40
MOST_SAID, _DEEPEST = 4, 8  # values of one attribute that a product may say, and the steps of a category's path
_ROOM = 1.5  # a text is too long from here on, times what all but a hundredth of the shop's have
_SEVERAL = re.compile(r"\s*[/>|;,]\s*")  # "Black/White", "Shoes > Boots", "60 % Cotton, 40 % Wool"
_SHARE = re.compile(r"^\d+([.,]\d+)?\s*%\s*|\s*\d+([.,]\d+)?\s*%$")
_WHOLE = ("brand",)  # a brand may be called "AC/DC"


@dataclass(frozen=True, slots=True)
class Relaxation:
    """A hard part of a wish that could give way ("under 60", "size 42"), and how many more products it would bring."""

    part: str
    more: int


@dataclass(frozen=True)
class Attribute:
    """One attribute of n products. `values` maps the folded key of a value to its codes (indices of `column.raw`),
    `spelling` to the value as the shop spells it, `count` to the number of products."""

    name: str
    column: CodedColumn
    values: Mapping[str, NDArray[np.int64]]
    spelling: Mapping[str, str]
    count: Mapping[str, int]

    @classmethod
    def of(cls, name: str, column: CodedColumn) -> Attribute:
        times = np.bincount(column.codes, minlength=len(column.raw))
        codes: dict[str, list[int]] = {}
        spelling: dict[str, str] = {}
        whole: set[str] = set()
        for code, raw in enumerate(column.raw[1:], 1):
            for value in values_in(name, raw):
                key = fold(value)
                if key and code not in codes.setdefault(key, [])[-1:]:
                    codes[key].append(code)
                if key and (key not in spelling or (value == raw and key not in whole)):
                    spelling[key] = value
                    whole.update([key] if value == raw else [])
        return cls(
            name,
            column,
            {key: np.array(sorted(set(found)), np.int64) for key, found in codes.items()},
            spelling,
            {key: int(times[list(set(found))].sum()) for key, found in codes.items()},
        )

    def codes_of(self, values: Collection[str], wide: bool = False) -> NDArray[np.int64]:
        """The codes that say any of the values; a department by all its names. `wide`: what is for all is for women,
        too."""
        keys = {fold(value) for value in values}
        if self.name == "department":
            meant = {DEPARTMENTS.get(key, key) for key in keys} | ({"unisex"} if wide else set())
            keys.update(key for key in self.values if DEPARTMENTS.get(key, key) in meant)
        found = [self.values[key] for key in keys if key in self.values]
        for value in values:  # "Black/White" is also what says White/Black
            parts = [self.values.get(fold(part)) for part in values_in(self.name, value)[1:]]
            if len(parts) > 1 and all(part is not None for part in parts):
                found.append(reduce(np.intersect1d, parts))  # type: ignore[arg-type]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)

    def says(self, codes: NDArray[np.int64], rows: Rows | None = None) -> Mask:
        """bool[items], or bool[rows]: which products say one of the codes."""
        said = self.column.codes if rows is None else self.column.codes[rows]
        if len(codes) <= 4:  # a comparison of 2.4 million bytes takes 0.2 ms, a look-up 5
            found = np.zeros(len(said), bool)
            for code in codes:
                found |= said == said.dtype.type(code)
            return found
        table = np.zeros(len(self.column.raw), bool)
        table[codes] = True
        return np.asarray(table[said], bool)


def values_in(name: str, raw: str) -> list[str]:
    """The values of what a product says: the whole, and its parts where it names several, but not too many."""
    if name in _WHOLE:
        return [raw]
    parts = dict.fromkeys(filter(None, (_SHARE.sub("", part) for part in _SEVERAL.split(raw))))
    most = _DEEPEST if name == "category" else MOST_SAID
    return list(dict.fromkeys([raw, *parts])) if len(parts) <= most else [raw]


class Facets:
    """What is known of a catalogue's products beside their titles. Thread-safe: nothing in it changes."""

    def __init__(
        self,
        attributes: Mapping[str, Attribute],
        prices: NDArray[np.float32],
        ids: TextRows,
        texts: TextRows,
        title_words: Mapping[str, int],
        heads: Mapping[str, Sequence[tuple[str, int]]],
    ) -> None:
        self.attributes, self.prices, self.ids, self.texts = attributes, prices, ids, texts
        self.title_words, self.heads = title_words, heads
        self.n_items = len(prices)

    @classmethod
    def of(cls, store: Store) -> Facets:
        """Of the store's whole catalogue, in its order (item_id)."""
        with FacetReader(store) as reader:
            attributes = {}
            for name, (base, keys) in _sources(reader).items():
                attribute = Attribute.of(name, reader.column(base, keys))
                pattern = _pattern(name, attribute)
                if pattern and (attribute.column.codes == 0).any():
                    attribute = Attribute.of(name, reader.column(base, keys, pattern))
                if len(attribute.column.raw) > 1:
                    attributes[name] = attribute
            return cls(attributes, reader.prices(), reader.ids(), reader.texts(), reader.title_words(), reader.heads())

    # -- masks over the catalogue ------------------------------------------------------------------------------------

    def may(self, wish: Wish) -> Mask:
        """bool[items]: for which products the hard parts hold. What is not known of a product does not hold: without a
        price it is under no bound; it is avoided only where it is known to be what is avoided, by what the shop says of
        it or, where that is nothing, by its text."""
        held = np.ones(self.n_items, bool)
        for _, breaks in self._broken(wish):
            held &= ~breaks
        return held

    def _broken(self, wish: Wish) -> Iterator[tuple[str, Mask]]:
        """Each hard part in words ("not Black", "size 42", "under 60"), and bool[items]: by which products it is
        broken."""
        for name, values in wish.avoid.items():
            for value in values:
                yield f"not {value}", self._is(name, value)
        for name in wish.required:
            if name in wish.want:
                yield f"{name} {' or '.join(wish.want[name])}", ~self._says(name, wish.want[name])
        # Rounding keeps the order: a price that is not above a bound is not above it in float32 either.
        with np.errstate(invalid="ignore", over="ignore"):
            if wish.price.at_most is not None:
                yield f"under {shown_amount(wish.price.at_most)}", ~(self.prices <= _single(wish.price.at_most))
            if wish.price.at_least is not None:
                yield f"over {shown_amount(wish.price.at_least)}", ~(self.prices >= _single(wish.price.at_least))

    def _is(self, name: str, value: str) -> Mask:
        """Which products are what is avoided: by the attribute or, where that says nothing, by their text; by that
        alone where the attribute is none of those known here (`WORDS`, or one with too many values)."""
        attribute = self.attributes.get(name)
        if attribute is None:
            return self.texts_with(value)
        found = self._says(name, (value,), wide=False)
        silent = attribute.column.codes == 0
        if name not in _TOLD_BY_TITLE and self.n_items <= MOST_READ and silent.any():
            found |= silent & self.texts_with(value)
        return found

    def texts_with(self, text: str) -> Mask:
        """bool[items]: which products' texts hold all the words."""
        return rows_with(text, self.texts, self.n_items)

    def fits(self, wish: Wish) -> NDArray[np.int8]:
        """int8[items]: how many of the named attributes (`Wish.named`) a product fits. Where few products do not say
        an attribute, those of them that hold all the free words fit it: a telescope of brass whose material nobody has
        filled in."""
        found, words = np.zeros(self.n_items, np.int8), words_of(wish.text)
        for name in wish.named:
            found += self._says(name, wish.want[name])
            if words and name in self.attributes:
                silent = np.flatnonzero(self.attributes[name].column.codes == 0)
                if 0 < len(silent) <= _FEW_SILENT:
                    texts = [self.texts[row] for row in silent.tolist()]
                    found[silent] += np.all([hold(word, texts) for word in words], axis=0) & (self._brief(texts) == 1)
        return found

    def relaxations(self, wish: Wish, offered: Mask, enough: bool = False) -> tuple[Relaxation, ...]:
        """The hard parts without which more of what is `offered` would fit, the one that brings most first; where no
        single one brings any, the fewest that do together ("under 60 and size 42"). Where they stand between the
        shopper and what they named (boots, of which none is under 150), only such products are counted; `enough` says
        that others are of no interest."""
        parts = list(islice(self._broken(wish), _MOST_PARTS))
        codes = np.zeros(self.n_items, np.int64)
        for place, (_, breaks) in enumerate(parts):
            codes |= breaks.astype(np.int64) << place
        if wish.named:
            fits = self.fits(wish)
            best = fits[offered].max(initial=0)
            if best > fits[offered & (codes == 0)].max(initial=0):
                offered, enough = offered & (fits == best), False
        if enough:
            return ()
        kinds, counts = np.unique(codes[offered & (codes > 0)], return_counts=True)
        times = dict(zip(kinds.tolist(), counts.tolist(), strict=True))
        fewest = min((kind.bit_count() for kind in times), default=0)
        found = [
            Relaxation(
                " and ".join(part for place, (part, _) in enumerate(parts) if kind >> place & 1),
                sum(count for other, count in times.items() if other | kind == kind),
            )
            for kind in times
            if kind.bit_count() == fewest
        ]
        return tuple(sorted(found, key=lambda one: (-one.more, one.part)))

    def _says(self, name: str, values: Sequence[str], rows: Rows | None = None, wide: bool = True) -> Mask:
        if name not in self.attributes:
            return np.zeros(self.n_items if rows is None else len(rows), bool)
        attribute = self.attributes[name]
        return attribute.says(attribute.codes_of(values, wide), rows)

    # -- features of some products -----------------------------------------------------------------------------------

    def features(self, wish: Wish, rows: Rows) -> NDArray[np.float32]:
        """float32[len(rows), len(FEATURES)], each between 0 and 1; 0 for a part that is not asked for."""
        texts = [self.texts[row] for row in rows.tolist()] if wish.soft or wish.like or wish.text else []
        named = [self._says(name, wish.want[name], rows) for name in wish.named]
        soft: list[NDArray[Any]] = [
            self.cheapness[rows] if word == "cheap" else self._soft(word, rows, texts) for word in wish.soft
        ]
        if wish.price.about:
            soft.append(_near(self.prices[rows], _single(wish.price.about)))
        if wish.like:
            soft.append(self._like(wish.like, rows, texts))
        brief = self._brief(texts)
        parts = (named, soft, [hold(word, texts) * brief for word in words_of(wish.text)])
        return np.stack(
            [np.mean(part, axis=0, dtype=np.float32) if part else np.zeros(len(rows), np.float32) for part in parts],
            axis=1,
        )

    def _brief(self, texts: Sequence[bytes]) -> NDArray[np.float32]:
        """float32[texts]: what it counts that a text holds a word: 1, and less the more it is longer than this shop's:
        what holds all words holds those of a query, too."""
        letters = np.fromiter(map(len, texts), np.float32, len(texts))
        return np.minimum(1, self.longest / np.maximum(letters, 1)).astype(np.float32)

    @cached_property
    def longest(self) -> float:
        """Bytes of a text that are no longer than this shop's are."""
        return float(_ROOM * np.quantile(np.diff(self.texts.starts), 0.99)) if self.n_items else 0.0

    @cached_property
    def cheapness(self) -> NDArray[np.float32]:
        """float32[items]: the share of its category that costs as much or more; 0 without a price."""
        category = self.attributes.get("category")
        kinds = category.column.codes if category else np.zeros(self.n_items, np.uint8)
        order = np.lexsort((self.prices, kinds))
        counts = np.bincount(kinds)
        starts = (np.cumsum(counts) - counts)[kinds[order]]
        found = np.zeros(self.n_items, np.float32)
        found[order] = 1 - (np.arange(self.n_items) - starts) / np.maximum(counts[kinds[order]], 1)
        found[np.isnan(self.prices)] = 0
        return found

    def _soft(self, word: str, rows: Rows, texts: list[bytes]) -> Mask:
        """Where any attribute says it, or the text holds all its words."""
        found = np.zeros(len(rows), bool)
        for attribute in self.attributes.values():
            codes = attribute.codes_of([word])
            if len(codes):
                found |= attribute.says(codes, rows)
        words = fold(word).split()
        return found | np.all([hold(one, texts) for one in words], axis=0) if words else found

    def _like(self, like: Like, rows: Rows, texts: list[bytes]) -> NDArray[np.float32]:
        """How a product stands to the one that is gone by, between 0 and 1; 0 where that is not in the catalogue."""
        place = self.row(like.item_id)
        if place is None:
            return np.zeros(len(rows), np.float32)
        alike = {
            name: (said := one.column.codes)[rows] == said[place]
            for name, one in self.attributes.items()
            if one.column.codes[place]
        }
        kind = alike.get("category", np.ones(len(rows), bool))
        if like.relation in ("cheaper", "dearer"):
            with np.errstate(invalid="ignore"):
                prices, mark = self.prices[rows], self.prices[place]
                other = prices < mark if like.relation == "cheaper" else prices > mark
                return np.asarray(kind & other, np.float32)
        if like.relation in ("warmer", "lighter"):
            words = WARM if like.relation == "warmer" else LIGHT
            fit = np.any([self._soft(word, rows, texts) for word in words], axis=0)
            return np.asarray(kind & fit, np.float32)
        if like.relation in ("other", "same") and like.attribute in alike:
            same = alike[like.attribute]
            return np.asarray(same if like.relation == "same" else kind & ~same, np.float32)
        others = [fit for name, fit in alike.items() if name != "size"]
        return np.mean(others, axis=0, dtype=np.float32) if others else np.zeros(len(rows), np.float32)

    def row(self, item_id: str) -> int | None:
        """The row of a product, None for one that is not in the catalogue."""
        key = item_id.encode("utf-8", "replace")
        place = bisect_left(range(self.n_items), key, key=self.ids.__getitem__)
        return place if place < self.n_items and self.ids[place] == key else None


_FEW_SILENT = 2_000  # products whose texts are read at a request
_MOST_PARTS = 60  # hard parts of which it is told what they cost
_TOLD_BY_TITLE = ("color", "department")  # where they are silent, the title is, too


def _single(price: float) -> np.float32:
    """A price of a wish as those of products are held: numbers beyond them stay numbers."""
    return np.float32(max(-1e30, min(price, 1e30)))


def _near(prices: NDArray[np.float32], about: np.float32) -> NDArray[np.float32]:
    """1 at the price, 0 from half as much and from double on; 0 where unknown."""
    with np.errstate(divide="ignore", invalid="ignore"):
        near = 1 - np.abs(np.log2(np.maximum(prices, 1e-6) / max(about, np.float32(1e-6))))
    return np.asarray(np.nan_to_num(np.clip(near, 0, 1)), np.float32)


def _sources(reader: FacetReader) -> dict[str, tuple[str, list[str]]]:
    """The attributes of a catalogue: name → (column of items, keys of its attributes), the columns first."""
    found: dict[str, tuple[str, list[str]]] = {name: (name, []) for name in BASE}
    found["department"] = ("", [])
    for key, items, values, length in reader.attribute_keys():
        name = NAMES.get(fold(key), fold(key))
        few = values <= FEW_VALUES or (values <= MOST_VALUES and items >= LEAST_PRODUCTS * values)
        if name and length <= LONGEST and (few or name in found):
            found.setdefault(name, ("", []))[1].append(key)
    return found


def _pattern(name: str, attribute: Attribute) -> str:
    """What a title says of an attribute, as RE2: the shop's own colours and people's, words for departments."""
    if name == "color":
        words = {*attribute.values, *COLOURS}
    elif name == "department":
        words = set(DEPARTMENTS)
    else:
        return ""
    spelled = sorted(plain(word) for word in words if len(word) > 2 and word.isascii())
    spelled.sort(key=len, reverse=True)  # the first that matches is taken: "sky blue" before "sky"
    return r"\b(?:" + "|".join(re.escape(word).replace(r"\ ", "[ -]") for word in spelled) + r")\b"
