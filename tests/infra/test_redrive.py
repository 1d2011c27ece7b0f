"""Redriving dead letters: SQS by moto, the functions on the local stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from local_stack import LocalStack, until
from redrive import redrive


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with LocalStack(tmp_path_factory.mktemp("redrive"), {"drop": 1, "reconcile-every": 0, "time-scale": 10}) as local:
        yield local


@pytest.fixture
def queue(aws: None) -> str:
    return boto3.client("sqs").create_queue(QueueName="letters")["QueueUrl"]


def lambda_client(local: LocalStack) -> Any:
    return boto3.client("lambda", endpoint_url=local.ready["lambda_url"])


def lost_event(local: LocalStack, submission_id: str) -> dict[str, Any]:
    """The event of its end, which the local stack was told to lose."""
    (answer,) = local.submit({"submission_id": submission_id, "command": ["sh", "-c", "exit 3"]})
    assert "error" not in answer

    def look() -> dict[str, Any] | None:
        ours = [e for e in local.events() if e["detail"]["startedBy"].split("/")[1] == submission_id]
        return next((e for e in ours if e["detail"]["lastStatus"] == "STOPPED"), None)

    return until("the task has stopped", look)


def waiting(queue: str) -> int:
    attributes = boto3.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    return int(attributes["ApproximateNumberOfMessages"]) + int(attributes["ApproximateNumberOfMessagesNotVisible"])


def from_the_rule(event: dict[str, Any]) -> str:
    return json.dumps(event)


def from_lambda(event: dict[str, Any]) -> str:
    context = {"functionArn": "arn:aws:lambda:us-east-1:123456789012:function:f", "condition": "RetriesExhausted"}
    return json.dumps({"version": "1.0", "requestContext": context, "requestPayload": event, "responsePayload": {}})


@pytest.mark.parametrize("letter", [from_the_rule, from_lambda])
def test_a_redriven_letter_ends_its_submission(local: LocalStack, queue: str, letter: Any) -> None:
    submission_id = letter.__name__
    event = lost_event(local, submission_id)
    assert local.show(submission_id)["state"] == "launched"
    boto3.client("sqs").send_message(QueueUrl=queue, MessageBody=letter(event))
    assert redrive(boto3.client("sqs"), lambda_client(local), queue, "task-state") == 0
    assert waiting(queue) == 0
    record = local.show(submission_id)
    assert (record["state"], record["exit_code"]) == ("failed", 3)


def test_a_letter_that_is_refused_stays(queue: str, local: LocalStack) -> None:
    class Refusing:
        def invoke(self, **_: object) -> dict[str, object]:
            return {"FunctionError": "Unhandled"}

    boto3.client("sqs").send_message(QueueUrl=queue, MessageBody=from_the_rule({"detail": {}}))
    assert redrive(boto3.client("sqs"), Refusing(), queue, "task-state") == 1
    assert waiting(queue) == 1


def test_nothing_of_the_command_is_printed(local: LocalStack, queue: str, capsys: pytest.CaptureFixture[str]) -> None:
    event = lost_event(local, "printed")
    assert "exit 3" in json.dumps(event)
    boto3.client("sqs").send_message(QueueUrl=queue, MessageBody=from_the_rule(event))
    redrive(boto3.client("sqs"), lambda_client(local), queue, "task-state")
    printed = capsys.readouterr().out
    assert "local/printed/1 STOPPED" in printed
    assert "exit 3" not in printed
