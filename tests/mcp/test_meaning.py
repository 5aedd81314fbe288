"""An agent is told what each reason means."""

from wowevent.broker import Reason
from wowevent.mcp.meaning import MEANING


def test_every_reason_has_a_meaning() -> None:
    assert set(MEANING) == set(Reason)
