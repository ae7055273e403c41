"""The whole recommender as one LangChain tool, `recommend`: what a model fills in, what it reads, what a program keeps.

A model reads short lines; the artifact beside them is the public JSON of the recommendation. What a model fills in
wrongly it is told of in the answer, so that it can ask again.
"""

from __future__ import annotations

from typing import Any, Protocol

from langchain_core.runnables.config import run_in_executor
from langchain_core.tools import StructuredTool
from pydantic import BaseModel, Field

from recgraph.errors import RecgraphError
from recgraph.graph.prompts import clean
from recgraph.graph.recommendation import Recommendation
from recgraph.tools.llm.untrusted import nameable, one_line

MOST_SHOWN = 50  # products a model may ask for
_DESCRIPTION = """Recommends products of this shop to a shopper, best first, by what they ask for and by what they
looked at and bought before. Give the shopper's own words as `query`: what they name comes first, and what they rule out
("not leather"), their price bounds and sizes hold for every product. Each line has the item_id in brackets, title,
price and the reason. Recommend only products of the answer, with the prices as they are given; where there are too few,
the last line says which part of the wish to give up: ask the shopper."""


class RecommendArguments(BaseModel):
    """Arguments of `recommend` for one fixed shopper."""

    query: str = Field(default="", description="What the shopper asks for, in their own words; empty: what may suit.")
    k: int = Field(default=5, ge=1, le=MOST_SHOWN, description="How many products at most.")


class RecommendToUserArguments(RecommendArguments):
    """Arguments of `recommend` where the model says for whom."""

    user_id: str = Field(description="The shopper's id in this shop.")


class Recommends(Protocol):
    """What the tool asks: a `Recommender`."""

    def recommend(self, user_id: str, query: str = "", **asked: Any) -> Recommendation: ...


def recommend_tool(shop: Recommends, user_id: str = "") -> StructuredTool:
    """The tool; with a `user_id` the model is not asked for one. Sync and async."""

    def recommend(query: str = "", k: int = 5, **who: str) -> tuple[str, dict[str, Any]]:
        try:
            found = shop.recommend(user_id or who["user_id"], query, k=k, new_user=True)
        except RecgraphError as error:
            return f"That did not work: {one_line(str(error))}", {}
        return content_of(found), found.to_dict()

    async def recommend_async(query: str = "", k: int = 5, **who: str) -> tuple[str, dict[str, Any]]:
        return await run_in_executor(None, recommend, query, k, **who)

    return StructuredTool.from_function(
        recommend,
        recommend_async,
        name="recommend",
        description=_DESCRIPTION,
        args_schema=RecommendArguments if user_id else RecommendToUserArguments,
        response_format="content_and_artifact",
    )


def content_of(found: Recommendation) -> str:
    """A recommendation as a model reads it."""
    parts = [clean(part, 80) for part in found.wish.parts(found.currency)]
    lines = [f"Understood: {', '.join(parts) or 'nothing in particular'}."]
    for line in found.items:
        if nameable(line.item.item_id):
            price = "price unknown" if line.item.price is None else f"{found.currency}{line.item.price:,.2f}"
            lines.append(f"[{line.item.item_id}] {clean(line.item.name)}, {price}. {clean(line.reason, 200)}")
    if not found.items:
        lines.append("No product fits.")
    if found.relaxed:
        ways = ", ".join(f"{one.more:,} more without “{clean(one.part, 80)}”" for one in found.relaxed[:3])
        lines.append(f"What could give way: {ways}.")
    return "\n".join(lines)
