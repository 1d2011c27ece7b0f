"""The operator in a whole Airflow: no worker, and a triggerer that is killed."""

from __future__ import annotations

from collections import Counter
from typing import Any

from local_stack import LocalStack
from stacks import scheduler_environment, start_counts

# A triggerer that is gone is noticed within seconds.
QUICK = {
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "5",
}


def of_run(stack: LocalStack, run: str) -> list[dict[str, Any]]:
    return [row for row in stack.rows() if row.get("labels", {}).get("run_id") == run]


def test_two_hundred_commands_need_no_worker_and_survive_the_triggerers_death(airflow, stack):
    environment = scheduler_environment(stack, **QUICK)
    with airflow.triggerer(environment) as replace, airflow.scheduler(environment):
        run = airflow.trigger("commands")
        airflow.until("some run", lambda: len(airflow.lines(run)) >= 20, 300)
        assert len(airflow.lines(run)) < 200
        replace()
        assert airflow.finish(run, 600) == "success"
    assert Counter(airflow.lines(run)) == {f"command {number} commands": 1 for number in range(200)}
    counts = start_counts(stack, run)
    assert len(counts) == 200
    assert set(counts.values()) == {1}
    # A worker's submission would have the executor's id.
    assert all(id.startswith("op-") for id in counts)


def test_each_end_is_told(airflow, stack):
    environment = scheduler_environment(stack, **QUICK)
    with airflow.triggerer(environment), airflow.scheduler(environment):
        run = airflow.trigger("ends")
        running = lambda: [row for row in of_run(stack, run) if row["labels"]["task_id"] == "cleared"]  # noqa: E731
        airflow.until("it runs", lambda: running() and running()[0]["state"] == "running", 300)
        [row] = running()
        path = f"/api/v2/dags/ends/dagRuns/{run}/taskInstances/cleared"
        airflow.call("PATCH", path, {"new_state": "failed"})
        airflow.until("it is stopped", lambda: stack.row(row["submission_id"])["state"] == "cancelled", 120)
        assert airflow.finish(run, 300) == "failed"
        (late,) = [row for row in of_run(stack, run) if row["labels"]["task_id"] == "late"]
        airflow.until("it is stopped", lambda: stack.row(late["submission_id"])["state"] == "cancelled", 120)
    states = {task: ti["state"] for (task, _), ti in airflow.task_instances(run).items()}
    assert states == {
        "fails": "failed",
        "typo": "failed",
        "unknown": "failed",
        "cleared": "failed",
        "late": "failed",
        "skips": "skipped",
        "from_worker": "success",
    }
    logs = {task: log_of(airflow, "ends", run, task) for task in ("fails", "typo", "unknown")}
    for words in ("exit code 7", "ecs-bridge show op-"):
        assert words in logs["fails"]
    assert "command must be a list of strings" in logs["typo"]
    assert "unknown_profile" in logs["unknown"]


def log_of(airflow, dag: str, run: str, task: str) -> str:
    """Return the log of a task's first try, as the UI shows it."""
    answer = airflow.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/1?full_content=true")
    return str(answer["content"])
