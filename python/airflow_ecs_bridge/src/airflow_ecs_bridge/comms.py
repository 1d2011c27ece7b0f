"""Requests to Airflow, through a triggerer's channel to its supervisor (Airflow 3) or its database (Airflow 2).

Airflow's task functions write to one channel. In 3.0 and 3.1, a call from another thread receives a response of the
triggerer, which ends the triggerer ("Response read out of order"). So threads call through the event loop of the
triggers, as triggers do.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_ecs_bridge._versions import AIRFLOW_3
from airflow_ecs_bridge.links import SUBMISSION

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

LONGEST = 60.0
"""Seconds that a thread waits for a response of Airflow."""

_loop: asyncio.AbstractEventLoop | None = None


def use_loop_of_triggers() -> None:
    """Make threads call Airflow through the running loop, which runs the triggers of a triggerer."""
    global _loop
    if AIRFLOW_3:
        _loop = asyncio.get_running_loop()


def call(function: Callable[[], T]) -> T:
    """Call a function that may call Airflow, from a thread of the executor."""
    loop = _loop
    if loop is None or loop.is_closed():
        return function()
    return asyncio.run_coroutine_threadsafe(_in_thread_of_airflow(function), loop).result(LONGEST)


async def _in_thread_of_airflow(function: Callable[[], T]) -> T:
    from asgiref.sync import sync_to_async

    # A cancelled sync_to_async loses the message that makes Airflow call on_kill.
    return await asyncio.shield(asyncio.ensure_future(sync_to_async(function)()))


async def waits_still(ti: Any, submission_id: str) -> bool:
    """Return whether the task instance is still deferred for this submission; raise if Airflow does not respond."""
    if not AIRFLOW_3:
        return await asyncio.to_thread(_waits_still_in_database, ti)
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    def ask() -> dict[str, Any]:
        return RuntimeTaskInstance.get_task_states(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )

    name = ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
    state = (await _in_thread_of_airflow(ask)).get(ti.run_id, {}).get(name)
    # After a clear, the task may already be deferred again with another submission.
    return str(state) == "deferred" and await submission_of(ti) in (None, submission_id)


def _waits_still_in_database(ti: Any) -> bool:
    from airflow.models import TaskInstance
    from airflow.utils.session import create_session

    key = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index}
    with create_session() as session:
        found = session.query(TaskInstance).filter_by(**key).one_or_none()
        return found is not None and str(found.state) == "deferred" and found.try_number == ti.try_number


async def submission_of(ti: Any) -> str | None:
    """Return the submission that a trigger of the task instance recorded last (Airflow 3)."""
    from airflow.sdk.bases.xcom import BaseXCom

    found = await _in_thread_of_airflow(lambda: BaseXCom.get_one(key=SUBMISSION, **_key(ti)))
    return None if found is None else str(found)


async def note_submission(ti: Any, submission_id: str) -> None:
    """Record the submission that a task instance waits for, so that its next try can stop it (Airflow 3)."""
    from airflow.sdk.bases.xcom import BaseXCom

    await _in_thread_of_airflow(lambda: BaseXCom.set(SUBMISSION, submission_id, **_key(ti)))


async def forget_return_value(ti: Any) -> None:
    """Delete the return value of an earlier try, in the same way as a starting worker (Airflow 3)."""
    from airflow.sdk.bases.xcom import BaseXCom

    await _in_thread_of_airflow(lambda: BaseXCom.delete("return_value", **_key(ti)))


def _key(ti: Any) -> dict[str, Any]:
    return {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": ti.map_index}
