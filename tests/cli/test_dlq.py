"""`wowevent dlq`: dead letters are found, grouped, shown whole, sent again or forgotten, and never by accident."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.broken import EVIL, URL, WORKER, broken, dead, obeys, said
from tests.cli.dialogue import Terminal
from tests.cli.terminal import answered
from tests.processes import wowevent

BOTH = pytest.mark.parametrize("verb", ["redeliver", "discard"])


def ids(home: Path, *numbers: int) -> list[str]:
    """The dead letters of these events."""
    return [letter["id"] for letter in said(home, "dlq", "list") if letter["event"]["payload"]["n"] in numbers]


def test_the_list(tmp_path: Path) -> None:
    broken(tmp_path)
    first = next(letter for letter in said(tmp_path, "dlq", "list") if letter["event"]["payload"]["n"] == 0)

    assert (first["subscription"], first["reason"]) == (WORKER, "handler_error")
    assert first["error"] == f"ConnectionError: no answer {EVIL}"
    assert "in work" in first["traceback"]
    assert [attempt["number"] for attempt in first["attempts"]] == [1, 2]
    assert first["attempts"][0]["time"] <= first["attempts"][1]["time"] <= first["time"]
    assert first["event"]["payload"]["text"] == EVIL


def test_filters(tmp_path: Path) -> None:
    broken(tmp_path)
    event_id = said(tmp_path, "dlq", "list")[0]["event"]["event_id"]
    first = dead(tmp_path)[0]
    for arguments, found in {
        (): {0, 1, 2, 3},
        ("--subscription", "worker"): {0, 1, 2, 3},
        ("--subscription", "idle"): set(),
        ("--reason", "rejected"): {3},
        ("--correlation-id", "job-1"): {0, 1},
        ("--correlation-id", "job-2", "--reason", "handler_error"): {2},
        ("--event-id", event_id): {first},
    }.items():
        letters = said(tmp_path, "dlq", "list", *arguments)
        assert {letter["event"]["payload"]["n"] for letter in letters} == found, arguments


def test_a_limit_says_that_there_are_more(tmp_path: Path) -> None:
    broken(tmp_path)
    some = wowevent(tmp_path, "dlq", "list", "-n", "3", *URL)
    everything = wowevent(tmp_path, "dlq", "list", "-n", "4", *URL)

    assert (len(some.stdout.splitlines()), b"there are more" in some.stderr) == (4, True)
    assert (len(everything.stdout.splitlines()), b"there are more" in everything.stderr) == (5, False)


def test_groups_are_what_they_died_of_the_largest_first(tmp_path: Path) -> None:
    broken(tmp_path)
    answer, never = said(tmp_path, "dlq", "groups")
    assert (answer["count"], answer["reason"], answer["subscriptions"]) == (3, "handler_error", {WORKER: 3})
    assert answer["error"] == f"ConnectionError: no answer {EVIL}"
    assert (answer["least"], answer["most"], answer["newest"]) == (2, 2, answer["ids"][0])
    assert (never["count"], never["error"]) == (1, "never")
    assert sorted(answer["ids"]) == sorted(ids(tmp_path, 0, 1, 2))

    shown = wowevent(tmp_path, "dlq", "groups", "-n", "1", *URL)
    assert answer["fingerprint"] in shown.stdout.decode()
    assert (len(shown.stdout.splitlines()), b"there are more" in shown.stderr) == (2, True)
    assert not obeys(shown.stdout)
    assert [each["count"] for each in said(tmp_path, "dlq", "groups", "--correlation-id", "job-1")] == [2]
    assert said(tmp_path, "dlq", "groups", "--subscription", "idle") == []


def test_a_group_is_a_filter(tmp_path: Path) -> None:
    broken(tmp_path)
    mark = said(tmp_path, "dlq", "groups")[0]["fingerprint"]
    found = said(tmp_path, "dlq", "list", "--fingerprint", mark)
    assert {letter["event"]["payload"]["n"] for letter in found} == {0, 1, 2}
    done = wowevent(tmp_path, "dlq", "discard", "--fingerprint", mark, "--yes", *URL)
    assert done.stdout == b"discarded 3 dead letters\n"
    assert dead(tmp_path) == [3]


def test_a_letter_as_a_person_reads_it(tmp_path: Path) -> None:
    broken(tmp_path)
    (id,) = ids(tmp_path, 0)
    done = wowevent(tmp_path, "dlq", "show", id, *URL)
    shown = done.stdout.decode()

    assert done.returncode == 0
    for told in (WORKER, "handler_error", "ConnectionError: no answer", "Traceback", "in work", "job-1", '"n": 0'):
        assert told in shown
    assert not obeys(done.stdout)
    assert not obeys(wowevent(tmp_path, "dlq", "list", *URL).stdout)
    assert said(tmp_path, "dlq", "show", id) == [each for each in said(tmp_path, "dlq", "list") if each["id"] == id]


@BOTH
def test_nothing_happens_without_a_yes(tmp_path: Path, verb: str) -> None:
    broken(tmp_path)
    done = wowevent(tmp_path, "dlq", verb, "--all", *URL, stdin=b"y\n")

    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error[usage]: 4 dead letters will be ")
    assert len(dead(tmp_path)) == 4


@BOTH
def test_a_dry_run_changes_nothing(tmp_path: Path, verb: str) -> None:
    broken(tmp_path)
    before = said(tmp_path, "dlq", "list")
    done = wowevent(tmp_path, "dlq", verb, "--correlation-id", "job-1", "--dry-run", "--yes", *URL)

    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith(b"2 dead letters would be ")
    assert len(done.stdout.splitlines()) == 4  # which ones, below a heading
    assert said(tmp_path, "dlq", "list") == before
    assert said(tmp_path, "info", "worker")[0]["ready"] == 0


def test_redeliver_hands_them_out_again(tmp_path: Path) -> None:
    broken(tmp_path)
    done = wowevent(tmp_path, "dlq", "redeliver", *ids(tmp_path, 1, 3), "--yes", *URL)

    assert (done.returncode, done.stdout) == (0, b"redelivered 2 dead letters\n")
    assert sorted(dead(tmp_path)) == [0, 2]
    again = wowevent(tmp_path, "subscribe", "task.*", "--name", "worker", "--json", "-n", "2", *URL)
    assert sorted(json.loads(line)["payload"]["n"] for line in again.stdout.splitlines()) == [1, 3]


def test_redeliver_at_a_rate(tmp_path: Path) -> None:
    broken(tmp_path)
    began = time.monotonic()
    done = wowevent(tmp_path, "dlq", "redeliver", "--all", "--rate", "3", "--yes", *URL)

    assert (done.returncode, done.stdout) == (0, b"redelivered 4 dead letters\n")
    assert time.monotonic() - began >= 1, "three, and a second later one"
    assert dead(tmp_path) == []


def corrected(home: Path, payload: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """`dlq resend` of the letter of event 1."""
    (home / "right.json").write_text(payload)
    (id,) = ids(home, 1)
    return wowevent(home, "dlq", "resend", id, "--payload", "right.json", *arguments, *URL)


def test_resend_sends_another_payload_to_one_subscription(tmp_path: Path) -> None:
    broken(tmp_path)
    (letter,) = [each for each in said(tmp_path, "dlq", "list") if each["event"]["payload"]["n"] == 1]
    tried = corrected(tmp_path, '{"n": 10}', "--dry-run")
    assert tried.returncode == 0
    assert tried.stdout.decode().splitlines()[-1].endswith(f"would be resent to {WORKER} alone, with this payload")
    asked = corrected(tmp_path, '{"n": 10}')
    assert (asked.returncode, asked.stdout) == (2, b"")
    assert len(dead(tmp_path)) == 4

    done = corrected(tmp_path, '{"n": 10}', "--yes", "--reason", "it was 10")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().rstrip().endswith(f"replaces={letter['event']['event_id']}")
    assert sorted(dead(tmp_path)) == [0, 2, 3]
    again = wowevent(tmp_path, "subscribe", "task.*", "--name", "worker", "--json", "-n", "1", *URL)
    (event,) = map(json.loads, again.stdout.splitlines())
    assert (event["payload"], event["replay_of"]) == ({"n": 10}, letter["event"]["event_id"])
    mark = json.loads(event["headers"]["wowevent-resent"])
    assert (mark["to"], mark["letter"], mark["reason"]) == (WORKER, letter["id"], "it was 10")
    assert said(tmp_path, "info", "idle")[0]["ready"] == 5, "nobody else gets it"


def test_resend_reads_stdin_and_holds_it_against_its_schema(tmp_path: Path) -> None:
    broken(tmp_path)
    (id,) = ids(tmp_path, 1)
    number = {"type": "object", "properties": {"n": {"type": "integer"}}}
    schema = {"event_type": "task.created", "version": "1.0.0", "json_schema": number}
    (tmp_path / "task.json").write_text(json.dumps(schema))
    made = wowevent(tmp_path, "schema", "register", "task.json", *URL)
    assert made.returncode == 0, made.stderr
    for payload, status, code in (
        (b'{"n": "ten"}', 65, b"validation_error"),
        (b"[1]", 65, b"invalid_event"),
        (b"{", 65, b"invalid_event"),
    ):
        done = wowevent(tmp_path, "dlq", "resend", id, "--payload", "-", "--yes", *URL, stdin=payload)
        assert (done.returncode, done.stdout) == (status, b"")
        assert done.stderr.startswith(b"error[" + code)
    assert len(dead(tmp_path)) == 4
    done = wowevent(tmp_path, "dlq", "resend", id, "--payload", "-", "--yes", *URL, stdin=b'{"n": 10}')
    assert done.returncode == 0, done.stderr
    for arguments, status in (((id, "--payload", "-"), 69), (("1", "--payload", "nowhere.json"), 74)):
        done = wowevent(tmp_path, "dlq", "resend", *arguments, "--yes", *URL, stdin=b"{}")
        assert (done.returncode, done.stdout) == (status, b"")


def test_discard_forgets_them(tmp_path: Path) -> None:
    broken(tmp_path)
    for arguments, count, left in (
        (("--reason", "rejected"), 1, {0, 1, 2}),
        (("--subscription", "worker", "--limit", "1"), 1, None),
        (("--all",), 2, set()),
        (("--all",), 0, set()),
    ):
        done = wowevent(tmp_path, "dlq", "discard", *arguments, "--yes", *URL)
        assert done.stdout == f"discarded {count} dead letter{'' if count == 1 else 's'}\n".encode()
        assert left is None or set(dead(tmp_path)) == left
    assert said(tmp_path, "info", "worker")[0]["ready"] == 0


def test_a_letter_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    broken(tmp_path)
    done = wowevent(tmp_path, "dlq", "discard", *ids(tmp_path, 2), *ids(tmp_path, 2), "--yes", *URL)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"discarded 1 dead letter\n", b"")
    assert sorted(dead(tmp_path)) == [0, 1, 3]


@BOTH
def test_what_went_while_the_person_thought_is_said(tmp_path: Path, verb: str) -> None:
    broken(tmp_path)
    with Terminal(tmp_path, "dlq", verb, "--all", *URL) as person:
        person.wait_for("4 dead letters will be ")
        wowevent(tmp_path, "dlq", "discard", *ids(tmp_path, 2), "--yes", *URL)
        person.answer("[y/N]", "y")
        status, seen = person.end()

    assert status == 0
    assert "ed 3 dead letters" in seen
    assert "1 of them were gone already" in seen


@BOTH
def test_a_person_is_asked(tmp_path: Path, verb: str) -> None:
    broken(tmp_path)
    status, out, seen = answered(tmp_path, "dlq", verb, "--reason", "handler_error", *URL, answer=b"n\n")
    assert (status, out) == (1, b"")
    assert "3 dead letters will be " in seen
    assert len(dead(tmp_path)) == 4

    status, out, _ = answered(tmp_path, "dlq", verb, "--reason", "handler_error", *URL, answer=b"yes\n")
    assert status == 0
    assert out.endswith(b"3 dead letters\n")
    assert dead(tmp_path) == [3]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One log for all that is refused: in the end everything is still there."""
    home = tmp_path_factory.mktemp("log")
    broken(home)
    yield home
    assert len(dead(home)) == 4


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        ((), 2, "usage"),
        (("--limit", "3"), 2, "usage"),
        (("--subscription", ""), 2, "usage"),
        (("1", "--all"), 2, "usage"),
        (("1", "--subscription", "worker"), 2, "usage"),
        (("--all", "--reason", "timeout"), 2, "usage"),
        (("1", "--limit", "1"), 2, "usage"),
        (("--reason", "nix"), 2, "usage"),
        (("--subscription", "nix"), 69, "subscription_not_found"),
        (("1", "99"), 69, "dead_letter_not_found"),
        (("9" * 5000,), 69, "dead_letter_not_found"),
        (("\udcff\x1b",), 69, "dead_letter_not_found"),
        (("--event-id", "a b"), 65, "invalid_event"),
        (("--correlation-id", "\udcff"), 65, "invalid_event"),
        (("--fingerprint", "x"), 65, "invalid_event"),
        (("--fingerprint", "0" * 16, "--all"), 2, "usage"),
    ],
)
def test_what_it_refuses(log: Path, arguments: tuple[str, ...], status: int, code: str) -> None:
    done = wowevent(log, "dlq", "discard", *arguments, "--yes", *URL)

    assert (done.returncode, done.stdout) == (status, b"")
    assert done.stderr.startswith(f"error[{code}]: ".encode())
    assert not obeys(done.stderr)


def test_a_letter_that_is_not_there(tmp_path: Path) -> None:
    done = wowevent(tmp_path, "dlq", "show", "1", *URL)

    assert done.returncode == 69
    assert done.stderr == b"error[dead_letter_not_found]: there is no dead letter '1'\n"
