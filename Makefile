# make demo   runs the main job on this machine
# make test   passes all tests
# Both install what is missing into this folder. Requirements: Rust, Python 3.11, make, a C compiler.
# make/*.mk has the targets of one language or subject.

SHELL := /bin/bash -euo pipefail
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON  ?= python3
VENV    := .venv
INFRA   := .venv-infra
AIRFLOW := .venv-airflow/bin
CALLERS := .venv-callers/bin
PYTEST  := $(VENV)/bin/python -m pytest
TOOLS   := .tools
# cargo-lambda comes from PyPI, with the linker that it looks for beside it.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

FUNCTIONS := submit task-state reconcile runner-api
PROGRAMS  := $(foreach name,$(FUNCTIONS) ecs-bridge-cli ecs-bridge-runner,-p $(name))
BINARIES  := $(FUNCTIONS) ecs-bridge ecs-bridge-runner

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 16

# A first build is mostly SDKs. The demo leaves out those that only examine deployments, unless they are built already.
DEMO_FEATURES = $(if $(wildcard target/debug/deps/libaws_sdk_cloudformation-*.rlib),,--no-default-features)
.PHONY: demo
demo: ## run a handful of commands through the bridge on this machine, and look on (FLAGS=--no-function-urls: by invocations)
	$(if $(ECS_BRIDGE_PROGRAM),,cargo build --locked $(PROGRAMS) $(DEMO_FEATURES))
	$(PYTHON) examples/demo.py $(FLAGS)

.PHONY: airflow
airflow: programs .venv-airflow/.done ## a real Airflow on the bridge on this machine: open it, press Trigger, look on (POOL=1: with a pool; ONCE=1: runs the DAG and ends)
	$(AIRFLOW)/python examples/airflow/run.py $(if $(POOL),--pool) $(if $(ONCE),--once)

.PHONY: build
build: ## build all programs for release
	cargo build --locked --release $(PROGRAMS)

.PHONY: check check-rust check-python
check: $(VENV)/.done .venv-airflow/.done .venv-callers/.done ## what to run while editing: lint, types, unit tests, the model's small worlds, one test on the local stack
	cargo fmt --all --check
	cargo build --locked --quiet $(PROGRAMS)
	@$(MAKE) --no-print-directory --jobs 2 --keep-going check-rust check-python
check-rust:
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo test --locked --quiet --workspace --lib --bins $(UNIT_TESTS:%=--test %)
	cargo test --locked --quiet --workspace --test promises -- small
check-python: lint-python mypy
	$(CALLERS)/python -m pytest -q tests/python/client
	$(AIRFLOW)/python -m pytest -q $(UNIT_TESTS_OF_EXECUTOR:%=tests/airflow/unit/test_%.py)
	$(PYTEST) -q tests/stack/e2e/test_lives.py

# While stages run side by side, one of them compiles, and what the others test must not change: they have copies.
TESTED := target/tested
# The tests wait for most of their time, and compilers do not: stages run concurrently, and those that compile give way.
# Every suite runs to its end; tools/stages.py prints which of them failed.
.PHONY: test
test: ## run all tests; their output is in target/test-logs
	@$(LINTING) $(MAKE) --no-print-directory --jobs 2 --keep-going replay venvs
	rm -rf $(TESTED) && mkdir -p $(TESTED) && cp $(BINARIES:%=target/debug/%) target/debug/ecs-bridge-replay $(TESTED)/
	@ECS_BRIDGE_PROGRAM=$(CURDIR)/$(TESTED)/ecs-bridge QUICK=1 NICE=nice $(PYTHON) tools/stages.py target/test-logs \
		"$(STAGE_RUST)" "$(STAGE_STACKS)" "$(STAGE_FAULTS)" "$(STAGE_AIRFLOW)" "$(STAGE_SETUPS)" "$(STAGE_INFRA)"

STAGE_RUST    := lint-format lint-clippy test-rust test-sam-build
STAGE_STACKS   = $(filter-out tests/docs tests/stack/secrets,$(STACKS))
STAGE_FAULTS   = $(FAULTS) lint-python mypy tests/python/client tests/python/callers tests/python/runner
STAGE_AIRFLOW := tests/airflow/e2e
STAGE_SETUPS  := tests/airflow/setups tests/airflow/unit tests/airflow/airflow2 tests/airflow/conformance tests/docs tests/stack/secrets
STAGE_INFRA   := test-infra

.PHONY: docs
docs: $(VENV)/.done ## serve the documents as a site on 127.0.0.1:8000
	$(VENV)/bin/python docs/site/build.py --serve

.PHONY: bench
bench: $(VENV)/.done .venv-airflow/.done .venv-airflow-bench/.done ## all figures of docs/performance.md (JSON=1: an object a line; TASKS=100000: the full scale)
	@cargo build --locked --release $(PROGRAMS) -p bench-hello -p ecs-bridge-runner
	@JSON=$(or $(JSON),0) $(VENV)/bin/python benches/run.py --tasks $(or $(TASKS),5000)

.PHONY: release
release: $(INFRA)/.done $(TOOLS)/bin/cargo-deny $(TOOLS)/bin/cargo-cyclonedx ## fill dist/ with a release
	PATH=$(CURDIR)/$(INFRA)/bin:$(CURDIR)/$(TOOLS)/bin:$$PATH PYTHON=$(INFRA)/bin/python tools/release.sh

include make/python.mk make/rust.mk make/stack.mk make/airflow.mk make/infra.mk make/docs.mk make/bench.mk
