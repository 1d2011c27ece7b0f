"""The executor's threads and clients, wired together."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from ecs_bridge.api import BridgeClient
from ecs_bridge.errors import BridgeError, ErrorKind
from ecs_bridge.table import END_OF_TIME, Table

from airflow_ecs_bridge import db_reconciler, tasklog
from airflow_ecs_bridge.adoption import submission_id_of
from airflow_ecs_bridge.aws import Aws
from airflow_ecs_bridge.cloudwatch_logs import tail, whole
from airflow_ecs_bridge.log_tail import LogTail
from airflow_ecs_bridge.metrics import Metrics
from airflow_ecs_bridge.previous_tries import PreviousTries
from airflow_ecs_bridge.results import Outcome, Verdict
from airflow_ecs_bridge.stopper import Stopper
from airflow_ecs_bridge.submitter import Submitter
from airflow_ecs_bridge.threads import bounded
from airflow_ecs_bridge.wait_reasons import WaitReasons
from airflow_ecs_bridge.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_ecs_bridge.config import Settings

log = logging.getLogger(__name__)

WAITS_AFTER = 120.0
"""Seconds that Airflow has a task as queued before its event log says for what it waits: most containers start in less,
and an entry is a row of Airflow's database."""


class Unhealthy(Exception):
    """The bridge cannot work; the message says what is wrong and where."""


class Bridge:
    """Everything of a started executor that is not Airflow's. Making one does no I/O and starts nothing."""

    def __init__(self, settings: Settings, report: Callable[[Outcome], None], team_name: str | None = None) -> None:
        self._settings = settings
        self._aws = Aws(settings)
        self._client = BridgeClient(settings.submit_url, self._aws, settings.request_timeout, settings.submit_function)
        failed_calls = self._client.failed_calls
        self.last_lines = LogTail(self._aws, settings, self._client.show, report)
        report = self.last_lines.report
        self.watcher = Watcher(self._table, self._aws.forget, settings, report, self._is_pending, failed_calls)
        history = PreviousTries(self.watcher.lookup)
        self.submitter = Submitter(self._client, settings, report, self.watcher.settle, history.patches)
        self.stopper = Stopper(self._client, self.watcher.lookup)
        self.waits = WaitReasons(
            self.watcher.lookup, lambda id, text: report(Outcome(id, Verdict.WAITING, text)), WAITS_AFTER
        )
        self.db_reconciler = db_reconciler.DbReconciler(
            settings.reconcile_interval, db_reconciler.living, failed_calls, self.waits.keep
        )
        self.metrics = Metrics(self.figures, team_name)
        self._services = [
            self.watcher.service,
            self.stopper.service,
            self.last_lines.service,
            self.db_reconciler.service,
            self.waits.service,
            self.metrics.service,
            *self.submitter.services,
        ]

    def start(self) -> None:
        """Begin the threads."""
        for service in self._services:
            service.start()

    def stop(self) -> None:
        """Tell the threads to end; they are daemons, so nobody waits for them."""
        for service in self._services:
            service.stop()

    def beat(self) -> None:
        """Note a heartbeat of the scheduler, and start what died."""
        for service in self._services:
            service.revive()
        self.watcher.beat()

    def figures(self) -> dict[str, float]:
        """Return the state of the executor's side in numbers; from any thread."""
        return {
            **self.submitter.figures(),
            **self.watcher.figures(),
            "threads_down": sum(service.is_down for service in self._services),
            "failed_calls": self._client.failed_calls.value,
        }

    def dump(self) -> str:
        """Return the figures, and the threads, as text."""
        figures = ", ".join(f"{name} {value:g}" for name, value in self.figures().items())
        down = [service.name for service in self._services if service.is_down]
        return f"{figures}; threads down: {', '.join(down) or 'none'}"

    def check_health(self) -> None:
        """Ask bridge and table whether they can work; raise Unhealthy if not, after `startup_timeout` at the latest."""
        settings = self._settings
        try:
            bounded(self._ask, settings.startup_timeout, "ecs-bridge-health")
        except TimeoutError as error:
            raise Unhealthy(
                f"the ECS bridge {settings.bridge} is not healthy: {error} (check submit_url and the way to it)"
            ) from None
        log.info("The ECS bridge is healthy")

    def _ask(self) -> None:
        try:
            health = self._client.health()
        except BridgeError as error:
            unanswered = "see the submit function's log" if error.status else "check submit_url and the way to it"
            hint = {
                ErrorKind.CREDENTIALS: "check the credentials of aws_conn_id, and that they may "
                "lambda:InvokeFunctionUrl and lambda:InvokeFunction on the submit function",
                ErrorKind.CONFIGURATION: "check submit_url",
            }.get(error.kind, unanswered)
            raise Unhealthy(f"the ECS bridge is not healthy: {error} ({hint})") from error
        settings = self._settings
        self._compare(health)
        try:
            table = self._table()
            # What the watcher does later: a Query on the index, a BatchGetItem on the table.
            table.changes(END_OF_TIME)
            table.records(["health-check"])
        except Exception as error:
            raise Unhealthy(
                f"the ECS bridge's table {settings.table!r} cannot be read: {error} (check table and region_name, and "
                "that the credentials may dynamodb:Query its index feed and dynamodb:BatchGetItem)"
            ) from error

    def _compare(self, health: dict[str, Any]) -> None:
        """Raise Unhealthy if the options name another deployment or table; log what the bridge warns of."""
        settings = self._settings
        table = settings.table.rpartition("/")[2]  # of an ARN
        for option, ours in (("deployment", settings.deployment), ("table", table)):
            theirs = health.get(option)
            # A function of an older version does not say.
            if theirs is not None and theirs != ours:
                raise Unhealthy(
                    f"[ecs_bridge_executor] {option} is {ours!r}, but the {option} of the ECS bridge "
                    f"{settings.bridge} is {theirs!r}"
                )
        for warning in health.get("warnings") or []:
            log.warning("The ECS bridge warns: %s", warning)
        for profile, policy in (health.get("profiles") or {}).items():
            if policy.get("relaunch_on") and not policy.get("by_try"):
                log.warning(
                    "Profile %s of the ECS bridge has relaunch_on, which does not work for Airflow's workers: an "
                    "interrupted one reports its task and exits with 0, and the second container of a try is refused. "
                    "Use the tasks' retries instead",
                    profile,
                )

    def _is_pending(self, submission_id: str) -> bool:
        return self.submitter.holds(submission_id)

    def _table(self) -> Table:
        return Table(self._aws.dynamodb(), self._settings.table, self._settings.deployment)


class LogView:
    """What the log view shows of running tasks; one for each executor, so that its session and connections are kept."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._aws = Aws(settings)
        self._client = BridgeClient(settings.submit_url, self._aws, tasklog.TIMEOUT, settings.submit_function)

    def tail(self, external_executor_id: str | None) -> tuple[list[str], list[str]]:
        """Return what the bridge knows of a task, and the last lines of its container.

        Never raises, and takes seconds at most: instead of what is not known there is the reason.
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
        """Return what the bridge knows of a task, and all lines of its container, which are read as they are wanted."""
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
        """Return what the bridge knows, and the record of a task that may have written something."""
        submission_id = submission_id_of(external_executor_id)
        if submission_id is None:
            return [], None
        try:
            record = bounded(lambda: self._client.show(submission_id), tasklog.TIMEOUT, "ecs-bridge-log")
        except Exception as error:
            return [f"ECS bridge: submission {submission_id} could not be looked up: {error}"], None
        has_started = record.get("state") not in tasklog.WAITS_FOR
        return tasklog.describe(record, self._settings), record if has_started else None


def _unread(error: Exception) -> str:
    if isinstance(error, ClientError) and error.response["Error"]["Code"] == "ResourceNotFoundException":
        return "The container has written nothing yet"  # its stream begins with the first line
    return f"The container's output could not be read: {error} (check awslogs_group, awslogs_region, logs:GetLogEvents)"
