"""Under which names a server may be asked, what a URL must not carry, where it may listen, and TLS."""

import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme

from wowevent.access.address import LOOPBACK_NAMES, Names, carries_token, check_page, claim, listen, names_of
from wowevent.access.tls import client_context, own_context, server_context
from wowevent.errors import NotPermitted
from wowevent.settings import Settings


@pytest.mark.parametrize("take", [listen, claim])
def test_others_reach_it_only_with_tokens_or_where_that_is_meant(take) -> None:
    with pytest.raises(NotPermitted, match="--tokens"):
        take("http", "0.0.0.0", 0, allow_anonymous=False)
    for allowed in ({"allow_anonymous": True}, {"allow_anonymous": False, "authenticated": True}):
        take("http", "0.0.0.0", 0, **allowed).socket.close()
    take("http", "127.0.0.1", 0, allow_anonymous=False).socket.close()


def test_the_names_of_a_server() -> None:
    assert names_of("127.0.0.1", ()) == Names(frozenset(LOOPBACK_NAMES), addresses=False)
    assert names_of("127.0.0.1", ("Bus.Example",)) == Names(
        frozenset({*LOOPBACK_NAMES, "bus.example"}), addresses=False
    )
    assert names_of("0.0.0.0", ()) is None
    assert names_of("0.0.0.0", ("bus.example",)) == Names(frozenset({*LOOPBACK_NAMES, "bus.example"}), addresses=True)


@pytest.mark.parametrize("host", ["10.1.2.3", "10.1.2.3:8080", "[fd00::1]:8080", "0.0.0.0:8080"])
def test_an_address_leads_nowhere_else_so_it_will_do_where_others_come(host: str) -> None:
    check_page(host, None, hosts=names_of("0.0.0.0", ("bus.example",)), origins=())
    with pytest.raises(NotPermitted):
        check_page(host, "https://evil.example", hosts=names_of("0.0.0.0", ("bus.example",)), origins=())
    with pytest.raises(NotPermitted):
        check_page(host, None, hosts=names_of("127.0.0.1", ("bus.example",)), origins=())


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        ("bus.example", True), ("BUS.example:8080", True), ("localhost:1", True),
        ("evil.example", False), ("bus.example.evil", False), ("xbus.example", False), ("bus.example@evil", False),
        ("bus.example.", False), ("", False), ("[", False),
    ],
)  # fmt: skip
def test_a_host_is_one_of_them_exactly(host: str, fine: bool) -> None:
    hosts = names_of("0.0.0.0", ("bus.example",))
    if fine:
        check_page(host, None, hosts=hosts, origins=())
    else:
        with pytest.raises(NotPermitted):
            check_page(host, None, hosts=hosts, origins=())


@pytest.mark.parametrize("url", ["/?token=x", "/a?b=1&access_token=", "?Token=x", "http://h/?api_key=x", "/?%74oken=x"])
def test_a_token_in_a_url(url: str) -> None:
    assert carries_token(url)
    assert not carries_token("/token?tokens=x&pattern=token#token=x")


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """ca.pem, cert.pem with key.pem for `bus.example`, other.pem which is another key, and what is neither."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    own, other = ca.issue_cert("bus.example"), ca.issue_cert("bus.example")
    for number, blob in enumerate(own.cert_chain_pems):
        blob.write_to_path(tmp_path / "cert.pem", append=number > 0)
    own.private_key_pem.write_to_path(tmp_path / "key.pem")
    other.private_key_pem.write_to_path(tmp_path / "other.pem")
    (tmp_path / "empty.pem").touch()
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    locked = (tmp_path / "key.pem").read_text().replace("KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\n", 1)
    (tmp_path / "damaged.pem").write_text(locked)
    return tmp_path


def settings(folder: Path, cert: str | None, key: str | None, ca: str | None = None) -> Settings:
    named = {"tls_cert": cert, "tls_key": key, "ca": ca}
    given: dict[str, Any] = {name: folder / file for name, file in named.items() if file is not None}
    return Settings(**given)


@pytest.mark.parametrize(
    ("cert", "key", "says"),
    [
        ("cert.pem", None, "tls_cert and tls_key go together"),
        (None, "key.pem", "tls_cert and tls_key go together"),
        ("absent.pem", "key.pem", "^tls_cert: .*absent.pem: No such file"),
        ("cert.pem", "absent.pem", "^tls_key: .*absent.pem: No such file"),
        ("empty.pem", "key.pem", "^tls_cert: .*empty.pem: there is no 'BEGIN CERTIFICATE'"),
        ("key.pem", "cert.pem", "^tls_cert: .*key.pem: there is no 'BEGIN CERTIFICATE'"),
        ("cert.pem", "cert.pem", "^tls_key: .*cert.pem: there is no 'PRIVATE KEY'"),
        ("broken.pem", "key.pem", "broken.pem"),
        ("cert.pem", "damaged.pem", "damaged.pem"),
        ("cert.pem", "other.pem", "^tls_key: .*other.pem: not the key of the certificate"),
    ],
)
def test_wrong_files_are_named(files: Path, cert: str | None, key: str | None, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        server_context(settings(files, cert, key))


def test_without_files_there_is_no_tls(tmp_path: Path) -> None:
    assert server_context(settings(tmp_path, None, None)) is None


@pytest.mark.parametrize("ca", ["absent.pem", "empty.pem", "broken.pem"])
def test_wrong_authorities_are_named(files: Path, ca: str) -> None:
    with pytest.raises(ValueError, match=f"^ca: .*{ca}"):
        client_context(files / ca)


def shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> str | None:
    """A handshake over a pair of sockets; the version that was agreed upon."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    theirs.settimeout(5)

    def serve() -> None:
        try:
            server.wrap_socket(ours, server_side=True).close()
        except OSError:
            ours.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(theirs, server_hostname=name) as secured:
            return secured.version()
    finally:
        theirs.close()
        thread.join()


def test_who_trusts_whom(files: Path) -> None:
    given = settings(files, "cert.pem", "key.pem", "ca.pem")
    server = server_context(given)
    assert server is not None

    assert shake(server, client_context(files / "ca.pem"), "bus.example") == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server, client_context(files / "ca.pem"), "evil.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server, client_context(None), "bus.example")
    for own in (given, settings(files, "cert.pem", "key.pem")):
        assert shake(server, own_context(own), "127.0.0.1") == "TLSv1.3"
    trustme.CA().cert_pem.write_to_path(files / "stranger.pem")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server, own_context(settings(files, "cert.pem", "key.pem", "stranger.pem")), "127.0.0.1")


def test_what_is_older_than_1_2_is_refused(files: Path) -> None:
    server = server_context(settings(files, "cert.pem", "key.pem"))
    assert server is not None
    assert server.minimum_version == ssl.TLSVersion.TLSv1_2
