"""Chat prompts as text and tokens: the template applied, control tokens kept out of contents, the tokens of answers,
line ends.

It knows one tokenizer and no model. Training renders its examples with the same class, so serving and training see the
same tokens.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from jinja2.exceptions import TemplateError

from recgraph.errors import LLMError, ModelMissing
from recgraph.tools.llm.protocol import Prompt


class ChatText:
    """A tokenizer with its chat template. Raises ModelMissing for a tokenizer without one (a base model that never
    learnt to chat)."""

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.chat_template:
            raise ModelMissing(
                f"{tokenizer.name_or_path} has no chat template; recgraph needs an instruction-tuned model."
            )
        self._tokenizer = tokenizer
        self._lock = threading.Lock()  # a fast tokenizer may not be called from two threads at once
        added = {
            str(token)
            for token in tokenizer.added_tokens_decoder.values()
            if token.special or str(token) in tokenizer.chat_template
        }
        self.end = int(tokenizer.eos_token_id)
        self._control = sorted(added | set(tokenizer.all_special_tokens), key=len, reverse=True)
        self._control_ids = frozenset(tokenizer.convert_tokens_to_ids(self._control))
        self._system = self._takes_system()
        probe = self._apply("a", "b")
        whole, self._begins_anew = self.encode(probe), True
        alone = self.encode(self.tail(probe))
        self._begins_anew = whole[len(whole) - len(alone) :] == alone
        self._own = self._count_control(whole)
        pieces: list[str] = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        breaks = ("Ċ", "\n", "<0x0A>")  # how byte-level and SentencePiece vocabularies write a line end
        self.line_ends = frozenset(
            i for i, piece in enumerate(pieces) if piece and any(mark in piece for mark in breaks)
        )
        self._blanks = [i for i, piece in enumerate(pieces) if piece and piece[0] in "Ġ▁ " and i not in self.line_ends]

    def render(self, prompt: Prompt) -> tuple[str, list[int]]:
        """The prompt as the model reads it, ready for its answer: text and tokens. Control tokens inside its texts are
        broken up."""
        return self.render_all([prompt])[0]

    def render_all(self, prompts: Sequence[Prompt]) -> list[tuple[str, list[int]]]:
        """`render` of several prompts at once."""
        texts = [self._apply(self._defuse(prompt.system), self._defuse(prompt.user)) for prompt in prompts]
        rendered = list(zip(texts, self.encode_all(texts), strict=True))
        for _, tokens in rendered:
            if (found := self._count_control(tokens)) != self._own:
                raise LLMError(
                    f"A prompt has {found} control tokens where its template has {self._own}; its text cannot be shown "
                    "to the model."
                )
        return rendered

    def tail(self, rendered: str) -> str:
        """What of a rendered prompt stands from its last control token on: there a tokenizer begins anew, so that this
        and what is written after it has the tokens it has behind the whole prompt. All of it with a tokenizer that does
        not."""
        return (
            rendered[max(0, *(rendered.rfind(token) for token in self._control)) :] if self._begins_anew else rendered
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of rendered text, control tokens understood."""
        with self._lock:
            return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of several texts at once."""
        with self._lock:
            return [list(tokens) for tokens in self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def decode(self, tokens: Sequence[int]) -> str:
        with self._lock:
            return str(
                self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
            )

    def answer_tokens(self, rendered: str, answers: Sequence[str]) -> list[int]:
        """The first token of each answer as it would follow the prompt ("Yes" and " Yes" are different tokens).

        Raises ValueError where two begin with the same token or one melts into the prompt, so that a score would mean
        nothing.
        """
        before = self.encode(rendered)
        first = []
        for answer in answers:
            after = self.encode(rendered + answer)
            if after[: len(before)] != before or len(after) == len(before):
                raise ValueError(f"The answer '{answer}' has no token of its own after this prompt.")
            first.append(after[len(before)])
            if first[-1] in first[:-1]:
                raise ValueError(
                    f"The answers '{answers[first.index(first[-1])]}' and '{answer}' begin with the same token."
                )
        return first

    def blank_mask(self, size: int) -> torch.Tensor:
        """bool[size]: the tokens that begin with a blank and hold no line end."""
        mask = torch.zeros(size, dtype=torch.bool)
        mask[self._blanks] = True
        return mask

    def _apply(self, system: str, user: str) -> str:
        if self._system:
            messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        else:
            messages = [{"role": "user", "content": f"{system}\n\n{user}" if system else user}]
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _takes_system(self) -> bool:
        """Some templates (Gemma's) refuse a system message or drop it; then it goes in front of the user text."""
        messages = [{"role": "system", "content": "recgraph-probe"}, {"role": "user", "content": "b"}]
        try:
            return "recgraph-probe" in self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except TemplateError:
            return False

    def _defuse(self, text: str) -> str:
        """A blank after the first character of every control token: it stays readable and is no control token any
        more."""
        for token in self._control:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _count_control(self, tokens: Sequence[int]) -> int:
        return sum(token in self._control_ids for token in tokens)
