"""infra/airflow-on-fargate/template.yaml in moto, without the nested bridge and without resources that moto does not
support."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import boto3
from moto import mock_aws

# Tests of another environment run this file as a program.
sys.path.append(str(Path(__file__).parents[1] / "lib"))
from stacks import Stack, template

from cloudformation import ACCOUNT, arn, rewritten

PATH = "infra/airflow-on-fargate/template.yaml"
PARAMETERS = {"Name": "data", "Repository": "airflow", "ImageTag": "1", "AllowedCidr": "192.0.2.0/24"}
WITH_CERTIFICATE = PARAMETERS | {
    "CertificateArn": "asked for",
    "DomainName": "airflow.example.com",
    "DagBucket": "dags",
}

# The outputs of the nested stack.
BRIDGE = {
    "SubmitUrl": "https://submit.lambda-url.us-east-1.on.aws",
    "TableName": "bridge-table",
    "AirflowUiPolicyArn": f"arn:aws:iam::{ACCOUNT}:policy/page",
    "ExecutorPolicyArn": f"arn:aws:iam::{ACCOUNT}:policy/executor",
}
# moto 5.2 has no CloudFormation for these: nothing here shows that AWS takes them as they are written.
BEYOND_MOTO = {
    "AWS::ApplicationAutoScaling::ScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy",
    "AWS::S3::BucketPolicy",
    "AWS::SecretsManager::Secret",
    "AWS::ServiceDiscovery::PrivateDnsNamespace",
    "AWS::ServiceDiscovery::Service",
}
# It creates these, and does not name them.
NAMELESS = {"AWS::EC2::SecurityGroupIngress", "AWS::EFS::AccessPoint", "AWS::RDS::DBSubnetGroup"}
NESTED = "AWS::CloudFormation::Stack"


# Replaces the name that moto uses.
ACCESS_POINT = "fsap-0a1b2c3d"


def secret(logical_id: str) -> str:
    """The ARN of a secret, as Secrets Manager makes them."""
    return arn("secretsmanager", f"secret:{logical_id}-a1b2c3")


def supported_template() -> dict[str, Any]:
    """The template without resources that moto cannot create. References to them are replaced by names."""
    body = template(PATH)
    resources = body["Resources"]
    gone = {name: each["Type"] for name, each in resources.items() if each["Type"] in BEYOND_MOTO | {NESTED}}

    def named(value: Any) -> Any:
        match value:
            case {"Ref": str(name)} if gone.get(name) == "AWS::SecretsManager::Secret":
                return secret(name)
            case {"Ref": str(name)} if name in gone:
                return name
            case {"Ref": "SharedAccessPoint"}:
                return ACCESS_POINT
            case {"Fn::GetAtt": ["Bridge", str(output)]}:
                return BRIDGE[output.removeprefix("Outputs.")]
            case {"Fn::GetAtt": [str(name), str(attribute)]} if name in gone:
                return f"{name}.{attribute}"
            case {"Fn::Sub": str(text)}:
                for name in gone:
                    text = text.replace(f"${{{name}}}", secret(name))
                # moto reads an attribute's name up to its first dot.
                text = text.replace("${Database.Endpoint.Address}", "database.example")
                text = text.replace("${Database.Endpoint.Port}", "5432")
                return {"Fn::Sub": text.replace("${SharedAccessPoint}", ACCESS_POINT)}
        return value

    body = rewritten(body, named)
    # The parameters of the bridge, for the tests.
    for name, value in body["Resources"]["Bridge"]["Properties"]["Parameters"].items():
        body["Outputs"][f"Bridge{name}"] = {"Value": value}
    for name in gone:
        del body["Resources"][name]
    for resource in body["Resources"].values():
        depends = resource.get("DependsOn", [])
        resource["DependsOn"] = [
            each for each in ([depends] if isinstance(depends, str) else depends) if each not in gone
        ]
        if resource["Type"] == "AWS::ECS::Service":
            resource["Properties"].pop("ServiceRegistries", None)
    return body


def create(parameters: dict[str, str] = PARAMETERS) -> Stack:
    if "CertificateArn" in parameters:
        certificate = boto3.client("acm").request_certificate(DomainName=parameters["DomainName"])
        parameters = parameters | {"CertificateArn": certificate["CertificateArn"]}
    return Stack(supported_template(), parameters, name=f"airflow-{parameters['Name']}")


def parts(parameters: dict[str, str]) -> dict[str, Any]:
    """What a test needs to run it elsewhere: container definitions by family, what the bridge is told, how secrets are
    generated."""
    with mock_aws():
        stack = create(parameters)
        ecs = boto3.client("ecs")
        containers = {}
        for family in ecs.list_task_definition_families()["families"]:
            definition = ecs.describe_task_definition(taskDefinition=family)["taskDefinition"]
            (containers[family.removeprefix(f"{parameters['Name']}-")],) = definition["containerDefinitions"]
    resources = template(PATH)["Resources"]
    rules = {name: each["Properties"].get("GenerateSecretString") for name, each in resources.items()}
    task = resources["WorkerTask"]["Properties"]
    return {
        "containers": containers,
        "bridge": {
            name.removeprefix("Bridge"): value for name, value in stack.outputs.items() if name.startswith("Bridge")
        },
        "log_bucket": stack.outputs["LogBucketName"],
        "secrets": {name: rule for name, rule in rules.items() if rule},
        # moto forgets them.
        "task": {
            name[0].lower() + name[1:]: task[name]
            for name in ("NetworkMode", "RequiresCompatibilities", "Cpu", "Memory")
        },
    }


if __name__ == "__main__":
    # For tests in another environment: fargate.py NAME=VALUE... prints the parts as JSON.
    print(json.dumps(parts(PARAMETERS | dict(argument.split("=", 1) for argument in sys.argv[1:]))))
