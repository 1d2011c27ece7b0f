"""The parts of the executor that do not depend on Airflow, its health check, and the log view."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from airflow_ecs_bridge import db_reconciler, tasklog
from airflow_ecs_bridge.adoption import submission_id_of
from airflow_ecs_bridge.aws import Aws
from airflow_ecs_bridge.cloudwatch_logs import tail, whole
from airflow_ecs_bridge.engine import Engine
from airflow_ecs_bridge.log_tail import LogTail
from airflow_ecs_bridge.metrics import Metrics
from airflow_ecs_bridge.results import Outcome, Verdict
from airflow_ecs_bridge.threads import bounded
from ecs_bridge.api import BridgeClient
from ecs_bridge.errors import BridgeError, ErrorKind
from ecs_bridge.progress import WAITING
from ecs_bridge.table import END_OF_TIME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_ecs_bridge.config import Settings

log = logging.getLogger(__name__)

WAITS_AFTER = 120.0
"""Seconds in the state queued before the event log shows why a task is waiting. Most containers start earlier, and an
entry is a row of Airflow's database."""


class Unhealthy(Exception):
    """The bridge is unhealthy. The message names the failed check and the remedy."""


class Bridge:
    """The parts of a started executor that do not depend on Airflow. The constructor does no I/O."""

    def __init__(self, settings: Settings, report: Callable[[Outcome], None], team_name: str | None = None) -> None:
        self._settings = settings
        self.engine = engine = Engine(settings, self._report, self._waits, WAITS_AFTER)
        self.watcher, self.submitter, self.stopper = engine.watcher, engine.submitter, engine.stopper
        self.last_lines = LogTail(engine.aws, settings, engine.client.show, report)
        self.db_reconciler = db_reconciler.DbReconciler(
            settings.reconcile_interval, db_reconciler.living, engine.client.failed_calls, engine.waits.keep
        )
        self.metrics = Metrics(engine.figures, team_name)
        for part in (self.last_lines, self.db_reconciler, self.metrics):
            engine.services.add(part.service)

    def _report(self, outcome: Outcome) -> None:
        self.last_lines.report(outcome)

    def _waits(self, submission_id: str, text: str) -> None:
        self._report(Outcome(submission_id, Verdict.WAITING, text))

    def start(self) -> None:
        """Start the threads."""
        self.engine.services.start()

    def stop(self) -> None:
        """Stop the threads without waiting for them."""
        self.engine.services.stop()

    def beat(self) -> None:
        """Record a heartbeat of the scheduler, and restart dead threads."""
        self.engine.services.revive()
        self.watcher.beat()

    def dump(self) -> str:
        """Return the metrics and the dead threads as text."""
        figures = ", ".join(f"{name} {value:g}" for name, value in self.engine.figures().items())
        return f"{figures}; threads down: {', '.join(self.engine.services.down()) or 'none'}"

    def check_health(self) -> None:
        """Check the bridge and the table; raise Unhealthy if a check fails, or after `startup_timeout` seconds."""
        settings = self._settings
        try:
            bounded(self._ask, settings.startup_timeout, "ecs-bridge-health")
        except TimeoutError as error:
            raise Unhealthy(
                f"the ECS bridge {settings.bridge} is unhealthy: {error} (check submit_url and the network path to it)"
            ) from None
        log.info("The ECS bridge is healthy")

    def _ask(self) -> None:
        try:
            health = self.engine.client.health()
        except BridgeError as error:
            unanswered = (
                "see the submit function's log" if error.status else "check submit_url and the network path to it"
            )
            hint = {
                ErrorKind.CREDENTIALS: "check the credentials of aws_conn_id; they need "
                "lambda:InvokeFunctionUrl and lambda:InvokeFunction on the submit function",
                ErrorKind.CONFIGURATION: "check submit_url",
            }.get(error.kind, unanswered)
            raise Unhealthy(f"the ECS bridge is unhealthy: {error} ({hint})") from error
        settings = self._settings
        self._compare(health)
        try:
            table = self.engine.table()
            # The same requests as the watcher, a Query on the index and a BatchGetItem on the table.
            table.changes(END_OF_TIME)
            table.records(["health-check"])
        except Exception as error:
            raise Unhealthy(
                f"cannot read the ECS bridge's table {settings.table!r}: {error} (check table and region_name; the "
                "credentials need dynamodb:Query on its index feed and dynamodb:BatchGetItem on the table)"
            ) from error

    def _compare(self, health: dict[str, Any]) -> None:
        """Raise Unhealthy if the options name another deployment or table. Log the warnings of the bridge."""
        settings = self._settings
        table = settings.table.rpartition("/")[2]  # of an ARN
        for option, ours in (("deployment", settings.deployment), ("table", table)):
            theirs = health.get(option)
            # Functions of older versions do not return it.
            if theirs is not None and theirs != ours:
                raise Unhealthy(
                    f"wrong [ecs_bridge_executor] {option}: {ours!r}; the {option} of the ECS bridge "
                    f"{settings.bridge} is {theirs!r}"
                )
        for warning in health.get("warnings") or []:
            log.warning("ECS bridge warning: %s", warning)
        for profile, policy in (health.get("profiles") or {}).items():
            if policy.get("relaunch_on") and not policy.get("by_try"):
                log.warning(
                    "Profile %s of the ECS bridge sets relaunch_on, which does not work for Airflow workers. An "
                    "interrupted worker reports its task and exits with 0, and Airflow rejects a second container of a "
                    "try. Use task retries instead",
                    profile,
                )


class LogView:
    """The log view of running tasks. Each executor has one, so that it keeps its session and connections."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._aws = Aws(settings)
        self._client = BridgeClient(settings.submit_url, self._aws, tasklog.TIMEOUT, settings.submit_function)

    def tail(self, external_executor_id: str | None) -> tuple[list[str], list[str]]:
        """Return lines about a task, and the last lines of its container.

        It never raises and takes up to a few seconds. If a part is unavailable, the lines contain the reason.
        """
        lines, record = self._describe(external_executor_id)
        if record is None:
            return lines, []
        try:
            output = bounded(
                lambda: tail(self._aws, self._settings, record, tasklog.LINES), tasklog.TIMEOUT, "ecs-bridge-output"
            )
        except Exception as error:
            return [*lines, _unread(error)], []
        return lines, output

    def stream(self, external_executor_id: str | None) -> tuple[list[str], Iterator[str]]:
        """Return lines about a task, and an iterator that reads all lines of its container on demand."""
        lines, record = self._describe(external_executor_id)

        def output() -> Iterator[str]:
            if record is None:
                return
            try:
                yield from whole(self._aws, self._settings, record)
            except Exception as error:
                yield _unread(error)

        return lines, output()

    def _describe(self, external_executor_id: str | None) -> tuple[list[str], dict[str, Any] | None]:
        """Return lines about a task, and its record if its container may have written output."""
        submission_id = submission_id_of(external_executor_id)
        if submission_id is None:
            return [], None
        try:
            record = bounded(lambda: self._client.show(submission_id), tasklog.TIMEOUT, "ecs-bridge-log")
        except Exception as error:
            return [f"ECS bridge: cannot read submission {submission_id}: {error}"], None
        has_started = record.get("state") not in WAITING
        return tasklog.describe(record, self._settings), record if has_started else None


def _unread(error: Exception) -> str:
    if isinstance(error, ClientError) and error.response["Error"]["Code"] == "ResourceNotFoundException":
        return "The container has not written any output yet"  # its stream begins with the first line
    return f"Cannot read the container's output: {error} (check awslogs_group, awslogs_region, logs:GetLogEvents)"
