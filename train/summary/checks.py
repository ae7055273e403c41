"""How good written summaries are, without another model as a judge: whether they stay with their prompt, and whether
they only copy it.

Built on `graph/summary/grounding.py`, the same checks that a run holds an LLM's summary to. Knows neither how a model
is trained nor how it writes: `written` asks any LLM of `tools/llm/protocol.py`, and `summary_report` takes the texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from recgraph.graph.prompts import parse_summary
from recgraph.graph.summary.grounding import CatalogueWords, copied
from recgraph.graph.summary.summarizers import MOST_COPIED
from recgraph.graph.summary.wording import words
from recgraph.tools.llm.protocol import LLM, Prompt

_NUMBERED = re.compile(r"^\d+\. ")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# words of an n-gram, share of them that makes a copy, words of a line worth copying
_SHORT_GRAM, _MOST_SHORT_GRAMS, _LEAST_LINE = 5, 0.6, 5


def grounding_rate(texts: Sequence[str], contexts: Sequence[Sequence[str]], vocabulary: CatalogueWords) -> float:
    """Share of the summaries that name no brand, category or colour outside their own context (the lines and summaries
    of their prompt).

    An empty summary counts as a miss. No texts: 0.
    """
    return _share(
        [
            bool(text.strip()) and not vocabulary.ungrounded(text, context)
            for text, context in zip(texts, contexts, strict=True)
        ]
    )


def copy_rate(texts: Sequence[str], contexts: Sequence[Sequence[str]]) -> float:
    """Share of the summaries that hold a line of their context (of five words or more), or most of whose 5-grams stand
    in it."""
    return _share([_copies(text, context) for text, context in zip(texts, contexts, strict=True)])


def prompt_context(user: str) -> list[str]:
    """The data lines and earlier summaries of a rendered summary prompt, without the instruction, the headings and the
    numbering."""
    data = user[user.index("\n[") :] if "\n[" in user else user
    return [
        _NUMBERED.sub("", line)
        for line in data.split("\n")
        if line and not (line.startswith("[") and line.endswith("]"))
    ]


def summary_report(
    texts: Sequence[str], users: Sequence[str], vocabulary: CatalogueWords, count_tokens: Callable[[str], int]
) -> Mapping[str, float]:
    """What to write beside an adapter about its summaries on held-out users, and the same of the base model.

    `users` are the rendered prompts' user texts. `grounded` and `copies` as above; `numbers` is the share all of whose
    numbers stand in the prompt; `accepted` the share that a run would keep and not replace by the profile.
    """
    texts = [parse_summary(text) for text in texts]
    contexts = [prompt_context(user) for user in users]
    pairs = list(zip(texts, contexts, strict=True))
    kept = [
        bool(text) and not vocabulary.ungrounded(text, context) and copied(text, "\n".join(context)) <= MOST_COPIED
        for text, context in pairs
    ]
    return {
        "rows": float(len(texts)),
        "grounded": grounding_rate(texts, contexts, vocabulary),
        "numbers": _share(
            [set(_NUMBER.findall(text)) <= set(_NUMBER.findall("\n".join(context))) for text, context in pairs]
        ),
        "copies": copy_rate(texts, contexts),
        "accepted": _share(kept),
        "empty": _share([not text for text in texts]),
        "tokens_mean": sum(map(count_tokens, texts)) / len(texts) if texts else 0.0,
    }


def written(
    llm: LLM, prompts: Sequence[Prompt], adapter: str | None = None, at_once: int = 8, max_tokens: int = 160
) -> list[str]:
    """The LLM's summaries of these prompts, greedy, as a run would ask for them (but not asked for a second time)."""
    texts: list[str] = []
    for start in range(0, len(prompts), at_once):
        answers, _ = llm.generate(prompts[start : start + at_once], max_tokens=max_tokens, adapter=adapter)
        texts += [answer.text for answer in answers]
    return texts


def _copies(text: str, context: Sequence[str]) -> bool:
    said = f" {' '.join(words(text)).casefold()} "
    lines = [" ".join(words(line)).casefold() for line in context if len(words(line)) >= _LEAST_LINE]
    return (
        any(f" {line} " in said for line in lines) or copied(text, "\n".join(context), _SHORT_GRAM) > _MOST_SHORT_GRAMS
    )


def _share(truths: Sequence[bool]) -> float:
    return sum(truths) / len(truths) if truths else 0.0
