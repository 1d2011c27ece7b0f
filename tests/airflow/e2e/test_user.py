"""What people do to task instances that run."""

from __future__ import annotations

import pytest
from stacks import scheduler_environment


@pytest.fixture
def running(airflow, stack):
    """A run of one task that takes long, and another that waits for the only slot."""
    quick = airflow.ran.with_name(airflow.ran.name + ".quick")
    quick.unlink(missing_ok=True)
    with airflow.scheduler(scheduler_environment(stack, AIRFLOW__CORE__PARALLELISM="1")):
        run = airflow.trigger("long")
        airflow.until("it runs", lambda: "runs -1 runs" in airflow.lines(run))
        quick.touch()
        yield run


def container_of(stack, airflow, run: str) -> dict:
    id = airflow.task_instances(run)["runs", -1]["external_executor_id"]
    return stack.tasks(id)[0]


def until_ended(airflow, stack, container: dict) -> None:
    def ended() -> bool:
        (task,) = stack.tasks(container["submission_id"])
        return task["exit_code"] is not None

    airflow.until("the container has ended", ended)
    assert stack.tasks(container["submission_id"])[0]["exit_code"] == 0


def test_a_task_marked_failed_ends_its_container_and_frees_its_slot(airflow, stack, running):
    container = container_of(stack, airflow, running)
    path = f"/api/v2/dags/long/dagRuns/{running}/taskInstances/runs"
    airflow.call("PATCH", path, {"new_state": "failed"})
    until_ended(airflow, stack, container)
    assert airflow.finish(running) == "failed"
    tis = airflow.task_instances(running)
    assert tis["runs", -1]["state"] == "failed"
    assert tis["waits", -1]["state"] == "success"


def test_a_task_cleared_while_it_runs_ends_and_runs_again(airflow, stack, running):
    container = container_of(stack, airflow, running)
    body = {"dry_run": False, "task_ids": ["runs"], "dag_run_id": running, "only_failed": False}
    airflow.call("POST", "/api/v2/dags/long/clearTaskInstances", body)
    until_ended(airflow, stack, container)
    assert airflow.finish(running) == "success"
    assert airflow.lines(running).count("runs -1 runs") == 2
    tis = airflow.task_instances(running)
    assert {ti["state"] for ti in tis.values()} == {"success"}
    assert tis["runs", -1]["external_executor_id"] != container["submission_id"]
