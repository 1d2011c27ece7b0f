"""The operator with real triggerers: frozen, killed, and beside a worker's start."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from stacks import scheduler_environment, start_counts
from test_operator import QUICK, log_of, of_run

from local_stack import LocalStack

LEFT_ALONE = "task is still deferred; another triggerer waits for it"


def test_a_triggerer_that_loses_its_triggers_ends_no_command(airflow, stack):
    """Airflow 3.3 calls on_kill for each trigger that a triggerer no longer owns."""
    environment = scheduler_environment(stack, **QUICK)

    def owners() -> set[int]:
        return {row[0] for row in airflow.rows("SELECT triggerer_id FROM trigger")}

    with airflow.triggerer(environment) as replace, airflow.scheduler(environment):
        frozen = replace()
        run = airflow.trigger("held")
        airflow.until("all run", lambda: len(airflow.lines(run)) == 4, 300)
        first = owners()
        with airflow.another_triggerer(environment) as other:
            freeze(frozen.pid, signal.SIGSTOP)
            try:
                airflow.until("another has them", lambda: len(owners()) == 1 and not owners() & first, 300)
            finally:
                freeze(frozen.pid, signal.SIGCONT)
            airflow.until("it has noticed", lambda: left_alone(airflow, stack, run) + stopped(stack, run) >= 4, 300)
            assert stopped(stack, run) == 0
            # And back again, when the other one is killed.
            os.killpg(other.pid, signal.SIGKILL)
            airflow.until("the first has them again", lambda: owners() == first, 300)
        Path(f"{airflow.ran}.go").touch()
        assert airflow.finish(run, 300) == "success"
    assert set(start_counts(stack, run).values()) == {1}
    assert len(start_counts(stack, run)) == 4


def test_a_command_that_no_triggerer_waited_for_is_stopped_by_the_next_try(airflow, stack):
    environment = scheduler_environment(stack, **QUICK)
    Path(f"{airflow.ran}.go").unlink(missing_ok=True)
    with airflow.triggerer(environment) as replace, airflow.scheduler(environment):
        dies = replace()
        run = airflow.trigger("held")
        airflow.until("all run", lambda: len(airflow.lines(run)) == 4, 300)
        os.killpg(dies.pid, signal.SIGKILL)
        dies.wait()
        body = {"dry_run": False, "task_ids": ["held-1"], "dag_run_id": run, "only_failed": False}
        airflow.call("POST", "/api/v2/dags/held/clearTaskInstances", body)
        replace()
        airflow.until("the first try's command is stopped", lambda: stopped(stack, run) == 1, 300)
        Path(f"{airflow.ran}.go").touch()
        assert airflow.finish(run, 300) == "success"
    states = {
        (row["labels"]["task_id"], row["labels"]["try_number"]): row["state"]
        for row in of_run(stack, run)
        if row["labels"]["task_id"] == "held-1"
    }
    assert states == {("held-1", "1"): "cancelled", ("held-1", "2"): "succeeded"}


def test_each_kind_of_task_is_as_with_a_worker_s_start(airflow, stack):
    # Any executor: this one's workers are quick to start. It adopts nothing, and so a slow scheduler that takes itself
    # for dead would cost tries.
    patient = {"AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "600", "AIRFLOW__CORE__PARALLELISM": "3"}
    environment = scheduler_environment(stack, **QUICK, **patient, AIRFLOW__CORE__EXECUTOR="LocalExecutor")
    airflow.call("POST", "/api/v2/pools", {"name": "narrow", "slots": 1, "include_deferred": True})
    with airflow.triggerer(environment), airflow.scheduler(environment):
        runs = {dag: airflow.trigger(dag) for kind in KINDS for dag in (kind, f"{kind}_macros")}
        ends = {dag: airflow.finish(run, 900) for dag, run in runs.items()}
    seen = {kind: [observed(airflow, runs[dag], kind) for dag in (kind, f"{kind}_macros")] for kind in KINDS}
    assert seen["kinds_default"] == seen["kinds_worker"]
    assert set(ends.values()) == {"failed"}
    states, lines, events = seen["kinds_default"][0]
    assert events == 1
    assert lines == EXPECTED
    failed = {task for (task, _), (state, _) in states.items() if state == "failed"}
    assert failed == {"fails", "callback_failure", "mapped"}
    assert {task for (task, _), (state, _) in states.items() if state == "skipped"} == {"skips", "callback_skipped"}
    assert states["fails", -1] == ("failed", 2)
    assert seen["kinds_default"][1][1] == ["macro HELLO"]
    logs = {task: log_of(airflow, "kinds_default", runs["kinds_default"], task) for task in ("plain", "outlets")}
    assert "Task starts in the triggerer, without a worker" in logs["plain"]
    assert "Task starts in a worker, because it has outlets" in logs["outlets"]


KINDS = ("kinds_default", "kinds_worker")

EXPECTED = sorted(
    [
        "plain no-date 1",
        "fails try-1",
        "fails try-2",
        "skips skips",
        "output from-up",
        "pulls from-up",
        "previous none",
        "callback_success on_success",
        "callback_failure on_failure",
        "callback_skipped on_skipped",
        # Airflow calls these whenever a worker runs the task: at its start, and as it is resumed to end.
        *["on_execute on_execute", "pre_execute pre_execute"] * 2,
        "overrides execute",
        "mapped mapped 0",
    ]
)


def observed(airflow: Any, run: str, kind: str) -> tuple[Any, ...]:
    """Return what a run left behind: states and tries, lines, asset events."""
    states = {key: (ti["state"], ti["try_number"]) for key, ti in airflow.task_instances(run).items()}
    events = airflow.rows(
        "SELECT e.id FROM asset_event e JOIN asset a ON a.id = e.asset_id WHERE a.name = ? AND e.source_run_id = ?",
        f"asset-of-{kind}",
        run,
    )
    return states, airflow.lines(run), len(events)


def freeze(pid: int, how: signal.Signals) -> None:
    """Send a signal to a triggerer and to the process in which its triggers run."""
    os.killpg(pid, how)


def left_alone(airflow: Any, stack: LocalStack, run: str) -> int:
    """Count the commands of a run whose trigger was lost, and that were left alone."""
    # Airflow may have closed the trigger's own log by then.
    logs = [airflow.home / "triggerer.log", *airflow.home.joinpath("logs").glob(f"**/run_id={run}/**/*.trigger.*.log")]
    text = "\n".join(log.read_text() for log in logs)
    return sum(f"submission {row['submission_id']}: {LEFT_ALONE}" in text for row in of_run(stack, run))


def stopped(stack: LocalStack, run: str) -> int:
    """Count the commands of a run that were stopped."""
    return sum("stop_requested" in row or row["state"] == "cancelled" for row in of_run(stack, run))
