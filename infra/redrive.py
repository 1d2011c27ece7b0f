#!/usr/bin/env python3
"""Hands the dead letters of a deployment to task-state again: what it takes is deleted, the rest stays.

An event that is told twice, or late, does no harm, so this can be run as often as one likes. It prints which submission
each letter is about and why it died, and nothing else of it: events hold the commands of tasks.

    infra/redrive.py --stack-name ecs-bridge --list   # look, touch nothing
    infra/redrive.py --stack-name ecs-bridge
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Letter:
    """A dead letter: from the rule it is the event itself, from Lambda a report with the event inside."""

    receipt: str
    event: dict[str, Any]
    cause: str

    @classmethod
    def read(cls, message: dict[str, Any]) -> Letter:
        body = json.loads(message["Body"])
        if "requestPayload" in body:
            return cls(message["ReceiptHandle"], body["requestPayload"], body["requestContext"]["condition"])
        attributes = message.get("MessageAttributes", {})
        cause = attributes.get("ERROR_CODE", {}).get("StringValue", "unknown")
        return cls(message["ReceiptHandle"], body, cause)

    def __str__(self) -> str:
        detail = self.event.get("detail", {})
        return f"{detail.get('startedBy')} {detail.get('lastStatus')} ({self.cause})"


def letters(sqs: Any, queue_url: str, hidden_for: int) -> Iterator[Letter]:
    """All that is in the queue now; each is hidden from others for so many seconds."""
    while messages := sqs.receive_message(
        QueueUrl=queue_url,
        MaxNumberOfMessages=10,
        MessageAttributeNames=["ERROR_CODE"],
        VisibilityTimeout=hidden_for,
        WaitTimeSeconds=1,
    ).get("Messages"):
        yield from map(Letter.read, messages)


def redrive(sqs: Any, lambda_: Any, queue_url: str, function: str) -> int:
    """Redrives all letters; returns how many were refused and stay."""
    refused = 0
    for letter in letters(sqs, queue_url, hidden_for=300):
        answer = lambda_.invoke(FunctionName=function, Payload=json.dumps(letter.event))
        if "FunctionError" in answer:
            refused += 1
            print(f"refused {letter}: see the log of {function}")
        else:
            sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=letter.receipt)
            print(f"taken   {letter}")
    return refused


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stack-name", required=True)
    parser.add_argument("--list", action="store_true", help="only list them; they are hidden for 30 seconds by it")
    arguments = parser.parse_args()
    stack = boto3.client("cloudformation").describe_stacks(StackName=arguments.stack_name)["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    sqs, queue_url = boto3.client("sqs"), outputs["EventDeadLettersUrl"]
    if arguments.list:
        for letter in letters(sqs, queue_url, hidden_for=30):
            print(letter)
        return 0
    return min(redrive(sqs, boto3.client("lambda"), queue_url, outputs["TaskStateFunctionName"]), 1)


if __name__ == "__main__":
    sys.exit(main())
