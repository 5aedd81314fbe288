"""What infrastructure/kubernetes declares, and whether a kubectl command names only what is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "infrastructure" / "kubernetes"

# What kubectl calls a kind, in the words that the runbook uses.
KINDS = {
    "configmap": "ConfigMap", "cronjob": "CronJob", "deployment": "Deployment", "hpa": "HorizontalPodAutoscaler",
    "namespace": "Namespace", "networkpolicy": "NetworkPolicy", "pdb": "PodDisruptionBudget", "pod": "Pod",
    "pods": "Pod", "pvc": "PersistentVolumeClaim", "secret": "Secret", "service": "Service",
    "statefulset": "StatefulSet", "svc": "Service",
}  # fmt: skip
UNCHECKED = {"events", "nodes"}
VERBS = {
    "apply", "cp", "create", "delete", "describe", "edit", "exec", "get", "logs", "patch", "port-forward", "rollout",
    "scale", "set", "top", "wait",
}  # fmt: skip
VALUED = {"-n", "-l", "-o", "-k", "--patch"}
"""Options whose value is the next word."""


class Manifests:
    """The objects of every file below infrastructure/kubernetes."""

    def __init__(self) -> None:
        documents = [document for path in sorted(KUBERNETES.rglob("*.yaml")) for document in _documents(path)]
        self.objects: set[tuple[str, str]] = {(each["kind"], each["metadata"]["name"]) for each in documents}
        self.namespaces: set[str] = {name for kind, name in self.objects if kind == "Namespace"}
        self.labels: set[tuple[str, str]] = set()
        self.containers: dict[str, set[str]] = {}
        """Of each deployment and stateful set, by its name."""
        self.ports: dict[str, set[int]] = {}
        """Of each service, by its name."""
        for each in documents:
            self._note(each)

    def _note(self, document: dict[str, Any]) -> None:
        kind, name, spec = document["kind"], document["metadata"]["name"], document.get("spec") or {}
        self.labels |= set(_labels(document))
        if kind in {"Deployment", "StatefulSet"} and "template" in spec:
            containers = spec["template"]["spec"]["containers"]
            self.containers.setdefault(name, set()).update(each["name"] for each in containers)
        if kind == "StatefulSet":
            pods = [f"{name}-{number}" for number in range(spec.get("replicas", 1))]
            claims = [each["metadata"]["name"] for each in spec.get("volumeClaimTemplates", ())]
            self.objects |= {("Pod", pod) for pod in pods}
            self.objects |= {("PersistentVolumeClaim", f"{claim}-{pod}") for claim in claims for pod in pods}
        if kind == "Service":
            self.ports.setdefault(name, set()).update(port["port"] for port in spec["ports"])


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    for document in yaml.safe_load_all(path.read_text()):
        if document and "name" in document.get("metadata", {}) and document.get("$patch") != "delete":
            yield document


def _labels(value: Any) -> Iterator[tuple[str, str]]:
    """The labels that something has, or is chosen by."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key in {"labels", "matchLabels"}:
                yield from below.items()
            else:
                yield from _labels(below)
    elif isinstance(value, list):
        for below in value:
            yield from _labels(below)


def complaints(manifests: Manifests, command: Sequence[str]) -> list[str]:
    """What a kubectl command names that no manifest declares; nothing if all is there."""
    verb, *rest = command[1:]
    if verb not in VERBS:
        return [f"kubectl {verb} is not looked at yet"]
    if "--" in rest:
        rest = rest[: rest.index("--")]
    found, words = _options(manifests, verb, rest)
    if verb in {"rollout", "set"}:
        words = words[1:]
    if words and words[0] == "generic":
        words = words[1:]
    if verb == "create" and words:
        words = [each for each in words if each != "generic"]
    return [*found, *_names(manifests, verb, words)]


def _options(manifests: Manifests, verb: str, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is wrong with the options, and the words that are none."""
    wrong, left = list[str](), list[str]()
    given = iter(words)
    for word in given:
        value = next(given) if word in VALUED or (word == "-f" and verb != "logs") else ""
        if word == "-n" and value not in manifests.namespaces:
            wrong.append(f"there is no namespace {value}")
        elif word == "-l":
            wanted = {tuple(pair.split("=")) for pair in value.split(",")}
            wrong += [f"nothing has the label {'='.join(pair)}" for pair in wanted - manifests.labels]
        elif word in {"-f", "-k"} and value and value != "-" and not (ROOT / value).exists():
            wrong.append(f"there is no {value}")
        elif not word.startswith("-"):
            left.append(word)
    if verb != "apply" and "-n" not in words and not set(left) & {"namespace", "nodes"} and verb != "cp":
        wrong.append("it does not say which namespace")
    return wrong, left


def _names(manifests: Manifests, verb: str, words: Sequence[str]) -> Iterator[str]:
    """What of the words that name objects, containers and ports is not there."""
    kind = "Pod" if verb in {"exec", "logs", "cp"} else ""
    name = ""
    for word in words:
        if verb == "cp":
            yield from _remote(manifests, word)
        elif verb == "top" or word in UNCHECKED:
            continue
        elif verb == "port-forward" and ":" in word:
            if int(word.partition(":")[2]) not in manifests.ports.get(name, ()):
                yield f"{name} has no port {word.partition(':')[2]}"
        elif "=" in word:
            if word.partition("=")[0] not in manifests.containers.get(name, ()):
                yield f"{name} has no container {word.partition('=')[0]}"
        elif not kind and set(word.split(",")) <= KINDS.keys():
            kind = KINDS[word.split(",")[0]]
        else:
            given, slash, name = word.rpartition("/")
            if ((KINDS.get(given, given) if slash else kind), name) not in manifests.objects:
                yield f"there is no {given or kind} {name}"


def _remote(manifests: Manifests, word: str) -> Iterator[str]:
    """The pod of `namespace/pod:path`; what has no colon is a file of ours."""
    where, colon, _ = word.partition(":")
    if colon:
        namespace, _, pod = where.partition("/")
        if namespace not in manifests.namespaces:
            yield f"there is no namespace {namespace}"
        if ("Pod", pod) not in manifests.objects:
            yield f"there is no pod {pod}"
