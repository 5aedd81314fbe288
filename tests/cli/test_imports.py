"""What a command imports before it is known which one is wanted: nothing that only a service needs."""

import subprocess
import sys

SERVING = {"wowevent.service", "wowevent.router.server", "wowevent.mcp", "starlette", "uvicorn", "prometheus_client"}
CODE = "import sys, wowevent.cli; print(*sys.modules)"


def test_a_command_that_serves_nothing_imports_no_service() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=30, check=True)
    assert set(done.stdout.split()) & SERVING == set()
