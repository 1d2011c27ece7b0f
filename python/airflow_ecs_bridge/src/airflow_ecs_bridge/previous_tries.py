"""Earlier tries of a task instance, and their out-of-memory results."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_ecs_bridge._versions import UUID_KEYS
from airflow_ecs_bridge.adoption import submission_id_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from airflow_ecs_bridge.job import Job
    from ecs_bridge.table import Record

END_IS_NEAR = 60.0
"""Seconds after queuing that a try waits for the record of the previous try. Airflow's worker reports the result of its
task before its container exits."""

LOOKUP_TIMEOUT = 30.0
"""Timeout for reading the records, in seconds."""


class NotYet(Exception):
    """The previous try has not ended in the bridge. Retry soon."""


def tries_table() -> tuple[Any, Any]:
    """Return Airflow's model of earlier tries, and its map index."""
    if UUID_KEYS:
        from airflow.models.task_coordinates import public_map_index_expression
        from airflow.models.taskinstance import TaskInstance

        return TaskInstance, public_map_index_expression(TaskInstance)
    from airflow.models.taskinstancehistory import TaskInstanceHistory

    return TaskInstanceHistory, TaskInstanceHistory.map_index


def earlier_ids(subject: dict[str, str]) -> list[str]:
    """Query Airflow's database for the submissions of the earlier tries of a task instance."""
    from airflow.utils.session import create_session
    from sqlalchemy import select

    table, map_index = tries_table()
    query = select(table.external_executor_id).where(
        table.dag_id == subject["dag_id"],
        table.task_id == subject["task_id"],
        table.run_id == subject["run_id"],
        map_index == int(subject.get("map_index", -1)),
        table.try_number < int(subject["try_number"]),
    )
    query = query.execution_options(include_all_attempts=True)  # earlier versions than 3.4 ignore it
    with create_session() as session:
        ids = session.scalars(query.order_by(table.try_number)).all()
    return [id for id in map(submission_id_of, ids) if id]


class PreviousTries:
    """Lookups in the submitter's threads, with one query of Airflow's database and one read of the bridge's table."""

    def __init__(
        self,
        lookup: Callable[[list[str]], Future[dict[str, Record]]],
        ask: Callable[[dict[str, str]], list[str]] = earlier_ids,
    ) -> None:
        """Create a lookup.

        :param lookup: reads records by ID, without expired ones
        :param ask: queries Airflow's database
        """
        self._lookup = lookup
        self._ask = ask

    def patches(self, job: Job) -> int:
        """Return the number of ``by_try`` patches that earlier tries of a job have used.

        :raises NotYet: while the result of the previous try is unknown
        """
        sizes = job.sizes()
        earlier = int(job.subject.get("try_number", 1)) - 1
        if sizes is None or earlier == 0:
            return 0
        if sizes.by_try_condition is None:
            return earlier
        ids = self._ask(job.subject)
        records = self._lookup(ids).result(LOOKUP_TIMEOUT) if ids else {}
        last = records.get(ids[-1]) if ids else None
        if last and not last.ended and time.time() < job.queued_at + END_IS_NEAR:
            raise NotYet(f"submission {last.submission_id} has not ended")
        return sum(record.hint == sizes.by_try_condition for record in records.values())
