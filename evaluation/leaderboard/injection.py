"""What attacks on a shop's texts move, as tables of the leaderboard: the record of benchmarks/injection.py in words.

How the record is made is unknown here, and so is how a table looks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recgraph.errors import StoreError

RECORD = "metrics/injection.json"
TITLE = "Attacks on texts"
LEAD = (
    "How many places a product rises when an attack stands in its texts (instructions in nine languages, role "
    "tokens, ids, forms of answers, stuffing, confusable and unseen characters, encoded and very long texts) instead "
    "of the texts of others of its kind, equally long. The product is the shopper's tenth or one that does not "
    "come; what is not among the first twenty counts as twenty-first, and other variants of its style are set aside. "
    "Neutral texts set against each other show what a change of words alone does; what the attack gains over the text "
    "that the product had stands beside it."
)
HEAD = ("Attacked", "Attacks", "Mean lift", "Worst", "Over 3", "Worst over own text", "Neutral: mean", "Neutral: worst")
FAMILY_HEAD = ("Family", "Attacks", "Mean lift", "Worst")
Row = tuple[str, ...]


@dataclass(frozen=True)
class Injection:
    """The `rows` under HEAD, the `families` under FAMILY_HEAD, without a language model, and what it rests on."""

    rows: tuple[Row, ...]
    families: tuple[Row, ...]
    notes: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, file: Path) -> Injection | None:
        """None where there is no record; StoreError for a broken one."""
        if not file.is_file():
            return None
        try:
            return cls._of(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{file} is no record of attacks ({error!r}); make it again: python benchmarks/injection.py "
                f"--part retrieval --out {file}"
            ) from None

    @classmethod
    def _of(cls, record: Mapping[str, Any]) -> Injection:
        retrieval, llm = record["retrieval"], record.get("llm")
        rows = [_row("without a language model", retrieval["all"], retrieval["neutral text"])]
        rows += [_row(f"{place}, without", one) for place, one in retrieval["places"].items()]
        if llm:
            rows += _weighed(llm)
        families = tuple(_family(name, places) for name, places in retrieval["families"].items())
        facts = [fact for part in ("retrieval", "llm") if part in record for fact in _facts(part, record[part])]
        return cls(tuple(rows), families, tuple(_notes(llm)), tuple(facts))


def _weighed(llm: Mapping[str, Any]) -> Iterator[Row]:
    for part, name in (("candidates", "titles of candidates"), ("shared", "what all prompts share")):
        for weight, found in sorted(llm.get(part, {}).items(), key=lambda one: float(one[0])):
            yield _row(f"{name}, rerank_weight {weight}", found["all"], found["neutral text"])


def _row(name: str, all_: Mapping[str, Any], neutral: Mapping[str, Any] | None = None) -> Row:
    beside = (_mean(neutral["mean"]), f"{neutral['worst']}") if neutral else ("–", "–")
    counts = (f"{all_['cases']:,}", _mean(all_["mean"]), f"{all_['worst']}", f"{all_['over_3']:,}")
    return (name, *counts, f"{all_['own_worst']}", *beside)


def _family(name: str, places: Mapping[str, Mapping[str, Any]]) -> Row:
    cases = sum(one["cases"] for one in places.values())
    mean = sum(one["cases"] * one["mean"] for one in places.values()) / max(cases, 1)
    return (name, f"{cases:,}", _mean(mean), str(max(one["worst"] for one in places.values())))


def _notes(llm: Mapping[str, Any] | None) -> Iterator[str]:
    if llm:
        told = llm["next"]
        yield (
            f"Asked what comes next, the model named the attacked product {told['attacked']} times in {told['cases']} "
            f"with an attack as its title, and {told['neutral']} times with a neutral text."
        )


def _facts(part: str, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    name = "without a language model" if part == "retrieval" else "with one"
    models = ", ".join(f"{key} {value}" for key, value in found.get("models", {}).items())
    sample = f"{found['shoppers']} shoppers, {found['products']:,} products"
    yield (
        name,
        f"{sample}; {found['date']}, {found['machine']}, recgraph {found['version']}" + "; " * bool(models) + models,
    )
    yield "command", str(found["command"])


def _mean(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")
