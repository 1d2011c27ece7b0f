# Tests of the executor. They have environments of Airflow 3.3 and 2.11.

# Those that need no server.
UNIT_TESTS_OF_EXECUTOR := advice config job previous_tries starts wait_reasons

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

.PHONY: test-compat tests/airflow/conformance
test-compat: tests/airflow/conformance ## the Amazon provider's own tests of EcsRunTaskOperator, from PyPI, on the drop-in
tests/airflow/conformance: programs .venv-airflow/.done
	$(AIRFLOW)/python -m pytest -q -rs $@

.PHONY: test-system
test-system: .venv-airflow/.done ## the operator's system test on the bridge that AIRFLOW__ECS_BRIDGE_EXECUTOR__* name, in an account too
	$(AIRFLOW)/python -m pytest -q tests/airflow/system

# The last of each minor version that the package allows, and the newest beta.
AIRFLOWS ?= 2.10.5 2.11.2 3.0.6 3.1.8 3.2.2 3.3.2 3.4.0b2
.PHONY: test-matrix
test-matrix: .venv-airflow/.done ## executor and operator on every Airflow that they support, with real triggerers from 3.0 on, against a fake bridge: AIRFLOWS="3.0.6 3.1.8"
	$(AIRFLOW)/python tests/airflow/smoke.py $(AIRFLOWS)
