#!/usr/bin/env bash
# Makes sure that the servers which tests start for themselves are there, the two programs that lines of the runbook use,
# and a browser for the pages. The NATS server comes with the dev packages.
set -euo pipefail
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

explain() {
  echo "The tests need $1, and $2." >&2
  echo "Install $1 by hand (Debian, Ubuntu: apt-get; macOS: brew install redis rabbitmq prometheus jq chromium); for brokers there" >&2
  echo "is another way, to name those that are there: make test BROKERS=memory,sqlite" >&2
  exit 1
}

as_root=()
become_root() { # $1: what for
  command -v apt-get >/dev/null || explain "$1" "this system has no apt-get"
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || explain "$1" "installing them takes root, or sudo"
    # Where nobody can type a password, sudo must not ask for one.
    if [ -t 0 ]; then as_root=(sudo); else as_root=(sudo -n); fi
    "${as_root[@]}" true 2>/dev/null || explain "$1" "sudo was refused"
  fi
  "${as_root[@]}" apt-get -qq update
}

# The argument names brokers, joined by commas; only what they need is installed.
missing=()
for server in redis-server rabbitmq-server; do
  [[ ",${1:-redis,rabbitmq}," == *",${server%-server},"* ]] || continue
  command -v "$server" >/dev/null || missing+=("$server")
done
for program in curl jq; do
  command -v "$program" >/dev/null || missing+=("$program")
done
# Ubuntu's package of that name only leads to a snap, which a container cannot install; Chrome is as good.
if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null; then
  missing+=(chromium)
fi
if [ ${#missing[@]} -gt 0 ]; then
  become_root "${missing[*]}"
  echo "Installing ${missing[*]}"
  # The packages may start a server on its usual port. Tests leave it alone: each starts its own, on a free port.
  install=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install)
  "${as_root[@]}" "${install[@]}" "${missing[@]}" >/dev/null
fi

# Prometheus is unpacked into a folder of the user's, where tests/service/prometheus.py looks for it, and not installed:
# its package would start and enable a server on port 9090, which is our router's. Two programs, 19 MB to download.
unpacked="${XDG_CACHE_HOME:-$HOME/.cache}/wowevent/prometheus"
complete() { command -v prometheus >/dev/null && command -v promtool >/dev/null; }
if ! complete && ! PATH="$unpacked" complete; then
  echo "Fetching prometheus"
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  mkdir -p "$folder"/{lists,cache/archives}/partial
  fetch() { (cd "$folder" && apt-get -qq -o APT::Sandbox::User=root "$@"); }
  # The lists of packages may be old, or were never fetched: then into a folder of ours, which takes no root.
  own=(-o "Dir::State::Lists=$folder/lists" -o "Dir::Cache=$folder/cache")
  if ! fetch download prometheus 2>/dev/null; then
    command -v apt-get >/dev/null || explain prometheus "this system has no apt-get"
    { fetch "${own[@]}" update && fetch "${own[@]}" download prometheus; } || explain prometheus "apt-get cannot fetch it"
  fi
  dpkg --extract "$folder"/prometheus_*.deb "$folder"
  mkdir -p "$unpacked"
  mv -f "$folder"/usr/bin/prometheus "$folder"/usr/bin/promtool "$unpacked"
fi
