"""What people see of a task of the bridge: its state, for what it waits, its ECS task, and a link to its log stream."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ecs_bridge.advice import advice

from airflow_ecs_bridge.cloudwatch_logs import stream

if TYPE_CHECKING:
    from ecs_bridge.table import Record

    from airflow_ecs_bridge.config import Settings

TIMEOUT = 4.0
"""Seconds that the log view may wait for the bridge."""

LINES = 1_000
"""Lines of the container that the log view shows before Airflow 3.4, the last ones."""

WAITS_FOR = {
    "queued": "its turn at the launch rate, or a runner of its pool",
    "launching": "ECS's answer to RunTask",
    "launched": "its container to start: ECS has the task, and may still place it or pull the image",
}
"""For what a submission waits in each state before it runs, where its record gives no reason."""


def wait_reason(record: Record) -> str | None:
    """Return for what a submission waits, since when, and what to do; None if it does not wait."""
    if record.state not in WAITS_FOR:
        return None
    since = "" if record.created_at is None else f" since {_time(record.created_at)}"
    text = f"submission {record.submission_id} waits{since}, now {record.state}: "
    text += record.reason or WAITS_FOR[record.state]
    if record.reason and (help := advice(record.state, reasons=(record.reason,))):
        text += f", what to do: {help}"
    return f"{text}, ecs-bridge show {record.submission_id}"


def describe(record: dict[str, Any], settings: Settings) -> list[str]:
    """Return lines for people about a record of the bridge."""
    id, state = record.get("submission_id"), record.get("state")
    status = f"ECS bridge: submission {id} is {state}"
    began = {"launched": "launched_at", "running": "started_at"}.get(str(state), "created_at")
    if isinstance(at := record.get(began), int):
        status += f" since {_time(at)}"
    if record.get("runs_on"):
        status += f" on {record['runs_on']}"
    lines = [status]
    if state in WAITS_FOR and not record.get("reason"):
        lines.append(f"WaitReasons for: {WAITS_FOR[state]}")
    for name, member in (("Why", "reason"), ("What to do", "advice"), ("ECS task", "task_arn")):
        if record.get(member):
            lines.append(f"{name}: {record[member]}")
    if link := cloudwatch_link(record.get("task_arn"), record.get("container_name"), settings):
        lines.append(f"CloudWatch: {link}")
    lines.append(f"More: ecs-bridge show {id}")
    return lines


def _time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def cloudwatch_link(task_arn: str | None, container: str | None, settings: Settings) -> str | None:
    """Return a link to the log stream of a task, if the options tell where it is."""
    place = stream({"task_arn": task_arn, "container_name": container}, settings)
    if place is None or task_arn is None:
        return None
    # arn:partition:ecs:region:account:task/cluster/id
    return _console_link(settings.awslogs_region or task_arn.split(":")[3], *place)


def _console_link(region: str, group: str, stream: str) -> str:
    # The console wants names percent-encoded twice, with "$" for the second "%".
    def twice(text: str) -> str:
        return quote(quote(text, safe=""), safe="").replace("%", "$")

    page = f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}"
    return f"{page}#logsV2:log-groups/log-group/{twice(group)}/log-events/{twice(stream)}"
