"""What the graph does with a wish: reads it out of a request, adds it up over a conversation, and tells how a product
fits.

What words mean is for tools/wish/understand.py to say, which products fit for tools/wish/facets.py; a wish is only
passed on here.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Protocol

from recgraph.graph.prompts import clean
from recgraph.graph.state import State
from recgraph.store.records import Item
from recgraph.tools.embed import Encoder
from recgraph.tools.wish.facets import Facets
from recgraph.tools.wish.understand import understand
from recgraph.tools.wish.vocabulary import Vocabulary
from recgraph.tools.wish.wish import Wish

SEEN = 50  # products of the history, the newest, that words such as "like the boots I bought" may mean
_PLAIN = ("category", "brand", "color", "size")  # attributes that an Item has as fields


class Listen(Protocol):
    """Makes a wish of a shopper's words. `seen` are products of their history, newest last; `shown` those of the last
    answer of the conversation, best first."""

    def __call__(self, text: str, seen: Sequence[Item], shown: Sequence[Item]) -> Wish: ...


class Vocabularies:
    """The words of catalogues, each made once and kept as long as its facets are asked for. Thread-safe."""

    def __init__(self, encoder: Encoder, kept: int = 4) -> None:
        self._encoder, self._kept, self._lock = encoder, kept, threading.Lock()
        # by its facets' words and how many values there are: facets renewed by a price or a product share them
        self._made: OrderedDict[tuple[int, int], Vocabulary] = OrderedDict()

    def of(self, facets: Facets) -> Vocabulary:
        """That of a catalogue's facets."""
        with self._lock:
            key = id(facets.title_words), sum(len(one.column.raw) for one in facets.attributes.values())
            if key not in self._made:
                self._made[key] = Vocabulary.of(facets, self._encoder)
            self._made.move_to_end(key)
            while len(self._made) > self._kept:
                self._made.popitem(last=False)
            return self._made[key]

    def listen(self, facets: Facets | None) -> Listen:
        """Understands words by a catalogue's own; without facets nothing is understood."""
        if facets is None:
            return lambda text, seen, shown: Wish()
        vocabulary = self.of(facets)
        return lambda text, seen, shown: understand(text, vocabulary, seen, shown)


def heard(state: State, listen: Listen, shown: Mapping[str, Item]) -> Wish:
    """The wish that holds now: what the conversation asked for so far (`wish`), then these words, then what was given
    ready-made. Each wins over those before it."""
    known = {**shown, **state["items"]}
    seen = list(dict.fromkeys(event.item_id for event in reversed(state["history"]) if event.item_id in known))[:SEEN]
    last = [shown[item_id] for item_id in state.get("shown") or () if item_id in shown]
    query = state.get("said") or state.get("query") or ""
    before = state.get("wish")
    wish = Wish.from_dict(before.to_dict()) if before else Wish()  # a checkpoint gives lists back for tuples
    if query:
        wish = wish.then(listen(query, [known[item_id] for item_id in reversed(seen)], last))
    given = state.get("given")
    return wish.then(given) if given else wish


class Conversations:
    """What was asked for and answered in the conversations of this process, the latest so many. Thread-safe."""

    def __init__(self, kept: int = 1000) -> None:
        self._kept, self._lock = kept, threading.Lock()
        self._last: OrderedDict[tuple[str, str], tuple[Wish | None, tuple[str, ...]]] = OrderedDict()

    def last(self, user_id: str, thread: str) -> tuple[Wish | None, tuple[str, ...]]:
        """The wish that holds and the item ids of the last answer. A thread is of one user: the same name under another
        user is another conversation."""
        with self._lock:
            return self._last.get((user_id, thread), (None, ()))

    def keep(self, user_id: str, thread: str, wish: Wish | None, shown: Sequence[str]) -> None:
        """What holds after a turn. An answer with nothing in it leaves the last one in place."""
        with self._lock:
            before = self._last.pop((user_id, thread), (None, ()))[1]
            self._last[user_id, thread] = (wish, tuple(shown) or before)
            while len(self._last) > self._kept:
                self._last.popitem(last=False)

    def forget(self, user_id: str) -> None:
        """Drops the conversations of a user."""
        with self._lock:
            for key in [key for key in self._last if key[0] == user_id]:
                del self._last[key]


def as_asked(item: Item, wish: Wish | None) -> str:
    """What a product has of what was asked for, as the beginning of a sentence: "Black boots by Harrow". "" where that
    is nothing: bounds, which hold for every product, are not told. Only what the shop says of the product counts: its
    attribute, or its title where it has none."""
    if wish is None:
        return ""
    has = {name: _value_of(item, name, values) for name, values in wish.want.items()}
    has = {name: clean(value.replace("_", " "), 30) for name, value in has.items() if value}
    thing = " ".join(has[name].lower() for name in ("color", "category") if name in has)
    parts = [thing] if thing else []
    if "brand" in has:
        parts.append(f"by {has['brand']}")
    if "size" in has:
        parts.append(f"in size {has['size']}")
    others = [value.lower() for name, value in has.items() if name not in _PLAIN]
    text = ", ".join([*([" ".join(parts)] if parts else []), *others])
    return text[:1].upper() + text[1:]


def _value_of(item: Item, name: str, values: Sequence[str]) -> str:
    """The first of the values that a product has."""
    told = str(getattr(item, name)) if name in _PLAIN else _attribute(item, name)
    words = _words(told or item.title)
    return next((value for value in values if value and _words(value) <= words), "")


def _attribute(item: Item, name: str) -> str:
    return next((value for key, value in item.attributes.items() if key.casefold() == name.casefold()), "")


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))
