"""The executor under Airflow 2.11, driven as its scheduler does, against the local stack."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import airflow
import pytest
from airflow.executors.executor_loader import ExecutorLoader
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import TaskInstanceState
from stacks import PROFILES, scheduler_environment

from airflow_ecs_bridge.bridge import Unhealthy
from airflow_ecs_bridge.executor import EcsBridgeExecutor
from local_stack import PATIENCE, LocalStack, until

QUEUED, RUNNING = TaskInstanceState.QUEUED, TaskInstanceState.RUNNING
SUCCESS, FAILED = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED


def key(name: str, try_number: int = 1) -> TaskInstanceKey:
    return TaskInstanceKey("orders", name, f"manual__{time.time_ns()}", try_number, -1)


def beat_until(executor: EcsBridgeExecutor, predicate: Callable[[], Any], timeout: float = PATIENCE) -> None:
    give_up = time.monotonic() + timeout
    while not predicate():
        assert time.monotonic() < give_up, "the executor did not come to that state"
        executor.heartbeat()
        time.sleep(0.05)


def queue(
    executor: EcsBridgeExecutor, at: TaskInstanceKey, *command: str, priority_weight: int = 1, **config: Any
) -> str:
    """Queue a command as the scheduler does; return the id that was written ahead."""
    task_instance = SimpleNamespace(
        key=at,
        executor_config=config,
        dag_run=SimpleNamespace(run_id=at.run_id, dag_id=at.dag_id, conf=None, start_date=datetime.now(timezone.utc)),
    )
    executor.queued_tasks[at] = (list(command), priority_weight, "default", task_instance)
    executor._process_tasks([(at, list(command), "default", config)])
    state, id = executor.get_event_buffer()[at]
    assert state == RUNNING, "the id is to be committed before the bridge hears of it"
    return id


def orphan(at: TaskInstanceKey, id: str | None, state: str = RUNNING) -> Any:
    return SimpleNamespace(
        key=at,
        **at._asdict(),
        state=state,
        external_executor_id=id,
        queue="default",
        priority_weight=1,
        pool="default_pool",
        executor_config={},
        queued_dttm=datetime.now(timezone.utc),
        command_as_list=lambda **_: ["sh", "-c", "exit 0"],
    )


def test_it_is_airflow_2():
    assert airflow.__version__.startswith("2.11.")


def test_airflow_loads_the_executor_by_its_path():
    assert ExecutorLoader.import_default_executor_cls()[0] is EcsBridgeExecutor


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ({"SUBMIT_URL": "http://127.0.0.1:9"}, "check submit_url"),
        ({"TABLE": "another"}, r"wrong \[ecs_bridge_executor\] table: 'another'; the table of the ECS bridge"),
    ],
)
def test_a_start_says_what_is_wrong_with_the_bridge(option, wrong, tmp_path, monkeypatch):
    with LocalStack(tmp_path, profiles=PROFILES) as unhealthy:
        options = {f"AIRFLOW__ECS_BRIDGE_EXECUTOR__{name}": value for name, value in option.items()}
        for name, value in scheduler_environment(unhealthy, **options).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(Unhealthy, match=wrong):
            EcsBridgeExecutor(parallelism=16).start()


def test_a_command_runs_and_its_exit_code_decides(executor, stack):
    good, bad = key("good"), key("bad")
    ids = [queue(executor, good, "true"), queue(executor, bad, "sh", "-c", "exit 7")]
    beat_until(executor, lambda: {good, bad} <= executor.event_buffer.keys())
    assert executor.event_buffer[good] == (SUCCESS, None)
    state, info = executor.event_buffer[bad]
    assert state == FAILED
    assert "exit code 7" in info
    assert [stack.tasks(id)[0]["start_count"] for id in ids] == [1, 1]
    assert not executor.running


def test_the_weight_of_a_task_becomes_the_priority_of_its_submission(executor, stack):
    at = key("urgent")
    id = queue(executor, at, "true", priority_weight=101)
    beat_until(executor, lambda: at in executor.event_buffer)
    assert stack.row(id)["priority"] == 400


def test_nothing_is_submitted_before_the_id_is_committed(executor, stack):
    at = key("ahead")
    id = queue(executor, at, "true")
    executor.heartbeat()  # in this one the id is committed
    assert [row for row in stack.rows() if row["submission_id"] == id] == []
    beat_until(executor, lambda: at in executor.event_buffer)
    assert executor.event_buffer[at][0] == SUCCESS


def test_the_launch_deadline_is_when_airflow_takes_it_for_stuck(executor, stack):
    at, before = key("deadline"), int(time.time())
    id = queue(executor, at, "true")
    beat_until(executor, lambda: at in executor.event_buffer)
    deadline = int(stack.row(id)["launch_deadline"]) / 1000
    assert before + 600 - 10 <= deadline <= time.time() + 600 - 10


def test_what_runs_and_what_ended_is_adopted(start, stack):
    first = start()
    runs, ended = key("runs"), key("ended")
    ids = {runs: queue(first, runs, "sleep", "3"), ended: queue(first, ended, "sh", "-c", "exit 3")}
    beat_until(first, lambda: ended in first.event_buffer)
    first.terminate()
    second = start()
    assert second.try_adopt_task_instances([orphan(at, id) for at, id in ids.items()]) == []
    beat_until(second, lambda: {runs, ended} <= second.event_buffer.keys())
    assert second.event_buffer[runs][0] == SUCCESS
    assert "exit code 3" in second.event_buffer[ended][1]
    assert all(stack.tasks(id)[0]["start_count"] == 1 for id in ids.values())


def test_what_never_reached_the_bridge_is_submitted_at_adoption(start, stack):
    first = start()
    at = key("never")
    id = queue(first, at, "true")
    first.terminate()
    second = start()
    assert second.try_adopt_task_instances([orphan(at, id, QUEUED)]) == []
    beat_until(second, lambda: second.event_buffer.get(at, (None,))[0] == SUCCESS)
    assert stack.tasks(id)[0]["start_count"] == 1


def test_what_nobody_knows_is_reset(executor):
    tis = [orphan(key("unknown"), "no-such-id"), orphan(key("arn"), "arn:aws:ecs:x:1:task/c/0")]
    assert executor.try_adopt_task_instances(tis) == tis


def test_a_revoked_task_is_stopped(executor, stack):
    at = key("stuck")
    id = queue(executor, at, "sleep", "60")
    beat_until(executor, lambda: [t for t in stack.tasks(id) if t["last_status"] == "RUNNING"])
    executor.revoke_task(ti=orphan(at, id, QUEUED))
    row = stack.until_ended(id)
    assert row["state"] in ("cancelled", "failed")
    executor.heartbeat()
    assert at not in executor.event_buffer
    assert at not in executor.running


def test_tasks_stuck_in_queued_are_cleaned_up_for_2_10_before_2_10_5(executor, stack):
    at = key("stuck")
    id = queue(executor, at, "sleep", "60")
    ti = orphan(at, id, QUEUED)
    assert executor.cleanup_stuck_queued_tasks([ti]) == [repr(ti)]
    assert executor.event_buffer[at][0] == FAILED
    # It was never sent: the stop leaves a record that lets nothing under this id launch.
    until("the stop has come", lambda: [row for row in stack.rows() if row["submission_id"] == id], 20)
    assert stack.row(id)["state"] == "cancelled"
    assert stack.tasks(id) == []


def test_a_missing_heartbeat_stops_the_container(executor, stack):
    at = key("zombie")
    id = queue(executor, at, "sleep", "60")
    beat_until(executor, lambda: [t for t in stack.tasks(id) if t["last_status"] == "RUNNING"])
    executor.change_state(at, FAILED, remove_running=True)
    assert stack.until_ended(id)["exit_code"] != 0


def test_the_operator_defers_from_a_worker_and_its_trigger_tells_the_end(stack):
    from types import SimpleNamespace

    from airflow.exceptions import TaskDeferred

    from airflow_ecs_bridge.operators import EcsBridgeOperator

    operator = EcsBridgeOperator(task_id="t", command=["sh", "-c", "exit 7"])
    assert operator.start_from_trigger is False
    ti = SimpleNamespace(dag_id="d", run_id="operator", task_id="t", map_index=-1, try_number=1)
    with pytest.raises(TaskDeferred) as deferred:
        EcsBridgeOperator.execute.__wrapped__(operator, {"ti": ti})
    # As the triggerer makes it again from the database.
    _, arguments = deferred.value.trigger.serialize()
    event = asyncio.run(first_event(type(deferred.value.trigger)(**arguments)))
    assert not event.payload["succeeded"]
    assert "exit code 7" in event.payload["text"]
    assert stack.tasks(arguments["submission_id"])[0]["start_count"] == 1


async def first_event(trigger):
    return await anext(trigger.run())


def test_a_command_runs_where_only_the_function_is_known(stack, monkeypatch):
    monkeypatch.delenv("AIRFLOW__ECS_BRIDGE_EXECUTOR__SUBMIT_URL")
    monkeypatch.setenv("AIRFLOW__ECS_BRIDGE_EXECUTOR__SUBMIT_FUNCTION", "submit")
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", stack.ready["lambda_url"])
    executor = EcsBridgeExecutor(parallelism=16)
    executor.job_id = 1
    executor.start()
    try:
        at = key("invoked")
        id = queue(executor, at, "true")
        beat_until(executor, lambda: at in executor.event_buffer)
    finally:
        executor.terminate()
    assert executor.event_buffer[at] == (SUCCESS, None)
    assert stack.tasks(id)[0]["start_count"] == 1
