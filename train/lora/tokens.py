"""Prompts and answers as the tokens that training reads, with the template and tokenizer that serve. Knows one
tokenizer, no model."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from recgraph.errors import SettingsError
from recgraph.tools.llm.chat import ChatText
from recgraph.tools.llm.protocol import Prompt
from recgraph.train.lora.trees import Example

_AT_ONCE = 1024  # lessons whose texts the tokenizer gets together: its own records of them take some 100 MB


@dataclass(frozen=True, slots=True)
class Lesson:
    """A prompt and the answer to learn, in text; the rest as in `Example`. With `stop` the model also learns to end
    there; the first place of `silent` in the answer is not learnt."""

    prompt: Prompt
    answer: str
    weight: float = 1.0
    group: int = 0
    stop: bool = True
    silent: str = ""


class Tokens:
    """Turns prompts and answers into examples with the template and tokenizer that serving uses."""

    def __init__(self, base: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
        self._chat = ChatText(self.tokenizer)
        self._end: list[int] = [self.tokenizer.eos_token_id]

    def examples(self, lessons: Sequence[Lesson], limit: int = 0) -> list[Example]:
        """One example a lesson, in their order. SettingsError where one is longer than `limit` (0: no limit).

        The tokenizer gets many texts at once, which it works through in all cores (unless TOKENIZERS_PARALLELISM says
        no): each prompt once, and of the answers with their prompts only what may not be cut (`ChatText.tail`).
        """
        found: list[Example] = []
        for start in range(0, len(lessons), _AT_ONCE):
            part = lessons[start : start + _AT_ONCE]
            rendered = self._chat.render_all([lesson.prompt for lesson in part])
            tails = [self._chat.tail(text) for text, _ in rendered]
            texts = [_texts(lesson, tail) for lesson, tail in zip(part, tails, strict=True)]
            new = list(dict.fromkeys([*tails, *(one for some in texts for one in some)]))
            known = dict(zip(new, self._chat.encode_all(new), strict=True))
            found += [
                self._example(lesson, tokens, known[tail], [known[text] for text in some], limit)
                for lesson, (_, tokens), tail, some in zip(part, rendered, tails, texts, strict=True)
            ]
        return found

    def _example(
        self, lesson: Lesson, tokens: list[int], tail: list[int], texts: Sequence[list[int]], limit: int
    ) -> Example:
        """From the tokens of its prompt, of the prompt's tail and of its `_texts`."""
        whole, *cut = texts
        if tokens[len(tokens) - len(tail) :] != tail:
            raise ValueError(
                f"The tokenizer reads the end of a prompt in another way alone: {lesson.prompt.user[-40:]!r}."
            )
        if whole[: len(tail)] != tail:
            raise ValueError(f"The answer {lesson.answer[:40]!r} melts into its prompt.")
        learnt = array("i", whole[len(tail) :] + (self._end if lesson.stop else []))
        # A token that holds something else beside the silent part counts to neither end.
        start, end = (_shared(whole, one) - len(tail) for one in cut) if cut else (0, 0)
        found = Example(array("i", tokens), learnt, lesson.weight, lesson.group, (start, end))
        if limit and len(found) > limit:
            raise SettingsError(
                f"An example has {len(found)} tokens and max_tokens is {limit}: raise it, or shorten the history of "
                "the prompts."
            )
        return found


def _texts(lesson: Lesson, prompt: str) -> list[str]:
    """The end of the rendered prompt with the answer; and where a part of it is silent, what stands before that, and
    both."""
    whole = [prompt + lesson.answer]
    if not lesson.silent:
        return whole
    before = lesson.answer.index(lesson.silent)
    return whole + [prompt + lesson.answer[:size].rstrip(" ") for size in (before, before + len(lesson.silent))]


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common from their start."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
