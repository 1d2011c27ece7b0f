"""The three functions as Lambda runs them: the life of a submission, with each step invoked by the test."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from conftest import Failed, Function

from http_server import Request, Response, Server
from local_stack import PATIENCE, PROGRAM, LocalStack, until


@pytest.fixture(scope="module")
def submit(run: Callable[..., Function]) -> Function:
    return run("submit")


@pytest.fixture(scope="module")
def task_state(run: Callable[..., Function]) -> Function:
    return run("task-state")


@pytest.fixture(scope="module")
def reconcile(run: Callable[..., Function]) -> Function:
    return run("reconcile")


def item(submission_id: str, command: list[str]) -> dict[str, Any]:
    return {"submission_id": submission_id, "command": command}


def events_of(aws: LocalStack, submission_id: str) -> list[dict[str, Any]]:
    """All events of a submission's task, once it has stopped."""

    def look() -> list[dict[str, Any]] | None:
        events = [event for event in aws.events() if event["detail"].get("startedBy") == f"local/{submission_id}/1"]
        return events if events and events[-1]["detail"]["lastStatus"] == "STOPPED" else None

    return until(f"the task of {submission_id} has stopped", look)


def test_events_complete_a_submission(aws: LocalStack, submit: Function, task_state: Function) -> None:
    answer = submit.api.submit(item("walk", ["sh", "-c", "exit 7"]))[0]
    assert answer["state"] == "launched"
    assert answer["task_arn"]
    events = events_of(aws, "walk")
    assert submit.api.show("walk")["state"] == "launched", "no event was delivered yet"
    states = []
    for event in events:
        assert task_state.invoke(event) is None
        states.append(submit.api.show("walk")["state"])
    assert states == sorted(states, key=["launched", "running", "failed"].index)
    assert states[-1] == "failed"
    record = submit.api.show("walk")
    assert (record["exit_code"], record["stop_code"]) == (7, "EssentialContainerExited")


def test_reconcile_completes_a_submission_without_events(
    aws: LocalStack, run: Callable[..., Function], submit: Function, reconcile: Function
) -> None:
    aws.rule(submission_id="refused", failure="RESOURCE:CPU", times=1)
    assert submit.api.submit(item("refused", ["sh", "-c", "exit 4"]))[0]["state"] == "queued"
    until("reconcile launches it", lambda: reconcile.invoke({})["launches"])
    assert submit.api.show("refused")["state"] == "launched"
    assert [task["start_count"] for task in until("it is launched", lambda: aws.tasks("refused"))] == [1]


def test_reconcile_reports_an_empty_run(reconcile: Function) -> None:
    schedule = {"version": "0", "detail-type": "Scheduled Event", "source": "aws.events", "detail": {}}
    report = reconcile.invoke(schedule)
    assert (report["claimed"], report["errors"], report["unfinished"]) == (0, 0, False)


def test_submit_stops_the_task(aws: LocalStack, submit: Function) -> None:
    submit.api.submit(item("to-stop", ["sleep", "60"]))
    until("it runs", lambda: [task for task in aws.tasks("to-stop") if task["last_status"] == "RUNNING"])
    assert submit.api.stop("to-stop")[0]["state"] == "launched"
    stopped = events_of(aws, "to-stop")[-1]["detail"]
    assert (stopped["stopCode"], stopped["containers"][0]["exitCode"]) == ("UserInitiated", 143)


def test_health_is_served_over_http(submit: Function) -> None:
    assert submit.api.send("GET", "/v1/health").json["status"] == "ok"


def test_health_warns_of_each_mismatched_profile(run: Callable[..., Function]) -> None:
    def profile(family: str, name: str) -> dict[str, Any]:
        network = {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}
        return {"container_name": name, "run_task": {"taskDefinition": family, "networkConfiguration": network}}

    profiles = {
        "fits": profile("demo", "main"),
        "no-container": profile("demo", "mian"),
        "not-essential": profile("demo-sidecar", "init"),
        "no-definition": profile("dmeo", "main"),
        "no-cluster": profile("demo", "main"),
    }
    profiles["no-cluster"]["run_task"]["cluster"] = "nowhere"
    function = run("submit", ECS_BRIDGE_PROFILES=json.dumps(profiles), ECS_BRIDGE_CLUSTERS="other, nowhere")
    answer = function.api.send("GET", "/v1/health")
    assert (answer.status, answer.json["status"]) == (200, "ok")
    checks = {check["name"]: check for check in answer.json["checks"]}
    well = {name.removeprefix("profile ") for name, check in checks.items() if check["ok"]}
    assert well == {"table", "cluster", "fits"}
    for name, text in {
        "no-container": "has no container called mian",
        "not-essential": "is not essential",
        "no-definition": "DescribeTaskDefinition",
        "no-cluster": "nowhere",
    }.items():
        message = checks[f"profile {name}"]["message"]
        assert text in message
        assert f"profile {name}: {message}" in answer.json["warnings"]
    assert len(answer.json["warnings"]) == 4


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"ECS_BRIDGE_CLUSTER": "nowhere"}, "cluster: cluster nowhere does not exist"),
        ({"ECS_BRIDGE_TABLE": "none"}, "table: "),
    ],
    ids=["cluster", "table"],
)
def test_health_fails_without_its_cluster_or_table(
    run: Callable[..., Function], aws: LocalStack, wrong: dict[str, str], text: str
) -> None:
    answer = run("submit", **wrong).api.send("GET", "/v1/health")
    assert (answer.status, answer.code) == (503, "unhealthy")
    assert text in answer.json["error"]["message"]
    assert answer.json["deployment"] == aws.ready["deployment"]
    assert answer.json["table"] == wrong.get("ECS_BRIDGE_TABLE", aws.ready["table"])


def test_event_is_not_acknowledged_while_dynamodb_is_unavailable(run: Callable[..., Function], aws: LocalStack) -> None:
    function = run("task-state", ECS_BRIDGE_TABLE="no-such-table")
    event = {
        "source": "aws.ecs",
        "detail-type": "ECS Task State Change",
        "detail": {
            "startedBy": "local/x/1",
            "taskArn": "arn:aws:ecs:us-east-1:123456789012:task/local/x",
            "clusterArn": aws.ready["cluster"],
            "version": 1,
            "lastStatus": "RUNNING",
        },
    }
    with pytest.raises(Failed, match="ResourceNotFoundException"):
        function.invoke(event)


def test_items_are_unavailable_without_a_table(run: Callable[..., Function]) -> None:
    function = run("submit", ECS_BRIDGE_TABLE="no-such-table")
    answer = function.api.submit(item("a", ["true"]), item("b", ["true"]))
    assert [one["error"]["code"] for one in answer] == ["unavailable", "unavailable"]
    shown = function.api.send("GET", "/v1/submissions/a")
    assert (shown.status, shown.code) == (503, "unavailable")
    stopped = function.api.stop("a")
    assert stopped[0]["error"]["code"] == "unavailable"


class Ecs(Server):
    """A stand-in for ECS that keeps each request and responds with one task."""

    def __init__(self) -> None:
        super().__init__(self._respond)
        self.requests: list[Request] = []

    def _respond(self, request: Request) -> Response:
        self.requests.append(request)
        return Response.of_json({"tasks": [{"taskArn": "arn:aws:ecs:us-east-1:123456789012:task/local/x"}]})


@pytest.fixture
def ecs() -> Iterator[Ecs]:
    with Ecs() as ecs:
        yield ecs


def test_run_task_signature_covers_the_sent_bytes(run: Callable[..., Function], ecs: Ecs) -> None:
    function = run("submit", AWS_ENDPOINT_URL_ECS=ecs.url)
    assert function.api.submit(item("signed", ["echo", "ä"]))[0]["state"] == "launched"
    (request,) = [each for each in ecs.requests if each.headers["x-amz-target"].endswith(".RunTask")]
    body = request.body
    sent = json.loads(body)
    assert sent["startedBy"] == "local/signed/1"
    assert len(sent["clientToken"]) == 43
    assert sent["overrides"]["containerOverrides"] == [{"name": "main", "command": ["echo", "ä"]}]

    # botocore's signature over the same headers is the same.
    lowered = {name.lower(): value for name, value in request.headers.items()}
    signed = lowered["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    assert {"host", "x-amz-date", "x-amz-target", "content-type"} <= set(signed)
    signed_again = AWSRequest("POST", f"{ecs.url}/", {name: lowered[name] for name in signed}, body)
    signed_again.context["timestamp"] = lowered["x-amz-date"]
    auth = SigV4Auth(Credentials("local", "local"), "ecs", "us-east-1")
    signature = auth.signature(auth.string_to_sign(signed_again, auth.canonical_request(signed_again)), signed_again)
    assert lowered["authorization"].endswith(f"Signature={signature}")
    assert int(lowered["content-length"]) == len(body)


@pytest.mark.parametrize("name", ["submit", "task-state", "reconcile"])
def test_all_configuration_errors_are_reported_together(name: str) -> None:
    environment = {"ECS_BRIDGE_DEPLOYMENT": "a/b", "ECS_BRIDGE_LAUNCH_RATE": "fast"}
    done = subprocess.run(
        [PROGRAM.parent / name], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode != 0
    problems = ["ECS_BRIDGE_TABLE is not set", "ECS_BRIDGE_DEPLOYMENT: ", "ECS_BRIDGE_LAUNCH_RATE must be"]
    if name == "submit":
        problems += ["ECS_BRIDGE_CLUSTER is not set", "ECS_BRIDGE_PROFILES"]
    for problem in problems:
        assert problem in done.stderr
