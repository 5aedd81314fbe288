"""The image's recipe and the compose file, read: what they promise without a container engine to try them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import compose_spec
import pytest
import yaml

from tests.deployment.conftest import INFRASTRUCTURE, KUBERNETES, ROOT
from tests.deployment.dockerfile import Stage, sent, stages
from tests.deployment.kustomize import Manifest, documents, one

DOCKERFILE = INFRASTRUCTURE / "docker" / "event-bus.Dockerfile"
COMPOSE = ROOT / "docker-compose.events.yml"


@pytest.fixture(scope="module")
def built() -> Stage:
    """The stage that builds."""
    return stages(DOCKERFILE)[0]


@pytest.fixture(scope="module")
def final() -> Stage:
    """The stage that is shipped."""
    return stages(DOCKERFILE)[-1]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))
    return found


def hadolint(file: Path) -> str:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    assert program is not None, "hadolint is not installed: it comes with the dev requirements"
    return subprocess.run([program, file], capture_output=True, text=True, timeout=30, check=False).stdout


def test_hadolint_has_nothing_to_say() -> None:
    assert not hadolint(DOCKERFILE)


def test_hadolint_would_say_something(tmp_path: Path) -> None:
    worse = tmp_path / "Dockerfile"
    worse.write_text(DOCKERFILE.read_text("utf-8").replace("USER 65532:65532", "USER root"))
    assert "DL3002" in hadolint(worse)


def test_what_builds_stays_behind(final: Stage, built: Stage) -> None:
    assert len(stages(DOCKERFILE)) == 2
    assert built.image == final.image
    copied = [step.rest for step in final.steps if step.word == "COPY"]
    assert copied == ["--from=build /opt/wowevent /opt/wowevent"]
    assert not any("pip" in step.rest for step in final.steps)


def test_everything_is_installed_by_its_hash(built: Stage) -> None:
    commands = [part for step in built.steps if step.word == "RUN" for part in step.rest.split("&&")]
    installs = [command.split() for command in commands if " install " in command]
    assert len(installs) == 3
    *fetched, own = installs
    assert all("--require-hashes" in words for words in fetched)
    assert "--no-deps" in own
    assert own[-1] == "dist/*.whl"


def test_it_runs_as_a_number_that_is_not_root(final: Stage) -> None:
    assert final.only("USER").rest == "65532:65532"
    deployment = one(documents(KUBERNETES / "event-bus-deployment.yaml"), "Deployment")
    security = deployment["spec"]["template"]["spec"]["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (65532, 65532, 65532)


def test_it_says_by_itself_how_it_is(final: Stage) -> None:
    check = final.only("HEALTHCHECK").rest
    assert json.loads(check[check.index("[") :]) == ["sh", "-c", "wowevent status || exit 1"]
    assert not re.search(r"curl|wget|apt-get", DOCKERFILE.read_text("utf-8"))


def test_a_signal_reaches_the_service_itself(final: Stage) -> None:
    assert final.only("ENTRYPOINT").listed() == ["wowevent"]  # a shell would keep SIGTERM to itself
    assert final.only("CMD").listed() == ["serve"]
    assert final.only("STOPSIGNAL").rest == "SIGTERM"


def test_ports_and_places_are_those_of_the_deployment(final: Stage) -> None:
    said = final.environment({})
    assert final.only("EXPOSE").rest.split() == [said["PORT"], said["WOWEVENT_PORT"]] == ["8080", "9090"]
    assert said["WOWEVENT_DATA_DIR"] == said["HOME"] == said["TMPDIR"] == final.only("VOLUME").rest == "/data"
    pod = one(documents(KUBERNETES / "event-bus-deployment.yaml"), "Deployment")["spec"]["template"]["spec"]
    assert [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]] == ["/data"]


def test_the_build_is_sent_what_it_needs_and_no_more() -> None:
    tops = {file.parts[0] for file in sent(ROOT)}
    assert tops == {"LICENSE", "pyproject.toml", "requirements", "scripts", "src"}
    assert [file for file in sent(ROOT) if file.parts[0] == "scripts"] == [Path("scripts/extras.py")]


def images() -> list[str]:
    """Every image that is named anywhere."""
    found = [stage.image for stage in stages(DOCKERFILE)]
    found += [each["image"] for each in yaml.safe_load(COMPOSE.read_text("utf-8"))["services"].values()]
    for file in KUBERNETES.rglob("*.yaml"):
        for manifest in documents(file):
            pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
            found += [each["image"] for each in pod.get("containers", [])]
    return found


def test_images_have_a_version_and_name_no_registry() -> None:
    assert len(images()) > 6
    for image in images():
        first, slash, _ = image.partition("/")
        assert not slash or not re.search(r"[.:]|^localhost$", first), image
        _, colon, tag = image.rpartition(":")
        assert colon, image
        assert re.search(r"\d+\.\d+", tag), image


def test_engines_are_of_the_same_version_everywhere(compose: dict[str, Any]) -> None:
    server: Manifest = one(documents(KUBERNETES / "redis-deployment.yaml"), "StatefulSet")
    assert compose["services"]["redis"]["image"] == server["spec"]["template"]["spec"]["containers"][0]["image"]


def test_the_compose_file_is_one() -> None:
    text = COMPOSE.read_text("utf-8")
    spec = compose_spec.PyCompose.from_yaml(text).to_spec()
    assert set(spec.services or {}) == {"redis", "event-bus", "prometheus", "grafana"}
    for wrong in (text.replace("ports:", "portz:", 1), text.replace("mem_limit: 4g", "mem_limit: [4]")):
        with pytest.raises(ValueError, match=r"portz|mem_limit"):
            compose_spec.PyCompose.from_yaml(wrong)


def test_compose_starts_the_bus_alone_unless_it_is_to_be_watched(compose: dict[str, Any]) -> None:
    profiles = {name: service.get("profiles", []) for name, service in compose["services"].items()}
    assert profiles == {"redis": [], "event-bus": [], "prometheus": ["prometheus", "grafana"], "grafana": ["grafana"]}


def test_compose_is_reached_from_this_machine_alone(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["ports"], name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
    taken = [port.split(":")[1] for service in compose["services"].values() for port in service["ports"]]
    assert len(taken) == len(set(taken))
    said = compose["services"]["event-bus"]["environment"]
    assert said["WOWEVENT_ALLOW_ANONYMOUS"] == "true"  # CONTRACT 3.12
    assert json.loads(said["WOWEVENT_HOSTS"]) == ["event-bus"]  # and a page cannot come by a name of its own


def test_compose_gives_its_containers_no_more_than_they_need(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    for name in ("redis", "event-bus"):
        assert compose["services"][name]["read_only"] is True
        assert compose["services"][name]["mem_limit"]
    assert compose["services"]["event-bus"]["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert compose["services"]["event-bus"]["stop_grace_period"] == "30s"


def test_what_compose_runs_finds_its_files_and_keeps_its_data(compose: dict[str, Any], final: Stage) -> None:
    """What each mounts is what its command and its configuration name, and where its image keeps what it has."""
    services = compose["services"]
    mounts = {name: {mount.split(":")[1] for mount in each["volumes"]} for name, each in services.items()}
    settings = (INFRASTRUCTURE / "docker" / "redis.conf").read_text("utf-8")
    (data,) = re.findall(r"^dir (\S+)$", settings, re.MULTILINE)
    assert mounts["redis"] == {services["redis"]["command"][-1], data}
    assert services["redis"]["user"] == "999:999"
    assert mounts["event-bus"] == {final.only("VOLUME").rest}
    said = dict(word.removeprefix("--").split("=") for word in services["prometheus"]["command"])
    assert mounts["prometheus"] == {str(Path(said["config.file"]).parent), said["storage.tsdb.path"]}
    assert said["storage.tsdb.path"] == "/prometheus"  # its image's user may write there, and nowhere else
    provisioned = INFRASTRUCTURE / "grafana" / "provisioning" / "dashboards" / "wowevent.yml"
    (provider,) = yaml.safe_load(provisioned.read_text("utf-8"))["providers"]
    assert mounts["grafana"] == {"/etc/grafana/provisioning", provider["options"]["path"], "/var/lib/grafana"}


def test_what_compose_runs_finds_each_other(compose: dict[str, Any], final: Stage) -> None:
    services = compose["services"]
    ports = {name: {int(port.rpartition(":")[2]) for port in each["ports"]} for name, each in services.items()}
    own = {int(port) for port in final.only("EXPOSE").rest.split()}
    assert ports == {"redis": {6379}, "event-bus": own, "prometheus": {9090}, "grafana": {3000}}
    engine = urlsplit(services["event-bus"]["environment"]["WOWEVENT_URL"])
    assert engine.port in ports[str(engine.hostname)]
    watching = yaml.safe_load((INFRASTRUCTURE / "prometheus" / "prometheus.yml").read_text("utf-8"))
    (job,) = (each for each in watching["scrape_configs"] if each["job_name"] == "wowevent")
    (looked_up,) = job["dns_sd_configs"]
    assert (looked_up["names"], looked_up["type"]) == (["event-bus"], "A")
    assert looked_up["port"] == int(final.environment({})["PORT"])
    source = INFRASTRUCTURE / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    (asked,) = (urlsplit(each["url"]) for each in yaml.safe_load(source.read_text("utf-8"))["datasources"])
    assert asked.port in ports[str(asked.hostname)]


def test_what_compose_mounts_is_there_or_a_volume(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            assert source in compose["volumes"] or (ROOT / source).exists(), mount
