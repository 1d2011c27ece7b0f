"""The operator in a whole Airflow: no worker, and a triggerer that is killed."""

from __future__ import annotations

from collections import Counter
from typing import Any

from stacks import scheduler_environment, start_counts

from local_stack import LocalStack

# A triggerer that is gone is noticed soon, and one that is only slow is not taken for gone.
QUICK = {
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "30",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "5",
}


def of_run(stack: LocalStack, run: str) -> list[dict[str, Any]]:
    return [row for row in stack.rows() if row.get("labels", {}).get("run_id") == run]


def test_a_hundred_commands_need_no_worker_and_survive_the_triggerers_death(airflow, stack):
    environment = scheduler_environment(stack, **QUICK)
    with airflow.triggerer(environment) as replace, airflow.scheduler(environment):
        run = airflow.trigger("commands")
        airflow.until("some run", lambda: len(airflow.lines(run)) >= 10)
        assert len(airflow.lines(run)) < 100
        replace()
        assert airflow.finish(run) == "success"
    assert Counter(airflow.lines(run)) == {f"command {number} commands": 1 for number in range(100)}
    counts = start_counts(stack, run)
    assert len(counts) == 100
    assert set(counts.values()) == {1}
    # A worker's submission would have the executor's id.
    assert all(id.startswith("op-") for id in counts)


def test_each_wait_and_each_end_is_told(airflow, stack):
    environment = scheduler_environment(stack, **QUICK)

    def rows(task: str) -> list[dict[str, Any]]:
        # Not those of workers: one fails the task that is late, if the scheduler notices before the trigger tells.
        commands = [row for row in of_run(stack, run) if row["submission_id"].startswith("op-")]
        return [row for row in commands if row["labels"]["task_id"] == task]

    def until_it_runs(task: str) -> dict[str, Any]:
        airflow.until(f"{task} runs", lambda: [row["state"] for row in rows(task)] == ["running"])
        return rows(task)[0]

    def until_it_is_stopped(row: dict[str, Any]) -> None:
        airflow.until("it is stopped", lambda: stack.row(row["submission_id"])["state"] == "cancelled")

    stack.without("FARGATE")
    with airflow.triggerer(environment), airflow.scheduler(environment):
        run = airflow.trigger("ends")
        deferred = lambda: airflow.task_instances(run).get(("marked", -1), {}).get("state") == "deferred"  # noqa: E731
        airflow.until("its trigger waits", deferred)
        # For which resource, the stand-in for ECS chooses.
        waits = lambda: "state queued: " in log_of(airflow, "ends", run, "marked")  # noqa: E731
        airflow.until("its log says for what it waits", waits)
        stack.without()
        marked, cleared = until_it_runs("marked"), until_it_runs("cleared")
        airflow.call("PATCH", f"/api/v2/dags/ends/dagRuns/{run}/taskInstances/marked", {"new_state": "failed"})
        until_it_is_stopped(marked)
        airflow.ran.with_name(airflow.ran.name + ".cleared").touch()
        body = {"dry_run": False, "task_ids": ["cleared"], "dag_run_id": run, "only_failed": False}
        airflow.call("POST", "/api/v2/dags/ends/clearTaskInstances", body)
        until_it_is_stopped(cleared)
        assert airflow.finish(run) == "failed"
        # None, where its time was over before its trigger began.
        for row in rows("late"):
            until_it_is_stopped(row)
    states = {task: ti["state"] for (task, _), ti in airflow.task_instances(run).items()}
    assert states == {
        "fails": "failed",
        "typo": "failed",
        "unknown": "failed",
        "marked": "failed",
        "cleared": "success",
        "late": "failed",
        "skips": "skipped",
        "from_worker": "success",
    }
    logs = {task: log_of(airflow, "ends", run, task) for task in ("fails", "typo", "unknown")}
    for words in ("exit code 7", "ecs-bridge show op-"):
        assert words in logs["fails"]
    assert "must be a non-empty list of strings" in logs["typo"]
    assert "unknown_profile" in logs["unknown"]
    assert sorted(row["state"] for row in rows("cleared")) == ["cancelled", "succeeded"]


def log_of(airflow, dag: str, run: str, task: str) -> str:
    """Return the log of a task's first try, as the UI shows it."""
    answer = airflow.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/1?full_content=true")
    return str(answer["content"])
