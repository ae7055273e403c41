"""Serves the page at `/`: a few files of the package, under a policy that lets nothing run but them.

What the page asks for (answers, events, chat) are the other routes; it knows them only by their addresses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.resources import files

from fastapi import APIRouter, Request, Response

# Pictures are the one thing from elsewhere: a shop's products may have theirs on another host, over https alone.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' https: data:; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked for each time, answered by 304: a new version is seen at once
}
SCRIPTS = ("page.js", "elements.js", "server.js", "graph.js", "drawings.js")  # page.js imports the others
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    **{f"/page/{name}": (name, "text/javascript; charset=utf-8") for name in SCRIPTS},
    "/page/page.css": ("page.css", "text/css; charset=utf-8"),
}


def router() -> APIRouter:
    """The page's routes. They need no key: what the page shows it asks for, and that does."""
    made = APIRouter(include_in_schema=False)
    for path, (name, kind) in _FILES.items():
        made.add_api_route(path, _serving(name, kind), methods=["GET", "HEAD"])
    return made


def _serving(name: str, kind: str) -> Callable[[Request], Response]:
    content = files("recgraph").joinpath("page", name).read_bytes()
    headers = {**_HEADERS, "ETag": f'"{hashlib.sha256(content).hexdigest()[:16]}"'}

    def serve(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)

    return serve
