"""Compares what the executor holds with Airflow's database, in a thread of its own.

Airflow tells an executor nothing about a run that is cleared, marked or deleted while its tasks are queued. Now and
then the scheduler's thread hands over what it holds; one query, whose cost does not depend on that, returns what is
queued or running for Airflow.
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
"""How long PostgreSQL may take for the query."""


@dataclass(frozen=True)
class Living:
    """What Airflow's database has as queued or running."""

    ids: set[str] = field(default_factory=set)
    """The ``external_executor_id`` of each."""
    keys: set[Any] = field(default_factory=set)
    """The key of each."""
    queued: set[str] = field(default_factory=set)
    """The ``external_executor_id`` of those that are queued."""


@dataclass(frozen=True)
class Held:
    """What the executor holds."""

    tracked: dict[str, Any]
    """Submission ids, each with the key of its task instance or callback."""
    waiting: dict[Any, Any]
    """The workloads that wait for a slot, by their keys."""


@dataclass(frozen=True)
class Dead:
    """What the executor holds, and Airflow has given up."""

    tracked: list[str]
    """Submission ids."""
    waiting: list[tuple[Any, Any]]
    """Keys and their workloads."""


def living() -> Living:
    """Ask Airflow's database."""
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
    """The scheduler's thread calls `due`, `compare` and `dead`; the query runs in the reconciler's own thread."""

    def __init__(
        self,
        interval: float,
        ask: Callable[[], Living],
        failed_calls: Tally,
        waiting: Callable[[set[str]], None] = lambda ids: None,
    ) -> None:
        """Make one.

        :param interval: seconds between two comparisons
        :param ask: queries Airflow's database
        :param failed_calls: counts errors
        :param waiting: takes the submissions of the executor that Airflow has as queued, at each comparison
        """
        self._interval = interval
        self._ask = ask
        self._failed_calls = failed_calls
        self._waiting = waiting
        self._next = time.monotonic() + interval
        self._questions: queue.SimpleQueue[Held] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Dead] = queue.SimpleQueue()
        # Of the thread alone: what the last comparison missed.
        self._missed: set[str] = set()
        self.service = Service("ecs-bridge-db-reconciler", self.step)

    def due(self) -> bool:
        """Tell whether it is time to compare."""
        return time.monotonic() >= self._next and self._questions.empty()

    def compare(self, held: Held) -> None:
        """Compare this with the database; returns at once."""
        self._next = time.monotonic() + self._interval
        self._questions.put(held)

    def dead(self) -> list[Dead]:
        """Return what was found since the last call."""
        return drain(self._answers, 100, 0)

    def step(self) -> None:
        """Answer one question, or wait a moment for one."""
        for held in drain(self._questions, 1, 1.0):
            try:
                now = self._ask()
            except Exception as error:
                self._failed_calls.add()
                log.warning("could not compare with Airflow's database, will try again: %s", type(error).__name__)
                continue
            self._waiting(now.queued & held.tracked.keys())
            missing = {id for id, key in held.tracked.items() if is_of_task(key) and id not in now.ids}
            # Twice, because a worker reports its task's end some time before its container exits, and an id that is
            # written ahead is committed after the executor holds it.
            tracked = list(missing & self._missed)
            self._missed = missing
            waiting = [each for each in held.waiting.items() if each[0] not in now.keys]
            if tracked or waiting:
                self._answers.put(Dead(tracked, waiting))
