"""Commands of triggers and workers. Each process has one reader of the feed for all waiting commands."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from airflow_ecs_bridge import xcom
from airflow_ecs_bridge.cloudwatch_logs import tail
from airflow_ecs_bridge.config import Settings
from airflow_ecs_bridge.engine import Engine
from airflow_ecs_bridge.job import Job, read_executor_config
from airflow_ecs_bridge.live import Follower, Live
from airflow_ecs_bridge.metrics import Metrics
from airflow_ecs_bridge.results import Outcome, Verdict
from airflow_ecs_bridge.tasklog import cloudwatch_link
from ecs_bridge._sansio import backoff
from ecs_bridge.errors import BridgeError
from ecs_bridge.submission import Submission, json_bytes, shortened

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

WAITS_AFTER = 20.0
"""Seconds after which the task log shows why its command is waiting."""

LOOKS_BACK = 3
"""Maximum number of reads of the record of a command that did not succeed."""

KEYS = ("dag_id", "run_id", "task_id", "map_index", "try_number")


def submission_id(ti: Any) -> str:
    """Return the ID of a try of a task instance. It is stable, so a second submission does not run the command again.

    The ID includes Airflow 3's UUID of the try, so two Airflow installations with the same Dags do not share IDs.
    """
    parts = [str(getattr(ti, key, "")) for key in KEYS]
    parts.append(str(getattr(ti, "id", None) or ""))
    return f"op-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:40]}"


def subject(ti: Any) -> dict[str, str]:
    """Return the labels of the submission of a task instance."""
    return {key: str(getattr(ti, key)) for key in KEYS if key != "map_index" or getattr(ti, key, -1) != -1}


def item(
    id: str,
    command: Any,
    *,
    profile: str | None = None,
    overrides: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    container: str | None = None,
    priority: int | None = None,
    about: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return the item for ``POST /v1/submissions``; raise InvalidSubmissionError if the submission is invalid."""
    chosen, parameters = read_executor_config({**(overrides or {}), **({"profile": profile} if profile else {})})
    return Submission(
        id,
        command,
        profile=chosen,
        overrides=parameters,
        environment=environment,
        container=container,
        priority=priority,
        labels=shortened(about or {}),
    ).item()


@dataclass(frozen=True)
class _Waiter:
    """A waiting caller, with a future of its event loop and the context of its log."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Outcome]
    say: Callable[[str], None]
    context: contextvars.Context


class End:
    """The result of a command."""

    def __init__(self, outcome: Outcome, record: dict[str, Any] | None, lines: list[str]) -> None:
        self.succeeded = outcome.verdict is Verdict.SUCCEEDED
        self.info = outcome.info or "ECS bridge state succeeded"
        self.record = record or {}
        self.lines = lines
        """The last lines of its container, if they can be read."""

    @property
    def exit_code(self) -> int | None:
        """The exit code of a container that did not succeed, if it is known."""
        code = self.record.get("exit_code")
        return code if isinstance(code, int) else None

    def text(self) -> str:
        """Return the result as text."""
        written = "\n".join(f"    {line}" for line in self.lines)
        return f"{self.info}\nLast lines of the container:\n{written}" if written else self.info


class Commands:
    """The threads and clients of this process."""

    _here: Commands | None = None
    _lock = threading.Lock()

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._engine = engine = Engine(settings, self._report, self._say, WAITS_AFTER)
        self.aws, self._client = engine.aws, engine.client
        self._watcher, self._submitter, self._stopper = engine.watcher, engine.submitter, engine.stopper
        self._waits, self._services = engine.waits, engine.services
        # Its thread starts with the first command whose output is shown.
        self._live = Live(self.aws, settings, self._watcher.lookup, self._services.add)
        self._metrics: Metrics | None = None
        self._waiting: dict[str, list[_Waiter]] = {}
        self._services.start()

    @classmethod
    def of_this_process(cls) -> Commands:
        """Return the instance of this process, created at the first use; raise ConfigError for invalid options."""
        with cls._lock:
            if cls._here is None:
                from airflow.configuration import conf

                cls._here = cls(Settings.from_conf(conf))
            return cls._here

    def emit_metrics(self) -> None:
        """Start to emit the metrics of this triggerer, under names other than those of a scheduler."""
        with self._lock:
            if self._metrics is None:
                self._metrics = Metrics(self._engine.figures, None, "ecs_bridge.triggerer")
                self._services.add(self._metrics.service)

    def revive(self) -> None:
        """Restart dead threads."""
        self._services.revive()

    async def run(self, body: dict[str, Any], lines: int, say: Callable[[str], None] = lambda text: None) -> End:
        """Submit a command and wait for its result. A second submission waits for the same result.

        :param lines: number of container lines to read if the command does not succeed
        :param say: receives wait reasons, in the caller's context and loop
        """
        outcome = await self._wait(body, say)
        record: dict[str, Any] | None = None
        written: list[str] = []
        if outcome.verdict is not Verdict.SUCCEEDED:
            record, written = await asyncio.to_thread(self._look_back, body["submission_id"], lines)
        return End(outcome, record, written)

    async def _wait(self, body: dict[str, Any], say: Callable[[str], None]) -> Outcome:
        id, loop = body["submission_id"], asyncio.get_running_loop()
        waiter = _Waiter(loop, loop.create_future(), say, contextvars.copy_context())
        with self._lock:
            self._waiting.setdefault(id, []).append(waiter)
        try:
            self.revive()
            self._watcher.watch([id])
            self._waits.add(id)
            job = Job(id, {}, body=body, size=json_bytes(body))
            self._submitter.put(job)
            return await waiter.future
        finally:
            with self._lock:
                left = [each for each in self._waiting.get(id, []) if each is not waiter]
                if left:
                    self._waiting[id] = left
                else:
                    self._waiting.pop(id, None)
                    self._submitter.revoke(id)
                    self._watcher.forget(id)
                    self._waits.forget(id)

    def stop(self, submission_id: str, reason: str) -> None:
        """Stop a command without waiting. The stop is retried until the bridge accepts it."""
        self._submitter.revoke(submission_id)
        self._stopper.stop(submission_id, reason)

    def last_lines(self, record: dict[str, Any], lines: int) -> list[str]:
        """Read the last lines of a record's container if the log group is known. It never raises."""
        try:
            return tail(self.aws, self.settings, record, lines)
        except Exception as error:
            log.info("could not read the container's output: %s", error)
            return []

    def follow(
        self, submission_id: str, interval: float, write: Callable[[str], None], warn: Callable[[str], None]
    ) -> Follower:
        """Show the output of a command's container while it runs; see `Live.follow`."""
        return self._live.follow(submission_id, interval, write, warn)

    async def last_line(self, submission_id: str) -> str | None:
        """Return the last line of a command's complete output; raise NoResult if it cannot be read."""

        def read(record: dict[str, Any]) -> list[str]:
            try:
                return tail(self.aws, self.settings, record, 1)
            except (BotoCoreError, ClientError) as error:
                if isinstance(error, ClientError) and error.response["Error"]["Code"] == "ResourceNotFoundException":
                    return []  # the stream begins with the first line
                raise xcom.NoResult(
                    f"cannot read the last line of its output: {error} (check awslogs_group, awslogs_region and "
                    "logs:GetLogEvents)"
                ) from error

        return await xcom.last_line(lambda: self._show_patiently(submission_id), read)

    async def object(self, uri: str, submission_id: str) -> Any:
        """Return the JSON that a command wrote to S3; raise NoResult if it cannot be read."""

        def read() -> Any:
            return xcom.read_object(self.aws, uri, int(self._show_patiently(submission_id)["created_at"]))

        return await asyncio.to_thread(read)

    def _show_patiently(self, submission_id: str) -> dict[str, Any]:
        """Read a record; raise NoResult if it does not exist, or after repeated failures."""
        tries = 0
        while True:
            try:
                return self.show(submission_id)
            except BridgeError as error:
                tries += 1
                if error.status == 404 or tries == LOOKS_BACK:
                    raise xcom.NoResult(f"cannot read its record: {error}") from error
            time.sleep(backoff(tries))

    def link(self, submission_id: str, record: dict[str, Any]) -> str | None:
        """Return a link to the log stream of a submission's container, if the options set the log group."""
        if not (self.settings.awslogs_group and self.settings.awslogs_stream_prefix):
            return None
        try:
            record = record or self.show(submission_id)
        except BridgeError:
            return None
        return cloudwatch_link(record.get("task_arn"), record.get("container_name"), self.settings)

    def stop_now(self, submission_id: str, reason: str) -> None:
        """Stop a command and wait for the bridge's response, in a process that is about to exit."""
        self._submitter.revoke(submission_id)
        self._client.stop([submission_id], reason)

    def health(self) -> dict[str, Any]:
        """Return the health response of the bridge; raise BridgeError if the bridge is unhealthy."""
        return self._client.health()

    def show(self, submission_id: str) -> dict[str, Any]:
        """Read a record."""
        return self._client.show(submission_id)

    def _look_back(self, submission_id: str, lines: int) -> tuple[dict[str, Any] | None, list[str]]:
        try:
            record = self._show_patiently(submission_id)
        except xcom.NoResult as error:
            log.info("submission %s: %s", submission_id, error)
            return None, []
        return record, self.last_lines(record, lines)

    def _report(self, outcome: Outcome) -> None:
        """Deliver a result to its waiting callers, from a thread."""

        def tell(waiter: _Waiter) -> None:
            if not waiter.future.done():
                waiter.future.set_result(outcome)

        self._call(outcome.submission_id, tell)

    def _say(self, submission_id: str, text: str) -> None:
        """Deliver a wait reason to the waiting callers, from a thread."""
        self._call(submission_id, lambda waiter: waiter.say(text))

    def _call(self, submission_id: str, tell: Callable[[_Waiter], None]) -> None:
        with self._lock:
            waiting = list(self._waiting.get(submission_id, []))
        for waiter in waiting:
            try:
                waiter.loop.call_soon_threadsafe(tell, waiter, context=waiter.context)
            except RuntimeError:
                log.debug("the loop that waited for %s is closed", submission_id)
