#!/usr/bin/env python3
"""Redrive the dead-letter messages of a deployment to task-state. Delete accepted messages and keep the others.

A duplicate or late event is harmless, so you can interrupt and repeat a run. Each line of output shows the
submission and the cause of a message. It shows nothing else, because events contain the commands of tasks.

    tools/redrive.py --stack-name ecs-bridge --list    # lists the messages and changes nothing
    tools/redrive.py --stack-name ecs-bridge --max 1   # redrives one message
    tools/redrive.py --stack-name ecs-bridge
    tools/redrive.py --queue-url URL --function NAME   # without a stack

Exits with 0 if all messages were accepted, with 1 if some remain, and with 2 if Lambda throttled all retries.
docs/operating.md lists the permissions.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Lambda and SQS throttle instead of failing. Adaptive retries also slow the caller down.
# https://boto3.amazonaws.com/v1/documentation/api/latest/guide/retries.html
RETRIES = Config(retries={"mode": "adaptive", "total_max_attempts": 8})
# Longer than an invocation of task-state. Remaining messages are released at the end.
HIDDEN_SECONDS = 900
NOT_AN_EVENT = "not an event"


@dataclass(frozen=True)
class DeadLetter:
    """A dead-letter message. The rule sends the event itself, and Lambda sends a report that contains the event."""

    message_id: str
    event: dict[str, Any]
    cause: str

    @classmethod
    def read(cls, message: dict[str, Any]) -> DeadLetter:
        cause = message.get("MessageAttributes", {}).get("ERROR_CODE", {}).get("StringValue", "unknown")
        try:
            event = json.loads(message["Body"])
            if "requestPayload" in event:
                event, cause = event["requestPayload"], event["requestContext"]["condition"]
            if isinstance(event["detail"], dict):
                return cls(message["MessageId"], event, cause)
        except (ValueError, TypeError, KeyError):
            pass
        return cls(message["MessageId"], {"detail": {}}, NOT_AN_EVENT)

    def __str__(self) -> str:
        detail = self.event["detail"]
        return f"{detail.get('startedBy')} {detail.get('lastStatus')} ({self.cause})"


@dataclass
class Queue:
    """The dead-letter queue. Each message is read once, and hidden from other readers until `release`."""

    sqs: Any
    url: str
    hidden_seconds: int = HIDDEN_SECONDS
    _receipts: dict[str, str] = field(default_factory=dict)

    def messages(self) -> Iterator[DeadLetter]:
        """Yield every message once. Stop when the queue returns no new message."""
        seen: set[str] = set()
        while messages := self.sqs.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=10,
            MessageAttributeNames=["ERROR_CODE"],
            VisibilityTimeout=self.hidden_seconds,
            WaitTimeSeconds=1,
        ).get("Messages"):
            # If a message arrives again, only its latest receipt is valid.
            self._receipts |= {message["MessageId"]: message["ReceiptHandle"] for message in messages}
            new = [message for message in messages if message["MessageId"] not in seen]
            if not new:
                return
            seen |= {message["MessageId"] for message in new}
            yield from map(DeadLetter.read, new)

    def delete(self, message: DeadLetter) -> None:
        self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=self._receipts.pop(message.message_id))

    def release(self) -> None:
        """Make the remaining messages visible again."""
        for receipt in self._receipts.values():
            self.sqs.change_message_visibility(QueueUrl=self.url, ReceiptHandle=receipt, VisibilityTimeout=0)
        self._receipts.clear()


def listed(queue: Queue, most: int | None) -> int:
    """Print up to `most` messages, and return their number."""
    try:
        return sum(print(message) is None for message in islice(queue.messages(), most))
    finally:
        queue.release()


def accepts(lambda_: Any, function: str, message: DeadLetter) -> bool:
    return "FunctionError" not in lambda_.invoke(FunctionName=function, Payload=json.dumps(message.event))


def redrive(queue: Queue, lambda_: Any, function: str, most: int | None = None) -> int:
    """Redrive up to `most` messages, and return the number of remaining ones.

    Raise ClientError with `TooManyRequestsException` if Lambda throttles even slowed retries.
    """
    stay = 0
    try:
        for message in islice(queue.messages(), most):
            if message.cause != NOT_AN_EVENT and accepts(lambda_, function, message):
                queue.delete(message)
                print(f"accepted {message}")
            else:
                stay += 1
                print(f"refused  {message}: see the log of {function}")
        return stay
    finally:
        queue.release()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--stack-name", help="stack whose outputs name the queue and the function")
    where.add_argument(
        "--queue-url", metavar="URL", help="URL of the queue, for a deployment without a stack; requires --function"
    )
    parser.add_argument("--function", metavar="NAME", help="name of the function task-state; requires --queue-url")
    parser.add_argument("--list", action="store_true", help="list the messages and keep them")
    parser.add_argument("--max", type=int, metavar="N", help="stop after N messages")
    parser.add_argument(
        "--region", help="AWS Region; default: AWS_REGION, AWS_DEFAULT_REGION, or the Region of the profile"
    )
    parser.add_argument("--profile", help="profile of ~/.aws/config")
    arguments = parser.parse_args()
    if (arguments.queue_url is None) != (arguments.function is None):
        parser.error("--queue-url and --function must be used together")
    # The functions and `ecs-bridge` also read AWS_REGION. boto3 itself reads only AWS_DEFAULT_REGION.
    region = arguments.region or os.environ.get("AWS_REGION") or None
    session = boto3.Session(profile_name=arguments.profile, region_name=region)
    url, function = arguments.queue_url, arguments.function
    if arguments.stack_name:
        stack = session.client("cloudformation").describe_stacks(StackName=arguments.stack_name)["Stacks"][0]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        url, function = outputs["EventDeadLettersUrl"], outputs["TaskStateFunctionName"]
    queue = Queue(session.client("sqs", config=RETRIES), url)
    if arguments.list:
        listed(queue, arguments.max)
        return 0
    lambda_ = session.client("lambda", config=RETRIES)
    try:
        return min(redrive(queue, lambda_, function, arguments.max), 1)
    except ClientError as error:
        if error.response["Error"]["Code"] != "TooManyRequestsException":
            raise
        print("redrive stopped: Lambda throttles task-state; run the command again later", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
