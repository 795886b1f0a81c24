# havre's make targets; `make help` lists them. Everything is installed below .venv/ except Debian's own packages.
.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := .venv/bin

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' Makefile | expand -t 14

setup:  ## install what is missing: system packages, Python packages from the lock file, the launchers
	@tools/setup.sh

run: setup  ## set up, start the daemon, make the embedded images, and run two containers
	@tools/first-run.sh

check:  ## linters, types, import contracts and unit tests; under a minute, needs no root
	@tools/setup.sh --test
	$(BIN)/ruff check src tests tools bench
	$(BIN)/ruff format --check src tests tools bench
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/unit

SUITE := $(addprefix tests/,contract kernel suites security faults fuzz)
test: check  ## the whole suite (root): the checks, then contract, kernel, suites, security, faults, fuzz, machine
	@tools/setup.sh --test --peers
	$(BIN)/python -m pytest -n 2 --dist loadfile $(SUITE)
	$(BIN)/python -m pytest tests/machine

machine:  ## a shell in the emulated host of tests/machine (root, no KVM needed); `poweroff` leaves it
	@tools/setup.sh --test --peers
	$(BIN)/python tests/support/machine_shell.py

soak:  ## 1,000 lives of containers, and 1,000 at once (root, minutes): nothing may be left, and no memory lost
	@tools/setup.sh --test --peers
	SOAK_CYCLES=1000 $(BIN)/python -m pytest -s tests/faults/test_cycles.py -k many_cycles
	SOAK_CROWD=1000 $(BIN)/python -m pytest tests/contract/test_many_containers.py -k crowd

bench:  ## side by side with dockerd and podman; writes docs/benchmarks.md and its chart
	@tools/setup.sh --test --peers
	$(BIN)/python bench/run.py

install:  ## put havre and havred on PATH, with systemd units, man pages, completion (PREFIX=/usr/local, DOCKER_SOCKET=1)
	@tools/install.sh install

uninstall:  ## undo install; data in /var/lib/havre stays
	@tools/install.sh uninstall

VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/havre/__init__.py)
changelog:  ## fold the fragments of changelog.d/ into CHANGELOG.md and remove them at a release
	$(BIN)/towncrier build --yes --version $(VERSION)

docs:  ## write the generated pages anew: docs/api-coverage.md, docs/faces.md
	@tools/setup.sh --test
	$(BIN)/python tools/api_coverage.py
	$(BIN)/python tools/faces.py

lock:  ## write the lock files anew from pyproject.toml
	@tools/lock.sh

clean:  ## remove the virtual environment and caches
	rm -rf .venv .mypy_cache .ruff_cache .hypothesis .import_linter_cache build

.PHONY: docs help setup run check test machine soak bench install uninstall changelog lock clean
