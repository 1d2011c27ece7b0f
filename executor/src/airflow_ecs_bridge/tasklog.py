"""What the log view of a running task shows of the bridge: state, ECS task, and a link to its log stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from airflow_ecs_bridge.config import Settings

TIMEOUT = 4.0
"""Seconds that the log view may wait for the bridge."""


def describe(record: dict[str, Any], settings: Settings, region: str) -> list[str]:
    """Return lines for people about a record of the bridge."""
    lines = [f"ECS bridge: submission {record.get('submission_id')} is {record.get('state')}"]
    arn = record.get("task_arn")
    if not isinstance(arn, str):
        return lines
    lines.append(f"ECS task: {arn}")
    container = record.get("container_name")
    if settings.awslogs_group and settings.awslogs_stream_prefix and isinstance(container, str):
        # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html: prefix/container/task id
        stream = f"{settings.awslogs_stream_prefix}/{container}/{arn.rsplit('/', 1)[-1]}"
        lines.append(f"CloudWatch: {_console_link(settings.awslogs_region or region, settings.awslogs_group, stream)}")
    return lines


def _console_link(region: str, group: str, stream: str) -> str:
    # The console wants names percent-encoded twice, with "$" for the second "%".
    def twice(text: str) -> str:
        return quote(quote(text, safe=""), safe="").replace("%", "$")

    page = f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}"
    return f"{page}#logsV2:log-groups/log-group/{twice(group)}/log-events/{twice(stream)}"
