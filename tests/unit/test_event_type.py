"""What happened: the catalogue, and any other name."""

import pickle

import pytest

from wowevent.event import Event
from wowevent.event_type import EventType


def test_the_catalogue():
    names = {name: getattr(EventType, name) for name in EventType.__annotations__}
    assert list(EventType.catalogue()) == list(names.values())
    assert len(names) == 22
    assert names["AGENT_HEARTBEAT"] == "agent.heartbeat"
    assert names["PLAN_STEP_COMPLETED"] == "plan.step_completed"
    for kind in EventType.catalogue():
        assert Event(event_type=kind).event_type == kind


@pytest.mark.parametrize("kind", [EventType.TASK_CREATED, EventType("deploy.done"), Event(topic="own.name").event_type])
def test_any_type_has_a_value_and_prints_its_name(kind: EventType):
    assert isinstance(kind, str)
    assert type(kind.value) is str
    assert f"{kind}" == str(kind) == kind.value == kind
    assert pickle.loads(pickle.dumps(kind)) == kind  # noqa: S301 - our own bytes
