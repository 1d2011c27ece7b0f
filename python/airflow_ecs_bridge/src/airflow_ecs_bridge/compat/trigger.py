"""The trigger of EcsRunTaskOperator on the bridge."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TriggerEvent

from airflow_ecs_bridge import commands, comms, live, xcom
from airflow_ecs_bridge._versions import AIRFLOW_3
from airflow_ecs_bridge.compat import client
from airflow_ecs_bridge.config import ConfigError
from airflow_ecs_bridge.triggers import TIMED_OUT, EcsBridgeTrigger
from ecs_bridge.errors import InvalidSubmissionError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from ecs_bridge.table import Record

MAX_ATTEMPTS = "Waiter error: max attempts reached"
"""The text of the provider's trigger."""

_TIME = re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\] ")

_lives: dict[tuple[Any, ...], live.Live] = {}
_lock = threading.Lock()


class EcsRunTaskTrigger(EcsBridgeTrigger):
    """A trigger that submits a command and waits for its result. The operator then reads the record.

    :param cluster: cluster of the task, for the event
    :param logs: group, prefix, container and Region of the output; None shows no output
    :param gives_up_at: time at which the wait ends, in epoch seconds
    :param stop_task_on_failure: stop the command when the wait ends
    :param push_arn: push the ARN of the task when it is launched

    The other parameters are the same as in `EcsBridgeTrigger`.
    """

    def __init__(
        self,
        command: Any,
        profile: str,
        overrides: dict[str, Any] | None = None,
        priority: int | None = None,
        awslogs_fetch_interval: float | None = None,
        submission_id: str | None = None,
        about: dict[str, str] | None = None,
        cluster: str = "",
        logs: dict[str, Any] | None = None,
        gives_up_at: float | None = None,
        stop_task_on_failure: bool = True,
        push_arn: bool = True,
    ) -> None:
        super().__init__(
            command,
            profile,
            overrides,
            priority=priority,
            awslogs_fetch_interval=awslogs_fetch_interval,
            submission_id=submission_id,
            about=about,
        )
        self.cluster = cluster
        self.logs = logs
        self.gives_up_at = gives_up_at
        self.stop_task_on_failure = stop_task_on_failure
        self.push_arn = push_arn

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the state that another triggerer needs to continue."""
        names = [
            *("command", "profile", "overrides", "priority", "awslogs_fetch_interval", "submission_id", "about"),
            *("cluster", "logs", "gives_up_at", "stop_task_on_failure", "push_arn"),
        ]
        return f"{__name__}.EcsRunTaskTrigger", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the result."""
        try:
            here, body = await self._begin()
        except (ConfigError, InvalidSubmissionError) as error:
            yield TriggerEvent({"status": "error", "message": str(error)})
            return
        self.log.info("submission %s: ecs-bridge show %s", self._id(), self._id())
        output = self._follow(here)
        launch = asyncio.create_task(self._report_launch(here))
        try:
            end = await asyncio.wait_for(here.run(body, 0, self.log.info), self._limit())
            self._has_ended = True
            record = await self._read(here, end)
            if output is not None:
                await self._await_output(here, record)
                await output.finish(self._seconds_left())
        except asyncio.TimeoutError:  # before 3.11 not the same as TimeoutError
            self._has_ended = True
            yield TriggerEvent(
                {
                    "status": "error",
                    "message": self._give_up(here),
                    "submission_id": self._id(),
                }
            )
            return
        finally:
            launch.cancel()
            if output is not None:
                output.close()
        if not record.get("task_arn"):
            failures = client.failures_of(record)
            yield TriggerEvent(
                {
                    "status": "not_started",
                    "failures": failures,
                    "submission_id": self._id(),
                }
            )
            return
        yield TriggerEvent(
            {
                "status": "success",
                "task_arn": record["task_arn"],
                "cluster": self.cluster,
                "submission_id": self._id(),
            }
        )

    def _limit(self) -> float | None:
        """Return the seconds until the wait ends: at ``gives_up_at``, or before Airflow's own timeout."""
        left = [seconds for seconds in (self._seconds_left(), self._seconds_until_give_up()) if seconds is not None]
        return min(left, default=None)

    def _seconds_until_give_up(self) -> float | None:
        return None if self.gives_up_at is None else max(self.gives_up_at - time.time(), 0.0)

    def _give_up(self, here: commands.Commands) -> str:
        """Stop the command if its task fails with it, and return the reason."""
        if self._seconds_until_give_up() != 0.0:
            here.stop(self._id(), TIMED_OUT)
            return f"{TIMED_OUT}, and the command was stopped"
        if self.stop_task_on_failure:
            here.stop(self._id(), "Task failed after creation; cleanup by Airflow")
        return MAX_ATTEMPTS

    async def _read(self, here: commands.Commands, end: commands.End) -> dict[str, Any]:
        if end.record:
            return end.record
        try:
            return await asyncio.to_thread(client.read, here, self._id())
        except xcom.NoResult as error:
            if end.succeeded or getattr(error.__cause__, "status", None) != 404:
                raise
            return client.not_accepted(self._id(), end.info)

    async def _await_output(self, here: commands.Commands, record: dict[str, Any]) -> None:
        """Wait until the container has sent all its output, because a worker then reads the last lines."""
        for _ in range(xcom.MOST_LOOKS):
            if not client.output_is_missing(record):
                return
            await asyncio.sleep(client.OUTPUT_EVERY)
            record = await asyncio.to_thread(client.read, here, self._id())

    async def _report_launch(self, here: commands.Commands) -> None:
        """Log and push the ARN when the task is launched, as the provider's operator does before it defers."""
        began = time.monotonic()
        try:
            while (record := await asyncio.to_thread(client.launch_of, here, self._id())) is None:
                age = time.monotonic() - began
                await asyncio.sleep(min(max(age / 10, client.FIRST_LOOK), client.LAST_LOOK))
            if (arn := record.get("task_arn")) is None:
                return
            self.log.info("ECS task ID is: %s", arn.rsplit("/", 1)[-1])
            if self.push_arn and AIRFLOW_3 and self._is_in_triggerer and self.task_instance is not None:
                await push(self.task_instance, "ecs_task_arn", arn)
        except Exception as error:  # the operator pushes it again at the end
            self.log.info("could not report the launch of submission %s: %s", self._id(), error)

    def _follow(self, here: commands.Commands) -> live.Follower | None:
        """Start to show the container output in the task log."""
        if self.logs is None or self.awslogs_fetch_interval is None:
            return None
        reader = live_of(here, **self.logs)
        return reader.follow(self._id(), self.awslogs_fetch_interval, self._write, self._warn)

    def _write(self, line: str) -> None:
        self.log.log(level_of(_TIME.sub("", line)), "%s", line)

    def _warn(self, reason: str) -> None:
        self.log.warning("%s", reason)


def level_of(message: str) -> int:
    """Return the level of a line, as the provider's log fetcher finds it."""
    try:
        from airflow.providers.amazon.aws.utils.task_log_fetcher import _parse_log_level
    except ImportError:  # versions of the provider without it log all lines at INFO
        return logging.INFO
    return _parse_log_level(message)


async def push(ti: Any, key: str, value: Any) -> None:
    """Push an XCom of a deferred task instance, from its triggerer."""
    from airflow.sdk.bases.xcom import BaseXCom

    await comms._in_thread_of_airflow(lambda: BaseXCom.set(key, value, **comms._key(ti)))


def live_of(here: commands.Commands, group: str, prefix: str, container: str, region: str | None) -> live.Live:
    """Return the shared reader of a process for the output of a container. All readers share the pace of a Region."""
    key = (id(here), group, prefix, container, region)
    with _lock:
        if key not in _lives:
            settings = replace(
                here.settings,
                awslogs_group=group,
                awslogs_stream_prefix=prefix,
                awslogs_region=region or here.settings.awslogs_region,
            )
            made = live.Live(here.aws, settings, _lookup_of(here, container), here._services.add)
            made._paces = here._live._paces
            _lives[key] = made
        return _lives[key]


def _lookup_of(here: commands.Commands, container: str) -> Callable[[Iterable[str]], Future[dict[str, Record]]]:
    """Return a lookup of records whose output is that of a container, which may be another one than the profile's."""

    def lookup(ids: Iterable[str]) -> Future[dict[str, Record]]:
        renamed: Future[dict[str, Record]] = Future()

        def rename(found: Future[dict[str, Record]]) -> None:
            try:
                records = found.result()
                renamed.set_result({id: replace(each, container_name=container) for id, each in records.items()})
            except BaseException as error:
                renamed.set_exception(error)

        here._watcher.lookup(ids).add_done_callback(rename)
        return renamed

    return lookup
