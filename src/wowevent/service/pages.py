"""GET / and /assets/…: the pages, out of the package. Open to whoever reaches the port; what they show is not.

A browser asks again each time whether a file is still the same, and is answered by its tag: so that pages and service
are never of two versions.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from http import HTTPStatus
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

POLICY: Final = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
"""What a page may fetch and run: what we serve, and nothing that stands in the page itself. What a form says, a script
sends."""

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""The files that are served; licences and the like stay where they are."""


class Asset(Struct, frozen=True):
    """One file, as it is answered."""

    content: bytes
    media_type: str
    tag: str


async def page(request: Request) -> Response:
    """The one page; which of them it shows, it reads from the fragment of its URL."""
    return _answer(request, "index.html")


async def asset(request: Request) -> Response:
    """One of the files that the page asks for."""
    return _answer(request, request.path_params["name"])


ROUTES: Final = (Route("/", page, methods=["GET"]), Route("/assets/{name:path}", asset, methods=["GET"]))
"""Beside the table of operations: they are no part of what GET /openapi.json describes."""


@lru_cache(maxsize=1)
def assets() -> dict[str, Asset]:
    """All files by their path below the folder, read once: they are the package's, and change with it."""
    return dict(_found(files("wowevent") / "site", ""))


def _found(folder: Traversable, prefix: str) -> list[tuple[str, Asset]]:
    found: list[tuple[str, Asset]] = []
    for each in folder.iterdir():
        name = prefix + each.name
        if each.is_dir():
            found += _found(each, f"{name}/")
        elif (media_type := _TYPES.get(name[name.rfind(".") :])) is not None:
            content = each.read_bytes()
            found.append((name, Asset(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')))
    return found


def _answer(request: Request, name: str) -> Response:
    found = assets().get(name)
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "no such file")
    headers = {
        "etag": found.tag,
        "cache-control": "no-cache",
        "content-security-policy": POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
    }
    if found.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(found.content, headers=headers, media_type=found.media_type)
