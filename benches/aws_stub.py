"""AWS as far as one event needs it: DynamoDB that always has the record of a launched task, and takes every write."""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter

import samples

from wire import Answer, Request

JSON = (("content-type", "application/x-amz-json-1.0"),)


class Aws:
    """Answers DynamoDB and ECS; counts the calls by operation."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def answer(self, request: Request) -> Answer:
        operation = request.headers.get("x-amz-target", "").partition(".")[2] or f"{request.method} {request.path}"
        self.calls[operation] += 1
        body = b"{}"
        if operation == "GetItem":
            submission_id = json.loads(request.body)["Key"]["submission_id"]["S"]
            # The launch rate's row is not there.
            body = b"{}" if submission_id.startswith("#") else json.dumps({"Item": launched(submission_id)}).encode()
        elif operation == "RunTask":
            arn = f"arn:aws:ecs:{samples.REGION}:{samples.ACCOUNT}:task/{samples.CLUSTER_NAME}/0123456789abcdef"
            task = {"taskArn": arn, "lastStatus": "PROVISIONING", "desiredStatus": "RUNNING", "version": 1}
            body = json.dumps({"tasks": [task], "failures": []}).encode()
        elif operation == "Query":
            body = b'{"Items": [], "Count": 0, "ScannedCount": 0}'
        checksum = ("x-amz-crc32", str(zlib.crc32(body)))
        return Answer(body, headers=(*JSON, checksum, ("x-amzn-requestid", "BENCH")))


def launched(submission_id: str) -> dict[str, dict[str, object]]:
    """The row of a task that is launched and not yet seen to run, as submit leaves it."""
    item = samples.submission(1)
    overrides = {"containerOverrides": [{"name": samples.CONTAINER, "command": item["command"]}]}
    run_task = samples.PROFILES["default"]["run_task"]
    request = json.dumps({**run_task, "cluster": samples.CLUSTER, "overrides": overrides}, separators=(",", ":"))
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    frozen = deflate.compress(request.encode()) + deflate.flush()
    now = 1_772_337_609_598
    return {
        "submission_id": {"S": submission_id},
        "schema": {"N": "1"},
        "rev": {"N": "2"},
        "state": {"S": "launched"},
        "attempt": {"N": "1"},
        "profile": {"S": "default"},
        "container_name": {"S": samples.CONTAINER},
        "cluster": {"S": samples.CLUSTER},
        "request": {"B": base64.b64encode(frozen).decode()},
        "content_hash": {"B": base64.b64encode(bytes(32)).decode()},
        "labels": {"M": {name: {"S": value} for name, value in item["labels"].items()}},
        "launch_deadline": {"N": str(item["launch_deadline"])},
        "created_at": {"N": str(now)},
        "launched_at": {"N": str(now + 200)},
        "updated_at": {"N": str(now + 200)},
        "expires_at": {"N": "4102444800"},
        "due": {"S": "2"},
        "check_at": {"N": str(now + 600_000)},
    }
