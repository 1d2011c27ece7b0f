"""What the executor's side tells of itself: metrics, and the dump that SIGUSR2 asks for."""

from __future__ import annotations

import contextlib
import re
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from fake_bridge import PATIENCE
from test_executor import launched
from workloads import beat_until, orphan, run, task

from airflow_ecs_bridge import metrics


@pytest.fixture
def emitted(monkeypatch) -> dict[str, list[tuple[str, float]]]:
    """The metrics that reach Airflow's Stats, by name, each with the thread that emitted it."""
    seen: dict[str, list[tuple[str, float]]] = defaultdict(list)

    def note(name: str, value: float = 1, **_: Any) -> None:
        seen[name].append((threading.current_thread().name, value))

    monkeypatch.setattr(metrics, "INTERVAL", 0.1)
    monkeypatch.setattr(metrics.STATS, "gauge", note)
    monkeypatch.setattr(metrics.STATS, "incr", note)
    monkeypatch.setattr(metrics.STATS, "timer", lambda name, **_: contextlib.nullcontext(note(name)))
    return seen


def last(emitted: dict[str, list[tuple[str, float]]], name: str) -> float:
    return emitted[f"ecs_bridge.{name}"][-1][1] if emitted[f"ecs_bridge.{name}"] else -1


def test_what_reaches_stats_is_what_the_documents_list(emitted, start):
    executor = start()
    item = task(executor)
    executor.try_adopt_task_instances([orphan(item)])
    beat_until(executor, lambda: emitted.keys() >= {"executor.running_tasks", "ecs_bridge.failed_calls"})
    table = (Path(__file__).parents[3] / "docs" / "airflow.md").read_text().split("\n## Metrics\n")[1].split("\n## ")[0]
    assert emitted.keys() == set(re.findall(r"^\| `([a-z_.]+)` \|", table, re.MULTILINE))


def test_every_metric_is_emitted_from_a_thread_of_its_own(emitted, start):
    executor = start()
    names = {f"ecs_bridge.{name}" for name in (*metrics.GAUGES, *metrics.COUNTERS)}
    beat_until(executor, lambda: names <= emitted.keys())
    threads = {thread for name in names for thread, _ in emitted[name]}
    assert threads == {"ecs-bridge-metrics"}


def test_a_bridge_that_is_down_shows_as_pending_retrying_and_failed_calls(emitted, start, bridge):
    executor = start()
    bridge.fail("/v1/submissions", times=1000, status=503)
    run(executor, *(task(executor, f"t{n}") for n in range(3)))
    beat_until(executor, lambda: last(emitted, "retrying") == 3 and last(emitted, "pending") == 3)
    beat_until(executor, lambda: last(emitted, "oldest_pending") > 0)
    beat_until(executor, lambda: sum(value for _, value in emitted["ecs_bridge.failed_calls"]) >= 1)
    assert last(emitted, "in_flight") == 3


def test_a_feed_that_cannot_be_read_shows_as_its_lag(emitted, start, bridge):
    executor = start()
    run(executor, item := task(executor))
    launched(bridge, item)
    beat_until(executor, lambda: bridge.calls["Query"] > 1)
    bridge.fail("Query", times=1000, status=400, body={"__type": "x#InternalServerError", "message": "not now"})
    beat_until(executor, lambda: last(emitted, "feed_lag") > 1)
    with bridge.changed:
        bridge.faults["Query"].clear()
    # A lag only grows until the feed is read again.
    peak = last(emitted, "feed_lag")
    beat_until(executor, lambda: last(emitted, "feed_lag") < peak)


def test_a_thread_that_is_down_is_counted(start, monkeypatch):
    executor = start()
    stopper = executor._bridge.stopper

    def die() -> None:
        raise SystemExit("out of some library")

    monkeypatch.setattr(stopper.service, "_step", die)
    stopper.service._thread.join(PATIENCE)
    assert executor._bridge.engine.figures()["threads_down"] == 1
    assert executor._bridge.dump().endswith("threads down: ecs-bridge-stop")


def test_the_dump_has_the_figures_and_the_submissions_and_no_token(start, bridge, caplog):
    executor = start()
    run(executor, item := task(executor))
    launched(bridge, item)
    caplog.clear()
    executor.debug_dump()
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("airflow_ecs_bridge")]
    text = "\n".join(ours)
    for fact in ("in_flight 1", "threads down: none", item.ti.external_executor_id, "extract"):
        assert fact in text
    assert item.token not in text
