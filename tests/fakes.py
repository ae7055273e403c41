"""Stand-ins for what real parts cannot show, and small worlds whose right answers are obvious."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from typing import Any

import numpy as np
import pytest

from recgraph.errors import LLMError
from recgraph.evaluation import systems as registry
from recgraph.evaluation.systems import Entry
from recgraph.store.records import Event, Item
from recgraph.tools.llm.protocol import Completion, Form, Prompt, Usage
from recgraph.train.task import System

START = datetime(2025, 1, 1)


def item(item_id: str, title: str = "", **fields: object) -> Item:
    return Item(item_id, title or f"Title of {item_id}", **fields)  # type: ignore[arg-type]


def click(seq: int, item_id: str, action: str = "click", user_id: str = "U1") -> Event:
    return Event(user_id, seq, START + timedelta(days=seq), action, item_id)  # type: ignore[arg-type]


def search(seq: int, query: str, user_id: str = "U1") -> Event:
    return Event(user_id, seq, START + timedelta(days=seq), "search", "", query)


class FakeLLM:
    """Answers from a queue (the last answer repeats) and scores every candidate alike; raises what it is given to
    raise."""

    def __init__(
        self, *answers: str, raises: LLMError | None = None, parameters: int | None = 135_000_000, name: str = "fake"
    ) -> None:
        self.answers, self.raises, self.parameters, self.name = list(answers), raises, parameters, name
        self.adapters: tuple[str, ...] = ()
        self.max_choices, self.on_cpu = 1000, False
        self.asked: list[Prompt] = []
        self.forms: list[Form | None] = []
        self.scored: list[Prompt] = []

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int = 64,
        form: Form | None = None,
        adapter: str | None = None,
        deadline: float | None = None,
    ) -> tuple[list[Completion], Usage]:
        if self.raises:
            raise self.raises
        self.asked.extend(prompts)
        self.forms.append(form)
        texts = [
            self.answers.pop(0) if len(self.answers) > 1 else self.answers[0] if self.answers else "" for _ in prompts
        ]
        return [Completion(text, True) for text in texts], Usage(prompt=10, completion=5)

    def score(
        self,
        prompts: Sequence[Prompt],
        *,
        answers: tuple[str, str] = ("Yes", "No"),
        adapter: str | None = None,
        deadline: float | None = None,
    ) -> tuple[list[tuple[float, float]], Usage]:
        if self.raises:
            raise self.raises
        self.scored.extend(prompts)
        return [(-1.0, -0.5)] * len(prompts), Usage(prompt=len(prompts))

    def count_tokens(self, text: str) -> int:
        return len(text) // 4


class FakeEncoder:
    """A bag of words: each word adds one at a place given by its letters, so that texts with common words are near."""

    name, dim = "bag-of-words", 64

    def encode(self, texts: Sequence[str], progress: object = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.casefold().replace(",", " ").split():
                vectors[row, sum(map(ord, word)) % self.dim] += 1
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)


SHOP_ITEMS = """item_id,title,category,brand,color,size,price,parent_id,first_seen,in_stock
S1OLIV,"Harrow Linen Shirt, Olive, M",shirts,Harrow,Olive,M,48,STYLE1,2025-01-01,true
S1NAVY,"Harrow Linen Shirt, Navy, M",shirts,Harrow,Navy,M,48,STYLE1,2025-01-01,true
S1SAND,"Harrow Linen Shirt, Sand, M",shirts,Harrow,Sand,M,48,STYLE1,2025-01-01,true
S2OLIV,"Fenn Oxford Shirt, Olive, L",shirts,Fenn,Olive,L,59,STYLE2,2025-01-01,true
K1GREY,"Fenn Cable Cardigan, Grey, M",knitwear,Fenn,Grey,M,89,STYLE3,2025-01-01,true
K2OLIV,"Harrow Wool Jumper, Olive, M",knitwear,Harrow,Olive,M,79,STYLE4,2025-01-01,true
B1BRWN,"Otter Chelsea Boots, Brown, 42",boots,Otter,Brown,42,140,STYLE5,2025-01-01,true
B2BLCK,"Otter Hiking Boots, Black, 42",boots,Otter,Black,42,150,STYLE6,2025-01-01,true
D1SAGE,"Fenn Wrap Dress, Sage, S",dresses,Fenn,Sage,S,95,STYLE7,2025-01-01,true
NOTITL,,bags,Otter,Black,,60,STYLE8,2025-01-01,true
FUTURE,"Harrow Linen Blazer, Olive, M",jackets,Harrow,Olive,M,180,STYLE9,2025-06-01,true
SOLDUT,"Harrow Linen Trousers, Olive, M",trousers,Harrow,Olive,M,70,STYLE10,2025-01-01,false
"""
SHOP_EVENTS = """user_id,ts,action,item_id,query,position
U1,2025-02-01 10:00:00,search,,linen shirt,
U1,2025-02-01 10:01:00,click,S1OLIV,linen shirt,1
U1,2025-02-01 10:02:00,click,S1NAVY,linen shirt,2
U1,2025-02-01 10:05:00,purchase,S1OLIV,linen shirt,1
U1,2025-03-01 09:00:00,search,,wool jumper,
U1,2025-03-01 09:01:00,click,K1GREY,wool jumper,1
U1,2025-07-01 09:01:00,click,FUTURE,,
U2,2025-02-03 10:00:00,click,S1OLIV,,
U2,2025-02-03 10:01:00,click,K2OLIV,,
U2,2025-02-04 10:01:00,purchase,B1BRWN,,
U3,2025-02-05 10:00:00,click,K1GREY,,
U3,2025-02-05 10:01:00,purchase,K2OLIV,,
"""
SHOP_EXPOSURES = """query,item_id,position,ts
linen shirt,S1OLIV,1,2025-02-01
linen shirt,S1NAVY,2,2025-02-01
linen shirt,S2OLIV,3,2025-02-01
wool jumper,K1GREY,1,2025-03-01
wool jumper,K2OLIV,2,2025-03-01
blazer,FUTURE,1,2025-07-01
"""


def registered(monkeypatch: pytest.MonkeyPatch, name: str, kind: type[System]) -> None:
    """Registers a system for one test, as if its class stood in a module of evaluation/baselines."""
    module: Any = module_from_spec(ModuleSpec(f"recgraph.evaluation.baselines.{name}", None))
    module.Kind = kind
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(registry, "_ENTRIES", [*registry._ENTRIES, Entry(name, f"{name}.Kind")])
