"""Constrained answers as tokens: a `Form` tokenised once, and the search among thousands of choices token by token.

It knows tokens and `protocol.Form`, no model. Tokens are cut so that lead + choice + middle + text give the tokens that
the whole text would give: a blank at the end of lead or middle belongs to the token after it ("ID: X" is "ID", ":", "
X").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recgraph.tools.llm.protocol import Form

# vLLM gives a regular expression 5 s to compile: 4,000 ids take 0.2-2 s, 16,000 failed on a busy machine with status
# 500
MAX_CHOICES = 4000
# texts → the token ids of each, without the template's own (ChatText.encode_all)
Encode = Callable[[Sequence[str]], list[list[int]]]


def check_form(form: Form) -> None:
    """Raises ValueError for a form no model can follow: no choices, an empty or repeated one, a middle of blanks
    only."""
    if not form.choices or not all(form.choices):
        raise ValueError("A form needs at least one choice, and none may be empty.")
    if len(set(form.choices)) < len(form.choices):
        raise ValueError("A form's choices must differ from each other.")
    if form.middle and not form.middle.strip(" "):
        raise ValueError(f"A form's middle is {form.middle!r}; blanks alone do not separate the choice from the text.")


def form_regex(form: Form) -> str:
    """The form as a regular expression, the way a server is told it. An empty `middle` ends the answer after the
    choice."""
    check_form(form)
    choices = "|".join(_escape(choice) for choice in form.choices)
    return f"{_escape(form.lead)}({choices}){_escape(form.middle)}" + ("[^\\n]+" if form.middle else "")


def follows(form: Form, text: str) -> bool:
    """Whether an answer has the form, as `form_regex` says it. (Python takes half a second to compile an expression of
    16,000 ids.)"""
    choice, found, free = (
        text.removeprefix(form.lead).partition(form.middle) if form.middle else (text.removeprefix(form.lead), "", "")
    )
    written = bool(found and free and "\n" not in free) if form.middle else True
    return text.startswith(form.lead) and choice in form.choices and written


@dataclass(frozen=True)
class TokenTable:
    """The token sequences of the choices, each closed by the first token of what follows, sorted: a trie without its
    nodes.

    A node of the trie is a range of rows and a depth. int32[choices, longest], padded with -1; 12,000 ids take 1 MB and
    0.1 s.
    """

    rows: np.ndarray[Any, np.dtype[np.int32]]
    order: np.ndarray[Any, np.dtype[np.int64]]  # row → index of the choice

    @classmethod
    def build(cls, sequences: Sequence[Sequence[int]]) -> TokenTable:
        table = np.full((len(sequences), max(map(len, sequences))), -1, dtype=np.int32)
        for row, sequence in enumerate(sequences):
            table[row, : len(sequence)] = sequence
        order = np.lexsort(table.T[::-1])
        return cls(table[order], order)

    def next_tokens(self, low: int, high: int, depth: int) -> list[int]:
        """The distinct tokens that may follow at a node, ascending; empty at a leaf."""
        if depth >= self.rows.shape[1]:
            return []
        column = self.rows[low:high, depth]
        starts = np.flatnonzero(np.r_[True, column[1:] != column[:-1]])
        return [int(token) for token in column[starts] if token >= 0]

    def forks(self, limit: int) -> list[list[int]] | None:
        """The tokens that lead to each node where more than one token may follow; None where they are more than `limit`
        in all: thousands of ids fork at thousands of nodes."""
        found: list[list[int]] = []
        nodes: list[tuple[int, int, list[int]]] = [(0, len(self.rows), [])]
        read = 0
        while nodes:
            low, high, path = nodes.pop()
            options = self.next_tokens(low, high, len(path)) if high - low > 1 else []
            if len(options) > 1:
                found.append(path)
                read += len(path)
            if read > limit or len(options) > limit:
                return None
            nodes += [(*self.step(low, high, len(path), token), [*path, token]) for token in options]
        return found

    def step(self, low: int, high: int, depth: int, token: int) -> tuple[int, int]:
        """The range of rows below a node that go on with a token."""
        column = self.rows[low:high, depth]
        return low + int(np.searchsorted(column, token, "left")), low + int(np.searchsorted(column, token, "right"))


@dataclass(frozen=True)
class TokenForm:
    """A form in tokens. `lead` is the text to append to the prompt, `middle` the tokens after the choice, `free_blank`
    says that the free text must begin with the blank that `middle` ended with."""

    form: Form
    lead: str
    table: TokenTable
    middle: tuple[int, ...]
    middle_cut: str
    free_blank: str

    def draft(self, encode: Encode, text: str) -> list[int]:
        """The tokens of a probable free text, its first line only. It begins with the blank that `middle` ended with;
        where that ended with none, the text's own blank belongs to it."""
        text = text.split("\n")[0].rstrip(" ")
        if self.free_blank:
            text = self.free_blank + text.lstrip(" ")
        return _after(encode, self.middle_cut, self.middle_cut + text) if text.strip(" ") else []


def tokenize_form(encode: Encode, end: int, form: Form) -> TokenForm:
    """A form in the tokens of a tokenizer, whose token `end` closes a text. Raises ValueError as `check_form` does."""
    check_form(form)
    lead, lead_blank = _split_blank(form.lead)
    middle_cut, free_blank = _split_blank(form.middle)
    base = encode([lead])[0] if lead else []
    whole = encode([form.lead + choice for choice in form.choices])
    sequences = [ids[len(base) :] if ids[: len(base)] == base else None for ids in whole]
    # lead and choice melt into one token: take the choice on its own
    if any(sequence is None for sequence in sequences):
        sequences = list(encode([lead_blank + choice for choice in form.choices]))
    head = form.lead + form.choices[0]
    middle = _after(encode, head, head + middle_cut) if middle_cut else []
    closing = [end] if not middle else middle[:1]
    table = TokenTable.build([[*(sequence or []), *closing] for sequence in sequences])
    return TokenForm(form, lead, table, tuple(middle), middle_cut, free_blank)


def likely_rest(written: Sequence[int], drafts: Sequence[Sequence[int]], most: int = 16) -> list[int]:
    """What follows in one of the drafts after the longest end of what was written, at most so many tokens: an answer
    that leaves one title goes on as another, or comes back to the first after a colour of its own."""
    best, found = 0, list[int]()
    for draft in drafts:
        for end in range(1, len(draft)):
            length = 0
            while length < min(end, len(written)) and draft[end - 1 - length] == written[-1 - length]:
                length += 1
            if length > best:
                best, found = length, list(draft[end : end + most])
    return found


def _escape(text: str) -> str:
    """`re.escape` for grammar engines too: only what is special is escaped (they refuse "\\ " and "\\-"), a line end is
    written out."""
    return re.sub(r"([\\.^$*+?{}\[\]()|/])", r"\\\1", text).replace("\n", "\\n")


def _split_blank(text: str) -> tuple[str, str]:
    cut = text.rstrip(" ")
    return cut, text[len(cut) :]


def _after(encode: Encode, head: str, whole: str) -> list[int]:
    """The tokens of `whole` after those of `head`; where they melt into each other, the tokens of the rest on its
    own."""
    first, both = encode([head, whole])
    return both[len(first) :] if both[: len(first)] == first else encode([whole[len(head) :]])[0]
