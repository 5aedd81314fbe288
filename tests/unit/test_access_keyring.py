"""Whose token it is: the table of bad ones, a file that changes, keys that rotate."""

import base64
import hashlib
import hmac
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import structs

from wowevent.access.jwt import parse_keys
from wowevent.access.keyring import Keyring
from wowevent.access.tokens import Token, Tokens, encode_tokens, issue, parse_tokens, revoke, revoke_jwt
from wowevent.errors import Unauthenticated
from wowevent.settings import Settings

NOW = 1_767_225_600.0
SECRET = os.urandom(32)
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SHORT = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - to be refused
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
AUDIENCE = "wowevent"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def public(algorithm: str, kid: str, key: Any) -> dict[str, Any]:
    """A key of a JWKS, as an issuer publishes it."""
    kind: dict[str, Any] = {
        "RS256": jwt.algorithms.RSAAlgorithm,
        "ES256": jwt.algorithms.ECAlgorithm,
        "EdDSA": jwt.algorithms.OKPAlgorithm,
    }
    return {**json.loads(kind[algorithm].to_jwk(key.public_key())), "kid": kid, "alg": algorithm}


HS = {"kty": "oct", "kid": "hs", "alg": "HS256", "k": b64(SECRET)}
JWKS = json.dumps({"keys": [HS, public("RS256", "rs", RSA), public("ES256", "es", EC), public("EdDSA", "ed", ED)]})
CLAIMS: dict[str, Any] = {
    "sub": "worker-1",
    "aud": AUDIENCE,
    "exp": NOW + 60,
    "iat": NOW,
    "jti": "j-1",
    "wowevent": {"publish": ["task.*"], "limits": {"events": "10/s"}},
}


def signed(
    claims: dict[str, Any] | None = None, *, alg: str = "HS256", kid: str | None = "hs", key: Any = SECRET, **head: Any
) -> str:
    headers = {**({} if kid is None else {"kid": kid}), **head}
    return jwt.encode(CLAIMS if claims is None else claims, key, algorithm=alg, headers=headers)


def but(**changes: Any) -> dict[str, Any]:
    """The claims with these changed; None takes one out."""
    return {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}


TOKENS, TOKEN, OPAQUE = issue(
    Tokens(), "worker-1", NOW, grants={"publish": ["task.*"]}, expires=NOW + 60, namespace="default"
)
ELSEWHERE, _, OF_ANOTHER = issue(TOKENS, "worker-2", NOW, grants={}, namespace="default/../other")
GONE, GONE_TOKEN, REVOKED = issue(ELSEWHERE, "worker-3", NOW, grants={})
FILE = revoke_jwt(revoke(GONE, GONE_TOKEN.id, NOW) or GONE, "j-revoked")


def keyring(namespace: str = "default", now: float = NOW, **changes: Any) -> Keyring:
    given = {"tokens": encode_tokens(FILE).decode(), "jwt_keys": JWKS, "jwt_audience": AUDIENCE, **changes}
    return Keyring(namespace, clock=lambda: now, **given)


def refused(ring: Keyring, credential: str) -> str:
    """Why, as the log has it; who asks hears the same, whatever it was."""
    with pytest.raises(Unauthenticated) as caught:
        ring.identify(credential)
    assert str(caught.value) in {"a token is needed", "this token is not valid here"}
    assert credential == "" or credential not in repr(caught.value)
    assert caught.value.__cause__ is None
    return caught.value.reason


def test_a_token_of_the_file() -> None:
    identity = keyring().identify(OPAQUE)

    assert (identity.name, identity.token_id, identity.namespace, identity.expires) == (
        "worker-1",
        TOKEN.id,
        "default",
        NOW + 60,
    )
    assert identity.may("publish", "task.created")
    assert keyring().stands(identity)


@pytest.mark.parametrize(
    ("alg", "kid", "key"),
    [("HS256", "hs", SECRET), ("RS256", "rs", RSA), ("ES256", "es", EC), ("EdDSA", "ed", ED)],
    ids=["HS256", "RS256", "ES256", "EdDSA"],
)
def test_a_jwt_of_each_kind_of_key(alg: str, kid: str, key: Any) -> None:
    identity = keyring().identify(signed(alg=alg, kid=kid, key=key))

    assert (identity.name, identity.token_id, identity.key, identity.namespace) == ("worker-1", "j-1", kid, None)
    assert identity.may("publish", "task.created")
    assert not identity.may("publish", "other")
    assert identity.limits.events == "10/s"
    assert keyring().stands(identity)


def unsigned(**head: Any) -> str:
    """`alg: none`, in any spelling."""
    header, body = (b64(json.dumps(part).encode()) for part in ({"typ": "JWT", "kid": "hs", **head}, CLAIMS))
    return f"{header}.{body}."


PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def confused() -> str:
    """Signed by HS256 with the public key of RS256 as its secret."""
    head, body = (b64(json.dumps(part).encode()) for part in ({"alg": "HS256", "kid": "rs", "typ": "JWT"}, CLAIMS))
    return f"{head}.{body}.{b64(hmac.digest(PEM, f'{head}.{body}'.encode(), hashlib.sha256))}"


BAD: dict[str, tuple[Callable[[], str], str]] = {
    "none": (lambda: "", "none"),
    "wrong": (lambda: OPAQUE[:-1] + ("A" if OPAQUE[-1] != "A" else "B"), "not one of the file's"),
    "another's secret": (lambda: f"wow_{TOKEN.id}_{OF_ANOTHER[-43:]}", "not one of the file's"),
    "the hash": (lambda: f"wow_{TOKEN.id}_{TOKEN.sha256[:43]}", "not one of the file's"),
    "revoked": (lambda: REVOKED, "revoked"),
    "of another namespace": (lambda: OF_ANOTHER, "of another namespace"),
    "no JWT": (lambda: "nonsense", "DecodeError"),
    "a JWT of nothing": (lambda: "..", "DecodeError"),
    "too long": (lambda: "a" * 9000, "too long"),
    "deep": (lambda: b64(b"[" * 6000) + ".e30.", "DecodeError"),
    "a long number": (lambda: b64(b'{"alg":' + b"9" * 5000 + b"}") + ".e30.", "DecodeError"),
    "not text": (lambda: "\ud800.\ud800.\ud800", "UnicodeEncodeError"),
    "alg none": (lambda: unsigned(alg="none"), "another algorithm than the key's"),
    "alg None": (lambda: unsigned(alg="None"), "another algorithm than the key's"),
    "no alg": (unsigned, "another algorithm than the key's"),
    "wrong alg": (lambda: signed(alg="HS512", key=os.urandom(64)), "another algorithm than the key's"),
    "another key's alg": (lambda: signed(alg="RS256", key=RSA), "another algorithm than the key's"),
    "a public key as the secret": (confused, "another algorithm than the key's"),
    "wrong secret": (lambda: signed(key=os.urandom(32)), "InvalidSignatureError"),
    "unknown key": (lambda: signed(kid="old"), "signed with a key that is not known"),
    "no word of the key": (lambda: signed(kid=None), "signed with a key that is not known"),
    "key by number": (
        lambda: signed(kid=None, jwk={"kty": "oct", "k": b64(SECRET)}),
        "signed with a key that is not known",
    ),
    "an extension": (lambda: signed(crit=["exp"]), "InvalidTokenError"),
    "expired": (lambda: signed(but(exp=NOW)), "expired"),
    "never expires": (lambda: signed(but(exp=None)), "MissingRequiredClaimError"),
    "expires at infinity": (lambda: signed(but(exp=float("inf"))), "exp is not a time"),
    "expires beyond all numbers": (lambda: signed(but(exp=10**400)), "OverflowError"),
    "expires some day": (lambda: signed(but(exp="tomorrow")), "exp is not a time"),
    "expires truly": (lambda: signed(but(exp=True)), "exp is not a time"),
    "not valid yet": (lambda: signed(but(nbf=NOW + 31)), "not valid yet"),
    "of the future": (lambda: signed(but(iat=NOW + 31)), "not valid yet"),
    "wrong audience": (lambda: signed(but(aud="others")), "InvalidAudienceError"),
    "part of the audience": (lambda: signed(but(aud="wow")), "InvalidAudienceError"),
    "no audience": (lambda: signed(but(aud=None)), "MissingRequiredClaimError"),
    "nobody": (lambda: signed(but(sub=None)), "MissingRequiredClaimError"),
    "no name": (lambda: signed(but(sub="a b\r\n")), "InvalidEvent"),
    "revoked JWT": (lambda: signed(but(jti="j-revoked")), "revoked"),
    "JWT of another namespace": (lambda: signed(but(namespace="other")), "of another namespace"),
    "JWT of a namespace below": (lambda: signed(but(namespace="default/../default")), "of another namespace"),
    "unknown right": (lambda: signed(but(wowevent={"everything": ["#"]})), "ValueError"),
    "no pattern": (lambda: signed(but(wowevent={"publish": ["task*"]})), "ValueError"),
    "some admin": (lambda: signed(but(wowevent={"admin": ["task.*"]})), "ValueError"),
    "grants of another shape": (lambda: signed(but(wowevent=["publish"])), "ValidationError"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_is_refused(name: str) -> None:
    make, reason = BAD[name]
    assert refused(keyring(), make()) == reason


@pytest.mark.parametrize("credential", [OPAQUE, signed()], ids=["opaque", "jwt"])
def test_expired_from_the_second_on(credential: str) -> None:
    identity = keyring(now=NOW + 59.9).identify(credential)

    assert keyring(now=NOW + 59.9).stands(identity)
    assert not keyring(now=NOW + 60).stands(identity)
    assert refused(keyring(now=NOW + 60), credential) == "expired"


def test_the_issuers_clock_may_be_ahead_a_little() -> None:
    assert keyring().identify(signed(but(nbf=NOW + 29, iat=NOW + 29))).name == "worker-1"


def test_the_issuer_is_looked_at_where_one_is_named() -> None:
    ring = keyring(jwt_issuer="https://us")

    assert ring.identify(signed(but(iss="https://us"))).name == "worker-1"
    assert refused(ring, signed(but(iss="https://them"))) == "InvalidIssuerError"
    assert refused(ring, signed()) == "MissingRequiredClaimError"


def test_several_audiences() -> None:
    assert keyring().identify(signed(but(aud=["others", AUDIENCE]))).name == "worker-1"


def test_a_single_key_needs_no_name_in_the_token() -> None:
    ring = keyring(jwt_keys=json.dumps({"keys": [HS]}))
    assert ring.identify(signed(kid=None)).key == "hs"


def test_each_namespace_has_its_tokens() -> None:
    assert keyring("default/../other").identify(OF_ANOTHER).name == "worker-2"
    assert refused(keyring("default/../other"), OPAQUE) == "of another namespace"
    assert keyring("other").identify(signed(but(namespace="other"))).namespace == "other"


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ({**HS, "k": b64(b"x" * 31)}, "32 bytes at least"),
        ({**HS, "alg": "none"}, "alg is not one of"),
        ({**HS, "alg": "HS512"}, "alg is not one of"),
        ({name: value for name, value in HS.items() if name != "alg"}, "alg is not one of"),
        ({**HS, "alg": "RS256"}, "cannot be read as one for RS256"),
        ({**HS, "kid": ""}, "kid, its name, is missing"),
        ({**HS, "use": "enc"}, "not for signatures"),
        ({**public("ES256", "es", EC), "d": "x"}, "private key"),
        (public("RS256", "rs", SHORT), "2048 bits at least"),
        ("hs", "kid, its name, is missing"),
    ],
)
def test_what_is_no_key(key: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        parse_keys(json.dumps({"keys": [key]}))
    assert b64(SECRET) not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"keys": []}', '{"keys": {}}', json.dumps({"keys": [HS, HS]}), "[" * 5000]
)
def test_what_is_no_jwks(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever is wrong with it
        parse_keys(text)


def test_keys_without_an_audience_are_refused() -> None:
    with pytest.raises(ValueError, match="jwt_audience"):
        keyring(jwt_audience=None)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.json"
    write(path, FILE)
    return path


def write(path: Path, tokens: Tokens) -> None:
    """As `wowevent token` does: another file takes its place."""
    draft = path.with_suffix(".new")
    draft.write_bytes(encode_tokens(tokens))
    draft.chmod(0o600)
    draft.replace(path)


def changed(**fields: Any) -> Tokens:
    """The file with the first token changed."""
    first, *others = FILE.tokens
    return structs.replace(FILE, tokens=(structs.replace(first, **fields), *others))


def test_a_file_is_read_again_when_it_changes(file: Path) -> None:
    ring = Keyring("default", tokens=str(file), clock=lambda: NOW)
    identity = ring.identify(OPAQUE)
    assert not ring.refresh()

    write(file, revoke(FILE, TOKEN.id, NOW) or FILE)
    assert ring.stands(identity), "until it is looked at"
    assert ring.refresh()
    assert not ring.stands(identity)
    assert refused(ring, OPAQUE) == "revoked"

    more, _, secret = issue(FILE, "worker-9", NOW, grants={})
    write(file, more)
    assert ring.refresh()
    assert ring.identify(secret).name == "worker-9"
    assert ring.stands(identity)


@pytest.mark.parametrize(
    "fields",
    [
        {"grants": {"publish": ("task.created",)}},
        {"name": "other"},
        {"namespace": "other"},
        {"expires": None},
        {"id": "0" * 12},
    ],
    ids=str,
)
def test_a_token_that_was_changed_does_not_stand_as_it_was(file: Path, fields: dict[str, Any]) -> None:
    ring = Keyring("default", tokens=str(file), clock=lambda: NOW)
    identity = ring.identify(OPAQUE)
    write(file, changed(**fields))

    assert ring.refresh()
    assert not ring.stands(identity)


@pytest.mark.parametrize(
    "harm",
    [lambda path: path.unlink(), lambda path: path.write_text("{"), lambda path: path.chmod(0o602)],
    ids=["gone", "broken", "anybody may write it"],
)
def test_a_file_that_breaks_leaves_what_was_and_says_so_once(
    file: Path, harm: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    ring = Keyring("default", tokens=str(file), clock=lambda: NOW)
    identity = ring.identify(OPAQUE)
    harm(file)
    with caplog.at_level(logging.ERROR, "wowevent"):
        assert [ring.refresh() for _ in range(3)] == [False] * 3

    assert ring.stands(identity)
    assert ring.identify(OPAQUE) == identity
    assert len(caplog.records) == 1
    assert str(file) in caplog.text
    write(file, revoke(FILE, TOKEN.id, NOW) or FILE)
    assert ring.refresh(), "and once it is well it counts again"
    assert not ring.stands(identity)


def test_a_key_that_is_taken_out_ends_what_it_signed(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(JWKS)
    ring = keyring(jwt_keys=str(path))
    old, new = ring.identify(signed()), ring.identify(signed(alg="EdDSA", kid="ed", key=ED))
    path.write_text(json.dumps({"keys": [public("EdDSA", "ed", ED)]}))

    assert ring.refresh()
    assert not ring.stands(old)
    assert ring.stands(new)


def test_a_key_that_another_takes_the_name_of_ends_what_it_signed(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(JWKS)
    ring = keyring(jwt_keys=str(path))
    old, other = ring.identify(signed()), ring.identify(signed(alg="EdDSA", kid="ed", key=ED))
    keys = json.loads(JWKS)["keys"]
    path.write_text(
        json.dumps({"keys": [{**each, "k": b64(b"y" * 40)} if each["kid"] == "hs" else each for each in keys]})
    )

    assert ring.refresh()
    assert not ring.stands(old)
    assert ring.stands(other)


def test_a_jwt_that_is_revoked_by_the_file(file: Path) -> None:
    ring = keyring(tokens=str(file))
    identity = ring.identify(signed())
    write(file, revoke_jwt(FILE, "j-1"))

    assert ring.refresh()
    assert not ring.stands(identity)


@pytest.mark.parametrize(
    ("setting", "content"), [("tokens", None), ("tokens", "{"), ("jwt_keys", None), ("jwt_keys", '{"keys": [{}]}')]
)
def test_what_cannot_be_read_at_first_keeps_from_serving(tmp_path: Path, setting: str, content: str | None) -> None:
    path = tmp_path / "some.json"
    given: dict[str, Any] = {setting: str(path)}
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=f"^{setting}: {path}: "):
        keyring(**given)


def test_it_is_off_unless_it_is_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("WOWEVENT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WOWEVENT_CONFIG", str(tmp_path / "c.toml"))
    (tmp_path / "c.toml").touch()
    assert Keyring.of(Settings()) is None

    monkeypatch.setenv("WOWEVENT_TOKENS", encode_tokens(FILE).decode())
    assert Keyring.of(Settings()) is not None
    assert encode_tokens(FILE).decode() not in repr(Settings())


def test_a_file_by_hand_may_leave_out_what_it_does_not_mean() -> None:
    least = json.dumps({"tokens": [{"id": TOKEN.id, "name": "a", "sha256": TOKEN.sha256, "created": 0}]})
    token: Token = parse_tokens(least).tokens[0]

    assert (token.namespace, token.expires, dict(token.grants)) == (None, None, {})
    assert Keyring("any", tokens=least).identify(OPAQUE).name == "a"
