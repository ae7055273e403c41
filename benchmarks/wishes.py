"""Whether a shop does what it is asked: 200 requests with an answer that a machine can check, made of its own values.

    python benchmarks/wishes.py --store recgraph.duckdb [--llm default] [--seed 7] [--cases 200] [--only-understanding]

Each request names values of products that the store offers, at least ten of which are all that is asked for: plain
ones ("black boots"), in another order, in a sentence, in the singular, misspelt, in German or French, with a negation,
a bound, a size, a brand, two colours, a department; lists of negations, what sounds like one and is none, sizes from
one to another, prices in words, a negation at the end of a long message. What fits is decided here from the products'
own columns, without tools/wish. Prints how many were understood rightly, and of the first ten answered (`recommend` for
shoppers with many events and for the tenth with the fewest, and the tool for agents) how many break a hard part and how
many are all that was named; with machine, command and date.
"""

from __future__ import annotations

import argparse
import datetime
import random
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from recgraph import __version__
from recgraph.evaluation.origin import machine
from recgraph.store.db import Store
from recgraph.store.records import Item
from recgraph.tools.embed import open_encoder
from recgraph.tools.wish.facets import Facets
from recgraph.tools.wish.understand import understand
from recgraph.tools.wish.vocabulary import Vocabulary
from recgraph.tools.wish.wish import Wish

ENOUGH = 10  # products that are all that a request asks for
# The colours of a shop by what Germans and French call them.
FOREIGN = {
    "Black": ("schwarze", "noir"), "White": ("weiße", "blanc"), "Navy": ("marineblaue", "bleu marine"),
    "Red": ("rote", "rouge"), "Green": ("grüne", "vert"), "Blue": ("blaue", "bleu"), "Brown": ("braune", "marron"),
    "Grey": ("graue", "gris"), "Burgundy": ("weinrote", "bordeaux"),
}  # fmt: skip


# Colours that one word means two of, and a material that two finer ones are.
SHADES = {
    "light blue": ("Light Blue", "Sky Blue"),
    "dark blue": ("Navy", "Indigo"),
    "hellblaue": ("Light Blue", "Sky Blue"),
}
FINER = {"Wool": ("Wool", "Lambswool", "Merino")}
SPOKEN = {"fifty": 50, "seventy": 70, "eighty": 80, "a hundred": 100, "a hundred and fifty": 150, "two hundred": 200}
LETTERS = ("XS", "S", "M", "L", "XL")
LONG = (  # before it matters: a query of more than 200 letters
    "hello there, I have been looking around your lovely shop for quite a while now and could not decide on anything, "
    "so perhaps you can help me with this, because my sister said that you always find something that suits, thanks; "
)


@dataclass(frozen=True)
class Case:
    """A request and what must come of it. `want` and `avoid` map an attribute to values, any of which is meant."""

    kind: str
    text: str
    want: dict[str, tuple[str, ...]] = field(default_factory=dict)
    avoid: dict[str, tuple[str, ...]] = field(default_factory=dict)
    most: float | None = None
    least: float | None = None
    required: tuple[str, ...] = ()

    def hard(self, item: Item) -> bool:
        """Whether a product breaks nothing that must hold."""
        if any(says(item, name, value) for name, values in self.avoid.items() for value in values):
            return False
        if self.most is not None and not (item.price is not None and item.price <= self.most):
            return False
        if self.least is not None and not (item.price is not None and item.price >= self.least):
            return False
        return all(any(says(item, name, value) for value in self.want[name]) for name in self.required)

    def fits(self, item: Item) -> bool:
        """Whether it is all that was asked for."""
        named = all(any(says(item, name, value) for value in values) for name, values in self.want.items())
        return named and self.hard(item)

    def understood(self, wish: Wish) -> bool:
        """Whether just this was understood: more values of an attribute only where they hold the word that was said."""
        bounds = wish.price.at_most == self.most and wish.price.at_least == self.least
        right = _as_meant(wish.want, self.want) and _as_meant(wish.avoid, self.avoid, wider=True)
        return right and bounds and set(wish.required) == set(self.required)


def _as_meant(found: Mapping[str, tuple[str, ...]], meant: Mapping[str, tuple[str, ...]], wider: bool = False) -> bool:
    """Whether the same values of the same attributes; `wider` allows any more."""
    if set(found) != set(meant):
        return False
    for name, values in meant.items():
        more = set(found[name]) - set(values)
        held = all(any(word in one.lower() for word in _words(values)) for one in more)
        if not set(values) <= set(found[name]) or not (held or wider):
            return False
    return True


def _words(values: Iterable[str]) -> set[str]:
    return {word for value in values for word in re.findall(r"\w+", value.lower())}


def says(item: Item, name: str, value: str) -> bool:
    """Whether a product says a value of an attribute: the same, one of several ("Black/White"), or one that ends in it
    ("Washed Black"); what is for all is for women, too."""
    said = value_of(item, name).lower()
    parts = {part.strip() for part in re.split(r"[/>|;]", said)} | {said}
    return value.lower() in parts or said.endswith(f" {value.lower()}") or (name == "department" and said == "unisex")


def value_of(item: Item, name: str) -> str:
    return str(getattr(item, name)) if name in ("category", "brand", "color", "size") else item.attributes.get(name, "")


# -- cases -------------------------------------------------------------------------------------------------------------


class Cases:
    """Draws requests about the products that a store offers."""

    def __init__(self, items: Sequence[Item], rng: random.Random) -> None:
        self.items, self.rng = [item for item in items if item.offered], rng
        self.pairs = sorted(self._with(("color", "category")))
        self.brands = sorted(self._with(("brand", "category")))
        self.materials = sorted(self._with(("material", "category")))
        self.departments = sorted(self._with(("department", "category")))
        self.sizes = sorted(self._with(("size", "category")))
        self.makers: tuple[Callable[[], Case], ...] = (
            self.plain, self.order, self.sentence, self.number, self.typo, self.negation, self.brand, self.no_brand,
            self.under, self.over, self.between, self.size, self.two, self.department, self.material, self.foreign,
            self.neither, self.without, self.foreign_negation, self.no_negation, self.contradiction, self.sizes_between,
            self.spoken, self.shade, self.long,
        )  # fmt: skip

    def draw(self, count: int) -> Iterator[Case]:
        """So many requests, of each kind about equally many, each with enough products that are all it asks for."""
        made, tries = 0, 0
        seen: set[str] = set()
        while made < count and tries < 200 * count:
            case = self.makers[tries % len(self.makers)]()
            tries += 1
            if case.text and case.text not in seen and sum(map(case.fits, self.items)) >= ENOUGH:
                seen.add(case.text)
                made += 1
                yield case

    def _with(self, names: tuple[str, ...]) -> list[tuple[str, ...]]:
        found = Counter(tuple(value_of(item, name) for name in names) for item in self.items)
        return [values for values, times in found.items() if times >= ENOUGH and all(values)]

    def _pair(self) -> tuple[str, str, str]:
        color, category = self.rng.choice(self.pairs)
        return color, category, self.said(category)

    def said(self, category: str) -> str:
        """A category as people say it: one of its parts, in lower case."""
        return self.rng.choice(re.split(r"\s*[&/>]\s*", category)).lower()

    def plain(self) -> Case:
        color, category, said = self._pair()
        return Case("plain", f"{color.lower()} {said}", {"color": (color,), "category": (category,)})

    def order(self) -> Case:
        color, category, said = self._pair()
        return Case("order", f"{said}, {color.lower()}", {"color": (color,), "category": (category,)})

    def sentence(self) -> Case:
        color, category, said = self._pair()
        form = self.rng.choice(
            ("I am looking for {0} in {1}, please", "can you show me some {1} {0}?", "need {0} ({1})")
        )
        return Case("sentence", form.format(said, color.lower()), {"color": (color,), "category": (category,)})

    def number(self) -> Case:
        color, category, said = self._pair()
        one = re.sub(r"(?<=ss)es$|(?<![su])s$", "", said)
        one = said + "s" if one == said and not said.endswith(("s", "wear", "ry")) else one
        return Case("number", f"a {color.lower()} {one}", {"color": (color,), "category": (category,)})

    def typo(self) -> Case:
        color, category, said = self._pair()
        return Case(
            "typo",
            f"{slip(color.lower(), self.rng)} {slip(said, self.rng)}",
            {"color": (color,), "category": (category,)},
        )

    def negation(self) -> Case:
        color, category, said = self._pair()
        form = self.rng.choice(
            ("{1}, not {0}", "not {0} {1}", "{1} but no {0}", "{1} in any colour but {0}", "no {0} {1}")
        )
        return Case("negation", form.format(color.lower(), said), {"category": (category,)}, {"color": (color,)})

    def brand(self) -> Case:
        brand, category = self.rng.choice(self.brands)
        form = self.rng.choice(("{0} {1}", "{1} from {0}", "{1} by {0}"))
        return Case(
            "brand", form.format(brand.lower(), self.said(category)), {"brand": (brand,), "category": (category,)}
        )

    def no_brand(self) -> Case:
        brand, category = self.rng.choice(self.brands)
        return Case(
            "no brand", f"{self.said(category)} but not {brand}", {"category": (category,)}, {"brand": (brand,)}
        )

    def _priced(self, low: float, high: float) -> tuple[str, str, float]:
        _, category, said = self._pair()
        prices = [item.price for item in self.items if item.category == category and item.price is not None]
        return category, said, float(round(float(np.quantile(prices or [0.0], self.rng.uniform(low, high)))))

    def under(self) -> Case:
        category, said, price = self._priced(0.3, 0.7)
        form = self.rng.choice(
            (
                "{0} under {1:.0f}",
                "{0} below €{1:.0f}",
                "{0} up to {1:.0f} euros",
                "{0}, max {1:.0f}",
                "{0} {1:.0f} or less",
            )
        )
        return Case("under", form.format(said, price), {"category": (category,)}, most=price)

    def over(self) -> Case:
        category, said, price = self._priced(0.3, 0.7)
        form = self.rng.choice(("{0} over {1:.0f}", "{0} from {1:.0f} euros", "{0} at least {1:.0f}"))
        return Case("over", form.format(said, price), {"category": (category,)}, least=price)

    def between(self) -> Case:
        category, said, price = self._priced(0.3, 0.5)
        form = self.rng.choice(
            ("{0} between {1:.0f} and {2:.0f}", "{0} {1:.0f}-{2:.0f} €", "{0} from {1:.0f} to {2:.0f}")
        )
        return Case(
            "between", form.format(said, price, 2 * price), {"category": (category,)}, least=price, most=2 * price
        )

    def size(self) -> Case:
        size, category = self.rng.choice(self.sizes)
        form = self.rng.choice(("{0} in size {1}", "{0} size {1}", "size {1} {0}"))
        want = {"category": (category,), "size": (size,)}
        return Case("size", form.format(self.said(category), size), want, required=("size",))

    def two(self) -> Case:
        color, category, said = self._pair()
        other = self.rng.choice([one for one, kind in self.pairs if kind == category])
        if other == color:
            return Case("two colours", "")
        joined = f"{color.lower()} {self.rng.choice(('or', 'and'))} {other.lower()}"
        return Case("two colours", f"{joined} {said}", {"color": (color, other), "category": (category,)})

    def department(self) -> Case:
        department, category = self.rng.choice(self.departments)
        word = {"Women": "women's", "Men": "men's"}.get(department, department.lower())
        form = self.rng.choice(("{0} {1}", "{1} for {2}"))
        text = form.format(word, self.said(category), department.lower())
        return Case("department", text, {"department": (department,), "category": (category,)})

    def material(self) -> Case:
        material, category = self.rng.choice(self.materials)
        text = f"{material.lower()} {self.said(category)}"
        return Case("material", text, {"material": FINER.get(material, (material,)), "category": (category,)})

    def foreign(self) -> Case:
        color, category, said = self._pair()
        word = self.rng.choice(FOREIGN.get(color, ("",)))
        return Case("foreign", f"{word} {said}" if word else "", {"color": (color,), "category": (category,)})

    def neither(self) -> Case:
        color, category, said = self._pair()
        others = sorted({one for one, kind in self.pairs if kind == category} - {color})
        if len(others) < 2:
            return Case("neither", "")
        colors = (color, *self.rng.sample(others, 2))
        form = self.rng.choice(
            ("{3}, no {0}, {1} or {2}", "{3}, neither {0}, {1} nor {2}", "{3} but not {0}, {1} or {2}",
             "{3} without {0}, {1}, {2}")
        )  # fmt: skip
        text = form.format(*(one.lower() for one in colors), said)
        return Case("neither", text, {"category": (category,)}, {"color": colors})

    def without(self) -> Case:
        material, category = self.rng.choice(self.materials)
        form = self.rng.choice(
            ("{0}-free {1}", "{1} -{0}", "{1}, nothing in {0}", "{1} w/o {0}", "{1} that aren't {0}")
        )
        unwanted = {"material": FINER.get(material, (material,))}
        return Case("without", form.format(material.lower(), self.said(category)), {"category": (category,)}, unwanted)

    def foreign_negation(self) -> Case:
        color, category, said = self._pair()
        german, french = FOREIGN.get(color, ("", ""))
        form = self.rng.choice(("{2}, nicht {0}", "{2}, pas {1}", "{2} ohne {0}", "{2} sauf {1}", "keine {0} {2}"))
        text = form.format(german, french, said) if german else ""
        return Case("foreign negation", text, {"category": (category,)}, {"color": (color,)})

    def no_negation(self) -> Case:
        color, category, said = self._pair()
        form = self.rng.choice(
            ("I can not find {0} {1}", "nothing but {0} {1}", "not too cheap {0} {1}", "not sure, maybe {0} {1}",
             "do you not have {0} {1}?", "not only {0} {1}")
        )  # fmt: skip
        want = {"color": (color,), "category": (category,)}
        return Case("no negation", form.format(color.lower(), said), want)

    def contradiction(self) -> Case:
        color, category, said = self._pair()
        text = f"{color.lower()} {said} but not {color.lower()}"
        return Case("contradiction", text, {"category": (category,)}, {"color": (color,)})

    def sizes_between(self) -> Case:
        category = self.rng.choice(sorted({kind for _, kind in self.sizes}))
        sizes = sorted(size for size, kind in self.sizes if kind == category and re.fullmatch(r"EU \d\d", size))
        sizes = sizes or [one for one in LETTERS if (one, category) in self.sizes]
        if len(sizes) < 3:
            return Case("sizes between", "")
        first = self.rng.randrange(len(sizes) - 2)
        some = tuple(sizes[first : first + 3])
        form = self.rng.choice(("{0} size {1} to {2}", "{0} in sizes {1}-{2}"))
        text = form.format(self.said(category), some[0].removeprefix("EU "), some[2].removeprefix("EU "))
        return Case("sizes between", text, {"category": (category,), "size": some}, required=("size",))

    def spoken(self) -> Case:
        category, said, _ = self._priced(0.3, 0.7)
        words = self.rng.choice(sorted(SPOKEN))
        form = self.rng.choice(("{0} under {1}", "{0} for less than {1} euros", "{0}, at most {1}"))
        return Case("spoken", form.format(said, words), {"category": (category,)}, most=SPOKEN[words])

    def shade(self) -> Case:
        word = self.rng.choice(sorted(SHADES))
        _, category, said = self._pair()
        return Case("shade", f"{word} {said}", {"color": SHADES[word], "category": (category,)})

    def long(self) -> Case:
        color, category, said = self._pair()
        return Case("long", f"{LONG}{said}, not {color.lower()}", {"category": (category,)}, {"color": (color,)})


def slip(text: str, rng: random.Random) -> str:
    """A slip of the finger in the longest word: two letters swapped, one lost, one doubled. Short words are left."""
    word = max(re.findall(r"[a-z]+", text), key=len, default="")
    if len(word) < 5:
        return text
    at = rng.randrange(1, len(word) - 2)
    slips = (
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
    )
    return text.replace(word, rng.choice([one for one in slips if one != word]))


# -- what is made of them ----------------------------------------------------------------------------------------------


def understanding(cases: Sequence[Case], vocabulary: Vocabulary) -> None:
    """The share that was understood rightly, by kind, what was not, and how long it takes."""
    right: dict[str, list[bool]] = defaultdict(list)
    wrong, times = [], []
    for case in cases:
        started = time.perf_counter()
        wish = understand(case.text, vocabulary)
        times.append((time.perf_counter() - started) * 1000)
        right[case.kind].append(case.understood(wish))
        if not right[case.kind][-1]:
            wrong.append((case, wish))
    every = [one for some in right.values() for one in some]
    print(f"\nUnderstood rightly: {sum(every)} of {len(every)} ({np.mean(every):.1%})")
    print("  " + ", ".join(f"{kind} {sum(some)}/{len(some)}" for kind, some in right.items()))
    for case, wish in wrong:
        print(f"  not: {case.text[-60:]!r}: {wish.parts()}, not {case.want or ''} {case.avoid or ''}")
    print("  {:.2f} ms at the median, {:.2f} ms at the 99th percentile".format(*np.quantile(times, [0.5, 0.99])))


def answers(name: str, cases: Sequence[Case], ask: Callable[[Case], Sequence[Item]]) -> None:
    """Of the first ten answered: how many break a hard part, how many are all that was asked for."""
    fit, broken, short, times = [], 0, 0, []
    worst: list[str] = []
    for case in cases:
        started = time.perf_counter()
        items = ask(case)[:ENOUGH]
        times.append((time.perf_counter() - started) * 1000)
        broken += sum(not case.hard(item) for item in items)
        short += len(items) < ENOUGH
        found = [case.fits(item) for item in items]
        fit += [*found, *[False] * (ENOUGH - len(found))]
        if not all(found):
            worst.append(f"{case.text[-60:]!r}: {sum(found)} of {len(items)}")
    print(
        f"\n{name}: {np.mean(fit):.1%} of the first ten are all that was asked for, {broken} break a hard part, "
        f"{short} of {len(cases)} answers are short of ten; {np.median(times):.0f} ms at the median"
    )
    for line in worst[:10]:
        print(f"  {line}")


def serving(store: str, cases: Sequence[Case], items: dict[str, Item], llm: str, seed: int) -> None:
    """What is answered: by `recommend` to the half with most events and the tenth with the fewest, and by the tool."""
    from recgraph.graph.recommender import Recommender

    with Recommender.open(store, llm=llm) as recommender:
        recommender.warm_up()
        users = [row.user_id for row in recommender.store.users(limit=1_000_000)]  # the most active first
        part = max(1, len(users) // 10)
        for name, some in (("known", users[: 5 * part]), ("new", users[-part:])):
            rng = random.Random(seed)
            drawn = {case.text: rng.choice(some) for case in cases}
            answers(
                f"recommend, {name} shoppers",
                cases,
                lambda case, drawn=drawn: _recommended(recommender, items, drawn[case.text], case.text),
            )
        tool = next(one for one in recommender.tools() if one.name == "retrieve_products")
        answers(
            "the tool for agents",
            cases,
            lambda case: [items[one["item_id"]] for one in tool.invoke({"query": case.text, "k": ENOUGH})["products"]],
        )


def _recommended(recommender: object, items: dict[str, Item], user: str, text: str) -> list[Item]:
    found = recommender.recommend(user, text)  # type: ignore[attr-defined]
    return [items[line.item.item_id] for line in found.items]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--store", default="recgraph.duckdb")
    parser.add_argument("--llm", default="none", help="as RECGRAPH_LLM")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only-understanding", action="store_true", help="recommend nothing")
    asked = parser.parse_args()
    print(f"recgraph {__version__}, {datetime.datetime.now():%Y-%m-%d}, {machine()}\n{' '.join(sys.argv)}")
    with Store.open(asked.store) as store:
        ids = store.catalogue().item_ids
        items = store.items(ids)
        started = time.perf_counter()
        vocabulary = Vocabulary.of(Facets.of(store), open_encoder())
        vocabulary.meant("qxzzyx")  # as a server that is warm: the names of the shop's values are embedded
        print(f"{len(ids):,} products; facets and vocabulary in {time.perf_counter() - started:.1f} s")
    cases = list(Cases(list(items.values()), random.Random(asked.seed)).draw(asked.cases))
    print(f"{len(cases)} requests, such as {', '.join(repr(case.text) for case in cases[:6])}")
    understanding(cases, vocabulary)
    if not asked.only_understanding:
        serving(asked.store, cases, items, asked.llm, asked.seed)


if __name__ == "__main__":
    main()
