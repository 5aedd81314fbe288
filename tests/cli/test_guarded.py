"""A service that asks for tokens and speaks TLS, as its own commands and clients find it."""

import asyncio
import json
from pathlib import Path

import pytest
import trustme

from tests.cli.daemons import data, started
from tests.keys import Keys, hidden
from tests.processes import wowevent
from wowevent.client import EventRouterClient
from wowevent.errors import Unauthenticated


def test_the_commands_of_a_service_with_tokens_and_tls(home: Path) -> None:
    keys = Keys(home)
    token = keys.all_of("ops")
    authority = trustme.CA()
    certificate = authority.issue_cert("bus.example", "127.0.0.1")
    ca, cert, key = home / "ca.pem", home / "cert.pem", home / "key.pem"
    authority.cert_pem.write_to_path(str(ca))
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(cert), append=True)
    certificate.private_key_pem.write_to_path(str(key))
    tls = (f"--tokens={keys.path}", f"--tls-cert={cert}", f"--tls-key={key}")
    said = started(home, *tls, "--workers=2")
    url = said["websocket"]
    assert url.startswith("wss://")

    asked = wowevent(home, "status", "--json")
    answer = json.loads(asked.stdout)
    assert asked.returncode == 0, asked.stdout
    assert answer["health"]["websocket"] == {"status": "guarded"}
    asked = wowevent(home, "status", "--json", WOWEVENT_TOKEN=token)
    assert json.loads(asked.stdout)["health"]["websocket"]["status"] == "healthy"

    looked = wowevent(home, "monitor", "--once", "--json", "--interval", "0.2", WOWEVENT_TOKEN=token)
    assert json.loads(looked.stdout)["state"] == "connected", looked.stderr
    looked = wowevent(home, "monitor", "--once", "--json")
    assert looked.returncode == 77
    assert b"error[unauthenticated]" in looked.stderr
    looked = wowevent(home, "monitor", "--once", "--json", "--url", url, WOWEVENT_TOKEN=token, WOWEVENT_CA=str(ca))
    assert json.loads(looked.stdout)["state"] == "connected", looked.stderr

    asyncio.run(_revoked(url, ca, keys, token))
    log = (data(home) / "wowevent.log").read_text()
    assert "audit action=connect who=ops" in log
    assert "audit action=disconnect who=ops" in log
    assert hidden(token) not in log


async def _revoked(url: str, ca: Path, keys: Keys, token: str) -> None:
    """A token that is revoked in the file ends its clients, at whichever worker they are."""
    clients = [EventRouterClient(url, token=token, ca=ca, reconnect_interval=0.05) for _ in range(4)]
    for client in clients:
        await client.connect()
    keys.revoke(token)
    async with asyncio.timeout(2.5):
        while not all(client.closed for client in clients):  # noqa: ASYNC110 - clients tell nobody
            await asyncio.sleep(0.02)
    with pytest.raises(Unauthenticated):
        await clients[0].publish("a")
    for client in clients:
        await client.disconnect()
