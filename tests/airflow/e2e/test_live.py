"""The output of a container is in the log of its task while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from stacks import scheduler_environment
from test_operator import QUICK, log_of

from local_stack import LocalStack


def environment(stack: LocalStack, **more: str) -> dict[str, str]:
    return scheduler_environment(stack, **QUICK, AIRFLOW__ECS_BRIDGE_EXECUTOR__LOCAL_LOG_DIR=str(stack.log_dir), **more)


def go(airflow: Any, run: str) -> None:
    Path(f"{airflow.ran}.{run}.go").touch()


def log_so_far(airflow: Any, run: str, task: str) -> str:
    """Return a task's log; before its first line there is none."""
    try:
        return log_of(airflow, "live", run, task)
    except HTTPError as error:
        if error.code != 404:
            raise
        return ""


def shown(log: str, text: str) -> int:
    """Count the entries of a log that are just this text."""
    return log.count(f"'event': '{text}'")


def test_the_operator_s_task_shows_output_while_its_command_runs(airflow, stack):
    # A slow scheduler that takes itself for dead would cost a try: this executor adopts nothing.
    patient = {"AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "600"}
    local = environment(stack, AIRFLOW__CORE__EXECUTOR="LocalExecutor", **patient)
    tasks = ("in_triggerer", "in_worker")
    with airflow.triggerer(local), airflow.scheduler(local):
        run = airflow.trigger("live")
        for task in tasks:
            airflow.until(f"{task} shows its output", lambda: shown(log_so_far(airflow, run, task), "before"))  # noqa: B023
        # Not one has ended: all wait for this.
        states = {task: airflow.task_instances(run)[task, -1]["state"] for task in tasks}
        assert states == {"in_triggerer": "deferred", "in_worker": "running"}
        go(airflow, run)
        assert airflow.finish(run) == "success"
    for task in tasks:
        log = log_of(airflow, "live", run, task)
        assert (shown(log, "before"), shown(log, "after")) == (1, 1)
        assert log.index("'event': 'before'") < log.index("'event': 'after'")


def test_the_log_view_shows_what_a_running_worker_s_container_writes(airflow, stack, tmp_path):
    # As where worker and API server share no disk.
    apart = environment(stack, AIRFLOW__LOGGING__BASE_LOG_FOLDER=str(tmp_path))
    with airflow.scheduler(environment(stack)), airflow.api_server(apart) as url:
        run = airflow.trigger("live_executor")
        path = f"/api/v2/dags/live_executor/dagRuns/{run}/taskInstances/prints/logs/1?full_content=true"

        def log() -> str:
            try:
                return str(airflow.call("GET", path, url=url)["content"])
            except HTTPError as error:
                if error.code != 404:
                    raise
                return ""

        # Airflow's worker says this to its standard output alone.
        airflow.until("it shows the container's output", lambda: "Executing workload" in log())
        airflow.until("it shows that of the task", lambda: shown(log(), "before"))
        assert shown(log(), "before") == 1
        go(airflow, run)
        assert airflow.finish(run) == "success"
