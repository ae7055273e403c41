"""Our items as UCP products (version 2026-08-25): a product is a group of items with one `parent_id`, a variant one of
them.

What a catalogue says is data: texts are cleaned, ids that cannot be given back letter by letter are left out, addresses
are http(s) only. Items without a price that a protocol can carry are left out and counted. Knows no request, no store
and no key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import AnyUrl, TypeAdapter, ValidationError

from recgraph.graph.recommendation import addresses
from recgraph.protocols.money import currency_code, minor_units
from recgraph.store.records import Item
from recgraph.tools.llm.untrusted import harmless, nameable

OPTIONS = (("Color", "color"), ("Size", "size"))  # what variants of one product differ in
_TITLE, _TEXT, _WORD = 200, 2000, 80  # characters
_MOST_ATTRIBUTES = 20
_URL = TypeAdapter(AnyUrl)


@dataclass
class Shelf:
    """Makes products of a shop whose currency is `currency` (an ISO code, "" where it has none that is known), and
    counts what it had to leave out."""

    currency: str
    unpriced: int = 0
    unnamed: int = 0
    notes: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, told: str) -> Shelf:
        """Of a shop that calls its currency so."""
        return cls(currency_code(told))

    def variant(self, item: Item, more: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """An item as a variant; `more` is what an extension says of it. None, counted, where it cannot be one."""
        if not nameable(item.item_id):
            self.unnamed += 1
            return None
        amount = minor_units(item.price, self.currency) if self.currency and item.price is not None else None
        if amount is None:
            self.unpriced += 1
            return None
        title = harmless(item.name, _TITLE) or item.item_id
        page, picture = addresses(item)
        found: dict[str, Any] = {
            "id": item.item_id,
            "sku": item.item_id,
            "title": title,
            "description": {"plain": harmless(item.description, _TEXT) or title},
            "price": {"amount": amount, "currency": self.currency},
            "availability": {
                "available": item.offered,
                "status": "in_stock" if item.offered else "out_of_stock" if item.listed else "discontinued",
            },
            "options": options_of(item),
            "url": valid_address(page),
            "media": _media(picture, title),
            "categories": _categories(item),
            "metadata": {**_metadata(item), **({"recgraph": dict(more)} if more else {})},
        }
        return {name: value for name, value in found.items() if value not in (None, [], {})}

    def product(self, product_id: str, items: Sequence[Item], variants: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A product of its variants, at least one, the first of which is featured; `items` are the items of all that
        its options and its title are told from."""
        first = variants[0]
        prices = sorted(variants, key=lambda one: one["price"]["amount"])
        title = style_title([harmless(item.name, _TITLE) for item in items]) if len(items) > 1 else first["title"]
        found: dict[str, Any] = {
            "id": product_id,
            "title": title,
            "description": first["description"],
            "url": first.get("url"),
            "categories": first.get("categories"),
            "price_range": {"min": prices[0]["price"], "max": prices[-1]["price"]},
            "media": first.get("media"),
            "options": product_options(items),
            "variants": list(variants),
        }
        return {name: value for name, value in found.items() if value not in (None, [], {})}

    def messages(self) -> list[dict[str, Any]]:
        """What an answer has to say beside its products."""
        told = list(self.notes)
        if not self.currency:
            why = "The shop's currency is not known as an ISO 4217 code, so no price can be given and no product shown."
            told.append(warning("currency_unknown", why))
        elif self.unpriced:
            told.append(info("no_price", f"{_products(self.unpriced)} without a price left out."))
        if self.unnamed:
            told.append(info("invalid_id", f"{_products(self.unnamed)} with an id that cannot be named left out."))
        return told


def product_id(item: Item) -> str:
    """The id of the product that an item is a variant of: its group, or itself where it has none that can be named."""
    return item.parent_id if nameable(item.parent_id) else item.item_id


def options_of(item: Item) -> list[dict[str, str]]:
    """Which option values a variant stands for."""
    told = ((name, harmless(str(getattr(item, attribute)), _WORD)) for name, attribute in OPTIONS)
    return [{"name": name, "label": label} for name, label in told if label]


def product_options(items: Iterable[Item]) -> list[dict[str, Any]]:
    """The options of a product: each value that some variant has."""
    labels: dict[str, dict[str, None]] = {}
    for item in items:
        for option in options_of(item):
            labels.setdefault(option["name"], {})[option["label"]] = None
    return [{"name": name, "values": [{"label": one} for one in values]} for name, values in labels.items()]


def style_title(titles: Sequence[str]) -> str:
    """What the titles of variants have in common from the start: "Harrow Linen Shirt" of "Harrow Linen Shirt, Olive, M"
    and "Harrow Linen Shirt, Navy, M"; the first one where that is nothing."""
    split = [re.split(r"(\s+)", title) for title in titles]
    words: list[str] = []
    for same in zip(*split, strict=False):
        if len({one.rstrip(",;-–") for one in same}) > 1:
            break
        words.append(same[0])
    shared = "".join(words).strip(" ,;-–/(")
    return shared if len(shared) > 3 else titles[0]


def info(code: str, content: str, **more: str) -> dict[str, Any]:
    """A message that changes nothing."""
    return {"type": "info", "code": code, "content": content, **more}


def warning(code: str, content: str) -> dict[str, Any]:
    """A message that a buyer has to see."""
    return {"type": "warning", "code": code, "content": content}


def _products(count: int) -> str:
    return "1 product" if count == 1 else f"{count} products"


def valid_address(address: str | None) -> str | None:
    """An address as the SDK's models take it, or None."""
    if not address or len(address) > _TEXT or not address.isprintable():
        return None
    try:
        return str(_URL.validate_python(address))
    except ValidationError:
        return None


def _media(picture: str | None, title: str) -> list[dict[str, str]]:
    address = valid_address(picture)
    return [{"type": "image", "url": address, "alt_text": title}] if address else []


def _categories(item: Item) -> list[dict[str, str]]:
    value = harmless(item.category, _TITLE)
    return [{"value": value, "taxonomy": "merchant"}] if value else []


def _metadata(item: Item) -> dict[str, Any]:
    """What the shop says beyond UCP's fields."""
    told = {name[:_WORD]: value for name, value in list(item.attributes.items())[:_MOST_ATTRIBUTES]}
    clean = {harmless(name, _WORD): harmless(value, _TITLE) for name, value in told.items()}
    brand = harmless(item.brand, _WORD)
    kept = {name: value for name, value in clean.items() if name and value and "://" not in value}
    return {**({"brand": brand} if brand else {}), **({"attributes": kept} if kept else {})}
