"""Requests to an LLM server as calls that end: in time, tried again where that helps, with recgraph's own errors, and
refused at once where the server has just failed several times.

It knows HTTP's ways to fail, not what is asked. One clock, the deadline, is over connecting, answers, pauses and tries.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

import openai

from recgraph.errors import LLMError, LLMGarbled, LLMRefused, LLMTimeout, LLMUnavailable
from recgraph.tools.llm.threads import together
from recgraph.tools.llm.untrusted import harmless
from recgraph.tools.served.breaker import Breaker
from recgraph.tools.served.wire import carrying

CONCURRENT = 16  # requests in flight; vLLM batches them itself
LEAST_SECONDS = 0.5  # with less left another try could not be answered before the deadline
TRIES = 3
PAUSE = 0.1  # seconds before the second try, doubled before the third; each is a random part of it and at least half
# What a dropped connection raises, by name: openai speaks HTTP through httpx or httpx2, by its version.
_DROPPED = {"RemoteProtocolError", "ReadError", "WriteError", "CloseError", "ConnectError"}
_PASSING = (408, 429, 502, 503, 504)  # a server that is busy or just starting; 500 comes again for the same request
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
T = TypeVar("T")
Request = Callable[[float], T]  # asks, with the seconds that are left


class Calls:
    """The calls to one server at `place` (as messages name it). No message holds the `secret`. `timeout` in seconds
    holds where a call has no deadline. `headers` gives what the requests of a call carry besides, in the caller's
    thread."""

    def __init__(self, place: str, secret: str, timeout: float) -> None:
        self.place, self._secret, self._timeout = place, secret, timeout
        self._breaker = Breaker()
        self.headers: Callable[[], Mapping[str, str]] = dict

    def one(self, name: str, request: Request[T], deadline: float | None) -> T:
        [found] = self.all(name, [request], deadline)
        return found

    def all(self, name: str, requests: Sequence[Request[T]], deadline: float | None) -> list[T]:
        """What all requests give, in order, asked for at once. The deadline holds whatever the server does: calls are
        left alone in their threads. Failures are counted under a `name`, one for all requests together."""
        begun = time.monotonic()
        until = begun + self._timeout if deadline is None else deadline
        if until <= begun:
            raise LLMTimeout(f"The deadline passed before the LLM server at {self.place} was asked.")
        if reason := self._breaker.refusal(name):
            raise LLMUnavailable(f"The LLM server at {self.place} is not asked: {reason}")
        headers = self.headers()
        try:
            tries = [partial(self._try, one, until, headers) for one in requests]
            found = together(tries, until, CONCURRENT)
        except TimeoutError:
            error = LLMTimeout(f"The LLM server at {self.place} did not answer before the deadline.")
            self._count(name, error, until - begun)
            raise error from None
        except LLMError as error:
            self._count(name, error, until - begun)
            raise
        self._breaker.worked(name)
        return found

    def _count(self, name: str, error: LLMError, seconds: float) -> None:
        """A failure of the server's, unless it had too little time; a refusal is an answer, though not the one that was
        hoped for."""
        if isinstance(error, LLMTimeout) and seconds < LEAST_SECONDS:
            self._breaker.undecided(name)
        elif isinstance(error, (LLMUnavailable, LLMTimeout, LLMGarbled)):
            self._breaker.failed(name, str(error))
        else:
            self._breaker.worked(name)

    def _try(self, request: Request[T], until: float, headers: Mapping[str, str]) -> T:
        """One request, again after a while where what went wrong may pass: no request changes anything there."""
        for left in reversed(range(TRIES)):
            pause = PAUSE * 2 ** (TRIES - 1 - left) * random.uniform(0.5, 1)
            seconds = until - time.monotonic()
            if seconds <= 0:
                raise LLMTimeout(f"The deadline passed before the LLM server at {self.place} was asked.")
            again = left > 0 and seconds - pause > LEAST_SECONDS
            try:
                with carrying(headers):
                    return request(seconds)
            except openai.APITimeoutError:
                raise LLMTimeout(f"The LLM server at {self.place} did not answer within {seconds:.1f} s.") from None
            except openai.APIConnectionError as error:
                causes = list(_causes(error))
                if not (again and any(type(cause).__name__ in _DROPPED for cause in causes)):
                    text = f"The LLM server at {self.place} cannot be reached: {self._clean(causes[-1])}"
                    raise self._unavailable(text, until) from None
                del causes
            except openai.APIStatusError as error:
                if not (again and error.status_code in _PASSING):
                    raise self._status_error(error, until) from None
            except _NO_ANSWER as error:
                text = f"The LLM server at {self.place} sent something that is no answer: {self._clean(error)}"
                raise LLMGarbled(text) from None
            time.sleep(min(pause, max(0.0, until - time.monotonic())))
        raise AssertionError("the last try returns or raises")

    @staticmethod
    def _unavailable(text: str, until: float) -> LLMError:
        """Where no time is left for another try, what is worth one is told as a timeout."""
        return LLMTimeout(text) if until - time.monotonic() < LEAST_SECONDS else LLMUnavailable(text)

    def _status_error(self, error: openai.APIStatusError, until: float) -> LLMError:
        status, text = error.status_code, self._clean(error)
        if status in (401, 403):
            return LLMRefused(
                f"The LLM server at {self.place} refuses the key (status {status}). Set RECGRAPH_LLM_API_KEY to the "
                "server's key."
            )
        if 300 <= status < 400:
            return LLMError(
                f"The LLM server at {self.place} sends on to another address (status {status}), which is not "
                "followed. Give the server's own address as llm_url."
            )
        if status == 404:
            return LLMError(f"The LLM server at {self.place} does not know the model or the path (status 404): {text}")
        if status in (408, 429) or status >= 500:
            return self._unavailable(f"The LLM server at {self.place} answers with status {status}: {text}", until)
        return LLMError(f"The LLM server at {self.place} refuses the request (status {status}): {text}")

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
