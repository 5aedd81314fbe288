"""A file of tokens, and keys of JWTs, for tests of who may come in."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt

from wowevent.access.keyring import Keyring
from wowevent.access.rights import Limits
from wowevent.access.tokens import Tokens, encode_tokens, issue, revoke

AUDIENCE = "wowevent"
SECRET = bytes(range(64))


class Keys:
    """Who may come, until that changes."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "tokens.json"
        self.later = 0.0
        """Seconds by which the keyring's clock is ahead."""
        self._tokens = Tokens()
        self._rings: list[Keyring] = []
        self._write()
        key = {"kid": "k1", "kty": "oct", "alg": "HS256", "k": _base64(SECRET)}
        self._jwks = json.dumps({"keys": [key]})

    def ring(self) -> Keyring:
        """A keyring on all of it."""
        ring = Keyring("default", tokens=str(self.path), jwt_keys=self._jwks, jwt_audience=AUDIENCE, clock=self._now)
        self._rings.append(ring)
        return ring

    def _now(self) -> float:
        return time.time() + self.later

    def token(self, name: str, *, lasts: float | None = None, **said: Any) -> str:
        """The secret of a new one, good at once; rights by their names, `limits`, `namespace`."""
        limits = Limits(**said.pop("limits", {}))
        namespace = said.pop("namespace", None)
        expires = None if lasts is None else self._now() + lasts
        self._tokens, _, secret = issue(
            self._tokens, name, self._now(), grants=said, expires=expires, namespace=namespace, limits=limits
        )
        self._write()
        for ring in self._rings:
            ring.refresh()
        return secret

    def all_of(self, name: str) -> str:
        """One that may publish and hear everything."""
        return self.token(name, publish=["#"], subscribe=["#"], replay=["#"])

    def revoke(self, secret: str) -> None:
        """It is not valid any more."""
        revoked = revoke(self._tokens, secret.split("_")[1], self._now())
        assert revoked is not None
        self._tokens = revoked
        self._write()

    def change(self, secret: str, **grants: Any) -> None:
        """Its rights are others."""
        fields = [json.loads(encode_tokens(Tokens(tokens=(each,))))["tokens"][0] for each in self._tokens.tokens]
        for each in fields:
            if each["id"] == secret.split("_")[1]:
                each["grants"] = grants
        self.path.write_text(json.dumps({"version": 1, "tokens": fields}))

    def jwt(
        self, *, header: dict[str, Any] | None = None, key: bytes = SECRET, alg: str = "HS256", **claims: Any
    ) -> str:
        """A JWT, valid unless it is said otherwise; a claim of None is left out."""
        given = {
            "sub": "jason",
            "aud": AUDIENCE,
            "exp": int(self._now()) + 60,
            "wowevent": {"publish": ["#"], "subscribe": ["#"]},
            **claims,
        }
        given = {name: value for name, value in given.items() if value is not None}
        secret: Any = None if alg == "none" else key
        return jwt.encode(given, secret, algorithm=alg, headers={"kid": "k1", **(header or {})})

    def _write(self) -> None:
        self.path.write_bytes(encode_tokens(self._tokens))
        self.path.chmod(0o600)


def bad_tokens(keys: Keys) -> dict[str, str]:
    """What lets nobody in, by what is wrong with it."""
    good = keys.all_of("alice")
    revoked, expired = keys.all_of("bob"), keys.token("carol", lasts=-1.0, publish=["#"])
    keys.revoke(revoked)
    now = int(time.time())
    return {
        "empty of meaning": "x",
        "another secret": f"{good[:-1]}{'A' if good[-1] != 'A' else 'B'}",
        "the id alone": good.removesuffix(f"_{hidden(good)}"),
        "no such id": f"wow_000000000000_{hidden(good)}",
        "longer": f"{good}A",
        "revoked": revoked,
        "expired": expired,
        "of another namespace": keys.token("dave", namespace="other", publish=["#"]),
        "jwt alg=none": keys.jwt(alg="none"),
        "jwt alg=none without a signature": keys.jwt().rpartition(".")[0] + ".",
        "jwt of another algorithm": keys.jwt(alg="HS512"),
        "jwt of another key": keys.jwt(key=bytes(64)),
        "jwt of an unknown kid": keys.jwt(header={"kid": "k2"}),
        "jwt for somebody else": keys.jwt(aud="others"),
        "jwt for nobody": keys.jwt(aud=None),
        "jwt expired": keys.jwt(exp=now - 1),
        "jwt for ever": keys.jwt(exp=None),
        "jwt not valid yet": keys.jwt(nbf=now + 120),
        "jwt from the future": keys.jwt(iat=now + 120),
        "jwt of another namespace": keys.jwt(namespace="other"),
        "jwt without a name": keys.jwt(sub=None),
        "jwt of a name that is none": keys.jwt(sub="a b"),
        "jwt of unknown rights": keys.jwt(wowevent={"everything": ["#"]}),
    }


def hidden(token: str) -> str:
    """What of a token nobody else may see: all behind its id."""
    return token.split("_", 2)[2] if token.startswith("wow_") else token


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
