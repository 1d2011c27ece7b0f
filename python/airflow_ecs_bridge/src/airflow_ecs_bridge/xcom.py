"""Return values of commands, from an object in S3 or from the last line of the output."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from ecs_bridge._sansio import backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ecs_bridge.aws import Aws

MOST_BYTES = 256 * 1024
"""Maximum size of an object that becomes an XCom, in bytes. XComs are rows of Airflow's database."""

SKEW = 2.0
"""Seconds by which an object may be older than its submission. S3 truncates ``LastModified`` to whole seconds, and its
clock differs from the bridge's clock."""

TRIES = 4
"""Maximum number of reads of an object before the task fails. A permanent failure is not retried."""

LOOK_EVERY = 5.0
"""Interval between reads of the last line, in seconds. The awslogs driver flushes every five seconds
(``awslogs-force-flush-interval-seconds``):
https://docs.docker.com/engine/logging/drivers/awslogs/"""

COMPLETE_AFTER = 30.0
"""Seconds after the exit of the container until its stream counts as complete without a task event. Examples are
a container of a pool, whose task keeps running, and a sidecar that stops slowly."""

MOST_LOOKS = 12
"""Maximum number of attempts to read the last line. Each reads the record and makes up to one GetLogEvents call."""

_FOR_GOOD = frozenset(
    {"NoSuchKey", "NoSuchBucket", "AccessDenied", "InvalidBucketName", "InvalidObjectState", "PermanentRedirect"}
)


class NoResult(Exception):
    """The return value is missing. The message contains the reason and the remedy."""


def place(uri: Any) -> tuple[str, str]:
    """Return bucket and key of an ``s3://bucket/key`` URI; raise ValueError if it is invalid."""
    parts = urlsplit(uri) if isinstance(uri, str) else None
    if parts is None or parts.scheme != "s3" or not parts.netloc or not parts.path.strip("/") or uri.endswith("/"):
        raise ValueError(f"invalid xcom_s3_uri: {uri!r:.100}; must be s3://BUCKET/KEY")
    # Not the parsed path, because a key may contain "?" or "#".
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def read_object(aws: Aws, uri: str, created_at: int) -> Any:
    """Read the JSON that a command wrote to S3; raise NoResult if the command did not write it.

    S3 is strongly consistent, so a read after the exit of the container returns its last write:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel

    :param created_at: time of acceptance in epoch milliseconds; an older object belongs to an earlier try
    """
    bucket, key = place(uri)
    answer = _get(aws, bucket, key)
    with answer["Body"] as body:
        if answer["LastModified"].timestamp() < created_at / 1000 - SKEW:
            raise NoResult(f"{uri} is older than this try, so the command did not write it")
        if answer["ContentLength"] > MOST_BYTES:
            raise NoResult(
                f"{uri} is too large: {answer['ContentLength']} bytes; up to {MOST_BYTES} are allowed; write a smaller "
                "object, such as the URI of the data"
            )
        content = body.read()
    try:
        return json.loads(content)
    except ValueError:
        raise NoResult(f"{uri} is not valid JSON (a string must be quoted)") from None


def _get(aws: Aws, bucket: str, key: str) -> dict[str, Any]:
    tries = 0
    while True:
        tries += 1
        try:
            answer: dict[str, Any] = aws.client("s3", read_timeout=30).get_object(Bucket=bucket, Key=key)
            return answer
        except (BotoCoreError, ClientError) as error:
            code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
            if code in ("AccessDenied", "NoSuchKey"):
                raise NoResult(
                    f"cannot read s3://{bucket}/{key} ({code}): the command must write it, and the triggerer needs "
                    "s3:GetObject on it; without s3:ListBucket, S3 returns AccessDenied for a missing object"
                ) from error
            if code in _FOR_GOOD or tries >= TRIES:
                raise NoResult(f"cannot read s3://{bucket}/{key}: {error}") from error
            time.sleep(backoff(tries))


async def last_line(show: Callable[[], dict[str, Any]], read: Callable[[dict[str, Any]], list[str]]) -> str | None:
    """Return the last line of a container's complete output, or None without output.

    Lines arrive in CloudWatch with a delay, and the bridge detects the exit of a container before its task is STOPPED.
    So the stream is read when the task is STOPPED, or `COMPLETE_AFTER` seconds after the exit. Reads are repeated until
    two consecutive reads are equal.

    :param show: reads the record
    :param read: reads the last line as a list of up to one line; raises NoResult after a permanent failure
    """
    lines: list[str] | None = None
    for look in range(MOST_LOOKS):
        if look:
            await asyncio.sleep(LOOK_EVERY)
        record = await asyncio.to_thread(show)
        if not is_complete(record, time.time()):
            continue
        before, lines = lines, await asyncio.to_thread(read, record)
        if lines == before:
            break
    return lines[-1] if lines else None


def is_complete(record: dict[str, Any], now: float) -> bool:
    """Return whether the container has sent all its output, by its record. `now` is in epoch seconds."""
    if "stopped_at" in record and not record.get("runner_id"):
        return True
    ended = record.get("container_exited_at") or record.get("changed_at")
    return isinstance(ended, int) and now >= ended / 1000 + COMPLETE_AFTER
