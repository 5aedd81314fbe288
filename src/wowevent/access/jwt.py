"""JSON Web Tokens of an issuer elsewhere: held against its keys, each of which signs in one way only.

    {"keys": [{"kid": "2026-01", "kty": "oct", "alg": "HS256", "k": "…"}, {"kid": "2026-02", "kty": "RSA", …}]}

A token says `aud`, `exp`, `sub` (the agent), and perhaps `nbf`, `iat`, `iss`, `jti`, `namespace`, and what is granted:

    "wowevent": {"publish": ["task.*"], "subscribe": ["task.*"], "limits": {"events": "100/s"}}

The algorithm is the key's, never the token's word (RFC 8725): so neither `none` nor a public key that is taken for a
secret gets through. Several keys are a rotation: add the new one, sign with it, take the old one out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import blake2b
from secrets import token_bytes
from typing import Any, Final

import jwt
import msgspec
from msgspec import Struct

from wowevent.access.rights import Identity, Limits, check_grants, check_limits
from wowevent.access.tokens import Refused
from wowevent.errors import BusError
from wowevent.event import check_name

ALGORITHMS: Final = ("HS256", "RS256", "ES256", "EdDSA")
LEEWAY: Final = 30.0
"""Seconds by which the issuer's clock may be ahead of ours."""

_SHORTEST: Final = 32  # bytes of a secret (RFC 7518, 3.2)
_RSA_SHORTEST: Final = 2048  # bits (RFC 7518, 3.3)
_SEALING: Final = token_bytes(32)
_WRONG: Final = (
    jwt.PyJWTError, BusError, ValueError, TypeError, KeyError, OverflowError, RecursionError, msgspec.MsgspecError,
)  # fmt: skip


class Key(Struct, frozen=True):
    """One key."""

    jwk: jwt.PyJWK
    seal: str
    """What tells it from another that gets its `kid`."""


Keys = Mapping[str, Key]
"""By `kid`."""


def parse_keys(text: bytes | str) -> dict[str, Key]:
    """The keys of a JWKS; ValueError, which shows no key, for what cannot be one."""
    try:
        given = msgspec.json.decode(text, type=dict[str, Any])["keys"]
    except (msgspec.MsgspecError, KeyError, UnicodeDecodeError, RecursionError):
        raise ValueError('not a JWKS: {"keys": […]}') from None
    if not isinstance(given, list) or not given:
        raise ValueError("no key in it")
    keys: dict[str, Key] = {}
    for number, fields in enumerate(given):
        try:
            kid, key = _key(fields)
        except ValueError as error:
            raise ValueError(f"key {number}: {error}") from None
        if kid in keys:
            raise ValueError(f"key {number}: another one has its kid")
        keys[kid] = Key(key, _seal(fields))
    return keys


def identify(token: str, keys: Keys, *, audience: str, issuer: str | None, now: float) -> Identity:
    """Who comes with this token; Refused. Whether it was revoked, and the namespace, are the caller's to look at."""
    try:
        kid, key = _signer(token, keys)
        claims = jwt.decode(
            token,
            key.jwk,
            algorithms=[str(key.jwk.algorithm_name)],
            audience=audience,
            issuer=issuer,
            options={
                "require": ["aud", "exp", "sub", *(["iss"] if issuer is not None else [])],
                "verify_exp": False,  # by our clock, below
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
        return _identity(claims, kid, key.seal, _check_times(claims, now))
    except Refused:
        raise
    except _WRONG as error:
        raise Refused(type(error).__name__) from error


def _signer(token: str, keys: Keys) -> tuple[str, Key]:
    """The key that the token says it is signed with; without a word of it, the only one there is."""
    header = jwt.get_unverified_header(token)
    kid = header.get("kid", next(iter(keys)) if len(keys) == 1 else None)
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None or kid is None:
        raise Refused("signed with a key that is not known")
    if header.get("alg") != key.jwk.algorithm_name:
        raise Refused("another algorithm than the key's")
    return kid, key


def _check_times(claims: Mapping[str, Any], now: float) -> float:
    """When it expires."""
    expires = _moment(claims, "exp")
    if expires is None or now >= expires:
        raise Refused("expired")
    if any((_moment(claims, name) or 0.0) > now + LEEWAY for name in ("nbf", "iat")):
        raise Refused("not valid yet")
    return expires


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Refused(f"{name} is not a time")
    return float(value)


def _identity(claims: Mapping[str, Any], kid: str, seal: str, expires: float) -> Identity:
    said = msgspec.convert(claims.get("wowevent", {}), dict[str, Any])
    limits = msgspec.convert(said.pop("limits", {}), Limits)
    namespace = claims.get("namespace")
    return Identity(
        name=check_name(claims["sub"]),
        token_id=msgspec.convert(claims.get("jti", ""), str),
        namespace=None if namespace is None else check_name(namespace),
        grants=check_grants(msgspec.convert(said, dict[str, tuple[str, ...]])),
        expires=expires,
        limits=check_limits(limits),
        key=kid,
        seal=seal,
    )


def _key(fields: Any) -> tuple[str, jwt.PyJWK]:
    """One key, and its name; ValueError."""
    if not isinstance(fields, dict) or not isinstance(kid := fields.get("kid"), str) or not kid:
        raise ValueError("kid, its name, is missing")
    if fields.get("alg") not in ALGORITHMS:
        raise ValueError(f"alg is not one of {', '.join(ALGORITHMS)}")
    if "d" in fields:
        raise ValueError("it is a private key; give the public one")
    if fields.get("use", "sig") != "sig":
        raise ValueError("it is not for signatures")
    try:
        key = jwt.PyJWK.from_dict(fields)
    except jwt.exceptions.MissingCryptographyError:
        raise ValueError(f"{fields['alg']} needs the extra: pip install 'wowevent[jwt]'") from None
    except _WRONG:
        raise ValueError(f"it cannot be read as one for {fields['alg']}") from None
    _check_strength(key, str(fields["alg"]))
    return kid, key


def _seal(fields: Any) -> str:
    """Of a secret nothing can be told from it: it is another in each process."""
    return blake2b(msgspec.json.encode(fields, order="deterministic"), digest_size=16, key=_SEALING).hexdigest()


def _check_strength(key: jwt.PyJWK, algorithm: str) -> None:
    if algorithm == "HS256" and len(key.key) < _SHORTEST:
        raise ValueError(f"a secret for HS256 has {_SHORTEST} bytes at least")
    if algorithm == "RS256" and key.key.key_size < _RSA_SHORTEST:
        raise ValueError(f"a key for RS256 has {_RSA_SHORTEST} bits at least")
