"""The roles of the template hold what is called, all of which is called, and nothing that is not.

What is called is recorded at the wire while the real functions run on the local stack, and completed by hand with what
AWS's own services call in a role's name. The policies are those that moto's CloudFormation resolved.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.credentials import Credentials
from calls import by_aws, by_nobody
from conftest import ACCOUNT, EVERY_OPTION, ROOT, Stack, packaged, template
from moto import mock_aws
from policies import Call, Statement, permits, without_action, without_condition, without_statement
from recorder import Exchange, Recorder, arn, asked

sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "executor/src")]
from airflow_ecs_bridge.client import BridgeClient  # noqa: E402
from airflow_ecs_bridge.table import Table  # noqa: E402
from local_stack import PROGRAM, LocalStack, until  # noqa: E402

DEPLOYMENT, CLUSTER = "prod", "jobs"
CLUSTER_ARN = arn("ecs", f"cluster/{CLUSTER}")
TASK_ROLE, EXECUTION_ROLE = (f"arn:aws:iam::{ACCOUNT}:role/{name}" for name in ("etl-task", "ecs-execution"))
TASK_DEFINITION = {
    "family": "etl",
    "networkMode": "awsvpc",
    "requiresCompatibilities": ["FARGATE"],
    "cpu": "256",
    "memory": "512",
    "taskRoleArn": TASK_ROLE,
    "executionRoleArn": EXECUTION_ROLE,
    "containerDefinitions": [{"name": "main", "image": "local", "essential": True}],
}
PROFILES = {
    "default": {
        "container_name": "main",
        "run_task": {
            "taskDefinition": "etl",
            "launchType": "FARGATE",
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}},
            "tags": [{"key": "team", "value": "data"}],
        },
        "allow_overrides": ["tags"],
    }
}
# The proxy knows callers by the functions' names; the executor has no function.
FUNCTIONS = ("submit", "task-state", "reconcile")


# --- What the template grants ------------------------------------------------------------------


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="code")
        s3.put_object(Bucket="code", Key="function.zip", Body=b"PK\5\6" + bytes(18))
        yield Stack(packaged(), EVERY_OPTION | {"ClusterArn": CLUSTER_ARN})


@pytest.fixture(scope="module")
def granted(stack: Stack) -> dict[str, list[Statement]]:
    """The statements of each role, those of the executor's managed policy among them."""
    iam = boto3.client("iam")

    def managed(policy_arn: str) -> list[Statement]:
        return iam.get_policy_version(PolicyArn=policy_arn, VersionId="v1")["PolicyVersion"]["Document"]["Statement"]

    def role(logical_id: str) -> list[Statement]:
        statements = []
        name = stack.ids[logical_id]
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
            # moto keeps the document of a role in a template as Python writes a dict.
            document = ast.literal_eval(document) if isinstance(document, str) else document
            statements += document["Statement"]
        # moto does not attach managed policies to a role in a template. Here all of their conditions hold.
        for attached in template()["Resources"][logical_id]["Properties"]["ManagedPolicyArns"]:
            _, policy, _ = attached["Fn::If"]
            statements += managed(stack.ids[policy["Ref"]])
        return statements

    return {
        "submit": role("SubmitRole"),
        "task-state": role("TaskStateRole"),
        "reconcile": role("ReconcileRole"),
        "schedule": role("ScheduleRole"),
        "executor": managed(stack.ids["ExecutorPolicy"]),
    }


# --- What is called ----------------------------------------------------------------------------


class Local:
    """A stand-in for the executor's AWS identity: it may do all on the local stack, and goes through the proxy."""

    def __init__(self, dynamodb: str) -> None:
        self._dynamodb = dynamodb

    def credentials(self) -> Credentials:
        return Credentials("local", "local")

    def region(self) -> str:
        return "us-east-1"

    def verify(self) -> bool:
        return True

    def dynamodb(self) -> Any:
        return boto3.client("dynamodb", endpoint_url=self._dynamodb, config=Config(retries={"total_max_attempts": 1}))


def client_token(started_by: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(started_by.encode()).digest()).decode().rstrip("=")


def walk(local: LocalStack, recorder: Recorder) -> None:
    """Takes submissions down every way on which a function calls something."""

    def called(caller: str, operation: str) -> None:
        until(f"{caller} calls {operation}", lambda: recorder.seen(caller, operation))

    def submit(submission_id: str, *command: str, **options: Any) -> None:
        (answer,) = local.submit({"submission_id": submission_id, "command": command, **options})
        assert "error" not in answer, answer

    # The executor, with its own client and its own reader.
    aws = Local(recorder.address("executor", "dynamodb", local.ready["dynamodb_url"].removeprefix("http://")))
    executor = BridgeClient(local.ready["submit_url"], aws, timeout=60)  # type: ignore[arg-type]
    assert executor.health()["status"] == "ok"
    (answer,) = executor.submit([{"submission_id": "plain", "command": ["true"]}])
    assert answer.error_code is None
    local.until_state("plain", "succeeded")
    table = Table(aws.dynamodb(), local.ready["table"], DEPLOYMENT)
    assert [record.submission_id for record in table.changes(0)[0]] == ["plain"]
    assert table.records(["plain"])[0]["plain"].ended

    # A stop of what runs.
    submit("stopped", "sleep", "600")
    local.until_state("stopped", "running")
    executor.stop(["stopped"], "not wanted")
    local.until_state("stopped", "cancelled")
    called("submit", "StopTask")

    # A launch that conflicts with a task that somebody made with our token.
    ecs = boto3.client("ecs", endpoint_url=local.ready["ecs_url"])
    started_by = f"{DEPLOYMENT}/conflict/1"
    network = PROFILES["default"]["run_task"]["networkConfiguration"]  # type: ignore[index]
    ecs.run_task(
        cluster=CLUSTER_ARN,
        taskDefinition="etl",
        launchType="FARGATE",
        networkConfiguration=network,
        startedBy=started_by,
        clientToken=client_token(started_by),
        overrides={"containerOverrides": [{"name": "main", "command": ["true"]}]},
    )
    submit("conflict", "true")
    local.until_state("conflict", "succeeded")
    called("submit", "DescribeTasks")

    # A task that lives though its submission was cancelled before it was made.
    local.stop("unwanted")
    answer = ecs.run_task(
        cluster=CLUSTER_ARN,
        taskDefinition="etl",
        launchType="FARGATE",
        networkConfiguration=network,
        startedBy=f"{DEPLOYMENT}/unwanted/1",
        overrides={"containerOverrides": [{"name": "main", "command": ["sleep", "600"]}]},
    )
    assert not answer["failures"]
    called("task-state", "StopTask")

    # A launch refused for now: submit wakes reconcile, which launches it.
    local.rule(operation="RunTask", submission_id="queued", error={"code": "ThrottlingException", "message": "Rate exceeded"})
    submit("queued", "true")
    local.until_state("queued", "succeeded")
    called("submit", "2015-03-31/functions/reconcile/invocations")
    called("reconcile", "RunTask")

    # A task that no event tells of is described.
    silent = {"tags": [{"key": "ecs-bridge-local:shape", "value": "no-events"}]}
    submit("silent", "true", overrides=silent)
    local.until_state("silent", "succeeded")
    called("reconcile", "DescribeTasks")

    # A launch that is never answered, of a task that no event tells of, is looked up in the end.
    local.rule(operation="RunTask", submission_id="unanswered", times=1000, answer="none")
    submit("unanswered", "sleep", "600", overrides=silent)
    called("reconcile", "ListTasks")
    local.drop_rules()

    # A stop that reconcile sends: the task runs longer than its profile allows.
    submit("late", "sleep", "600", profile="hasty")
    local.until_state("late", "failed")
    called("reconcile", "StopTask")


@pytest.fixture(scope="module")
def exchanges(tmp_path_factory: pytest.TempPathFactory) -> list[Exchange]:
    folder = tmp_path_factory.mktemp("recorded")
    scripts = folder / "functions"
    scripts.mkdir()
    recorder = Recorder()
    try:
        recorder.wrap(PROGRAM.parent, scripts, FUNCTIONS)
        flags = {
            "functions-dir": scripts,
            "deployment": DEPLOYMENT,
            "cluster": CLUSTER,
            "template": ROOT / "template.yaml",
            "reconcile-every": 1,
            "timer-scale": 600,
            "time-scale": 10,
        }
        profiles = PROFILES | {"hasty": PROFILES["default"] | {"run_timeout": 1}}
        with LocalStack(folder, flags, profiles=profiles, task_definitions=[TASK_DEFINITION]) as local:
            walk(local, recorder)
    finally:
        recorder.close()
    return recorder.exchanges


@pytest.fixture(scope="module")
def called(stack: Stack, exchanges: list[Exchange]) -> set[Call]:
    """All that IAM is asked about, as if it had happened in the stack that moto made."""
    roles = {"etl": [TASK_ROLE, EXECUTION_ROLE]}
    wire = {call for exchange in exchanges for call in asked(exchange, stack.ids["Table"], DEPLOYMENT, roles)}
    submit = arn("lambda", f"function:{DEPLOYMENT}-submit")
    # A request to the URL asks for both.
    # https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html
    url = {
        Call("executor", "lambda:InvokeFunctionUrl", submit, {"lambda:FunctionUrlAuthType": "AWS_IAM"}),
        Call("executor", "lambda:InvokeFunction", submit, {"lambda:InvokedViaFunctionUrl": "true"}),
    }
    sqs = boto3.client("sqs")

    def queue(logical_id: str) -> str:
        attributes = sqs.get_queue_attributes(QueueUrl=stack.ids[logical_id], AttributeNames=["QueueArn"])
        return attributes["Attributes"]["QueueArn"]

    return wire | url | set(by_aws(DEPLOYMENT, queue("EventDeadLetters"), queue("ReconcileDeadLetters")))


@pytest.fixture(scope="module")
def foreign(stack: Stack) -> list[Call]:
    return by_nobody(DEPLOYMENT, stack.ids["Table"], CLUSTER_ARN, arn("ecs", "task-definition/etl:1"), TASK_ROLE)


# --- The comparison ----------------------------------------------------------------------------


def test_everything_that_is_called_is_allowed(granted: dict[str, list[Statement]], called: set[Call]) -> None:
    refused = [str(call) for call in called if not permits(granted[call.role], call)]
    assert not refused


@pytest.mark.parametrize("smaller", [without_statement, without_action])
def test_nothing_can_be_taken_away(
    granted: dict[str, list[Statement]], called: set[Call], smaller: Callable[..., Any]
) -> None:
    idle = [
        f"{role}: {name}"
        for role, statements in granted.items()
        for name, rest in smaller(statements)
        if all(permits(rest, call) for call in called if call.role == role)
    ]
    assert not idle


def test_everything_foreign_is_refused(granted: dict[str, list[Statement]], foreign: list[Call]) -> None:
    allowed = [str(call) for call in foreign if permits(granted[call.role], call)]
    assert not allowed


def test_each_condition_keeps_something_out(granted: dict[str, list[Statement]], foreign: list[Call]) -> None:
    idle = [
        f"{role}: {name}"
        for role, statements in granted.items()
        for name, wider in without_condition(statements)
        if not any(permits(wider, call) for call in foreign if call.role == role)
    ]
    assert not idle


def test_a_star_stands_only_where_iam_knows_no_resource(granted: dict[str, list[Statement]]) -> None:
    stars = {(role, s["Sid"]) for role, statements in granted.items() for s in statements if s["Resource"] == "*"}
    in_vpc = {(role, "NetworkInterfaces") for role in FUNCTIONS}
    assert stars == {("submit", "HealthOfProfiles"), ("reconcile", "FindTasks")} | in_vpc


def test_the_functions_are_told_all_that_they_read_of_their_environment() -> None:
    sources = [*ROOT.glob("functions/*/src/*.rs"), *ROOT.glob("shared/*/src/*.rs")]
    read = {name for path in sources for name in re.findall(r'"(ECS_BRIDGE_[A-Z_]+)"', path.read_text())}
    resources = template()
    told = set(resources["Globals"]["Function"]["Environment"]["Variables"])
    for resource in resources["Resources"].values():
        told |= set(resource["Properties"].get("Environment", {}).get("Variables", {}))
    # For tests only.
    assert read - {"ECS_BRIDGE_TIMER_SCALE"} == told
