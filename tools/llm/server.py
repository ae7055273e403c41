"""The LLM behind a vLLM server: its OpenAI API through langchain-openai, for a GPU host and for CPU alike.

It knows HTTP and vLLM's extra fields; not which server runs where, nor what the prompts say. Tokens, chat template and
prefix cache are the server's. A server that cannot be reached when the object is made is no error: every call tries
again and says what is wrong.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import openai
from langchain_openai import ChatOpenAI

from recgraph.errors import LLMError, LLMGarbled, LLMTimeout, LLMUnavailable
from recgraph.tools.llm.forms import follows, form_regex
from recgraph.tools.llm.protocol import Completion, Form, Prompt, Usage

# vLLM gives a regular expression 5 s to compile: 4,000 ids take 0.2-2 s, 16,000 failed on a busy machine with status
# 500
MAX_CHOICES = 4000
CONNECT_SECONDS = 3.0  # how long making the object waits for the server to say what it serves
CONCURRENT = 16  # requests in flight; vLLM batches them itself
# What a dropped connection raises, by name: openai speaks HTTP through httpx or httpx2, by its version.
_DROPPED = {"RemoteProtocolError", "ReadError", "WriteError", "CloseError"}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_log = logging.getLogger(__name__)
T = TypeVar("T")


class ServerLLM:
    """A served causal language model (see `protocol.LLM`).

    `model` is the served name of the base model, "" for the first one; `adapters` maps names nodes ask for to served
    names of LoRA adapters, and every served adapter also answers to its own name. `timeout` in seconds holds where a
    call has no deadline. Raises LLMError at once where the server refuses the key or does not serve the model.
    """

    def __init__(
        self,
        url: str,
        model: str = "",
        api_key: str = "",
        adapters: Mapping[str, str] | None = None,
        *,
        timeout: float = 120.0,
    ) -> None:
        place = urlsplit(url if "://" in url else f"http://{url}")
        if place.scheme not in ("http", "https") or not place.hostname:
            raise LLMError(f"'{url}' is no server address; give one such as http://127.0.0.1:8000/v1.")
        self._place = f"{place.hostname}:{place.port}" if place.port else place.hostname
        self._root = f"{place.scheme}://{place.netloc}"
        base = f"{self._root}{place.path.rstrip('/') or '/v1'}"
        if api_key and place.scheme == "http" and place.hostname not in _LOOPBACK:
            _log.warning(
                "The LLM key is sent unencrypted to %s; use https, or a tunnel to a server bound to loopback.",
                self._place,
            )
        self._secret = api_key
        self._timeout = timeout
        self._wanted = model
        self._aliases = dict(adapters or {})
        self._base = ""
        self._pairs: dict[tuple[str, tuple[str, str]], tuple[int, int]] = {}
        # "EMPTY" keeps the OpenAI client from taking OPENAI_API_KEY out of the environment and sending it to this
        # server.
        key: Any = api_key or "EMPTY"
        self._chat = ChatOpenAI(
            model=model or "unknown", base_url=base, api_key=key, temperature=0, max_retries=0, timeout=timeout
        )
        self._client: openai.OpenAI = self._chat.root_client
        self.name = model or f"llm at {self._place}"
        self.parameters: int | None = _size_in_name(model)
        self.adapters: tuple[str, ...] = tuple(self._aliases)
        # served adapter → the folder the server read it from, which may be on another machine
        self.roots: dict[str, str] = {}
        self.max_choices = MAX_CHOICES
        self.on_cpu = False  # whatever it runs on, it answers many at once
        try:
            self.connect(time.monotonic() + CONNECT_SECONDS)
        except (LLMUnavailable, LLMTimeout, LLMGarbled) as error:
            _log.info("%s", error)

    def __repr__(self) -> str:
        return f"ServerLLM({self.name!r} at {self._place})"

    @property
    def connected(self) -> bool:
        """Whether the server has said what it serves."""
        return bool(self._base)

    def connect(self, deadline: float | None = None) -> None:
        """Asks the server what it serves, once it has answered never again. Sets `name`, `parameters` and
        `adapters`."""
        if self._base:
            return
        page = self._call(lambda seconds: self._client.models.list(timeout=seconds).model_dump(), deadline)
        served = {
            str(entry["id"]): entry for entry in page.get("data") or [] if isinstance(entry, dict) and entry.get("id")
        }
        bases = [name for name, entry in served.items() if not entry.get("parent")]
        if not bases:
            raise LLMGarbled(f"The LLM server at {self._place} lists no model under /v1/models.")
        if self._wanted and self._wanted not in served:
            raise LLMError(
                f"The LLM server at {self._place} does not serve '{self._wanted}'; it serves {', '.join(served)}."
            )
        absent = [f"'{target}'" for target in self._aliases.values() if target not in served]
        if absent:
            raise LLMError(
                f"The LLM server at {self._place} does not serve the adapter {absent[0]}; it serves "
                f"{', '.join(served)}."
            )
        self._base = self._wanted or bases[0]
        self._aliases = {name: name for name in served if served[name].get("parent")} | self._aliases
        self.adapters = tuple(self._aliases)
        self.roots = {
            name: str(served[name]["root"])
            for name in served
            if served[name].get("parent") and served[name].get("root")
        }
        self.name = self._base.rstrip("/").split("/")[-1]
        self.parameters = _size_in_name(self._base)

    def count_tokens(self, text: str) -> int:
        """An estimate: a token is about four characters. The exact number is the server's to know."""
        return (len(text) + 3) // 4

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int = 64,
        form: Form | None = None,
        adapter: str | None = None,
        deadline: float | None = None,
    ) -> tuple[list[Completion], Usage]:
        """Greedy answers, one a prompt, in order, asked for at once. Raises ValueError for a form of more than
        MAX_CHOICES choices."""
        pattern = ""
        if form is not None:
            if len(form.choices) > MAX_CHOICES:
                raise ValueError(
                    f"A server takes a form of at most {MAX_CHOICES} choices; this one has {len(form.choices)}. Name "
                    "fewer ids."
                )
            pattern = form_regex(form)
        model = self._model(adapter, deadline)
        extra = {"structured_outputs": {"regex": pattern}} if pattern else {}

        def ask(prompt: Prompt) -> tuple[Completion, Usage]:
            message = self._ask(model, prompt, deadline, max_tokens=max_tokens, extra_body=extra)
            text, finished = str(message.content).strip(), message.response_metadata.get("finish_reason") == "stop"
            if not text:
                raise LLMGarbled(f"The LLM server at {self._place} sent an empty answer.")
            # also where the length limit cut it off before the choice was whole
            if form is not None and not follows(form, text):
                raise LLMGarbled(f"The LLM server at {self._place} did not keep to the asked-for form: {text[:80]!r}.")
            return Completion(text, finished), _usage(message)

        answers = self._together(ask, prompts, deadline)
        return [completion for completion, _ in answers], sum((used for _, used in answers), Usage())

    def score(
        self,
        prompts: Sequence[Prompt],
        *,
        answers: tuple[str, str] = ("Yes", "No"),
        adapter: str | None = None,
        deadline: float | None = None,
    ) -> tuple[list[tuple[float, float]], Usage]:
        """Log-probabilities of the first tokens of two answers right after each prompt. The first prompt goes ahead of
        the others, so that what they share lies in the server's prefix cache."""
        if not prompts:
            return [], Usage()
        model = self._model(adapter, deadline)
        pair = self._answer_tokens(model, prompts[0], answers, deadline)
        extra = {"logprob_token_ids": list(pair), "return_tokens_as_token_ids": True}

        def ask(prompt: Prompt) -> tuple[tuple[float, float], Usage]:
            message = self._ask(model, prompt, deadline, max_tokens=1, logprobs=True, top_logprobs=0, extra_body=extra)
            return self._read_pair(message, pair), _usage(message)

        found = [*self._together(ask, prompts[:1], deadline), *self._together(ask, prompts[1:], deadline)]
        return [scores for scores, _ in found], sum((used for _, used in found), Usage())

    def _model(self, adapter: str | None, deadline: float | None) -> str:
        self.connect(deadline)
        if adapter is None:
            return self._base
        if adapter not in self._aliases:
            raise ValueError(f"'{adapter}' is no adapter of {self.name}; it has {', '.join(self._aliases) or 'none'}.")
        return self._aliases[adapter]

    def _ask(self, model: str, prompt: Prompt, deadline: float | None, **options: Any) -> Any:
        """One chat request; the AIMessage."""
        messages = [("system", prompt.system), ("user", prompt.user)]
        return self._call(
            lambda seconds: self._chat.invoke(messages, model=model, timeout=seconds, **options), deadline
        )

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
                body = {
                    "model": model,
                    "messages": answered,
                    "add_generation_prompt": False,
                    "continue_final_message": True,
                }
                after = self._tokens(body, deadline)
                if after[: len(before)] != before or len(after) == len(before):
                    raise ValueError(f"The answer '{answer}' has no token of its own after this prompt.")
                first.append(after[len(before)])
            if first[0] == first[1]:
                raise ValueError(f"The answers '{answers[0]}' and '{answers[1]}' begin with the same token.")
            self._pairs[(model, answers)] = (first[0], first[1])
        return self._pairs[(model, answers)]

    def _tokens(self, body: dict[str, Any], deadline: float | None) -> list[int]:
        address = f"{self._root}/tokenize"
        found: Any = self._call(
            lambda seconds: self._client.post(address, body=body, cast_to=object, options={"timeout": seconds}),
            deadline,
        )
        tokens = found.get("tokens") if isinstance(found, dict) else None
        if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
            raise LLMGarbled(
                f"The LLM server at {self._place} answers /tokenize without tokens; scoring needs a vLLM server."
            )
        return tokens

    def _read_pair(self, message: Any, pair: tuple[int, int]) -> tuple[float, float]:
        content = (message.response_metadata.get("logprobs") or {}).get("content") or [{}]
        listed = [content[0], *(content[0].get("top_logprobs") or [])]
        found = {entry.get("token"): entry.get("logprob") for entry in listed if isinstance(entry, dict)}
        first, second = (found.get(f"token_id:{token}") for token in pair)
        if not isinstance(first, (int, float)) or not isinstance(second, (int, float)):
            raise LLMGarbled(
                f"The LLM server at {self._place} sent no log-probabilities for the answers; scoring needs vLLM 0.20 "
                "or later."
            )
        return float(first), float(second)

    def _together(self, ask: Callable[[Prompt], T], prompts: Sequence[Prompt], deadline: float | None) -> list[T]:
        """All prompts at once, answers in order. The deadline holds even for a server that sends its answer a byte at a
        time."""
        pool = ThreadPoolExecutor(max_workers=max(1, min(CONCURRENT, len(prompts))))
        try:
            waiting: list[Future[T]] = [pool.submit(ask, prompt) for prompt in prompts]
            return [
                future.result(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
                for future in waiting
            ]
        except NotInTime:
            raise LLMTimeout(f"The LLM server at {self._place} did not answer before the deadline.") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _call(self, request: Callable[[float], T], deadline: float | None, again: bool = True) -> T:
        """Runs one request with the seconds left, and turns whatever goes wrong into recgraph's own errors. No message
        holds the key.

        A connection that the server drops before it answers is tried once `again`, over a new one: it may have been
        closed for idleness (vLLM does after 5 s) as the request went out, and no request changes anything there."""
        seconds = self._timeout if deadline is None else deadline - time.monotonic()
        if seconds <= 0:
            raise LLMTimeout(f"The deadline passed before the LLM server at {self._place} was asked.")
        try:
            return request(seconds)
        except openai.APITimeoutError:
            raise LLMTimeout(f"The LLM server at {self._place} did not answer within {seconds:.1f} s.") from None
        except openai.APIConnectionError as error:
            causes = list(_causes(error))
            if again and any(type(cause).__name__ in _DROPPED for cause in causes):
                return self._call(request, deadline, again=False)
            raise LLMUnavailable(
                f"The LLM server at {self._place} cannot be reached: {self._clean(causes[-1])}"
            ) from None
        except openai.APIStatusError as error:
            raise self._status_error(error) from None
        except (openai.OpenAIError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise LLMGarbled(
                f"The LLM server at {self._place} sent something that is no answer: {self._clean(error)}"
            ) from None

    def _status_error(self, error: openai.APIStatusError) -> LLMError:
        status, text = error.status_code, self._clean(error)
        if status in (401, 403):
            return LLMError(
                f"The LLM server at {self._place} refuses the key (status {status}). Set RECGRAPH_LLM_API_KEY to the "
                "server's key."
            )
        if status == 404:
            return LLMError(f"The LLM server at {self._place} does not know the model or the path (status 404): {text}")
        if status in (408, 429) or status >= 500:
            return LLMUnavailable(f"The LLM server at {self._place} answers with status {status}: {text}")
        return LLMError(f"The LLM server at {self._place} refuses the request (status {status}): {text}")

    def _clean(self, error: BaseException) -> str:
        text = " ".join(str(error).split()) or type(error).__name__
        return (text.replace(self._secret, "***") if self._secret else text)[:300]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__


def _usage(message: Any) -> Usage:
    counted = message.usage_metadata or {}
    cached = (counted.get("input_token_details") or {}).get("cache_read") or 0
    return Usage(counted.get("input_tokens", 0), counted.get("output_tokens", 0), cached)


def _size_in_name(model: str) -> int | None:
    """The number of parameters a model's name tells ("SmolLM2-135M-Instruct"), None where it tells none: servers do not
    say."""
    found = re.search(
        r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([MB])(?![A-Za-z0-9])", model.rstrip("/").split("/")[-1], re.IGNORECASE
    )
    return int(float(found[1]) * {"M": 10**6, "B": 10**9}[found[2].upper()]) if found else None
