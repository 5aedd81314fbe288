"""What is almost right: values that have caused trouble elsewhere, fields that were changed, bytes that were torn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from hypothesis import strategies as st

# Surrogates that stand alone are no text, but JSON's escapes can say them.
_ANY_CHARACTER: Final = st.characters(exclude_categories=())
PLAIN: Final = st.text(max_size=12)

NUMBERS: Final = st.one_of(
    st.integers(-3, 12),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from((2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400, 1e308, -0.0)),
)
WICKED: Final = st.sampled_from(
    (
        "", " ", ".", "..", "../../etc/passwd", "/", "//", "a b", "a\nb", "a\r\nPUB x 0\r\n", "a\0", "\0", "\x7f",
        "\u0085", "\u2028", "\ufeff", "\ud800", "\udc00\ud800", "\U0001f600", "é", "\uff21", "\u0663", "ß",
        "\u017fystem", "null", "NaN", "-1",
        "*", "#", "**", "task*", "a.*", "a.#.b", ">", "a.>", "$SYS.a", "_bus.a", "_live.1", "_", "a..b", ".a", "a.",
        "x" * 127, "x" * 128, "x" * 129, "x" * 200, "x" * 201, "x" * 256, "x" * 5_000, "a." * 99 + "a",
        "a." * 100 + "a",
        "2026-01-31", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00+14:00", "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-12:00", "2026-W05-6", "20260131", "24:00", "1970-01-01", "yesterday", "new", "first",
        "4f2a-7", "4f2a--1", "-", "4f2a-9223372036854775808", "high", "HIGH", "urgent", "true", "0x10", "1_0", "1e9",
    )
)  # fmt: skip
SCALARS: Final = st.none() | st.booleans() | NUMBERS | PLAIN | WICKED
VALUES: Final[st.SearchStrategy[Any]] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN | WICKED, inner, max_size=3),
    max_leaves=6,
)


def deep(levels: int) -> Any:
    """A list in a list, so many times."""
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


STRANGE: Final = VALUES | st.sampled_from((30, 31, 32, 33, 34, 35, 36, 40, 200)).map(deep)


@st.composite
def changed(draw: st.DrawFn, fields: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The fields with up to four of them left out, said otherwise, or said by the name of another."""
    found = dict(fields)
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from((*fields, *names)) | PLAIN)
        match draw(st.sampled_from(("without", "other", "other", "wicked", "wicked", "moved"))):
            case "without":
                found.pop(name, None)
            case "other":
                found[name] = draw(STRANGE)
            case "wicked":
                found[name] = draw(WICKED)
            case "moved" if found:
                found[name] = found.pop(draw(st.sampled_from(sorted(found))))
    return found


def text_of(value: Any) -> bytes:
    """JSON as anybody might write it: what is no text is escaped."""
    return json.dumps(value).encode()


_SPLINTERS: Final = st.sampled_from(
    (
        b"", b" ", b"\n", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xef\xbb\xbf", b'"', b"'", b"\\", b",",
        b":", b"{", b"}", b"[", b"]", b"{}", b"[]", b"null", b"true", b"-", b"0", b"01", b"1e999", b"-1e-999", b"NaN",
        b"Infinity", b"9" * 30, b"9" * 5_000, b'"\\ud800"', b'"\\u0000"', b'"\\u003a"', b'"v":2,', b'"v":1,',
        b'"topic":"b",', b'"_unknown":{"topic":"b"},', b'"_decoded":{"n":2},', b'"retry_count":3,', b'"type":"ping",',
        b"[" * 40, b"[" * 2_000, b"]" * 40, b"/**/",
    )
)  # fmt: skip


@st.composite
def torn(draw: st.DrawFn, texts: st.SearchStrategy[bytes]) -> bytes:
    """A text that was cut, doubled in part, or has a splinter in it, up to three times."""
    data = draw(texts)
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 12)))
        match draw(st.sampled_from(("into", "into", "for", "for", "cut", "twice", "end"))):
            case "into":
                data = data[:start] + draw(_SPLINTERS) + data[start:]
            case "for":
                data = data[:start] + draw(_SPLINTERS | st.binary(max_size=3)) + data[end:]
            case "cut":
                data = data[:start] + data[end:]
            case "twice":
                data = data[:end] + data[start:]
            case "end":
                data = data[:start]
    return data
