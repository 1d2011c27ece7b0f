# The Python environments, lint and types, and the tests of the client and the runner.

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

.PHONY: venvs
venvs: $(VENV)/.done $(foreach group,airflow airflow2 callers infra checkov emulator,.venv-$(group)/.done)

.PHONY: lock
lock: $(UV) ## write uv.lock anew after a change of dependencies (UPGRADE=package)
	$(UV) lock $(UPGRADE:%=--upgrade-package %)

# Runs both checks, whatever the first finds.
.PHONY: lint-python
lint-python: $(VENV)/.done
	failed=0; $(VENV)/bin/ruff check . || failed=1; $(VENV)/bin/ruff format --check . || failed=1; exit $$failed

# Each package in an environment with its dependencies. The others import by path, as they are no packages, and the folders
# of a call are those that one program may import from. Caches are apart, because calls may run concurrently.
SHARED := python/ecs_bridge/src:tests/lib
.PHONY: mypy mypy-client mypy-executor mypy-tools
mypy: mypy-client mypy-executor mypy-tools ## types of all packages, tools, benches and helpers of tests
mypy-client: .venv-callers/.done
	$(CALLERS)/mypy --cache-dir .mypy_cache/client --config-file python/ecs_bridge/pyproject.toml python/ecs_bridge/src
mypy-executor: .venv-airflow/.done
	$(AIRFLOW)/mypy --cache-dir .mypy_cache/executor --config-file python/airflow_ecs_bridge/pyproject.toml python/airflow_ecs_bridge/src
mypy-tools: $(VENV)/.done
	MYPYPATH=$(SHARED):tools:docs/site:tests/airflow:examples/airflow $(VENV)/bin/mypy --cache-dir .mypy_cache/tools tests/lib tools docs/site
	MYPYPATH=$(SHARED):benches:benches/executor:tests/python/runner $(VENV)/bin/mypy --cache-dir .mypy_cache/benches --exclude benches/peer benches

.PHONY: test-client tests/python/client tests/python/callers
test-client: mypy-client tests/python/client tests/python/callers ## the Python client, and the worker of Prefect and the run launcher of Dagster that use it
tests/python/client tests/python/callers: programs .venv-callers/.done
	$(CALLERS)/python -m pytest -q $@

.PHONY: test-runner test-runner-program tests/python/runner
test-runner: test-runner-program tests/python/runner ## the runner program, and the zygote with a real Airflow
test-runner-program:
	cargo test --locked --quiet -p ecs-bridge-runner
tests/python/runner: programs .venv-airflow/.done
	$(AIRFLOW)/python -m pytest -q $@
