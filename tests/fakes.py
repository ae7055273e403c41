"""Stand-ins for what real parts cannot show, and small worlds whose right answers are obvious."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from recgraph.errors import LLMError
from recgraph.store.records import Event, Item
from recgraph.tools.llm import Completion, Form, Prompt, Usage

START = datetime(2025, 1, 1)


def item(item_id: str, title: str = "", **fields: object) -> Item:
    return Item(item_id, title or f"Title of {item_id}", **fields)  # type: ignore[arg-type]


def click(seq: int, item_id: str, action: str = "click", user_id: str = "U1") -> Event:
    return Event(user_id, seq, START + timedelta(days=seq), action, item_id)  # type: ignore[arg-type]


def search(seq: int, query: str, user_id: str = "U1") -> Event:
    return Event(user_id, seq, START + timedelta(days=seq), "search", "", query)


class FakeLLM:
    """Answers from a queue (the last answer repeats) and scores every candidate alike; raises what it is given to raise."""

    def __init__(self, *answers: str, raises: LLMError | None = None, parameters: int | None = 135_000_000, name: str = "fake") -> None:
        self.answers, self.raises, self.parameters, self.name = list(answers), raises, parameters, name
        self.adapters: tuple[str, ...] = ()
        self.asked: list[Prompt] = []
        self.forms: list[Form | None] = []
        self.scored: list[Prompt] = []

    def generate(
        self, prompts: Sequence[Prompt], *, max_tokens: int = 64, form: Form | None = None, adapter: str | None = None, deadline: float | None = None
    ) -> tuple[list[Completion], Usage]:
        if self.raises:
            raise self.raises
        self.asked.extend(prompts)
        self.forms.append(form)
        texts = [self.answers.pop(0) if len(self.answers) > 1 else self.answers[0] if self.answers else "" for _ in prompts]
        return [Completion(text, True) for text in texts], Usage(prompt=10, completion=5)

    def score(
        self, prompts: Sequence[Prompt], *, answers: tuple[str, str] = ("Yes", "No"), adapter: str | None = None, deadline: float | None = None
    ) -> tuple[list[tuple[float, float]], Usage]:
        if self.raises:
            raise self.raises
        self.scored.extend(prompts)
        return [(-1.0, -0.5)] * len(prompts), Usage(prompt=len(prompts))

    def count_tokens(self, text: str) -> int:
        return len(text) // 4
