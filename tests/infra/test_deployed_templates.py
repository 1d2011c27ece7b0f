"""The templates around the bridge, deployed by an emulator's CloudFormation, and the gaps of that emulator."""

from __future__ import annotations

import io
import json
import urllib.request
import uuid
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from emulator import BUCKET, ROOT_USER, Emulator, EventBridge
from emulator_gaps import CUTS, OTHER_RESOURCES, UNKNOWN_TYPES, VERIFY, VERSION
from stacks import pinned, template

from cloudformation import ACCOUNT, arn
from local_stack import TERMINAL, call, until
from sigv4 import signed_headers


def nesting(name: str, bridge: str) -> dict[str, Any]:
    """Returns a template that nests the bridge, with the address of the bridge's template."""
    body = template(name)
    body["Resources"]["Bridge"]["Properties"]["TemplateURL"] = bridge
    return body


def invoke(emulator: Emulator, deployment: str, payload: object) -> Any:
    client = emulator.client("lambda")
    answer = client.invoke(FunctionName=f"{deployment}-submit", Payload=json.dumps(payload))
    result = json.load(answer["Payload"])
    assert "FunctionError" not in answer, result
    return result


def exit_code(emulator: Emulator, deployment: str, command: str) -> int:
    """Runs a command on a bridge and returns the recorded exit code."""
    assert invoke(emulator, deployment, {"health": True})["status"] == "ok"
    invoke(emulator, deployment, {"submissions": [{"submission_id": "one", "command": ["sh", "-c", command]}]})

    def ended() -> dict[str, Any] | None:
        record = invoke(emulator, deployment, {"submission_id": "one"})
        return record if record["state"] in TERMINAL else None

    with EventBridge(emulator):
        return until("the command has ended", ended)["exit_code"]


def test_private_network_holds_a_bridge_that_runs_commands(emulator: Emulator) -> None:
    body = nesting("infra/private.yaml", f"{emulator.url}/{BUCKET}/1/packaged-no-urls-nested.json")
    parameters = {"Name": "private", "Repository": "jobs", "ImageTag": "1", "TaskTokens": "true"}
    parameters |= {
        "AgentEndpoints": "true",
        "SecretsEndpoint": "true",
        "EventBusArns": arn("events", "event-bus/default"),
    }
    emulator.deploy("private", emulator.upload("private.json", body), parameters)
    assert exit_code(emulator, "private", "exit 8") == 8


def test_bridge_with_a_key_in_a_network_runs_commands(emulator: Emulator, example: dict[str, str]) -> None:
    key = emulator.deploy("key", emulator.upload("key.json", template("infra/key.yaml")), {"Deployment": "keyed"})
    network = json.loads(example["Profiles"])["default"]["run_task"]["networkConfiguration"]["awsvpcConfiguration"]
    options = {
        "CodeBucket": BUCKET,
        "CodePrefix": "1/",
        "Deployment": "keyed",
        "KmsKeyArn": key["KmsKeyArn"],
        "SubnetIds": ",".join(network["subnets"]),
        "SecurityGroupIds": ",".join(network["securityGroups"]),
        "MoreClusterArns": arn("ecs", "cluster/batch"),
        "CallerPrincipalArns": "arn:aws:iam::210987654321:root",
        "RunnerRoleArns": f"arn:aws:iam::{ACCOUNT}:role/etl-*",
        "AlarmTopicArn": arn("sns", "oncall"),
        "ReconcileConcurrency": "2",
        "ReconcileMinutes": "5",
    }
    emulator.deploy("keyed", f"{emulator.url}/{BUCKET}/1/packaged.json", example | options)
    assert exit_code(emulator, "keyed", "exit 8") == 8


def test_two_sources_of_profiles_are_rejected(emulator: Emulator, example: dict[str, str]) -> None:
    parameters = example | {"CodeBucket": BUCKET, "ProfilesLayerArn": arn("lambda", "layer:profiles:1")}
    with pytest.raises(ClientError, match="Set exactly one of Profiles and ProfilesLayerArn"):
        emulator.deploy("both", f"{emulator.url}/{BUCKET}/1/packaged.json", parameters)


def test_airflow_stack_is_created_and_deleted(emulator: Emulator) -> None:
    body = nesting("infra/airflow-on-fargate/template.yaml", f"{emulator.url}/{BUCKET}/1/packaged-nested.json")
    parameters = {"Name": "airflow", "Repository": "airflow", "ImageTag": "1", "AllowedCidr": "10.0.0.0/8"}
    emulator.deploy("airflow", emulator.upload("airflow.json", body), parameters)
    health = invoke(emulator, "airflow", {"health": True})
    assert health["status"] == "ok", health
    formation = emulator.client("cloudformation")
    [stack] = formation.describe_stacks(StackName="airflow")["Stacks"]
    formation.delete_stack(StackName="airflow")
    settled = emulator.until_settled(stack["StackId"])
    assert settled["StackStatus"] == "DELETE_COMPLETE", emulator.failures(stack["StackId"])


# --- Gaps of the emulator ---------------------------------------------------------------------------
# If one of these tests fails, the emulator supports it: remove the entry in emulator_gaps.py or the workaround.


def test_gaps_name_the_installed_version() -> None:
    assert pinned("emulator", "ministack") == VERSION
    assert {gap.version for gap in [*CUTS, *VERIFY.values()]} == {VERSION}


def uncut(emulator: Emulator, name: str, body: dict[str, Any]) -> dict[str, str]:
    """Deploys a template without any cut."""
    emulator.client("s3").put_object(Bucket=BUCKET, Key=f"{name}.json", Body=json.dumps(body))
    return emulator.deploy(name, f"{emulator.url}/{BUCKET}/{name}.json", {})


@pytest.mark.parametrize("kind", sorted(UNKNOWN_TYPES))
def test_unknown_type_is_rejected(emulator: Emulator, kind: str) -> None:
    with pytest.raises(ClientError, match="Unrecognized resource types"):
        uncut(emulator, "unknown-type", {"Resources": {"Thing": {"Type": kind, "Properties": {}}}})


def test_metric_math_is_rejected(emulator: Emulator) -> None:
    alarm = template()["Resources"]["MissedEventsAlarm"]
    alarm["Properties"] |= {"AlarmName": "math", "Threshold": 1}
    for name in ("AlarmActions", "OKActions"):
        del alarm["Properties"][name]
    text = json.dumps(alarm).replace('{"Ref": "Deployment"}', '"prod"')
    with pytest.raises(AssertionError, match="metric math"):
        uncut(emulator, "math", {"Resources": {"Alarm": json.loads(text)}})


def test_join_in_condition_is_not_resolved(emulator: Emulator) -> None:
    is_empty = {"Fn::Equals": [{"Fn::Join": ["", {"Ref": "List"}]}, ""]}
    body = {
        "Parameters": {"List": {"Type": "CommaDelimitedList", "Default": ""}},
        "Conditions": {"IsEmpty": is_empty},
        "Resources": {"Queue": {"Type": "AWS::SQS::Queue"}},
        "Outputs": {"Empty": {"Value": {"Fn::If": ["IsEmpty", "yes", "no"]}}},
    }
    assert uncut(emulator, "join", body) == {"Empty": "no"}


def test_short_form_of_contains_is_not_parsed(emulator: Emulator) -> None:
    """The reason why templates are sent as JSON."""
    text = 'Rules: {R: {Assertions: [{Assert: !Contains [["a"], "a"]}]}}\nResources: {Q: {Type: "AWS::SQS::Queue"}}\n'
    with pytest.raises(ClientError, match="!Contains"):
        emulator.client("cloudformation").create_stack(StackName="contains", TemplateBody=text)


def test_nested_template_is_not_transformed(emulator: Emulator) -> None:
    queue = {"Type": "AWS::Serverless::SimpleTable"}
    inner = {"Transform": "AWS::Serverless-2016-10-31", "Resources": {"Table": queue}}
    nested = {"Type": "AWS::CloudFormation::Stack", "Properties": {"TemplateURL": emulator.upload("inner.json", inner)}}
    with pytest.raises(AssertionError, match="AWS::Serverless::SimpleTable"):
        uncut(emulator, "nested", {"Resources": {"Inner": nested}})


# For each entry of OTHER_RESOURCES: the action, the resource in IAM, and a call.
REQUESTS: dict[str, tuple[str, str, Callable[[Any], Any]]] = {
    "ecs:": (
        "ecs:DescribeTasks",
        arn("ecs", "task/gap/1"),
        lambda ecs: ecs.describe_tasks(cluster="gap", tasks=["1"]),
    ),
    "events:DescribeRule": (
        "events:DescribeRule",
        arn("events", "rule/gap"),
        lambda events: events.describe_rule(Name="gap"),
    ),
    "events:ListTargetsByRule": (
        "events:ListTargetsByRule",
        arn("events", "rule/gap"),
        lambda events: events.list_targets_by_rule(Rule="gap"),
    ),
    "logs:GetLogEvents": (
        "logs:GetLogEvents",
        arn("logs", "log-group:/ecs/gap:log-stream:one"),
        lambda logs: logs.get_log_events(logGroupName="/ecs/gap", logStreamName="one"),
    ),
}


def keys_with(emulator: Emulator, statement: dict[str, Any]) -> dict[str, str]:
    """Creates a user whom one statement allows something, and returns its keys."""
    name = f"user-{uuid.uuid4()}"
    keys = emulator.user(name)
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow"} | statement]}
    emulator.client("iam").put_user_policy(UserName=name, PolicyName="one", PolicyDocument=json.dumps(policy))
    return keys


@pytest.mark.parametrize("row", OTHER_RESOURCES)
def test_action_is_authorized_on_another_resource(emulator: Emulator, row: str) -> None:
    action, resource, request = REQUESTS[row]
    keys = keys_with(emulator, {"Action": action, "Resource": resource})
    with pytest.raises(ClientError, match="AccessDenied"):
        request(emulator.client(action.split(":")[0], keys))


def test_requests_to_ecs_have_no_cluster_in_conditions(emulator: Emulator) -> None:
    condition = {"ArnEquals": {"ecs:cluster": arn("ecs", "cluster/gap")}}
    keys = keys_with(emulator, {"Action": "ecs:ListTasks", "Resource": "*", "Condition": condition})
    with pytest.raises(ClientError, match="AccessDenied"):
        emulator.client("ecs", keys).list_tasks(cluster="gap")


def test_container_credentials_belong_to_no_role(emulator: Emulator) -> None:
    """The reason why `containers/docker` creates the session of the task's role."""
    served = call("GET", f"{emulator.url}/v2/credentials/1")
    keys = {
        "AWS_ACCESS_KEY_ID": served["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": served["SecretAccessKey"],
        "AWS_SESSION_TOKEN": served["Token"],
    }
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        emulator.client("sts", keys).get_caller_identity()


def test_function_url_omits_the_caller(emulator: Emulator, example: dict[str, str]) -> None:
    """The reason why runners invoke runner-api directly: its URL identifies them by the session of their role."""
    lambda_, code = emulator.client("lambda"), io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("echo.py", "def handler(event, context):\n    return event['requestContext']\n")
    # Any role that is there.
    echo = {"FunctionName": "echo", "Runtime": "python3.13", "Role": example["PassRoleArns"].split(",")[0]}
    lambda_.create_function(**echo, Handler="echo.handler", Code={"ZipFile": code.getvalue()})
    url = lambda_.create_function_url_config(FunctionName="echo", AuthType="AWS_IAM")["FunctionUrl"]
    address = f"{emulator.address(url)}/"
    signed = urllib.request.Request(address, headers=signed_headers("GET", address, keys=ROOT_USER))
    with urllib.request.urlopen(signed) as answer:
        context = json.load(answer)
    assert context["http"]["method"] == "GET"
    assert "authorizer" not in context


def test_events_of_ecs_are_not_emitted(emulator: Emulator, example: dict[str, str]) -> None:
    """The reason for `EventBridge`."""
    events, sqs, ecs = emulator.client("events"), emulator.client("sqs"), emulator.client("ecs")
    queue = sqs.create_queue(QueueName="gap")["QueueUrl"]
    events.put_rule(Name="gap", EventPattern=json.dumps({"source": ["aws.ecs"]}))
    events.put_targets(Rule="gap", Targets=[{"Id": "queue", "Arn": arn("sqs", "gap")}])
    run_task = json.loads(example["Profiles"])["default"]["run_task"]
    [task] = ecs.run_task(cluster=example["ClusterArn"], **run_task)["tasks"]

    def stopped() -> bool:
        [found] = ecs.describe_tasks(cluster=example["ClusterArn"], tasks=[task["taskArn"]])["tasks"]
        return found["lastStatus"] == "STOPPED"

    try:
        until("the task has stopped", stopped)
        assert "Messages" not in sqs.receive_message(QueueUrl=queue)
    finally:
        events.remove_targets(Rule="gap", Ids=["queue"])
        events.delete_rule(Name="gap")
