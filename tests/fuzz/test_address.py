"""Where an engine is said to be: URLs of any kind, files of settings; and that nothing that is shown has a password."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import strategies as st

from tests.fuzz.rounds import Rounds
from tests.fuzz.texts import SCALARS, WICKED, torn
from wowevent.access.address import carries_token, check_page, is_loopback
from wowevent.blocking.address import Address, address
from wowevent.broker import Retention
from wowevent.brokers import open_broker
from wowevent.errors import BusError, NotPermitted
from wowevent.settings import Settings, masked, read_config

FIRST, LAST = "hunter", "zwei"
"""The two halves of every password."""

SCHEMES = st.sampled_from(
    ("redis", "rediss", "redis+sentinel", "redis+cluster", "unix", "amqp", "amqps", "nats", "tls", "memory", "sqlite",
     "", "gopher")
)  # fmt: skip
BETWEEN = st.sampled_from(
    ("", "", "/", "?", "#", "@", ":", "[", "]", "%", "%40", "&", "=", "\u2100", " ", "\n", "\\", "é")
)
LOGINS = st.builds(
    lambda form, between: form.format(FIRST + between + LAST),
    st.sampled_from(("u:{}@", ":{}@", "{}@", "u:{}:x@", "u@{}@")),
    BETWEEN,
)
HOSTS = st.sampled_from(
    ("h", "localhost:6379", "127.0.0.1:5672", "[::1]:4222", "[::1", "h:0", "h:70000", "h:x", "h:٣", "a:1,b:2", ",", "",
     "a,,b", "h:" + "9" * 5_000)
)  # fmt: skip
PATHS = st.sampled_from(
    ("", "/", "/0", "/x", "//x.db", "/a/b", "/%2F", "/service/1", "/service/x", "/" + "x" * 300, "/\0")
)
OPTIONS = st.dictionaries(
    st.sampled_from(
        (*Retention.__struct_fields__, "strict", "synchronous", "heartbeat", "name", "cafile", "ssl", "db", "creds",
         "replicas", "protocol", "socket_timeout", "decode_responses", "health_check_interval", "unheard_of", "",
         "no_verify_ssl", "max_connections")
    ),
    st.sampled_from(("", "1", "-1", "0", "1e9", "inf", "nan", "1_0", "9" * 400, "true", "x", "%00", "full", "3")),
    max_size=3,
)  # fmt: skip


@st.composite
def urls(draw: st.DrawFn) -> str:
    """Right in most parts, and with a password that no message may show."""
    login = draw(st.just("") | LOGINS)
    options = "&".join(f"{name}={value}" for name, value in draw(OPTIONS).items())
    secret = draw(
        st.sampled_from(("", "", f"password={FIRST}{LAST}", f"ssl_password={FIRST}/{LAST}", f"token={FIRST}"))
    )
    query = "&".join(each for each in (options, secret) if each)
    return f"{draw(SCHEMES)}://{login}{draw(HOSTS)}{draw(PATHS)}{'?' if query else ''}{query}"


def check_discreet(text: str, url: str) -> None:
    """An embedded log has no password: what stands there is a name."""
    if not url.startswith(("memory://", "sqlite://")):
        assert FIRST not in text, text
        assert LAST not in text, text


def test_any_url_is_an_engine_or_refused_without_a_word_of_the_password(fuzz: Rounds):
    def judged(url: str) -> None:
        try:
            open_broker(url)
        except (BusError, ValueError) as error:
            check_discreet(f"{error} {error.__cause__ or ''}", url)
            return
        check_discreet(repr(Address(url).place), url)
        port = Address(url).place["port"]
        assert port is None or port >= 0

    fuzz.check(judged, short=120, url=urls())


def test_whatever_is_shown_of_a_url_has_no_password(fuzz: Rounds):
    def judged(url: str) -> None:
        given = Address(url)
        for shown in (masked(url), given.shown, repr(given), masked(f"cannot reach {url}: refused\n")):
            check_discreet(shown, url)

    fuzz.check(judged, short=120, url=urls())


def test_limits_of_a_log_are_numbers_above_nothing(fuzz: Rounds):
    def judged(name: str, text: str) -> None:
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        try:
            open_broker(f"sqlite:///never.db?{name}={text}")
        except ValueError:
            assert not 0 < number < float("inf")
        else:
            assert 0 < number < float("inf")

    numbers = st.sampled_from(
        ("1", "0", "-1", "1e9", "1e400", "inf", "-inf", "nan", "infinity", "x", "0x1")
    ) | st.integers().map(str)
    fuzz.check(judged, name=st.sampled_from(Retention.__struct_fields__), text=numbers)


def test_rabbitmqs_own_words_are_a_url_or_refused(fuzz: Rounds):
    def judged(place: dict[str, Any]) -> None:
        try:
            found = address(None, {"port": None, **place}, 600)
            open_broker(found.url)
        except ValueError as error:
            check_discreet(str(error), "amqp://")
            return
        assert FIRST not in repr(found)
        assert found.place["port"] == int(place.get("port") or 5672)

    passwords = BETWEEN.map(lambda between: FIRST + between)
    given = {"host": WICKED | HOSTS, "username": WICKED, "vhost": WICKED, "port": st.integers(-1, 70_000)}
    fuzz.check(judged, place=st.fixed_dictionaries({"password": passwords}, optional=given))


def test_any_file_of_settings_is_read_or_refused_by_its_name(fuzz: Rounds, tmp_path: Path):
    path = tmp_path / "config.toml"
    plain = tomli_w.dumps({"url": "redis://h", "port": 9090, "log_level": "INFO", "origins": ["https://a"]}).encode()

    def judged(data: bytes) -> None:
        path.write_bytes(data)
        try:
            said = read_config(path)
        except ValueError as error:
            told = str(error)
            assert str(path) in told
            return
        Settings(**said)

    names = st.sampled_from(tuple(Settings.model_fields)) | st.text(max_size=5)
    written = st.dictionaries(names, SCALARS.filter(is_toml), max_size=4).map(lambda said: tomli_w.dumps(said).encode())
    fuzz.check(judged, data=torn(st.just(plain)) | written)


def is_toml(value: Any) -> bool:
    try:
        tomli_w.dumps({"x": value}).encode()
    except (TypeError, ValueError):
        return False
    return True


def test_any_host_and_origin_is_let_in_or_not(fuzz: Rounds):
    def judged(host: str, origin: str | None) -> None:
        is_loopback(host)
        try:
            check_page(host, origin, hosts=frozenset(("localhost", "127.0.0.1")), origins=frozenset(("https://page",)))
        except NotPermitted:
            return
        name = host.removesuffix("]").rpartition(":")[0] if ":" in host else host
        assert {name.lower(), host.lower()} & {"localhost", "127.0.0.1"} or "@" in host, host
        assert origin in {None, "https://page", f"http://{host}", f"https://{host}"}

    hosts = (
        st.sampled_from(("localhost", "LOCALHOST:1", "127.0.0.1:8080", "evil.example", "localhost.evil.example", ""))
        | HOSTS
        | WICKED
    )
    fuzz.check(judged, host=hosts, origin=st.none() | hosts.map(lambda host: f"http://{host}") | WICKED)


def test_a_token_in_a_url_is_noticed_whatever_stands_around_it(fuzz: Rounds):
    def judged(before: str, name: str, value: str) -> None:
        try:
            noticed = carries_token(f"/events?{before}&{name}={value}")
        except ValueError:
            pytest.fail("a path is no reason to fail")
        assert noticed or "#" in before

    fuzz.check(
        judged,
        before=WICKED,
        name=st.sampled_from(("token", "TOKEN", "access_token", "%74oken", "api_key")),
        value=WICKED,
    )
