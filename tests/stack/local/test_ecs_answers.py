"""Every answer of the stand-in for ECS against botocore's model of ECS.

The answers of calls through boto3 are checked as they come in (callers.check_answer): a test that calls an operation
has checked its answer's shape.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError
from callers import client, has_stopped, run_task
from shapes import problems

from local_stack import ROOT, LocalStack, until

MODEL = botocore.session.get_session().get_service_model("ecs")
# Errors that any operation may return; models do not list them.
COMMON = {"ThrottlingException", "SerializationException"}


@pytest.fixture(scope="module")
def stack(start: Callable[..., LocalStack]) -> LocalStack:
    return start(no_functions=True, time_scale=20)


@pytest.fixture(scope="module")
def ecs(stack: LocalStack) -> Any:
    return client(stack, "ecs")


def ended(stack: LocalStack, answer: Any) -> str:
    """Waits for the end of the task that was started."""
    arn: str = answer["tasks"][0]["taskArn"]
    until("the task ends", lambda: has_stopped(stack, arn))
    return arn


@pytest.mark.parametrize(
    "command", [["true"], ["sh", "-c", "exit 7"], ["/no/such/program"], ["sh", "-c", "kill -9 $$"]]
)
def test_task_description_matches_the_model(stack: LocalStack, ecs: Any, command: list[str]) -> None:
    answer = run_task(ecs, "described", command)
    ecs.describe_tasks(cluster="local", tasks=[answer["tasks"][0]["taskArn"]], include=["TAGS"])
    arn = ended(stack, answer)
    assert ecs.describe_tasks(cluster="local", tasks=[arn])["tasks"][0]["lastStatus"] == "STOPPED"


def test_repeated_token_returns_the_same_task(stack: LocalStack, ecs: Any) -> None:
    first = run_task(ecs, "token", ["true"], clientToken="token")
    ended(stack, first)
    again = run_task(ecs, "token", ["true"], clientToken="token")
    assert again["tasks"][0]["taskArn"] == first["tasks"][0]["taskArn"]


def test_same_token_with_another_request_conflicts(ecs: Any) -> None:
    first = run_task(ecs, "conflict", ["true"], clientToken="conflict")
    with pytest.raises(ecs.exceptions.ConflictException) as raised:
        run_task(ecs, "conflict", ["false"], clientToken="conflict")
    assert raised.value.response["resourceIds"] == [first["tasks"][0]["taskArn"]]


def test_task_with_sidecars_and_capacity_provider_matches_the_model(stack: LocalStack, ecs: Any) -> None:
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    request: dict[str, Any] = {"capacityProviderStrategy": strategy, "taskDefinition": "demo-sidecar", "count": 2}
    answer = ecs.run_task(cluster="local", networkConfiguration={"awsvpcConfiguration": {"subnets": ["s"]}}, **request)
    assert len(answer["tasks"]) == 2
    described = ecs.describe_tasks(cluster="local", tasks=[ended(stack, answer)])["tasks"][0]
    assert described["capacityProviderName"] == "FARGATE_SPOT"
    assert "launchType" not in described


def test_unknown_task_is_missing(ecs: Any) -> None:
    answer = ecs.describe_tasks(cluster="local", tasks=["no-such-task"])
    assert [failure["reason"] for failure in answer["failures"]] == ["MISSING"]


def test_tasks_are_listed_and_stopped(stack: LocalStack, ecs: Any) -> None:
    answer = run_task(ecs, "stopped", ["sleep", "600"])
    assert ecs.list_tasks(cluster="local", startedBy="local/stopped/1")["taskArns"] == [answer["tasks"][0]["taskArn"]]
    ecs.stop_task(cluster="local", task=answer["tasks"][0]["taskArn"], reason="enough")
    arn = ended(stack, answer)
    assert ecs.list_tasks(cluster="local", startedBy="local/stopped/1")["taskArns"] == []
    listed = ecs.list_tasks(cluster="local", startedBy="local/stopped/1", desiredStatus="STOPPED")
    assert listed["taskArns"] == [arn]


def test_cluster_and_task_definitions_are_described(ecs: Any) -> None:
    clusters = ecs.describe_clusters(clusters=["local", "other"])
    assert [cluster["status"] for cluster in clusters["clusters"]] == ["ACTIVE"]
    assert [failure["reason"] for failure in clusters["failures"]] == ["MISSING"]
    for name in ["demo", "demo-sidecar:1"]:
        containers = ecs.describe_task_definition(taskDefinition=name)["taskDefinition"]["containerDefinitions"]
        assert "main" in [container["name"] for container in containers]


def test_missing_capacity_is_a_failure_of_run_task(stack: LocalStack, ecs: Any) -> None:
    stack.rule(failure="RESOURCE:MEMORY")
    answer = run_task(ecs, "full", ["true"])
    assert (answer["tasks"], answer["failures"][0]["reason"]) == ([], "RESOURCE:MEMORY")


REFUSALS: list[tuple[str, str, dict[str, Any]]] = [
    ("RunTask", "ClusterNotFoundException", {"taskDefinition": "demo", "cluster": "other"}),
    ("RunTask", "InvalidParameterException", {"taskDefinition": "other", "cluster": "local"}),
    ("RunTask", "InvalidParameterException", {"taskDefinition": "demo", "cluster": "local", "startedBy": "a b"}),
    ("StopTask", "InvalidParameterException", {"task": "other", "cluster": "local"}),
    ("DescribeTasks", "InvalidParameterException", {"tasks": ["t"] * 101, "cluster": "local"}),
    ("ListTasks", "InvalidParameterException", {"cluster": "local", "startedBy": "a", "family": "demo"}),
    ("DescribeTaskDefinition", "ClientException", {"taskDefinition": "other"}),
]


@pytest.mark.parametrize(("operation", "code", "request_"), REFUSALS)
def test_errors_are_those_of_the_model(ecs: Any, operation: str, code: str, request_: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as raised:
        ecs._make_api_call(operation, request_)
    assert raised.value.response["Error"]["Code"] == code
    assert code in COMMON | {shape.name for shape in MODEL.operation_model(operation).error_shapes}


def test_too_many_calls_are_throttled(start: Callable[..., LocalStack]) -> None:
    ecs = client(start(no_functions=True, throttle="0.001/1"), "ecs")
    run_task(ecs, "first", ["true"])
    with pytest.raises(ClientError) as raised:
        run_task(ecs, "second", ["true"])
    assert raised.value.response["Error"]["Code"] == "ThrottlingException"


def captured() -> list[dict[str, Any]]:
    """Published events that AWS sent."""
    files = sorted((ROOT / "tests/fixtures/events").glob("*.json"))
    return [json.loads(file.read_text()) for file in files]


def test_events_match_the_model_with_text_times(stack: LocalStack, ecs: Any) -> None:
    ended(stack, run_task(ecs, "events", ["true"]))
    events = stack.events()
    mine = [event for event in events if event["detail"].get("startedBy") == "local/events/1"]
    assert mine[0]["detail"]["lastStatus"] == "PROVISIONING"
    assert mine[-1]["detail"]["lastStatus"] == "STOPPED"
    for event in mine:
        # Only events have it.
        assert isinstance(event["detail"].pop("updatedAt"), str)
        assert problems(MODEL.shape_for("Task"), event["detail"], times=str) == []


def test_events_have_the_members_of_captured_events(stack: LocalStack, ecs: Any) -> None:
    real = [event for event in captured() if event.get("detail", {}).get("lastStatus") == "STOPPED"]
    ended(stack, run_task(ecs, "members", ["sh", "-c", "exit 1"]))
    events = stack.events()
    ours = [event for event in events if event["detail"].get("startedBy") == "local/members/1"][-1]
    envelopes = [set(event) for event in real if "time" in event]
    assert all(envelope <= set(ours) | {"version"} for envelope in envelopes)
    assert {"attachments", "containers", "overrides", "stopCode", "stoppedReason", "version"} <= set(ours["detail"])
