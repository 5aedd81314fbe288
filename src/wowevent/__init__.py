"""WowEvent: one event bus for agents, from a laptop with nothing installed to Redis, RabbitMQ and NATS."""

from wowevent.breaker import BreakerPolicy
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
from wowevent.bus import EventBus
from wowevent.conversation import Conversation
from wowevent.creators import (
    create_agent_event,
    create_plan_event,
    create_state_event,
    create_system_event,
    create_task_event,
)
from wowevent.dead_letter import Correction, LetterCount
from wowevent.dead_letter_queue import DeadLetterQueue
from wowevent.delivery import Delivery, current
from wowevent.errors import (
    BrokerError,
    BrokerUnavailable,
    BusError,
    Closed,
    ConversationNotFound,
    DeadLetterNotFound,
    FormatTooNew,
    InvalidEvent,
    InvalidSchedule,
    InvalidTopic,
    NoResponders,
    NotPermitted,
    NotSupported,
    OutboxFull,
    PauseSubscription,
    PayloadTooLarge,
    PositionLost,
    ProtocolError,
    RateLimited,
    Reject,
    RequestFailed,
    RequestTimeout,
    RetryAfter,
    ScheduleNotFound,
    SchemaConflict,
    SchemaNotFound,
    StorageDamaged,
    StorageFull,
    SubscriptionConflict,
    SubscriptionNotFound,
    Unauthenticated,
    Unroutable,
    ValidationError,
)
from wowevent.event import Event, EventMetadata
from wowevent.event_store import EventReplayer, EventStore
from wowevent.event_type import EventType
from wowevent.fingerprint import LetterGroup, LetterGroups
from wowevent.holds import Pause
from wowevent.metrics import EventMetrics
from wowevent.priority import EventPriority
from wowevent.receipt import Receipt
from wowevent.replay import ReplayConfig, ReplayControl
from wowevent.retry import RetryPolicy
from wowevent.roster import AgentInfo
from wowevent.schedule import ScheduleInfo
from wowevent.schema import EventSchema, EventValidator, SchemaBreak, SchemaRegistry
from wowevent.shelf import FailedEvent
from wowevent.storm import Storm, StormPolicy
from wowevent.subscription import Handle as Subscription
from wowevent.trail import Delivered

__all__ = [
    "AgentInfo",
    "Attempt",
    "BreakerPolicy",
    "BrokerError",
    "BrokerUnavailable",
    "BusError",
    "Capabilities",
    "Closed",
    "Conversation",
    "ConversationNotFound",
    "Correction",
    "DeadLetter",
    "DeadLetterNotFound",
    "DeadLetterQueue",
    "Delivered",
    "Delivery",
    "Event",
    "EventBus",
    "EventMetadata",
    "EventMetrics",
    "EventPriority",
    "EventReplayer",
    "EventSchema",
    "EventStore",
    "EventType",
    "EventValidator",
    "FailedEvent",
    "FailureReason",
    "FormatTooNew",
    "InvalidEvent",
    "InvalidSchedule",
    "InvalidTopic",
    "LetterCount",
    "LetterGroup",
    "LetterGroups",
    "NoResponders",
    "NotPermitted",
    "NotSupported",
    "OutboxFull",
    "Pause",
    "PauseSubscription",
    "PayloadTooLarge",
    "Position",
    "PositionLost",
    "ProtocolError",
    "RateLimited",
    "Receipt",
    "Reject",
    "ReplayConfig",
    "ReplayControl",
    "RequestFailed",
    "RequestTimeout",
    "Retention",
    "RetryAfter",
    "RetryPolicy",
    "ScheduleInfo",
    "ScheduleNotFound",
    "SchemaBreak",
    "SchemaConflict",
    "SchemaNotFound",
    "SchemaRegistry",
    "StorageDamaged",
    "StorageFull",
    "Stored",
    "Storm",
    "StormPolicy",
    "Subscription",
    "SubscriptionConflict",
    "SubscriptionInfo",
    "SubscriptionNotFound",
    "Unauthenticated",
    "Unroutable",
    "ValidationError",
    "create_agent_event",
    "create_plan_event",
    "create_state_event",
    "create_system_event",
    "create_task_event",
    "current",
]
