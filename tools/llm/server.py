"""The LLM behind a vLLM server: its OpenAI API through langchain-openai, for a GPU host and for CPU alike.

It knows what a server serves and how it is asked to write; how calls end and how Yes/No is asked is tools/served's.
Neither where a server runs nor what the prompts say is known here. Tokens, chat template and prefix cache are the
server's. A server that cannot be reached when the object is made is no error: every call tries again and says what is
wrong. Nothing a server sends is taken for what it should be: an answer has the types read of it, or is garbled.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import openai
from langchain_openai import ChatOpenAI

from recgraph.errors import LLMError, LLMGarbled, LLMRefused
from recgraph.tools.llm.adapter_sets import is_served_as
from recgraph.tools.llm.forms import MAX_CHOICES, follows, form_regex
from recgraph.tools.llm.protocol import Completion, Form, Prompt, Usage
from recgraph.tools.llm.served_ids import HOLD, names_ids
from recgraph.tools.llm.untrusted import harmless
from recgraph.tools.served.calls import Calls
from recgraph.tools.served.scoring import YesNo, used_by
from recgraph.tools.served.wire import BoundedClient

ALL_CHOICES = 1 << 40  # where the server itself holds answers to the ids of a catalogue
CONNECT_SECONDS = 3.0  # how long making the object waits for the server to say what it serves
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_log = logging.getLogger(__name__)


class ServerLLM:
    """A served causal language model (see `protocol.LLM`).

    `model` is the served name of the base model, "" for the first one; `adapters` maps names nodes ask for to served
    names of adapters, and every served adapter also answers to its own name. `timeout` in seconds holds where a
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
        self._calls = Calls(self._place, api_key, timeout)
        self._wanted = model
        self._aliases = dict(adapters or {})
        self._base = ""
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
        self._yes_no = YesNo(self._calls, self._chat, self._root)
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
        listed = self._calls.one("/v1/models", self._served, deadline)
        served = {name: entry for name, entry in listed.items() if not names_ids(name)}
        self.max_choices = ALL_CHOICES if len(served) < len(listed) else MAX_CHOICES
        whole = [name for name, entry in served.items() if not entry.get("parent")]
        # Beside a model, an adapter's name for it says that the adapter is in its weights (recgraph/llm/merging.py);
        # alone it is the model's own, which may look like one ("shop-20250115-next").
        bases = [name for name in whole if not is_served_as(name)] or whole
        adapters = {name for name in served if name not in bases}
        if not bases:
            raise LLMGarbled(f"The LLM server at {self._place} lists no model under /v1/models.")
        absent = [f"'{self._wanted}'"] if self._wanted and self._wanted not in served else []
        absent += [f"the adapter '{target}'" for target in self._aliases.values() if target not in served]
        if absent:
            others = harmless(", ".join(served), 300)
            raise LLMRefused(f"The LLM server at {self._place} does not serve {absent[0]}; it serves {others}.")
        self._base = self._wanted or bases[0]
        window = served[bases[0]].get("max_model_len")
        self._yes_no.window = window if type(window) is int else 0
        self._aliases = {name: name for name in served if name in adapters} | self._aliases
        self.adapters = tuple(self._aliases)
        self.roots = {
            name: str(served[name]["root"]) for name in served if name in adapters and served[name].get("root")
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

    def carry(self, headers: Callable[[], Mapping[str, str]]) -> None:
        """Sends these headers with all requests of a call; to this server alone, for no redirect is followed."""
        self._calls.headers = headers

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
        `max_choices` choices; one of more than MAX_CHOICES is that of the catalogue the server was started with."""
        model = self._model(adapter, deadline)
        extra = self._holding(form) if form else {}

        def read(message: Any) -> tuple[Completion, Usage]:
            text, finished = message.content, message.response_metadata.get("finish_reason") == "stop"
            if not isinstance(text, str) or not text.strip():
                raise LLMGarbled(f"The LLM server at {self._place} sent an empty answer.")
            # also where the length limit cut it off before the choice was whole
            if form is not None and not follows(form, text.strip()):
                if extra == HOLD:  # an answer, though not the one that was hoped for
                    raise LLMError(
                        f"The LLM server at {self._place} names what is not among the ids: "
                        f"'{harmless(text, 80)}'. Its catalogue is another one: start recgraph llm serve again."
                    )
                raise LLMGarbled(
                    f"The LLM server at {self._place} did not keep to the asked-for form: '{harmless(text, 80)}'."
                )
            return Completion(text.strip(), finished), used_by(message)

        def asking(prompt: Prompt) -> Callable[[float], tuple[Completion, Usage]]:
            messages = [("system", prompt.system), ("user", prompt.user)]
            options: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "extra_body": extra}
            return lambda seconds: read(self._chat.invoke(messages, timeout=seconds, **options))

        answers = self._calls.all(model, [asking(prompt) for prompt in prompts], deadline)
        return [completion for completion, _ in answers], sum((used for _, used in answers), Usage())

    def score(
        self,
        prompts: Sequence[Prompt],
        *,
        answers: tuple[str, str] = ("Yes", "No"),
        adapter: str | None = None,
        deadline: float | None = None,
    ) -> tuple[list[tuple[float, float]], Usage]:
        """Log-probabilities of the first tokens of two answers right after each prompt, or of the two alone, as
        `YesNo.score` tells."""
        if not prompts:
            return [], Usage()
        return self._yes_no.score(self._model(adapter, deadline), prompts, answers, deadline)

    def _holding(self, form: Form) -> dict[str, Any]:
        """What a request is to say so that its answer has the form."""
        if len(form.choices) <= MAX_CHOICES:
            return {"structured_outputs": {"regex": form_regex(form)}}
        if len(form.choices) > self.max_choices:
            raise ValueError(
                f"This server takes a form of at most {MAX_CHOICES} choices; this one has {len(form.choices)}. Name "
                "fewer ids, or start the server with recgraph llm serve --catalogue."
            )
        return HOLD

    def _model(self, adapter: str | None, deadline: float | None) -> str:
        self.connect(deadline)
        if adapter is None:
            return self._base
        if adapter not in self._aliases:
            raise ValueError(f"'{adapter}' is no adapter of {self.name}; it has {', '.join(self._aliases) or 'none'}.")
        return self._aliases[adapter]


def _size_in_name(model: str) -> int | None:
    """The number of parameters a model's name tells ("SmolLM2-135M-Instruct"), None where it tells none: servers do not
    say."""
    found = re.search(
        r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([MB])(?![A-Za-z0-9])", model.rstrip("/").split("/")[-1], re.IGNORECASE
    )
    return int(float(found[1]) * {"M": 10**6, "B": 10**9}[found[2].upper()]) if found else None
