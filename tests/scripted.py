"""Scripted conversations over the demo shop, with what must hold after each turn.

A turn is what the shopper says and what can be checked of the reply by the catalogue's own columns: what every product
shown has and has not, its bounds, whether something is asked back, what is said, what of the wish is gone. Nothing is
checked by the assistant's own account of what it understood, but for `lacks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from recgraph.store.records import Item


@dataclass(frozen=True)
class Said:
    """One turn. `has` and `no`: attribute → values parted by "|". `shows`: whether there are products (None: either).
    `cheaper_than`, `dearer_than`, `not_brand_of`, `brand_of`, `category_of`, `color_of`, `not_color_of`, `style_of`:
    places, from 0, in the list shown before. `fresh`: none was in the list before. `asks`: a question is asked back."""

    text: str
    has: dict[str, str] = field(default_factory=dict)
    no: dict[str, str] = field(default_factory=dict)
    under: float | None = None
    over: float | None = None
    shows: bool | None = True
    asks: bool | None = None
    says: str = ""
    lacks: str = ""
    fresh: bool = False
    cheaper_than: int | None = None
    dearer_than: int | None = None
    not_brand_of: int | None = None
    brand_of: int | None = None
    category_of: int | None = None
    color_of: int | None = None
    not_color_of: int | None = None
    without: int | None = None


@dataclass(frozen=True)
class Scripted:
    """A conversation."""

    name: str
    turns: tuple[Said, ...]
    user: str = "U123"


def say(text: str, **checks: Any) -> Said:
    """A turn; what no check is named is an attribute that all products must have, `no_` before it one they must not."""
    known = {name: checks.pop(name) for name in list(checks) if name in Said.__dataclass_fields__}
    no = {name.removeprefix("no_"): checks.pop(name) for name in list(checks) if name.startswith("no_")}
    return Said(text, checks, no, **known)


def quiet(text: str, **checks: Any) -> Said:
    """A turn that is answered without products."""
    return say(text, **{"shows": False, **checks})


def talk(name: str, *turns: Said, user: str = "U123") -> Scripted:
    return Scripted(name, turns, user)


BLACK = "Black|Washed Black"
BLUE = "Indigo|Light Blue|Mid Blue|Navy|Sky Blue|Washed Indigo"
GREEN = "Forest Green|Moss|Olive|Sage"
WOOL = "Wool|Lambswool|Merino"
CONVERSATIONS = (
    talk("the issue's own", say("black boots under 250", category="Boots", color=BLACK, under=250),
         say("something warmer", category="Boots", color=BLACK, under=250),
         say("under 230", category="Boots", color=BLACK, under=230),
         say("not that brand", category="Boots", color=BLACK, under=230, not_brand_of=0),
         quiet("why this?", says="Number 1"),
         say("forget the price", category="Boots", color=BLACK, lacks="price"),
         say("show me more", category="Boots", color=BLACK, fresh=True),
         quiet("thanks!", says="welcome")),
    talk("an impossible price", quiet("black boots under 100", asks=True, says="€100"),
         say("yes", category="Boots", color=BLACK, lacks="price"),
         say("in size 39", category="Boots", color=BLACK, size="EU 39")),
    talk("an impossible price, kept", quiet("boots under 20", asks=True), quiet("no", says="stays"),
         say("up to 200 then", category="Boots", under=200)),
    talk("ordinals in another colour", say("knee boots or chelsea boots", category="Boots"),
         say("the second one in chocolate", category="Boots", color="Chocolate"),
         quiet("why the first?", shows=None)),
    talk("a dress for a wedding", say("I'm looking for a dress for a wedding", category="Dresses", occasion="Wedding Guest"),
         say("not black please", category="Dresses", no_color=BLACK, occasion="Wedding Guest"),
         say("under 120", category="Dresses", no_color=BLACK, under=120, occasion="Wedding Guest"),
         say("show me more", category="Dresses", no_color=BLACK, under=120, fresh=True)),
    talk("cheaper and cheaper", say("cardigans", category="Knitwear"),
         say("that's too expensive", category="Knitwear", cheaper_than=0),
         say("still too expensive", category="Knitwear", cheaper_than=0),
         quiet("which is the cheapest?", says="cheapest")),
    talk("dearer", say("leather bags", category="Bags", material="Leather"),
         say("something more expensive", category="Bags", material="Leather", dearer_than=0)),
    talk("a brand only", say("jumpers from Harrow & Pine", category="Knitwear", brand="Harrow & Pine"),
         say("in navy", category="Knitwear", brand="Harrow & Pine", color="Navy", shows=None),
         say("forget the brand", category="Knitwear", color="Navy", lacks="brand")),
    talk("brands that are not wanted", say("sneakers, not Stridefell", category="Sneakers", no_brand="Stridefell"),
         say("not that brand either", category="Sneakers", no_brand="Stridefell", not_brand_of=0),
         say("any brand is fine", category="Sneakers", lacks="brand")),
    talk("no wool", say("warm cardigan", category="Knitwear"),
         say("no wool, I am allergic", category="Knitwear", no_material=WOOL),
         say("and no alpaca", category="Knitwear", no_material=WOOL + "|Alpaca"),
         say("in green", category="Knitwear", no_material=WOOL + "|Alpaca", color=GREEN, shows=None)),
    talk("start over", say("black jeans", category="Jeans", color=BLACK),
         quiet("start over", asks=True, lacks="category color"),
         say("red dresses", category="Dresses", color="Burgundy")),
    talk("start over with the next wish", say("black jeans under 90", category="Jeans", color=BLACK, under=90),
         say("start over, show me white shirts", category="Shirts & Blouses", color="White|Ivory|Ecru|Off White", lacks="price")),
    talk("small talk first", quiet("hi there!", asks=True), quiet("how are you?"), quiet("what can you do?", says="boots"),
         say("ok, show me some bags", category="Bags")),
    talk("nothing understood", quiet("xqzzy blorp", asks=True), quiet("", asks=True),
         say("surprise me")),
    talk("nothing asked", quiet("I want to buy something", asks=True), say("what do you recommend for me?")),
    talk("for a guest", say("recommend something"), say("boots under 200", category="Boots", under=200),
         say("in tan", category="Boots", under=200, color="Tan"), user="a guest nobody knows"),
    talk("changing the kind", say("navy skirts under 80", category="Skirts", color="Navy", under=80),
         say("actually make it trousers", category="Trousers", color="Navy", under=80, shows=None),
         say("or black", category="Trousers", color="Navy|" + BLACK, under=80)),
    talk("two colours", say("a scarf in black or grey", category="Scarves & Hats", color=BLACK + "|Grey Marl|Charcoal"),
         say("just grey", category="Scarves & Hats", color="Grey Marl|Charcoal")),
    talk("for somebody else", say("a shirt for my husband", category="Shirts & Blouses", department="Men|Unisex"),
         say("linen", category="Shirts & Blouses", department="Men|Unisex", material="Linen"),
         say("in size L", category="Shirts & Blouses", department="Men|Unisex", material="Linen", size="L"),
         say("forget the size", category="Shirts & Blouses", department="Men|Unisex", material="Linen", lacks="size")),
    talk("a size that matters", say("sneakers in size 42", category="Sneakers", size="EU 42"),
         quiet("white", asks=True, says="EU 42"),
         say("navy then", category="Sneakers", size="EU 42", color="Navy"),
         say("show me more", category="Sneakers", size="EU 42", color="Navy", shows=None, fresh=True)),
    talk("between", say("coats between 100 and 200", category="Coats & Jackets", over=100, under=200),
         say("at least 150", category="Coats & Jackets", over=150, under=200),
         say("the price does not matter", category="Coats & Jackets", lacks="price")),
    talk("another colour", say("wool jumper", category="Knitwear", material=WOOL),
         say("in another colour", category="Knitwear", material=WOOL, not_color_of=0)),
    talk("another brand", say("leather belts", category="Belts", material="Leather"),
         say("a different brand", category="Belts", material="Leather", not_brand_of=0)),
    talk("the same brand", say("sandals", category="Sandals"),
         say("more from that brand", category="Sandals", brand_of=0)),
    talk("like the third", say("dresses", category="Dresses"),
         say("something like the third one", category="Dresses", category_of=2),
         say("but cheaper", category="Dresses", cheaper_than=0, shows=None)),
    talk("like the first but cheaper", say("linen trousers", category="Trousers", material="Linen"),
         say("like the first one but cheaper", category="Trousers", cheaper_than=0)),
    talk("not this one", say("jeans", category="Jeans"), say("not the first one", category="Jeans", without=0),
         say("I don't like the second one", category="Jeans", without=1)),
    talk("details", say("sunglasses", category="Sunglasses"), quiet("tell me about the second one", says="Number 2"),
         quiet("how much is the third?", says="€"), quiet("why this one?", says="Number 3")),
    talk("a number too high", say("skirts", category="Skirts"), quiet("why the ninth?", says="five"),
         quiet("tell me about number 2", says="Number 2")),
    talk("undo", say("black bags", category="Bags", color=BLACK), say("under 60", category="Bags", color=BLACK, under=60, shows=None),
         say("undo", category="Bags", color=BLACK, lacks="price")),
    talk("black is fine after all", say("boots, not black", category="Boots", no_color=BLACK),
         say("black is fine after all", category="Boots", lacks="avoid.color")),
    talk("any colour but", say("t-shirts in white", category="T-Shirts & Tops", color="White|Ivory|Ecru|Off White"),
         say("any colour but white", category="T-Shirts & Tops", no_color="White"),
         say("only cotton", category="T-Shirts & Tops", no_color="White", material="Cotton|Organic Cotton|Slub Cotton|Cotton Twill")),
    talk("German colours", say("schwarze Stiefel", category="Boots", color=BLACK), say("nicht Stridefell", category="Boots", color=BLACK, no_brand="Stridefell")),
    talk("slips of the finger", say("blak bootts", category="Boots", color=BLACK), say("under 260 euro pls", category="Boots", color=BLACK, under=260)),
    talk("courtesy around it", say("Hello, could you please show me navy blazers under 200?", color="Navy", under=200),
         say("thanks, and in size M please", color="Navy", under=200, size="M"),
         quiet("thank you so much, bye")),
    talk("that colour", say("olive shirts", category="Shirts & Blouses", color="Olive"),
         say("trousers in that colour", category="Trousers", color="Olive")),
    talk("not the colour of the first", say("knitwear", category="Knitwear"), say("I don't like the colour of the first one", category="Knitwear", not_color_of=0)),
    talk("forget everything", quiet("silk scarf", asks=True, says="silk"), quiet("forget everything", asks=True, lacks="category material"),
         say("jewellery under 50", category="Jewellery", under=50)),
    talk("nothing more", say("Haldenmark boots in black", category="Boots", color=BLACK, brand="Haldenmark"),
         say("more", category="Boots", color=BLACK, brand="Haldenmark", shows=None, fresh=True),
         say("other ones", category="Boots", color=BLACK, brand="Haldenmark", shows=None, fresh=True)),
    talk("three exclusions", say("coats, no wool, not black and not navy", category="Coats & Jackets", no_material=WOOL, no_color=BLACK + "|Navy"),
         say("under 180", category="Coats & Jackets", no_material=WOOL, no_color=BLACK + "|Navy", under=180),
         say("women's", category="Coats & Jackets", no_material=WOOL, no_color=BLACK + "|Navy", under=180, department="Women|Unisex")),
)  # fmt: skip


def faults(turn: Said, reply: Any, items: dict[str, Item], before: Sequence[Item]) -> list[str]:
    """What does not hold after a turn. `reply` as the assistant's; `before` are the products of the list before."""
    shown = [items[one["item_id"]] for one in reply.products]
    found = [f"{one.item_id} is in no {name} {values}" for one in shown for name, values in turn.has.items()
             if not _is(one, name, values)]  # fmt: skip
    found += [f"{one.item_id} is {name} {values}" for one in shown for name, values in turn.no.items() if _is(one, name, values)]
    found += [f"{one.item_id} costs {one.price}" for one in shown
              if (turn.under is not None and not (one.price or 1e9) <= turn.under) or (turn.over is not None and not (one.price or 0) >= turn.over)]  # fmt: skip
    if turn.shows is not None and turn.shows != bool(shown):
        found.append("products are shown" if shown else "no products are shown")
    if turn.asks is not None and turn.asks != bool(reply.asked_back):
        found.append("something is asked back" if reply.asked_back else "nothing is asked back")
    if turn.says.lower() not in reply.text.lower():
        found.append(f"it does not say “{turn.says}”")
    found += [f"the wish still has {name}" for name in turn.lacks.split() if _wishes(reply.understood, name)]
    if turn.fresh and {one.item_id for one in shown} & {one.item_id for one in before}:
        found.append("products are shown again")
    return found + _beside(turn, shown, before)


def _beside(turn: Said, shown: Sequence[Item], before: Sequence[Item]) -> list[str]:
    """What does not hold of products beside those shown before."""
    checks = (
        ("cheaper_than", lambda one, other: (one.price or 1e9) < (other.price or 0)),
        ("dearer_than", lambda one, other: (one.price or 0) > (other.price or 1e9)),
        ("not_brand_of", lambda one, other: one.brand != other.brand),
        ("brand_of", lambda one, other: one.brand == other.brand),
        ("category_of", lambda one, other: one.category == other.category),
        ("color_of", lambda one, other: one.color == other.color),
        ("not_color_of", lambda one, other: one.color != other.color),
        ("without", lambda one, other: one.item_id != other.item_id),
    )
    found = []
    for name, holds in checks:
        place = getattr(turn, name)
        if place is not None:
            if place >= len(before):
                found.append(f"there was no product {place + 1} before")
            else:
                found += [f"{one.item_id}: not {name} {before[place].item_id}" for one in shown if not holds(one, before[place])]
    return found


def _is(item: Item, name: str, values: str) -> bool:
    said = str(getattr(item, name, "") or item.attributes.get(name, ""))
    return said in values.split("|") or bool({*said.split("/")} & {*values.split("|")})


def _wishes(understood: dict[str, Any], name: str) -> bool:
    if name == "price":
        return any(value is not None for value in (understood.get("price") or {}).values())
    where, _, attribute = name.rpartition(".")
    places = (where,) if where else ("want", "avoid")
    return any(attribute in (understood.get(place) or {}) for place in places)

# Written when the assistant was done, and run once before anything was changed for them.
HELD_OUT = (
    talk("a coat, step by step", say("I need a coat", category="Coats & Jackets"),
         say("something for winter", category="Coats & Jackets", season="Winter|Autumn/Winter"),
         say("not more than 220 euros", category="Coats & Jackets", under=220),
         say("anything but black", category="Coats & Jackets", under=220, no_color=BLACK)),
    talk("both size and brand", say("do you have Corvane boots in size 39?", category="Boots", brand="Corvane", size="EU 39"),
         say("the first one in tan", category="Boots", color="Tan", size="EU 39", shows=None),
         say("never mind the size", category="Boots", lacks="size", shows=None)),
    talk("jeans for men", say("men's jeans", category="Jeans", department="Men|Unisex"), say("darker please", category="Jeans", department="Men|Unisex"),
         say("cheaper than the second one", category="Jeans", department="Men|Unisex", cheaper_than=1)),
    talk("asked for a reason first", quiet("why?", asks=True), say("evening dresses under 150", category="Dresses", under=150),
         quiet("why did you choose the third one?", says="Number 3"), quiet("what material is it?", says="material")),
    talk("a bag, not leather", say("a bag without leather", category="Bags", no_material="Leather|Suede"),
         say("what about green ones?", category="Bags", no_material="Leather|Suede", color=GREEN, shows=None),
         say("any colour is fine, show me more", category="Bags", no_material="Leather|Suede", lacks="color")),
    talk("changing one's mind", say("white sneakers", category="Sneakers", color="White|Ivory|Ecru|Off White"),
         say("hmm, I changed my mind: sandals", category="Sandals", color="White|Ivory|Ecru|Off White", shows=None),
         say("start again with black sandals under 100", category="Sandals", color=BLACK, under=100, shows=None)),
    talk("no to every offer", quiet("cashmere jumper under 15", asks=True), quiet("no thanks", shows=None),
         say("remove the price limit", category="Knitwear", material="Cashmere", lacks="price")),
    talk("two brands out", say("dresses, no Fennimoor", category="Dresses", no_brand="Fennimoor"),
         say("without Lumen & Loam as well", category="Dresses", no_brand="Fennimoor|Lumen & Loam"),
         say("in blue or green", category="Dresses", no_brand="Fennimoor|Lumen & Loam", color=BLUE + "|" + GREEN)),
    talk("a gift", say("a gift for my sister under 60", department="Women|Unisex", under=60),
         say("maybe a scarf", category="Scarves & Hats", department="Women|Unisex", under=60),
         say("I don't like the last one", category="Scarves & Hats", department="Women|Unisex", under=60)),
    talk("that brand, but cheaper", say("trousers", category="Trousers"),
         say("only this brand", category="Trousers", brand_of=0),
         say("something less expensive", category="Trousers", cheaper_than=0, shows=None), user="a guest nobody knows"),
)  # fmt: skip
