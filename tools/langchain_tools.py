"""The query memory and the retrieval as langchain-core tools with typed schemas, for agents that choose their tools
themselves.

recgraph's own graph calls the classes directly; these wrappers only add names, descriptions and JSON-able answers.
"""

from __future__ import annotations

from typing import Literal

from langchain_core.tools import StructuredTool
from pydantic import BaseModel, Field

from recgraph.tools.memory import QueryMemory
from recgraph.tools.retrieve import RetrievalQuery, Retriever


class LookupQueryMemory(BaseModel):
    """Arguments of `lookup_query_memory`."""

    query: str = Field(description="A shopping query in the user's own words.")
    queries: int = Field(default=3, ge=0, le=100, description="How many similar stored queries to look up (Q).")
    products: int = Field(default=5, ge=0, le=100, description="How many products to give for each of them (V).")


class RetrieveProducts(BaseModel):
    """Arguments of `retrieve_products`."""

    title: str = Field(default="", description="The title of the product to look for, in words.")
    item_id: str = Field(
        default="", description="The catalogue id of a product that would fit; similar ones are found too."
    )
    query: str = Field(default="", description="What the user searched for.")
    k: int = Field(default=10, ge=1, le=1000, description="How many products to give.")
    mode: Literal["fused", "paper"] = Field(
        default="fused", description="fused: all sources; paper: title and id only."
    )


def memory_tool(memory: QueryMemory) -> StructuredTool:
    """`lookup_query_memory`: a list of {query, similarity, item_ids}, the nearest stored query first."""

    def lookup_query_memory(query: str, queries: int = 3, products: int = 5) -> list[dict[str, object]]:
        hits = memory.lookup(query, queries, products)
        return [{"query": hit.query, "similarity": hit.similarity, "item_ids": list(hit.item_ids)} for hit in hits]

    return StructuredTool.from_function(
        lookup_query_memory,
        name="lookup_query_memory",
        description="Finds earlier queries of this shop that mean nearly the same, and the products they showed, best "
        "placed first.",
        args_schema=LookupQueryMemory,
    )


def retrieve_tool(retriever: Retriever) -> StructuredTool:
    """`retrieve_products`: a list of {item_id, title, score, source, sources}, best first; no repeats, all from the
    catalogue."""

    def retrieve_products(
        title: str = "", item_id: str = "", query: str = "", k: int = 10, mode: Literal["fused", "paper"] = "fused"
    ) -> list[dict[str, object]]:
        found = retriever.candidates(RetrievalQuery(item_id, title, query, k=k, mode=mode))
        return [
            {
                "item_id": c.item_id,
                "title": retriever.name_of(c.item_id),
                "score": c.score,
                "source": c.source,
                "sources": list(c.sources),
            }
            for c in found
        ]

    return StructuredTool.from_function(
        retrieve_products,
        name="retrieve_products",
        description="Finds products of the catalogue by title, by a similar product's id, by a query, or by all of "
        "them.",
        args_schema=RetrieveProducts,
    )
