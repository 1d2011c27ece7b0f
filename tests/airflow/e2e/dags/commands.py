"""Commands of the operator: no worker, no Airflow in the container."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_ecs_bridge.operators import EcsBridgeOperator

with DAG("commands", schedule=None):
    for number in range(100):
        EcsBridgeOperator(
            task_id=f"command-{number}",
            command=["sh", "-c", f"echo {{{{ run_id }}}} command {number} $FROM >> $RAN; sleep 3"],
            environment={"FROM": "{{ dag.dag_id }}"},
            container="main",
        )

with DAG("ends", schedule=None):
    EcsBridgeOperator(task_id="fails", command=["sh", "-c", "exit 7"])
    EcsBridgeOperator(task_id="typo", command="echo hello")
    EcsBridgeOperator(task_id="unknown", command=["true"], profile="nobody")
    EcsBridgeOperator(task_id="from_worker", command=["true"], start_from_trigger=False)
    EcsBridgeOperator(task_id="skips", command=["sh", "-c", "exit 99"], skip_on_exit_code=[99])
    EcsBridgeOperator(task_id="late", command=["sleep", "600"], execution_timeout=timedelta(seconds=10))
    EcsBridgeOperator(task_id="marked", command=["sleep", "600"])
    EcsBridgeOperator(task_id="cleared", command=["sh", "-c", "test -e $RAN.cleared || sleep 600"])
