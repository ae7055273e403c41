"""Results of `recgraph ablate` as sections of the leaderboard: which paper's table or figure each is, what it says, and
what it rests on.

Numbers and what is told of an origin are in the words of the boards (evaluation/leaderboard/words.py). Which files
there are and how anything looks is unknown here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recgraph.evaluation.leaderboard.boards import SPLITS
from recgraph.evaluation.leaderboard.words import MISSING, alone, asked, origin_facts, shown, title, within
from recgraph.evaluation.result import LEVEL, MAIN, Ablation, Figure, Variation

TITLE = "Ablations"
LEAD = (
    "The product itself, asked in several variants about the same held-out cases, each as of its moment (recgraph "
    "ablate). F is “Sequential LLM Framework for Fashion Recommendation”, T is “Harnessing Large Language Models for "
    "Text-Rich Sequential Recommendation”. Variants are in the given order and compared with the first, case by case. "
    "Invalid: the language model's answer named no product as asked. Degraded: the answer had to do without "
    "something. Read and written are the mean tokens of an answer, ms are its median milliseconds and their 95 % "
    "quantile, all as if each variant had been asked alone."
)
HEADLINES = {  # in the order they are shown
    "table3": "What each part adds (F table 3)",
    "mixup": "How many items of the ID list come before the title list (F 4.4)",
    "history": "How many recent items the prompts show, in both paradigms (T figure 9)",
    "models": "Base models (T figures 10 and 11)",
    "perplexity": "Adapters before and after the hard examples were trained further (F 4.3)",
    "constrained": "Constrained decoding: which products the answer may name",
    "llm": "What a language model adds to the product, and to the mixup of F",
}
METRICS = (MAIN, "recall@10", "mrr")
HEAD = (
    *("Variant", *map(title, METRICS), "From the first, Holm p", "Invalid", "Degraded"),
    *("Read", "Written", "ms", "ms, 95 %"),
)


@dataclass(frozen=True)
class AblationBoard:
    """One ablation, under the `name` of its file without .json."""

    name: str
    found: Ablation

    @property
    def title(self) -> str:
        """What it is, and how its file is called where that is more than the ablation's name."""
        extra = self.name.removeprefix(self.found.ablation).strip("-")
        return HEADLINES.get(self.found.ablation, self.found.ablation) + (f": {extra}" if extra else "")

    @property
    def lead(self) -> str:
        """What is separable from the first variant, and what is not. Names may have commas."""
        first, *others = self.found.variants
        compared = [(one.name, one.against) for one in others if one.against]
        if not compared:
            return alone(first.name, first.figure(), of=len(self.found.variants))
        apart = [f"{name} ({shown(by.difference.mean, sign=True)})" for name, by in compared if by.separable]
        near = [name for name, by in compared if not by.separable]
        known = f"{first.name}: {title(MAIN)} {within(first.figure())}."
        level = f"(Holm p < {LEVEL:g})".replace("0.", ".").replace(" ", "\u00a0")
        if not apart:
            return f"{known} No other variant is separable from it {level}."
        return f"{known} Separable from it {level}: {'; '.join(apart)}. Not separable: {'; '.join(near) or 'none'}."

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What the figures rest on: names and what is to be said, in the order of reading."""
        found = self.found
        data = f"{found.origin.data_hash or MISSING} (hash of what variants are given and asked)"
        return [
            ("data", f"{found.dataset}, {data}"),
            ("split", f"{found.split}: {SPLITS[found.split][1]}" if found.split in SPLITS else found.split),
            ("cases", asked(found.cases, found.sample)),
            ("users", f"{found.users:,}"),
            ("seed", str(found.seed)),
            *origin_facts(found.origin),
        ]

    @property
    def by_recent(self) -> Mapping[str, tuple[tuple[float, Figure], ...]]:
        """(number of recent items, NDCG@10) by paradigm, the smallest number first, where variants differ in both."""
        found: dict[str, list[tuple[float, Figure]]] = {}
        for one in self.found.variants:
            paradigm, recent = one.settings.get("paradigm"), one.settings.get("recent")
            if paradigm and isinstance(recent, int) and one.figure().mean is not None:
                found.setdefault(str(paradigm), []).append((recent, one.figure()))
        return {paradigm: tuple(sorted(points, key=lambda point: point[0])) for paradigm, points in found.items()}

    def order(self) -> tuple[int, str]:
        """As in the papers, those that are in none last."""
        known = [*HEADLINES]
        return (known.index(self.found.ablation) if self.found.ablation in known else len(known), self.name)


def costs(variant: Variation) -> tuple[str, ...]:
    """The columns behind the figures."""
    numbers = (variant.tokens.prompt, variant.tokens.completion, variant.ms.median, variant.ms.p95)
    return (f"{variant.invalid:.1%}", f"{variant.degraded:.1%}", *(f"{number:,.0f}" for number in numbers))
