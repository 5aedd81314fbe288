"""What GET /openapi.json says of an answer, held against the answer."""

import copy
import re
from typing import Any
from urllib.parse import unquote

import httpx
from openapi_schema_validator import OAS31Validator

from wowevent.service.openapi import document

OPEN = {"Event", "EventIn", "CloudEvent", "Health"}
"""Shapes that may have more fields than are described."""


class Described:
    """The document, and which of its operations were seen to answer so."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = copy.deepcopy(document())
        for name, schema in self.document["components"]["schemas"].items():
            if name not in OPEN and "properties" in schema:
                schema["additionalProperties"] = False
        self.seen: set[tuple[str, str, str]] = set()

    async def check(self, answer: httpx.Response) -> None:
        """AssertionError if an operation answers otherwise than is described."""
        method = answer.request.method.lower()
        template = self._template(method, unquote(answer.url.path))
        if template is None or method == "head":
            return
        responses = self.document["paths"][template][method]["responses"]
        described = responses.get(str(answer.status_code))
        assert described is not None, f"{method} {template} does not say that it answers {answer.status_code}"
        self.seen.add((method, template, str(answer.status_code)))
        await answer.aread()
        media = answer.headers.get("content-type", "").partition(";")[0]
        content = described.get("content", {})
        assert set(content) >= ({media} if media else set()), (
            f"{method} {template} does not say that it answers {media}"
        )
        assert content or not answer.content
        for name in described.get("headers", ()):
            assert name in answer.headers
        if media.endswith("json") and not media.endswith("ndjson"):
            self.validate(content[media]["schema"], answer.json())
        elif media.endswith("ndjson"):
            for line in answer.text.splitlines()[:20]:
                self.validate(content[media]["schema"], httpx.Response(200, text=line).json())

    def validate(self, schema: dict[str, Any], value: Any) -> None:
        """Raise unless the value fits."""
        OAS31Validator({**schema, "components": self.document["components"]}).validate(value)

    def _template(self, method: str, path: str) -> str | None:
        """The described path that this one is of; of several the one that says most."""
        found = [
            template
            for template, methods in self.document["paths"].items()
            if method in methods and re.fullmatch(re.sub(r"\{\w+\}", ".+", template), path)
        ]
        return max(found, key=lambda template: len(re.sub(r"\{\w+\}", "", template)), default=None)
