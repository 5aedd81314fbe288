"""The curl lines of docs/http.md run as they stand, and what the page says of them is so."""

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
UNKNOWN = (
    "/conversations/",
    "/events/0199b3a1",
    "/storms/order-7",
    "/subscriptions/worker-1",
    "/dead-letters/17",
    "/replays/01a1fd00",
    "/redeliveries/01a1fd00",
    "?subscription=worker-1&",
)
"""Lines about what is not there in a new log: they are understood, and answered by 404."""
STREAM_ENDS = 28
"""curl's exit status where --max-time is over."""


def test_there_are_lines() -> None:
    assert len(LINES) > 20
    assert all(line.startswith("curl -s") for line in LINES)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_lines_run(service: httpx.Client, tmp_path: Path) -> None:
    assert service.post("/events", json={"topic": "task.created"}).status_code == 202
    for line in LINES:
        here = line.replace("localhost:8080", f"localhost:{service.base_url.port}")
        here = here.replace("--json", "-H 'content-type: application/json' --data")  # curl before 7.82 has no --json
        done = subprocess.run(
            ["bash", "-c", f"{here} -w '\n%{{http_code}}'"], capture_output=True, text=True, timeout=15, check=False
        )
        status = int(done.stdout.splitlines()[-1])
        assert done.returncode == (STREAM_ENDS if "/events/stream" in line else 0), line
        wanted = {404} if any(each in line for each in UNKNOWN) else {200, 201, 202, 204}
        assert status in wanted, f"{line}\n{done.stdout}"


def test_the_paths_of_the_page_are_those_of_the_service() -> None:
    from wowevent.service.openapi import document

    said = {re.search(r"localhost:8080(/[^\s'?]*)", line)[1] for line in LINES}  # type: ignore[index]
    for path in document()["paths"]:
        assert any(re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), each) for each in said), path
