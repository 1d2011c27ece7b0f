"""A Dag on a pool, whose runners and scheduler are killed."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from local_stack import LocalStack, kill_runner, runner_process
from stacks import PROFILES, scheduler_environment

POOL = {
    "container_name": "main",
    "run_task": {**PROFILES["default"]["run_task"], "taskDefinition": "demo-pool"},
    "pool": {
        "max": 5,
        "min_idle": 2,
        "take_interval_ms": 200,
        "commands_per_container": 10,
        "runner": ["ecs-bridge-runner", "--zygote", "python -m airflow_ecs_bridge.zygote"],
    },
}


def idle(stack: LocalStack) -> list[str]:
    """Return the runners that have asked for work and have none."""
    runners = {row["submission_id"]: row["runner"] for row in stack.rows() if "runner" in row and "check_at" in row}
    return [
        id
        for id, runner in runners.items()
        if "incarnation" in runner and "serves" not in runner and not runner["closing"]
    ]


def descendants(pid: int) -> set[int]:
    """Return the processes that a process has started, and theirs."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # After the name, which may have spaces, come the state and the parent.
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def submissions(stack: LocalStack, run: str) -> list[dict[str, Any]]:
    return [row for row in stack.rows() if row.get("labels", {}).get("run_id") == run]


def test_thirty_tasks_on_five_runners_survive_the_death_of_the_scheduler_and_of_runners(airflow, make_stack):
    with make_stack({**PROFILES, "pool": POOL}, **{"reconcile-every": 1}) as stack:
        environment = scheduler_environment(stack, AIRFLOW__CORE__PARALLELISM="32")
        dead = airflow.until("two runners are idle", lambda: idle(stack)[1:])[0]
        kill_runner(dead)
        airflow.until("its end is known", lambda: stack.row(dead)["state"] == "failed")

        with airflow.scheduler(environment) as scheduler:
            run = airflow.trigger("pooled")
            airflow.until("several ran, and others wait", lambda: len(airflow.lines(run)) >= 3)
            os.kill(scheduler.pid, signal.SIGKILL)
            scheduler.wait()
        with airflow.scheduler(environment):
            airflow.until("the victim runs", lambda: "works 0 works" in airflow.lines(run))
            victim = airflow.task_instances(run)["works", 0]["external_executor_id"]
            runner = stack.row(victim)["pooled"]["taken"]["runner_id"]
            # The runner, its zygote, and the worker with its task.
            processes = descendants(runner_process(runner))
            assert len(processes) >= 4
            kill_runner(runner)
            airflow.until("its end is known", lambda: stack.row(victim)["state"] == "failed")
            airflow.until("nothing of it is left", lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes))
            assert airflow.finish(run) == "success"

        tries = {number: ti["try_number"] for (_, number), ti in airflow.task_instances(run).items()}
        assert tries == {number: 1 + (number == 0) for number in range(30)}
        assert Counter(airflow.lines(run)) == {f"works {number} works": tries[number] for number in range(30)}
        rows = submissions(stack, run)
        assert len(rows) == 31
        assert all(row["attempt"] == 1 and "pooled" in row for row in rows)
        assert stack.row(victim)["state"] == "failed"
        assert stack.row(victim)["reason"]
