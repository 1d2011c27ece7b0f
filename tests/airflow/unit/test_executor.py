"""The executor as the scheduler drives it, against a fake bridge."""

from __future__ import annotations

import json
import socket
import threading
import uuid
from typing import Any

import pytest
from airflow.utils.state import CallbackState, TaskInstanceState
from fake_bridge import PATIENCE, FakeBridge, now_ms
from workloads import beat_until, callback, orphan, run, task

from airflow_ecs_bridge import watcher
from airflow_ecs_bridge.keys import key_of
from airflow_ecs_bridge.submitter import THREADS

SUCCESS, FAILED, RUNNING, QUEUED = (
    TaskInstanceState.SUCCESS,
    TaskInstanceState.FAILED,
    TaskInstanceState.RUNNING,
    TaskInstanceState.QUEUED,
)


def launched(bridge: FakeBridge, *items: Any) -> None:
    bridge.wait_until(lambda: all(item.ti.external_executor_id in bridge.records for item in items))


def event(executor: Any, item: Any) -> Any:
    return executor.event_buffer.get(key_of(item.ti))


def task_events(executor: Any) -> list[str]:
    return [log.extra for log in executor._task_event_logs]


# Submitting


def test_the_weight_of_a_task_becomes_the_priority_of_its_submission(executor, bridge):
    run(executor, item := task(executor, priority_weight=101))
    launched(bridge, item)
    assert bridge.batches[0][0]["priority"] == 400


def test_a_task_is_submitted_under_the_id_that_airflow_committed(executor, bridge):
    item = task(executor)
    run(executor, item)
    launched(bridge, item)
    sent = bridge.batches[0][0]
    assert sent["submission_id"] == item.ti.external_executor_id
    assert sent["command"][:4] == ["python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string"]
    assert json.loads(sent["command"][4])["ti"]["task_id"] == "extract"
    assert sent["labels"]["dag_id"] == "orders"
    assert "profile" not in sent
    assert "priority" not in sent
    assert key_of(item.ti) in executor.running
    assert key_of(item.ti) not in executor._waiting_tasks


def test_no_running_event_overwrites_an_id_that_airflow_assigned(executor, bridge):
    item = task(executor)
    run(executor, item)
    launched(bridge, item)
    executor.heartbeat()
    assert executor.event_buffer == {}


def test_nothing_is_launched_after_the_worker_s_token_is_nearly_expired(executor, bridge):
    lasts = (600 - 60) * 1000
    before = now_ms()
    item = task(executor)
    run(executor, item)
    launched(bridge, item)
    deadline = bridge.batches[0][0]["launch_deadline"]
    # A token's times are whole seconds.
    assert before + lasts - 1000 <= deadline <= now_ms() + lasts


def test_the_call_is_signed_for_the_service_lambda(executor, bridge):
    run(executor, item := task(executor))
    launched(bridge, item)
    assert any("/eu-central-1/lambda/aws4_request" in signature for signature in bridge.signatures)


def test_a_thousand_tasks_go_out_in_batches_of_at_most_a_hundred(executor, bridge):
    # The calls that begin before everything was handed over.
    gate = threading.Event()
    bridge.fail("/v1/submissions", times=THREADS, status=503, carried_out=True, gate=gate)
    items = [task(executor, f"t{n}") for n in range(1000)]
    run(executor, *items)
    gate.set()
    launched(bridge, *items)
    assert max(len(batch) for batch in bridge.batches) <= 100
    assert bridge.calls["/v1/submissions"] <= 30
    assert set(bridge.starts.values()) == {1}


def test_the_scheduler_s_thread_does_no_network_io(start, bridge, monkeypatch):
    executor = start()
    scheduler = threading.current_thread()

    class Socket(socket.socket):
        def connect(self, address: Any) -> None:
            assert threading.current_thread() is not scheduler, "network I/O in the scheduler's thread"
            super().connect(address)

        def send(self, *args: Any) -> int:
            assert threading.current_thread() is not scheduler, "network I/O in the scheduler's thread"
            return super().send(*args)

        sendall = send

    monkeypatch.setattr(socket, "socket", Socket)
    items = [task(executor, f"t{n}") for n in range(20)]
    adopted = task(executor, "adopted")
    bridge.records[adopted.ti.external_executor_id] = {
        "submission_id": adopted.ti.external_executor_id,
        "state": "launched",
        "created_at": now_ms(),
        "content": None,
    }
    assert executor.try_adopt_task_instances([orphan(adopted)]) == []
    run(executor, *items)
    launched(bridge, *items)
    executor.revoke_task(ti=orphan(items[0], QUEUED))
    for item in [*items[1:], adopted]:
        bridge.finish(item.ti.external_executor_id)
    beat_until(executor, lambda: len(executor.event_buffer) == 20)


# Results


def test_exit_code_0_is_success(executor, bridge):
    run(executor, item := task(executor))
    launched(bridge, item)
    bridge.finish(item.ti.external_executor_id)
    beat_until(executor, lambda: event(executor, item))
    assert event(executor, item) == (SUCCESS, None)
    assert key_of(item.ti) not in executor.running
    assert executor.slots_available == 1000


def test_a_failure_says_why_in_info_and_in_the_task_s_event_log(executor, bridge):
    run(executor, item := task(executor))
    launched(bridge, item)
    bridge.finish(
        item.ti.external_executor_id,
        "failed",
        exit_code=137,
        stop_code="EssentialContainerExited",
        stopped_reason="OutOfMemoryError: container killed due to memory usage",
    )
    beat_until(executor, lambda: event(executor, item))
    state, info = event(executor, item)
    assert state == FAILED
    for fact in ("exit code 137", "EssentialContainerExited", "OutOfMemoryError", item.ti.external_executor_id, "arn:"):
        assert fact in info
    assert task_events(executor) == [info]


def test_the_scheduler_can_save_the_reasons(executor, bridge):
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.models.log import Log
    from sqlalchemy import create_engine, select
    from sqlalchemy.orm import Session

    items = [task(executor, name) for name in ("a", "b", "c")]
    run(executor, *items)
    launched(bridge, *items)
    for item in items:
        bridge.finish(item.ti.external_executor_id, "failed")
    beat_until(executor, lambda: len(executor.event_buffer) == 3)
    engine = create_engine("sqlite://")
    Log.__table__.create(engine)
    with Session(engine) as session:
        SchedulerJobRunner._process_task_event_logs(executor._task_event_logs, session)
        session.commit()
        rows = session.execute(select(Log.task_id, Log.event, Log.extra)).all()
    assert sorted((row.task_id, row.event) for row in rows) == [(name, "ecs_bridge.failed") for name in ("a", "b", "c")]
    assert all("exit code 1" in row.extra for row in rows)
    executor.heartbeat()
    assert executor._unsaved_events == []


def test_an_interruption_is_in_the_event_log_though_the_worker_exits_with_0(executor, bridge):
    run(executor, item := task(executor))
    launched(bridge, item)
    bridge.finish(
        item.ti.external_executor_id,
        reason="SpotInterruption with exit code 0",
        stop_code="SpotInterruption",
        stopped_reason="Your Spot Task was interrupted.",
    )
    beat_until(executor, lambda: event(executor, item))
    assert event(executor, item) == (SUCCESS, None)
    (log,) = executor._task_event_logs
    assert log.event == "ecs_bridge.interrupted"
    for fact in ("SpotInterruption", "Your Spot Task was interrupted.", "exit code 0", item.ti.external_executor_id):
        assert fact in log.extra


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_every_attempt_is_in_the_event_log(executor, bridge, state):
    run(executor, item := task(executor))
    launched(bridge, item)
    first, second = "SpotInterruption with exit code 143", "TaskFailedToStart: CannotPullContainerError"
    bridge.finish(item.ti.external_executor_id, state, attempts=[first, second], reason="attempt 3")
    beat_until(executor, lambda: event(executor, item))
    (text,) = task_events(executor)
    assert f"attempt 1 ended with {first}, attempt 2 ended with {second}" in text


def test_an_ordinary_success_costs_no_read_and_leaves_no_event(executor, bridge):
    run(executor, item := task(executor))
    launched(bridge, item)
    reads = bridge.calls["BatchGetItem"]
    bridge.finish(item.ti.external_executor_id, stop_code="EssentialContainerExited")
    beat_until(executor, lambda: event(executor, item))
    assert bridge.calls["BatchGetItem"] == reads
    assert task_events(executor) == []


def test_an_event_log_that_fails_loses_no_end(executor, bridge, monkeypatch, caplog):
    run(executor, item := task(executor))
    launched(bridge, item)
    monkeypatch.setattr(executor, "log_task_event", lambda **_: 1 / 0)
    bridge.finish(item.ti.external_executor_id, "failed")
    beat_until(executor, lambda: event(executor, item))
    assert event(executor, item)[0] == FAILED
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("state", ["rejected", "lost", "cancelled"])
def test_what_ended_without_an_exit_code_fails_the_task(executor, bridge, state):
    run(executor, item := task(executor))
    launched(bridge, item)
    bridge.finish(item.ti.external_executor_id, state, reason="no permission to run it")
    beat_until(executor, lambda: event(executor, item))
    assert event(executor, item)[0] == FAILED
    assert "no permission to run it" in event(executor, item)[1]


def test_expired_costs_no_try_there_is_no_event_and_the_slot_is_free(executor, bridge):
    run(executor, item := task(executor))
    launched(bridge, item)
    bridge.finish(item.ti.external_executor_id, "expired", reason="the launch deadline has passed")
    beat_until(executor, lambda: not executor.running)
    assert event(executor, item) is None
    assert "the launch deadline has passed" in task_events(executor)[0]


def test_each_end_is_reported_once_though_the_feed_is_read_again_and_again(executor, bridge):
    run(executor, item := task(executor), other := task(executor, "other"))
    launched(bridge, item, other)
    bridge.finish(item.ti.external_executor_id)
    beat_until(executor, lambda: event(executor, item))
    executor.get_event_buffer()
    queries = bridge.calls["Query"]
    beat_until(executor, lambda: bridge.calls["Query"] > queries + 3)
    assert executor.event_buffer == {}


def test_callbacks_run_through_the_bridge_too(executor, bridge):
    good, bad = callback(executor), callback(executor)
    run(executor, good, bad)
    bridge.wait_until(lambda: {good.callback.id, bad.callback.id} <= bridge.records.keys())
    bridge.finish(good.callback.id)
    bridge.finish(bad.callback.id, "failed")
    beat_until(executor, lambda: not executor.running)
    assert executor.event_buffer[good.key][0] == CallbackState.SUCCESS
    assert executor.event_buffer[bad.key][0] == CallbackState.FAILED
    assert not executor.running
    assert not executor.queued_callbacks


def test_a_callback_is_running_once_the_bridge_has_accepted_it(executor, bridge):
    gate = threading.Event()
    bridge.fail("/v1/submissions", carried_out=True, status=503, gate=gate)
    run(executor, item := callback(executor))
    executor.heartbeat()
    assert executor.event_buffer == {}
    gate.set()
    beat_until(executor, lambda: executor.event_buffer)
    assert executor.event_buffer == {item.key: (CallbackState.RUNNING, None)}
    assert item.key in executor.running


def test_a_callback_that_expired_has_failed(executor, bridge):
    run(executor, item := callback(executor))
    bridge.wait_until(lambda: item.callback.id in bridge.records)
    bridge.finish(item.callback.id, "expired", reason="the launch deadline has passed")
    beat_until(executor, lambda: not executor.running)
    state, info = executor.event_buffer[item.key]
    assert state == CallbackState.FAILED
    assert "the launch deadline has passed" in info


# One key, several submissions


def test_a_late_end_of_a_deferred_task_s_first_run_does_not_touch_the_second(executor, bridge):
    first = task(executor)
    run(executor, first)
    launched(bridge, first)
    second = task(executor)
    assert key_of(second.ti) == key_of(first.ti)
    run(executor, second)
    launched(bridge, second)
    bridge.finish(first.ti.external_executor_id)
    queries = bridge.calls["Query"]
    beat_until(executor, lambda: bridge.calls["Query"] > queries + 3)
    assert executor.event_buffer == {}
    assert key_of(first.ti) in executor.running
    bridge.finish(second.ti.external_executor_id)
    beat_until(executor, lambda: event(executor, second))
    assert event(executor, second)[0] == SUCCESS
    assert not executor.running


def test_the_end_of_a_first_run_frees_the_slot_that_the_second_waits_for(start, bridge):
    executor = start(parallelism=1)
    first, second = task(executor), task(executor)
    run(executor, first)
    launched(bridge, first)
    run(executor, second)
    assert key_of(second.ti) in executor._waiting_tasks
    bridge.finish(first.ti.external_executor_id)
    beat_until(executor, lambda: second.ti.external_executor_id in bridge.records)
    assert executor.event_buffer == {}
    assert executor.running == {key_of(second.ti)}


def test_without_an_assigned_id_it_is_written_ahead_before_the_bridge_hears_of_it(executor, bridge):
    item = task(executor, id=None)
    run(executor, item)
    state, submission_id = executor.get_event_buffer()[key_of(item.ti)]
    assert state == RUNNING
    assert uuid.UUID(submission_id)
    assert bridge.batches == []
    executor.heartbeat()
    bridge.wait_until(lambda: submission_id in bridge.records)
    bridge.finish(submission_id)
    beat_until(executor, lambda: event(executor, item))
    assert event(executor, item)[0] == SUCCESS


def test_an_id_is_not_trusted_where_airflow_may_have_left_an_old_one(start, bridge):
    executor = start(job_id=None)  # as in dag.test
    item = task(executor, id="left-from-an-earlier-run")
    run(executor, item)
    assert executor.get_event_buffer()[key_of(item.ti)][1] != "left-from-an-earlier-run"


def test_ids_are_written_ahead_beside_an_executor_that_airflow_assigns_none_for(start, bridge, monkeypatch):
    from airflow.executors.executor_loader import ExecutorLoader
    from airflow.executors.local_executor import LocalExecutor

    from airflow_ecs_bridge.executor import EcsBridgeExecutor

    names = {"ours": (EcsBridgeExecutor, None), "local": (LocalExecutor, None)}
    monkeypatch.setattr(ExecutorLoader, "get_executor_names", lambda: list(names))
    monkeypatch.setattr(ExecutorLoader, "import_executor_cls", names.__getitem__)
    executor = start()
    item = task(executor, id="perhaps-of-an-earlier-run")
    run(executor, item)
    state, id = executor.event_buffer[key_of(item.ti)]
    assert state == RUNNING
    assert id != "perhaps-of-an-earlier-run"


# Revoking and stopping


def test_a_revoked_task_is_stopped_and_no_event_follows(executor, bridge):
    run(executor, item := task(executor))
    launched(bridge, item)
    id = item.ti.external_executor_id
    executor.revoke_task(ti=orphan(item, QUEUED))
    bridge.wait_until(lambda: [id for id, _ in bridge.stops] == [id])
    assert key_of(item.ti) not in executor.running
    bridge.finish(id, "cancelled")
    run(executor, other := task(executor, "other"))
    launched(bridge, other)
    bridge.finish(other.ti.external_executor_id)
    beat_until(executor, lambda: event(executor, other))
    assert event(executor, item) is None


def test_what_was_revoked_before_it_was_sent_never_launches(executor, bridge):
    gate = threading.Event()
    bridge.fail("/v1/submissions", times=THREADS, status=503, gate=gate)
    items = [task(executor, f"t{n}") for n in range(6)]
    for item in items:
        run(executor, item)
    executor.revoke_task(ti=orphan(items[-1], QUEUED))
    gate.set()
    launched(bridge, *items[:-1])
    bridge.wait_until(lambda: bridge.stops)
    assert bridge.starts[items[-1].ti.external_executor_id] == 0


def test_a_missing_heartbeat_stops_the_container(executor, bridge):
    run(executor, item := task(executor))
    launched(bridge, item)
    executor.change_state(key_of(item.ti), FAILED, remove_running=True)  # as the scheduler does
    bridge.wait_until(lambda: bridge.stops)
    assert bridge.stops[0][0] == item.ti.external_executor_id
    assert event(executor, item) == (FAILED, None)


def test_an_end_of_its_own_stops_nothing(executor, bridge):
    run(executor, item := task(executor))
    launched(bridge, item)
    bridge.finish(item.ti.external_executor_id, "failed")
    beat_until(executor, lambda: event(executor, item))
    executor.end()
    assert bridge.stops == []


# The life of an executor


def test_making_an_executor_starts_nothing(options, bridge):
    from airflow_ecs_bridge.executor import EcsBridgeExecutor

    before = threading.enumerate()
    executor = EcsBridgeExecutor()
    executor.heartbeat()
    executor.end()
    executor.terminate()
    assert threading.enumerate() == before
    assert sum(bridge.calls.values()) == 0


def test_end_waits_for_what_was_handed_over_but_not_for_the_tasks(executor, bridge):
    bridge.latency = 0.2
    items = [task(executor, f"t{n}") for n in range(50)]
    run(executor, *items)
    executor.end()
    assert all(item.ti.external_executor_id in bridge.records for item in items)


def test_end_is_bounded_when_the_bridge_is_down(configure, start, bridge, caplog):
    configure(shutdown_timeout="0.2")
    executor = start()
    bridge.fail("/v1/submissions", times=1000, status=503)
    run(executor, task(executor))
    executor.end()
    assert "1 submissions did not reach the ECS bridge" in caplog.text


def test_a_thread_that_died_is_started_again(executor, bridge, monkeypatch, caplog):
    watcher = executor._bridge.watcher
    original = watcher._read_feed
    deaths = []

    def die_once() -> None:
        if not deaths:
            deaths.append(1)
            raise SystemExit("out of some library")
        original()

    monkeypatch.setattr(watcher, "_read_feed", die_once)
    run(executor, item := task(executor))
    launched(bridge, item)
    bridge.finish(item.ti.external_executor_id)
    beat_until(executor, lambda: event(executor, item))
    assert deaths
    assert "thread ecs-bridge-watch died; restarting it" in caplog.text
    assert "out of some library" in caplog.text


def test_an_error_in_a_heartbeat_does_not_reach_the_scheduler(executor, monkeypatch, caplog):
    monkeypatch.setattr(executor._bridge, "beat", lambda: 1 / 0)
    executor.heartbeat()
    assert "ZeroDivisionError" in caplog.text


def test_nothing_is_asked_of_aws_while_nothing_is_in_flight(executor, bridge, monkeypatch):
    asked = sum(bridge.calls.values())
    # Steps of the watcher, each of which could have read something.
    steps = threading.Semaphore(0)
    drain = watcher.drain

    def counted(source: Any, most: int, wait: float) -> list[Any]:
        steps.release()
        return drain(source, most, min(wait, 0.01))

    monkeypatch.setattr(watcher, "drain", counted)
    for _ in range(50):
        executor.heartbeat()
        assert steps.acquire(timeout=PATIENCE)
    assert sum(bridge.calls.values()) == asked
