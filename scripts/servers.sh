#!/usr/bin/env bash
# Makes sure that the servers which tests start for themselves are installed. The NATS server comes with the dev packages.
set -euo pipefail
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# The argument names brokers, joined by commas; only what they need is installed.
missing=()
for server in redis-server rabbitmq-server; do
  [[ ",${1:-redis,rabbitmq}," == *",${server%-server},"* ]] || continue
  command -v "$server" >/dev/null || missing+=("$server")
done
if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi

explain() {
  echo "The tests need ${missing[*]}, and $1." >&2
  echo "Install ${missing[*]} by hand (Debian, Ubuntu: apt-get; macOS: brew install redis rabbitmq), or name the" >&2
  echo "brokers that are there: make test BROKERS=memory,sqlite" >&2
  exit 1
}

command -v apt-get >/dev/null || explain "this system has no apt-get"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || explain "installing them takes root, or sudo"
  # Where nobody can type a password, sudo must not ask for one.
  if [ -t 0 ]; then as_root=(sudo); else as_root=(sudo -n); fi
  "${as_root[@]}" true 2>/dev/null || explain "sudo was refused"
fi

echo "Installing ${missing[*]}"
# The packages may start a server on its usual port. Tests leave it alone: each starts its own, on a free port.
install=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install)
"${as_root[@]}" apt-get -qq update
"${as_root[@]}" "${install[@]}" "${missing[@]}" >/dev/null
