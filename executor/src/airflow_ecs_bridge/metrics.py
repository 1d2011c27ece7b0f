"""The metrics of an executor, and of a triggerer, through Airflow's Stats; from a thread: each is a network packet."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow.executors import base_executor

from airflow_ecs_bridge.threads import Service

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

INTERVAL = 10.0
"""Seconds between two emissions."""

# The module or object that the executor's base class uses: others are not configured in every version of Airflow.
STATS = getattr(base_executor, "stats", None) or base_executor.Stats  # type: ignore[attr-defined]

GAUGES = {
    "pending": "submissions that the bridge has not answered for",
    "retrying": "those of them whose last call failed",
    "oldest_pending": "seconds since the oldest of them was queued",
    "in_flight": "submissions whose end is awaited",
    "feed_lag": "seconds since the feed was last read, while something is in flight",
    "threads_down": "threads that have died and are not started again yet",
}
COUNTERS = {"failed_calls": "calls to the bridge, to its table, or to Airflow's database that failed"}


def adoption(team_name: str | None) -> AbstractContextManager[Any]:
    """Time an adoption, as Airflow's own executors do (``ecs_executor.adopt_task_instances.duration``)."""
    return STATS.timer("ecs_bridge.adopt_task_instances.duration", tags=_tags(team_name))


def _tags(team_name: str | None) -> dict[str, str] | None:
    return {"team_name": team_name} if team_name else None


class Metrics:
    """Emits figures as ``<prefix>.<name>``: gauges as they are, counters as what was added."""

    def __init__(
        self, figures: Callable[[], dict[str, float]], team_name: str | None, prefix: str = "ecs_bridge"
    ) -> None:
        """Make one; `figures` returns a value for each of `GAUGES` and `COUNTERS`, from any thread."""
        self._figures = figures
        self._prefix = prefix
        self._tags = _tags(team_name)
        self._counted = dict.fromkeys(COUNTERS, 0.0)
        self._next = time.monotonic() + INTERVAL
        self.service = Service("ecs-bridge-metrics", self.step)

    def step(self) -> None:
        """Wait a moment, and emit when it is time."""
        time.sleep(min(max(self._next - time.monotonic(), 0.0), 1.0))
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + INTERVAL
            self.emit()

    def emit(self) -> None:
        """Emit every figure."""
        figures = self._figures()
        for name in GAUGES:
            STATS.gauge(f"{self._prefix}.{name}", figures[name], tags=self._tags)
        for name in COUNTERS:
            added, self._counted[name] = figures[name] - self._counted[name], figures[name]
            STATS.incr(f"{self._prefix}.{name}", int(added), tags=self._tags)
