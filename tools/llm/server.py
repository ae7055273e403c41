"""The LLM behind a vLLM server: its OpenAI API through langchain-openai, for a GPU host and for CPU alike.

It knows HTTP and vLLM's extra fields; not which server runs where, nor what the prompts say. Tokens, chat template and
prefix cache are the server's. A server that cannot be reached when the object is made is no error: every call tries
again and says what is wrong. Nothing a server sends is taken for what it should be: an answer has the types that are
read of it, or is garbled.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard, TypeVar
from urllib.parse import urlsplit

import openai
from langchain_openai import ChatOpenAI

from recgraph.errors import LLMError, LLMGarbled, LLMRefused, LLMTimeout, LLMUnavailable
from recgraph.tools.llm.forms import follows, form_regex
from recgraph.tools.llm.protocol import Completion, Form, Prompt, Usage
from recgraph.tools.llm.threads import together
from recgraph.tools.llm.untrusted import harmless
from recgraph.tools.llm.wire import BoundedClient

# vLLM gives a regular expression 5 s to compile: 4,000 ids take 0.2-2 s, 16,000 failed on a busy machine with status
# 500
MAX_CHOICES = 4000
CONNECT_SECONDS = 3.0  # how long making the object waits for the server to say what it serves
CONCURRENT = 16  # requests in flight; vLLM batches them itself
LEAST_SECONDS = 0.5  # with less left another try could not be answered before the deadline
# What a dropped connection raises, by name: openai speaks HTTP through httpx or httpx2, by its version.
_DROPPED = {"RemoteProtocolError", "ReadError", "WriteError", "CloseError"}
# What reading something else than an answer raises, in the clients or here; lists in lists in lists a RecursionError.
_NO_ANSWER = (
    openai.OpenAIError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
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
            model=model or "unknown",
            base_url=base,
            api_key=key,
            temperature=0,
            max_retries=0,
            timeout=timeout,
            http_client=BoundedClient(),
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
        except LLMRefused:
            raise
        except LLMError as error:
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
        served = self._call(lambda seconds: self._served(seconds), deadline)
        bases = [name for name, entry in served.items() if not entry.get("parent")]
        if not bases:
            raise LLMGarbled(f"The LLM server at {self._place} lists no model under /v1/models.")
        absent = [f"'{self._wanted}'"] if self._wanted and self._wanted not in served else []
        absent += [f"the adapter '{target}'" for target in self._aliases.values() if target not in served]
        if absent:
            others = harmless(", ".join(served), 300)
            raise LLMRefused(f"The LLM server at {self._place} does not serve {absent[0]}; it serves {others}.")
        self._base = self._wanted or bases[0]
        self._aliases = {name: name for name in served if served[name].get("parent")} | self._aliases
        self.adapters = tuple(self._aliases)
        self.roots = {
            name: str(served[name]["root"])
            for name in served
            if served[name].get("parent") and served[name].get("root")
        }
        self.name = harmless(self._base.rstrip("/").split("/")[-1], 100)
        self.parameters = _size_in_name(self._base)

    def _served(self, seconds: float) -> dict[str, dict[str, Any]]:
        """What /v1/models lists, by name."""
        page: Any = self._client.get("/models", cast_to=object, options={"timeout": seconds})
        listed = page["data"]
        served = {one["id"]: one for one in listed}
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in served):
            raise LLMGarbled(f"The LLM server at {self._place} lists no models under /v1/models, but something else.")
        return served

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

        def read(message: Any) -> tuple[Completion, Usage]:
            text, finished = message.content, message.response_metadata.get("finish_reason") == "stop"
            if not isinstance(text, str) or not text.strip():
                raise LLMGarbled(f"The LLM server at {self._place} sent an empty answer.")
            # also where the length limit cut it off before the choice was whole
            if form is not None and not follows(form, text.strip()):
                raise LLMGarbled(
                    f"The LLM server at {self._place} did not keep to the asked-for form: '{harmless(text, 80)}'."
                )
            return Completion(text.strip(), finished), _usage(message)

        def ask(prompt: Prompt) -> tuple[Completion, Usage]:
            return self._ask(model, prompt, deadline, read, max_tokens=max_tokens, extra_body=extra)

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

        def read(message: Any) -> tuple[tuple[float, float], Usage]:
            return self._read_pair(message, pair), _usage(message)

        def ask(prompt: Prompt) -> tuple[tuple[float, float], Usage]:
            options = {"max_tokens": 1, "logprobs": True, "top_logprobs": 0, "extra_body": extra}
            return self._ask(model, prompt, deadline, read, **options)

        found = [*self._together(ask, prompts[:1], deadline), *self._together(ask, prompts[1:], deadline)]
        return [scores for scores, _ in found], sum((used for _, used in found), Usage())

    def _model(self, adapter: str | None, deadline: float | None) -> str:
        self.connect(deadline)
        if adapter is None:
            return self._base
        if adapter not in self._aliases:
            raise ValueError(f"'{adapter}' is no adapter of {self.name}; it has {', '.join(self._aliases) or 'none'}.")
        return self._aliases[adapter]

    def _ask(self, model: str, prompt: Prompt, deadline: float | None, read: Callable[[Any], T], **options: Any) -> T:
        """What is read of the answer (an AIMessage) to one chat request."""
        messages = [("system", prompt.system), ("user", prompt.user)]
        return self._try(
            lambda seconds: read(self._chat.invoke(messages, model=model, timeout=seconds, **options)), deadline
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
                    raise LLMGarbled(
                        f"The answer '{answer}' has no token of its own after this prompt, says the LLM server at "
                        f"{self._place}."
                    )
                first.append(after[len(before)])
            if first[0] == first[1]:
                raise LLMGarbled(
                    f"The answers '{answers[0]}' and '{answers[1]}' begin with the same token, says the LLM server at "
                    f"{self._place}."
                )
            self._pairs[(model, answers)] = (first[0], first[1])
        return self._pairs[(model, answers)]

    def _tokens(self, body: dict[str, Any], deadline: float | None) -> list[int]:
        address = f"{self._root}/tokenize"
        found: Any = self._call(
            lambda seconds: self._client.post(address, body=body, cast_to=object, options={"timeout": seconds}),
            deadline,
        )
        tokens = found.get("tokens") if isinstance(found, dict) else None
        if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
            raise LLMGarbled(
                f"The LLM server at {self._place} answers /tokenize without tokens; scoring needs a vLLM server."
            )
        return tokens

    def _read_pair(self, message: Any, pair: tuple[int, int]) -> tuple[float, float]:
        """Garbled where one of the two is missing, or is no logarithm of a probability: NaN would come out as a certain
        Yes."""
        content = (message.response_metadata.get("logprobs") or {}).get("content") or [{}]
        listed = [content[0], *(content[0].get("top_logprobs") or [])]
        found = {entry.get("token"): entry.get("logprob") for entry in listed if isinstance(entry, dict)}
        first, second = (found.get(f"token_id:{token}") for token in pair)
        if not _is_log(first) or not _is_log(second):
            raise LLMGarbled(
                f"The LLM server at {self._place} sent no log-probabilities for the answers; scoring needs vLLM 0.20 "
                "or later."
            )
        return float(first), float(second)

    def _together(self, ask: Callable[[Prompt], T], prompts: Sequence[Prompt], deadline: float | None) -> list[T]:
        """All prompts at once, answers in order. The deadline holds whatever the server does: the calls are left alone
        in their threads."""
        until = self._until(deadline)
        try:
            return together([lambda one=prompt: ask(one) for prompt in prompts], until, CONCURRENT)  # type: ignore[misc]
        except TimeoutError:
            raise LLMTimeout(f"The LLM server at {self._place} did not answer before the deadline.") from None

    def _call(self, request: Callable[[float], T], deadline: float | None) -> T:
        """`_try`, with a deadline that holds whatever the server does."""
        try:
            [found] = together([lambda: self._try(request, deadline)], self._until(deadline))
        except TimeoutError:
            raise LLMTimeout(f"The LLM server at {self._place} did not answer before the deadline.") from None
        return found

    def _until(self, deadline: float | None) -> float:
        return time.monotonic() + self._timeout if deadline is None else deadline

    def _try(self, request: Callable[[float], T], deadline: float | None, again: bool = True) -> T:
        """Runs one request with the seconds left, and turns whatever goes wrong into recgraph's own errors. No message
        holds the key.

        A connection that the server drops before it answers is tried once `again`: no request changes anything there.
        Where no time is left for another try, what is worth one is told as a timeout."""
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
                return self._try(request, deadline, again=False)
            text = f"The LLM server at {self._place} cannot be reached: {self._clean(causes[-1])}"
            raise self._unavailable(text, deadline) from None
        except openai.APIStatusError as error:
            raise self._status_error(error, deadline) from None
        except _NO_ANSWER as error:
            raise LLMGarbled(
                f"The LLM server at {self._place} sent something that is no answer: {self._clean(error)}"
            ) from None

    @staticmethod
    def _unavailable(text: str, deadline: float | None) -> LLMError:
        late = deadline is not None and deadline - time.monotonic() < LEAST_SECONDS
        return LLMTimeout(text) if late else LLMUnavailable(text)

    def _status_error(self, error: openai.APIStatusError, deadline: float | None) -> LLMError:
        status, text = error.status_code, self._clean(error)
        if status in (401, 403):
            return LLMRefused(
                f"The LLM server at {self._place} refuses the key (status {status}). Set RECGRAPH_LLM_API_KEY to the "
                "server's key."
            )
        if 300 <= status < 400:
            return LLMError(
                f"The LLM server at {self._place} sends on to another address (status {status}), which is not "
                "followed. Give the server's own address as llm_url."
            )
        if status == 404:
            return LLMError(f"The LLM server at {self._place} does not know the model or the path (status 404): {text}")
        if status in (408, 429) or status >= 500:
            text = f"The LLM server at {self._place} answers with status {status}: {text}"
            return self._unavailable(text, deadline)
        return LLMError(f"The LLM server at {self._place} refuses the request (status {status}): {text}")

    def _clean(self, error: BaseException) -> str:
        text = str(error)
        if self._secret:
            text = text.replace(self._secret, "***")
        text = harmless(text, 300) or type(error).__name__
        return text.replace(self._secret, "***") if self._secret else text


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__


def _is_log(value: object) -> TypeGuard[float]:
    """Whether it can be the logarithm of a probability; rounding may leave it a little above 0."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value < 0.01


def _usage(message: Any) -> Usage:
    """What the server says it counted; nothing where that are no numbers of tokens."""
    counted = message.usage_metadata or {}
    details = counted.get("input_token_details") or {}
    numbers = (counted.get("input_tokens", 0), counted.get("output_tokens", 0), details.get("cache_read") or 0)
    return Usage(*numbers) if all(type(one) is int and 0 <= one < 1 << 40 for one in numbers) else Usage()


def _size_in_name(model: str) -> int | None:
    """The number of parameters a model's name tells ("SmolLM2-135M-Instruct"), None where it tells none: servers do not
    say."""
    found = re.search(
        r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([MB])(?![A-Za-z0-9])", model.rstrip("/").split("/")[-1], re.IGNORECASE
    )
    return int(float(found[1]) * {"M": 10**6, "B": 10**9}[found[2].upper()]) if found else None
