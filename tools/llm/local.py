"""The LLM in process: transformers + peft, greedy, with a prefix cache, one shared prefix for all Yes/No prompts, and
forms by token.

It knows how a causal language model is run fast and exactly; not where models lie (places.py) and not what the prompts
say.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from recgraph.errors import LLMError, LLMTimeout, ModelMissing
from recgraph.tools.llm.adapter_sets import Base
from recgraph.tools.llm.adapters import Adapters
from recgraph.tools.llm.chat import ChatText
from recgraph.tools.llm.forms import TokenForm, TokenTable, likely_rest, tokenize_form
from recgraph.tools.llm.passes import PREFILL_TOKENS, Passes, check, packs
from recgraph.tools.llm.places import placement, quiet_transformers
from recgraph.tools.llm.prefix import PrefixCache, common_prefix, cut, is_plain, stack_left_padded, working_cache
from recgraph.tools.llm.protocol import Completion, Form, Prompt, Usage

PACK_TOKENS = 640  # tokens of one pass over candidates; a pass costs about 70 ms on two cores before its first token
# of a shared prefix: fewer are read as the root of the candidates' tree, more in a pass of their own that is kept
FEW_TOKENS = 32
DRAFTS = 32  # texts in which the rest of an answer is looked for
GENERATE_ROWS = 16  # prompts decoded together
# tokens that lead to the forks of a form's choices: so many are read with the prompt, to choose in one pass
FORK_TOKENS = 96


class LocalLLM:
    """A causal language model in this process (see `protocol.LLM`).

    `adapters` maps names to PEFT LoRA folders. Threads may share one object; calls run one after the other. `context`
    is the longest prompt plus answer in tokens. Raises ModelMissing for a folder that cannot be used.
    """

    parameters: int | None

    def __init__(
        self,
        folder: str | Path,
        adapters: Mapping[str, str] | None = None,
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        cache: PrefixCache | None = None,
    ) -> None:
        folder = Path(folder)
        best_device, best_dtype = placement()
        self.device = torch.device(device or best_device)
        self.on_cpu = self.device.type == "cpu"
        base = Base.of(folder)
        self.name = f"{base.name}-{base.fingerprint}"
        with quiet_transformers():
            try:
                tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
                model: Any = AutoModelForCausalLM.from_pretrained(
                    folder, dtype=dtype or best_dtype, attn_implementation="sdpa", trust_remote_code=False
                )
            except (OSError, ValueError) as error:
                raise ModelMissing(f"The language model in {folder} cannot be loaded: {error}") from error
            if not is_plain(model.config):
                raise ModelMissing(
                    f"{folder} has sliding-window or state-space layers; serve it with vLLM and give --llm-url."
                )
            self.parameters = sum(p.numel() for p in model.parameters())
            self._model = model.to(self.device).eval()
            self._adapters = Adapters(self._model, adapters or {}, base)
        self.adapters: tuple[str, ...] = self._adapters.names
        self.max_choices = 50_000  # a trie of so many ids is built in about a second and kept
        self.context = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 30)
        self._chat = ChatText(tokenizer)
        self._stops = _stop_tokens(model, tokenizer)
        self._prefixes = cache or PrefixCache()
        self._lock = threading.Lock()
        self._passes = Passes(model, self.device)  # used under the lock
        self._forms = lru_cache(maxsize=16)(self._tokenized)

    def _tokenized(self, lead: str, choices: tuple[str, ...], middle: str) -> TokenForm:
        """A form in tokens; without its drafts, which are another dict in every request, so that it can be kept."""
        return tokenize_form(self._chat.encode_all, self._chat.end, Form(lead, choices, middle))

    @property
    def warm(self) -> bool:
        """As `protocol.Remembering` has it."""
        return len(self._prefixes) > 0

    def start_afresh(self) -> None:
        """As `protocol.Remembering` has it."""
        with self._lock:
            self._prefixes.clear()

    def count_tokens(self, text: str) -> int:
        """The number of tokens of a text, without the chat template's own."""
        return len(self._chat.encode(text))

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int = 64,
        form: Form | None = None,
        adapter: str | None = None,
        deadline: float | None = None,
    ) -> tuple[list[Completion], Usage]:
        """Greedy answers, one a prompt, in order. With a form the answer is its whole text; lead, choice and middle are
        never cut off, the free text ends at the line's end or when the answer has `max_tokens` tokens."""
        if max_tokens < 1:
            raise ValueError(f"max_tokens is {max_tokens}; it must be at least 1.")
        tokens = self._forms(form.lead, form.choices, form.middle) if form else None
        rendered = [self._chat.render(prompt) for prompt in prompts]
        answers: list[Completion] = []
        usage = Usage()
        with self._turn(adapter, deadline):
            if tokens is not None and form is not None:
                for text, prompt in rendered:
                    answer, used = self._fill_form(text, prompt, tokens, form.drafts, max_tokens, adapter, deadline)
                    answers, usage = [*answers, answer], usage + used
                return answers, usage
            for start in range(0, len(rendered), GENERATE_ROWS):
                rows = [prompt for _, prompt in rendered[start : start + GENERATE_ROWS]]
                batch, used = self._decode(rows, max_tokens, adapter, deadline)
                answers, usage = [*answers, *batch], usage + used
        return answers, usage

    def score(
        self,
        prompts: Sequence[Prompt],
        *,
        answers: tuple[str, str] = ("Yes", "No"),
        adapter: str | None = None,
        deadline: float | None = None,
    ) -> tuple[list[tuple[float, float]], Usage]:
        """Log-probabilities of the first tokens of two answers right after each prompt.

        What all prompts share from the start is computed once, and so is what some of them share further on. Where the
        time is up after some prompts, theirs alone are given.
        """
        found, usage = self.score_answers(prompts, answers, adapter=adapter, deadline=deadline)
        return [(yes, no) for yes, no in found], usage

    def score_answers(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        adapter: str | None = None,
        deadline: float | None = None,
    ) -> tuple[list[list[float]], Usage]:
        """As `score`, of any number of answers: letters to choose from, say."""
        if not prompts:
            return [], Usage()
        rendered = [self._chat.render(prompt) for prompt in prompts]
        chosen = self._chat.answer_tokens(rendered[0][0], answers)
        rows = [tokens for _, tokens in rendered]
        self._fits(max(map(len, rows)), 1)
        shared = min(min(common_prefix(rows[0], row) for row in rows), min(map(len, rows)) - 1)
        with self._turn(adapter, deadline):
            known, reused = self._prefixes.longest(adapter, rows[0][:shared])
            if shared - reused > FEW_TOKENS:  # fewer are cheaper as the root of the tree than in a pass of their own
                cache, _, reused = self._prefill(rows[0][:shared], adapter, deadline, logits=False)
                known, root = [(layer.keys, layer.values) for layer in cache.layers] if shared else [], shared
            else:
                root = reused
            limit = PACK_TOKENS if self.on_cpu else PREFILL_TOKENS * 8
            found: list[torch.Tensor] = []
            for pack in packs([row[root:] for row in rows], limit):
                try:
                    found.append(self._passes.tree(pack, working_cache(self._model.config, known), deadline, chosen))
                except LLMTimeout:
                    if not found:
                        raise
                    break
        scores: list[list[float]] = torch.log_softmax(torch.cat(found), dim=-1)[:, chosen].tolist()
        return scores, Usage(sum(map(len, rows[: len(scores)])), 0, reused + root * (len(scores) - 1))

    @contextmanager
    def _turn(self, adapter: str | None, deadline: float | None) -> Iterator[None]:
        """One call at a time, with its adapter, without gradients."""
        if adapter is not None and adapter not in self.adapters:
            raise ValueError(f"'{adapter}' is no adapter of {self.name}; it has {', '.join(self.adapters) or 'none'}.")
        check(deadline)
        if not self._lock.acquire(timeout=-1 if deadline is None else max(0.0, deadline - time.monotonic())):
            raise LLMTimeout("The deadline passed while another request used the language model.")
        try:
            with torch.inference_mode():
                self._adapters.use(adapter)
                yield
        finally:
            self._lock.release()

    def _fits(self, prompt: int, answer: int) -> None:
        if prompt + answer > self.context:
            raise LLMError(
                f"The prompt has {prompt} tokens and asks for {answer} more, but {self.name} takes {self.context}. "
                "Shorten the history."
            )

    def _prefill(
        self, tokens: Sequence[int], adapter: str | None, deadline: float | None, *, logits: bool = True
    ) -> tuple[Any, torch.Tensor, int]:
        """A cache holding the tokens, the logits [1, vocabulary] after them if wanted, and how many came from the
        prefix cache."""
        states, reused = self._prefixes.longest(adapter, tokens[:-1] if logits else tokens)
        cache = working_cache(self._model.config, states)
        following = self._passes.feed(cache, tokens[reused:], 1, deadline) if reused < len(tokens) else torch.empty(0)
        self._prefixes.put(adapter, tokens, cache)
        return cache, following, reused

    def _decode(
        self, rows: list[list[int]], max_tokens: int, adapter: str | None, deadline: float | None
    ) -> tuple[list[Completion], Usage]:
        """Plain greedy decoding of several prompts: read one by one through the prefix cache, then decoded together,
        padded on the left."""
        self._fits(max(map(len, rows)), max_tokens)
        read = [self._prefill(row, adapter, deadline) for row in rows]
        cache, mask = stack_left_padded(self._model.config, [cache for cache, _, _ in read])
        following = torch.cat([logits for _, logits, _ in read]).argmax(-1)
        places = torch.tensor([len(row) for row in rows], device=self.device)
        written: list[list[int]] = [[] for _ in rows]
        open_rows = set(range(len(rows)))
        while True:
            for row in sorted(open_rows):
                token = int(following[row])
                if token in self._stops:
                    open_rows.discard(row)
                else:
                    written[row].append(token)
            if not open_rows or max(map(len, written)) >= max_tokens:
                break
            check(deadline)
            mask = torch.cat([mask, mask.new_ones((len(rows), 1))], dim=1)
            logits = self._model(
                input_ids=following[:, None],
                attention_mask=mask,
                position_ids=places[:, None],
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
            following, places = logits.argmax(-1), places + 1
        texts = [self._chat.decode(tokens) for tokens in written]
        answers = [Completion(text.strip(), row not in open_rows) for row, text in enumerate(texts)]
        usage = Usage(sum(map(len, rows)), sum(map(len, written)), sum(reused for _, _, reused in read))
        return answers, usage

    def _fill_form(
        self,
        rendered: str,
        prompt: list[int],
        form: TokenForm,
        drafts: Mapping[str, str],
        max_tokens: int,
        adapter: str | None,
        deadline: float | None,
    ) -> tuple[Completion, Usage]:
        """Lead forced, the choice by the token table, middle forced, then free text."""
        whole = self._chat.encode(rendered + form.lead)
        self._fits(len(whole), max_tokens)
        states, reused = self._prefixes.longest(adapter, prompt[:-1])
        cache = working_cache(self._model.config, states)
        row, taken, pending = self._choose(cache, whole[reused:], form.table, deadline)
        written = len(whole) - len(prompt) + taken
        choice = int(form.table.order[row])
        head = form.form.lead + form.form.choices[choice] + form.form.middle
        if not form.middle:
            self._prefixes.put(adapter, whole[: cache.get_seq_length()], cache)
            return Completion(head, True), Usage(len(prompt), written - 1, reused)
        pending += form.middle[1:]
        written += len(form.middle) - 1
        likely = dict.fromkeys([form.form.choices[choice], *drafts])  # the choice's own text first
        texts = [drafts[name] for name in islice(likely, DRAFTS) if name in drafts]
        guesses = [form.draft(self._chat.encode_all, text)[: max(0, max_tokens - written)] for text in texts]
        free, finished = [], False
        for token in self._continue(cache, pending, guesses, bool(form.free_blank), deadline):
            if finished := token in self._stops or token in self._chat.line_ends:
                break
            free.append(token)
            if written + len(free) >= max_tokens:
                break
        self._prefixes.put(adapter, whole, cache)
        text = self._chat.decode([*form.middle, *free])[len(self._chat.decode(list(form.middle))) :]
        body = (head.rstrip(" ") if form.free_blank else head) + text.rstrip()
        return Completion(body, finished), Usage(len(prompt), written + len(free), reused)

    def _choose(
        self, cache: Any, pending: list[int], table: TokenTable, deadline: float | None
    ) -> tuple[int, int, list[int]]:
        """The row of the choice that greedy decoding takes after `pending`, its number of tokens, and the tokens that
        the cache does not hold yet.

        A pass is needed only where several tokens are possible. Where those places are few, `pending` and what leads to
        all of them is one tree; else it is a pass for each token chosen.
        """
        low, high, taken = 0, len(table.rows), list[int]()
        forks = table.forks(FORK_TOKENS)
        seen: dict[tuple[int, ...], torch.Tensor] = {}
        if forks:
            if len(pending) > PREFILL_TOKENS:  # so that the deadline is looked at in between
                self._passes.feed(cache, pending[:-1], 1, deadline)
                pending = pending[-1:]
            length = cache.get_seq_length() + len(pending)
            logits = self._passes.tree([[*pending, *path] for path in forks], cache, deadline)
            seen, pending = dict(zip(map(tuple, forks), logits, strict=True)), []
            cut(cache, length)
        while options := table.next_tokens(low, high, len(taken)):
            token = options[0]
            if len(options) > 1:
                if forks is None:
                    seen[tuple(taken)], pending = self._passes.feed(cache, pending, 1, deadline)[0], []
                token = options[int(seen[tuple(taken)][options].argmax())]
            low, high = table.step(low, high, len(taken), token)
            pending.append(token)
            taken.append(token)
        return low, len(taken), pending

    def _continue(
        self, cache: Any, pending: list[int], drafts: Sequence[list[int]], blank: bool, deadline: float | None
    ) -> Iterator[int]:
        """Greedy tokens after `pending`. The first draft is read in the same pass and kept as far as greedy decoding
        would have written it; so is what then follows in any of them."""
        written: list[int] = []
        draft = drafts[0] if drafts else []
        while True:
            logits = self._passes.feed(cache, [*pending, *draft], len(draft) + 1, deadline)
            if blank and not written:  # the blank that ends the form's middle belongs to this token
                logits[0].masked_fill_(~self._chat.blank_mask(logits.shape[1]).to(self.device), float("-inf"))
            greedy = logits.argmax(-1).tolist()
            kept = common_prefix(greedy, draft)
            cut(cache, cache.get_seq_length() - (len(draft) - kept))
            yield from greedy[: kept + 1]
            written += greedy[: kept + 1]
            pending, draft = greedy[kept : kept + 1], likely_rest(written, drafts)


def _stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends an answer: the generation configuration's, one or several, and the tokenizer's."""
    stops = {tokenizer.eos_token_id}
    for config in (model.generation_config, model.config):
        ends = getattr(config, "eos_token_id", None)
        stops |= set(ends) if isinstance(ends, list) else {ends}
    return frozenset(int(token) for token in stops if token is not None)
