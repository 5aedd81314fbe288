"""infrastructure/prometheus: promtool has no complaint, every alert is tried, and says what to do."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.service.prometheus import program
from tests.watching.rules import PROMETHEUS, ROOT, alerts, expressions, names, read, recorded, rules

TRIED = read(PROMETHEUS / "alerts_test.yml")["tests"]


def promtool(*arguments: str, folder: Path = PROMETHEUS) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("promtool"), *arguments], cwd=folder, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize("command", ["check config prometheus.yml", "check rules alerts.yml"])
def test_the_files_are_valid(command: str) -> None:
    done = promtool(*command.split())
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_configuration_for_kubernetes_is_valid(tmp_path: Path) -> None:
    """Debian builds Prometheus without Kubernetes' discovery: that is looked at here, and promtool sees the rest."""
    config = read(PROMETHEUS / "kubernetes.yml")
    (job,) = config["scrape_configs"]
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod", "namespaces": {"names": ["waooaw"]}}]
    labels = {label for each in job["relabel_configs"] for label in each["source_labels"]}
    assert {label.removeprefix("__meta_kubernetes_pod_") for label in labels} == {
        "label_app", "annotation_prometheus_io_scrape", "annotation_prometheus_io_path",
        "annotation_prometheus_io_port", "ip", "name", "phase",
    }  # fmt: skip
    (tmp_path / "alerts.yml").write_text((PROMETHEUS / "alerts.yml").read_text())
    assert job["authorization"] == {"credentials_file": "/etc/prometheus/token"}  # every overlay asks for tokens
    job["authorization"]["credentials_file"] = "token"
    (tmp_path / "token").touch()
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    done = promtool("check", "config", "prometheus.yml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    config["scrape_configs"][0]["relabel_configs"][0]["action"] = "kept"
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    assert promtool("check", "config", "prometheus.yml", folder=tmp_path).returncode != 0


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    done = promtool("test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_limit_that_is_moved_is_noticed(tmp_path: Path) -> None:
    """The cases are sharp: 4.9 % are let be, and 6 % are not."""
    said = (PROMETHEUS / "alerts.yml").read_text()
    (tmp_path / "alerts_test.yml").write_text((PROMETHEUS / "alerts_test.yml").read_text())
    for limit in ("> 0.045", "> 0.07"):
        (tmp_path / "alerts.yml").write_text(said.replace("> 0.05", limit))
        assert promtool("test", "rules", "alerts_test.yml", folder=tmp_path).returncode != 0


def test_every_alert_is_tried_both_ways() -> None:
    cases = [case for test in TRIED for case in test.get("alert_rule_test", ())]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    quiet = {case["alertname"] for case in cases if not case["exp_alerts"]}
    assert fires == set(alerts())
    both = {"WowEventRestarts", "WowEventSlow"}  # in one case: a series that fires beside others that do not
    assert quiet | both == set(alerts())


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_how_bad_it_is_what_happened_and_what_to_do(name: str) -> None:
    rule: dict[str, Any] = alerts()[name]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    page = ROOT / rule["annotations"]["runbook_url"]
    assert page.parent == ROOT / "docs" / "runbooks"
    assert f"`{name}`" in page.read_text(), "its page names it"


def test_what_is_asked_for_is_there() -> None:
    """Either the rules make it, or the page on monitoring knows it, which a test holds against the service."""
    known = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs" / "monitoring.md").read_text(), re.MULTILINE))
    for who, expression in expressions():
        for name in names(expression):
            assert name in recorded() or re.sub(r"_(bucket|count|sum)$", "", name) in known, f"{who}: {name}"


def test_the_page_on_monitoring_lists_every_alert_with_its_severity() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    rows = dict(re.findall(r"^\| `(WowEvent\w+)` \| .* \| (\w+) \|$", page, re.MULTILINE))
    assert rows == {name: rule["labels"]["severity"] for name, rule in alerts().items()}


def test_no_rule_counts_from_the_first_sample_only() -> None:
    """increase() and rate() never show what a series is born with: each stands behind what does."""
    for rule in rules():
        for counter in re.findall(r"\b(?:increase|rate|irate)\((\w+)", rule["expr"]):
            assert f"last_over_time({counter}" in rule["expr"], rule
