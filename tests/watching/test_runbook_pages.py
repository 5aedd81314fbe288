"""docs/runbooks: whole, linked, and its commands name only what there is: ours, and what the manifests declare."""

import re
from typing import Any

import pytest
import typer

from tests.watching.manifests import Manifests, complaints
from tests.watching.runbook import HERE, RUNBOOKS, blocks, commands, pages
from wowevent.cli import app

PROCEDURES = {
    "deploy", "verify", "monitor", "scale", "process-down", "high-latency", "events-not-delivered", "high-error-rate",
    "dead-letters", "engine-down", "disk-full", "subscription-lapsed", "roll-back", "upgrade", "back-up", "tune",
    "secure",
}  # fmt: skip
CLI: Any = typer.main.get_command(app)


@pytest.fixture(scope="module")
def manifests() -> Manifests:
    return Manifests()


def lines(page: str) -> list[list[str]]:
    """Every command of a page; what runs in a pod stands behind the kubectl that runs it."""
    found = [command for block in blocks(page) for command in commands(block.text)]
    return found + [command[command.index("--") + 1 :] for command in found if "--" in command]


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_procedure_has_a_page_and_every_page_is_in_the_index() -> None:
    assert set(pages()) == PROCEDURES | {"README"}
    assert set(re.findall(r"\]\(([a-z-]+)\.md\)", (RUNBOOKS / "README.md").read_text())) == PROCEDURES


@pytest.mark.parametrize("page", pages())
def test_what_a_page_links_to_is_there(page: str) -> None:
    text = (RUNBOOKS / f"{page}.md").read_text()
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
        path = RUNBOOKS / target if target else RUNBOOKS / f"{page}.md"
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text()), f"{target}#{anchor}"


@pytest.mark.parametrize("page", sorted(PROCEDURES))
def test_a_page_has_commands_for_one_machine_and_for_kubernetes(page: str) -> None:
    kubernetes = [command for command in lines(page) if command[0] == "kubectl"]
    assert kubernetes
    assert [command for command in lines(page) if command[0] != "kubectl"]
    assert page in {"secure", "tune"} or blocks(page, HERE)


@pytest.mark.parametrize("page", pages())
def test_our_commands_and_their_options_are_there(page: str) -> None:
    for words in lines(page):
        if words[0] == "wowevent":
            assert not strange(words), " ".join(words)


def strange(words: list[str]) -> list[str]:
    """What of a command line of ours is no command or option."""
    command, rest = CLI, words[1:]
    while hasattr(command, "commands"):
        if not rest or rest[0] not in command.commands:
            if getattr(command.commands.get("list"), "name", None) == "list" and command.name == "subscriptions":
                command = command.commands["list"]  # what `subscriptions` alone is
                break
            return rest[:1]
        command, rest = command.commands[rest[0]], rest[1:]
    known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    return [word for word in rest if word.startswith("-") and word.partition("=")[0] not in known]


@pytest.mark.parametrize("page", pages())
def test_what_kubectl_is_told_is_what_the_manifests_declare(page: str, manifests: Manifests) -> None:
    wrong = {
        " ".join(words): found
        for words in lines(page)
        if words[0] == "kubectl" and (found := complaints(manifests, words))
    }
    assert not wrong


@pytest.mark.parametrize(
    "line",
    [
        "kubectl get pods -n elsewhere -l app=event-bus",
        "kubectl get pods -n waooaw -l app=bus",
        "kubectl get pods -l app=event-bus",
        "kubectl get hpa -n waooaw nix",
        "kubectl logs -n waooaw redis-1",
        "kubectl exec -n waooaw deployment/nix -- wowevent info",
        "kubectl scale deployment nix -n waooaw --replicas=5",
        "kubectl rollout restart deployment nix -n waooaw",
        "kubectl set image deployment/event-bus -n waooaw nix=waooaw/event-bus:0.1.0",
        "kubectl port-forward -n waooaw svc/event-bus-service 8080:81",
        "kubectl cp waooaw/redis-7:/data/dump.rdb here",
        "kubectl describe pvc nix -n waooaw",
        "kubectl create secret generic nix -n waooaw --from-file=tokens.json",
        "kubectl apply -k infrastructure/kubernetes/overlays/nix",
        "kubectl apply -f infrastructure/kubernetes/nix.yaml",
        "kubectl drain -n waooaw node",
    ],
)
def test_a_name_that_is_not_there_is_noticed(manifests: Manifests, line: str) -> None:
    (words,) = commands(line)
    assert complaints(manifests, words)


@pytest.mark.parametrize("line", ["wowevent nix", "wowevent info --nix", "wowevent dlq nix", "wowevent logs --nix=1"])
def test_a_command_that_is_not_there_is_noticed(line: str) -> None:
    (words,) = commands(line)
    assert strange(words)


def test_nobody_is_told_to_let_redis_evict() -> None:
    """The ancestor's page said allkeys-lru, which deletes parts of the log."""
    for page in pages():
        text = (RUNBOOKS / f"{page}.md").read_text()
        assert "allkeys" not in text
        assert set(re.findall(r"maxmemory-policy (\w+)", text)) <= {"noeviction"}
