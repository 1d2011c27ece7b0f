"""tools/redrive.py with SQS in moto and the functions on the local stack."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import boto3
import pytest
from botocore.exceptions import ClientError
from redrive import Queue, listed, main, redrive

from local_stack import LocalStack, until


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with LocalStack(tmp_path_factory.mktemp("redrive"), {"drop": 1, "reconcile-every": 0, "time-scale": 10}) as local:
        yield local


@pytest.fixture
def queue(aws: None) -> str:
    return boto3.client("sqs").create_queue(QueueName="dead-letters")["QueueUrl"]


def lambda_client(local: LocalStack) -> Any:
    return boto3.client("lambda", endpoint_url=local.ready["lambda_url"])


def lost_event(local: LocalStack, submission_id: str) -> dict[str, Any]:
    """The event of its STOPPED task, which the local stack drops."""
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


class Refusing:
    """A task-state that fails, and expects each event at most once."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def invoke(self, Payload: str, **_: object) -> dict[str, object]:
        assert Payload not in self.asked
        self.asked.append(Payload)
        return {"FunctionError": "Unhandled"}


def send(queue: str, *bodies: str) -> None:
    for body in bodies:
        boto3.client("sqs").send_message(QueueUrl=queue, MessageBody=body)


def numbered(count: int) -> list[str]:
    return [from_the_rule({"detail": {"startedBy": f"prod/{n}/1"}}) for n in range(count)]


def opened(queue: str, hidden_seconds: int = 900) -> Queue:
    return Queue(boto3.client("sqs"), queue, hidden_seconds)


def visible(queue: str) -> int:
    name = "ApproximateNumberOfMessages"
    attributes = boto3.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=[name])["Attributes"]
    return int(attributes[name])


@pytest.mark.parametrize("report", [from_the_rule, from_lambda])
def test_redriven_message_ends_its_submission(
    local: LocalStack, queue: str, report: Callable[[dict[str, Any]], str]
) -> None:
    submission_id = report.__name__
    event = lost_event(local, submission_id)
    assert local.show(submission_id)["state"] == "launched"
    send(queue, report(event))
    assert redrive(opened(queue), lambda_client(local), "task-state") == 0
    assert waiting(queue) == 0
    record = local.show(submission_id)
    assert (record["state"], record["exit_code"]) == ("failed", 3)


def test_run_ends_although_refused_messages_return_immediately(queue: str) -> None:
    send(queue, *numbered(20))
    refusing = Refusing()
    assert redrive(opened(queue, hidden_seconds=0), refusing, "task-state") == len(refusing.asked)
    assert waiting(queue) == 20


def test_refused_messages_are_tried_once_and_released(queue: str) -> None:
    send(queue, *numbered(20))
    assert redrive(opened(queue), Refusing(), "task-state") == 20
    assert visible(queue) == 20


def test_list_shows_each_message_once_and_hides_none(queue: str, capsys: pytest.CaptureFixture[str]) -> None:
    send(queue, *numbered(20))
    assert listed(opened(queue), None) == 20
    assert len(set(capsys.readouterr().out.splitlines())) == 20
    assert visible(queue) == 20


def test_max_limits_the_messages(queue: str) -> None:
    send(queue, *numbered(20))
    refusing = Refusing()
    assert redrive(opened(queue), refusing, "task-state", most=3) == 3
    assert len(refusing.asked) == 3
    assert visible(queue) == 20


def test_message_without_an_event_stays_in_the_queue(queue: str) -> None:
    send(queue, "{", "[]", json.dumps({"requestPayload": {}}))
    refusing = Refusing()
    assert redrive(opened(queue), refusing, "task-state") == 3
    assert (refusing.asked, visible(queue)) == ([], 3)


def test_throttled_run_keeps_its_messages(queue: str) -> None:
    class Throttled:
        def invoke(self, **_: object) -> dict[str, object]:
            raise ClientError({"Error": {"Code": "TooManyRequestsException"}}, "Invoke")

    send(queue, *numbered(2))
    with pytest.raises(ClientError):
        redrive(opened(queue), Throttled(), "task-state")
    assert visible(queue) == 2


@pytest.mark.parametrize(("code", "status"), [("TooManyRequestsException", 2), (None, 0)])
def test_command_uses_region_and_profile_and_returns_status(
    aws: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str | None, status: int
) -> None:
    (tmp_path / "config").write_text("[profile oncall]\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    region = "eu-west-1"
    queue = boto3.client("sqs", region_name=region).create_queue(QueueName="dead-letters")["QueueUrl"]
    boto3.client("sqs", region_name=region).send_message(QueueUrl=queue, MessageBody=numbered(1)[0])
    outputs = {"EventDeadLettersUrl": {"Value": queue}, "TaskStateFunctionName": {"Value": "task-state"}}
    body = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}, "Outputs": outputs}
    boto3.client("cloudformation", region_name=region).create_stack(StackName="prod", TemplateBody=json.dumps(body))
    invoke = Mock(side_effect=code and ClientError({"Error": {"Code": code}}, "Invoke"), return_value={})
    client = boto3.Session.client
    monkeypatch.setattr(
        boto3.Session,
        "client",
        lambda self, name, **options: Mock(invoke=invoke) if name == "lambda" else client(self, name, **options),
    )
    arguments = ["redrive.py", "--stack-name", "prod", "--region", region, "--profile", "oncall"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert main() == status
    invoke.assert_called_once()


@pytest.mark.parametrize(
    ("environment", "flags", "expected"),
    [
        ({"AWS_REGION": "eu-west-1"}, [], "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "eu-north-1"}, [], "eu-north-1"),
        ({"AWS_REGION": "", "AWS_DEFAULT_REGION": "eu-north-1"}, [], "eu-north-1"),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-north-1"}, [], "eu-west-1"),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-north-1"}, ["--region", "ap-south-1"], "ap-south-1"),
    ],
)
def test_region_is_chosen_as_by_the_aws_cli(
    aws: None, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], flags: list[str], expected: str
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    asked, client = [], boto3.Session.client

    def recorded(self: boto3.Session, name: str, **options: Any) -> Any:
        asked.append(self.region_name)
        return client(self, name, **options)

    monkeypatch.setattr(boto3.Session, "client", recorded)
    queue = boto3.client("sqs", region_name=expected).create_queue(QueueName="dead-letters")["QueueUrl"]
    asked.clear()
    arguments = ["redrive.py", "--queue-url", queue, "--function", "prod-task-state", *flags]
    monkeypatch.setattr(sys, "argv", arguments)
    assert main() == 0
    assert set(asked) == {expected}


def test_queue_and_function_replace_the_stack(
    aws: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sqs = boto3.client("sqs")
    queue = sqs.create_queue(QueueName="dead-letters")["QueueUrl"]
    sqs.send_message(QueueUrl=queue, MessageBody=numbered(1)[0])
    invoke, client = Mock(return_value={}), boto3.Session.client
    monkeypatch.setattr(
        boto3.Session,
        "client",
        lambda self, name, **options: Mock(invoke=invoke) if name == "lambda" else client(self, name, **options),
    )
    monkeypatch.setattr(sys, "argv", ["redrive.py", "--queue-url", queue, "--function", "prod-task-state"])
    assert main() == 0
    assert invoke.call_args.kwargs["FunctionName"] == "prod-task-state"
    for half in (["--queue-url", queue], ["--stack-name", "prod", "--function", "prod-task-state"]):
        monkeypatch.setattr(sys, "argv", ["redrive.py", *half])
        with pytest.raises(SystemExit):
            main()
        assert "--queue-url and --function must be used together" in capsys.readouterr().err


def test_command_of_the_task_is_never_printed(
    local: LocalStack, queue: str, capsys: pytest.CaptureFixture[str]
) -> None:
    event = lost_event(local, "printed")
    assert "exit 3" in json.dumps(event)
    send(queue, from_the_rule(event))
    redrive(opened(queue), lambda_client(local), "task-state")
    printed = capsys.readouterr().out
    assert "local/printed/1 STOPPED" in printed
    assert "exit 3" not in printed
