"""Runs the real functions on the local stack through every path that makes a call, and records the calls."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.httpsession import URLLib3Session
from recorder import Exchange, Recorder
from stacks import ROOT

from airflow_ecs_bridge.ui.queries import Reader
from cloudformation import ACCOUNT, arn
from ecs_bridge.api import BridgeClient
from ecs_bridge.table import WHOLE, Table
from local_stack import PATIENCE, PROGRAM, LocalStack, until

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
        "fallbacks": [{"platformVersion": "LATEST"}],
    }
}
# The proxy knows callers by the functions' names; the executor has no function.
FUNCTIONS = ("submit", "task-state", "reconcile", "runner-api")


@dataclass(frozen=True)
class Recording:
    """The calls of the functions, and their logs."""

    exchanges: list[Exchange]
    folder: Path

    def log(self) -> Iterator[dict[str, Any]]:
        """The lines of all functions."""
        for function in FUNCTIONS:
            for path in self.folder.glob(f"*/logs/{function}-*.log"):
                # The last one may be only half written.
                lines = path.read_text().rpartition("\n")[0].splitlines()
                yield from (json.loads(line) for line in lines if line.startswith("{"))


class Local:
    """A stand-in for the executor's AWS identity: it may do all on the local stack, and goes through the proxy."""

    def __init__(self, dynamodb: str) -> None:
        self._dynamodb = dynamodb

    def credentials(self) -> Credentials:
        return Credentials("local", "local")

    def region(self) -> str:
        return "us-east-1"

    def http(self, url: str, read_timeout: float) -> URLLib3Session:
        return URLLib3Session(timeout=read_timeout)

    def dynamodb(self) -> Any:
        return boto3.client("dynamodb", endpoint_url=self._dynamodb, config=Config(retries={"total_max_attempts": 1}))


def client_token(started_by: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(started_by.encode()).digest()).decode().rstrip("=")


def submit(local: LocalStack, submission_id: str, *command: str, **options: Any) -> None:
    (answer,) = local.submit({"submission_id": submission_id, "command": command, **options})
    assert "error" not in answer, answer


def record_submissions(local: LocalStack, recorder: Recorder) -> None:
    """The calls that follow a submission, a stop or an event within seconds."""

    def called(caller: str, operation: str) -> None:
        until(f"{caller} calls {operation}", lambda: recorder.seen(caller, operation))

    def wakes(caller: str, once: Callable[[str], None]) -> None:
        """submit does not trigger a run that is still reading, so this repeats until no run is."""
        operation = "2015-03-31/functions/reconcile/invocations"
        numbers = itertools.count()

        def seen() -> bool:
            once(f"{caller}-{next(numbers)}")
            return recorder.seen(caller, operation)

        until(f"{caller} calls {operation}", seen)

    # The executor, with its own client and its own reader.
    aws = Local(recorder.address("executor", "dynamodb", local.ready["dynamodb_url"].removeprefix("http://")))
    executor = BridgeClient(local.ready["submit_url"], aws, timeout=PATIENCE)  # type: ignore[arg-type]
    assert executor.health()["status"] == "ok"
    (answer,) = executor.submit([{"submission_id": "plain", "command": ["true"]}])
    assert answer.error_code is None
    local.until_state("plain", "succeeded")
    table = Table(aws.dynamodb(), local.ready["table"], DEPLOYMENT)
    assert [record.submission_id for record in table.changes(0)[0]] == ["plain"]
    assert table.records(["plain"])[0]["plain"].ended
    # The client can read more attributes.
    assert Table(aws.dynamodb(), local.ready["table"], DEPLOYMENT, WHOLE).records(["plain"])[0]["plain"].launched_at

    # A launch for which the first choice has no capacity.
    local.rule(submission_id="elsewhere", failure="RESOURCE:CPU")
    submit(local, "elsewhere", "true")
    local.until_state("elsewhere", "succeeded")

    # A stop of a running submission.
    submit(local, "stopped", "sleep", "600")
    local.until_state("stopped", "running")
    executor.stop(["stopped"], "not wanted")
    local.until_state("stopped", "cancelled")
    called("submit", "StopTask")

    # A launch that conflicts with another task of the same client token.
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
    submit(local, "conflict", "true")
    local.until_state("conflict", "succeeded")
    called("submit", "DescribeTasks")

    # A task that runs although its submission was cancelled before.
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
    def refused(id: str) -> None:
        error = {"code": "ThrottlingException", "message": "Rate exceeded"}
        local.rule(operation="RunTask", submission_id=id, error=error)
        submit(local, id, "true")
        local.until_state(id, "succeeded")

    wakes("submit", refused)
    called("reconcile", "RunTask")

    # An event that cannot be used.
    detail = {"startedBy": f"{DEPLOYMENT}/unusable/1", "lastStatus": "STOPPED"}
    local.invoke("task-state", {"source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": detail})

    # A task whose container never started: task-state wakes reconcile for the next attempt.
    def never_started(id: str) -> None:
        local.rule(submission_id=id, shapes="cannot-pull")
        submit(local, id, "true")
        local.until_state(id, "succeeded")

    wakes("task-state", never_started)


LISTENERS = {"event_bus": "default"}


def record_notifications(local: LocalStack, recorder: Recorder) -> None:
    """Notifications by each function that may deliver them."""

    def called(caller: str, *operations: str) -> None:
        until(f"{caller} calls {operations}", lambda: all(recorder.seen(caller, operation) for operation in operations))

    for command in ("true", "false"):
        submit(local, f"told-{command}", command, notify=LISTENERS | {"task_token": f"of-{command}"})
    called("task-state", "SendTaskSuccess", "SendTaskFailure", "PutEvents")
    for command in ("true", "false"):
        submit(
            local,
            f"pooled-{command}",
            command,
            profile="pool",
            notify=LISTENERS | {"task_token": f"of-pooled-{command}"},
        )
    # A runner does not wait for that: runner-api leaves it to reconcile, which it wakes unless a run looks anyway.
    called("reconcile", "SendTaskSuccess", "SendTaskFailure", "PutEvents")
    numbers = itertools.count()

    def is_woken() -> bool:
        id = f"pooled-{next(numbers)}"
        submit(local, id, "true", profile="pool", notify=LISTENERS)
        local.until_state(id, "succeeded")
        return recorder.seen("runner-api", "2015-03-31/functions/reconcile/invocations")

    until("runner-api wakes reconcile", is_woken)
    # reconcile delivers the notifications that task-state could not deliver.
    for operation in ("SendTaskSuccess", "SendTaskFailure", "PutEvents"):
        local.rule(operation=operation, times=2, error={"code": "AccessDeniedException", "message": "not now"})
    for command in ("true", "false"):
        submit(local, f"again-{command}", command, notify=LISTENERS | {"task_token": f"of-again-{command}"})
    called("reconcile", "SendTaskSuccess", "SendTaskFailure", "PutEvents")


def record_pool(local: LocalStack, recorder: Recorder) -> None:
    """The calls for a command that a runner claims, and for a caller that is no runner."""
    submit(local, "pooled", "true", profile="pool")
    local.until_state("pooled", "succeeded")
    assert recorder.seen("runner-api", "Query")
    assert recorder.seen("reconcile", "PutItem")
    event = {
        "rawPath": "/v1/poll",
        "requestContext": {
            "http": {"method": "POST", "path": "/v1/poll", "protocol": "HTTP/1.1", "sourceIp": "::1", "userAgent": ""},
            "timeEpoch": 0,
            "authorizer": {"iam": {"userArn": f"arn:aws:sts::{ACCOUNT}:assumed-role/etl-task/0123"}},
        },
        "headers": {},
        "body": json.dumps({"runner_id": "runner-0", "token": "guessed", "incarnation": "incarnation-1"}),
        "isBase64Encoded": False,
    }
    assert local.invoke("runner-api", event)["statusCode"] == 403


def record_ui(local: LocalStack, recorder: Recorder) -> None:
    """The reads of Airflow's API server for the UI plugin."""
    aws = Local(recorder.address("page", "dynamodb", local.ready["dynamodb_url"].removeprefix("http://")))
    reader = Reader(aws.dynamodb, local.ready["table"], DEPLOYMENT)
    seen = reader.read()
    assert seen.ended
    assert seen.runners.keys() == {"pool"}
    assert not seen.cut
    assert reader.records(["pooled"])["pooled"]["state"] == "succeeded"


def record_checks(local: LocalStack, recorder: Recorder) -> None:
    """The calls of reconcile when no event arrives for minutes, with shorter minutes."""

    def called(operation: str) -> None:
        until(f"reconcile calls {operation}", lambda: recorder.seen("reconcile", operation))

    # A task without events is described.
    silent = {"tags": [{"key": "ecs-bridge-local:shape", "value": "no-events"}]}
    submit(local, "silent", "true", overrides=silent)
    # An unanswered launch of a task without events is looked up after a stop request.
    local.rule(operation="RunTask", submission_id="unanswered", times=1000, answer="none")
    submit(local, "unanswered", "sleep", "600", overrides=silent)
    local.stop("unanswered")
    # A task that runs longer than its profile allows: it is stopped.
    submit(local, "late", "sleep", "600", profile="hasty")

    called("DescribeTasks")
    called("ListTasks")
    called("StopTask")
    local.until_state("silent", "succeeded")


def record(folder: Path) -> Recording:
    """Run everything, with files in `folder`."""
    scripts = folder / "functions"
    scripts.mkdir()
    flags = {
        "functions-dir": scripts,
        "deployment": DEPLOYMENT,
        "cluster": CLUSTER,
        "template": ROOT / "template.yaml",
        "reconcile-every": 1,
        "time-scale": 10,
    }
    hasty, pooled = PROFILES["default"] | {"run_timeout": 1}, PROFILES["default"] | {"pool": {"max": 1}}
    definitions, profiles = [TASK_DEFINITION], PROFILES | {"hasty": hasty, "pool": pooled}
    with Recorder() as recorder:
        recording = Recording(recorder.exchanges, folder)
        recorder.wrap(PROGRAM.parent, scripts, FUNCTIONS)
        (scripts / "ecs-bridge-runner").symlink_to(PROGRAM.parent / "ecs-bridge-runner")
        # Runs by the schedule leave room for those that are triggered.
        seldom = flags | {"reconcile-every": 5}
        with LocalStack(folder / "at-once", seldom, profiles=profiles, task_definitions=definitions) as local:
            record_submissions(local, recorder)
            record_pool(local, recorder)
            record_ui(local, recorder)
        shorter = flags | {"timer-scale": 30}
        with LocalStack(folder / "in-time", shorter, profiles=profiles, task_definitions=definitions) as local:
            record_checks(local, recorder)
            record_notifications(local, recorder)
            # A run of reconcile writes its metrics at its end, when nothing more is due soon.
            until(
                "reconcile has counted repairs",
                lambda: any("ReconciledSubmissions" in line for line in recording.log()),
            )
    return recording
