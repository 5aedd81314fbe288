"""What may be shown of what was found: an error of a driver may repeat a URL, or the password in it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import structs

from wowevent.finding import Finding

_SECRET: Final = re.compile(r"pass|pwd|token|secret|auth|seed", re.IGNORECASE)
_HIDDEN: Final = "***"
_SHORT: Final = 5
_PLAIN: Final = ("sqlite:///", "memory://")


class Discretion:
    """Of one engine's URL: the URL as it may be shown, and the secrets in it."""

    def __init__(self, url: str) -> None:
        """`url` may be wrong in any way."""
        self._url = url
        self._secrets: list[re.Pattern[str]] = [
            _wherever(each) for each in sorted(_secrets(url), key=len, reverse=True)
        ]
        self.url: str = self.text(_masked(url))
        """Without secrets."""

    def of(self, finding: Finding) -> Finding:
        """It without secrets."""
        return structs.replace(finding, found=self.text(finding.found), change=self.text(finding.change))

    def text(self, text: str) -> str:
        """A text without them."""
        text = text.replace(self._url, _masked(self._url))
        for secret in self._secrets:
            text = secret.sub(_HIDDEN, text)
        return text


def _wherever(secret: str) -> re.Pattern[str]:
    """A short one may be part of any word, and is one only where it stands alone."""
    text = re.escape(secret)
    return re.compile(text if len(secret) > _SHORT else rf"(?<!\w){text}(?!\w)")


def _masked(url: str) -> str:
    """All before the last @ may be part of a password that is written wrongly."""
    if url.startswith(_PLAIN):
        return url
    scheme, slashes, rest = url.rpartition("://") if url.count("://") == 1 else ("", "", url)
    return f"{scheme}{slashes}{_HIDDEN}@{rest.rpartition('@')[2]}" if "@" in rest else url


def _secrets(url: str) -> set[str]:
    if url.startswith(_PLAIN):
        return set()
    login, at, _ = (url.partition("//")[2] or url).rpartition("@")
    found = {login.partition(":")[2] or login} if at else set()
    try:
        query = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    except ValueError:
        query = []
    found |= {value for name, value in query if _SECRET.search(name)}
    return {each for secret in found for each in (secret, unquote(secret)) if each}
