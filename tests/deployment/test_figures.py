"""Every figure that W13 of the contract names, read off the manifests."""

import tomllib
from typing import Any

import pytest
import yaml

from tests.deployment.conftest import INFRASTRUCTURE, KUBERNETES, OVERLAYS, ROOT
from tests.deployment.kustomize import Manifest, documents, one, rendered
from wowevent.access.keyring import Keyring
from wowevent.errors import Unauthenticated
from wowevent.settings import Settings, variables


def container(manifest: Manifest) -> dict[str, Any]:
    """Its only container."""
    (found,) = manifest["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_the_deployment(alone: list[Manifest]) -> None:
    deployment = one(alone, "Deployment", "event-bus")
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 30
    assert container(deployment)["resources"] == {
        "requests": {"cpu": "250m", "memory": "256Mi"},
        "limits": {"memory": "512Mi"},
    }


def test_the_drain_has_time_to_end(alone: list[Manifest]) -> None:
    from wowevent.router.server import _LAST_WORDS
    from wowevent.service.connection import LAST_ANSWERS
    from wowevent.service.server import _DRAIN, _LEAST

    deployment = one(alone, "Deployment", "event-bus")
    sleep, seconds = container(deployment)["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    longest = _DRAIN + 2 * _LEAST + _LAST_WORDS + LAST_ANSWERS  # the router and the bus have a second in any case
    assert longest < 20
    assert float(seconds) + longest < deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]


def test_it_is_scraped(alone: list[Manifest]) -> None:
    deployment = one(alone, "Deployment", "event-bus")
    said = deployment["spec"]["template"]["metadata"]["annotations"]
    assert said == {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "prometheus.io/path": "/metrics"}
    assert 8080 in {port["containerPort"] for port in container(deployment)["ports"]}


def test_the_probes(alone: list[Manifest]) -> None:
    probed = container(one(alone, "Deployment", "event-bus"))
    paths = {probe: probed[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")}
    # An outage of the engine must restart nothing: /health is about the engine, /live about the process.
    assert paths == {"startup": "/live", "liveness": "/live", "readiness": "/ready"}
    # A Redis that is silent is unreachable after 3 to 4 s: docs/http.md.
    assert all(probed[f"{probe}Probe"]["timeoutSeconds"] == 5 for probe in paths)


def test_the_service(alone: list[Manifest]) -> None:
    service = one(alone, "Service", "event-bus-service")["spec"]
    assert service["type"] == "ClusterIP"
    assert {port["port"] for port in service["ports"]} == {8080, 9090}


def test_the_service_account_has_no_token(alone: list[Manifest]) -> None:
    account = one(alone, "ServiceAccount")
    pod = one(alone, "Deployment")["spec"]["template"]["spec"]
    assert account["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert pod["automountServiceAccountToken"] is False


def test_a_disruption_leaves_one(alone: list[Manifest]) -> None:
    assert one(alone, "PodDisruptionBudget")["spec"]["minAvailable"] == 1


def test_the_scaling(alone: list[Manifest]) -> None:
    scaler = one(alone, "HorizontalPodAutoscaler", "event-bus-hpa")["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 10)
    targets = {each["resource"]["name"]: each["resource"]["target"]["averageUtilization"] for each in scaler["metrics"]}
    assert targets == {"cpu": 70, "memory": 80}
    assert scaler["behavior"]["scaleUp"]["policies"] == [{"type": "Percent", "value": 100, "periodSeconds": 30}]
    assert scaler["behavior"]["scaleDown"]["policies"] == [{"type": "Percent", "value": 50, "periodSeconds": 60}]
    assert scaler["scaleTargetRef"]["name"] == "event-bus"


def test_redis(redis: list[Manifest]) -> None:
    server = one(redis, "StatefulSet", "redis")
    (claim,) = server["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "10Gi"
    assert one(redis, "Service", "redis-service")["spec"]["ports"][0]["port"] == 6379
    settings = one(redis, "ConfigMap", "redis-config")["data"]["redis.conf"].splitlines()
    assert {"maxmemory 2gb", "maxmemory-policy noeviction", "appendonly yes"} <= set(settings)
    assert any(line.startswith("save ") for line in settings)  # RDB beside AOF
    assert container(server)["resources"]["limits"]["memory"] == "4Gi"  # above maxmemory


def test_redis_is_configured_alike_everywhere(redis: list[Manifest]) -> None:
    shipped = (INFRASTRUCTURE / "docker" / "redis.conf").read_text("utf-8")
    assert one(redis, "ConfigMap", "redis-config")["data"]["redis.conf"] == shipped


def test_names_and_labels(manifests: list[Manifest]) -> None:
    for each in manifests:
        if each["kind"] == "Namespace":
            assert each["metadata"]["name"] == "waooaw"
        else:
            assert each["metadata"]["namespace"] == "waooaw"
            assert each["metadata"]["labels"]["app"] in {"event-bus", "redis", "rabbitmq", "nats"}


def test_the_settings_are_known(manifests: list[Manifest], monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that the settings do not know would be ignored, silently."""
    known = {variable for name in Settings.model_fields for variable in variables(name)}
    said = one(manifests, "ConfigMap", "event-bus-config")["data"]
    assert said.keys() <= known
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert (settings.http_port, settings.port) == (8080, 9090)
    assert settings.hosts[0] == one(manifests, "Service", "event-bus-service")["metadata"]["name"]
    assert len(settings.hosts) == 4


def test_every_overlay_names_its_engine_once() -> None:
    schemes = {"redis": "redis", "rabbitmq": "amqp", "nats": "nats", "embedded": "sqlite", "external": None}
    assert schemes.keys() == set(OVERLAYS)
    for overlay, scheme in schemes.items():
        all_of_it = rendered(KUBERNETES / "overlays" / overlay)
        in_map = one(all_of_it, "ConfigMap", "event-bus-config")["data"].get("WOWEVENT_URL")
        env = {each["name"]: each for each in container(one(all_of_it, "Deployment")).get("env", [])}
        in_env = env.get("WOWEVENT_URL", {})
        assert (in_map is None) == bool(in_env), overlay
        url = in_map or in_env.get("value")
        assert url is None if scheme is None else url.startswith(f"{scheme}:"), overlay


def test_the_embedded_log_has_one_replica_and_never_two() -> None:
    all_of_it = rendered(KUBERNETES / "overlays" / "embedded")
    deployment = one(all_of_it, "Deployment")["spec"]
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "Recreate"}
    assert {"HorizontalPodAutoscaler", "PodDisruptionBudget"}.isdisjoint(each["kind"] for each in all_of_it)


def test_the_image_has_this_version(manifests: list[Manifest]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    image = f"waooaw/event-bus:{version}"
    assert container(one(manifests, "Deployment"))["image"] == image
    compose = yaml.safe_load((ROOT / "docker-compose.events.yml").read_text("utf-8"))
    assert compose["services"]["event-bus"]["image"] == image
    recipe = (INFRASTRUCTURE / "docker" / "event-bus.Dockerfile").read_text("utf-8")
    assert image in recipe
    assert f'org.opencontainers.image.version="{version}"' in recipe


def test_the_example_of_tokens_is_one_and_lets_nobody_in() -> None:
    (secret,) = documents(KUBERNETES / "components" / "tokens" / "secret.example.yaml")
    keyring = Keyring("default", tokens=secret["stringData"]["tokens.json"])
    with pytest.raises(Unauthenticated):
        keyring.identify("wow_000000000000_" + "0" * 43)
