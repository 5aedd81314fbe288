"""What infrastructure/prometheus and infrastructure/grafana say, and the names in their expressions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "infrastructure" / "prometheus"
GRAFANA = ROOT / "infrastructure" / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "wowevent.json"

_NAMES = re.compile(r"\b(?:subscription|process|code):[\w:]+|\b(?:wowevent|process)_\w+")
_CHOICE = re.compile(r"\b((?:wowevent|process)_\w+)\{([^}]*)\}")
_LABEL = re.compile(r'(\w+)(=~|!=|=)"([^"]*)"')


def read(path: Path) -> Any:
    """A YAML file."""
    return yaml.safe_load(path.read_text())


def rules() -> list[dict[str, Any]]:
    """All rules, of every group."""
    return [rule for group in read(PROMETHEUS / "alerts.yml")["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """The alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def recorded() -> set[str]:
    """The series that the rules make themselves."""
    return {rule["record"] for rule in rules() if "record" in rule}


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """Its panels, without the headings of its rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Of every rule and every panel: who asks, and what."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def names(expression: str) -> set[str]:
    """The series that it names, ours and those of the process; `up` and ALERTS are Prometheus's own."""
    return set(_NAMES.findall(expression))


def choices(expression: str) -> Iterator[tuple[str, str, str, str]]:
    """What it wants of their labels: series, label, operator, value."""
    for name, wanted in _CHOICE.findall(expression):
        for label, operator, value in _LABEL.findall(wanted):
            yield name, label, operator, value
