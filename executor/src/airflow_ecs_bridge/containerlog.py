"""The last lines that a container wrote, from CloudWatch Logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_ecs_bridge.aws import Aws
    from airflow_ecs_bridge.config import Settings

MOST = 10_000
"""GetLogEvents' limit of a call."""


def stream(record: dict[str, Any], settings: Settings) -> tuple[str, str] | None:
    """Return log group and stream of a record's container, if the options tell: ``prefix/container/task id``.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html
    """
    task_arn, container = record.get("task_arn"), record.get("container_name")
    if not (task_arn and container and settings.awslogs_group and settings.awslogs_stream_prefix):
        return None
    return settings.awslogs_group, f"{settings.awslogs_stream_prefix}/{container}/{task_arn.rsplit('/', 1)[-1]}"


def tail(aws: Aws, settings: Settings, record: dict[str, Any], lines: int) -> list[str]:
    """Read the last lines, in one call; none where the options do not tell where they are.

    Needs ``logs:GetLogEvents``. Of a runner's container those are read that were written while it ran the command: by
    the bridge's clock, which took note of the begin before the command wrote, and of the end after.
    """
    place = stream(record, settings)
    if place is None or lines < 1:
        return []
    span: dict[str, int] = {}
    if record.get("runner_id"):
        # No more than that: the runner's next command may write a millisecond later.
        if not isinstance(began := record.get("started_at"), int):
            return []
        span["startTime"] = began
        if isinstance(ended := record.get("container_exited_at"), int):
            span["endTime"] = ended + 1  # exclusive
    region = settings.awslogs_region or record["task_arn"].split(":")[3]
    answer = aws.client("logs", region).get_log_events(
        logGroupName=place[0], logStreamName=place[1], limit=min(lines, MOST), startFromHead=False, **span
    )
    return [event["message"].rstrip("\n") for event in answer["events"]]
