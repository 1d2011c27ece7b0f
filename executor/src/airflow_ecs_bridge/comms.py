"""What is asked of Airflow itself: by a triggerer's channel to its supervisor (Airflow 3), or in its database (2).

Airflow's functions for tasks write to one channel. In 3.0 and 3.1 a call from a thread of ours mixes its answer up with
the triggerer's own, which ends the triggerer ("Response read out of order"). So threads call through the loop of the
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
"""Seconds for which a thread waits for an answer of Airflow's."""

_loop: asyncio.AbstractEventLoop | None = None


def use_loop_of_triggers() -> None:
    """Let threads call Airflow through the running loop, which is that of a triggerer's triggers."""
    global _loop
    if AIRFLOW_3:
        _loop = asyncio.get_running_loop()


def call(function: Callable[[], T]) -> T:
    """Call what may ask Airflow, from a thread of ours."""
    loop = _loop
    if loop is None or loop.is_closed():
        return function()
    return asyncio.run_coroutine_threadsafe(_in_thread_of_airflow(function), loop).result(LONGEST)


async def _in_thread_of_airflow(function: Callable[[], T]) -> T:
    from asgiref.sync import sync_to_async

    # A cancelled sync_to_async loses the message by which Airflow knows that it has to call on_kill.
    return await asyncio.shield(asyncio.ensure_future(sync_to_async(function)()))


async def waits_still(ti: Any, submission_id: str) -> bool:
    """Whether Airflow's task instance is deferred still, for this submission; raise if Airflow does not answer."""
    if not AIRFLOW_3:
        return await asyncio.to_thread(_waits_still_in_database, ti)
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    def ask() -> dict[str, Any]:
        return RuntimeTaskInstance.get_task_states(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )

    name = ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
    state = (await _in_thread_of_airflow(ask)).get(ti.run_id, {}).get(name)
    # Cleared, it may be deferred again already: with another submission.
    return str(state) == "deferred" and await submission_of(ti) in (None, submission_id)


def _waits_still_in_database(ti: Any) -> bool:
    from airflow.models import TaskInstance
    from airflow.utils.session import create_session

    key = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index}
    with create_session() as session:
        found = session.query(TaskInstance).filter_by(**key).one_or_none()
        return found is not None and str(found.state) == "deferred" and found.try_number == ti.try_number


async def submission_of(ti: Any) -> str | None:
    """Return the submission that a trigger of the task instance noted last (Airflow 3)."""
    from airflow.sdk.bases.xcom import BaseXCom

    found = await _in_thread_of_airflow(lambda: BaseXCom.get_one(key=SUBMISSION, **_key(ti)))
    return None if found is None else str(found)


async def note_submission(ti: Any, submission_id: str) -> None:
    """Note the submission for which a task instance waits, so that its next try can stop it (Airflow 3)."""
    from airflow.sdk.bases.xcom import BaseXCom

    await _in_thread_of_airflow(lambda: BaseXCom.set(SUBMISSION, submission_id, **_key(ti)))


async def forget_return_value(ti: Any) -> None:
    """Delete an earlier try's return value, as the start of a worker does (Airflow 3)."""
    from airflow.sdk.bases.xcom import BaseXCom

    await _in_thread_of_airflow(lambda: BaseXCom.delete("return_value", **_key(ti)))


def _key(ti: Any) -> dict[str, Any]:
    return {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": ti.map_index}
