"""A release, deployed by an emulator's CloudFormation: the lifecycle of a command, an update, a deletion, and the CLI.

The tests share one deployment. The last two update and delete it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from emulator import BUCKET, FUNCTIONS, Emulator, EventBridge, event_of
from emulator_gaps import DOCTOR, TIMED, VERIFY
from stacks import ROOT, template

from cloudformation import arn
from local_stack import TERMINAL, until

DEPLOYMENT = "prod"
STACK = "bridge"
# Checks of `ecs-bridge verify-aws` that run concurrently, with their time scale. The checks of the last group wait for
# results that the emulator never has, and so must not wait for long.
CHECKS = [
    ({"url", "direct-invocation", "unknown-task-definition", "wrong-subnet", "too-much-memory", "token", "cost"}, 1),
    ({"exit-codes", "events", "stop", "schedule"}, 1),
    ({"after-the-end", "cannot-pull", "session-name"}, 1),
    ({"dead-letters", "alarm-metrics", "durations", "cold-start"}, 1_000),
]


@dataclass
class Bridge:
    """The deployed bridge."""

    emulator: Emulator
    events: EventBridge
    folder: Path
    parameters: dict[str, str]
    outputs: dict[str, str]

    def invoke(self, payload: object) -> Any:
        """Invokes submit directly."""
        answer = self.emulator.client("lambda").invoke(
            FunctionName=self.outputs["SubmitFunctionName"], Payload=json.dumps(payload)
        )
        result = json.load(answer["Payload"])
        assert "FunctionError" not in answer, result
        return result

    def submit(self, submission_id: str, command: str, **more: object) -> None:
        [item] = self.invoke(
            {"submissions": [{"submission_id": submission_id, "command": ["sh", "-c", command], **more}]}
        )["submissions"]
        assert "error" not in item, item

    def record(self, submission_id: str) -> dict[str, Any]:
        return self.invoke({"submission_id": submission_id})

    def until_state(self, submission_id: str, *states: str) -> dict[str, Any]:
        record: dict[str, Any] = {}

        def look() -> dict[str, Any] | None:
            nonlocal record
            record = self.record(submission_id)
            if record["state"] in states:
                return record
            assert record["state"] not in TERMINAL, record
            return None

        try:
            return until(f"{submission_id} is {states}", look)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {record}") from None

    def reconcile(self) -> None:
        """Starts a run without waiting for the schedule."""
        function = self.outputs["ReconcileFunctionName"]
        self.emulator.client("lambda").invoke(FunctionName=function, InvocationType="Event", Payload="{}")

    def tasks(self) -> list[dict[str, Any]]:
        ecs, cluster = self.emulator.client("ecs"), self.parameters["ClusterArn"]
        arns = [
            task
            for desired in ("RUNNING", "STOPPED")
            for task in ecs.list_tasks(cluster=cluster, desiredStatus=desired)["taskArns"]
        ]
        return ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"] if arns else []

    def launches(self, submission_id: str) -> list[dict[str, Any]]:
        """Returns every task that was started for a submission."""
        return [task for task in self.tasks() if task["startedBy"].startswith(f"{DEPLOYMENT}/{submission_id}/")]

    def configuration(self, function: str) -> dict[str, Any]:
        return self.emulator.client("lambda").get_function_configuration(FunctionName=f"{DEPLOYMENT}-{function}")

    def resource(self, logical_id: str) -> str:
        formation = self.emulator.client("cloudformation")
        found = formation.describe_stack_resource(StackName=STACK, LogicalResourceId=logical_id)
        return found["StackResourceDetail"]["PhysicalResourceId"]


@pytest.fixture(scope="module")
def people(emulator: Emulator) -> dict[str, list[str]]:
    """The policies of infra/iam-policies.yaml, by output."""
    parameters = {"Deployment": DEPLOYMENT, "StackName": STACK, "CodeBucket": BUCKET}
    outputs = emulator.deploy(
        "people", emulator.upload("iam-policies.json", template("infra/iam-policies.yaml")), parameters
    )
    return {name: value.split(",") for name, value in outputs.items()}


@pytest.fixture(scope="module")
def deployer(emulator: Emulator, people: dict[str, list[str]]) -> dict[str, str]:
    return emulator.user("deployer", *people["DeployerPolicyArns"])


@pytest.fixture(scope="module")
def operator(emulator: Emulator, people: dict[str, list[str]]) -> dict[str, str]:
    return emulator.user("operator", *people["OperatorPolicyArns"])


@pytest.fixture(scope="module")
def administrator(emulator: Emulator) -> dict[str, str]:
    iam = emulator.client("iam")
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    policy = iam.create_policy(PolicyName="everything", PolicyDocument=json.dumps(everything))["Policy"]["Arn"]
    return emulator.user("administrator", policy)


@pytest.fixture(scope="module")
def bridge(
    emulator: Emulator, example: dict[str, str], deployer: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bridge]:
    profiles = json.loads(example["Profiles"])
    profiles["pool"] = profiles["default"] | {"pool": {"max": 1}}
    parameters = example | {
        "CodeBucket": BUCKET,
        "CodePrefix": "1/",
        "Deployment": DEPLOYMENT,
        "Profiles": json.dumps(profiles),
        "TaskTokens": "true",
        "EventBusArns": arn("events", "event-bus/ends"),
        "RunnerApiDirectInvocation": "true",
    }
    emulator.client("events").create_event_bus(Name="ends")
    outputs = emulator.deploy(STACK, f"{emulator.url}/{BUCKET}/1/packaged.json", parameters, deployer)
    [runner_role] = [role for role in parameters["PassRoleArns"].split(",") if "TaskRole" in role]
    emulator.client("iam").attach_role_policy(
        RoleName=runner_role.rsplit("/", 1)[1], PolicyArn=outputs["RunnerPolicyArn"]
    )
    with EventBridge(emulator) as events:
        yield Bridge(emulator, events, tmp_path_factory.mktemp("files"), parameters, outputs)


def test_health_is_ok(bridge: Bridge) -> None:
    health = bridge.invoke({"health": True})
    assert health["status"] == "ok", health


def test_invoked_submission_ends_with_its_exit_code(bridge: Bridge) -> None:
    bridge.submit("by-invocation", "exit 7")
    assert bridge.until_state("by-invocation", "failed")["exit_code"] == 7
    assert len(bridge.launches("by-invocation")) == 1


def test_operator_submits_through_the_url_and_reads_logs(bridge: Bridge, operator: dict[str, str]) -> None:
    address = bridge.emulator.address(bridge.outputs["SubmitUrl"])
    of_bridge = ["--stack", STACK, "--url", address]
    command = ["submit", *of_bridge, "--id", "by-url", "--wait", "--", "sh", "-c", "echo hello; exit 3"]
    submitted = bridge.emulator.cli(*command, keys=operator)
    assert submitted.returncode == 3, submitted.stdout + submitted.stderr
    logs = bridge.emulator.cli("logs", *of_bridge, "by-url", keys=operator)
    assert "hello" in logs.stdout, logs.stdout + logs.stderr
    assert len(bridge.launches("by-url")) == 1


def test_url_denies_an_unknown_user(bridge: Bridge) -> None:
    address = bridge.emulator.address(bridge.outputs["SubmitUrl"])
    stranger = bridge.emulator.user("stranger")
    shown = bridge.emulator.cli("show", "--stack", STACK, "--url", address, "by-invocation", keys=stranger)
    assert "AccessDenied" in shown.stderr, shown.stderr


def test_rule_ignores_foreign_events(bridge: Bridge) -> None:
    [task] = bridge.launches("by-invocation")
    assert bridge.events.matching(event_of(task)) == [f"{DEPLOYMENT}-task-state-change"]
    for foreign in (
        task | {"startedBy": f"{DEPLOYMENT}-other/by-invocation/1"},
        task | {"startedBy": "ecs-svc/1"},
        task | {"clusterArn": arn("ecs", "cluster/other")},
        task | {"lastStatus": "PENDING", "containers": [{"name": "main", "lastStatus": "PENDING"}]},
    ):
        assert bridge.events.matching(event_of(foreign)) == []


def test_pooled_command_runs_in_a_runner(bridge: Bridge) -> None:
    bridge.submit("pooled", "exit 5", profile="pool")
    record = bridge.until_state("pooled", "failed")
    assert record["exit_code"] == 5
    [task] = [task for task in bridge.tasks() if task["taskArn"] == record["task_arn"]]
    assert task["startedBy"].startswith(f"{DEPLOYMENT}/runner-")
    assert not bridge.launches("pooled")


def test_event_bus_receives_the_result(bridge: Bridge) -> None:
    events, sqs = bridge.emulator.client("events"), bridge.emulator.client("sqs")
    queue = sqs.create_queue(QueueName="ends")["QueueUrl"]
    events.put_rule(Name="ends", EventBusName="ends", EventPattern=json.dumps({"source": ["ecs-bridge"]}))
    events.put_targets(Rule="ends", EventBusName="ends", Targets=[{"Id": "queue", "Arn": arn("sqs", "ends")}])
    bridge.submit("on-a-bus", "exit 9", notify={"event_bus": bridge.parameters["EventBusArns"]})

    def received() -> dict[str, Any] | None:
        [message] = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages", [None])
        return message and json.loads(message["Body"])

    event = until("the bus has received the end", received)
    assert event["detail"]["submission_id"] == "on-a-bus"
    assert (event["detail"]["state"], event["detail"]["exit_code"]) == ("failed", 9)


def test_state_machine_waits_for_the_result(bridge: Bridge) -> None:
    command = ["sh", "-c", "exit 0"]
    outputs = bridge.emulator.deploy(
        "state-machines",
        bridge.emulator.upload("state-machines.json", template("infra/state-machines.yaml")),
        {"Deployment": DEPLOYMENT, "Command": json.dumps(command)},
    )
    states = bridge.emulator.client("stepfunctions")

    def ended(execution: str) -> dict[str, Any] | None:
        found = states.describe_execution(executionArn=execution)
        return None if found["status"] == "RUNNING" else found

    for machine in ("JobArn", "NeverTwiceArn"):
        started = states.start_execution(stateMachineArn=outputs[machine], name=machine, input="{}")["executionArn"]
        found = until(f"{machine} has ended", partial(ended, started))
        assert found["status"] == "SUCCEEDED", states.get_execution_history(executionArn=started)
        assert json.loads(found["output"])["exit_code"] == 0


def test_dead_letter_message_is_redriven(bridge: Bridge, operator: dict[str, str]) -> None:
    iam, role = bridge.emulator.client("iam"), bridge.resource("TaskStateRole")
    deny = {"Effect": "Deny", "Action": "dynamodb:GetItem", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    iam.put_role_policy(RoleName=role, PolicyName="outage", PolicyDocument=policy)
    bridge.submit("outage", "exit 4")
    sqs, queue = bridge.emulator.client("sqs"), bridge.outputs["EventDeadLettersUrl"]
    count = "ApproximateNumberOfMessages"

    def messages() -> int:
        return int(sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=[count])["Attributes"][count])

    def dead() -> bool:
        handed = [event["detail"] for event in bridge.events.handed]
        handed = [task for task in handed if task["startedBy"] == f"{DEPLOYMENT}/outage/1"]
        return any(task["lastStatus"] == "STOPPED" for task in handed) and messages() == len(handed)

    until("the task has stopped, and each of its events is a dead-letter message", dead)
    assert bridge.record("outage")["state"] == "launched"
    redrive = [sys.executable, ROOT / "tools/redrive.py", "--stack-name", STACK]
    environment = bridge.emulator.environment(operator)
    refused = subprocess.run(redrive, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 1, refused.stdout + refused.stderr
    iam.delete_role_policy(RoleName=role, PolicyName="outage")
    accepted = subprocess.run(redrive, env=environment, capture_output=True, text=True, check=False)
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    record = bridge.record("outage")
    assert (record["state"], record["exit_code"]) == ("failed", 4)
    assert messages() == 0


def test_doctor_reports_only_emulator_gaps(bridge: Bridge, operator: dict[str, str]) -> None:
    address = bridge.emulator.address(bridge.outputs["SubmitUrl"])
    done = bridge.emulator.cli("doctor", "--stack", STACK, "--url", address, "--json", keys=operator)
    findings = [finding for finding in json.loads(done.stdout) if finding["verdict"] != "ok"]
    assert {(finding["check"], finding["detail"]) for finding in findings} == set(DOCTOR), done.stdout + done.stderr


def test_verify_aws_fails_only_for_emulator_gaps(bridge: Bridge, administrator: dict[str, str], tmp_path: Path) -> None:
    address = bridge.emulator.address(bridge.outputs["SubmitUrl"])

    def verify(group: int) -> list[dict[str, Any]]:
        checks, time_scale = CHECKS[group]
        options = ["--stack", STACK, "--url", address, "--time-scale", str(time_scale), "--json"]
        options += ["--report", str(tmp_path / str(group))]
        only = [word for check in sorted(checks) for word in ("--only", check)]
        done = bridge.emulator.cli("verify-aws", *options, *only, keys=administrator)
        found = json.loads(done.stdout)
        assert {finding["check"] for finding in found} == checks, done.stderr
        return found

    with ThreadPoolExecutor() as pool:
        findings = [finding for found in pool.map(verify, range(len(CHECKS))) for finding in found]

    def those(verdict: str) -> set[str]:
        return {finding["question"] for finding in findings if finding["verdict"] == verdict} - TIMED

    assert those("fail") == VERIFY.keys(), findings
    # As in a new deployment, most metrics have not counted anything yet.
    unknown = {question for question in those("unknown") if not question.startswith("the metrics of ")}
    assert not unknown


def test_schedule_starts_reconcile(bridge: Bridge) -> None:
    function = bridge.configuration("reconcile")["FunctionArn"]
    schedule = bridge.emulator.client("scheduler").get_schedule(Name=f"{DEPLOYMENT}-reconcile")
    assert (schedule["State"], schedule["Target"]["Arn"]) == ("ENABLED", function)
    # No API shows the source of an invocation. The emulator logs this line only for schedules and rules.
    logged = f"EventBridge → Lambda {DEPLOYMENT}-reconcile: dispatched"
    until("the schedule has started a run", lambda: logged in bridge.emulator.log())


def test_update_loses_no_queued_or_running_submission(bridge: Bridge, deployer: dict[str, str]) -> None:
    """Code, a profile and a parameter change while commands run and wait, some of them on a pool."""
    gate, started = bridge.folder / "gate", bridge.folder / "started"
    command = f"echo $0 >> {started}; until [ -e {gate} ]; do sleep 0.1; done; exit 6"
    bridge.submit("runs", command.replace("$0", "runs"))
    bridge.submit("runs-pooled", command.replace("$0", "runs-pooled"), profile="pool")
    for submission_id in ("runs", "runs-pooled"):
        bridge.until_state(submission_id, "running")
    # The pool's only runner is busy.
    bridge.submit("waits-pooled", command.replace("$0", "waits-pooled"), profile="pool")
    iam = bridge.emulator.client("iam")
    roles = [bridge.resource(logical_id) for logical_id in ("SubmitRole", "ReconcileRole")]
    deny = {"Effect": "Deny", "Action": "ecs:RunTask", "Resource": "*"}
    for role in roles:
        policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
        iam.put_role_policy(RoleName=role, PolicyName="outage", PolicyDocument=policy)
    bridge.submit("waits", command.replace("$0", "waits"))
    assert bridge.record("waits-pooled")["state"] == "queued"

    before = {function: bridge.configuration(function) for function in FUNCTIONS}
    profiles = json.loads(bridge.parameters["Profiles"])
    # Another size is another pool key, which no runner of the old key serves.
    profiles["pool"]["run_task"]["overrides"] = {"cpu": "512"}
    changed = {"CodePrefix": "2/", "Profiles": json.dumps(profiles), "RetentionDays": "60"}
    bridge.emulator.release("2/", build=b"2")
    template = f"{bridge.emulator.url}/{BUCKET}/2/packaged.json"
    bridge.emulator.deploy(STACK, template, bridge.parameters | changed, deployer)
    for function, old in before.items():
        new = bridge.configuration(function)
        assert new["CodeSha256"] != old["CodeSha256"]
        assert new["Environment"]["Variables"]["ECS_BRIDGE_RETENTION_DAYS"] == "60"

    bridge.submit("comes-after", command.replace("$0", "comes-after"), profile="pool")
    for role in roles:
        iam.delete_role_policy(RoleName=role, PolicyName="outage")
    gate.touch()
    # The emulator's update of a function ends the run of reconcile that would have looked again.
    bridge.reconcile()
    submitted = ["runs", "runs-pooled", "waits", "waits-pooled", "comes-after"]
    for submission_id in submitted:
        assert bridge.until_state(submission_id, "failed")["exit_code"] == 6
    assert sorted(started.read_text().split()) == sorted(submitted)


def test_deletion_keeps_the_table(bridge: Bridge) -> None:
    formation, dynamodb = bridge.emulator.client("cloudformation"), bridge.emulator.client("dynamodb")
    [stack] = formation.describe_stacks(StackName=STACK)["Stacks"]
    formation.delete_stack(StackName=STACK)
    # By its id, by which a deleted stack is still known.
    settled = bridge.emulator.until_settled(stack["StackId"])
    assert settled["StackStatus"] == "DELETE_COMPLETE", bridge.emulator.failures(stack["StackId"])
    key = {"submission_id": {"S": "by-invocation"}}
    assert dynamodb.get_item(TableName=bridge.outputs["TableName"], Key=key)["Item"]["exit_code"] == {"N": "7"}
    functions = bridge.emulator.client("lambda").list_functions()["Functions"]
    assert not [each["FunctionName"] for each in functions if each["FunctionName"].startswith(DEPLOYMENT)]
