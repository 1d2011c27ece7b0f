"""Reconciliation of the executor's tasks with Airflow's database, in a separate thread.

Airflow does not notify an executor when a run is cleared, marked or deleted while its tasks are queued. At each
interval, the scheduler's thread passes its tasks to this thread. One query then returns all tasks that are queued or
running in Airflow, at a cost that does not depend on the number of tasks of the executor.
"""

from __future__ import annotations

import logging
import queue
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.models.taskinstancekey import TaskInstanceKey

from airflow_ecs_bridge._versions import UUID_KEYS
from airflow_ecs_bridge.keys import is_of_task, key_of
from airflow_ecs_bridge.threads import Service, drain

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecs_bridge.api import Tally

log = logging.getLogger(__name__)

STATEMENT_TIMEOUT_MS = 10_000
"""Timeout of the query on PostgreSQL."""


@dataclass(frozen=True)
class Living:
    """Tasks that are queued or running in Airflow's database."""

    ids: set[str] = field(default_factory=set)
    """The ``external_executor_id`` of each."""
    keys: set[Any] = field(default_factory=set)
    """The key of each."""
    queued: set[str] = field(default_factory=set)
    """The ``external_executor_id`` of those that are queued."""


@dataclass(frozen=True)
class Held:
    """Tasks of the executor."""

    tracked: dict[str, Any]
    """Submission IDs, each with the key of its task instance or callback."""
    waiting: dict[Any, Any]
    """Workloads that wait for a slot, by key."""


@dataclass(frozen=True)
class Dead:
    """Tasks of the executor that Airflow has abandoned."""

    tracked: list[str]
    """Submission IDs."""
    waiting: list[tuple[Any, Any]]
    """Keys with their workloads."""


def living() -> Living:
    """Query Airflow's database."""
    from airflow.models.taskinstance import TaskInstance as TI
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import select, text

    states = (TaskInstanceState.QUEUED, TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)
    key = (TI.id,) if UUID_KEYS else (TI.dag_id, TI.task_id, TI.run_id, TI.try_number, TI.map_index)
    with create_session() as session:
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}"))
        rows = session.execute(select(TI.state, TI.external_executor_id, *key).where(TI.state.in_(states))).all()
    queued = {row[1] for row in rows if row[0] == TaskInstanceState.QUEUED}
    keys = {key_of(row) if UUID_KEYS else TaskInstanceKey(*row[2:]) for row in rows}
    return Living({row[1] for row in rows}, keys, queued)


class DbReconciler:
    """The scheduler's thread calls `due`, `compare` and `dead`. The query runs in the reconciler's own thread."""

    def __init__(
        self,
        interval: float,
        ask: Callable[[], Living],
        failed_calls: Tally,
        waiting: Callable[[set[str]], None] = lambda ids: None,
    ) -> None:
        """Create a reconciler.

        :param interval: interval between reconciliations, in seconds
        :param ask: queries Airflow's database
        :param failed_calls: counts errors
        :param waiting: receives the executor's submissions that are queued in Airflow, at each reconciliation
        """
        self._interval = interval
        self._ask = ask
        self._failed_calls = failed_calls
        self._waiting = waiting
        self._next = time.monotonic() + interval
        self._questions: queue.SimpleQueue[Held] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Dead] = queue.SimpleQueue()
        # Only this thread uses it. The submissions that the last query did not return.
        self._missed: set[str] = set()
        self.service = Service("ecs-bridge-db-reconciler", self.step)

    def due(self) -> bool:
        """Return whether the next reconciliation is due."""
        return time.monotonic() >= self._next and self._questions.empty()

    def compare(self, held: Held) -> None:
        """Request a reconciliation without waiting for it."""
        self._next = time.monotonic() + self._interval
        self._questions.put(held)

    def dead(self) -> list[Dead]:
        """Return the abandoned tasks since the last call."""
        return drain(self._answers, 100, 0)

    def step(self) -> None:
        """Run one requested reconciliation, or wait up to one second for a request."""
        for held in drain(self._questions, 1, 1.0):
            try:
                now = self._ask()
            except Exception as error:
                self._failed_calls.add()
                log.warning("reconciliation with Airflow's database failed; will retry: %s", type(error).__name__)
                continue
            self._waiting(now.queued & held.tracked.keys())
            missing = {id for id, key in held.tracked.items() if is_of_task(key) and id not in now.ids}
            # A task must be missing twice. A worker reports its task's result some time before its container exits, and
            # Airflow commits an ID that is written ahead after the executor has the task.
            tracked = list(missing & self._missed)
            self._missed = missing
            waiting = [each for each in held.waiting.items() if each[0] not in now.keys]
            if tracked or waiting:
                self._answers.put(Dead(tracked, waiting))
