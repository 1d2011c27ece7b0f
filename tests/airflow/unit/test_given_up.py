"""Tries that Airflow has given up: their run was cleared, marked or deleted. Nobody tells the executor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.utils.state import TaskInstanceState
from test_executor import event, launched
from workloads import beat_until, callback, orphan, run, task

from airflow_ecs_bridge._versions import UUID_KEYS
from airflow_ecs_bridge.db_reconciler import Living, living
from airflow_ecs_bridge.keys import key_of
from airflow_ecs_bridge.submitter import THREADS

QUEUED, RUNNING, SUCCESS = TaskInstanceState.QUEUED, TaskInstanceState.RUNNING, TaskInstanceState.SUCCESS


@pytest.fixture
def database(options, configure, monkeypatch) -> Living:
    """What Airflow's database has as queued or running; the executor compares as often as it may."""
    answer = Living()
    monkeypatch.setattr("airflow_ecs_bridge.db_reconciler.living", lambda: Living(set(answer.ids), set(answer.keys)))
    configure(reconcile_interval="1")
    return answer


@pytest.fixture
def has(database) -> Callable[..., None]:
    """Put workloads into the database as queued."""

    def put(*items: Any) -> None:
        for item in items:
            database.ids.add(item.ti.external_executor_id)
            database.keys.add(key_of(item.ti))

    return put


def stopped(bridge: Any) -> list[str]:
    return [id for id, _ in bridge.stops]


# A newer try appears


def test_an_earlier_try_is_stopped_when_a_newer_one_is_queued_and_its_slot_is_free(start, bridge):
    executor = start(parallelism=1)
    first, second = task(executor), task(executor, try_number=2)
    run(executor, first)
    launched(bridge, first)
    run(executor, second)
    bridge.wait_until(lambda: bridge.stops)
    assert stopped(bridge) == [first.ti.external_executor_id]
    launched(bridge, second)
    assert executor.running == {key_of(second.ti)}
    assert event(executor, first) is None


def test_an_earlier_try_that_waits_for_a_slot_is_never_submitted(start, bridge):
    executor = start(parallelism=1)
    other, first, second = task(executor, "other"), task(executor), task(executor, try_number=2)
    run(executor, other)
    run(executor, first)
    run(executor, second)
    assert set(executor._waiting_tasks) == {key_of(second.ti)}
    launched(bridge, other)
    bridge.finish(other.ti.external_executor_id)
    beat_until(executor, lambda: second.ti.external_executor_id in bridge.records)
    assert first.ti.external_executor_id not in bridge.records


def test_an_earlier_try_that_is_about_to_be_sent_never_launches(executor, bridge):
    gate = threading.Event()
    bridge.fail("/v1/submissions", times=THREADS, status=503, gate=gate)
    first, second = task(executor), task(executor, try_number=2)
    for item in [*(task(executor, f"t{n}") for n in range(4)), first, second]:
        run(executor, item)
    bridge.wait_until(lambda: bridge.stops)
    gate.set()
    launched(bridge, second)
    assert bridge.starts[first.ti.external_executor_id] == 0


def test_an_adopted_earlier_try_is_stopped_too(executor, bridge):
    first, second = task(executor), task(executor, try_number=2)
    bridge.call(
        "POST",
        "/v1/submissions",
        {"submissions": [{"submission_id": first.ti.external_executor_id, "command": ["true"]}]},
    )
    assert executor.try_adopt_task_instances([orphan(first)]) == []
    run(executor, second)
    bridge.wait_until(lambda: stopped(bridge) == [first.ti.external_executor_id])


def test_a_container_that_runs_may_upload_its_log_before_it_is_stopped(executor, bridge, monkeypatch):
    first, second = task(executor), task(executor, try_number=2)
    run(executor, first)
    launched(bridge, first)
    id = first.ti.external_executor_id
    bridge.records[id]["state"] = "running"
    reads = bridge.calls["BatchGetItem"]
    run(executor, second)
    bridge.wait_until(lambda: bridge.calls["BatchGetItem"] > reads)
    launched(bridge, second)
    assert bridge.stops == []
    monkeypatch.setattr("airflow_ecs_bridge.stopper.GRACE", 0.0)
    third = task(executor, try_number=3)
    bridge.records[second.ti.external_executor_id]["state"] = "running"
    run(executor, third)
    bridge.wait_until(lambda: stopped(bridge) == [second.ti.external_executor_id])


def test_a_container_that_exits_in_time_is_not_stopped(executor, bridge):
    first, second = task(executor), task(executor, try_number=2)
    run(executor, first)
    launched(bridge, first)
    bridge.finish(first.ti.external_executor_id)
    run(executor, second)
    launched(bridge, second)
    beat_until(executor, lambda: not executor._bridge.stopper._abandoned)
    assert bridge.stops == []


def test_a_lookup_that_fails_is_repeated_until_the_try_is_stopped(executor, bridge):
    first, second = task(executor), task(executor, try_number=2)
    run(executor, first)
    launched(bridge, first)
    bridge.fail("BatchGetItem", times=3, status=400, body={"__type": "x#InternalServerError", "message": "not now"})
    run(executor, second)
    bridge.wait_until(lambda: stopped(bridge) == [first.ti.external_executor_id])


# Airflow's database knows it no longer


def test_a_try_that_the_database_does_not_have_is_stopped_and_its_slot_is_free(database, has, start, bridge):
    executor = start()
    dead, alive = task(executor, "dead"), task(executor, "alive")
    has(dead, alive)
    run(executor, dead, alive)
    launched(bridge, dead, alive)
    database.ids.discard(dead.ti.external_executor_id)
    beat_until(executor, lambda: bridge.stops)
    assert stopped(bridge) == [dead.ti.external_executor_id]
    assert executor.running == {key_of(alive.ti)}
    bridge.finish(alive.ti.external_executor_id)
    beat_until(executor, lambda: event(executor, alive))
    assert event(executor, dead) is None


def test_a_try_that_waits_for_a_slot_is_dropped_when_the_database_does_not_have_it(database, has, start, bridge):
    executor = start(parallelism=1)
    works, dead, waits = task(executor, "works"), task(executor, "dead"), task(executor, "waits")
    has(works, waits)
    run(executor, works)
    run(executor, dead, waits)
    beat_until(executor, lambda: key_of(dead.ti) not in executor._waiting_tasks)
    assert set(executor._waiting_tasks) == {key_of(waits.ti)}
    assert set(executor._newest.values()) == {key_of(works.ti), key_of(waits.ti)}


def test_a_deferred_task_that_resumes_is_not_given_up_with_its_first_run(database, has, start, bridge):
    executor = start(parallelism=1)
    first, second = task(executor), task(executor)
    has(first)
    run(executor, first)
    launched(bridge, first)
    run(executor, second)  # there is no slot: the first run's end is not known yet
    database.ids.clear()
    has(second)
    beat_until(executor, lambda: second.ti.external_executor_id in bridge.records)
    assert executor.running == {key_of(second.ti)}
    bridge.finish(second.ti.external_executor_id)
    beat_until(executor, lambda: event(executor, second))
    assert event(executor, second)[0] == SUCCESS


def test_try_that_the_database_misses_once_is_not_stopped(options, configure, start, bridge, monkeypatch):
    # Every other answer misses the try.
    present, answers = Living(), []

    def answer() -> Living:
        answers.append(present if len(answers) % 2 else Living())
        return Living(set(answers[-1].ids), set(answers[-1].keys))

    monkeypatch.setattr("airflow_ecs_bridge.db_reconciler.living", answer)
    configure(reconcile_interval="1")
    executor = start()
    item = task(executor)
    present.ids.add(item.ti.external_executor_id)
    present.keys.add(key_of(item.ti))
    run(executor, item)
    launched(bridge, item)
    before = len(answers)
    beat_until(executor, lambda: len(answers) >= before + 4)
    assert bridge.stops == []
    assert key_of(item.ti) in executor.running


def test_a_callback_is_not_looked_for_among_task_instances(database, start, bridge):
    executor = start()
    item, dead = callback(executor), task(executor)
    run(executor, item, dead)
    bridge.wait_until(lambda: item.callback.id in bridge.records)
    beat_until(executor, lambda: bridge.stops)
    assert stopped(bridge) == [dead.ti.external_executor_id]
    assert executor.running == {item.key}


def test_a_database_that_does_not_answer_stops_nothing(configure, start, bridge, monkeypatch, caplog):
    asked = threading.Event()

    def fail() -> Living:
        asked.set()
        raise OSError("the database is gone")

    monkeypatch.setattr("airflow_ecs_bridge.db_reconciler.living", fail)
    configure(reconcile_interval="1")
    executor = start()
    run(executor, item := task(executor))
    launched(bridge, item)
    beat_until(executor, lambda: "reconciliation with Airflow's database failed" in caplog.text)
    bridge.finish(item.ti.external_executor_id)
    beat_until(executor, lambda: event(executor, item))
    assert event(executor, item)[0] == SUCCESS


def test_nothing_of_a_try_is_remembered_after_its_end(executor, bridge):
    first, second = task(executor), task(executor, try_number=2)
    run(executor, first)
    run(executor, second)
    launched(bridge, second)
    bridge.finish(second.ti.external_executor_id)
    beat_until(executor, lambda: event(executor, second))
    assert executor._newest == {}
    assert executor._current == {}
    assert executor._keys == {}


@pytest.fixture
def airflow_database(monkeypatch) -> Iterator[Any]:
    """The table of task instances."""
    from airflow import settings
    from airflow.models import import_all_models
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import create_engine
    from sqlalchemy.orm import sessionmaker
    from sqlalchemy.pool import StaticPool

    import_all_models()
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    TaskInstance.__table__.create(engine)
    monkeypatch.setattr(settings, "Session", sessionmaker(engine))
    yield engine
    engine.dispose()


def test_the_query_returns_what_is_queued_or_running(airflow_database):
    import uuid

    from airflow.models.taskinstance import TaskInstance

    rows = [
        {"task_id": state, "external_executor_id": f"id-{state}", "state": state, "id": uuid.uuid4()}
        for state in ("queued", "running", "restarting", "success", "failed", "scheduled", "deferred")
    ]
    index = "region_index" if UUID_KEYS else "map_index"
    common = {"dag_id": "orders", "run_id": "r", index: 3, "try_number": 2, "pool": "p", "pool_slots": 1}
    with airflow_database.begin() as connection:
        connection.execute(TaskInstance.__table__.insert(), [{**common, **row} for row in rows])
    found = living()
    assert found.ids == {"id-queued", "id-running", "id-restarting"}
    tries = {row["state"]: SimpleNamespace(id=row["id"], key=("orders", row["state"], "r", 2, 3)) for row in rows}
    assert found.keys == {key_of(tries[state]) for state in ("queued", "running", "restarting")}
    assert found.queued == {"id-queued"}
