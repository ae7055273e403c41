"""The query memory and the retrieval as langchain-core tools with typed schemas, for agents that choose their tools
themselves.

recgraph's own graph calls the classes directly; these wrappers add names, descriptions that a language model reads, and
JSON-able answers. What a model fills in wrongly it is told of in the answer, so that it can ask again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.tools import StructuredTool
from pydantic import BaseModel, Field

from recgraph.errors import SettingsError
from recgraph.store.records import Item
from recgraph.tools.candidates import Candidate
from recgraph.tools.llm.untrusted import harmless, nameable
from recgraph.tools.memory import QueryMemory
from recgraph.tools.retrieve import RetrievalQuery, Retriever
from recgraph.tools.wish.filters import filters
from recgraph.tools.wish.understand import understand
from recgraph.tools.wish.vocabulary import Vocabulary
from recgraph.tools.wish.wish import WORDS, Price, Wish

_LISTED = re.compile(r"[,;/|]|\bor\b|\band\b")  # a model gives "black, brown" as one
_TEXT_LIMIT = 200  # characters of a title or an attribute
_MEMORY = """Finds earlier searches of this shop that mean nearly the same, and the products that shoppers were shown
for them, best placed first. Use it to see what others who asked so looked at; to find products that fit what is asked,
use retrieve_products."""
_RETRIEVE = """Finds products of this shop that a shopper may buy now. Give the shopper's own words as `query`; fill in
a filter only where the shopper is strict about it, because every product then holds to it. What the query names (black,
boots) comes first; what it rules out, its price bounds and sizes hold for every product. The answer says what was
`understood`. Where it has too few `products`, or none of all that is named, `relaxed` says which part to give up and
how many more products that brings: ask the shopper. `problems` says which argument to correct. Recommend only products
of the answer, and name their prices as they are given."""


class LookupQueryMemory(BaseModel):
    """Arguments of `lookup_query_memory`."""

    query: str = Field(description="A shopping query in the user's own words.")
    queries: int = Field(default=3, ge=0, le=100, description="How many similar stored queries to look up (Q).")
    products: int = Field(default=5, ge=0, le=100, description="How many products to give for each of them (V).")


class RetrieveProducts(BaseModel):
    """Arguments of `retrieve_products`."""

    query: str = Field(
        default="",
        description="What the shopper asks for, in their own words, e.g. 'black boots under 60, not leather'. Colours, "
        "categories, brands, sizes, prices and negations in it are understood; the rest is searched for.",
    )
    category: str = Field(default="", description="Only products of this category, e.g. 'boots'.")
    brand: str = Field(default="", description="Only products of this brand.")
    color: str = Field(default="", description="Only products of this colour, e.g. 'black'.")
    size: str = Field(default="", description="Only products of this size, e.g. '42' or 'M'.")
    min_price: float | None = Field(default=None, ge=0, description="No product costs less, in the shop's currency.")
    max_price: float | None = Field(default=None, ge=0, description="No product costs more, in the shop's currency.")
    avoid: list[str] = Field(
        default_factory=list, max_length=20, description="What no product may be, e.g. ['leather', 'red']."
    )
    similar_to: str = Field(default="", description="The item_id of a product of this shop that would suit.")
    k: int = Field(default=10, ge=1, le=100, description="How many products to give at most.")


@dataclass(frozen=True)
class ShopTool:
    """What `retrieve_products` looks into. The functions give what holds now: a shop may change while an agent
    lives."""

    retriever: Callable[[], Retriever]
    vocabulary: Callable[[], Vocabulary]
    items: Callable[[Sequence[str]], Mapping[str, Item]]
    currency: str = ""


def memory_tool(memory: QueryMemory) -> StructuredTool:
    """`lookup_query_memory`: a list of {query, similarity, item_ids}, the nearest stored query first."""

    def lookup_query_memory(query: str, queries: int = 3, products: int = 5) -> list[dict[str, object]]:
        hits = memory.lookup(query, queries, products)
        return [
            {
                "query": harmless(hit.query, _TEXT_LIMIT),
                "similarity": hit.similarity,
                "item_ids": [item_id for item_id in hit.item_ids if nameable(item_id)],
            }
            for hit in hits
        ]

    return StructuredTool.from_function(
        lookup_query_memory,
        name="lookup_query_memory",
        description=_MEMORY,
        args_schema=LookupQueryMemory,
    )


def retrieve_tool(shop: ShopTool) -> StructuredTool:
    """`retrieve_products`: {understood, products, relaxed, problems}. `products`, best first, no repeats, all of the
    catalogue, hold to every filter and to the hard parts of the query; `relaxed` says what could give way where they
    are fewer than `k` or none is all that was named; `problems` what could not be held to. Where a filter
    names what no product has, there are no products."""

    def retrieve_products(**arguments: Any) -> dict[str, object]:
        asked = RetrieveProducts(**arguments)
        try:
            wish, problems = _wish(asked, shop.vocabulary())
        except SettingsError as error:
            return {"understood": [], "products": [], "relaxed": [], "problems": [str(error)]}
        retriever = shop.retriever()
        found = retriever.candidates(RetrievalQuery(asked.similar_to, query=asked.query, k=asked.k, wish=wish))
        enough = len(found) >= asked.k
        out_of_reach = not enough or found[0].fits < len(wish.named)
        less = retriever.relaxations(wish, enough=enough) if wish.hard and out_of_reach else ()
        items = shop.items([one.item_id for one in found])
        return {
            "understood": wish.parts(shop.currency),
            "products": [
                _product(one, items[one.item_id], shop.currency)
                for one in found
                if one.item_id in items and nameable(one.item_id)
            ],
            "relaxed": [{"part": one.part, "more": one.more} for one in less],
            "problems": problems,
        }

    return StructuredTool.from_function(
        retrieve_products,
        name="retrieve_products",
        description=_RETRIEVE,
        args_schema=RetrieveProducts,
    )


def _wish(asked: RetrieveProducts, vocabulary: Vocabulary) -> tuple[Wish, list[str]]:
    """What was asked for, and what of it could not be held to. SettingsError for a filter that names what no product
    has."""
    want = {name: _spelled(name, value, vocabulary) for name in ("category", "brand", "color", "size")
            if (value := getattr(asked, name).strip())}  # fmt: skip
    avoid: dict[str, list[str]] = {}
    problems = []
    for word in asked.avoid:
        meant, unknown = _unwanted(word, vocabulary)
        for name, values in meant.items():
            avoid.setdefault(name, []).extend(values)
        problems += [
            f"'{part[:40]}' is nothing that products are told apart by here: it could not be ruled out."
            for part in unknown
        ]
    ruled_out = Wish(avoid={WORDS: tuple(avoid.pop(WORDS, ()))})
    given = filters(vocabulary.facets, want, avoid, Price(at_most=asked.max_price, at_least=asked.min_price))
    return understand(asked.query, vocabulary).then(given).then(ruled_out), problems


def _unwanted(text: str, vocabulary: Vocabulary) -> tuple[dict[str, list[str]], list[str]]:
    """What a model wrote that no product may be, and what of it is not known. It is read as a whole ("Harrow and Pine")
    or, where that leaves anything over, part by part ("leather, wool")."""
    found: dict[str, list[str]] = {}
    unknown = []
    whole = understand(f"without {text}", vocabulary)
    for part in [text] if whole.avoid and not (whole.want or whole.text) else _LISTED.split(text):
        meant = understand(f"without {part}", vocabulary)
        for name, values in meant.avoid.items():
            found.setdefault(name, []).extend(values)
        unknown += [part.strip()] if part.strip() and (not meant.avoid or meant.want or meant.text) else []
    return found, unknown


def _spelled(name: str, value: str, vocabulary: Vocabulary) -> Sequence[str]:
    """The values that are meant by what a model wrote ("Blacks", "schwarz"); itself where nothing is known, so that the
    filter says so."""
    return understand(value, vocabulary).want.get(name, (value,))


def _product(found: Candidate, item: Item, currency: str) -> dict[str, object]:
    return {
        "item_id": item.item_id,
        "title": harmless(item.name, _TEXT_LIMIT),
        "price": item.price,
        "currency": currency,
        **{name: harmless(getattr(item, name), _TEXT_LIMIT) for name in ("category", "brand", "color", "size")},
        "fits": found.fits,
        "score": found.score,
        "source": found.source,
    }
