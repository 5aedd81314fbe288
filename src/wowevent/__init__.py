"""WowEvent: one event bus for agents, from a laptop with nothing installed to Redis, RabbitMQ and NATS."""

from wowevent.broker import (
    Attempt,
    Capabilities,
    DeadLetter,
    Position,
    Retention,
    Stored,
    SubscriptionInfo,
)
from wowevent.broker import Reason as FailureReason
from wowevent.bus import EventBus, Receipt
from wowevent.creators import (
    create_agent_event,
    create_plan_event,
    create_state_event,
    create_system_event,
    create_task_event,
)
from wowevent.delivery import Delivery, current
from wowevent.errors import (
    BrokerError,
    BrokerUnavailable,
    BusError,
    Closed,
    FormatTooNew,
    InvalidEvent,
    InvalidTopic,
    NoResponders,
    NotPermitted,
    NotSupported,
    OutboxFull,
    PayloadTooLarge,
    PositionLost,
    ProtocolError,
    Reject,
    RequestFailed,
    RequestTimeout,
    RetryAfter,
    StorageDamaged,
    StorageFull,
    SubscriptionConflict,
    SubscriptionNotFound,
    Unroutable,
    ValidationError,
)
from wowevent.event import Event, EventMetadata, EventPriority, EventType
from wowevent.replay import ReplayConfig
from wowevent.retry import RetryPolicy
from wowevent.subscription import Handle as Subscription

__version__ = "0.1.0"

__all__ = [
    "Attempt",
    "BrokerError",
    "BrokerUnavailable",
    "BusError",
    "Capabilities",
    "Closed",
    "DeadLetter",
    "Delivery",
    "Event",
    "EventBus",
    "EventMetadata",
    "EventPriority",
    "EventType",
    "FailureReason",
    "FormatTooNew",
    "InvalidEvent",
    "InvalidTopic",
    "NoResponders",
    "NotPermitted",
    "NotSupported",
    "OutboxFull",
    "PayloadTooLarge",
    "Position",
    "PositionLost",
    "ProtocolError",
    "Receipt",
    "Reject",
    "ReplayConfig",
    "RequestFailed",
    "RequestTimeout",
    "Retention",
    "RetryAfter",
    "RetryPolicy",
    "StorageDamaged",
    "StorageFull",
    "Stored",
    "Subscription",
    "SubscriptionConflict",
    "SubscriptionInfo",
    "SubscriptionNotFound",
    "Unroutable",
    "ValidationError",
    "create_agent_event",
    "create_plan_event",
    "create_state_event",
    "create_system_event",
    "create_task_event",
    "current",
]
