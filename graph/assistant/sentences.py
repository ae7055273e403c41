"""What the assistant writes where no language model does: a few plain sentences for each thing a turn can be.

Every price has its currency, every product a short reason, and nothing is said of a product that its columns or the
reason of the run do not say. Texts of the shop and of the shopper are cleaned where they are put in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recgraph.graph.prompts import clean
from recgraph.store.records import Event, Item, show_time
from recgraph.tools.wish.wish import Wish, shown_amount

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_VALUES_TOLD, _WAYS_TOLD, _EVENTS_TOLD = 3, 2, 3
_TITLE, _VALUE = 90, 40
_DONE = {"search": "searched for", "click": "looked at", "cart": "put in the cart", "purchase": "bought"}
HELP = (
    "Tell me what you look for, as you would in a shop: “black boots under 150”. Then go on from there: “something "
    "warmer”, “not that brand”, “the second one in navy”, “in size 39”, “forget the price”, “show me more”. Ask “why "
    "the second?” for the reason, “tell me about the third” for a product, and say “start over” to forget it all."
)
HELLO = "Hello! What are you looking for? “Black boots under 150” will do, or “surprise me”."
THANKS = "You are welcome. Say so when you would like to see something else."
BYE = "Goodbye, and enjoy."
CHAT = "Good to hear. I only know this shop's products: what would you like to see?"
KEPT = "All right, everything stays as it was. What would you like to change?"
RESTARTED = "All forgotten. What are you looking for now?"
NOTHING_SHOWN = "I have not shown you anything yet. What are you looking for?"
NO_SUCH = "There is no such number: I showed {}."


def money(price: float | None, currency: str) -> str:
    """A price with its currency."""
    return "price not known" if price is None else f"{currency}{price:,.2f}"


def counted(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else f"{number:,}"


def described(wish: Wish, currency: str) -> str:
    """A wish as a phrase: "black or navy boots, under €150, not Harrow & Pine"."""
    told = {name: _either(name, values) for name, values in wish.want.items()}
    first = [told[name] for name in told if name not in ("brand", "category", "size", "department")]
    words = [clean(wish.text, 60)] if wish.text else []
    parts = [" ".join([*first, told["category"]] if "category" in told else first)]
    parts += [f"by {told['brand']}"] if "brand" in told else []
    parts += [f"in size {told['size']}"] if "size" in told else []
    parts += [f"for {told['department']}"] if "department" in told else []
    parts += [", ".join(_bounds(wish, currency))]
    parts += [", ".join(f"not {clean(value, _VALUE)}" for values in wish.avoid.values() for value in values)]
    parts += [wish.like.relation if wish.like.relation != "similar" else "like the one you named"] if wish.like else []
    parts += [clean(word, _VALUE).lower() for word in wish.soft]
    parts += [f"“{word}”" for word in words]
    return ", ".join(part for part in parts if part) or "anything"


def _either(name: str, values: Sequence[str]) -> str:
    shown = [clean(value, _VALUE) for value in values[:_VALUES_TOLD]]
    if name not in ("brand", "size"):
        shown = [value.lower() for value in shown]
    return " or ".join(shown) + (" or the like" if len(values) > _VALUES_TOLD else "")


def _bounds(wish: Wish, currency: str) -> list[str]:
    price = wish.price
    told = (("over", price.at_least), ("under", price.at_most), ("about", price.about))
    return [f"{word} {currency}{shown_amount(value)}" for word, value in told if value is not None]


def listed(products: Sequence[Mapping[str, Any]], first: int = 1) -> str:
    """A product a line: number, title, price, reason."""
    return "\n".join(
        f"{number}. {clean(str(one['title']), _TITLE)}, {money(one['price'], one['currency'])}. {one['reason']}"
        for number, one in enumerate(products, first)
    )


def found(
    products: Sequence[Mapping[str, Any]], wish: Wish, currency: str, *, more: bool, enough: bool, guest: bool
) -> str:
    """The sentence above a list."""
    number = counted(len(products))
    if not wish:
        return "What shoppers here like:" if guest else "By what you looked at lately, this may be for you:"
    what = described(wish, currency)
    if more:
        return f"{number.capitalize()} more for you ({what}):"
    return f"Here {'is' if len(products) == 1 else 'are'} {number} ({what}):" if enough else (
        f"{'Only ' + number} {'fits' if len(products) == 1 else 'fit'} ({what}):"
    )  # fmt: skip


def ways(relaxed: Sequence[Mapping[str, Any]], currency: str) -> str:
    """What could give way, and the question."""
    told = [f"without “{part_words(one['part'], currency)}” {one['more']:,} more" for one in relaxed[:_WAYS_TOLD]]
    first = part_words(relaxed[0]["part"], currency)
    return f"{told[0][:1].upper()}{', '.join(told)[1:]} would fit. Shall I leave out “{first}”?"


def part_words(part: str, currency: str) -> str:
    """A part of `relaxed` as a shopper says it: "under €60", "Black", "not Harrow & Pine"."""
    return " and ".join(_part(one, currency) for one in part.split(" and ")) if "under" in part or "over" in part else (
        _part(part, currency)
    )  # fmt: skip


def _part(part: str, currency: str) -> str:
    head, _, value = clean(part, 80).partition(" ")
    if head in ("under", "over"):
        return f"{head} {currency}{value}"
    return (
        f"size {value}"
        if head == "size"
        else value
        if head.islower() and head != "not" and value
        else f"{head} {value}".strip()
    )


def impossible(wish: Wish, relaxed: Sequence[Mapping[str, Any]], currency: str, *, more: bool) -> str:
    """Nothing fits, or nothing that was not shown yet."""
    what = described(wish, currency)
    begin = f"That was all there is for {what}." if more else f"Nothing here is {what}."
    if relaxed:
        return f"{begin} {ways(relaxed, currency)}"
    return f"{begin} Say what matters less, or “start over”."


def empty(categories: Sequence[str]) -> str:
    """Nothing is asked for: what could be."""
    some = ", ".join(clean(one, _VALUE).lower() for one in categories[:8])
    have = f" There are {some}." if some else ""
    return f"What are you looking for?{have} A colour, a brand, a size or a price helps, or say “surprise me”."


def unknown(words: str) -> str:
    return f"I do not know “{clean(words, 60)}” here."


def unsaid(words: str) -> str:
    """Free words that none of the products shown says."""
    return f"None of these says “{clean(words, 60)}”; I went by it as well as I could."


def why(place: int, product: Mapping[str, Any], wish: Wish, currency: str, events: Sequence[str]) -> str:
    """Why a product was shown: its reason, what it rests on, and what it was asked for."""
    said = f"Number {place + 1}, {clean(str(product['title']), _TITLE)}: {product['reason']}"
    if events:
        said += f" You {'; you '.join(events)}."
    queries = product.get("evidence", {}).get("queries") or []
    if queries:
        said += f" Shoppers who searched for “{clean(queries[0], 60)}” were shown it."
    return f"{said} It holds to what you asked for: {described(wish, currency)}." if wish else said


def events_told(events: Sequence[Event], items: Mapping[str, Item]) -> list[str]:
    """What a reason rests on, newest last: "looked at the Linen Shirt on 3 May (event 12)"."""
    told = []
    for event in events[-_EVENTS_TOLD:]:
        what = f"“{clean(event.query, 60)}”" if event.action == "search" else clean(
            items[event.item_id].name if event.item_id in items else event.item_id, 60
        )  # fmt: skip
        told.append(f"{_DONE.get(event.action, event.action)} {what} on {show_time(event.ts)[:10]} (event {event.seq})")
    return told


def about(place: int, product: Mapping[str, Any], item: Item | None) -> str:
    """A product, by its columns."""
    head = (
        f"Number {place + 1} is {clean(str(product['title']), _TITLE)}, {money(product['price'], product['currency'])}."
    )
    if item is None:
        return f"{head} It is no longer on sale."
    told = {"brand": item.brand, "category": item.category, "colour": item.color, "size": item.size, **item.attributes}
    named = {name: value for name, value in told.items() if value and not value.startswith(("http://", "https://"))}
    facts = "; ".join(f"{clean(name, 20).lower()} {clean(value, _VALUE)}" for name, value in list(named.items())[:12])
    text = f" {clean(item.description, 300)}" if item.description else ""
    stock = "" if item.offered else " It is sold out."
    return f"{head} {facts[:1].upper()}{facts[1:]}.{text}{stock}" + (f" {product['url']}" if product.get("url") else "")


def extreme(products: Sequence[Mapping[str, Any]], dearest: bool) -> tuple[int, str]:
    """The cheapest or dearest of what was shown: its place, and the sentence."""
    priced = [(one["price"], place) for place, one in enumerate(products) if one["price"] is not None]
    if not priced:
        return 0, "I do not know the prices of these."
    price, place = max(priced, key=lambda one: one[0]) if dearest else min(priced)
    one = products[place]
    word = "dearest" if dearest else "cheapest"
    return (
        place,
        f"The {word} is number {place + 1}, {clean(str(one['title']), _TITLE)}: {money(price, one['currency'])}.",
    )


def gone(parts: Sequence[str]) -> str:
    """What no longer counts."""
    return f"Without “{'”, “'.join(clean(part, 60) for part in parts[:3])}” now. " if parts else ""


def no_style(title: str) -> str:
    """The product pointed at does not come as it was asked for."""
    return f"The {clean(title, _TITLE)} does not come like that. " if title else ""
