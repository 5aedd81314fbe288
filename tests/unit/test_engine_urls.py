"""URLs of engines that are wrong: refused with a sentence, and without what may be a password."""

from __future__ import annotations

import pytest

from wowevent.brokers import open_broker
from wowevent.errors import NotSupported


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter\u2100zwei@h",  # the library repeats what it cannot normalize
        "redis://[hunter]@h",
        "amqp://u:hunter[zwei@h",
        "redis://:hun?terzwei@h",
        "nats://u:hun?zwei&x@h",
        "amqp://u:hunter?zwei@h?max_age=1",  # an option of which half a password is the name
    ],
)
def test_what_is_no_url_is_refused_without_a_part_of_it(url: str) -> None:
    with pytest.raises(ValueError, match="not a URL") as caught:
        open_broker(url)
    assert not [each for each in ("hunter", "zwei") if each in f"{caught.value}{caught.value.__cause__}"]


def test_an_address_without_an_engine_is_not_repeated_with_its_password() -> None:
    with pytest.raises(NotSupported) as caught:
        open_broker("//u:hunter@h")
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize("name", ["max_age", "max_bytes", "max_count", "unserved_after"])
@pytest.mark.parametrize("number", ["0", "-1", "nan", "inf", "-inf", "1e999"])
def test_a_limit_is_a_number_above_nothing(name: str, number: str) -> None:
    with pytest.raises(ValueError, match=f"{name}.*a number above 0"):
        open_broker(f"memory://?{name}={number}")
