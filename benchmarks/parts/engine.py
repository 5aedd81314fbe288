"""The server behind an engine's URL as the system sees it: processor time and memory of whoever listens at its port."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import psutil


class Engine:
    """A server, or none: then it takes nothing."""

    def __init__(self, url: str) -> None:
        port = urlsplit(url).port
        self._process = None if port is None else _listening(port)

    def cpu(self) -> float:
        """Seconds that its threads ran until now; to the nanosecond, which `cpu_times` of psutil is not."""
        if self._process is None:
            return 0.0
        threads = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text(encoding="ascii").split()[0]) for thread in threads) / 1e9

    def resident(self) -> int:
        """Bytes of memory."""
        return 0 if self._process is None else int(self._process.memory_info().rss)


def _listening(port: int) -> psutil.Process:
    for each in psutil.net_connections("tcp"):
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid is not None:
            return psutil.Process(each.pid)
    raise RuntimeError(f"nobody listens at {port}")
