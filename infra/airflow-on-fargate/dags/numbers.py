"""Numbers, split into odd and even in parallel containers of different sizes, and joined."""

from __future__ import annotations

import os

from airflow.sdk import Param, dag, task


def container(cpu: int, memory: int, **environment: str) -> dict[str, object]:
    """Return what a task overrides in its container: CPU units (1024 are a vCPU), MiB, and variables."""
    variables = [{"name": name, "value": value} for name, value in environment.items()]
    return {
        "overrides": {
            "cpu": str(cpu),
            "memory": str(memory),
            "containerOverrides": [{"name": "airflow", "environment": variables}],
        }
    }


@dag(
    schedule=None,
    catchup=False,
    params={"count": Param(100, type="integer", minimum=1, maximum=1_000_000)},
    tags=["example"],
)
def numbers():
    """Sum the odd ones in half a vCPU, the even ones in a whole one."""

    # What takes no time of its own runs on the pool.
    @task(queue="short")
    def count(params: dict[str, int]) -> int:
        return params["count"]

    @task
    def add(until: int) -> int:
        first = {"odd": 1, "even": 2}[os.environ["KIND"]]
        total = sum(range(first, until + 1, 2))
        print(f"the {os.environ['KIND']} numbers up to {until} add up to {total}")
        return total

    @task(queue="short")
    def join(odd: int, even: int) -> int:
        print(f"together {odd + even}")
        return odd + even

    until = count()
    join(
        odd=add.override(task_id="odd", executor_config=container(512, 2048, KIND="odd"))(until),
        even=add.override(task_id="even", executor_config=container(1024, 4096, KIND="even"))(until),
    )


numbers()
