"""What `kubectl apply -k` would send: a reading of exactly those features of Kustomize that our overlays use.

`resources` and `components` by folder or file, and `patches` that are JSON patches with a target, or delete a whole
resource. Anything else is refused, so that an overlay cannot come to rest on what is not read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

_KNOWN = {"apiVersion", "kind", "resources", "components", "patches"}


def documents(file: Path) -> list[Manifest]:
    """The manifests of one file."""
    return list(yaml.safe_load_all(file.read_text("utf-8")))


def rendered(folder: Path) -> list[Manifest]:
    """The manifests of a kustomization."""
    return _applied(folder, [])


def _applied(folder: Path, manifests: list[Manifest]) -> list[Manifest]:
    """A folder's kustomization, on top of what there is: a component changes that."""
    (said,) = documents(folder / "kustomization.yaml")
    assert said.keys() <= _KNOWN, f"{folder}: {said.keys() - _KNOWN} is not read here"
    for each in said.get("resources", []):
        place = (folder / each).resolve()
        assert place.is_dir() or place.is_relative_to(folder), f"{place}: kustomize reads no file outside of {folder}"
        manifests = [*manifests, *(rendered(place) if place.is_dir() else documents(place))]
    for each in said.get("components", []):
        manifests = _applied((folder / each).resolve(), manifests)
    for patch in said.get("patches", []):
        manifests = _patched(manifests, patch)
    return manifests


def _patched(manifests: list[Manifest], patch: dict[str, Any]) -> list[Manifest]:
    steps = yaml.safe_load(patch["patch"])
    if isinstance(steps, dict):
        assert steps.pop("$patch") == "delete"
        left = [each for each in manifests if name(each) != name(steps)]
        assert len(left) == len(manifests) - 1, f"{name(steps)} is not there"
        return left
    target = patch["target"]
    chosen = [
        each for each in manifests if (each["kind"], each["metadata"]["name"]) == (target["kind"], target["name"])
    ]
    assert len(chosen) == 1, f"{target} is not there, or not once"
    changed = deepcopy(chosen[0])
    for step in steps:
        _step(changed, step)
    return [changed if each is chosen[0] else each for each in manifests]


def _step(manifest: Any, step: dict[str, Any]) -> None:
    """One operation of a JSON patch (RFC 6902)."""
    *way, last = (word.replace("~1", "/").replace("~0", "~") for word in step["path"].split("/")[1:])
    place = manifest
    for word in way:
        place = place[int(word)] if isinstance(place, list) else place[word]
    key: Any = last if isinstance(place, dict) else len(place) if last == "-" else int(last)
    match step["op"]:
        case "add" if isinstance(place, list):
            place.insert(key, step["value"])
        case "add":
            place[key] = step["value"]
        case "replace":
            place[key]  # must be there
            place[key] = step["value"]
        case "remove":
            del place[key]
        case other:
            raise AssertionError(f"{other} is not read here")


def name(manifest: Manifest) -> tuple[str, str, str]:
    """What one is called: kind, namespace, name."""
    metadata = manifest["metadata"]
    return manifest["kind"], metadata.get("namespace", ""), metadata["name"]


def one(manifests: Sequence[Manifest], kind: str, called: str | None = None) -> Manifest:
    """The only one of that kind, or of that kind and name."""
    (found,) = (each for each in manifests if each["kind"] == kind and called in {None, each["metadata"]["name"]})
    return found
