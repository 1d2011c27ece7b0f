"""What AwsEcsExecutor (provider 9.39.0) was seen to get wrong; that this executor does not share it.

| the peer | shown by |
|---|---|
| calls RunTask one by one in the scheduler's thread | test_executor: ..._does_no_network_io, ..._in_batches_of_... |
| describes everything in flight at every heartbeat | test_a_heartbeat_asks_once_however_much_is_in_flight |
| counts throttling as an attempt, and fails tasks for it | test_throttling_costs_no_task |
| lets NoCredentialsError out of a heartbeat | test_trouble: test_credentials_that_are_missing_... |
| swallows other client errors unlogged | test_errors_of_aws_are_logged |
| launches a failed or MISSING task again, though it may have run | test_what_failed_or_was_lost_is_not_launched_again |
| fills neither running nor slots at adoption | test_adoption: test_what_runs_is_adopted_takes_a_slot_... |
| orphans a task at a crash between RunTask and the next flush | e2e/test_crash.py |
| waits in end() for every task | test_executor: test_end_waits_for_what_was_handed_over_but_not_... |
| lacks revoke_task | test_executor: test_a_revoked_task_is_stopped_... |
| fails a task for its sidecar's exit code | test_the_named_container_s_exit_code_decides |
| tells the task's event log no reason | test_executor: test_a_failure_says_why_... |
| changes the user's nested executor_config | test_job: test_executor_config_is_never_changed |
"""

from __future__ import annotations

import pytest
from airflow.utils.state import TaskInstanceState
from test_executor import event, launched
from workloads import beat_until, run, task


def test_a_heartbeat_asks_once_however_much_is_in_flight(configure, start, bridge):
    configure(poll_interval="0.2")
    executor = start(parallelism=3000)
    items = [task(executor, f"t{n}") for n in range(2000)]
    run(executor, *items)
    launched(bridge, *items)
    bridge.calls.clear()
    beat_until(executor, lambda: bridge.calls["Query"] >= 5)
    assert bridge.calls.keys() == {"Query"}


def test_throttling_costs_no_task(executor, bridge):
    items = [task(executor, f"t{n}") for n in range(30)]
    bridge.fail("/v1/submissions", times=2, status=429)
    for item in items:
        bridge.item_errors[item.ti.external_executor_id].append({"code": "unavailable", "message": "throttled"})
    run(executor, *items)
    launched(bridge, *items)
    executor.heartbeat()
    assert executor.event_buffer == {}


def test_errors_of_aws_are_logged(executor, bridge, caplog):
    run(executor, item := task(executor))
    launched(bridge, item)
    bridge.fail("Query", status=400, body={"__type": "x#AccessDeniedException", "message": "not authorized to Query"})
    beat_until(executor, lambda: "not authorized to Query" in caplog.text)


@pytest.mark.parametrize("state", ["failed", "lost", "rejected"])
def test_what_failed_or_was_lost_is_not_launched_again(executor, bridge, state):
    run(executor, item := task(executor))
    launched(bridge, item)
    bridge.finish(item.ti.external_executor_id, state)
    beat_until(executor, lambda: event(executor, item))
    run(executor, other := task(executor, "other"))
    launched(bridge, other)
    assert bridge.starts[item.ti.external_executor_id] == 1
    assert [len(batch) for batch in bridge.batches] == [1, 1]


def test_the_named_container_s_exit_code_decides(executor, bridge):
    """The bridge records the named container's exit code alone; the executor goes by the record's state."""
    run(executor, item := task(executor))
    launched(bridge, item)
    bridge.finish(item.ti.external_executor_id, "succeeded", exit_code=0, stop_code="EssentialContainerExited")
    beat_until(executor, lambda: event(executor, item))
    assert event(executor, item)[0] == TaskInstanceState.SUCCESS
