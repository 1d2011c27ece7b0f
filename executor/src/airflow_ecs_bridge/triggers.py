"""What waits in the triggerer for a command's end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_ecs_bridge import commands
from airflow_ecs_bridge.job import Unsubmittable
from airflow_ecs_bridge.links import LOG_LINK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HAS_ON_KILL = hasattr(BaseTrigger, "on_kill")
"""Whether Airflow tells a trigger that its task was cleared or marked: from 3.3 on."""


class EcsBridgeTrigger(BaseTrigger):
    """Submits a command, waits for its end, and tells it; or ends the task itself, so that no worker is needed.

    A triggerer that takes over submits again under the same id, which runs nothing twice. All triggers of a triggerer
    share one reader of the feed: a query a second, however many wait.

    :param submission_id: the id; None derives it from the task instance (see `commands.submission_id`)
    :param ends_task: end the task; else fire an event for the operator's ``execute_complete``

    The others are those of `EcsBridgeOperator`.
    """

    def __init__(
        self,
        command: Any,
        profile: str | None = None,
        overrides: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        container: str | None = None,
        priority: int | None = None,
        log_lines: int = 20,
        xcom_last_line: bool = False,
        stop_on_kill: bool = True,
        submission_id: str | None = None,
        about: dict[str, str] | None = None,
        ends_task: bool = False,
    ) -> None:
        super().__init__()
        # As the operator's templated fields are called: the triggerer renders them.
        self.command = command
        self.profile = profile
        self.overrides = overrides
        self.environment = environment
        self.container = container
        self.priority = priority
        self.log_lines = log_lines
        self.xcom_last_line = xcom_last_line
        self.stop_on_kill = stop_on_kill
        self.submission_id = submission_id
        self.about = about
        self.ends_task = ends_task
        self._has_ended = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what another triggerer needs to go on."""
        names = ("command", "profile", "overrides", "environment", "container", "priority", "log_lines")
        names += ("xcom_last_line", "stop_on_kill", "submission_id", "about", "ends_task")
        return "airflow_ecs_bridge.triggers.EcsBridgeTrigger", {name: getattr(self, name) for name in names}

    def _id(self) -> str:
        if self.submission_id is None:
            if self.task_instance is None:
                raise RuntimeError("a trigger without a task instance needs a submission_id")
            self.submission_id = commands.submission_id(self.task_instance)
        return self.submission_id

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the end."""
        try:
            about = self.about or (commands.subject(self.task_instance) if self.task_instance else {})
            body = commands.item(
                self._id(),
                self.command,
                profile=self.profile,
                overrides=self.overrides,
                environment=self.environment,
                container=self.container,
                priority=self.priority,
                about=about,
            )
        except Unsubmittable as error:
            yield self._event(False, str(error))
            return
        # The first use reads the options and starts threads.
        here = await asyncio.to_thread(commands.Commands.of_this_process)
        self.log.info("submission %s: ecs-bridge show %s", self._id(), self._id())
        end = await here.run(body, self.log_lines)
        self._has_ended = True
        xcoms: dict[str, Any] = {}
        record = end.record
        if end.succeeded and self.xcom_last_line:
            record = await asyncio.to_thread(here.show, self._id())
            lines = await asyncio.to_thread(here.last_lines, record, 1)
            if not lines:
                text = "it succeeded, and the last line of its output could not be read: set awslogs_group and "
                yield self._event(False, text + "awslogs_stream_prefix, and allow logs:GetLogEvents")
                return
            xcoms["return_value"] = lines[-1]
        if link := await asyncio.to_thread(here.link, self._id(), record):
            xcoms[LOG_LINK] = link
        yield self._event(end.succeeded, end.text(), xcoms)

    def _event(self, succeeded: bool, text: str, xcoms: dict[str, Any] | None = None) -> TriggerEvent:
        if not self.ends_task:
            return TriggerEvent({"succeeded": succeeded, "text": text, "xcoms": xcoms or {}})
        from airflow.triggers.base import TaskFailedEvent, TaskSuccessEvent

        if succeeded:
            self.log.info("%s", text)
            return TaskSuccessEvent(xcoms=xcoms or None)
        # The triggerer's log is the task's own.
        self.log.error("%s", text)
        return TaskFailedEvent(xcoms=xcoms or None)

    async def on_kill(self) -> None:
        """Stop the command: the task was cleared, or marked. Airflow calls it from 3.3 on."""
        if self.stop_on_kill:
            here = await asyncio.to_thread(commands.Commands.of_this_process)
            here.stop(self._id(), "its task was cleared or marked in Airflow")

    async def cleanup(self) -> None:
        """Before Airflow 3.3: do the same, if that is why the trigger ends. It also ends with the triggerer."""
        if HAS_ON_KILL or self._has_ended or self.task_instance is None:
            return
        try:
            state = await state_of(self.task_instance)
        except Exception as error:
            self.log.warning("it is not known why the trigger ends, and nothing is stopped: %s", error)
            return
        if state is not None and state != "deferred":
            await EcsBridgeTrigger.on_kill(self)


async def state_of(ti: Any) -> str | None:
    """Return the state of a task instance; None if there is none any more."""
    try:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    except ImportError:  # Airflow 2
        return await asyncio.to_thread(_state_in_database, ti)
    # The triggerer's own way from a thread to Airflow's API.
    from asgiref.sync import sync_to_async

    states = await sync_to_async(RuntimeTaskInstance.get_task_states)(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
    )
    name = ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
    state = states.get(ti.run_id, {}).get(name)
    return None if state is None else str(state)


def _state_in_database(ti: Any) -> str | None:
    from airflow.models import TaskInstance
    from airflow.utils.session import create_session

    key = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index}
    with create_session() as session:
        found = session.query(TaskInstance).filter_by(**key).one_or_none()
        return None if found is None or found.state is None else str(found.state)
