# make demo   runs the main job on this machine
# make test   passes all tests
# Both install what is missing into this folder. Requirements: Rust, Python 3.11, make, a C compiler.

SHELL := /bin/bash -euo pipefail
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV   := .venv
INFRA  := .venv-infra
PYTEST := $(VENV)/bin/python -m pytest
# cargo-lambda comes from PyPI, with the linker that it looks for beside it.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

TOOLS  := .tools

FUNCTIONS := submit task-state reconcile runner-api
PROGRAMS  := $(foreach name,$(FUNCTIONS) ecs-bridge-cli ecs-bridge-runner,-p $(name))
BINARIES  := $(FUNCTIONS) ecs-bridge ecs-bridge-runner

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 16

# An environment is a group of pyproject.toml in the versions of uv.lock: `make .venv-airflow/.done` makes that of `airflow`.
UV := .venv-uv/bin/uv
$(UV):
	@$(PYTHON) -m venv .venv-uv
	@.venv-uv/bin/python -m pip install --quiet --disable-pip-version-check uv

# The packages' own files name their dependencies and versions.
LOCKED := pyproject.toml uv.lock $(wildcard python/*/pyproject.toml python/*/src/*/__init__.py)
# $(1): the group.
define environment
	@echo "preparing $(@D)" >&2
	@UV_PROJECT_ENVIRONMENT=$(@D) $(UV) sync --quiet --locked --only-group $(1)
	@touch $@
endef

$(VENV)/.done: $(LOCKED) | $(UV)
	$(call environment,tests)
.venv-%/.done: $(LOCKED) | $(UV)
	$(call environment,$*)
# Kept, although only a pattern names them.
.PRECIOUS: .venv-%/.done

.PHONY: lock
lock: $(UV) ## write uv.lock anew after a change of dependencies (UPGRADE=package)
	$(UV) lock $(UPGRADE:%=--upgrade-package %)

# While stages run side by side, one of them compiles, and what the others test must not change: they have copies.
TESTED := target/tested
.PHONY: programs
programs:
	$(if $(ECS_BRIDGE_PROGRAM),,cargo build --locked $(PROGRAMS))

# The programs, and the one that replays chaos runs.
.PHONY: replay
replay:
	$(if $(ECS_BRIDGE_PROGRAM),,cargo build --locked $(PROGRAMS) -p ecs-bridge-model)

# A first build is mostly SDKs. The demo leaves out those that only examine deployments, unless they are built already.
DEMO_FEATURES = $(if $(wildcard target/debug/deps/libaws_sdk_cloudformation-*.rlib),,--no-default-features)
.PHONY: demo
demo: ## run a handful of commands through the bridge on this machine, and look on (FLAGS=--no-function-urls: by invocations)
	$(if $(ECS_BRIDGE_PROGRAM),,cargo build --locked $(PROGRAMS) $(DEMO_FEATURES))
	$(PYTHON) examples/demo.py $(FLAGS)

.PHONY: build
build: ## build all programs for release
	cargo build --locked --release $(PROGRAMS)

.PHONY: lint lint-format lint-clippy lint-python
lint: lint-format lint-clippy lint-python
lint-format:
	$(NICE) cargo fmt --all --check
# clippy's driver is a compiler that lints on the way, so that tests and lints share one build. Its lints only warn, as
# programs with them can be tested all the same; cargo prints the warnings of what is compiled already again.
LINTING := RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=--cap-lints=warn
lint-clippy:
	$(LINTING) $(NICE) cargo test --locked --workspace --all-targets --no-run --quiet 2>&1 | tee target/clippy.log
	! grep -E '^(warning|error)' target/clippy.log
# Runs both checks, whatever the first finds.
lint-python: $(VENV)/.done
	failed=0; $(VENV)/bin/ruff check . || failed=1; $(VENV)/bin/ruff format --check . || failed=1; exit $$failed

.PHONY: openapi
openapi: $(VENV)/.done ## write docs/openapi.yaml as the JSON that submit serves
	$(VENV)/bin/python -c 'import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout, separators=(",", ":"))' \
		< docs/openapi.yaml > functions/submit/src/openapi.json

.PHONY: docs
docs: $(VENV)/.done ## serve the documents as a site on 127.0.0.1:8000
	$(VENV)/bin/python docs/site/build.py --serve

.PHONY: record
record: programs .venv-airflow/.done ## record docs/img/demo.svg anew
	$(AIRFLOW)/python docs/site/record.py

.PHONY: screenshots
screenshots: programs .venv-airflow/.done ## take the screenshots of docs/airflow-ui.md anew, in a headless Chromium; minutes
	$(AIRFLOW)/python docs/site/screenshots.py

.PHONY: plots
plots: .venv-plots/.done ## draw the plots of docs/performance.md from its table
	.venv-plots/bin/python docs/site/plots.py

.PHONY: test-rust
test-rust:
	$(LINTING) $(NICE) cargo test --locked --workspace --quiet --no-fail-fast

# A folder of tests is a target, which runs it: `make tests/stack/pool`. Those of the local stack each start their own:
STACKS := $(addprefix tests/,suites stack/local stack/functions stack/e2e stack/pool stack/secrets docs)
FAULTS := $(addprefix tests/,stack/reconcile protocol/crash protocol/chaos)
.PHONY: $(STACKS) $(FAULTS) test-stacks test-faults test-e2e
$(STACKS) $(FAULTS): replay $(VENV)/.done
	$(PYTEST) -q $@

test-stacks: $(STACKS)
test-faults: $(FAULTS)
test-e2e: test-stacks test-faults ## the functions on the local stack, also under faults

.PHONY: test-runner test-runner-program tests/python/runner
test-runner: test-runner-program tests/python/runner ## the runner program, and the zygote with a real Airflow
test-runner-program:
	cargo test --locked --quiet -p ecs-bridge-runner
tests/python/runner: programs .venv-airflow/.done
	$(AIRFLOW)/python -m pytest -q $@

# The tests wait for most of their time, and compilers do not: stages run concurrently, and those that compile give way.
# Every suite runs to its end; tools/stages.py prints which of them failed.
.PHONY: test venvs
test: ## run all tests; their output is in target/test-logs
	@$(LINTING) $(MAKE) --no-print-directory --jobs 2 --keep-going replay venvs
	rm -rf $(TESTED) && mkdir -p $(TESTED) && cp $(BINARIES:%=target/debug/%) target/debug/ecs-bridge-replay $(TESTED)/
	@ECS_BRIDGE_PROGRAM=$(CURDIR)/$(TESTED)/ecs-bridge QUICK=1 NICE=nice $(PYTHON) tools/stages.py target/test-logs \
		"$(STAGE_RUST)" "$(STAGE_STACKS)" "$(STAGE_FAULTS)" "$(STAGE_AIRFLOW)" "$(STAGE_SETUPS)" "$(STAGE_INFRA)"

venvs: $(VENV)/.done $(INFRA)/.done .venv-checkov/.done .venv-emulator/.done .venv-airflow/.done .venv-airflow2/.done .venv-callers/.done

STAGE_RUST    := lint-format lint-clippy test-rust test-sam-build
STAGE_STACKS   = $(filter-out tests/docs tests/stack/secrets,$(STACKS))
STAGE_FAULTS   = $(FAULTS) lint-python mypy-client tests/python/client tests/python/callers tests/python/runner
STAGE_AIRFLOW := tests/airflow/e2e
STAGE_SETUPS  := tests/airflow/setups tests/airflow/unit tests/airflow/airflow2 tests/docs tests/stack/secrets
STAGE_INFRA   := test-infra

# Of the workspace as a whole: subsets of packages compile the SDKs again, with other features.
UNIT_TESTS := advice calls commands corpus decide events outage pool redact run_task table
# Of the executor, those that need no server.
UNIT_TESTS_OF_EXECUTOR := advice config history job starts waits

.PHONY: check check-rust check-python
check: $(VENV)/.done .venv-airflow/.done .venv-callers/.done ## what to run while editing: lint, types, unit tests, the model's small worlds, one test on the local stack
	cargo fmt --all --check
	cargo build --locked --quiet $(PROGRAMS)
	@$(MAKE) --no-print-directory --jobs 2 --keep-going check-rust check-python
check-rust:
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo test --locked --quiet --workspace --lib --bins $(UNIT_TESTS:%=--test %)
	cargo test --locked --quiet --workspace --test promises -- small
check-python: lint-python
	$(CALLERS)/mypy --config-file python/ecs_bridge/pyproject.toml python/ecs_bridge/src
	$(CALLERS)/python -m pytest -q tests/python/client
	$(AIRFLOW)/python -m pytest -q $(UNIT_TESTS_OF_EXECUTOR:%=tests/airflow/unit/test_%.py)
	$(PYTEST) -q tests/stack/e2e/test_lives.py

.PHONY: chaos
chaos: replay $(VENV)/.done ## a run under faults: SEED=n N=n
	$(VENV)/bin/python tests/protocol/chaos/run.py --seed $(or $(SEED),1) --submissions $(or $(N),300)

# The last release: its tag, or in a clone without tags the last commit before the changelog told of a change.
EARLIER ?= $(or $(shell git describe --tags --abbrev=0 --match 'v*' 2>/dev/null),$(shell \
	git log --format=%H --reverse -S'### Changed' -- CHANGELOG.md | head -n 1)^)
.PHONY: chaos-versions
chaos-versions: replay $(VENV)/.done ## the same with functions of the last release beside these: SEED=n N=n EARLIER=commit
	rm -rf target/earlier && mkdir -p target/earlier
	git archive $(EARLIER) | tar -x -C target/earlier
	cargo build --locked --manifest-path target/earlier/Cargo.toml --target-dir target/earlier-build \
		$(foreach name,$(FUNCTIONS),-p $(name))
	$(VENV)/bin/python tests/protocol/chaos/run.py --seed $(or $(SEED),1) --submissions $(or $(N),300) \
		--earlier $(CURDIR)/target/earlier-build/debug

.PHONY: model
model: ## visit every state of the protocol's model, with more faults than the tests; many minutes
	cargo test --locked -p ecs-bridge-model -- --include-ignored --nocapture --test-threads 1

# Without optimization, as each mutant is a build of its own. A baseline that fails ends it.
.PHONY: mutants
mutants: ## change the decision of pools in each small way, and see a unit test fail (cargo install --locked cargo-mutants); hours
	cargo mutants -p ecs-bridge-core -j 1 -o target --test-tool cargo \
		-f shared/core/src/pool.rs -f shared/core/src/pool/wait.rs -f shared/core/src/decide/pool.rs \
		--cargo-arg=--locked --cargo-arg=--config --cargo-arg=profile.dev.package.ecs-bridge-core.opt-level=0 \
		$(MUTANTS) -- --lib

# Without a sanitizer, stable Rust suffices. There is no unsafe code for one to check.
FUZZ_TARGETS := event request profiles
.PHONY: fuzz
fuzz: $(TOOLS)/bin/cargo-fuzz ## make up events, requests and profiles: SECONDS=60 for each
	for target in $(FUZZ_TARGETS); do \
		mkdir -p tests/fuzz/found/$$target; \
		PATH=$(CURDIR)/$(TOOLS)/bin:$$PATH cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none $$target tests/fuzz/found/$$target tests/fuzz/corpus/$$target -- \
			-max_total_time=$(or $(SECONDS),60) -dict=tests/fuzz/json.dict -print_final_stats=1; \
	done

# The deployment. SAM, checkov and the emulator pin many libraries, so each has its own environment.

.PHONY: test-infra
test-infra: programs $(INFRA)/.done .venv-checkov/.done .venv-emulator/.done ## templates, event pattern, roles, dead letters
	cd tests/infra && ../../$(INFRA)/bin/python -m pytest -q --ignore test_sam_build.py

.PHONY: sam-build
sam-build: $(INFRA)/.done ## build the functions for `sam deploy` and check their architecture (ENV=prod: of samconfig.toml; TEMPLATE=file that nests the bridge)
	PATH=$(CURDIR)/$(INFRA)/bin:$$PATH $(INFRA)/bin/python tools/sam_build.py --config-env $(or $(ENV),default) \
		--template-file $(or $(TEMPLATE),template.yaml)

.PHONY: test-sam-build
test-sam-build: $(INFRA)/.done ## build the functions as `make sam-build` does, and look at them; QUICK=1: with programs that are built already
	cd tests/infra && QUICK=$(QUICK) $(NICE) ../../$(INFRA)/bin/python -m pytest -q test_sam_build.py

$(TOOLS)/bin/cargo-fuzz: TOOL := cargo-fuzz@0.13.2
$(TOOLS)/bin/cargo-deny: TOOL := cargo-deny@0.20.2
$(TOOLS)/bin/cargo-cyclonedx: TOOL := cargo-cyclonedx@0.5.9
$(TOOLS)/bin/%:
	cargo install --quiet --locked --root $(TOOLS) $(TOOL)

.PHONY: audit
audit: $(TOOLS)/bin/cargo-deny ## licences, sources, known vulnerabilities; asks github.com
	PATH=$(CURDIR)/$(TOOLS)/bin:$$PATH cargo deny --locked check

# For glibc 2.17: the images of Airflow and of Debian 11 take it.
.PHONY: runner-wheel
runner-wheel: $(INFRA)/.done ## the runner's wheel, into dist/: TARGET=aarch64-unknown-linux-gnu
	PATH=$(CURDIR)/$(INFRA)/bin:$$PATH maturin build --release --locked --zig --compatibility manylinux2014 \
		--manifest-path programs/runner/Cargo.toml --target $(or $(TARGET),$(shell uname -m)-unknown-linux-gnu) --out dist

.PHONY: image-wheels
image-wheels: runner-wheel ## what infra/image/Dockerfile installs: the wheels of runner, client and executor, into dist/
	$(INFRA)/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist ./python/ecs_bridge ./python/airflow_ecs_bridge

.PHONY: release
release: $(INFRA)/.done $(TOOLS)/bin/cargo-deny $(TOOLS)/bin/cargo-cyclonedx ## fill dist/ with a release
	PATH=$(CURDIR)/$(INFRA)/bin:$(CURDIR)/$(TOOLS)/bin:$$PATH PYTHON=$(INFRA)/bin/python tools/release.sh

CALLERS := .venv-callers/bin

.PHONY: test-client mypy-client tests/python/client tests/python/callers
test-client: mypy-client tests/python/client tests/python/callers ## the Python client, and the worker of Prefect and the run launcher of Dagster that use it
mypy-client: .venv-callers/.done
	$(CALLERS)/mypy --config-file python/ecs_bridge/pyproject.toml python/ecs_bridge/src
tests/python/client tests/python/callers: programs .venv-callers/.done
	$(CALLERS)/python -m pytest -q $@

AIRFLOW := .venv-airflow/bin

.PHONY: airflow
airflow: programs .venv-airflow/.done ## a real Airflow on the bridge on this machine: open it, press Trigger, look on (POOL=1: with a pool; ONCE=1: runs the DAG and ends)
	$(AIRFLOW)/python examples/airflow/run.py $(if $(POOL),--pool) $(if $(ONCE),--once)

.PHONY: test-executor tests/airflow/unit tests/airflow/airflow2
test-executor: tests/airflow/unit tests/airflow/airflow2
tests/airflow/unit: programs .venv-airflow/.done
	$(AIRFLOW)/python -m pytest -q $@
tests/airflow/airflow2: programs .venv-airflow2/.done
	.venv-airflow2/bin/python -m pytest -q $@

.PHONY: test-airflow test-airflow-e2e tests/airflow/e2e tests/airflow/setups
test-airflow: test-executor test-airflow-e2e ## the executor, with a whole Airflow on the local stack, its scheduler killed; minutes
test-airflow-e2e: tests/airflow/e2e tests/airflow/setups
tests/airflow/e2e tests/airflow/setups: programs $(INFRA)/.done .venv-airflow/.done
	$(AIRFLOW)/python -m pytest -q --durations 12 $@

.PHONY: test-system
test-system: .venv-airflow/.done ## the operator's system test on the bridge that AIRFLOW__ECS_BRIDGE_EXECUTOR__* name, in an account too
	$(AIRFLOW)/python -m pytest -q tests/airflow/system

# The last of each minor version that the package allows, and the newest beta.
AIRFLOWS ?= 2.10.5 2.11.2 3.0.6 3.1.8 3.2.2 3.3.2 3.4.0b2
.PHONY: test-matrix
test-matrix: .venv-airflow/.done ## executor and operator on every Airflow that they support, with real triggerers from 3.0 on, against a fake bridge: AIRFLOWS="3.0.6 3.1.8"
	$(AIRFLOW)/python tests/airflow/smoke.py $(AIRFLOWS)

.PHONY: bench-executor
bench-executor: .venv-airflow/.done
	$(AIRFLOW)/python benches/executor/bench.py $(ARGS)

.PHONY: bench-operator
bench-operator: .venv-airflow-bench/.done ## the operator's triggerer beside that of EcsRunTaskOperator, 1,000 waiting in each: ARGS=--quick
	.venv-airflow-bench/bin/python benches/executor/operators.py $(ARGS)

.PHONY: bench
bench: $(VENV)/.done .venv-airflow/.done .venv-airflow-bench/.done ## all figures of docs/performance.md (JSON=1: an object a line; TASKS=100000: the full scale)
	@cargo build --locked --release $(PROGRAMS) -p bench-hello -p ecs-bridge-runner
	@JSON=$(or $(JSON),0) $(VENV)/bin/python benches/run.py --tasks $(or $(TASKS),5000)
