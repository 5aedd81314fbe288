"""The five creators, called as the blocking bus's users call them."""

from uuid import UUID

import pytest

from wowevent.creators import (
    create_agent_event,
    create_plan_event,
    create_state_event,
    create_system_event,
    create_task_event,
)
from wowevent.errors import InvalidEvent
from wowevent.event import Event
from wowevent.event_type import EventType
from wowevent.priority import EventPriority

TRACE = UUID("0190a000-0000-7000-8000-000000000001")
PLAN = UUID("0190a000-0000-7000-8000-000000000002")

MADE = [
    pytest.param(
        create_agent_event(
            event_type=EventType.AGENT_STARTED,
            agent_id="agent_001",
            payload={"version": "1.0.0"},
            trace_id=TRACE,
            priority=EventPriority.LOW,
        ),
        ("agent.started", "agent_001", None, {"version": "1.0.0"}, 3),
        id="agent",
    ),
    pytest.param(
        create_task_event(
            event_type=EventType.TASK_SUBMITTED,
            agent_id="agent_001",
            task_id="task_123",
            task_data={"priority": "high"},
            trace_id=TRACE,
        ),
        ("task.submitted", "agent_001", None, {"priority": "high", "task_id": "task_123"}, 5),
        id="task",
    ),
    pytest.param(
        create_state_event(
            event_type=EventType.STATE_SAVED,
            agent_id="agent_001",
            state_info={"checkpoint_id": "cp_001", "size_bytes": 1024},
            trace_id=TRACE,
        ),
        ("state.saved", "agent_001", None, {"checkpoint_id": "cp_001", "size_bytes": 1024}, 5),
        id="state",
    ),
    pytest.param(
        create_plan_event(
            event_type=EventType.PLAN_CREATED,
            plan_id=PLAN,
            plan_data={"steps": 5},
            trace_id=TRACE,
            priority=EventPriority.HIGH,
        ),
        ("plan.created", "planner", None, {"steps": 5, "plan_id": str(PLAN)}, 7),
        id="plan",
    ),
    pytest.param(
        create_system_event(
            event_type=EventType.SYSTEM_HEALTH_CHECK,
            service_name="state_manager",
            system_data={"status": "healthy"},
            trace_id=TRACE,
        ),
        ("system.health_check", "state_manager", "state_manager", {"status": "healthy"}, 5),
        id="system",
    ),
]


@pytest.mark.parametrize(("event", "expected"), MADE)
def test_a_creator_fills_in_who_what_and_how_urgent(event: Event, expected: tuple):
    made = (event.event_type, event.source_agent, event.source_service, event.payload, event.priority)
    assert made == expected
    assert event.topic == event.event_type
    assert event.trace_id == str(TRACE)


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        pytest.param(create_agent_event("agent.started", "a"), {}, id="agent"),
        pytest.param(create_task_event("task.started", "a", "t"), {"task_id": "t"}, id="task"),
        pytest.param(create_state_event("state.saved", "a"), {}, id="state"),
        pytest.param(create_plan_event("plan.created", "p"), {"plan_id": "p"}, id="plan"),
        pytest.param(create_system_event("system.shutdown", "s"), {}, id="system"),
    ],
)
def test_data_trace_and_priority_may_be_left_out(event: Event, payload: dict):
    assert (event.payload, event.trace_id, event.priority) == (payload, None, EventPriority.NORMAL)


def test_a_task_event_names_the_event_that_it_answers():
    request = create_task_event("task.submitted", "requester", "req_001")
    reply = create_task_event("task.completed", "processor", "req_001", parent_event_id=request.event_id)
    assert reply.parent_event_id == request.event_id


def test_the_task_id_is_the_argument_and_the_callers_data_stays_as_it_was():
    data = {"task_id": "other", "n": 1}
    assert create_task_event("task.started", "a", "mine", data).payload == {"task_id": "mine", "n": 1}
    assert data == {"task_id": "other", "n": 1}


def test_every_other_field_of_an_event_can_be_given():
    event = create_plan_event("plan.created", "p", agent_id="lead", ttl_seconds=60, target_agent="worker")
    assert (event.source_agent, event.ttl_seconds, event.target_agent) == ("lead", 60, "worker")
    with pytest.raises(InvalidEvent, match="no field 'colour'"):
        create_agent_event("agent.started", "a", colour="red")
