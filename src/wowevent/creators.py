"""Five functions that make the well-known events of agents, tasks, states, plans and systems.

Their signatures are those that the blocking bus's users know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from wowevent.event import Event
from wowevent.priority import EventPriority

Id = str | UUID | None


def create_agent_event(
    event_type: str,
    agent_id: str,
    payload: Mapping[str, Any] | None = None,
    trace_id: Id = None,
    priority: int | str = EventPriority.NORMAL,
    **fields: Any,
) -> Event:
    """An event of an agent's life. `fields` are any other fields of Event, as in the other creators."""
    return Event(
        event_type=event_type,
        source_agent=agent_id,
        payload=payload,
        trace_id=trace_id,
        priority=priority,
        **fields,
    )


def create_task_event(
    event_type: str,
    agent_id: str,
    task_id: str,
    task_data: Mapping[str, Any] | None = None,
    trace_id: Id = None,
    priority: int | str = EventPriority.NORMAL,
    parent_event_id: Id = None,
    **fields: Any,
) -> Event:
    """An event of a task; the payload is `task_data` with `task_id`."""
    return Event(
        event_type=event_type,
        source_agent=agent_id,
        payload={**(task_data or {}), "task_id": task_id},
        trace_id=trace_id,
        priority=priority,
        parent_event_id=parent_event_id,
        **fields,
    )


def create_state_event(
    event_type: str,
    agent_id: str,
    state_info: Mapping[str, Any] | None = None,
    trace_id: Id = None,
    priority: int | str = EventPriority.NORMAL,
    **fields: Any,
) -> Event:
    """An event of an agent's stored state; the payload is `state_info`."""
    return Event(
        event_type=event_type,
        source_agent=agent_id,
        payload=state_info,
        trace_id=trace_id,
        priority=priority,
        **fields,
    )


def create_plan_event(
    event_type: str,
    plan_id: str | UUID,
    plan_data: Mapping[str, Any] | None = None,
    trace_id: Id = None,
    priority: int | str = EventPriority.NORMAL,
    agent_id: str = "planner",
    **fields: Any,
) -> Event:
    """An event of a plan that several agents carry out; the payload is `plan_data` with `plan_id`."""
    return Event(
        event_type=event_type,
        source_agent=agent_id,
        payload={**(plan_data or {}), "plan_id": str(plan_id)},
        trace_id=trace_id,
        priority=priority,
        **fields,
    )


def create_system_event(
    event_type: str,
    service_name: str,
    system_data: Mapping[str, Any] | None = None,
    trace_id: Id = None,
    priority: int | str = EventPriority.NORMAL,
    **fields: Any,
) -> Event:
    """An event of the platform itself; source and service are `service_name`, the payload is `system_data`."""
    return Event(
        event_type=event_type,
        source_agent=service_name,
        source_service=service_name,
        payload=system_data,
        trace_id=trace_id,
        priority=priority,
        **fields,
    )
