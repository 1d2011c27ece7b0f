"""The drop-in for EcsRunTaskOperator in a whole Airflow, in a worker and in the triggerer."""

from __future__ import annotations

from typing import Any
from urllib.error import HTTPError

from stacks import PROFILES, start_counts
from test_live import environment, go
from test_operator import log_of, of_run

from local_stack import LocalStack

MODES = {"worker": "running", "triggerer": "deferred"}
PERMITTED = {
    "ecs-run-task": {
        "container_name": "main",
        "run_task": {"taskDefinition": "demo"},
        "allow_overrides": [
            "taskDefinition=demo",
            "cluster=local",
            "launchType=FARGATE",
            "networkConfiguration.awsvpcConfiguration.subnets=subnet-*",
            "overrides.cpu",
            "overrides.containerOverrides.environment",
        ],
    }
}


def submissions(stack: LocalStack, run: str, task: str) -> list[dict[str, Any]]:
    return [row for row in of_run(stack, run) if row["labels"]["task_id"] == task]


def xcom(airflow: Any, run: str, task: str, key: str) -> Any:
    path = f"/api/v2/dags/compat/dagRuns/{run}/taskInstances/{task}/xcomEntries/{key}"
    return airflow.call("GET", path)["value"]


def test_the_drop_in_does_in_both_modes_what_the_provider_s_operator_does(airflow, make_stack):
    with make_stack({**PROFILES, **PERMITTED}) as stack:
        # Some wait in workers: a slow scheduler must not take them for dead.
        local = environment(
            stack,
            AIRFLOW__CORE__EXECUTOR="LocalExecutor",
            AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD="600",
        )
        with airflow.triggerer(local), airflow.scheduler(local):
            run = airflow.trigger("compat")
            for mode, state in MODES.items():
                waits, marked = f"waits_in_{mode}", f"marked_in_{mode}"
                airflow.until(
                    f"{waits} shows its output",
                    lambda: "before" in output(airflow, run, waits),  # noqa: B023
                )
                assert airflow.task_instances(run)[waits, -1]["state"] == state
                # The ARN is known while the task runs.
                assert xcom(airflow, run, waits, "ecs_task_arn") == submissions(stack, run, waits)[0]["task_arn"]
                airflow.until(
                    f"{marked} runs",
                    lambda: [row["state"] for row in submissions(stack, run, marked)] == ["running"],  # noqa: B023
                )
                path = f"/api/v2/dags/compat/dagRuns/{run}/taskInstances/{marked}"
                airflow.call("PATCH", path, {"new_state": "failed"})
                airflow.until(
                    f"{marked} is stopped",
                    lambda: [row["state"] for row in submissions(stack, run, marked)] == ["cancelled"],  # noqa: B023
                )
            go(airflow, run)
            assert airflow.finish(run) == "failed"
        states = {task: ti["state"] for (task, _), ti in airflow.task_instances(run).items()}
        counts = start_counts(stack, run)
    for mode in MODES:
        expected = {"waits": "success", "fails": "failed", "skips": "skipped", "marked": "failed", "typo": "failed"}
        assert {f"{task}_in_{mode}": state for task, state in expected.items()}.items() <= states.items()
        assert states[f"uses_{mode}"] == "success"
        assert xcom(airflow, run, f"waits_in_{mode}", "return_value") == "last"
        log = log_of(airflow, "compat", run, f"waits_in_{mode}")
        assert log.index("before") < log.index("after")
        assert "reattach is not necessary" in log
        log = log_of(airflow, "compat", run, f"fails_in_{mode}")
        assert "This task is not in success state - last 2 logs from Cloudwatch:" in log
        assert "exit code 7" in log or "exited with 7" in log
        assert "ecs-bridge show op-" in log
        log = log_of(airflow, "compat", run, f"typo_in_{mode}")
        assert "EcsOperatorError" in log
        assert "unknown_profile" in log
    assert set(counts.values()) == {1}


def output(airflow: Any, run: str, task: str) -> str:
    """Return a task's log without its command; before its first line there is none."""
    try:
        log = log_of(airflow, "compat", run, task)
    except HTTPError as error:
        if error.code != 404:
            raise
        return ""
    # The lines have times in a worker, as CloudWatch's have. A local stack has none.
    return "\n".join(line for line in log.split("{") if "echo" not in line)
