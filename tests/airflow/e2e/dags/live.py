"""Tasks that print, wait for a file, and print again."""

from __future__ import annotations

import os
import time
from pathlib import Path

from airflow.sdk import DAG, task

from airflow_ecs_bridge.operators import EcsBridgeOperator

COMMAND = ["sh", "-c", "echo before; while ! test -e $RAN.{{ run_id }}.go; do sleep 0.2; done; echo after"]

with DAG("live", schedule=None):
    EcsBridgeOperator(task_id="in_triggerer", command=COMMAND)
    EcsBridgeOperator(task_id="in_worker", command=COMMAND, deferrable=False)

with DAG("live_executor", schedule=None):

    @task
    def prints(run_id: str) -> None:
        """Print, and wait."""
        print("before")
        while not Path(f"{os.environ['RAN']}.{run_id}.go").exists():
            time.sleep(0.2)

    prints(run_id="{{ run_id }}")
