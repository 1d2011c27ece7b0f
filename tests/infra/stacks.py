"""The templates as AWS would see them: after the SAM transform, and created in moto's CloudFormation."""

from __future__ import annotations

import copy
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import tomllib
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

from cloudformation import ACCOUNT, REGION, arn

ROOT = Path(__file__).resolve().parents[2]

os.environ.update(
    AWS_DEFAULT_REGION=REGION, AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing", SAM_CLI_TELEMETRY="0"
)

CODE_BUCKET, CODE_KEY = "code", "function.zip"


def pinned(group: str, package: str) -> str:
    """The version of a package in an environment of tests."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    [version] = [each.removeprefix(f"{package}==") for each in groups[group] if str(each).startswith(f"{package}==")]
    return version


PARAMETERS = {
    "Deployment": "prod",
    "ClusterArn": arn("ecs", "cluster/jobs"),
    "TaskDefinitionArns": f"{arn('ecs', 'task-definition/etl:*')},{arn('ecs', 'task-definition/report:*')}",
    "PassRoleArns": f"arn:aws:iam::{ACCOUNT}:role/etl-task,arn:aws:iam::{ACCOUNT}:role/ecs-execution",
    "Profiles": json.dumps({"default": {"container_name": "main", "run_task": {"taskDefinition": "etl"}}}),
}

# For callers and runners that invoke the functions.
NO_URLS = PARAMETERS | {"FunctionUrl": "false"}

EVERY_OPTION = PARAMETERS | {
    "Profiles": "",
    "ProfilesLayerArn": arn("lambda", "layer:profiles:1"),
    "Architecture": "arm64",
    "SubmitConcurrency": "50",
    "TaskStateConcurrency": "100",
    "KmsKeyArn": arn("kms", "key/11111111-2222-3333-4444-555555555555"),
    "AlarmTopicArn": arn("sns", "oncall"),
    "PermissionsBoundaryArn": f"arn:aws:iam::{ACCOUNT}:policy/boundary",
    "SubnetIds": "subnet-11111111,subnet-22222222",
    "SecurityGroupIds": "sg-11111111",
    "MoreClusterArns": f"{arn('ecs', 'cluster/batch')},{arn('ecs', 'cluster/gpu')}",
    "InfrastructureRoleArns": f"arn:aws:iam::{ACCOUNT}:role/ecs-volumes",
    "RunnerRoleArns": f"arn:aws:iam::{ACCOUNT}:role/etl-*",
    "TaskTokens": "true",
    "EventBusArns": arn("events", "event-bus/default"),
    "CallerPrincipalArns": "arn:aws:iam::210987654321:role/airflow-scheduler",
}


@cache
def parsed(text: str) -> dict[str, Any]:
    return yaml_parse(text)


def template(name: str = "template.yaml") -> dict[str, Any]:
    """A template as it is written, short-form intrinsics spelt out; the caller's own copy."""
    return copy.deepcopy(parsed((ROOT / name).read_text()))


def packaged(text: str | None = None) -> dict[str, Any]:
    """template.yaml, or another text of it, after `sam package` and the SAM transform; the caller's own copy."""
    return copy.deepcopy(transformed(text or (ROOT / "template.yaml").read_text()))


@cache
def transformed(text: str) -> dict[str, Any]:
    source = copy.deepcopy(parsed(text))
    source["Globals"]["Function"]["CodeUri"] = f"s3://{CODE_BUCKET}/{CODE_KEY}"
    defaults = {
        name: parameter["Default"] for name, parameter in source["Parameters"].items() if "Default" in parameter
    }
    # No policy of AWS's own is attached to anything, so there is none to load.
    return transform(source, defaults | PARAMETERS, managed_policy_loader=None)


class Stack:
    """A stack in moto, with the physical IDs of its resources."""

    def __init__(self, body: dict[str, Any], parameters: dict[str, str], name: str = "test") -> None:
        body = copy.deepcopy(body)
        # moto's CloudFormation cannot create function URLs and alarms, and fails on outputs that refer to them.
        body["Outputs"].pop("SubmitUrl", None)
        body["Outputs"].pop("RunnerApiUrl", None)
        with_urls = parameters.get("FunctionUrl") != "false"
        for function in {"SubmitFunction", "ReconcileFunction"} & body["Resources"].keys() if with_urls else ():
            variables = body["Resources"][function]["Properties"]["Environment"]["Variables"]
            variables["ECS_BRIDGE_RUNNER_API_URL"] = "https://work.lambda-url.example"
        body["Outputs"].pop("RollbackConfiguration", None)
        for policy in (
            {"ExecutorPolicy", "AirflowUiPolicy"} & body["Resources"].keys() if not parameters.get("KmsKeyArn") else ()
        ):
            # It also leaves AWS::NoValue in a list, where CloudFormation leaves the item out.
            document = body["Resources"][policy]["Properties"]["PolicyDocument"]
            document["Statement"] = [statement for statement in document["Statement"] if "Fn::If" not in statement]
        client = boto3.client("cloudformation")
        client.create_stack(
            StackName=name,
            TemplateBody=json.dumps(body),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            Capabilities=["CAPABILITY_IAM"],
        )
        resources = client.describe_stack_resources(StackName=name)["StackResources"]
        # Resources that moto cannot create have no names.
        self.ids = {
            resource["LogicalResourceId"]: resource["PhysicalResourceId"]
            for resource in resources
            if resource.keys() >= {"LogicalResourceId", "PhysicalResourceId"}
        }
        stack = client.describe_stacks(StackName=name)["Stacks"][0]
        self.status = stack["StackStatus"]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
