"""The trigger that waits for the result of a command."""

from __future__ import annotations

import asyncio
import functools
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_ecs_bridge import commands, comms, live, xcom
from airflow_ecs_bridge._versions import AIRFLOW_3, TRIGGERS_HAVE_ON_KILL
from airflow_ecs_bridge.config import ConfigError
from airflow_ecs_bridge.links import LOG_LINK
from ecs_bridge.errors import InvalidSubmissionError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

TIMED_OUT = "its execution_timeout has expired"

SUPERSEDED = "its task has a new try in Airflow"

ASKS = 3
"""Maximum number of requests to Airflow. Without a response, nothing is stopped."""

ASK_AGAIN = 2.0
"""Interval between requests, in seconds."""

_ASKING: set[asyncio.Task[None]] = set()
"""Pending requests. They are stored here because a loop has only weak references to its tasks."""


class EcsBridgeTrigger(BaseTrigger):
    """A trigger that submits a command and waits for its result. It can end the task itself, without a worker.

    Another triggerer submits the command again under the same ID, which does not run it again. All triggers of a
    triggerer share one reader of the feed, with one query per second for any number of triggers.

    :param awslogs_fetch_interval: interval between reads of the container output, in seconds; None disables it
    :param submission_id: submission ID; defaults to an ID derived from the task instance (`commands.submission_id`)
    :param ends_task: end the task instead of firing an event for the operator's ``execute_complete``

    The other parameters are the same as in `EcsBridgeOperator`.
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
        awslogs_fetch_interval: float | None = None,
        submission_id: str | None = None,
        about: dict[str, str] | None = None,
        ends_task: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # The same names as the operator's templated fields, because the triggerer renders them.
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
        self.awslogs_fetch_interval = awslogs_fetch_interval
        self.submission_id = submission_id
        self.about = about
        self.ends_task = ends_task
        self._has_ended = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the state that another triggerer needs to continue."""
        names = [
            *("command", "profile", "overrides", "environment", "container", "priority", "log_lines"),
            *("xcom_last_line", "xcom_s3_uri", "skip_on_exit_code", "stop_on_kill"),
            *("awslogs_fetch_interval", "submission_id", "about", "ends_task"),
        ]
        return "airflow_ecs_bridge.triggers.EcsBridgeTrigger", {name: getattr(self, name) for name in names}

    def _id(self) -> str:
        if self.submission_id is None:
            if self.task_instance is None:
                raise RuntimeError("missing submission_id: a trigger without a task instance requires it")
            self.submission_id = commands.submission_id(self.task_instance)
        return self.submission_id

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the result."""
        try:
            here, body = await self._begin()
        except (ConfigError, InvalidSubmissionError) as error:
            yield self._event("failed", str(error))
            return
        whole = self._is_in_triggerer and not self._was_deferred
        started = " Task starts in the triggerer, without a worker." if whole else ""
        self.log.info("submission %s: ecs-bridge show %s.%s", self._id(), self._id(), started)
        output = self._follow(here)
        try:
            end = await asyncio.wait_for(here.run(body, self.log_lines, self.log.info), self._seconds_left())
            self._has_ended = True
            if output is not None:
                await output.finish(self._seconds_left())
        except asyncio.TimeoutError:  # before 3.11 not the same as TimeoutError
            self._has_ended = True
            here.stop(self._id(), TIMED_OUT)
            yield self._event("failed", f"{TIMED_OUT}, and the command was stopped: ecs-bridge show {self._id()}")
            return
        finally:
            if output is not None:
                output.close()
        xcoms: dict[str, Any] = {}
        if link := await asyncio.to_thread(here.link, self._id(), end.record):
            xcoms[LOG_LINK] = link
        if not end.succeeded:
            skipped = end.exit_code is not None and end.exit_code in self.skip_on_exit_code
            yield self._event("skipped" if skipped else "failed", end.text(), xcoms)
            return
        try:
            value = await self._value(here)
        except xcom.NoResult as error:
            yield self._event("failed", f"the command succeeded, but its return value is missing: {error}", xcoms)
            return
        if value is not None:
            xcoms["return_value"] = value
        yield self._event("success", end.text(), xcoms)

    async def _begin(self) -> tuple[commands.Commands, dict[str, Any]]:
        """Return the threads of this process and the submission; raise if the options or the fields are invalid."""
        if self._is_in_triggerer:
            comms.use_loop_of_triggers()
        # The first use reads the options and starts threads.
        here = await asyncio.to_thread(commands.Commands.of_this_process)
        body = self._body(here)
        if self._is_in_triggerer:  # a worker that waits itself exits too early for metrics
            here.emit_metrics()
            await self._follow_earlier_tries(here)
        return here, body

    def _body(self, here: commands.Commands) -> dict[str, Any]:
        """Return the submission; raise InvalidSubmissionError if its fields or its XCom settings are invalid."""
        if self.xcom_last_line and not here.settings.knows_output:
            raise InvalidSubmissionError(
                "xcom_last_line requires awslogs_group and awslogs_stream_prefix; set them in [ecs_bridge_executor]"
            )
        if self.xcom_s3_uri:
            try:
                xcom.place(self.xcom_s3_uri)
            except ValueError as error:
                raise InvalidSubmissionError(str(error)) from None
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

    def _follow(self, here: commands.Commands) -> live.Follower | None:
        """Start to show the container output in the task log, if the options set its location."""
        if self.awslogs_fetch_interval is None:
            return None
        if not here.settings.knows_output:
            self.log.info(live.NOT_CONFIGURED)
            return None
        # With "%s", because the output may contain "%".
        write = functools.partial(self.log.info, "%s")
        return here.follow(self._id(), self.awslogs_fetch_interval, write, functools.partial(self.log.warning, "%s"))

    def _seconds_left(self) -> float | None:
        """Return the seconds until Airflow's timeout of the trigger, or None without a timeout."""
        # Airflow 3's triggerer sets `timeout_after` before it runs a trigger. Airflow 2 sets `trigger_timeout`.
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
        if not self.ends_task or not self._is_in_triggerer:  # dag.test() resumes the task in each case
            result = {"succeeded": state == "success", "skipped": state == "skipped", "text": text}
            return TriggerEvent({**result, "xcoms": xcoms or {}})
        from airflow.triggers.base import TaskFailedEvent, TaskSkippedEvent, TaskSuccessEvent

        # The log of the trigger is the task log.
        if state == "failed":
            self.log.error("%s", text)
            return TaskFailedEvent(xcoms=xcoms or None)
        self.log.info("%s", text)
        return (TaskSkippedEvent if state == "skipped" else TaskSuccessEvent)(xcoms=xcoms or None)

    async def on_kill(self) -> None:
        """Stop the command if the task was cleared or marked.

        Airflow 3.3 and later call it for such a task, and for each task that moved to another triggerer.
        """
        await self._stop_if_given_up()

    async def cleanup(self) -> None:
        """Do the same before Airflow 3.3, which has no other notification. It also runs when the triggerer stops."""
        if not TRIGGERS_HAVE_ON_KILL:
            await self._stop_if_given_up()

    async def _stop_if_given_up(self) -> None:
        if self._has_ended or not self.stop_on_kill or self.task_instance is None:
            return
        # Airflow (3.3.2) cancels a trigger again once per second while this waits for a response.
        asks = asyncio.create_task(self._ask_and_stop(self.task_instance))
        _ASKING.add(asks)
        asks.add_done_callback(_ASKING.discard)
        await asyncio.shield(asks)

    async def _ask_and_stop(self, ti: Any) -> None:
        asks = 0
        while True:
            try:
                waits = await comms.waits_still(ti, self._id())
                break
            except Exception as error:
                asks += 1
                if asks == ASKS:
                    self.log.warning(
                        "submission %s: cannot determine why the trigger was cancelled; leaving it running: %s",
                        self._id(),
                        error,
                    )
                    return
            await asyncio.sleep(ASK_AGAIN)
        if waits:
            self.log.info("submission %s: task is still deferred; another triggerer waits for it", self._id())
            return
        here = await asyncio.to_thread(commands.Commands.of_this_process)
        here.stop(self._id(), "its task was cleared or marked in Airflow")

    async def _follow_earlier_tries(self, here: commands.Commands) -> None:
        """Stop the command of the previous try. This is needed if no triggerer was running when the try was cleared."""
        ti = self.task_instance
        if not AIRFLOW_3 or ti is None:
            return
        try:
            if ti.try_number > 1:
                earlier = await comms.submission_of(ti)
                if earlier == self._id():
                    return
                if earlier and self.stop_on_kill:
                    here.stop(earlier, SUPERSEDED)
                if not self._was_deferred:
                    await comms.forget_return_value(ti)
            await comms.note_submission(ti, self._id())
        except Exception as error:
            self.log.warning("could not check for the command of an earlier try: %s", error)

    @property
    def _is_in_triggerer(self) -> bool:
        """True in a triggerer, and false in a waiting worker and in ``dag.test()``."""
        return self.trigger_id is not None

    @property
    def _was_deferred(self) -> bool:
        """True if a worker started the task and created the trigger."""
        return self.about is not None
