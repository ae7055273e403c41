"""How a summary is worded: many phrasings of each fact, their order and their joints chosen by a seed, so that a model
learns to write what it read and not one template. Every name in the text comes from the facts; the phrases themselves
name nothing of a catalogue.

`{a|b}` in a phrase is a for "they" and b for "this shopper".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from recgraph.graph.summary.summarizers import price_text
from recgraph.graph.summary.wording import count, listing, sentence
from recgraph.train.summary.facts import Gist

_FORK = re.compile(r"\{([^{}|]*)\|([^{}|]*)\}")
_VERBS = {
    "goes": ("{go for|goes for}", "{choose|chooses}", "{favour|favours}", "{shop for|shops for}"),
    "looks": ("{look at|looks at}", "{browse|browses}", "{view|views}"),
    "buys": ("{buy|buys}", "{shop for|shops for}", "{choose|chooses}"),
    "reads": ("{follow|follows}", "{read about|reads about}"),
}
_WHO = ("This shopper", "The shopper", "This customer", "This user")
_READER = ("This reader", "The reader", "This user")

_TASTE = {
    "only": ("S V C and nothing else so far", "So far it is only C", "So far s V nothing but C", "S {keep|keeps} to C"),
    "mostly": (
        "S mostly V A, then R", "S V A above all, with R now and then", "Mostly A, sometimes R", "The main interest "
                                                                                                 "is A, followed by R",
        "Above all s V A, now and then R",
    ),
    "list": ("S V C", "S {have|has} an eye for C", "The interest is in C", "The choice falls on C"),
    "many": (
        "S V many kinds of things, most of all C", "Among many things, C stand out", "S V C more than anything else",
        "All sorts of things, led by C",
    ),
}  # fmt: skip
_WORDS = ("S {come|comes} back to C", "C keep coming up in the titles", "Titles often name C", "What s V often names C")
_TINT = {  # joined to the taste: for one colour, for two
    "usually": (
        (", usually in O", ", mostly in O", ", as a rule in O"),
        (", usually in O", ", mostly in O", ", as a rule in O"),
    ),
    "often": (
        (", often in N", ", frequently in N", ", often choosing N"),
        (", often in N", ", frequently in N", ", with N as frequent choices"),
    ),
    "some": ((", in N",), (", in N",)),
}
_TINT_ALONE = {
    "usually": (
        ("The usual colour is O", "The colour is mostly O"),
        ("The usual colours are N", "The colour is mostly O"),
    ),
    "often": (("S often {pick|picks} N", "The colour is often N"), ("S often {pick|picks} N", "Frequent colours: N")),
    "some": (("The colour is N",), ("Colours seen: N", "The colours are N")),
}
_AUDIENCE = (", chiefly for P", ", mainly for P", ", for P")
_BRANDS = {  # for one brand, for several
    "returns": (
        ("S {come|comes} back to B", "S {return|returns} to B", "S {stay|stays} with B", "The favourite brand is B"),
        ("S {come|comes} back to B", "S {return|returns} to B", "Repeated brands: B", "The favourite brands are B"),
    ),
    "vary": (
        ("The brands vary, B among them", "S {try|tries} several brands, B included"),
        ("The brands vary, B among them", "Several brands, such as B", "S {try|tries} several brands, B included"),
    ),
    "all": (
        ("The brand is B", "S {choose|chooses} B", "So far the brand is B"),
        ("The brands are B", "S {choose|chooses} B", "So far the brands are B"),
    ),
}
_BRANDS_INSIDE = {
    "returns": (", again and again from B", ", with B as a steady choice"),
    "vary": (", from brands such as B",),
    "all": (", from B", ", by B"),
}
_PRICE = {
    True: ("S {spend|spends} L to H apiece", "S {pay|pays} between L and H", "purchases cost L to H"),
    False: (
        "prices run from L to H",
        "the prices are L to H",
        "S {look|looks} at prices of L to H",
        "prices lie between L and H",
    ),
}
_ONE_PRICE = {
    True: ("S {spend|spends} about L apiece", "S {pay|pays} about L"),
    False: ("the price is about L", "prices are about L"),
}
_UNMET = (
    "S searched for Q without buying a match", "The search for Q led to no purchase", "S searched for Q and bought no "
                                                                                      "match",
    "Still open: a search for Q",
)  # fmt: skip
_SEARCHED = ("S searched for Q", "The search was for Q", "Searched: Q")
_BOUGHT = ("Most recently s bought the X", "The latest purchase is the X", "Last bought: X", "S last bought the X")
_COMPARED = ("S compared M of the X", "S looked at the X in M", "S weighed up M of the X")
_TOOK = (" and took it in T", ", choosing T", " and settled on T")
_COMPARES = ("S {like|likes} to compare variants before deciding", "S {compare|compares} variants first")
_CAME = ("Lately D came up for the first time", "New lately: D", "Recently s turned to D")
_CAME_GONE = (", while G did not return", ", and G did not come back", ", but no more G")
_GONE = ("Lately G did not come up", "S {have|has} left G aside lately", "No G lately")
_STAYS = ("The newest choices stay with D", "Lately it is still D", "Recent events keep to D")
_MOVED = ("Over time G gave way to D", "S moved from G to D", "Later D took the place of G")


def phrase(gist: Gist, rng: Random, currency: str = "") -> str:
    """The facts in one paragraph of two to four sentences, chosen by `rng`. "" for a gist that says nothing."""
    who = rng.choice(_READER if gist.doing == "reads" else _WHO)
    told = _Told(gist, rng, currency)
    lead = [told.taste()] + ([told.colors_alone] if told.colors_alone else [])
    money = told.brands_and_price()
    news = told.drift()
    rest = [*told.searches(), *told.bought(), *told.compared()]
    rng.shuffle(rest)
    order = rng.choice(
        [[lead, money, news, rest], [lead, money, rest, news], [lead, news, money, rest], [news, lead, money, rest]]
    )
    found = [part for group in order for part in group if part]
    return " ".join(sentence(_spoken(text, who, first)) for first, text in _first(found))


def _first(found: Sequence[str]) -> list[tuple[bool, str]]:
    """Whether a sentence is the first that speaks of the shopper."""
    place = next((number for number, text in enumerate(found) if "\0" in text), -1)
    return [(number == place, text) for number, text in enumerate(found)]


def _spoken(text: str, who: str, first: bool) -> str:
    """Subjects and verbs in the right number: the first mention is "this shopper", every later one "they"."""
    head, *tail = re.split("(\0[Ss])", text)
    spoken = [head]
    for number, (mark, words) in enumerate(zip(tail[::2], tail[1::2], strict=True)):
        single = first and number == 0
        subject = who if single else "They"
        spoken.append(subject if mark == "\0S" and not "".join(spoken) else subject[:1].lower() + subject[1:])
        spoken.append(_FORK.sub(lambda match, group=2 if single else 1: str(match.group(group)), words))
    return "".join(spoken)


class _Told:
    """Each fact of one gist in a phrasing of its own. A subject is marked with a zero byte until it is known who is
    speaking of whom."""

    def __init__(self, gist: Gist, rng: Random, currency: str) -> None:
        self.gist, self.rng, self.currency = gist, rng, currency
        self.colors_alone = ""
        self.brands_said = False

    def _fill(self, phrases: Sequence[str], **values: str) -> str:
        """One of the phrases; single capitals are places, S and s the subject, V the verb."""
        values = {"V": self.rng.choice(_VERBS[self.gist.doing]), **values}
        return re.sub(
            r"\b([A-Z]|s)\b",
            lambda m: f"\0{m.group(1)}" if m.group(1) in "Ss" else values[m.group(1)],
            self.rng.choice(phrases),
        )

    def taste(self) -> str:
        gist, rng = self.gist, self.rng
        if not gist.categories:
            if not gist.title_words:
                return ""
            return self._fill(
                _WORDS if len(gist.title_words) > 1 else _WORDS[:1] + _WORDS[2:],
                C=listing([f'"{word}"' for word in gist.title_words]),
            )
        first, rest = gist.categories[0], gist.categories[1:]
        text = self._fill(_TASTE[gist.share], C=listing(gist.categories), A=first, R=listing(rest) if rest else "")
        names = {"O": listing(gist.colors, "or"), "N": listing(gist.colors)} if gist.colors else {}
        joined = gist.colors and rng.random() < 0.75
        if joined:
            text += self._fill(_TINT[gist.tint][len(gist.colors) > 1], **names)
        elif gist.colors:
            self.colors_alone = self._fill(_TINT_ALONE[gist.tint][len(gist.colors) > 1], **names)
        if gist.audience:
            text += self._fill(_AUDIENCE, P=gist.audience)
        if gist.brands and not self.colors_alone and rng.random() < 0.25:
            self.brands_said = True
            text += self._fill(_BRANDS_INSIDE[gist.loyalty], B=listing(gist.brands))
        return text

    def brands_and_price(self) -> list[str]:
        gist = self.gist
        brand = (
            self._fill(_BRANDS[gist.loyalty][len(gist.brands) > 1], B=listing(gist.brands))
            if gist.brands and not self.brands_said
            else ""
        )
        price = self._price()
        if brand and price and self.rng.random() < 0.6:
            shared = re.match(r"\0S (?=\{)", brand) and re.match(r"\0S (?=\{)", price)
            if shared:
                return [f"{brand} and {price[3:]}"]
            return [f"{brand}{self.rng.choice((', and ', '; '))}{price.replace(chr(0) + 'S', chr(0) + 's', 1)}"]
        return [text for text in (brand, price) if text]

    def _price(self) -> str:
        if self.gist.price is None:
            return ""
        low, high = (price_text(end, self.currency) for end in self.gist.price)
        return self._fill((_ONE_PRICE if low == high else _PRICE)[self.gist.paid], L=low, H=high)

    def searches(self) -> list[str]:
        queries = listing([f'"{query}"' for query in self.gist.searches]) if self.gist.searches else ""
        return [self._fill(_UNMET if self.gist.unmet else _SEARCHED, Q=queries)] if queries else []

    def bought(self) -> list[str]:
        return [self._fill(_BOUGHT, X=self.gist.bought)] if self.gist.bought else []

    def compared(self) -> list[str]:
        one = self.gist.compared
        if one is None:
            return [self._fill(_COMPARES)] if self.gist.compares else []
        text = self._fill(_COMPARED, X=one.name, M=count(one.number, one.kind))
        took = (_TOOK if one.kind == "colour" else _TOOK[1:]) if one.took else ()
        return [text + (self._fill(took, T=one.took) if took else "")]

    def drift(self) -> list[str]:
        gist = self.gist
        came, gone = (listing(names) if names else "" for names in (gist.came, gist.gone))
        if gist.kind == "merge":
            return [self._fill(_MOVED, D=came, G=gone)] if came else []
        if came:
            return [self._fill(_CAME, D=came) + (self._fill(_CAME_GONE, G=gone) if gone else "")]
        if gone:
            return [self._fill(_GONE, G=gone)]
        return [self._fill(_STAYS, D=gist.stays)] if gist.stays else []
