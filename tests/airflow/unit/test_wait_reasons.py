"""Tasks that wait say for what and since when, in their event log while Airflow has them as queued."""

from __future__ import annotations

from typing import Any

import pytest
from test_executor import event, launched, task_events
from workloads import beat_until, run, task

from airflow_ecs_bridge import bridge as wiring
from airflow_ecs_bridge import wait_reasons
from airflow_ecs_bridge.db_reconciler import Living
from airflow_ecs_bridge.keys import key_of
from airflow_ecs_bridge.tasklog import describe


@pytest.fixture
def queued(options: None, configure: Any, monkeypatch: pytest.MonkeyPatch) -> Living:
    """What Airflow has as queued; what waits there is looked at at once."""
    answer = Living()
    monkeypatch.setattr(
        "airflow_ecs_bridge.db_reconciler.living", lambda: Living(set(answer.ids), set(answer.keys), set(answer.queued))
    )
    monkeypatch.setattr(wiring, "WAITS_AFTER", 0.0)
    monkeypatch.setattr(wait_reasons, "EVERY", 0.1)
    monkeypatch.setattr(wait_reasons, "_PAUSE", 0.05)
    configure(reconcile_interval="1")
    return answer


def test_the_event_log_of_a_queued_task_says_once_for_what_it_waits(queued: Living, start: Any, bridge: Any):
    executor = start()
    waiting, running = task(executor), task(executor, "runs")
    for item in (waiting, running):
        queued.ids.add(item.ti.external_executor_id)
        queued.keys.add(tuple(key_of(item.ti)))
    id = waiting.ti.external_executor_id
    run(executor, waiting, running)
    launched(bridge, waiting)
    launched(bridge, running)
    with bridge.changed:
        bridge.records[id].update(state="queued", reason="RESOURCE:MEMORY", created_at=1_800_000_000_000)
    # The other one has a worker that reported: nothing is read of it.
    queued.queued.add(id)
    beat_until(executor, lambda: task_events(executor))
    seen = len(bridge.looked_up)
    beat_until(executor, lambda: len(bridge.looked_up) >= seen + 3)
    (text,) = task_events(executor)
    assert text.startswith(
        f"submission {id} has been waiting since 2027-01-15T08:00:00Z, state queued: RESOURCE:MEMORY"
    )
    assert text.endswith(f"ecs-bridge show {id}")
    assert executor._task_event_logs[0].event == "ecs_bridge.waiting"
    assert {each for ids in bridge.looked_up for each in ids} == {"health-check", id}
    # It is held as before, and ends as ever.
    assert key_of(waiting.ti) in executor.running
    bridge.finish(id)
    beat_until(executor, lambda: event(executor, waiting))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("queued", "Waiting for launch: the launch rate"),
        ("launching", "Waiting for RunTask: ECS has not responded"),
        ("launched", "Waiting for container start: ECS has accepted"),
        ("running", None),
    ],
)
def test_the_log_view_says_for_what_a_task_waits_in_each_state(state: str, words: str | None):
    from types import SimpleNamespace

    settings: Any = SimpleNamespace(awslogs_group=None, awslogs_stream_prefix=None)
    lines = describe({"submission_id": "an-id", "state": state, "created_at": 1_800_000_000_000}, settings)
    found = [line for line in lines if line.startswith("Waiting for")]
    assert len(found) == (words is not None)
    assert not words or found[0].startswith(words)
