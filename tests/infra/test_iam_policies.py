"""The policies for deployers and operators allow their work, and nothing that belongs to others."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import botocore.client
import pytest
import redrive
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER
from policies import Call, Context, Statement, permits
from release_template import released
from stacks import EVERY_OPTION, NO_URLS, ROOT, Stack, packaged, template

from cloudformation import ACCOUNT, REGION, ResolvedTemplate, arn
from documents import DOCS, section

PEOPLE = {"Deployment": "prod", "StackName": "bridge", "CodeBucket": "code", "KmsKeyArn": EVERY_OPTION["KmsKeyArn"]}
GROUPS = {
    "deployer": ("DeployerPolicy", "DeployerOperationsPolicy", "DeployerAlarmsPolicy", "DeployerKeyPolicy"),
    "operator": ("OperatorPolicy", "OperatorViewPolicy", "OperatorKeyPolicy"),
    "restorer": ("RestorePolicy", "RestoreKeyPolicy"),
}
# Permissions of CloudFormation's handlers for properties that template.yaml does not use.
UNUSED = {
    "AWS::DynamoDB::Table": "BatchWriteItem DeleteItem GetItem PutItem Query Scan UpdateItem ImportTable "
    "DescribeImport AssociateTableReplica CreateTableReplica PutResourcePolicy DeleteResourcePolicy "
    "UpdateContributorInsights DisableKinesisStreamingDestination EnableKinesisStreamingDestination "
    "UpdateKinesisStreamingDestination",
    "AWS::IAM::ManagedPolicy": "AttachGroupPolicy AttachUserPolicy DetachGroupPolicy DetachUserPolicy",
    "AWS::Lambda::Function": "AssociateRuntimeAlias DeleteFunctionCodeSigningConfig GetCodeSigningConfig "
    "PassCapacityProvider PublishVersion PutFunctionCodeSigningConfig PutFunctionRecursionConfig "
    "PutFunctionScalingConfig",
    "AWS::Logs::LogGroup": "CreateLogDelivery DeleteDataProtectionPolicy DeleteIndexPolicy DeleteResourcePolicy "
    "PutBearerTokenAuthentication PutDataProtectionPolicy PutIndexPolicy PutLogGroupDeletionProtection "
    "PutResourcePolicy",
}
# Beside the resources: the stack, the code of the functions, the key.
FURTHER = {"cloudformation", "s3", "kms"}


@pytest.fixture
def granted(aws: None) -> dict[str, list[Statement]]:
    stack, iam = Stack(template("infra/iam-policies.yaml"), PEOPLE), boto3.client("iam")

    def statements(policy: str) -> list[Statement]:
        version = iam.get_policy_version(PolicyArn=stack.ids[policy], VersionId="v1")["PolicyVersion"]
        assert len(json.dumps(version["Document"], separators=(",", ":"))) <= 6_144
        return version["Document"]["Statement"]

    return {group: [each for policy in policies for each in statements(policy)] for group, policies in GROUPS.items()}


def actions(statements: list[Statement]) -> Iterator[str]:
    for statement in statements:
        yield from statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]


def needed() -> set[str]:
    """The calls that CloudFormation makes as the deployer to create, update and delete the stack's resources."""
    calls = set()
    for kind in {resource["Type"] for resource in packaged()["Resources"].values()}:
        handlers = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, kind).schema["handlers"]
        service = kind.split("::")[1].lower()
        unused = {f"{service}:{action}" for action in UNUSED.get(kind, "").split()}
        handled = [handlers[name] for name in ("create", "read", "update", "delete") if name in handlers]
        named = {call for handler in handled for call in handler["permissions"]}
        assert unused <= named, f"{kind}: {unused - named}"
        calls |= {call for call in named if call.split(":")[0] in (service, "ec2") or call == "iam:PassRole"} - unused
    return calls


def test_deployer_has_exactly_the_permissions_of_cloudformation(
    granted: dict[str, list[Statement]],
) -> None:
    own = {action for action in actions(granted["deployer"]) if action.split(":")[0] not in FURTHER}
    assert own == needed()


@pytest.mark.parametrize(
    ("group", "action", "resource", "context"),
    [
        ("deployer", "lambda:UpdateFunctionCode", arn("lambda", "function:billing"), {}),
        ("deployer", "dynamodb:DeleteTable", arn("dynamodb", "table/billing"), {}),
        ("deployer", "iam:PutRolePolicy", f"arn:aws:iam::{ACCOUNT}:role/admin", {}),
        (
            "deployer",
            "iam:PassRole",
            f"arn:aws:iam::{ACCOUNT}:role/admin",
            {"iam:PassedToService": "lambda.amazonaws.com"},
        ),
        (
            "deployer",
            "iam:PassRole",
            f"arn:aws:iam::{ACCOUNT}:role/bridge-a",
            {"iam:PassedToService": "ec2.amazonaws.com"},
        ),
        ("deployer", "dynamodb:GetItem", arn("dynamodb", "table/bridge-Table-1"), {}),
        ("deployer", "ecs:RunTask", arn("ecs", "task-definition/etl:1"), {}),
        ("deployer", "kms:Decrypt", EVERY_OPTION["KmsKeyArn"], {}),
        ("operator", "lambda:UpdateFunctionCode", arn("lambda", "function:prod-submit"), {}),
        ("operator", "lambda:InvokeFunction", arn("lambda", "function:prod-submit"), {}),
        ("operator", "lambda:InvokeFunctionUrl", arn("lambda", "function:prod-submit"), {}),
        ("operator", "dynamodb:PutItem", arn("dynamodb", "table/prod-restored"), {}),
        ("operator", "dynamodb:UpdateItem", arn("dynamodb", "table/bridge-Table-1"), {}),
        (
            "operator",
            "dynamodb:UpdateItem",
            arn("dynamodb", "table/bridge-Table-1"),
            {"dynamodb:LeadingKeys": ["submission"]},
        ),
        ("operator", "dynamodb:Query", arn("dynamodb", "table/billing"), {}),
        ("operator", "dynamodb:Scan", arn("dynamodb", "table/bridge-Table-1"), {}),
        ("operator", "ecs:RunTask", arn("ecs", "task-definition/etl:1"), {}),
        ("operator", "sqs:ReceiveMessage", arn("sqs", "billing"), {}),
        ("operator", "kms:Decrypt", EVERY_OPTION["KmsKeyArn"], {}),
        ("restorer", "dynamodb:UpdateItem", arn("dynamodb", "table/bridge-Table-1"), {}),
        ("restorer", "dynamodb:RestoreTableToPointInTime", arn("dynamodb", "table/billing"), {}),
        ("restorer", "lambda:PutFunctionConcurrency", arn("lambda", "function:prod-submit"), {}),
    ],
)
def test_resources_of_others_are_denied(
    granted: dict[str, list[Statement]], group: str, action: str, resource: str, context: Context
) -> None:
    assert not permits(granted[group], Call(group, action, resource, context))


# --- Names ---------------------------------------------------------------------------------------

# The maximum length of each name. CloudFormation generates STACK-LogicalId-RANDOM, and truncates longer names.
LONGEST = {
    "AWS::DynamoDB::Table": 255,
    "AWS::IAM::ManagedPolicy": 128,
    "AWS::IAM::Role": 64,
    "AWS::SQS::Queue": 80,
}
RANDOM = "1ABCDEFGHIJKL"


def of(deployment: str, stack: str, **parameters: str) -> dict[str, list[Statement]]:
    """The statements of each group, as CloudFormation resolves them."""
    given = PEOPLE | {"Deployment": deployment, "StackName": stack} | parameters
    policies = ResolvedTemplate(template("infra/iam-policies.yaml"), given).resources
    return {
        group: [
            each for policy in named if policy in policies for each in policies[policy]["PolicyDocument"]["Statement"]
        ]
        for group, named in GROUPS.items()
    }


def resources(deployment: str, stack: str) -> Iterator[tuple[str, str]]:
    """Type and ARN of each resource of the bridge's stack. IAM checks a log group with and without `:*`."""
    bridge = ResolvedTemplate(packaged(), EVERY_OPTION | {"Deployment": deployment})

    def named(kind: str, logical_id: str) -> str:
        if kind not in LONGEST:
            name = bridge.name(logical_id)
            assert name.startswith(deployment) or f"/{deployment}-" in name, f"{kind} {logical_id} has a generated name"
            return name
        name = f"{stack}-{logical_id}-{RANDOM}"
        assert len(name) <= LONGEST[kind], f"CloudFormation cuts {name}"
        return name

    for logical_id, properties in bridge.resources.items():
        match bridge.type_of(logical_id):
            case "AWS::CloudWatch::Alarm" as kind:
                yield kind, arn("cloudwatch", f"alarm:{properties['AlarmName']}")
            case "AWS::CloudWatch::Dashboard" as kind:
                yield kind, f"arn:aws:cloudwatch::{ACCOUNT}:dashboard/{properties['DashboardName']}"
            case "AWS::DynamoDB::Table" as kind:
                yield kind, arn("dynamodb", f"table/{named(kind, logical_id)}")
            case "AWS::Events::Rule" as kind:
                yield kind, arn("events", f"rule/{properties['Name']}")
            case "AWS::IAM::Role" as kind:
                yield kind, f"arn:aws:iam::{ACCOUNT}:role/{named(kind, logical_id)}"
            case "AWS::IAM::ManagedPolicy" as kind:
                yield kind, f"arn:aws:iam::{ACCOUNT}:policy/{named(kind, logical_id)}"
            case "AWS::Lambda::Function" as kind:
                for each in (kind, "AWS::Lambda::EventInvokeConfig", "AWS::Lambda::Permission", "AWS::Lambda::Url"):
                    yield each, arn("lambda", f"function:{properties['FunctionName']}")
            case "AWS::Logs::LogGroup" as kind:
                yield kind, arn("logs", f"log-group:{properties['LogGroupName']}")
                yield kind, arn("logs", f"log-group:{properties['LogGroupName']}:*")
            case "AWS::SQS::Queue" as kind:
                yield kind, arn("sqs", named(kind, logical_id))
                yield "AWS::SQS::QueuePolicy", arn("sqs", named(kind, logical_id))
            case "AWS::Scheduler::Schedule" as kind:
                yield kind, arn("scheduler", f"schedule/default/{properties['Name']}")
            case "AWS::Lambda::EventInvokeConfig" | "AWS::Lambda::Permission" | "AWS::Lambda::Url":
                pass
            case "AWS::SQS::QueuePolicy" | "AWS::Logs::QueryDefinition":
                pass
            case kind:
                raise NotImplementedError(kind)


def test_longest_stack_name_is_truncated_in_no_name() -> None:
    parameter = template("infra/iam-policies.yaml")["Parameters"]["StackName"]
    longest = max(length for length in range(1, 129) if re.fullmatch(parameter["AllowedPattern"], "s" * length))
    assert list(resources("d" * 32, "s" * longest))
    assert re.fullmatch(parameter["AllowedPattern"], "ecs-bridge-prod")
    assert "36" in parameter["ConstraintDescription"]


@pytest.mark.parametrize(
    ("deployment", "stack"), [("ecs-bridge", "ecs-bridge"), ("d" * 32, "s" * 36), ("prod", "bridge")]
)
def test_deployer_may_manage_every_resource_of_the_stack(deployment: str, stack: str) -> None:
    granted = of(deployment, stack)["deployer"]
    refused = []
    for kind, resource in resources(deployment, stack):
        handlers = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, kind).schema["handlers"]
        service = kind.split("::")[1].lower()
        calls = {
            call
            for name in ("create", "read", "update", "delete")
            for call in handlers.get(name, {}).get("permissions", [])
        }
        calls -= {f"{service}:{action}" for action in UNUSED.get(kind, "").split()}
        for call in calls:
            if call.split(":")[0] == service and call not in ("lambda:GetLayerVersion", "iam:PassRole"):
                # A policy is attached to a role, and IAM is asked about that.
                of_a_role = kind == "AWS::IAM::ManagedPolicy" and call.endswith("RolePolicy")
                if not of_a_role and not permits(granted, Call("deployer", call, resource)):
                    refused.append(f"{call} on {resource}")
    assert not refused


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("ecs-bridge", "ecs-bridge-prod"),
        ("ecs-bridge", "ecs-bridge-submit"),
        ("dev", "dev-2"),
        ("prod", "prod-task-state"),
    ],
)
def test_deployment_with_same_prefix_is_denied(ours: str, theirs: str) -> None:
    granted = of(ours, ours)
    others = [*resources(theirs, theirs), ("AWS::DynamoDB::Table", arn("dynamodb", f"table/{theirs}-restored"))]
    wrong = []
    for group, statements in granted.items():
        for statement in statements:
            # IAM defines no resource for these actions, so every deployment has the same grant.
            if statement["Resource"] == "*" or statement["Sid"] in ("ContainerLogs", "ProfilesLayer"):
                continue
            for _, resource in others:
                bare = {name: value for name, value in statement.items() if name != "Condition"}
                wrong += [
                    f"{group}/{statement['Sid']}: {action} on {resource}"
                    for action in actions([statement])
                    if permits([bare], Call(group, action, resource))
                ]
    assert not wrong


def test_key_encrypts_only_log_groups_of_its_deployment() -> None:
    key = ResolvedTemplate(template("infra/key.yaml"), {"Deployment": "dev"}).resources["Key"]["KeyPolicy"]["Statement"]
    (logs,) = [each for each in key if each["Sid"] == "LogGroups"]
    bridge = ResolvedTemplate(packaged(), EVERY_OPTION | {"Deployment": "dev"})
    groups = {each["LogGroupName"] for each in bridge.of_type("AWS::Logs::LogGroup").values()}
    (condition,) = logs["Condition"].values()
    assert set(condition["kms:EncryptionContext:aws:logs:arn"]) == {
        arn("logs", f"log-group:{group}") for group in groups
    }


def test_policies_with_longest_names_fit_the_quota() -> None:
    given = PEOPLE | {"Deployment": "d" * 32, "StackName": "s" * 36, "RestoredTable": "r" * 255, "CodeBucket": "b" * 63}
    deployed = ResolvedTemplate(template("infra/iam-policies.yaml"), given)
    for name, policy in deployed.resources.items():
        text = json.dumps(policy["PolicyDocument"], separators=(",", ":"))
        # A Region and a partition may be as long as in us-gov-west-1.
        longer = len("aws-us-gov") - len("aws") + len("ap-southeast-7") - len(REGION)
        assert len(text) + longer * text.count("arn:aws:") <= 6_144, name


# --- Tasks of operators --------------------------------------------------------------------------


@pytest.mark.parametrize("with_urls", ["true", "false"])
def test_operator_may_submit_with_and_without_urls(with_urls: str) -> None:
    granted, submit = of("prod", "bridge", FunctionUrl=with_urls)["operator"], arn("lambda", "function:prod-submit")
    by_url: Context = {"lambda:InvokedViaFunctionUrl": "true"}
    assert permits(granted, Call("operator", "lambda:InvokeFunction", submit, by_url))
    # By Lambda's API, as `ecs-bridge submit` and `stop` do where there is no URL.
    assert permits(granted, Call("operator", "lambda:InvokeFunction", submit)) == (with_urls == "false")
    executor = ResolvedTemplate(packaged(), NO_URLS | {"FunctionUrl": with_urls}).resources["ExecutorPolicy"]
    (theirs,) = [each for each in executor["PolicyDocument"]["Statement"] if each["Sid"] == "SubmitThroughUrl"]
    (ours,) = [each for each in granted if each["Sid"] == "ApiThroughUrl"]
    assert ours.get("Condition") == theirs.get("Condition")


@pytest.mark.parametrize("given", ["", "rescued"])
def test_operator_may_read_a_restored_table(given: str) -> None:
    granted, table = of("prod", "bridge", RestoredTable=given)["operator"], given or "prod-restored"
    reads = [("DescribeTable", ""), ("GetItem", ""), ("BatchGetItem", ""), ("Query", "/index/due")]
    for action, index in reads:
        assert permits(granted, Call("operator", f"dynamodb:{action}", arn("dynamodb", f"table/{table}{index}")))
    pool: Context = {"dynamodb:LeadingKeys": ["#pool/etl"]}
    assert permits(granted, Call("operator", "dynamodb:UpdateItem", arn("dynamodb", f"table/{table}"), pool))


def test_restorer_may_run_every_documented_command() -> None:
    granted = of("prod", "bridge")["restorer"]
    guide = section(DOCS / "operating.md", "## Restoring the table")
    text = guide.replace("\\\n", " ").replace("$(out TableName)", "bridge-Table-1").replace("$DEPLOYMENT", "prod")
    asked = []
    for command in re.findall(r"^aws (?:lambda|dynamodb) .*|`(?:aws (?:lambda|dynamodb) [^`]*)", text, re.MULTILINE):
        _, service, name, *rest = shlex.split(command.strip("`"))
        action = {"wait": "DescribeTable"}.get(name, "".join(word.capitalize() for word in name.split("-")))
        flags = dict(itertools.pairwise(rest))
        names = [f"function:{flags['--function-name']}"] if service == "lambda" else []
        names += [
            f"table/{flags[flag]}"
            for flag in ("--table-name", "--source-table-name", "--target-table-name")
            if flag in flags
        ]
        asked += [Call("restorer", f"{service}:{action}", arn(service, name)) for name in names]
    # DynamoDB copies the items in the caller's name.
    copies = ["BatchWriteItem", "DeleteItem", "GetItem", "PutItem", "Query", "Scan", "UpdateItem"]
    asked += [Call("restorer", f"dynamodb:{action}", arn("dynamodb", "table/prod-restored")) for action in copies]
    assert {"lambda:DeleteFunctionConcurrency", "dynamodb:RestoreTableToPointInTime"} <= {call.action for call in asked}
    assert not [str(call) for call in asked if not permits(granted, call)]


def test_documented_bucket_flags_work_with_samconfig(tmp_path: Path) -> None:
    """SAM refuses --s3-bucket where samconfig.toml has it find a bucket."""
    guide = (ROOT / "docs/deploying.md").read_text()
    (flags,) = set(re.findall(r"`sam deploy (--[^`]*--s3-bucket) \$BUCKET`", guide))
    assert f"sam deploy {flags}" in template("infra/iam-policies.yaml")["Parameters"]["CodeBucket"]["Description"]
    for name in ("submit", "task-state", "reconcile", "runner-api"):
        zip_file = tmp_path / f"x86_64/{name}.zip"
        zip_file.parent.mkdir(exist_ok=True)
        zip_file.touch()
    (tmp_path / "template.yaml").write_text(released((ROOT / "template.yaml").read_text(), "x86_64"))
    shutil.copy(ROOT / "samconfig.toml", tmp_path)
    (tmp_path / "parameters.yaml").write_text("Deployment: ecs-bridge\n")
    command = [
        Path(sys.executable).with_name("sam"),
        "deploy",
        "--s3-bucket",
        "code",
        "--template-file",
        "template.yaml",
    ]

    def deploys(*further: str) -> str:
        # Nothing listens at this address. The test checks which step fails.
        environment = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1", "AWS_ACCESS_KEY_ID": "x"}
        environment |= {
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": REGION,
            "HOME": str(tmp_path),
            "PATH": "/usr/bin:/bin",
        }
        environment |= {"SAM_CLI_TELEMETRY": "0"}
        done = subprocess.run(
            [*command, *further], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        return done.stdout + done.stderr

    assert "both --resolve-s3 and --s3-bucket" in deploys()
    assert "127.0.0.1:9" in deploys(*flags.split()[:-1])


def test_operator_may_change_pools(granted: dict[str, list[Statement]]) -> None:
    of_a_pool: Context = {"dynamodb:LeadingKeys": ["#pool/etl"]}
    table = arn("dynamodb", "table/bridge-Table-1")
    assert permits(granted["operator"], Call("operator", "dynamodb:UpdateItem", table, of_a_pool))


def test_operator_may_make_every_call_of_a_redrive(
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
    places = {
        "cloudformation": arn("cloudformation", "stack/bridge/1"),
        "sqs": arn("sqs", "bridge-EventDeadLetters-1"),
        "lambda": arn("lambda", "function:prod-task-state"),
    }
    assert {each.split(":")[0] for each in called} == places.keys()
    refused = [each for each in called if not permits(granted["operator"], Call("o", each, places[each.split(":")[0]]))]
    assert not refused
    decrypt = Call("o", "kms:Decrypt", EVERY_OPTION["KmsKeyArn"], {"kms:ViaService": f"sqs.{REGION}.amazonaws.com"})
    assert permits(granted["operator"], decrypt)
