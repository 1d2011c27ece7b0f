"""Every kind of task, with LocalExecutor and through the bridge."""

from __future__ import annotations

from stacks import scheduler_environment, start_counts


def test_every_task_instance_ends_as_with_local_executor(airflow, stack):
    # On a busy machine a loop takes longer than the threshold of these tests, and Airflow then starts the tasks of
    # LocalExecutor, which adopts none, once more.
    retry_timeout = {"AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "300"}
    with airflow.scheduler({"AIRFLOW__CORE__EXECUTOR": "LocalExecutor", **retry_timeout}):
        local_run = airflow.trigger("everything")
        assert airflow.finish(local_run) == "failed"
    with airflow.scheduler(scheduler_environment(stack)):
        run = airflow.trigger("everything")
        assert airflow.finish(run, 1800) == "failed"
        # Before the scheduler ends: results are still to be taken.
        expected = {key: (ti["state"], ti["try_number"]) for key, ti in airflow.task_instances(local_run).items()}
        ours = airflow.task_instances(run)
        assert {key: (ti["state"], ti["try_number"]) for key, ti in ours.items()} == expected

    assert expected["fails_once", -1] == ("success", 2)
    assert expected["fails_always", -1] == ("failed", 2)
    assert expected["comes_after_a_failure", -1][0] == "upstream_failed"
    assert expected["grows", -1] == ("success", 3)
    assert expected["waits", -1] == ("success", 1)
    assert sum(task_id == "square" for task_id, _ in expected) == 12

    # A worker tells Airflow how its task ended, and then exits.
    airflow.until("all containers have ended", lambda: all(row["state"] == "succeeded" for row in stack.rows()))
    known = {row["submission_id"]: row for row in stack.rows()}
    for (task_id, map_index), ti in ours.items():
        if ti["state"] == "upstream_failed":
            continue
        row = known[ti["external_executor_id"]]
        # Airflow 3's worker exits 0 whatever became of the task: it has told the API server.
        assert (row["state"], row["exit_code"]) == ("succeeded", 0), task_id
        assert row["labels"]["task_id"] == task_id
        assert row["labels"].get("map_index") == (None if map_index < 0 else str(map_index))
    counts = start_counts(stack, run)
    assert set(counts.values()) == {1}
    assert (
        len(counts) == len([ti for ti in ours.values() if ti["state"] != "upstream_failed"]) + 5
    )  # 4 retries, 1 deferral

    sizes = {
        row["labels"]["try_number"]: row["memory"] for row in known.values() if row["labels"]["task_id"] == "grows"
    }
    assert sizes == {"1": 1024, "2": 2048, "3": 2048}, "only the first try ran out of memory"

    (greeting,) = airflow.rows("SELECT value FROM xcom WHERE run_id = ? AND task_id = 'has_resources'", run)[0]
    assert "from executor_config" in greeting
    resources = next(
        t for t in stack.tasks() if t["submission_id"] == ours["has_resources", -1]["external_executor_id"]
    )
    assert resources["exit_code"] == 0
