#!/usr/bin/env bash
# Runs every test: most of them several at a time and with coverage, then those that want the machine for themselves.
# usage: scripts/tests.sh BROKERS COVERAGE
#
# Thousands of tests with servers, processes and clocks share two cores for half an hour. What fails there, but is little,
# runs once more with the machine for itself, and must pass; each such test is named. More than a few is no accident.
set -uo pipefail
brokers=$1 coverage=$2
few=5
# Fault tests starve and stop processes, and measure how long it takes; the load tests are load enough; a browser has
# processes of its own.
alone=(tests/faults tests/soak tests/conformance/test_bus_load.py tests/site tests/js)

# Logs and servers of tests sync to the disk thousands of times, and a disk may take 10 ms for each: they lie in memory
# where it has room. What a killed process leaves is the same there; the tests of a disk that forgets bring their own.
if [ "$(df --output=avail -k /dev/shm 2>/dev/null | tail -1)" -gt 8000000 ] 2>/dev/null; then
  PYTEST_DEBUG_TEMPROOT=$(mktemp -d /dev/shm/wowevent-tests-XXXXXX)
  export PYTEST_DEBUG_TEMPROOT
  trap 'rm -rf "$PYTEST_DEBUG_TEMPROOT"' EXIT
fi

few_failed() { # says which; more than a few, or none at all (too little coverage, a broken collection), is final
  python - "$few" <<'PYTHON'
import json, pathlib, sys
found = pathlib.Path(".pytest_cache/v/cache/lastfailed")
failed = list(json.loads(found.read_text())) if found.exists() else []
print(*(f"failed, and runs once more by itself: {each}" for each in failed), sep="\n")
sys.exit(not 0 < len(failed) <= int(sys.argv[1]))
PYTHON
}

run() { # $@: pytest's arguments
  python -m pytest --cache-clear --broker="$brokers" "$@"
}

again() { # $1: the status of the run before; the rest: pytest's arguments
  [ "$1" -eq 1 ] && few_failed && python -m pytest --last-failed --last-failed-no-failures=none --broker="$brokers" "${@:2}"
}

# Coverage looks at every third test: looking takes nearly as long as the tests, and a third of them reaches the lines.
covered=(--cov --cov-fail-under="$coverage" --cover-each 3)
run "${covered[@]}" --cov-report=term -n 3 --dist worksteal "${alone[@]/#/--ignore=}" --ignore=tests/clusters
status=$?
[ $status -eq 0 ] || again $status "${covered[@]}" --cov-report= --cov-append "${alone[@]/#/--ignore=}" --ignore=tests/clusters tests || exit 1

run "${alone[@]}"
status=$?
[ $status -eq 0 ] || again $status "${alone[@]}" || exit 1
