"""What a command leaves as its task's return value: an object in S3, or the last line of its output."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from airflow_ecs_bridge.threads import backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ecs_bridge.aws import Aws

MOST_BYTES = 256 * 1024
"""Bytes of an object that becomes an XCom: XComs are rows of Airflow's database."""

SKEW = 2.0
"""Seconds by which an object may be older than its submission: S3 cuts ``LastModified`` to whole seconds, and its clock
is not the bridge's."""

TRIES = 4
"""Reads of an object before the task fails; of what S3 refuses for good there is one."""

LOOK_EVERY = 5.0
"""Seconds between two looks for the last line. The awslogs driver sends what it has every five seconds
(``awslogs-force-flush-interval-seconds``):
https://docs.docker.com/engine/logging/drivers/awslogs/"""

COMPLETE_AFTER = 30.0
"""Seconds after the container's exit from which its stream is taken for complete, where no event tells of its task's
end: a container on a pool, whose task goes on, or a sidecar that is slow to stop."""

MOST_LOOKS = 12
"""Looks for the last line, each a read of the record and at most one GetLogEvents."""

_FOR_GOOD = frozenset(
    {"NoSuchKey", "NoSuchBucket", "AccessDenied", "InvalidBucketName", "InvalidObjectState", "PermanentRedirect"}
)


class NoResult(Exception):
    """There is no return value; the message says why, and what would be right."""


def place(uri: Any) -> tuple[str, str]:
    """Return bucket and key of an ``s3://bucket/key``; raise ValueError if it is none."""
    parts = urlsplit(uri) if isinstance(uri, str) else None
    if parts is None or parts.scheme != "s3" or not parts.netloc or not parts.path.strip("/") or uri.endswith("/"):
        raise ValueError(f"xcom_s3_uri must be s3://BUCKET/KEY, not {uri!r:.100}")
    # Not the parts' path: a key may have a "?" or a "#".
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def read_object(aws: Aws, uri: str, created_at: int) -> Any:
    """Read the JSON that a command wrote to S3; raise NoResult if there is none that is its own.

    S3 is consistent, so what was written before the container's exit is read after it:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel

    :param created_at: when the submission was accepted, in epoch milliseconds; an older object is an earlier try's
    """
    bucket, key = place(uri)
    answer = _get(aws, bucket, key)
    with answer["Body"] as body:
        if answer["LastModified"].timestamp() < created_at / 1000 - SKEW:
            raise NoResult(f"{uri} is older than this try: the command did not write it")
        if answer["ContentLength"] > MOST_BYTES:
            raise NoResult(
                f"{uri} has {answer['ContentLength']} bytes, and an XCom {MOST_BYTES} at most: let the command leave "
                "a smaller object, such as the address of the data"
            )
        content = body.read()
    try:
        return json.loads(content)
    except ValueError:
        raise NoResult(f"{uri} is not JSON; a text is written with its quotation marks") from None


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
                    f"s3://{bucket}/{key} could not be read ({code}): let the command write it, and allow the "
                    "triggerer s3:GetObject on it; without s3:ListBucket, S3 denies what does not exist"
                ) from error
            if code in _FOR_GOOD or tries >= TRIES:
                raise NoResult(f"s3://{bucket}/{key} could not be read: {error}") from error
            time.sleep(backoff(tries))


async def last_line(show: Callable[[], dict[str, Any]], read: Callable[[dict[str, Any]], list[str]]) -> str | None:
    """Return the last line of a container's output once all of it has arrived; None if there is none.

    Lines arrive in CloudWatch after they were written, and the bridge knows a container's end before its task is
    STOPPED. So the stream is read when the task is STOPPED, or `COMPLETE_AFTER` seconds after the exit, and again until
    two reads in a row agree.

    :param show: reads the record
    :param read: reads the last line, as a list of at most one; raises NoResult if it never can
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
    """Whether all of a container's output has been sent, as far as its record tells; `now` in epoch seconds."""
    if "stopped_at" in record and not record.get("runner_id"):
        return True
    ended = record.get("container_exited_at") or record.get("changed_at")
    return isinstance(ended, int) and now >= ended / 1000 + COMPLETE_AFTER
