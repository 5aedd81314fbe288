"""The file of tokens: what is written, what is read, and whose secret it is."""

import json
import re
from typing import Any

import msgspec
import pytest

from wowevent.access.rights import Limits
from wowevent.access.tokens import Tokens, encode_tokens, find_token, issue, parse_tokens, revoke, revoke_jwt
from wowevent.errors import InvalidEvent

NOW = 1_767_225_600.0
GRANTS = {"publish": ("task.*",), "subscribe": ("#",)}


def made(**changes: Any) -> tuple[Tokens, str]:
    tokens, _, secret = issue(Tokens(), "worker-1", NOW, **{"grants": GRANTS, **changes})
    return tokens, secret


def test_a_secret_is_as_promised_and_stands_nowhere() -> None:
    tokens, secret = made(expires=NOW + 60, namespace="default", limits=Limits(events="100/s"))
    text = encode_tokens(tokens).decode()

    assert re.fullmatch(rf"wow_{tokens.tokens[0].id}_[A-Za-z0-9_-]{{43}}", secret)
    assert secret not in text
    assert secret[-43:] not in text
    assert secret not in repr(tokens)
    assert len({made()[1] for _ in range(100)}) == 100


def test_what_is_written_is_read() -> None:
    tokens, _ = made(expires=NOW + 60, namespace="default", limits=Limits(events="100/s", clients=3))

    assert parse_tokens(encode_tokens(tokens)) == tokens
    assert parse_tokens(encode_tokens(revoke_jwt(tokens, "j-1"))).revoked_jwts == ("j-1",)
    assert json.loads(encode_tokens(tokens))["version"] == 1


def test_the_secret_finds_its_token_and_nothing_else_does() -> None:
    tokens, secret = made()
    by_id = {token.id: token for token in tokens.tokens}
    wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")

    assert find_token(by_id, secret) == tokens.tokens[0]
    for other in (
        wrong,
        secret[:-1],
        secret + "A",
        secret.upper(),
        "wow_",
        "wow__",
        "wow_\ud800_x",
        tokens.tokens[0].sha256,
    ):
        assert find_token(by_id, other) is None, other
    assert find_token({}, secret) is None


def test_revoked_is_for_good_and_the_first_moment_counts() -> None:
    tokens, _ = made()
    id = tokens.tokens[0].id
    once = revoke(tokens, id, NOW + 1)
    assert once is not None
    again = revoke(once, id, NOW + 2)

    assert again is not None
    assert again.tokens[0].revoked == NOW + 1
    assert revoke(tokens, "000000000000", NOW) is None


@pytest.mark.parametrize("name", ["", "a b", "a\r\nb", "ä", "x" * 129])
def test_a_name_is_one(name: str) -> None:
    with pytest.raises(InvalidEvent):
        issue(Tokens(), name, NOW, grants=GRANTS)


GOOD = json.loads(encode_tokens(made()[0]))


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "x"},
        {"id": "../../../etc"},
        {"sha256": "abc"},
        {"name": "a b"},
        {"namespace": "a b"},
        {"grants": {"everything": ["#"]}},
        {"grants": {"publish": "task.*"}},
        {"grants": {"admin": ["task.*"]}},
        {"limits": {"events": "lots"}},
        {"limits": {"unheard_of": 1}},
        {"expires": "tomorrow"},
        {"unheard_of": 1},
        {"secret": "wow_x"},
    ],
)
def test_what_no_token_can_be(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"token 0: |not a file of tokens: "):
        parse_tokens(json.dumps({**GOOD, "tokens": [{**GOOD["tokens"][0], **changes}]}))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"version": 2}',
        b'{"unheard_of": 1}',
        b"[" * 5000,
        json.dumps({**GOOD, "tokens": GOOD["tokens"] * 2}).encode(),
    ],
    ids=["empty", "list", "cut", "not UTF-8", "newer", "unknown field", "deep", "an id twice"],
)
def test_what_is_no_file_of_tokens(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever is wrong with it
        parse_tokens(text)


def test_an_identity_is_what_the_token_says_and_no_hash() -> None:
    tokens, secret = made(expires=NOW + 60, namespace="n")
    identity = tokens.tokens[0].identity()

    assert (identity.name, identity.namespace, identity.expires) == ("worker-1", "n", NOW + 60)
    assert dict(identity.grants) == GRANTS
    assert tokens.tokens[0].sha256 not in repr(identity)
    assert secret not in msgspec.json.encode(identity).decode()
