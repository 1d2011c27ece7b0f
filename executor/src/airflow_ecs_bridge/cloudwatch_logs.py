"""Where a container's output is, and its last lines: in CloudWatch Logs, or in a local stack's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_ecs_bridge.aws import Aws
    from airflow_ecs_bridge.config import Settings

MOST = 10_000
"""GetLogEvents' limit of a call."""

MOST_PAGES = 10
"""Calls for the whole output of one container."""


def stream(record: dict[str, Any], settings: Settings) -> tuple[str, str] | None:
    """Return log group and stream of a record's container, if the options tell: ``prefix/container/task id``.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html
    """
    task_arn, container = record.get("task_arn"), record.get("container_name")
    if not (task_arn and container and settings.awslogs_group and settings.awslogs_stream_prefix):
        return None
    return settings.awslogs_group, f"{settings.awslogs_stream_prefix}/{container}/{task_arn.rsplit('/', 1)[-1]}"


def local_file(record: dict[str, Any], settings: Settings) -> Path | None:
    """Return the file with a container's output, on a local stack: ``task id-container.log``."""
    task_arn, container = record.get("task_arn"), record.get("container_name")
    if not (task_arn and container and settings.local_log_dir):
        return None
    return Path(settings.local_log_dir, f"{task_arn.rsplit('/', 1)[-1]}-{container}.log")


def tail(aws: Aws, settings: Settings, record: dict[str, Any], lines: int) -> list[str]:
    """Read the last lines, in one call; none where the options do not tell where they are.

    Needs ``logs:GetLogEvents``. Of a runner's container those are read that were written while it ran the command: by
    the bridge's clock, which took note of the begin before the command wrote, and of the end after.
    """
    if lines < 1:
        return []
    if (file := local_file(record, settings)) is not None:
        return _tail_of_file(file, lines)
    place, span = stream(record, settings), _span(record)
    if place is None or span is None:
        return []
    region = settings.awslogs_region or record["task_arn"].split(":")[3]
    answer = aws.client("logs", region).get_log_events(
        logGroupName=place[0], logStreamName=place[1], limit=min(lines, MOST), startFromHead=False, **span
    )
    return [event["message"].rstrip("\n") for event in answer["events"]]


def whole(aws: Aws, settings: Settings, record: dict[str, Any]) -> Iterator[str]:
    """Yield all lines from the first one on, a page of GetLogEvents at a time and `MOST_PAGES` of them at most."""
    if (file := local_file(record, settings)) is not None:
        yield from _tail_of_file(file, MOST)
        return
    place, span = stream(record, settings), _span(record)
    if place is None or span is None:
        return
    region = settings.awslogs_region or record["task_arn"].split(":")[3]
    client, token = aws.client("logs", region), None
    for _ in range(MOST_PAGES):
        page = {"nextToken": token} if token else {}
        answer = client.get_log_events(
            logGroupName=place[0], logStreamName=place[1], startFromHead=True, **span, **page
        )
        for event in answer["events"]:
            yield event["message"].rstrip("\n")
        # The last page has the token by which it was asked for.
        if answer["nextForwardToken"] == token or not answer["events"]:
            return
        token = answer["nextForwardToken"]
    yield f"... the output goes on: {place[0]} {place[1]}"


def _span(record: dict[str, Any]) -> dict[str, int] | None:
    """Return the part of its stream that a command wrote, for GetLogEvents; None if it is not known."""
    if not record.get("runner_id"):
        return {}
    # No more than that: the runner's next command may write a millisecond later.
    if not isinstance(began := record.get("started_at"), int):
        return None
    span = {"startTime": began}
    if isinstance(ended := record.get("container_exited_at"), int):
        span["endTime"] = ended + 1  # exclusive
    return span


def _tail_of_file(file: Path, lines: int) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []
