"""What a cluster would say: the schemas of several versions, restricted pods, and references that lead somewhere."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from tests.deployment.conftest import KUBERNETES, OVERLAYS
from tests.deployment.kustomize import Manifest, documents, name, one, rendered

VERSIONS = ("1.25", "1.28", "1.31", "1.34", "1.37")
"""The oldest whose schemas are to be had (the ancestor's runbook wants 1.24), and some since."""

# All that the "restricted" standard lets a pod mount, and that we have a use for.
VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
WORKLOADS = ("Deployment", "StatefulSet")


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """The name and the pod template of each that makes pods."""
    for each in manifests:
        if each["kind"] in WORKLOADS:
            yield each["metadata"]["name"], each["spec"]["template"]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_takes_them(manifests: list[Manifest], version: str) -> None:
    for manifest in manifests:
        assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_a_field_that_is_not_known_is_refused(alone: list[Manifest]) -> None:
    wrong = {**one(alone, "Service"), "specs": {}}
    with pytest.raises(kubernetes_validate.ValidationError, match="specs"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_pods_are_restricted(manifests: list[Manifest]) -> None:
    for called, pod in pods(manifests):
        assert not complaints(pod), called


def complaints(pod: Manifest) -> list[str]:
    """What the pod security standard "restricted" has against a pod, and we beside it."""
    spec = pod["spec"]
    security = spec.get("securityContext", {})
    wrong = {
        "shared with the node": any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")),
        "may run as root": security.get("runAsNonRoot") is not True or not security.get("runAsUser"),
        "any system call": security.get("seccompProfile") != {"type": "RuntimeDefault"},
        "a token of the cluster": spec.get("automountServiceAccountToken") is not False,
        "a volume of the node": any(each.keys() - {"name"} - VOLUMES for each in spec.get("volumes", [])),
    }
    found = [said for said, is_so in wrong.items() if is_so]
    containers = [*spec["containers"], *spec.get("initContainers", [])]
    return found + [complaint for each in containers for complaint in _complaints(each)]


def _complaints(container: dict[str, Any]) -> list[str]:
    context = container.get("securityContext", {})
    wrong = {
        "privileges": context.get("allowPrivilegeEscalation") is not False or context.get("privileged"),
        "capabilities": context.get("capabilities") != {"drop": ["ALL"]},
        "a root file system that can be written to": context.get("readOnlyRootFilesystem") is not True,
        "no bound of memory": "memory" not in container.get("resources", {}).get("limits", {}),
        "a port of the node": any("hostPort" in port for port in container.get("ports", [])),
        "root after all": context.get("runAsUser") == 0 or context.get("runAsNonRoot") is False,
    }
    return [said for said, is_so in wrong.items() if is_so]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"securityContext": {}}, "may run as root"),
        ({"hostNetwork": True}, "shared with the node"),
        ({"automountServiceAccountToken": True}, "a token of the cluster"),
        ({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "a volume of the node"),
        ({"containers": [{}]}, "a root file system"),
    ],
)
def test_a_pod_that_is_not_restricted_is_found(alone: list[Manifest], change: dict[str, Any], complaint: str) -> None:
    pod = one(alone, "Deployment")["spec"]["template"]
    assert complaint in "; ".join(complaints({**pod, "spec": {**pod["spec"], **change}}))


def test_backups_of_redis(redis: list[Manifest]) -> None:
    """The cluster takes them, they reach Redis, and nobody reaches them."""
    made = documents(KUBERNETES / "overlays" / "redis" / "backup.yaml")
    for version in VERSIONS:
        for each in made:
            assert kubernetes_validate.validate(each, version, strict=True) == version
    pod = one(made, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]
    assert not complaints(pod)
    labels, server = pod["metadata"]["labels"], one(redis, "StatefulSet", "redis")["spec"]["template"]
    assert pod["spec"]["containers"][0]["image"] == server["spec"]["containers"][0]["image"]
    (volume,), claim = pod["spec"]["volumes"], one(made, "PersistentVolumeClaim")
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    own = policy(made, labels["app"])
    assert own["ingress"] == []
    assert passes(own["egress"], "to", 6379, app="redis")
    for overlay in ([*redis], rendered(KUBERNETES / "overlays" / "redis")):
        assert passes(policy(overlay, "redis")["ingress"], "from", 6379, **labels)


def test_the_pod_for_the_volume_of_redis(redis: list[Manifest]) -> None:
    """What a backup is put back with: it is let in by the cluster, and mounts what Redis does, as Redis's user."""
    (pod,) = documents(KUBERNETES / "overlays" / "redis" / "volume-pod.yaml")
    for version in VERSIONS:
        assert kubernetes_validate.validate(pod, version, strict=True) == version
    assert not complaints(pod)
    server = one(redis, "StatefulSet", "redis")
    (claim,) = server["spec"]["volumeClaimTemplates"]
    (volume,) = pod["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == f"{claim['metadata']['name']}-redis-0"
    template = server["spec"]["template"]["spec"]
    assert pod["spec"]["securityContext"] == template["securityContext"]
    (own,), (theirs,) = pod["spec"]["containers"], template["containers"]
    assert own["image"] == theirs["image"]
    assert own["volumeMounts"][0] in theirs["volumeMounts"]
    for overlay in OVERLAYS:
        assert pod not in rendered(KUBERNETES / "overlays" / overlay)


def test_the_cluster_holds_the_namespace_to_it() -> None:
    (namespace,) = documents(KUBERNETES / "base" / "namespace.yaml")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_selectors_match_pods(manifests: list[Manifest]) -> None:
    labels = [pod["metadata"]["labels"] for _, pod in pods(manifests)]
    for each in manifests:
        spec = each.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector")
        if selector:
            wanted = selector.get("matchLabels", selector)
            assert any(wanted.items() <= each_pod.items() for each_pod in labels), name(each)


def test_references_lead_somewhere(manifests: list[Manifest], way: str) -> None:
    there = {(each["kind"], each["metadata"]["name"]): each for each in [*manifests, *secrets(way)]}
    for kind, called, keys in references(manifests):
        assert (kind, called) in there, f"{kind} {called}"
        found = there[kind, called]
        assert set(keys) <= {*found.get("data", {}), *found.get("stringData", {})}, f"{kind} {called}: {keys}"


def secrets(way: str) -> list[Manifest]:
    """The examples of what whoever deploys has to make."""
    folders = [] if way == "alone" else [KUBERNETES / "components" / "tokens", KUBERNETES / "overlays" / way]
    return [each for folder in folders for file in folder.glob("secret.example.yaml") for each in documents(file)]


def references(manifests: list[Manifest]) -> Iterator[tuple[str, str, list[str]]]:
    """Kind, name and keys of what is referred to."""
    for each in manifests:
        spec = each.get("spec", {})
        if "serviceName" in spec:
            yield "Service", spec["serviceName"], []
        if "scaleTargetRef" in spec:
            yield spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"], []
    for _, pod in pods(manifests):
        if "serviceAccountName" in pod["spec"]:
            yield "ServiceAccount", pod["spec"]["serviceAccountName"], []
        for volume in pod["spec"].get("volumes", []):
            yield from _mounted(volume)
        for container in pod["spec"]["containers"]:
            yield from _read(container)


def _mounted(volume: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    kinds = (("ConfigMap", "name"), ("Secret", "secretName"), ("PersistentVolumeClaim", "claimName"))
    for kind, key in kinds:
        said = volume.get(kind[0].lower() + kind[1:])
        if said:
            yield kind, said[key], []


def _read(container: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    for source in container.get("envFrom", []):
        yield "ConfigMap", source["configMapRef"]["name"], []
    for variable in container.get("env", []):
        wanted = variable.get("valueFrom", {}).get("secretKeyRef")
        if wanted:
            yield "Secret", wanted["name"], [wanted["key"]]


def test_mounts_and_ports_are_there(manifests: list[Manifest]) -> None:
    claims = {
        each["metadata"]["name"]: [one["metadata"]["name"] for one in each["spec"].get("volumeClaimTemplates", [])]
        for each in manifests
        if each["kind"] in WORKLOADS
    }
    for called, pod in pods(manifests):
        volumes = {each["name"] for each in pod["spec"].get("volumes", [])} | set(claims[called])
        for container in pod["spec"]["containers"]:
            assert {each["name"] for each in container["volumeMounts"]} == volumes, called
            ports = {each["name"] for each in container["ports"]}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = container[probe].get("httpGet") or container[probe].get("tcpSocket") or {"port": None}
                assert asked["port"] in {*ports, None}, f"{called}: {probe}"


DATA = {"redis": r"^dir (\S+)$", "nats": r'^ *store_dir: "(.+)"$'}
"""Where the configuration of an engine says that its log lies."""


def test_engines_read_what_is_mounted_and_keep_their_data_on_their_disk(manifests: list[Manifest]) -> None:
    for server in (each for each in manifests if each["kind"] == "StatefulSet"):
        called, (container,) = server["metadata"]["name"], server["spec"]["template"]["spec"]["containers"]
        places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        ((file, text),) = one(manifests, "ConfigMap", f"{called}-config")["data"].items()
        (claim,) = server["spec"]["volumeClaimTemplates"]
        kept = places[claim["metadata"]["name"]]
        if called == "rabbitmq":  # its image reads conf.d/*.conf, and keeps its log there
            assert re.fullmatch(r"/etc/rabbitmq/conf\.d/\d\d-\w+\.conf", places["config"])
            assert kept == "/var/lib/rabbitmq/mnesia"
        else:
            assert container["command"][-1] == f"{places['config']}/{file}"
            assert re.findall(DATA[called], text, re.MULTILINE) == [kept]


def test_services_send_to_ports_that_are_there(manifests: list[Manifest]) -> None:
    for service in (each for each in manifests if each["kind"] == "Service"):
        wanted = service["spec"]["selector"]
        (pod,) = (pod for _, pod in pods(manifests) if wanted.items() <= pod["metadata"]["labels"].items())
        there = {port["name"]: port["containerPort"] for each in pod["spec"]["containers"] for port in each["ports"]}
        for port in service["spec"]["ports"]:
            assert there[port["targetPort"]] == port["port"], name(service)


def policy(manifests: list[Manifest], app: str) -> dict[str, Any]:
    (found,) = (
        each["spec"]
        for each in manifests
        if each["kind"] == "NetworkPolicy" and each["spec"]["podSelector"] == {"matchLabels": {"app": app}}
    )
    return dict(found)


def passes(rules: list[dict[str, Any]], side: str, port: int, protocol: str = "TCP", **labels: str) -> bool:
    """Whether a pod of this namespace with these labels passes; with `namespace`, any pod of that one."""
    namespace = labels.pop("namespace", None)
    return any(
        {"protocol": protocol, "port": port} in rule["ports"]
        and (side not in rule or any(_is_peer(peer, namespace, labels) for peer in rule[side]))
        for rule in rules
    )


def _is_peer(peer: dict[str, Any], namespace: str | None, labels: dict[str, str]) -> bool:
    where = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
    wanted = peer.get("podSelector", {}).get("matchLabels", {})
    return where == namespace and "ipBlock" not in peer and wanted.items() <= labels.items()


def test_the_network_policies(manifests: list[Manifest], way: str) -> None:
    engines = {"redis": 6379, "rabbitmq": 5672, "nats": 4222}
    there = {pod["metadata"]["labels"]["app"] for _, pod in pods(manifests)}
    for app in there:
        rules = policy(manifests, app)
        assert rules["policyTypes"] == ["Ingress", "Egress"]
        dns = {"namespace": "kube-system", "k8s-app": "kube-dns"}
        assert all(passes(rules["egress"], "to", 53, protocol, **dns) for protocol in ("UDP", "TCP"))
        assert not passes(rules["egress"], "to", 443, app="anything")
        monitored = {"event-bus": 8080, "redis": 6379, "rabbitmq": 15692, "nats": 8222}[app]
        assert passes(rules["ingress"], "from", monitored, namespace="monitoring")
    own = policy(manifests, "event-bus")
    for port in (8080, 9090):
        assert passes(own["ingress"], "from", port, component="agent")
        assert not passes(own["ingress"], "from", port, app="another")
    for app in there & engines.keys():
        assert passes(own["egress"], "to", engines[app], app=app)
        for who in ({"app": "event-bus"}, {"component": "agent", "engine": "direct"}):
            assert passes(policy(manifests, app)["ingress"], "from", engines[app], **who)
        # Where tokens are asked for, who could pass the service by needs a password, or a label of its own.
        by_all = passes(policy(manifests, app)["ingress"], "from", engines[app], component="agent")
        assert by_all == (way == "alone" or app == "rabbitmq")
        assert not passes(policy(manifests, app)["ingress"], "from", engines[app], app="another")
        assert not any(passes(own["egress"], "to", engines[each], app=each) for each in engines.keys() - {app})


def test_overlays_ask_for_tokens_and_the_ancestors_file_by_itself_does_not(manifests: list[Manifest], way: str) -> None:
    settings = one(manifests, "ConfigMap", "event-bus-config")["data"]
    pod = one(manifests, "Deployment")["spec"]["template"]["spec"]
    secrets = [each for each in pod["volumes"] if "secret" in each]
    if way == "alone":
        assert settings["WOWEVENT_ALLOW_ANONYMOUS"] == "true"
        assert not secrets
        return
    assert "WOWEVENT_ALLOW_ANONYMOUS" not in settings
    (volume,) = secrets
    assert volume["secret"] == {"secretName": "event-bus-tokens", "defaultMode": 0o400}
    (place,) = (each["mountPath"] for each in pod["containers"][0]["volumeMounts"] if each["name"] == volume["name"])
    assert settings["WOWEVENT_TOKENS"] == f"{place}/tokens.json"
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]  # root owns it; the group reads


def test_the_service_keeps_a_folder_for_itself(manifests: list[Manifest]) -> None:
    """The top of a volume is open to its fsGroup, which `wowevent doctor` complains of: one below it is not."""
    settings = one(manifests, "ConfigMap", "event-bus-config")["data"]
    pod = one(manifests, "Deployment")["spec"]["template"]["spec"]
    (place,) = (each["mountPath"] for each in pod["containers"][0]["volumeMounts"] if each["name"] == "data")
    folder = settings["WOWEVENT_DATA_DIR"]
    assert Path(folder).parent == Path(place)
    url = settings.get("WOWEVENT_URL", "")
    assert not url.startswith("sqlite:") or url == f"sqlite:///{folder}/events.db"


def test_the_examples_hold_no_secret_and_are_part_of_nothing() -> None:
    files = list(KUBERNETES.rglob("*.example.yaml"))
    assert len(files) == 3
    for file in files:
        (secret,) = documents(file)
        assert secret["kind"] == "Secret"
        text = file.read_text("utf-8")
        assert "replace-me" in text or "0" * 64 in text
    for overlay in OVERLAYS:
        assert "Secret" not in {each["kind"] for each in rendered(KUBERNETES / "overlays" / overlay)}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubectl_reads_them_as_we_do(overlay: str, tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl here")
    # Rendering asks no cluster, and shall not so much as know of one.
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KUBECONFIG": os.devnull}
    command = [kubectl, "kustomize", str(KUBERNETES / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, timeout=30, check=True, env=env)
    theirs = {name(each): each for each in yaml.safe_load_all(done.stdout)}
    assert theirs == {name(each): each for each in rendered(KUBERNETES / "overlays" / overlay)}
