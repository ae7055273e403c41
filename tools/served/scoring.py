"""Yes/No on a vLLM server: the log-probabilities of two answers after each of many prompts.

Where the server has `/generative_scoring`, all prompts are one request: what they share once, then what each ends in.
That needs the chat template as text and a place where the shared tokens end; both are asked of the server once and
checked token by token. Else each prompt is a chat request of one token. Knows nothing of what is asked.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import openai
from langchain_openai import ChatOpenAI

from recgraph.errors import LLMError, LLMGarbled, LLMRefused, LLMTimeout, LLMUnavailable
from recgraph.tools.llm.protocol import Prompt, Usage
from recgraph.tools.served.calls import Calls

Pair = tuple[float, float]
_LOOK_SECONDS = 2.0  # between two looks at the server's counters, which are a page of some 50 kB
_FRAMES = 64  # kept; a frame a system text
_log = logging.getLogger(__name__)


class _Frame(NamedTuple):
    """The chat template around a user text."""

    before: str
    after: str


class _Parts(NamedTuple):
    """Prompts as the text they share and the rest of each."""

    shared: str
    rests: list[str]


class YesNo:
    """Scores answers on the server that `calls` calls; `root` is its address without /v1, `chat` asks it through its
    OpenAI API."""

    def __init__(self, calls: Calls, chat: ChatOpenAI, root: str) -> None:
        self._calls, self._chat, self._root = calls, chat, root
        self._client: openai.OpenAI = chat.root_client
        self._pairs: dict[tuple[str, tuple[str, str]], tuple[int, int]] = {}
        self._frames: dict[tuple[str, str], _Frame | None] = {}
        self._at_once = True  # until the server says that it has no such path
        self._hits = _PrefixHits()
        self.window = 0  # tokens of the longest prompt with its answer, 0 where the server does not say

    def score(
        self, model: str, prompts: Sequence[Prompt], answers: tuple[str, str], deadline: float | None
    ) -> tuple[list[Pair], Usage]:
        """Log-probabilities of the first tokens of two answers right after each prompt, in one request where that can
        be: then of the two alone, which add up to 1."""
        pair = self._answer_tokens(model, prompts[0], answers, deadline)
        if self._at_once and self.window and len(prompts) > 1 and len({one.system for one in prompts}) == 1:
            parts = self._parts(model, prompts, deadline)
            found = self._in_one(model, parts, pair, deadline) if parts else None
            if found:
                return found
        # The first goes ahead, so that what it shares with the others lies in the server's prefix cache.
        ahead, others = ([self._question(model, one, pair) for one in some] for some in (prompts[:1], prompts[1:]))
        said = self._calls.all(model, ahead, deadline) + (self._calls.all(model, others, deadline) if others else [])
        return [scores for scores, _ in said], sum((used for _, used in said), Usage())

    # ── One request for all ───────────────────────────────────────────────────────────────────────────────────────────

    def _in_one(
        self, model: str, parts: _Parts, pair: tuple[int, int], deadline: float | None
    ) -> tuple[list[Pair], Usage] | None:
        """None where the server has no such path, or cut a prompt."""
        body = {
            "model": model,
            "query": parts.shared,
            "items": parts.rests,
            "label_token_ids": list(pair),
            "add_special_tokens": False,  # the template has them
        }
        address, count = f"{self._root}/generative_scoring", len(parts.rests)

        def ask(seconds: float) -> tuple[list[float], Usage]:
            page: Any = self._client.post(address, body=body, cast_to=object, options={"timeout": seconds})
            scores = _scores(page, count)
            if scores is None:
                raise LLMGarbled(f"The LLM server at {self._calls.place} sent no probabilities for {count} prompts.")
            return scores, _counted(page)

        self._look(deadline, first=True)
        try:
            scores, usage = self._calls.one(model, ask, deadline)
        except (LLMUnavailable, LLMRefused, LLMGarbled, LLMTimeout):
            raise
        except LLMError as error:  # 404 in older versions
            _log.info("Yes/No is asked prompt by prompt: %s", error)
            self._at_once = False
            return None
        # It cuts what is too long without a word: then each prompt has nearly as many tokens as it takes.
        longest = max(len(rest.encode()) for rest in parts.rests)
        if usage.prompt / len(scores) + longest >= self.window - 1:
            return None
        self._look(deadline)
        cached = round(self._hits.share * usage.prompt)
        return [(_log_of(one), _log_of(1 - one)) for one in scores], Usage(usage.prompt, usage.completion, cached)

    def _parts(self, model: str, prompts: Sequence[Prompt], deadline: float | None) -> _Parts | None:
        """None where the prompts cannot be parted between two tokens, or the template is not to be had as text."""
        key = (model, prompts[0].system)
        users = [one.user for one in prompts]
        if any(user != user.strip() for user in users):  # some templates strip, some do not
            return None
        cut = _line_start(users)
        if key not in self._frames:
            if len(self._frames) >= _FRAMES:
                self._frames.clear()
            self._frames[key] = self._frame(model, prompts[0], cut, deadline)
        frame = self._frames[key]
        if frame is None:
            return None
        return _Parts(frame.before + users[0][:cut], [user[cut:] + frame.after for user in users])

    def _frame(self, model: str, prompt: Prompt, cut: int, deadline: float | None) -> _Frame | None:
        chat = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        whole = self._tokens({"model": model, "messages": chat, "add_generation_prompt": True}, deadline)
        try:
            text = self._post(model, "/detokenize", {"model": model, "tokens": whole}, deadline)["prompt"]
            before, found, after = text.partition(prompt.user)
            halves = [
                self._tokens({"model": model, "prompt": half, "add_special_tokens": False}, deadline)
                for half in (before + prompt.user[:cut], prompt.user[cut:] + after)
            ]
        except (LLMUnavailable, LLMRefused, LLMTimeout):
            raise
        except (LookupError, TypeError, AttributeError):
            return None
        except LLMError:  # no such path, or something else there
            return None
        return _Frame(before, after) if found and halves[0] + halves[1] == whole else None

    def _look(self, deadline: float | None, *, first: bool = False) -> None:
        """Reads the server's counters of its prefix cache, now and then. Without them nothing is told of it."""
        if not self._hits.due(first):
            return
        address, soon = f"{self._root}/metrics", time.monotonic() + _LOOK_SECONDS
        deadline = soon if deadline is None else min(soon, deadline)
        try:
            page = self._calls.one(
                "/metrics", lambda left: self._client.get(address, cast_to=str, options={"timeout": left}), deadline
            )
            self._hits.read(page)
        except LLMError as error:
            _log.info("The prefix cache's hits are not known: %s", error)
            self._hits.without()

    # ── A request a prompt ────────────────────────────────────────────────────────────────────────────────────────────

    def _question(self, model: str, prompt: Prompt, pair: tuple[int, int]) -> Any:
        """The chat request for one prompt, to be called with the seconds that are left."""
        messages = [("system", prompt.system), ("user", prompt.user)]
        extra = {"logprob_token_ids": list(pair), "return_tokens_as_token_ids": True}
        options: dict[str, Any] = {"max_tokens": 1, "logprobs": True, "top_logprobs": 0, "extra_body": extra}

        def ask(seconds: float) -> tuple[Pair, Usage]:
            message = self._chat.invoke(messages, model=model, timeout=seconds, **options)
            return self._read_pair(message, pair), used_by(message)

        return ask

    def _read_pair(self, message: Any, pair: tuple[int, int]) -> Pair:
        """Garbled where one of the two is missing, or is no logarithm of a probability: NaN would come out as a certain
        Yes."""
        content = (message.response_metadata.get("logprobs") or {}).get("content") or [{}]
        listed = [content[0], *(content[0].get("top_logprobs") or [])]
        found = {entry.get("token"): entry.get("logprob") for entry in listed if isinstance(entry, dict)}
        first, second = (found.get(f"token_id:{token}") for token in pair)
        if not _is_log(first) or not _is_log(second):
            raise LLMGarbled(
                f"The LLM server at {self._calls.place} sent no log-probabilities for the answers; scoring needs vLLM "
                "0.20 or later."
            )
        return float(first), float(second)

    # ── Tokens ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _answer_tokens(
        self, model: str, prompt: Prompt, answers: tuple[str, str], deadline: float | None
    ) -> tuple[int, int]:
        """The first token of each answer after the chat template's last words: the same for every prompt, so asked for
        once."""
        if (model, answers) not in self._pairs:
            chat = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
            before = self._tokens({"model": model, "messages": chat, "add_generation_prompt": True}, deadline)
            first = []
            for answer in answers:
                answered = [*chat, {"role": "assistant", "content": answer}]
                open_end = {"add_generation_prompt": False, "continue_final_message": True}
                after = self._tokens({"model": model, "messages": answered, **open_end}, deadline)
                if after[: len(before)] != before or len(after) == len(before):
                    raise LLMGarbled(
                        f"The answer '{answer}' has no token of its own after this prompt, says the LLM server at "
                        f"{self._calls.place}."
                    )
                first.append(after[len(before)])
            if first[0] == first[1]:
                raise LLMGarbled(
                    f"The answers '{answers[0]}' and '{answers[1]}' begin with the same token, says the LLM server at "
                    f"{self._calls.place}."
                )
            self._pairs[(model, answers)] = (first[0], first[1])
        return self._pairs[(model, answers)]

    def _tokens(self, body: dict[str, Any], deadline: float | None) -> list[int]:
        found = self._post(body["model"], "/tokenize", body, deadline)
        tokens = found.get("tokens") if isinstance(found, dict) else None
        if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
            raise LLMGarbled(
                f"The LLM server at {self._calls.place} answers /tokenize without tokens; scoring needs a vLLM server."
            )
        return tokens

    def _post(self, name: str, path: str, body: Mapping[str, Any], deadline: float | None) -> Any:
        address = f"{self._root}{path}"
        return self._calls.one(
            name,
            lambda left: self._client.post(address, body=body, cast_to=object, options={"timeout": left}),
            deadline,
        )


class _PrefixHits:
    """What share of the prompts' tokens a server found in its prefix cache between the last two looks at its counters.
    They count the work of all its clients."""

    def __init__(self) -> None:
        self.share = 0.0
        self._last: tuple[float, float] | None = None
        self._looked, self._known = 0.0, True

    def due(self, first: bool) -> bool:
        """Whether it is time to look; `first`: before anything was asked."""
        if first:
            return self._known and self._last is None
        return self._known and time.monotonic() - self._looked >= (_LOOK_SECONDS if self.share else 0)

    def read(self, page: str) -> None:
        hits, queries = (_counter(page, f"vllm:prefix_cache_{name}_total") for name in ("hits", "queries"))
        before, self._last, self._looked = self._last, (hits, queries), time.monotonic()
        if before and queries > before[1] and 0 <= hits - before[0] <= queries - before[1]:  # else it started again
            self.share = (hits - before[0]) / (queries - before[1])

    def without(self) -> None:
        self._known = False


def _counter(page: str, name: str) -> float:
    """The sum of a counter over all labels on a page of Prometheus' text format; 0 where it is not there."""
    values = (line.rpartition(" ")[2] for line in page.split("\n") if line.startswith((f"{name} ", f"{name}{{")))
    numbers = [_number(value) for value in values]
    return sum(number for number in numbers if math.isfinite(number))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _line_start(texts: Sequence[str]) -> int:
    """Where the last line begins of which all texts share the beginning; 0 for none. There tokens end: blanks on either
    side would melt into one with the line's end."""
    first, last = min(texts), max(texts)  # what these two share, all do
    at = next((place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    while (at := first.rfind("\n", 0, at)) > 0:
        if not first[at - 1].isspace() and not any(text[at + 1 : at + 2].isspace() for text in texts):
            return at + 1
    return 0


def _scores(page: Any, count: int) -> list[float] | None:
    """The probabilities in the order of the prompts, None where they are not all there."""
    data = page.get("data") if isinstance(page, dict) else None
    if not isinstance(data, list) or len(data) != count:
        return None
    found: list[float] = []
    for place, one in enumerate(data):
        score = one.get("score") if isinstance(one, dict) and one.get("index") == place else None
        if not isinstance(score, (int, float)) or isinstance(score, bool) or not 0 <= score <= 1:
            return None
        found.append(float(score))
    return found


def _log_of(probability: float) -> float:
    return math.log(max(probability, 1e-300))


def _is_log(value: object) -> TypeGuard[float]:
    """Whether it can be the logarithm of a probability; rounding may leave it a little above 0."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value < 0.01


def used_by(message: Any) -> Usage:
    """What the server says it counted for an answer (an AIMessage); nothing where that are no numbers of tokens."""
    counted = message.usage_metadata or {}
    details = counted.get("input_token_details") or {}
    return _usage(counted.get("input_tokens", 0), counted.get("output_tokens", 0), details.get("cache_read") or 0)


def _counted(page: Mapping[str, Any]) -> Usage:
    counted = page.get("usage")
    counted = counted if isinstance(counted, dict) else {}
    return _usage(counted.get("prompt_tokens", 0), counted.get("completion_tokens", 0), 0)


def _usage(*numbers: Any) -> Usage:
    return Usage(*numbers) if all(type(one) is int and 0 <= one < 1 << 40 for one in numbers) else Usage()
