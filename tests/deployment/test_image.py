"""The image's own steps, carried out in a plain folder: built, then run by a stranger to it who may not write to it.

There is no container engine here. What is left out: the base image, for which a copy of this Python stands, and the
second stage's RUN, which makes a user.

It is one test: of several, which would be dealt to several processes, each process would build the image for itself.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import Struct

from tests.deployment.conftest import INFRASTRUCTURE, KUBERNETES, ROOT
from tests.deployment.dockerfile import Stage, Step, copy, sent, stages
from tests.deployment.kustomize import documents, one
from tests.processes import until
from tests.servers import free_port

USER = 65532
BUILD, FINAL = stages(INFRASTRUCTURE / "docker" / "event-bus.Dockerfile")
ENTRY = [*FINAL.only("ENTRYPOINT").listed(), *FINAL.only("CMD").listed()]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Image(Struct, frozen=True):
    """A folder in which `/opt/wowevent`, `/data` and the base image's Python are."""

    folder: Path

    def here(self, text: str) -> str:
        """The image's paths as they are in the folder."""
        return re.sub(r"(?<![\w./-])/(opt/wowevent|build|data)\b", rf"{self.folder}/\1", text)

    def environment(self, stage: Stage, **more: str) -> dict[str, str]:
        base = {"PATH": f"{self.folder}/python/bin:/usr/bin:/bin", "LD_LIBRARY_PATH": f"{self.folder}/python/lib"}
        return {**{name: self.here(value) for name, value in stage.environment(base).items()}, **more}

    def start(self, *command: str, **more: str) -> subprocess.Popen[bytes]:
        """A process of the image's user, if we may make one; else ours."""
        stranger: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}
        with (self.folder / "out.txt").open("ab") as out:
            return subprocess.Popen(
                command, cwd="/", env=self.environment(FINAL, **more), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                **stranger,
            )  # fmt: skip

    def run(self, *command: str, **more: str) -> int:
        """Its exit status."""
        with self.start(*command, **more) as process:
            try:
                return process.wait(30)
            finally:
                process.kill()

    def said(self) -> str:
        """What its processes printed."""
        return (self.folder / "out.txt").read_text()

    def content(self) -> dict[Path, tuple[int, float]]:
        """What lies in it beside its data: mode and time of each."""
        return {
            path: (path.lstat().st_mode, path.lstat().st_mtime)
            for part in ("opt", "python")
            for path in [self.folder / part, *(self.folder / part).rglob("*")]
        }


@pytest.fixture
def image() -> Iterator[Image]:
    """Outside of pytest's own folders, which only their owner may enter."""
    folder = Path(tempfile.mkdtemp(prefix="wowevent-image-"))
    try:
        folder.chmod(0o755)
        image = Image(folder)
        base_python(folder / "python")
        build(image)
        data = folder / "data"
        data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(data, USER, USER)
        for path in [*folder.joinpath("opt").rglob("*"), *folder.joinpath("python").rglob("*"), folder / "opt"]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & ~0o222)
        yield image
    finally:
        for path in folder.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(folder)


def base_python(to: Path) -> None:
    """The base image's: the interpreter, its library and pip, where every user may come."""
    base = Path(sys.base_prefix)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library, site = base / "lib" / version, base / "lib" / version / "site-packages"
    if not (site / "pip").is_dir():
        pytest.skip(f"{base} has no pip of its own to build with")
    shutil.copytree(
        library,
        to / "lib" / version,
        symlinks=True,
        ignore=shutil.ignore_patterns("site-packages", "test", "tests", "idlelib", "tkinter", "lib2to3", "config-*"),
    )
    shutil.copytree(site / "pip", to / "lib" / version / "site-packages" / "pip")
    for shared in (base / "lib").glob("libpython*"):
        shutil.copy2(shared, to / "lib" / shared.name)
    (to / "bin").mkdir()
    shutil.copy2(base / "bin" / version, to / "bin" / version)
    for name in ("python", "python3"):
        (to / "bin" / name).symlink_to(version)


def build(image: Image) -> None:
    """What the first stage says, one after another."""
    known = sent(ROOT)
    place = Path(image.here(BUILD.only("WORKDIR").rest))
    place.mkdir()
    # pip is configured as it is for us, and keeps what it fetched: the image's PIP_NO_CACHE_DIR is not wanted here.
    ours = {name: value for name, value in os.environ.items() if name == "HOME" or name.startswith("PIP_")}
    env = {**ours, **image.environment(Stage(BUILD.image, []))}
    for step in BUILD.steps:
        if step.word == "COPY":
            copy(step, ROOT, known, place)
        elif step.word == "RUN":
            command = ["sh", "-c", image.here(step.rest)]
            done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=250, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        else:
            assert step.word in {"ENV", "WORKDIR"}
    shutil.rmtree(place)


def test_the_image(image: Image) -> None:
    has_what_is_wanted_and_no_more(image)
    cannot_be_written_to(image)
    lets_strangers_in_only_if_that_is_said(image)
    serves_says_how_it_is_and_ends(image, ANONYMOUS)
    serves_says_how_it_is_and_ends(image, as_in_a_pod(image))


def has_what_is_wanted_and_no_more(image: Image) -> None:
    drivers = "import redis, hiredis, aiormq, nats, nkeys, jwt, cryptography"
    assert image.run("python", "-c", drivers) == 0, image.said()
    names = {path.name for path in (image.folder / "opt").rglob("*")}
    assert {"pip", "pytest", "hatchling", "conftest.py"}.isdisjoint(names)
    for path, (mode, _) in image.content().items():
        assert mode & stat.S_IROTH, f"{path} is not for the image's user to read"


def cannot_be_written_to(image: Image) -> None:
    for place in ("/opt/wowevent/written", "/opt/wowevent/bin/written", "/written"):
        code = f"open({image.here(place)!r}, 'w')" if place.startswith("/opt") else "open('/written', 'w')"
        assert image.run("python", "-c", code) == 1
        assert image.said().splitlines()[-1].startswith(("PermissionError", "OSError"))
    assert image.run("python", "-c", f"open({image.here('/data/written')!r}, 'w')") == 0


def lets_strangers_in_only_if_that_is_said(image: Image) -> None:
    assert image.run(*ENTRY) == 77
    assert image.said().splitlines()[-1].startswith("error[not_permitted]: 0.0.0.0 can be reached by others")


ANONYMOUS = {"WOWEVENT_ALLOW_ANONYMOUS": "true", "WOWEVENT_HOSTS": '["event-bus"]'}  # as compose says it


def as_in_a_pod(image: Image) -> dict[str, str]:
    """Tokens as Kubernetes mounts a Secret, and a volume as open as it makes its top."""
    tokens = image.folder / "tokens.json"
    tokens.write_text('{"version": 1, "tokens": []}')
    if os.geteuid() == 0:
        os.chown(tokens, 0, USER)
        tokens.chmod(0o440)
        (image.folder / "data").chmod(0o2777)
    else:
        tokens.chmod(0o600)
    data = one(documents(KUBERNETES / "event-bus-deployment.yaml"), "ConfigMap")["data"]["WOWEVENT_DATA_DIR"]
    own = {"WOWEVENT_TOKENS": str(tokens), "WOWEVENT_DATA_DIR": image.here(data)}
    return {**own, "WOWEVENT_HOSTS": '["event-bus"]'}


def serves_says_how_it_is_and_ends(image: Image, settings: dict[str, str]) -> None:
    before, guarded = image.content(), "WOWEVENT_TOKENS" in settings
    ports = {"PORT": str(free_port()), "WOWEVENT_PORT": str(free_port())}
    given = {**settings, **ports}
    assert image.run(*healthy(), **given) == 1
    with image.start(*ENTRY, **given) as process:
        try:
            url = f"http://127.0.0.1:{ports['PORT']}"
            until(lambda: process.poll() is not None or answers(f"{url}/ready"), "readiness")
            assert process.poll() is None, image.said()
            if os.geteuid() == 0:
                assert f"Uid:\t{USER}\t{USER}\t{USER}\t{USER}\n" in Path(f"/proc/{process.pid}/status").read_text()
            asked_for = 401 if guarded else 202
            assert httpx.post(f"{url}/events", json={"topic": "task.created"}).status_code == asked_for
            for host, status in (("event-bus", 200), ("10.1.2.3:8080", 200), ("pages.example", 403)):
                seen = httpx.get(f"{url}/openapi.json", headers={"host": host}).status_code
                assert seen in {status, 401 if guarded else status}, host
            until(lambda: image.run(*healthy(), **given) == 0, "health")  # a second for an answer, and asked again
            assert image.run("wowevent", "doctor", **given) == 0, image.said()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, image.said()
        finally:
            process.kill()
    assert image.run(*healthy(), **given) == 1
    assert image.content() == before  # nothing was written but data
    assert (Path(given.get("WOWEVENT_DATA_DIR", image.folder / "data")) / "events.db").exists()


def healthy() -> list[str]:
    """The health check's command."""
    return Step("CMD", re.sub(r".*?CMD (?=\[)", "", FINAL.only("HEALTHCHECK").rest)).listed()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False
