"""Schedulers killed with SIGKILL, and what comes late."""

from __future__ import annotations

import os
import signal

from crash_executor import PLACES
from stacks import scheduler_environment, start_counts

CRASHING = "crash_executor.CrashingExecutor"
LINES = sorted(
    [f"works {n} works" for n in range(3)] + ["nap -1 before the nap", "nap -1 after the nap", "last -1 last 6"]
)


def assert_as_without_the_crash(airflow, stack, run: str) -> None:
    assert airflow.finish(run) == "success"
    states = {(ti["state"], ti["try_number"]) for ti in airflow.task_instances(run).values()}
    assert states == {("success", 1)}, "a try was lost"
    assert airflow.lines(run) == LINES, "code ran twice, or not at all"
    counts = start_counts(stack, run)
    assert set(counts.values()) == {1}
    assert len(counts) == 6  # three, and two of the nap, and the last


def test_a_scheduler_that_is_killed_at_each_step_of_a_queueing_loses_nothing(airflow, stack):
    environment = scheduler_environment(stack, AIRFLOW__CORE__EXECUTOR=CRASHING)
    run = None
    for place in PLACES:
        with airflow.scheduler({**environment, "CRASH_AT": place}) as scheduler:
            run = run or airflow.trigger("crash")
            airflow.until(f"the scheduler has died {place}", lambda: scheduler.poll() == -signal.SIGKILL)
    with airflow.scheduler(environment):
        assert_as_without_the_crash(airflow, stack, run)


def test_a_scheduler_that_is_killed_loses_nothing_where_ids_are_written_ahead(airflow, stack):
    # Beside LocalExecutor, for which Airflow assigns no ids, the executor makes its own.
    environment = scheduler_environment(stack, AIRFLOW__CORE__EXECUTOR=f"{CRASHING},LocalExecutor")
    with airflow.scheduler({**environment, "CRASH_AT": "in the submit call"}) as scheduler:
        run = airflow.trigger("crash")
        airflow.until("the scheduler has died", lambda: scheduler.poll() == -signal.SIGKILL)
    with airflow.scheduler(environment):
        assert_as_without_the_crash(airflow, stack, run)


def test_of_two_schedulers_one_is_killed_while_containers_run_and_the_other_loses_nothing(airflow, stack):
    environment = scheduler_environment(stack)

    def running(run: str) -> int:
        return sum(ti["state"] == "running" for (task_id, _), ti in airflow.task_instances(run).items())

    with airflow.scheduler(environment) as one, airflow.scheduler(environment):
        runs = [airflow.trigger("crash") for _ in range(2)]
        airflow.until("several run", lambda: sum(map(running, runs)) >= 3)
        os.kill(one.pid, signal.SIGKILL)
        one.wait()
        for run in runs:
            assert_as_without_the_crash(airflow, stack, run)


def test_a_late_success_of_a_deferred_task_s_first_run_does_not_fail_it(airflow, make_stack):
    # Events come 8 s late, and the nap takes 1 s: the task is queued again long before its first run's end is known.
    with make_stack(**{"delay-ms": "8000..8000"}) as stack, airflow.scheduler(scheduler_environment(stack)):
        run = airflow.trigger("nap")
        assert airflow.finish(run) == "success"
        ((_, ti),) = airflow.task_instances(run).items()
        assert (ti["state"], ti["try_number"]) == ("success", 1)
        ended = airflow.until(
            "both runs have ended for the bridge",
            lambda: [row for row in stack.rows() if row["state"] == "succeeded"][1:],
        )
        assert ended
        assert airflow.lines(run) == ["nap -1 after the nap", "nap -1 before the nap"]
        assert airflow.task_instances(run)["nap", -1]["state"] == "success"
        assert airflow.task_log_events(run, "state mismatch") == []
