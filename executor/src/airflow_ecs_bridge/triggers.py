"""What waits in the triggerer for a command's end."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_ecs_bridge import commands, results
from airflow_ecs_bridge.config import ConfigError
from airflow_ecs_bridge.job import Unsubmittable
from airflow_ecs_bridge.links import LOG_LINK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

TIMED_OUT = "its execution_timeout has passed"

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
        xcom_s3_uri: str | None = None,
        skip_on_exit_code: Sequence[int] = (),
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
        self.xcom_s3_uri = xcom_s3_uri
        self.skip_on_exit_code = list(skip_on_exit_code)
        self.stop_on_kill = stop_on_kill
        self.submission_id = submission_id
        self.about = about
        self.ends_task = ends_task
        self._has_ended = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what another triggerer needs to go on."""
        names = ("command", "profile", "overrides", "environment", "container", "priority", "log_lines")
        names += ("xcom_last_line", "xcom_s3_uri", "skip_on_exit_code", "stop_on_kill")
        names += ("submission_id", "about", "ends_task")
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
            # The first use reads the options and starts threads.
            here = await asyncio.to_thread(commands.Commands.of_this_process)
            body = self._body(here)
        except (ConfigError, Unsubmittable) as error:
            yield self._event("failed", str(error))
            return
        if self.task_instance is not None:  # in a triggerer; a worker that waits itself is gone before anyone looks
            here.emit_metrics()
        self.log.info("submission %s: ecs-bridge show %s", self._id(), self._id())
        try:
            end = await asyncio.wait_for(here.run(body, self.log_lines, self.log.info), self._seconds_left())
        except asyncio.TimeoutError:  # before 3.11 not the same as TimeoutError
            self._has_ended = True
            here.stop(self._id(), TIMED_OUT)
            yield self._event("failed", f"{TIMED_OUT}, and the command is stopped: ecs-bridge show {self._id()}")
            return
        self._has_ended = True
        xcoms: dict[str, Any] = {}
        if link := await asyncio.to_thread(here.link, self._id(), end.record):
            xcoms[LOG_LINK] = link
        if not end.succeeded:
            skipped = end.exit_code is not None and end.exit_code in self.skip_on_exit_code
            yield self._event("skipped" if skipped else "failed", end.text(), xcoms)
            return
        try:
            value = await self._value(here)
        except results.NoResult as error:
            yield self._event("failed", f"the command succeeded, but has no return value: {error}", xcoms)
            return
        if value is not None:
            xcoms["return_value"] = value
        yield self._event("success", end.text(), xcoms)

    def _body(self, here: commands.Commands) -> dict[str, Any]:
        """Return the submission; raise Unsubmittable if it, or what is to become of its output, cannot be."""
        if self.xcom_last_line and not here.knows_log_group:
            raise Unsubmittable(
                "xcom_last_line needs the options awslogs_group and awslogs_stream_prefix of [ecs_bridge_executor]"
            )
        if self.xcom_s3_uri:
            try:
                results.place(self.xcom_s3_uri)
            except ValueError as error:
                raise Unsubmittable(str(error)) from None
        return commands.item(
            self._id(),
            self.command,
            profile=self.profile,
            overrides=self.overrides,
            environment=self.environment,
            container=self.container,
            priority=self.priority,
            about=self.about or (commands.subject(self.task_instance) if self.task_instance else {}),
        )

    def _seconds_left(self) -> float | None:
        """Return the seconds until Airflow takes the trigger for too late; None if it never does."""
        # Airflow 3's triggerer sets the first before it runs a trigger, Airflow 2's the task instance with the second.
        until: datetime | None = getattr(self, "timeout_after", None)
        until = until or getattr(self.task_instance, "trigger_timeout", None)
        if until is None:
            return None
        until = until if until.tzinfo else until.replace(tzinfo=timezone.utc)
        return max((until - datetime.now(timezone.utc)).total_seconds(), 0.0)

    async def _value(self, here: commands.Commands) -> Any:
        if self.xcom_s3_uri:
            return await here.object(self.xcom_s3_uri, self._id())
        if self.xcom_last_line:
            return await here.last_line(self._id())
        return None

    def _event(self, state: str, text: str, xcoms: dict[str, Any] | None = None) -> TriggerEvent:
        if not self.ends_task:
            told = {"succeeded": state == "success", "skipped": state == "skipped", "text": text}
            return TriggerEvent({**told, "xcoms": xcoms or {}})
        from airflow.triggers.base import TaskFailedEvent, TaskSkippedEvent, TaskSuccessEvent

        # The triggerer's log is the task's own.
        if state == "failed":
            self.log.error("%s", text)
            return TaskFailedEvent(xcoms=xcoms or None)
        self.log.info("%s", text)
        return (TaskSkippedEvent if state == "skipped" else TaskSuccessEvent)(xcoms=xcoms or None)

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
