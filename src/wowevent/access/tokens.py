"""The file of tokens: who may come with which secret, of which only the SHA-256 is kept.

    {"version": 1,
     "tokens": [{"id": "9f1c…", "name": "worker-1", "sha256": "…", "created": 1767225600.0, "expires": 1769817600.0,
                 "namespace": "default", "grants": {"subscribe": ["task.*"]}, "limits": {"events": "100/s"}}],
     "revoked_jwts": ["…"]}

A secret is `wow_{id}_{43 characters}`: 256 bits from the system's generator, so that a hash without salt and cost is
enough. A token that is revoked stays, with the moment, so that its id is not given again.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from hashlib import sha256
from hmac import compare_digest
from typing import Final

import msgspec
from msgspec import Struct, structs

from wowevent.access.rights import Identity, Limits, check_grants, check_limits
from wowevent.errors import BusError
from wowevent.event import check_name

PREFIX: Final = "wow_"
"""How a secret of the file begins; anything else is a JWT or nothing."""

_VERSION: Final = 1
_ID: Final = re.compile(r"[0-9a-f]{12}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_NOBODY: Final = "0" * 64  # compared with the hash where no token has the id: that takes as long


class Refused(Exception):
    """A token is not valid; the message, which is for our log alone, says why and shows nothing of it."""


class Token(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One token, without its secret; times are Unix seconds."""

    id: str
    name: str
    sha256: str
    created: float
    expires: float | None = None
    namespace: str | None = None
    """None is any that is served with this file."""
    grants: Mapping[str, tuple[str, ...]] = {}
    limits: Limits = Limits()
    revoked: float | None = None

    def identity(self) -> Identity:
        """Who comes with it."""
        return Identity(self.name, self.id, self.namespace, self.grants, self.expires, self.limits)


class Tokens(Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says."""

    version: int = _VERSION
    tokens: tuple[Token, ...] = ()
    revoked_jwts: tuple[str, ...] = ()
    """The `jti` of JWTs that are not valid any more."""


def parse_tokens(text: bytes | str) -> Tokens:
    """What the file says, checked; ValueError, which shows no value, for what cannot be one."""
    try:
        found = msgspec.json.decode(text, type=Tokens)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a file of tokens: {error}") from error
    if found.version != _VERSION:
        raise ValueError(f"version {found.version} of the file; this one knows version {_VERSION}")
    for number, token in enumerate(found.tokens):
        try:
            _check(token)
        except (BusError, ValueError) as error:
            raise ValueError(f"token {number}: {error}") from error
    if len({token.id for token in found.tokens}) < len(found.tokens):
        raise ValueError("two tokens have the same id")
    return found


def encode_tokens(tokens: Tokens) -> bytes:
    """The file, for people to read too."""
    return msgspec.json.format(msgspec.json.encode(tokens), indent=2) + b"\n"


def issue(
    tokens: Tokens,
    name: str,
    now: float,
    *,
    grants: Mapping[str, Sequence[str]],
    expires: float | None = None,
    namespace: str | None = None,
    limits: Limits | None = None,
) -> tuple[Tokens, Token, str]:
    """One token more: the file as it is then, the token, and its secret, which nothing else knows.

    ValueError for what cannot be granted, InvalidEvent for what is no name.
    """
    id, key = secrets.token_hex(6), secrets.token_urlsafe(32)
    secret = f"{PREFIX}{id}_{key}"
    token = Token(
        id=id,
        name=name,
        sha256=_hash(secret),
        created=now,
        expires=expires,
        namespace=namespace,
        grants=check_grants(grants),
        limits=limits or Limits(),
    )
    _check(token)
    return structs.replace(tokens, tokens=(*tokens.tokens, token)), token, secret


def revoke(tokens: Tokens, id: str, now: float) -> Tokens | None:
    """The file with that token revoked, as of now unless it was already; None if there is none."""
    if all(token.id != id for token in tokens.tokens):
        return None
    changed = (structs.replace(each, revoked=each.revoked or now) if each.id == id else each for each in tokens.tokens)
    return structs.replace(tokens, tokens=tuple(changed))


def revoke_jwt(tokens: Tokens, jti: str) -> Tokens:
    """The file with JWTs of that id revoked, too."""
    return structs.replace(tokens, revoked_jwts=tuple(dict.fromkeys((*tokens.revoked_jwts, jti))))


def find_token(tokens: Mapping[str, Token], secret: str) -> Token | None:
    """The token that has this secret, valid or not; how long it takes does not depend on how much of it is right."""
    token = tokens.get(secret.removeprefix(PREFIX).partition("_")[0])
    right = compare_digest(_hash(secret), _NOBODY if token is None else token.sha256)
    return token if right else None


def _hash(secret: str) -> str:
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _check(token: Token) -> None:
    """ValueError or InvalidEvent for what no token can be."""
    if not _ID.fullmatch(token.id):
        raise ValueError("id: 12 hexadecimal digits")
    if not _HASH.fullmatch(token.sha256):
        raise ValueError("sha256: 64 hexadecimal digits")
    check_name(token.name)
    if token.namespace is not None:
        check_name(token.namespace)
    check_grants(token.grants)
    check_limits(token.limits)
