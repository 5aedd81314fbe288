"""Whose token this is: the file of tokens and the keys of JWTs, read again when they change.

identify(credential) -> Identity      or Unauthenticated, which does not tell who asks what is wrong
refresh()                             once a second: what was changed, revoked or added holds within two
stands(identity)                      whether it still holds; False ends a socket or a stream
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, Self, TypeVar

from wowevent.access.rights import Identity
from wowevent.access.tokens import PREFIX, Refused, Token, Tokens, find_token, parse_tokens
from wowevent.errors import Unauthenticated
from wowevent.log import logger

if TYPE_CHECKING:
    from wowevent.access import jwt
    from wowevent.settings import Settings

T = TypeVar("T")

_LONGEST: Final = 8 * 1024  # characters of a credential
_OPEN_TO_ALL: Final = 0o002


class Keyring:
    """The tokens that are valid here."""

    def __init__(
        self,
        namespace: str,
        *,
        tokens: str | None = None,
        jwt_keys: str | None = None,
        jwt_audience: str | None = None,
        jwt_issuer: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`tokens` and `jwt_keys` are paths, or the JSON itself; `clock` gives Unix seconds.

        Raises ValueError, which names the setting and the file, for what cannot be read or is not what it should be.
        """
        if jwt_keys is not None and not jwt_audience:
            raise ValueError("jwt_keys: jwt_audience has to say whom the tokens are for")
        self._namespace = namespace
        self._audience = jwt_audience or ""
        self._issuer = jwt_issuer
        self._clock = clock
        self._tokens = _Source("tokens", tokens, parse_tokens, Tokens())
        self._keys: _Source[jwt.Keys] = _Source("jwt_keys", jwt_keys, _parse_keys, {})
        self._by_id: dict[str, Token] = {}
        self._identities: dict[str, Identity] = {}
        self._sort()

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """The keyring that is configured; None: nobody is asked for a token. Raises ValueError as the class does."""
        if settings.tokens is None and settings.jwt_keys is None:
            return None
        return cls(
            settings.namespace,
            tokens=settings.tokens,
            jwt_keys=settings.jwt_keys,
            jwt_audience=settings.jwt_audience,
            jwt_issuer=settings.jwt_issuer,
        )

    def identify(self, credential: str) -> Identity:
        """Who comes with this; Unauthenticated, with the reason for our log beside the message."""
        if not credential:
            raise Unauthenticated("a token is needed", "none")
        try:
            return self._here(self._identify(credential))
        except Refused as refused:
            raise Unauthenticated("this token is not valid here", str(refused)) from None

    def stands(self, identity: Identity) -> bool:
        """Whether it still holds: not expired, not revoked, not changed, its key still there."""
        if identity.expires is not None and self._clock() >= identity.expires:
            return False
        if identity.key is None:
            return self._identities.get(identity.token_id) == identity
        key = self._keys.value.get(identity.key)
        known = key is not None and key.seal == identity.seal
        return known and identity.token_id not in self._tokens.value.revoked_jwts

    def refresh(self) -> bool:
        """Read again what was changed; True if anything was. What cannot be read is as it was before, and logged."""
        changed = [source.refresh() for source in (self._tokens, self._keys)]
        if not any(changed):
            return False
        self._sort()
        logger.info("tokens were read again", tokens=len(self._identities), keys=len(self._keys.value))
        return True

    def _here(self, identity: Identity) -> Identity:
        if identity.namespace not in {None, self._namespace}:
            raise Refused("of another namespace")
        return identity

    def _identify(self, credential: str) -> Identity:
        if len(credential) > _LONGEST:
            raise Refused("too long")
        if credential.startswith(PREFIX):
            return self._known(credential)
        if not self._keys.value:
            raise Refused("not one of the file's")
        from wowevent.access.jwt import identify  # noqa: PLC0415 - who has no JWTs does not wait for their library

        keys, audience = self._keys.value, self._audience
        identity = identify(credential, keys, audience=audience, issuer=self._issuer, now=self._clock())
        if identity.token_id in self._tokens.value.revoked_jwts:
            raise Refused("revoked")
        return identity

    def _known(self, secret: str) -> Identity:
        token = find_token(self._by_id, secret)
        if token is None:
            raise Refused("not one of the file's")
        if token.revoked is not None:
            raise Refused("revoked")
        if token.expires is not None and self._clock() >= token.expires:
            raise Refused("expired")
        return self._identities[token.id]

    def _sort(self) -> None:
        self._by_id = {token.id: token for token in self._tokens.value.tokens}
        self._identities = {token.id: token.identity() for token in self._by_id.values() if token.revoked is None}


def _parse_keys(text: bytes) -> jwt.Keys:
    from wowevent.access.jwt import parse_keys  # noqa: PLC0415 - as above

    return parse_keys(text)


class _Source(Generic[T]):
    """What a file says, or the text that stands in its place; the last that could be read."""

    def __init__(self, setting: str, given: str | None, parse: Callable[[bytes], T], nothing: T) -> None:
        """Raises ValueError as `parse` does, and for a file that cannot be read."""
        self.value: T = nothing
        self._setting = setting
        self._parse = parse
        self._path: Path | None = None
        self._seen: object = None
        if given is not None and given.lstrip().startswith("{"):
            self.value = self._parsed(given.encode())
        elif given is not None:
            self._path = Path(given)
            self._seen = self._stamp()
            self.value = self._read()

    def refresh(self) -> bool:
        """Read a file that changed; whether it now says something else."""
        if self._path is None or (seen := self._stamp()) == self._seen:
            return False
        self._seen = seen
        try:
            value = self._read()
        except ValueError as error:
            logger.error("tokens cannot be read, those before stay valid", error=error)
            return False
        changed, self.value = value != self.value, value
        return changed

    def _stamp(self) -> object:
        """What changes when the file does, or when another one takes its place."""
        assert self._path is not None  # noqa: S101 - whoever asks knows
        try:
            status = self._path.stat()
        except OSError as error:
            return error.errno
        return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode

    def _read(self) -> T:
        assert self._path is not None  # noqa: S101 - as above
        try:
            mode, text = self._path.stat().st_mode, self._path.read_bytes()
        except OSError as error:
            raise ValueError(f"{self._setting}: {self._path}: {error.strerror or error}") from error
        if mode & _OPEN_TO_ALL:
            raise ValueError(f"{self._setting}: {self._path}: anybody may write it; chmod 600 it")
        return self._parsed(text)

    def _parsed(self, text: bytes) -> T:
        try:
            return self._parse(text)
        except ValueError as error:
            where = f"{self._setting}: {self._path}" if self._path else self._setting
            raise ValueError(f"{where}: {error}") from None
