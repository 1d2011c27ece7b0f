# make demo   runs the main job on this machine
# make test   passes all tests
# Both install what is missing into this folder. Needed beforehand: Rust, Python 3.11, make, a C compiler.

SHELL := /bin/bash -euo pipefail
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV   := .venv
PYTEST := $(VENV)/bin/python -m pytest
# cargo-lambda comes from PyPI, with the linker that it looks for beside it.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

FUNCTIONS := submit task-state reconcile
PROGRAMS  := $(foreach name,$(FUNCTIONS) ecs-bridge-cli,-p $(name))

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 16

$(VENV)/.done: tests/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --requirement $<
	touch $@

.PHONY: programs
programs:
	cargo build --locked $(PROGRAMS)

.PHONY: demo
demo: programs ## run a handful of commands through the bridge on this machine, and look on
	$(PYTHON) local/demo.py

.PHONY: build
build: ## build all programs for release
	cargo build --locked --release $(PROGRAMS)

.PHONY: lint
lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

.PHONY: test-rust
test-rust:
	cargo test --locked --workspace --quiet

.PHONY: test-e2e
test-e2e: programs $(VENV)/.done
	$(PYTEST) -q tests/local tests/functions tests/e2e

.PHONY: test
test: lint test-rust test-e2e ## run all tests

.PHONY: chaos
chaos: programs $(VENV)/.done ## a run under faults: SEED=n N=n
	$(VENV)/bin/python tests/chaos/run.py --seed $(or $(SEED),1) --submissions $(or $(N),300)
