"""A Dag to try the ECS bridge with: each of its tasks runs as a container of its own."""

from __future__ import annotations

import os
import time

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import dag, get_current_context, task

MORE_MEMORY = {
    "overrides": {
        "memory": "4096",
        "containerOverrides": [{"name": "airflow", "environment": [{"name": "STAGE", "value": "demo"}]}],
    }
}


@dag(schedule=None, catchup=False, tags=["ecs-bridge"])
def example_ecs_bridge():
    """Bash and Python tasks, XCom, mapped tasks, a retry, and a task with its own resources."""
    where = BashOperator(task_id="where", bash_command="echo running as process $$ on $(hostname)", do_xcom_push=True)

    @task
    def parts(line: str) -> list[int]:
        print(line)
        return [1, 2, 3, 4, 5]

    @task
    def work(part: int) -> int:
        time.sleep(part)
        return part * part

    @task(retries=1, retry_delay=1)
    def fails_once(results: list[int]) -> int:
        if get_current_context()["ti"].try_number == 1:
            raise RuntimeError("the first try fails, to show a retry")
        return sum(results)

    @task(executor_config=MORE_MEMORY)
    def with_more_memory(total: int) -> None:
        print(f"the total is {total}; STAGE is {os.environ['STAGE']}")

    with_more_memory(fails_once(work.expand(part=parts(where.output))))


example_ecs_bridge()
