# Single benches.

.PHONY: bench-executor
bench-executor: .venv-airflow/.done
	$(AIRFLOW)/python benches/executor/bench.py $(ARGS)

.PHONY: bench-operator
bench-operator: .venv-airflow-bench/.done ## the operator's triggerer beside that of EcsRunTaskOperator, 1,000 waiting in each: ARGS=--quick
	.venv-airflow-bench/bin/python benches/executor/operators.py $(ARGS)
