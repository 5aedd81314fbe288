"""TLS, both ends: 1.2 or later, by the certificate that is configured."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wowevent.settings import Settings


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """What a server speaks with `tls_cert` and `tls_key`; None without them.

    Raises ValueError, which names the setting and the file, for one without the other or one that is wrong.
    """
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise ValueError("tls_cert and tls_key go together: one of them is missing")
    _check_pem("tls_cert", cert, b"-----BEGIN CERTIFICATE-----")
    _check_pem("tls_key", key, b"PRIVATE KEY-----")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key, password=b"")  # without one it would ask at the terminal
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"tls_key: {key}: not the key of the certificate {cert}") from error
        raise ValueError(f"tls_cert {cert}, tls_key {key}: {error.reason or error}") from error
    except ValueError as error:
        raise ValueError(f"tls_key: {key}: {error}") from error
    return context


def client_context(ca: Path | None) -> ssl.SSLContext:
    """What a client speaks: it trusts the system's authorities, or those of `ca`. ValueError, which names the file."""
    if ca is None:
        return ssl.create_default_context()
    _check_pem("ca", ca, b"-----BEGIN CERTIFICATE-----")
    try:
        return ssl.create_default_context(cafile=ca)
    except ssl.SSLError as error:
        raise ValueError(f"ca: {ca}: {error.reason or error}") from error


def own_context(settings: Settings) -> ssl.SSLContext:
    """What a command speaks with the service of this machine, whose address it has from that service itself.

    It trusts `ca`, else the service's own certificate; by whatever name, since it asks for it by an address.
    """
    authority = settings.ca or settings.tls_cert
    context = client_context(authority)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself, not who signed it
    return context


def _check_pem(setting: str, path: Path, mark: bytes) -> None:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{setting}: {path}: {error.strerror or error}") from error
    if mark not in text:
        raise ValueError(f"{setting}: {path}: there is no {mark.decode().strip('-')!r} in it")
