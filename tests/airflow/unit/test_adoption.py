"""Taking over the task instances of a scheduler that died."""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from typing import Any

import pytest
from airflow.utils.state import TaskInstanceState
from fake_bridge import FakeBridge, now_ms
from test_executor import event
from workloads import beat_until, orphan, task

from airflow_ecs_bridge.adoption import REVOKED, Orphan, Plan, judge, submission_id_of
from airflow_ecs_bridge.keys import key_of
from ecs_bridge.table import Record

QUEUED, RUNNING = TaskInstanceState.QUEUED, TaskInstanceState.RUNNING
SUCCESS, FAILED = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED


def record(state: str, **more: Any) -> Record:
    return Record("an-id", state, **more)


@pytest.mark.parametrize(
    ("queued", "known", "plan"),
    [
        (True, None, Plan.SUBMIT),
        (False, None, Plan.REFUSE),
        (True, record("queued"), Plan.WATCH),
        (True, record("running"), Plan.WATCH),
        (False, record("running"), Plan.WATCH),
        (False, record("succeeded", exit_code=0), Plan.REPORT),
        (True, record("failed", exit_code=1), Plan.REPORT),
        (True, record("rejected"), Plan.REPORT),
        (True, record("expired"), Plan.LEAVE),
        (True, record("cancelled", reason=REVOKED), Plan.LEAVE),
        (True, record("cancelled", reason="a person stopped it"), Plan.REPORT),
        (False, record("cancelled", reason=REVOKED), Plan.REPORT),
    ],
    ids=str,
)
def test_an_orphan_is_judged_by_its_record(queued, known, plan):
    assert judge(Orphan("key", "an-id", queued), known) is plan


def test_a_record_older_than_the_queuing_is_of_an_earlier_run():
    waiting = Orphan("key", "an-id", queued=True, queued_ms=100_000)
    assert judge(waiting, record("succeeded", created_at=80_000)) is Plan.SUBMIT_ANEW
    assert judge(waiting, record("running", created_at=80_000)) is Plan.SUBMIT_ANEW
    assert judge(waiting, record("running", created_at=99_900)) is Plan.WATCH
    assert judge(waiting, record("running", created_at=100_400)) is Plan.WATCH


def test_an_id_of_another_executor_is_none_of_ours():
    assert submission_id_of("arn:aws:ecs:eu-central-1:123456789012:task/c/0") is None
    assert submission_id_of(None) is None
    assert submission_id_of("orders-extract-0c9ab1") is None
    assert submission_id_of("8a4f1c1e-0000-4000-8000-000000000000") == "8a4f1c1e-0000-4000-8000-000000000000"


@pytest.fixture
def rebuild(monkeypatch):
    """Rebuild workloads without Airflow's database."""
    from airflow_ecs_bridge.executor import EcsBridgeExecutor
    from airflow_ecs_bridge.job import Job

    def make(self: Any, ti: Any, submission_id: str) -> Job:
        return Job(submission_id, {"dag_id": ti.dag_id}, command=["airflow", "rebuilt"], lifetime=600)

    monkeypatch.setattr(EcsBridgeExecutor, "_rebuild", make)


def test_a_rebuilt_job_keeps_its_weight_and_its_queue(executor, monkeypatch):
    from airflow.executors import workloads

    item = task(executor, priority_weight=101, queue="pool")
    monkeypatch.setattr(workloads.ExecuteTask, "make", lambda ti, generator: item)
    job = executor._rebuild(item.ti, "an-id")
    assert (job.weight, job.queue, job.workload) == (101, "pool", item)


def known_to(bridge: FakeBridge, item: Any, state: str = "running", **more: Any) -> str:
    id = item.ti.external_executor_id
    bridge.records[id] = {"submission_id": id, "state": "running", "created_at": now_ms(), "content": None}
    if state != "running":
        bridge.finish(id, state, **more)
    return id


def test_what_runs_is_adopted_takes_a_slot_and_is_reported(executor, bridge):
    item = task(executor)
    id = known_to(bridge, item)
    assert executor.try_adopt_task_instances([orphan(item)]) == []
    assert executor.running == {key_of(item.ti)}
    assert executor.slots_available == 999
    bridge.finish(id)
    beat_until(executor, lambda: event(executor, item))
    assert event(executor, item)[0] == SUCCESS
    assert executor.slots_available == 1000


def test_what_ended_while_no_scheduler_looked_is_reported(executor, bridge):
    item = task(executor)
    known_to(bridge, item, "failed", exit_code=4, changed_at=1)
    assert executor.try_adopt_task_instances([orphan(item)]) == []
    beat_until(executor, lambda: event(executor, item))
    assert event(executor, item)[0] == FAILED
    assert "exit code 4" in event(executor, item)[1]


def test_what_was_queued_but_never_submitted_is_submitted_under_the_same_id(executor, bridge, rebuild):
    item = task(executor)
    assert executor.try_adopt_task_instances([orphan(item, QUEUED)]) == []
    beat_until(executor, lambda: item.ti.external_executor_id in bridge.records)
    assert bridge.batches[0][0]["command"] == ["airflow", "rebuilt"]
    bridge.finish(item.ti.external_executor_id)
    beat_until(executor, lambda: event(executor, item))
    assert event(executor, item)[0] == SUCCESS


def test_what_another_executor_launched_is_reset_by_airflow(executor, bridge):
    foreign = orphan(task(executor, "foreign"), external_executor_id="arn:aws:ecs:x:1:task/c/0")
    waiting = orphan(task(executor, "waiting"), QUEUED, external_executor_id="orders-extract-0c9ab1")
    unnamed = orphan(task(executor, "unnamed", id=None))
    tis = [foreign, waiting, unnamed]
    assert executor.try_adopt_task_instances(tis) == tis
    assert not executor.running


def test_what_runs_and_the_bridge_does_not_know_is_left_to_airflow_s_heartbeat_check(executor, bridge):
    ti = orphan(task(executor))
    assert executor.try_adopt_task_instances([ti]) == []
    beat_until(executor, lambda: not executor.running)
    assert executor.event_buffer == {}
    assert executor._orphans == {}


def test_adoption_waits_for_nothing(executor, bridge):
    gate = threading.Event()
    item = task(executor)
    known_to(bridge, item)
    bridge.fail("BatchGetItem", gate=gate, carried_out=True, status=500)
    executor.try_adopt_task_instances([orphan(item)])
    assert executor.running == {key_of(item.ti)}
    gate.set()


def test_what_is_queued_without_an_id_gets_one_written_ahead(executor, bridge, rebuild):
    item = task(executor, id=None)
    assert executor.try_adopt_task_instances([orphan(item, QUEUED)]) == []
    state, id = event(executor, item)
    assert state == RUNNING
    executor.heartbeat()
    executor.heartbeat()
    bridge.wait_until(lambda: id in bridge.records)


def test_a_stale_id_is_replaced_where_ids_are_not_assigned(start, bridge, rebuild):
    executor = start(job_id=None)
    item = task(executor)
    stale = known_to(bridge, item, "succeeded")
    bridge.records[stale]["created_at"] -= 60_000
    ti = orphan(item, QUEUED, queued_dttm=datetime.now(timezone.utc))
    assert executor.try_adopt_task_instances([ti]) == []
    beat_until(executor, lambda: event(executor, item))
    state, id = event(executor, item)
    assert (state, id != stale) == (RUNNING, True)
    executor.heartbeat()
    executor.heartbeat()
    bridge.wait_until(lambda: bridge.starts[id] == 1)
    bridge.finish(id)
    beat_until(executor, lambda: event(executor, item)[0] != RUNNING)
    assert event(executor, item)[0] == SUCCESS


def test_what_expired_is_left_to_airflow_s_stuck_handling(executor, bridge, rebuild):
    item = task(executor)
    known_to(bridge, item, "expired")
    assert executor.try_adopt_task_instances([orphan(item, QUEUED)]) == []
    beat_until(executor, lambda: not executor.running)
    assert event(executor, item) is None


def test_an_unreadable_table_delays_no_scheduler_and_loses_nothing(configure, start, bridge, rebuild, monkeypatch):
    monkeypatch.setattr("airflow_ecs_bridge.executor._LOOKUP_AGAIN", 0.1)
    executor = start()
    runs, ended, waiting, unknown = (task(executor, name) for name in ("runs", "ended", "waiting", "unknown"))
    known_to(bridge, runs)
    known_to(bridge, ended, "succeeded", changed_at=1)
    bridge.fail("BatchGetItem", times=4, status=400, body={"__type": "x#InternalServerError", "message": "not now"})
    tis = [orphan(runs), orphan(ended), orphan(waiting, QUEUED), orphan(unknown)]
    assert executor.try_adopt_task_instances(tis) == []
    assert executor.running == {key_of(ti) for ti in tis}
    launched_later = waiting.ti.external_executor_id
    beat_until(executor, lambda: launched_later in bridge.records and event(executor, ended))
    assert event(executor, ended)[0] == SUCCESS
    beat_until(executor, lambda: executor.running == {key_of(runs.ti), key_of(waiting.ti)})
    assert event(executor, unknown) is None
    bridge.finish(runs.ti.external_executor_id)
    bridge.finish(launched_later)
    beat_until(executor, lambda: not executor.running)
    assert {event(executor, runs)[0], event(executor, waiting)[0]} == {SUCCESS}


def test_unprocessed_keys_are_asked_for_again(executor, bridge):
    items = [task(executor, f"t{n}") for n in range(250)]
    for item in items:
        known_to(bridge, item)
    bridge.unprocessed = 60
    assert executor.try_adopt_task_instances([orphan(item) for item in items]) == []
    beat_until(executor, lambda: not executor._orphans)
    assert len(executor.running) == 250
    assert bridge.calls["BatchGetItem"] == 1 + 4  # the health check's, then 100 (60 unprocessed), 100, 100, 10


def test_an_error_in_adoption_resets_that_task_instance_and_no_other(executor, bridge, monkeypatch):
    good, bad = task(executor, "good"), task(executor, "bad")
    known_to(bridge, good)
    monkeypatch.setattr(executor, "_rebuild", lambda ti, id: 1 / 0)
    ti = orphan(bad, QUEUED)
    assert executor.try_adopt_task_instances([orphan(good), ti]) == [ti]
    assert executor.running == {key_of(good.ti)}


def test_an_executor_that_was_not_started_adopts_nothing(options):
    from airflow_ecs_bridge.executor import EcsBridgeExecutor

    executor = EcsBridgeExecutor()
    tis = [orphan(task(executor))]
    assert executor.try_adopt_task_instances(tis) == tis
