"""What requests carry and answers look like, as pydantic models: they check what comes from outside, and OpenAPI is
made of them. Ids and texts are bounded here; what they mean is unknown.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    StrictBool,
    model_validator,
)

MOST_PRODUCTS = 100  # in one answer
MOST_ROWS = 1000  # events or products in one request, and ids that are excluded
MOST_LETTERS = 4000  # of a query; the understanding reads the first thousand
AHEAD = timedelta(days=1)  # that a clock may be ahead: an event of a later day would hide all others from "lately"


def _not_ahead(ts: datetime) -> datetime:
    moment = ts if ts.tzinfo else ts.replace(tzinfo=UTC)
    if moment > datetime.now(UTC) + AHEAD:
        raise ValueError("lies in the future")
    return ts


def _iso(ts: object) -> object:
    """A bare number is seconds to one and milliseconds to another."""
    if ts is not None and not (isinstance(ts, str) and re.match(r"[0-9]{4}-", ts)):
        raise ValueError("is an ISO 8601 time in quotes, such as 2026-03-01T12:00:00Z")
    return ts


Moment = Annotated[datetime, BeforeValidator(_iso)]

# No control characters: an id stands in addresses, prompts and pages.
Id = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$", examples=["U123"])]
Name = Annotated[str, Field(min_length=1, max_length=60)]
Word = Annotated[str, Field(min_length=1, max_length=200)]
Words = Annotated[dict[Name, Annotated[list[Word], Field(max_length=50)]], Field(max_length=20)]
Amount = Annotated[FiniteFloat, Field(ge=0, le=1e12, strict=True)]  # strict: neither "5" nor true is a number
Text = Annotated[str, Field(max_length=1000)]


class Strict(BaseModel):
    """A field that is not known is an error: a misspelt filter must not be passed over."""

    model_config = ConfigDict(extra="forbid")


class PriceJson(Strict):
    """Bounds in the shop's currency, which hold for every product, and a price to be near to."""

    at_most: Amount | None = None
    at_least: Amount | None = None
    about: Amount | None = None


class LikeJson(Strict):
    """A product to go by."""

    item_id: Id
    relation: Literal["similar", "cheaper", "dearer", "warmer", "lighter", "other", "same"] = "similar"
    attribute: Annotated[str, Field(max_length=60)] = ""


class WishJson(Strict):
    """A wish given ready-made, as `understood` of an answer has it. `required` attributes of `want`, all of `avoid` and
    the bounds of `price` hold for every product."""

    want: Words = {}
    avoid: Words = {}
    required: Annotated[list[Name], Field(max_length=20)] = []
    price: PriceJson = PriceJson()
    like: LikeJson | None = None
    soft: Annotated[list[Word], Field(max_length=50)] = []
    text: Text = ""


class FiltersJson(Strict):
    """Filters that hold for every product. A value that no product has is refused, with those that are near."""

    want: Words = {}
    avoid: Words = {}
    price: PriceJson = PriceJson()


class RecommendationRequest(Strict):
    """Whom to recommend to, and what is asked for."""

    user_id: Id
    query: Annotated[str, Field(max_length=MOST_LETTERS, description="what the shopper searches for now")] = ""
    wish: WishJson | None = None
    filters: FiltersJson | None = None
    exclude: Annotated[list[Id], Field(max_length=MOST_ROWS, description="item ids that are never shown")] = []
    k: Annotated[int, Field(ge=1, le=MOST_PRODUCTS, strict=True)] = 10
    as_of: Annotated[str, Field(max_length=40, description="know nothing later: an ISO time, or an event number")] = ""
    deadline_ms: Annotated[int | None, Field(ge=50, le=120_000, strict=True, description="waiting included")] = None
    thread: Annotated[str, Field(max_length=100, description="of a conversation, in which wishes add up")] = ""
    new_user: Annotated[StrictBool, Field(description="accept a shopper of whom no events are known")] = False
    stream: Annotated[StrictBool, Field(description="server-sent events: `node` as each ends, then `answer`")] = False

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"user_id": "U123", "query": "chunky wool cardigan under 90", "k": 3},
                {"user_id": "U123", "filters": {"avoid": {"brand": ["Harrow"]}, "price": {"at_most": 60}}},
            ]
        },
    )


class ChatRequest(Strict):
    """What a shopper says to the assistant."""

    user_id: Id
    text: Annotated[str, Field(min_length=1, max_length=MOST_LETTERS, examples=["not that brand, and under 90"])]
    thread: Annotated[str, Field(max_length=100, description="of a conversation; it is this shopper's alone")] = ""
    stream: Annotated[StrictBool, Field(description="server-sent events: `node` as each ends, then `reply`")] = False

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"user_id": "U123", "text": "black boots, not leather", "thread": "t1"}]},
    )


class EventJson(Strict):
    """What a shopper did. A search names a query, everything else a product."""

    user_id: Id
    action: Literal["search", "click", "cart", "purchase"]
    item_id: Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")] = ""
    query: Text = ""
    ts: Annotated[Moment, AfterValidator(_not_ahead)] | None = None
    position: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None
    event_id: Annotated[str, Field(max_length=200, description="the same id of the same user is written once")] = ""

    @model_validator(mode="after")
    def _names_what_it_is_of(self) -> EventJson:
        if self.action == "search" and (self.item_id or not self.query):
            raise ValueError("a search names a query and no product")
        if self.action != "search" and not self.item_id:
            raise ValueError(f"a {self.action} names a product")
        return self


class EventsRequest(Strict):
    """Events, all of them written or none."""

    events: Annotated[list[EventJson], Field(min_length=1, max_length=MOST_ROWS)]

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {"event_id": "e-1", "user_id": "U123", "action": "search", "query": "wool cardigan"},
                        {"event_id": "e-2", "user_id": "U123", "action": "click", "item_id": "P00042"},
                    ]
                }
            ]
        },
    )


class ItemJson(Strict):
    """A product: what is given is written, what is not stays as it is, null empties a field. `url` and `image_url` are
    attributes."""

    item_id: Id
    title: Text | None = None
    category: Text | None = None
    brand: Text | None = None
    color: Text | None = None
    size: Text | None = None
    price: Amount | None = None
    description: Annotated[str, Field(max_length=20_000)] | None = None
    attributes: Annotated[dict[Name, Annotated[str, Field(max_length=2000)]], Field(max_length=100)] | None = None
    parent_id: Annotated[str, Field(max_length=200)] | None = None
    first_seen: Moment | None = None
    in_stock: StrictBool = True
    listed: StrictBool = True


class ItemsRequest(Strict):
    """Products that are new, cost something else, or are sold out; all of them written or none."""

    items: Annotated[list[ItemJson], Field(min_length=1, max_length=MOST_ROWS)]

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"items": [{"item_id": "P00042", "price": 59.9, "in_stock": False}]}]},
    )


# ── Answers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Open(BaseModel):
    """An answer, to which later versions add."""

    model_config = ConfigDict(extra="allow")


class ProductLine(Open):
    """A product of an answer, and why it is there."""

    rank: int
    item_id: str
    title: str
    price: float | None
    currency: str
    source: str
    reason: str
    evidence: dict[str, Any]


class RecommendationJson(Open):
    """One recommendation: what was understood, the products, where each came from, and what had to be done without."""

    run_id: str
    user_id: str
    query: str
    understood: dict[str, Any]
    summary: dict[str, Any]
    items: list[ProductLine]
    timings_ms: dict[str, float]
    models: dict[str, str]
    degraded: list[str]


class WrittenJson(Open):
    """How many of the events were written, and how many were known by their ids already."""

    written: int
    known: int


class ChangedJson(Open):
    """The products that are other ones now."""

    changed: list[str]


class SentenceJson(Open):
    """A sentence on a shopper, and the events it was made from."""

    text: str
    events: list[dict[str, Any]]


class SummaryJson(Open):
    """What is known of a shopper."""

    user_id: str
    text: str
    made_by: str
    sentences: list[SentenceJson]
    degraded: list[str]


class HistoryJson(Open):
    """What a shopper did, oldest first."""

    events: list[dict[str, Any]]


class ShopJson(Open):
    """A shop, and what answers for it."""

    name: str
    simulated: str
    currency: str
    items: int
    users: int
    models: dict[str, str]


class ReplyJson(Open):
    """A turn of the assistant."""

    text: str
    products: list[dict[str, Any]]
    understood: dict[str, Any]
    relaxed: list[dict[str, Any]]
    asked_back: str
    run_id: str
    degraded: list[str]
    plan: list[str]


class UsersJson(Open):
    """The most active shoppers."""

    users: list[dict[str, Any]]


class ReplayJson(Open):
    """A run given again, beside what was answered then."""

    run_id: str
    equal: bool
    gone: list[str]
    moved: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    answer: RecommendationJson


class GoneJson(Open):
    """What was taken out, counted by what it was; all 0 where nothing was known."""

    gone: dict[str, int]


class StateJson(Open):
    """How the server is."""

    status: str
    version: str


class ProblemJson(Open):
    """What went wrong, and what mends it (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
