"""Peers are installed as they are locked, by their hashes, and once."""

import hashlib
import re
import subprocess
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from benchmarks import peers

LOCKED = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)


@pytest.mark.parametrize("peer", peers.PEERS)
def test_all_of_a_peer_is_locked_with_hashes_and_what_we_have_too_is_in_our_version(peer: str):
    lock = (peers.LOCKS / f"{peer}.txt").read_text()
    theirs = dict(LOCKED.findall(lock))
    ours = dict(LOCKED.findall((peers.LOCKS.parent / "dev.txt").read_text()))
    assert {peer, "msgspec", "uvloop"} <= theirs.keys()
    assert {name: version for name, version in theirs.items() if ours.get(name, version) != version} == {}
    for requirement in re.split(r"^(?=[a-z0-9-]+==)", lock, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in requirement


def test_what_has_another_hash_or_none_is_refused_and_what_is_there_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wheel, lock = tmp_path / "tiny_peer-1.0-py3-none-any.whl", tmp_path / "tiny-peer.txt"
    with ZipFile(wheel, "w") as archive:
        about = "tiny_peer-1.0.dist-info"
        archive.writestr("tiny_peer.py", "")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-peer\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    monkeypatch.setattr(peers, "FOLDER", tmp_path / "peers")
    monkeypatch.setattr(peers, "LOCKS", tmp_path)
    monkeypatch.setattr(peers, "PEERS", ("tiny-peer",))

    for refused in (f" --hash=sha256:{hashlib.sha256(b'other').hexdigest()}", ""):
        lock.write_text(f"tiny-peer @ {wheel.as_uri()}{refused}\n")
        with pytest.raises(subprocess.CalledProcessError):
            peers.install()
        assert peers.versions() == {}

    lock.write_text(f"tiny-peer @ {wheel.as_uri()} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    peers.install()
    assert peers.versions() == {"tiny-peer": "1.0"}

    monkeypatch.setattr(venv, "create", _never)
    peers.install()
    lock.write_text(f"# changed\n{lock.read_text()}")
    with pytest.raises(AssertionError):
        peers.install()


def _never(*_: object) -> None:
    raise AssertionError
