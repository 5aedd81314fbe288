"""Who may ask the service: without tokens, whoever reaches the port, but no web page by way of a visitor's browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wowevent.access.address import check_page

if TYPE_CHECKING:
    from starlette.requests import Request


def check_access(request: Request) -> None:
    """NotPermitted for a Host that is not ours, and for an Origin that is neither ours nor allowed."""
    state, headers = request.app.state, request.headers
    check_page(headers.get("host", ""), headers.get("origin"), hosts=state.hosts, origins=state.origins)
