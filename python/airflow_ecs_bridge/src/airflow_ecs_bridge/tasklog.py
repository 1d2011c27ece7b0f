"""Log lines about a task of the bridge, with its state, wait reason, ECS task and log stream."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_ecs_bridge.cloudwatch_logs import stream
from ecs_bridge import progress

if TYPE_CHECKING:
    from airflow_ecs_bridge.config import Settings
    from ecs_bridge.table import Record

TIMEOUT = 4.0
"""Timeout of the log view for the bridge, in seconds."""

LINES = 1_000
"""Number of last container lines that the log view shows before Airflow 3.4."""


def wait_reason(record: Record) -> str | None:
    """Return the wait reason of a submission with start time and advice, or None if it is not waiting."""
    wait = progress.wait_reason(vars(record))
    if wait is None:
        return None
    since = "" if record.created_at is None else f" since {_time(record.created_at)}"
    text = f"submission {record.submission_id} has been waiting{since}, state {record.state}: "
    text += record.reason or f"waiting for {wait.cause}: {wait.detail}"
    if record.reason and record.advice:
        text += f", what to do: {record.advice}"
    return f"{text}, ecs-bridge show {record.submission_id}"


def describe(record: dict[str, Any], settings: Settings) -> list[str]:
    """Return log lines about a record of the bridge."""
    id, state = record.get("submission_id"), record.get("state")
    status = f"ECS bridge: submission {id} is {state}"
    began = {"launched": "launched_at", "running": "started_at"}.get(str(state), "created_at")
    if isinstance(at := record.get(began), int):
        status += f" since {_time(at)}"
    if record.get("runs_on"):
        status += f" on {record['runs_on']}"
    lines = [status]
    if wait := progress.wait_reason(record):
        lines.append(f"Waiting for {wait.cause}: {wait.detail}")
    for name, member in (("Reason", "reason"), ("Advice", "advice"), ("ECS task", "task_arn")):
        if record.get(member) and not (wait and member == "reason"):
            lines.append(f"{name}: {record[member]}")
    if link := cloudwatch_link(record.get("task_arn"), record.get("container_name"), settings):
        lines.append(f"CloudWatch: {link}")
    lines.append(f"Details: ecs-bridge show {id}")
    return lines


def _time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def cloudwatch_link(task_arn: str | None, container: str | None, settings: Settings) -> str | None:
    """Return a link to the log stream of a task, if the options set its log group."""
    place = stream({"task_arn": task_arn, "container_name": container}, settings)
    if place is None or task_arn is None:
        return None
    # arn:partition:ecs:region:account:task/cluster/id
    return _console_link(settings.awslogs_region or task_arn.split(":")[3], *place)


def _console_link(region: str, group: str, stream: str) -> str:
    # The console requires names that are percent-encoded twice, with "$" for the second "%".
    def twice(text: str) -> str:
        return quote(quote(text, safe=""), safe="").replace("%", "$")

    page = f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}"
    return f"{page}#logsV2:log-groups/log-group/{twice(group)}/log-events/{twice(stream)}"
