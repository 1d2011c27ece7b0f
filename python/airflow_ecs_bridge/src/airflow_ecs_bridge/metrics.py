"""Metrics of an executor and of a triggerer. A thread sends them through Airflow's Stats, one network packet each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow.executors import base_executor

from airflow_ecs_bridge.threads import Service

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

INTERVAL = 10.0
"""Interval between emissions, in seconds."""

# The module or object of the executor's base class, because others are not configured in every version of Airflow.
STATS = getattr(base_executor, "stats", None) or base_executor.Stats  # type: ignore[attr-defined]

GAUGES = {
    "pending": "submissions that the bridge has not accepted yet",
    "retrying": "pending submissions whose last call failed",
    "oldest_pending": "seconds since the oldest pending submission was queued",
    "in_flight": "accepted or pending submissions that have not ended",
    "feed_lag": "seconds since the feed was last read, while something is in flight",
    "threads_down": "threads that have died and are not restarted yet",
}
COUNTERS = {"failed_calls": "failed calls to the bridge, to its table, or to Airflow's database"}


def adoption(team_name: str | None) -> AbstractContextManager[Any]:
    """Measure the duration of an adoption, as Airflow does (``ecs_executor.adopt_task_instances.duration``)."""
    timer: AbstractContextManager[Any] = STATS.timer("ecs_bridge.adopt_task_instances.duration", tags=_tags(team_name))
    return timer


def _tags(team_name: str | None) -> dict[str, str] | None:
    return {"team_name": team_name} if team_name else None


class Metrics:
    """An emitter of metrics named ``<prefix>.<name>``. It emits counters as increments."""

    def __init__(
        self, figures: Callable[[], dict[str, float]], team_name: str | None, prefix: str = "ecs_bridge"
    ) -> None:
        """Create an emitter. `figures` returns a value for each of `GAUGES` and `COUNTERS`, from any thread."""
        self._figures = figures
        self._prefix = prefix
        self._tags = _tags(team_name)
        self._counted = dict.fromkeys(COUNTERS, 0.0)
        self._next = time.monotonic() + INTERVAL
        self.service = Service("ecs-bridge-metrics", self.step)

    def step(self) -> None:
        """Wait up to one second, and emit if an emission is due."""
        time.sleep(min(max(self._next - time.monotonic(), 0.0), 1.0))
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + INTERVAL
            self.emit()

    def emit(self) -> None:
        """Emit all metrics."""
        figures = self._figures()
        for name in GAUGES:
            STATS.gauge(f"{self._prefix}.{name}", figures[name], tags=self._tags)
        for name in COUNTERS:
            added, self._counted[name] = figures[name] - self._counted[name], figures[name]
            STATS.incr(f"{self._prefix}.{name}", int(added), tags=self._tags)
