"""Prompts and answers as the tokens that training reads, with the template and tokenizer that serve. Knows one
tokenizer, no model."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from recgraph.errors import SettingsError
from recgraph.tools.llm.chat import ChatText
from recgraph.tools.llm.protocol import Prompt
from recgraph.train.lora.trees import Example


class Tokens:
    """Turns prompts and answers into examples with the template and tokenizer that serving uses."""

    def __init__(self, base: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
        self._chat = ChatText(self.tokenizer)
        self._end: list[int] = [self.tokenizer.eos_token_id]

    def example(
        self,
        prompt: Prompt,
        answer: str,
        *,
        weight: float = 1.0,
        group: int = 0,
        stop: bool = True,
        limit: int = 0,
        silent: str = "",
    ) -> Example:
        """One example; with `stop` the model also learns to end there. The first place of `silent` in the answer is not
        learnt.

        SettingsError where it is longer than `limit` (0: no limit).
        """
        text, tokens = self._chat.render(prompt)
        whole = self._chat.encode(text + answer)
        if whole[: len(tokens)] != tokens:
            raise ValueError(f"The answer {answer[:40]!r} melts into its prompt.")
        learnt = array("i", whole[len(tokens) :] + (self._end if stop else []))
        found = Example(
            array("i", tokens), learnt, weight, group, self._place(text, answer, silent) if silent else (0, 0)
        )
        if limit and len(found) > limit:
            raise SettingsError(
                f"An example has {len(found)} tokens and max_tokens is {limit}: raise it, or shorten the history of "
                "the prompts."
            )
        return found

    def _place(self, text: str, answer: str, part: str) -> tuple[int, int]:
        """Which tokens of an answer to the prompt `text` hold `part` of it; a token that also holds something else
        counts to neither end."""
        before = answer.index(part)
        whole, tokens = self._chat.encode(text + answer), len(self._chat.encode(text))
        start, end = (
            _shared(whole, self._chat.encode(text + answer[:size].rstrip(" "))) - tokens
            for size in (before, before + len(part))
        )
        return start, end


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common from their start."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
