"""Read the output of containers from CloudWatch Logs or from the folder of a local stack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_ecs_bridge.aws import Aws
    from airflow_ecs_bridge.config import Settings

MOST = 10_000
"""Maximum number of events per GetLogEvents call."""

MOST_PAGES = 10
"""Maximum number of calls for the whole output of one container."""


def stream(record: dict[str, Any], settings: Settings) -> tuple[str, str] | None:
    """Return the log group and the stream (``prefix/container/task id``) of a container, if the options set them.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html
    """
    task_arn, container = record.get("task_arn"), record.get("container_name")
    if not (task_arn and container and settings.awslogs_group and settings.awslogs_stream_prefix):
        return None
    return settings.awslogs_group, f"{settings.awslogs_stream_prefix}/{container}/{task_arn.rsplit('/', 1)[-1]}"


def local_file(record: dict[str, Any], settings: Settings) -> Path | None:
    """Return the file with the output of a container on a local stack (``task id-container.log``)."""
    task_arn, container = record.get("task_arn"), record.get("container_name")
    if not (task_arn and container and settings.local_log_dir):
        return None
    return Path(settings.local_log_dir, f"{task_arn.rsplit('/', 1)[-1]}-{container}.log")


def tail(aws: Aws, settings: Settings, record: dict[str, Any], lines: int) -> list[str]:
    """Read the last lines in one call. Return no lines if the options do not set the location.

    This needs ``logs:GetLogEvents``. For a runner's container, it returns only lines from the time of the command. The
    bridge records the start before the command writes, and the end after it.
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
    """Yield all lines from the first one, in up to `MOST_PAGES` pages of GetLogEvents."""
    if (file := local_file(record, settings)) is not None:
        yield from _tail_of_file(file, MOST)
        return
    place, span = stream(record, settings), _span(record)
    if place is None or span is None:
        return
    region = settings.awslogs_region or record["task_arn"].split(":")[3]
    client, token = aws.client("logs", region), None
    for _ in range(MOST_PAGES):
        page: dict[str, str] = {"nextToken": token} if token else {}
        answer = client.get_log_events(
            logGroupName=place[0], logStreamName=place[1], startFromHead=True, **span, **page
        )
        for event in answer["events"]:
            yield event["message"].rstrip("\n")
        # The last page returns the token of its request.
        if answer["nextForwardToken"] == token or not answer["events"]:
            return
        token = answer["nextForwardToken"]
    yield f"... output truncated; see the log group {place[0]}, stream {place[1]}"


def _span(record: dict[str, Any]) -> dict[str, int] | None:
    """Return the time range of a command in its stream, for GetLogEvents. Return None if it is unknown."""
    if not record.get("runner_id"):
        return {}
    # The exact range, because the runner's next command may write a millisecond later.
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
