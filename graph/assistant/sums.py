"""What holds after a turn: the wish of a conversation so far, and what the words of this turn add to it.

In a conversation all that is named is demanded, so that every product shown fits all that was said; and what compares
with a product becomes a bound where its column can say it: "cheaper" is below its price, "another brand" not its brand.
Knows products and wishes, neither the graph nor the words of a reply.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from recgraph.graph.assistant.turns import Turn
from recgraph.store.records import Item
from recgraph.tools.wish.wish import Like, Price, Wish, shown_amount

_CENT = 0.01
_MOST_WORDS = 8  # of free text that a conversation keeps, the latest
# Words of talk, which tell nothing of a product.
_TALK = frozenset(
    "ok okay hm hmm instead after all changed mind thats they theyre its these those start really quite expensive why "
    "second first third one ones like similar than change make take want see look looking thing things something "
    "anything else maybe perhaps only just also too still even but and or not idea sure fine good better best nice bit "
    "little lot much more less again then now yes no please thanks think know would could should does do is are".split()
)


def added(before: Wish, later: Wish, turn: Turn, going_by: Item | None) -> Wish:
    """The sum of the wish so far and what this turn says. `going_by` is the product it compares with, or points at."""
    before, later = _of_another_kind(before, later), _told(later)
    if going_by is not None:
        later = _compared(later, turn, going_by, before)
    want = dict(later.want)
    if turn.fine:  # "black is fine": it is no longer ruled out, and not asked for
        allowed = {name: values for name, values in want.items() if set(values) & set(before.avoid.get(name, ()))}
        avoid = {
            name: tuple(value for value in values if value not in allowed.get(name, ()))
            for name, values in before.avoid.items()
        }
        before = replace(before, avoid={name: values for name, values in avoid.items() if values})
        want = {name: values for name, values in want.items() if name not in allowed}
    if turn.also:
        want = {name: tuple(dict.fromkeys((*before.want.get(name, ()), *values))) for name, values in want.items()}
    words = [*before.text.split(), *(word for word in later.text.split() if word not in before.text.split())]
    summed = before.then(replace(later, want=want))
    return replace(summed, required=tuple(summed.want), text=" ".join(words[-_MOST_WORDS:]))


def _of_another_kind(before: Wish, later: Wish) -> Wish:
    """What is still meant of the wish so far where another kind of product is asked for: all but what was said of the
    old kind, the product gone by and free words."""
    turned = "category" in later.dropped or later.want.get("category", before.want.get("category")) != before.want.get(
        "category"
    )
    return replace(before, like=None, text="") if turned else before


def _told(later: Wish) -> Wish:
    """Without the words of talk."""
    words = later.text.split()
    pairs = [word for place, word in enumerate(words) if word not in _TALK and words[max(0, place - 1)] != "not"]
    return replace(later, text=" ".join(pairs))


def _compared(later: Wish, turn: Turn, going_by: Item, before: Wish) -> Wish:
    """What compares with a product as bounds and values; what no column says stays a relation, which ranks."""
    relation, attribute = (later.like.relation, later.like.attribute) if later.like else ("", "")
    want, avoid, price, like = dict(later.want), dict(later.avoid), later.price, later.like
    value = str(getattr(going_by, attribute, "")) or going_by.attributes.get(attribute, "") if attribute else ""
    if relation == "cheaper" and going_by.price is not None:
        most = [going_by.price - _CENT, *(bound for bound in (price.at_most,) if bound is not None)]
        price, like = replace(price, at_most=round(min(most), 2)), None
    elif relation == "dearer" and going_by.price is not None:
        least = [going_by.price + _CENT, *(bound for bound in (price.at_least,) if bound is not None)]
        price, like = replace(price, at_least=round(max(least), 2)), None
    elif relation == "other" and value:
        avoid[attribute] = (*avoid.get(attribute, ()), value)
        like = None
    elif relation == "same" and value:
        want[attribute], like = (value,), None
    if turn.place is not None or turn.similar:  # "the second one in black", "like the third": of its kind
        if going_by.category:
            want.setdefault("category", (going_by.category,))
        like = like if like and like.relation in ("warmer", "lighter") else Like(going_by.item_id)
    return replace(later, want=want, avoid=avoid, price=price, like=like)


def hard_parts(wish: Wish) -> Iterator[tuple[str, Wish]]:
    """Each hard part in the words of `relaxed` (tools/wish/facets.py), with the wish without it."""
    for name, values in wish.avoid.items():
        for value in values:
            left = tuple(one for one in values if one != value)
            rest = {**wish.avoid, name: left}
            yield f"not {value}", replace(wish, avoid={key: kept for key, kept in rest.items() if kept})
    for name in wish.required:
        if name in wish.want:
            want = {key: kept for key, kept in wish.want.items() if key != name}
            required = tuple(one for one in wish.required if one != name)
            yield f"{name} {' or '.join(wish.want[name])}", replace(wish, want=want, required=required)
    if wish.price.at_most is not None:
        yield f"under {shown_amount(wish.price.at_most)}", replace(wish, price=replace(wish.price, at_most=None))
    if wish.price.at_least is not None:
        yield f"over {shown_amount(wish.price.at_least)}", replace(wish, price=replace(wish.price, at_least=None))


def without(wish: Wish, part: str) -> Wish:
    """The wish without a part of `relaxed`, which may be several ("under 60 and size 42")."""
    for name, _ in list(hard_parts(wish)):
        if re.search(rf"(?:^| and ){re.escape(name)}(?:$| and )", part):
            wish = next((rest for one, rest in hard_parts(wish) if one == name), wish)
    return wish


def search_words(wish: Wish) -> str:
    """What is searched for, as a shopper would write it: what is wanted, without bounds and without what is not."""
    order = ("color", "material", "fit")
    names = [*(name for name in order if name in wish.want),
             *(name for name in wish.want if name not in (*order, "category", "size", "brand"))]  # fmt: skip
    words = [wish.want[name][0].lower() for name in names]
    if wish.text:
        words.append(wish.text)
    if "category" in wish.want and not set(wish.text.split()) & _parts(wish.want["category"]):
        words.append(wish.want["category"][0].lower())
    if wish.like and wish.like.relation in ("warmer", "lighter"):
        words.append({"warmer": "warm", "lighter": "light"}[wish.like.relation])
    return " ".join([*words, *(word.lower() for word in wish.soft if word != "cheap")])


def _parts(values: tuple[str, ...]) -> set[str]:
    words = {word for value in values for word in re.findall(r"\w+", value.lower())}
    return words | {word.removesuffix("s") for word in words} | {word.removesuffix("es") for word in words}


def same(one: Wish, other: Wish) -> bool:
    """Whether two wishes ask for the same."""
    return one.to_dict() == other.to_dict()


def lost(before: Wish, after: Wish, currency: str) -> list[str]:
    """The parts of the earlier wish that nothing has taken the place of."""
    gone = Wish(
        {name: values for name, values in before.want.items() if name not in after.want and name not in after.avoid},
        {name: left for name, values in before.avoid.items() if (left := _gone(name, values, after))},
        price=Price() if after.price else before.price,
    )
    return gone.parts(currency)


def _gone(name: str, values: tuple[str, ...], after: Wish) -> tuple[str, ...]:
    wanted = after.want.get(name, ())
    return tuple(value for value in values if value not in (*after.avoid.get(name, ()), *wanted))


_GIVE_WAY = ("under", "over", "size", "not")  # what a shopper gives up before what they came for


def by_ease(parts: Sequence[str]) -> list[str]:
    """Parts of `relaxed`, the one that is given up most easily first: a bound before a colour, the kind of product
    last. Equal ones as they came."""

    def rank(part: str) -> int:
        word = part.partition(" ")[0]
        return _GIVE_WAY.index(word) if word in _GIVE_WAY else len(_GIVE_WAY) + (word == "category")

    return sorted(parts, key=rank)
