"""One of each kind of task; the end-to-end test runs it with LocalExecutor and with the bridge, and compares."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseSensorOperator, dag, get_current_context, task

MAPPED = 12

RESOURCES = {
    "overrides": {
        "cpu": "512",
        "containerOverrides": [
            {"name": "main", "environment": [{"name": "GREETING", "value": "from executor_config"}]}
        ],
    }
}


def memory(mebibytes: int, *environment: dict[str, str]) -> dict[str, object]:
    """A RunTask patch."""
    container = {"name": "main", "environment": list(environment)}
    return {"overrides": {"memory": str(mebibytes), "containerOverrides": [container]}}


# For the local stack, the first try runs out of memory.
SIZES = {
    "by_try": [
        memory(1024, {"name": "ECS_BRIDGE_LOCAL_SHAPE", "value": "out-of-memory"}),
        memory(2048),
        memory(4096),
    ],
    "by_try_condition": "out_of_memory",
}


class ShortSensor(BaseSensorOperator):
    """Defers for a moment, however slow the machine; Airflow's own do not if what they wait for is over."""

    def execute(self, context) -> None:
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=3)), method_name="execute_complete")

    def execute_complete(self, context, event=None) -> None:
        """Do nothing more."""


@dag(schedule=None, catchup=False, default_args={"retries": 0, "retry_delay": timedelta(seconds=1)})
def everything():
    """Bash, Python, XCom, retries, failure, deferral, mapping, executor_config."""
    said = BashOperator(task_id="bash", bash_command="echo the answer is 42", do_xcom_push=True)

    @task
    def hears(text: str) -> int:
        assert text == "the answer is 42"
        return int(text.split()[-1])

    @task(retries=1)
    def fails_once() -> None:
        if get_current_context()["ti"].try_number == 1:
            raise ValueError("the first try fails")

    @task(retries=1)
    def fails_always() -> None:
        raise ValueError("every try fails")

    @task
    def comes_after_a_failure() -> None:
        raise AssertionError("is not to run")

    @task
    def square(number: int) -> int:
        return number * number

    @task
    def total(squares: list[int]) -> int:
        result = sum(squares)
        assert result == sum(n * n for n in range(MAPPED))
        return result

    @task(executor_config=RESOURCES)
    def has_resources() -> str | None:
        return os.environ.get("GREETING")

    @task(executor_config=SIZES, retries=2)
    def grows() -> None:
        if get_current_context()["ti"].try_number < 3:
            raise MemoryError

    hears(said.output) >> ShortSensor(task_id="waits")
    fails_once()
    fails_always() >> comes_after_a_failure()
    total(square.expand(number=list(range(MAPPED))))
    has_resources()
    grows()


everything()
