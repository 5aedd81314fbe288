"""Everything that can be applied, as the cluster would get it."""

from pathlib import Path

import pytest

from tests.deployment.kustomize import Manifest, documents, rendered

ROOT = Path(__file__).parents[2]
INFRASTRUCTURE = ROOT / "infrastructure"
KUBERNETES = INFRASTRUCTURE / "kubernetes"
OVERLAYS = ("redis", "rabbitmq", "nats", "embedded", "external")


@pytest.fixture(scope="session", params=("alone", *OVERLAYS))
def way(request: pytest.FixtureRequest) -> str:
    """How it is applied: the ancestor's two files, or an overlay."""
    return str(request.param)


@pytest.fixture(scope="session")
def manifests(way: str) -> list[Manifest]:
    if way != "alone":
        return rendered(KUBERNETES / "overlays" / way)
    files = ("redis-deployment.yaml", "event-bus-deployment.yaml")
    return [each for file in files for each in documents(KUBERNETES / file)]


@pytest.fixture(scope="session")
def alone() -> list[Manifest]:
    return documents(KUBERNETES / "event-bus-deployment.yaml")


@pytest.fixture(scope="session")
def redis() -> list[Manifest]:
    return documents(KUBERNETES / "redis-deployment.yaml")
