"""What it means that an event died of something, and what helps; for who reads no documentation."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from wowevent.broker import Reason

MEANING: Final[Mapping[Reason, str]] = MappingProxyType({
    Reason.HANDLER_ERROR: "The handler raised on every attempt. Correct the handler, or what it depends on, then "
    "redeliver; before that it dies again.",
    Reason.TIMEOUT: "The handler took longer than its timeout on every attempt. Look at what it waits for, or give it "
    "more time, then redeliver.",
    Reason.VALIDATION_ERROR: "The payload does not fit its schema or payload model. Redelivering helps once the schema "
    "or the model was corrected; else the publisher has to publish a right one.",
    Reason.SUBSCRIBER_UNAVAILABLE: "Nobody was there to handle it. See that it is served, then redeliver.",
    Reason.DESERIALIZATION_ERROR: "The event could not be read. The publisher has to publish it again, rightly.",
    Reason.UNKNOWN: "No reason was given. The error and the traceback are all there is.",
    Reason.REJECTED: "The handler itself said that it will never succeed. Redeliver only if that is true no more.",
    Reason.CRASHED: "The process that handled it died, each time. Find out why (memory, a native library) before "
    "redelivering: it will kill the process again.",
    Reason.LOOP_DETECTED: "The conversation went too far: agents answer each other without end, or too many at once. "
    "Stop what loops first; redelivering starts it again.",
})  # fmt: skip
"""What a reason means, and what helps."""
