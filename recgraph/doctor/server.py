"""The language model's server, where one is set: one short request.

It asks which names are served and sends no prompt; what lies on this machine is unknown here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recgraph.doctor.check import Check
from recgraph.errors import RecgraphError
from recgraph.settings import Settings

SERVER_SECONDS = 2.0
SERVER_BYTES = 512 << 10  # of its answer that are read


def server(settings: Settings) -> Iterator[Check]:
    if not settings.llm_url:
        yield Check("llm server", None, "none set (RECGRAPH_LLM_URL); an LLM that is asked runs in process")
        return
    from recgraph.tools.llm.adapter_sets import served_names

    look = f"curl {settings.llm_url.rstrip('/')}/models"
    mend = f"start it (docs/models.md, 'A vLLM server'), or unset RECGRAPH_LLM_URL; to look: {look}"
    try:
        names = served_models(settings.llm_url, settings.llm_api_key)
    except RecgraphError as error:
        yield Check("llm server", False, str(error), mend)
        return
    found = f"{settings.llm_url} serves {', '.join(names) or 'nothing'}"
    if settings.llm not in ("", "default", *names):
        yield Check(
            "llm server", False, f"{found}, but not '{settings.llm}'", f"RECGRAPH_LLM must be among: {', '.join(names)}"
        )
    elif settings.adapter not in ("", "none") and not served_names(settings.adapter, names):
        serve = f"--enable-lora --lora-modules {Path(settings.adapter).name}-recommend=FOLDER …"
        mend = f"start it with {serve} (docs/adapters.md, 'Adapters on a server')"
        yield Check("llm server", False, f"{found}, but no adapter of the set '{settings.adapter}'", mend)
    else:
        yield Check("llm server", bool(names), found, "" if names else mend)


def served_models(url: str, key: str = "", seconds: float = SERVER_SECONDS) -> list[str]:
    """The names an OpenAI-compatible server answers for (GET url/models). Raises LLMUnavailable when it gives none in
    time."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    from recgraph.errors import LLMUnavailable
    from recgraph.tools.llm.threads import together
    from recgraph.tools.llm.untrusted import one_line

    class Staying(HTTPRedirectHandler):
        """Follows no redirect: the key is the asked server's alone."""

        def redirect_request(self, *_: Any) -> None:
            return None

    def asked() -> list[str]:
        request = Request(f"{url.rstrip('/')}/models", headers={"Authorization": f"Bearer {key}"} if key else {})
        try:
            with build_opener(Staying).open(request, timeout=seconds) as answer:
                return [one_line(str(model["id"]), 100) for model in json.loads(answer.read(SERVER_BYTES))["data"]]
        except HTTPError as error:
            error.close()
            raise

    try:
        [names] = together([asked], time.monotonic() + seconds)  # also where it answers a byte at a time
    except (OSError, HTTPException) as error:  # URLError, HTTPError and time-outs are OSErrors
        reason = one_line(str(error)) or f"not within {seconds:.0f} s"
        raise LLMUnavailable(f"{url} does not answer: {reason}") from None
    except (ValueError, LookupError, TypeError, RecursionError) as error:  # no URL, no JSON, or JSON of another kind
        raise LLMUnavailable(f"{url} is no OpenAI-compatible server: {one_line(repr(error))}") from None
    return names
