"""A few tasks that leave a line in $RAN for each time that their code runs."""

from __future__ import annotations

import os
import time
from datetime import timedelta

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, dag, get_current_context, task


def leave_a_line(what: str) -> None:
    """Say that the code ran."""
    ti = get_current_context()["ti"]
    with open(os.environ["RAN"], "a") as file:
        file.write(f"{ti.run_id} {ti.task_id} {ti.map_index} {what}\n")


class Nap(BaseOperator):
    """Defers for a moment."""

    def __init__(self, seconds: float, **kwargs) -> None:
        super().__init__(**kwargs)
        self.seconds = seconds

    def execute(self, context) -> None:
        leave_a_line("before the nap")
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=self.seconds)), method_name="wake")

    def wake(self, context, event=None) -> None:
        leave_a_line("after the nap")


@dag(schedule=None, catchup=False, default_args={"retries": 3})
def crash():
    """Three mapped tasks, a deferral, and one that comes after all."""

    @task
    def works(number: int) -> int:
        leave_a_line("works")
        time.sleep(4)
        return number

    @task
    def last(numbers: list[int]) -> None:
        leave_a_line(f"last {sum(numbers)}")

    numbers = works.expand(number=[1, 2, 3])
    Nap(task_id="nap", seconds=2) >> last(numbers)


crash()


@dag(schedule=None, catchup=False, default_args={"retries": 3})
def nap():
    """A deferral alone."""
    Nap(task_id="nap", seconds=1)


nap()


@dag(schedule=None, catchup=False, max_active_tasks=30, default_args={"retries": 1, "retry_delay": timedelta(0)})
def pooled():
    """Thirty tasks for a pool. The first try of the first one ends only with its container."""

    @task(queue="pool")
    def works(number: int) -> None:
        leave_a_line("works")
        is_victim = number == 0 and get_current_context()["ti"].try_number == 1
        time.sleep(10_000 if is_victim else 1)

    works.expand(number=list(range(30)))


pooled()


@dag(schedule=None, catchup=False)
def long():
    """A task that runs until it is told to end, and one that waits for its slot."""

    @task
    def runs() -> None:
        leave_a_line("runs")
        if not os.path.exists(os.environ["RAN"] + ".quick"):
            time.sleep(300)

    @task(priority_weight=0)
    def waits() -> None:
        leave_a_line("waits")

    runs()
    waits()


long()
