"""The facets of a catalogue of which some products changed or came after the others: what was read in bulk is shared,
the columns that changed are copied. Which products a wish asks for is facets.py's subject.

A value that no product had becomes one of its attribute; an attribute that no product had waits until all facets are
read anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import cast

import numpy as np

from recgraph.store.facets import BASE, CodedColumn, TextRows
from recgraph.store.records import Item
from recgraph.tools.wish.facets import Attribute, Facets, Mask, _pattern
from recgraph.tools.wish.spelling import fold, plain
from recgraph.tools.wish.texts import hold, words_of
from recgraph.tools.wish.words import NAMES

_TEXT = 300  # letters of a description that count, as store/facets.py reads them


class _Renewed(Facets):
    """Facets with rows behind those that are in order."""

    old: Facets
    new_rows: Mapping[str, int]

    def row(self, item_id: str) -> int | None:
        return self.new_rows[item_id] if item_id in self.new_rows else self.old.row(item_id)

    def texts_with(self, text: str) -> Mask:
        texts = cast(_Texts, self.texts)
        found = np.zeros(self.n_items, bool)
        found[: self.old.n_items] = self.old.texts_with(text)
        rows, words = list(texts.others), [word for word in words_of(text) if word != "and"]
        found[rows] = np.all([hold(word, [texts[row] for row in rows]) for word in words], axis=0) if words else False
        return found


class _Texts:
    """Rows of texts, some of them others."""

    def __init__(self, base: TextRows | _Texts, others: Mapping[int, bytes]) -> None:
        self._base: TextRows = base._base if isinstance(base, _Texts) else base
        self.others: Mapping[int, bytes] = {**base.others, **others} if isinstance(base, _Texts) else dict(others)

    def __getitem__(self, row: int) -> bytes:
        return self.others[row] if row in self.others else self._base[row]


def facets_with(old: Facets, items: Mapping[int, Item]) -> Facets:
    """The facets with these products in these rows; rows from `old.n_items` on are new, and none is left out."""
    n = old.n_items
    more = sum(row >= n for row in items)
    prices = np.concatenate([old.prices, np.full(more, np.nan, np.float32)])
    for row, item in items.items():
        prices[row] = np.nan if item.price is None else item.price
    attributes = {name: _attribute(one, items, n + more) for name, one in old.attributes.items()}
    texts = cast(TextRows, _Texts(old.texts, {row: _text(item) for row, item in items.items()}))
    found = _Renewed(attributes, prices, old.ids, texts, old.title_words, old.heads)
    first = old.old if isinstance(old, _Renewed) else old
    rows = {item.item_id: row for row, item in items.items() if row >= first.n_items}
    found.longest = old.longest
    found.old, found.new_rows = first, {**old.new_rows, **rows} if isinstance(old, _Renewed) else rows
    return found


def _attribute(old: Attribute, items: Mapping[int, Item], n: int) -> Attribute:
    """The same attribute, if none of the items says anything else of it; else with their codes."""
    said = {row: _says(old, item) for row, item in items.items()}
    column = old.column
    had = len(column.codes)
    if n == had and all(column.raw[column.codes[row]] == value for row, value in said.items()):
        return old
    fresh = sorted({value for value in said.values() if value and value not in column.raw})
    raw = [*column.raw, *fresh]
    code_of = {
        value: column.raw.index(value) if value in column.raw else raw.index(value) for value in {*said.values()}
    }
    kind = column.codes.dtype if len(raw) <= np.iinfo(column.codes.dtype).max else np.dtype(np.uint32)
    codes = np.concatenate([column.codes, np.zeros(n - had, column.codes.dtype)]).astype(kind)
    for row, value in said.items():
        codes[row] = code_of[value]
    changed = CodedColumn(raw, codes)
    if not fresh:
        return replace(old, column=changed)
    return Attribute.of(old.name, changed)


def _says(attribute: Attribute, item: Item) -> str:
    """What a product says of an attribute, as the whole catalogue is read (store/facets.py): its own column, the keys
    that mean the attribute, the title."""
    if attribute.name in BASE and (value := str(getattr(item, attribute.name)).strip()):
        return value
    for key, value in sorted(item.attributes.items()):
        if NAMES.get(fold(key), fold(key)) == attribute.name and value.strip():
            return value.strip()
    if attribute.name not in ("color", "department"):
        return ""
    return "/".join(dict.fromkeys(_words(attribute.name, frozenset(attribute.values)).findall(plain(item.title))))


@lru_cache(maxsize=8)
def _words(name: str, values: frozenset[str]) -> re.Pattern[str]:
    found = Attribute(
        name, CodedColumn([""], np.zeros(0, np.uint8)), dict.fromkeys(values, np.zeros(0, np.int64)), {}, {}
    )
    return re.compile(_pattern(name, found))


def _text(item: Item) -> bytes:
    parts = (
        item.title,
        item.category,
        item.brand,
        item.color,
        " ".join(item.attributes.values()),
        item.description[:_TEXT],
    )
    return plain(" ".join(part for part in parts if part)).replace("\n", " ").encode("utf-8", "replace")
