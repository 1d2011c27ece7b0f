"""The policies of who deploys and who operates: enough for their work, and nothing of anybody else's."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import boto3
import botocore.client
import pytest
import redrive
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER
from policies import Call, Context, Statement, permits
from stacks import ACCOUNT, EVERY_OPTION, REGION, Stack, arn, packaged, template

PEOPLE = {"Deployment": "prod", "StackName": "bridge", "CodeBucket": "code", "KmsKeyArn": EVERY_OPTION["KmsKeyArn"]}
GROUPS = {
    "deployer": ("DeployerPolicy", "DeployerOperationsPolicy", "DeployerKeyPolicy"),
    "operator": ("OperatorPolicy", "OperatorKeyPolicy"),
}
# Of CloudFormation's own handlers, what is for properties that template.yaml does not use.
UNUSED = {
    "AWS::DynamoDB::Table": "BatchWriteItem DeleteItem GetItem PutItem Query Scan UpdateItem ImportTable DescribeImport "
    "AssociateTableReplica CreateTableReplica PutResourcePolicy DeleteResourcePolicy UpdateContributorInsights "
    "DisableKinesisStreamingDestination EnableKinesisStreamingDestination UpdateKinesisStreamingDestination",
    "AWS::IAM::ManagedPolicy": "AttachGroupPolicy AttachUserPolicy DetachGroupPolicy DetachUserPolicy",
    "AWS::Lambda::Function": "AssociateRuntimeAlias DeleteFunctionCodeSigningConfig GetCodeSigningConfig "
    "PassCapacityProvider PublishVersion PutFunctionCodeSigningConfig PutFunctionRecursionConfig PutFunctionScalingConfig",
    "AWS::Logs::LogGroup": "CreateLogDelivery DeleteDataProtectionPolicy DeleteIndexPolicy DeleteResourcePolicy "
    "PutBearerTokenAuthentication PutDataProtectionPolicy PutIndexPolicy PutLogGroupDeletionProtection PutResourcePolicy",
}
# Beside the resources: the stack, the code of the functions, the key.
FURTHER = {"cloudformation", "s3", "kms"}


@pytest.fixture
def granted(aws: None) -> dict[str, list[Statement]]:
    stack, iam = Stack(template("infra/people.yaml"), PEOPLE), boto3.client("iam")

    def statements(policy: str) -> list[Statement]:
        version = iam.get_policy_version(PolicyArn=stack.ids[policy], VersionId="v1")["PolicyVersion"]
        assert len(json.dumps(version["Document"], separators=(",", ":"))) <= 6_144
        return version["Document"]["Statement"]

    return {group: [each for policy in policies for each in statements(policy)] for group, policies in GROUPS.items()}


def actions(statements: list[Statement]) -> Iterator[str]:
    for statement in statements:
        yield from statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]


def needed() -> set[str]:
    """What CloudFormation calls in the deployer's name to make, change and remove the stack's resources."""
    calls = set()
    for kind in {resource["Type"] for resource in packaged()["Resources"].values()}:
        handlers = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, kind).schema["handlers"]
        service = kind.split("::")[1].lower()
        unused = {f"{service}:{action}" for action in UNUSED.get(kind, "").split()}
        handled = [handlers[name] for name in ("create", "read", "update", "delete") if name in handlers]
        named = {call for handler in handled for call in handler["permissions"]}
        assert unused <= named, f"{kind}: {unused - named}"
        calls |= {call for call in named if call.split(":")[0] == service or call == "iam:PassRole"} - unused
    return calls


def test_a_deployer_may_do_what_cloudformation_does_in_his_name_and_no_more(granted: dict[str, list[Statement]]) -> None:
    own = {action for action in actions(granted["deployer"]) if action.split(":")[0] not in FURTHER}
    assert own == needed()


@pytest.mark.parametrize(
    ("group", "action", "resource", "context"),
    [
        ("deployer", "lambda:UpdateFunctionCode", arn("lambda", "function:billing"), {}),
        ("deployer", "dynamodb:DeleteTable", arn("dynamodb", "table/billing"), {}),
        ("deployer", "iam:PutRolePolicy", f"arn:aws:iam::{ACCOUNT}:role/admin", {}),
        ("deployer", "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/admin", {"iam:PassedToService": "lambda.amazonaws.com"}),
        ("deployer", "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/bridge-a", {"iam:PassedToService": "ec2.amazonaws.com"}),
        ("deployer", "dynamodb:GetItem", arn("dynamodb", "table/bridge-Table-1"), {}),
        ("deployer", "ecs:RunTask", arn("ecs", "task-definition/etl:1"), {}),
        ("deployer", "kms:Decrypt", EVERY_OPTION["KmsKeyArn"], {}),
        ("operator", "lambda:UpdateFunctionCode", arn("lambda", "function:prod-submit"), {}),
        ("operator", "lambda:InvokeFunction", arn("lambda", "function:prod-submit"), {}),
        ("operator", "lambda:InvokeFunctionUrl", arn("lambda", "function:prod-submit"), {}),
        ("operator", "dynamodb:UpdateItem", arn("dynamodb", "table/bridge-Table-1"), {}),
        ("operator", "dynamodb:UpdateItem", arn("dynamodb", "table/bridge-Table-1"), {"dynamodb:LeadingKeys": ["submission"]}),
        ("operator", "dynamodb:Query", arn("dynamodb", "table/billing"), {}),
        ("operator", "dynamodb:Scan", arn("dynamodb", "table/bridge-Table-1"), {}),
        ("operator", "ecs:RunTask", arn("ecs", "task-definition/etl:1"), {}),
        ("operator", "sqs:ReceiveMessage", arn("sqs", "billing"), {}),
        ("operator", "kms:Decrypt", EVERY_OPTION["KmsKeyArn"], {}),
    ],
)
def test_what_belongs_to_others_is_refused(
    granted: dict[str, list[Statement]], group: str, action: str, resource: str, context: Context
) -> None:
    assert not permits(granted[group], Call(group, action, resource, context))


def test_an_operator_may_change_pools(granted: dict[str, list[Statement]]) -> None:
    of_a_pool: Context = {"dynamodb:LeadingKeys": ["#pool/etl"]}
    table = arn("dynamodb", "table/bridge-Table-1")
    assert permits(granted["operator"], Call("operator", "dynamodb:UpdateItem", table, of_a_pool))


def test_an_operator_may_make_every_call_of_a_redrive(
    granted: dict[str, list[Statement]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs = boto3.client("sqs")
    queue = sqs.create_queue(QueueName="bridge-EventDeadLetters-1")["QueueUrl"]
    for body in ('{"detail": {}}', "not an event"):
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    body = {
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {"EventDeadLettersUrl": {"Value": queue}, "TaskStateFunctionName": {"Value": "prod-task-state"}},
    }
    boto3.client("cloudformation").create_stack(StackName="bridge", TemplateBody=json.dumps(body))
    called: set[str] = set()
    call = botocore.client.BaseClient._make_api_call

    def recorded(self: botocore.client.BaseClient, operation: str, parameters: dict[str, object]) -> object:
        service = self.meta.service_model.service_name
        called.add(f"{service}:{'InvokeFunction' if operation == 'Invoke' else operation}")
        return {} if operation == "Invoke" else call(self, operation, parameters)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", recorded)
    monkeypatch.setattr(sys, "argv", ["redrive.py", "--stack-name", "bridge"])
    assert redrive.main() == 1
    resources = {
        "cloudformation": arn("cloudformation", "stack/bridge/1"),
        "sqs": arn("sqs", "bridge-EventDeadLetters-1"),
        "lambda": arn("lambda", "function:prod-task-state"),
    }
    assert {each.split(":")[0] for each in called} == resources.keys()
    refused = [each for each in called if not permits(granted["operator"], Call("o", each, resources[each.split(":")[0]]))]
    assert not refused
    decrypt = Call("o", "kms:Decrypt", EVERY_OPTION["KmsKeyArn"], {"kms:ViaService": f"sqs.{REGION}.amazonaws.com"})
    assert permits(granted["operator"], decrypt)
