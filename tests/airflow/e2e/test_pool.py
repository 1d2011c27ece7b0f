"""A Dag on a pool, whose runners and scheduler are killed."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from stacks import PROFILES, scheduler_environment

from local_stack import LocalStack, kill_runner, runner_process

POOL = {
    "container_name": "main",
    "run_task": {**PROFILES["default"]["run_task"], "taskDefinition": "demo-pool"},
    "pool": {
        "max": 5,
        "min_idle": 2,
        "poll_interval_ms": 200,
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


def processes() -> dict[int, int]:
    """Return the parent of each process that has not ended."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # After the name, which may have spaces. One that has ended may wait for its parent as a zombie.
            state, parent, *_ = (folder / "stat").read_text().rpartition(") ")[2].split()
            if state not in "ZX":
                found[int(folder.name)] = int(parent)
    return found


def with_descendants(pid: int) -> set[int]:
    """Return a process and all that it and they have started."""
    parents, found = processes(), {pid}
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
            container = with_descendants(runner_process(runner))
            assert len(container) >= 4
            kill_runner(runner)
            airflow.until("its end is known", lambda: stack.row(victim)["state"] == "failed")
            airflow.until("nothing of it is left", lambda: not container & processes().keys())
            assert airflow.finish(run) == "success"

        tries = {number: ti["try_number"] for (_, number), ti in airflow.task_instances(run).items()}
        assert tries == {number: 1 + (number == 0) for number in range(30)}
        assert Counter(airflow.lines(run)) == {f"works {number} works": tries[number] for number in range(30)}
        rows = submissions(stack, run)
        assert len(rows) == 31
        assert all(row["attempt"] == 1 and "pooled" in row for row in rows)
        assert stack.row(victim)["state"] == "failed"
        assert stack.row(victim)["reason"]
