"""The templates pass linters, the SAM transform and moto's CloudFormation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import fargate
import pytest
import tomllib
from stacks import EVERY_OPTION, NO_URLS, PARAMETERS, ROOT, Stack, packaged, template

from cloudformation import ResolvedTemplate, arn
from documents import DOCS, code, table_rows

TEMPLATES = [
    "template.yaml",
    "infra/example.yaml",
    "infra/key.yaml",
    "infra/iam-policies.yaml",
    "infra/private.yaml",
    "infra/state-machines.yaml",
    fargate.PATH,
]

ALARM = "AWS::CloudWatch::Alarm"
# moto 5.2 has no CloudFormation for these: nothing here shows that AWS takes them as they are written.
BEYOND_MOTO = {
    ALARM,
    "AWS::KMS::Alias",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::Url",
    "AWS::Logs::QueryDefinition",
    "AWS::SQS::QueuePolicy",
    "AWS::Scheduler::Schedule",
}
# It creates these, and does not name them.
NAMELESS = {"AWS::Lambda::Permission"}


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


# Each of these takes longer to start than to look at a template.


def test_sam_accepts_the_template() -> None:
    run(tool("sam"), "validate", "--template-file", "template.yaml")


def test_cfn_lint_reports_nothing() -> None:
    run(tool("cfn-lint"), *TEMPLATES)


def test_checkov_reports_no_unjustified_finding() -> None:
    checkov = ROOT / ".venv-checkov/bin/checkov"
    run(str(checkov), "--framework", "cloudformation", "--skip-download", "--compact", "--quiet", "--file", *TEMPLATES)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_suppression_has_a_reason(name: str) -> None:
    for logical_id, resource in template(name)["Resources"].items():
        for skip in resource.get("Metadata", {}).get("checkov", {}).get("skip", []):
            assert len(skip["comment"].split()) > 4, f"{logical_id}: {skip}"


@pytest.mark.parametrize(
    ("body", "parameters"),
    [
        pytest.param(packaged(), PARAMETERS, id="bridge-defaults"),
        pytest.param(packaged(), EVERY_OPTION, id="bridge-every-option"),
        pytest.param(packaged(), NO_URLS, id="bridge-without-urls"),
        pytest.param(template("infra/example.yaml"), {}, id="example"),
        pytest.param(template("infra/key.yaml"), {}, id="key"),
    ],
)
def test_moto_creates_every_supported_resource(aws: None, body: dict[str, Any], parameters: dict[str, str]) -> None:
    stack = Stack(body, parameters)
    assert stack.status == "CREATE_COMPLETE"
    options = {"HasVpc": "SubnetIds", "HasKey": "KmsKeyArn", "HasInfrastructureRoles": "InfrastructureRoleArns"}
    options |= {"HasCallers": "CallerPrincipalArns", "Notifies": "EventBusArns"}
    conditions = {condition: bool(parameters.get(name)) for condition, name in options.items()}
    conditions["HasUrls"] = parameters.get("FunctionUrl") != "false"
    expected = {
        logical_id
        for logical_id, resource in body["Resources"].items()
        if resource["Type"] not in BEYOND_MOTO | NAMELESS and conditions.get(resource.get("Condition"), True)
    }
    assert stack.ids.keys() >= expected


def test_table_has_the_keys_of_the_functions(aws: None) -> None:
    stack = Stack(packaged(), PARAMETERS)
    client = boto3.client("dynamodb")
    table = client.describe_table(TableName=stack.ids["Table"])["Table"]
    keys = {
        index["IndexName"]: [key["AttributeName"] for key in index["KeySchema"]]
        for index in table["GlobalSecondaryIndexes"]
    }
    assert [key["AttributeName"] for key in table["KeySchema"]] == ["submission_id"]
    assert keys == {"feed": ["feed", "changed_at"], "due": ["due", "check_at"], "pool": ["pool", "rank"]}
    properties = packaged()["Resources"]["Table"]["Properties"]
    assert properties["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    assert properties["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True


@pytest.mark.parametrize(
    ("parameters", "variable", "absent"),
    [
        (PARAMETERS, "ECS_BRIDGE_PROFILES", "ECS_BRIDGE_PROFILES_FILE"),
        (EVERY_OPTION, "ECS_BRIDGE_PROFILES_FILE", "ECS_BRIDGE_PROFILES"),
    ],
)
def test_submit_has_one_source_of_profiles(aws: None, parameters: dict[str, str], variable: str, absent: str) -> None:
    Stack(packaged(), parameters)
    function = boto3.client("lambda").get_function_configuration(FunctionName="prod-submit")
    assert variable in function["Environment"]["Variables"]
    assert absent not in function["Environment"]["Variables"]


def test_function_timeouts_are_below_the_launch_lease() -> None:
    resources = template()["Resources"]
    assert resources["SubmitFunction"]["Properties"]["Timeout"] <= 120
    assert resources["ReconcileFunction"]["Properties"]["Timeout"] <= 120


def test_every_asynchronous_call_has_a_dead_letter_queue() -> None:
    resources = packaged()["Resources"]
    events, reconcile = ({"Fn::GetAtt": [name, "Arn"]} for name in ("EventDeadLetters", "ReconcileDeadLetters"))
    (rule,) = resources["TaskStateFunctionTaskStateChange"]["Properties"]["Targets"]
    assert rule["DeadLetterConfig"]["Arn"] == events
    assert rule["RetryPolicy"] == {"MaximumEventAgeInSeconds": 86400, "MaximumRetryAttempts": 185}
    schedule = resources["ReconcileFunctionEveryMinute"]["Properties"]["Target"]
    assert schedule["DeadLetterConfig"]["Arn"] == reconcile
    for function, queue in (("TaskState", events), ("Reconcile", reconcile)):
        invocations = resources[f"{function}FunctionEventInvokeConfig"]["Properties"]
        assert invocations["DestinationConfig"]["OnFailure"]["Destination"] == queue


def test_function_urls_require_signed_requests() -> None:
    for url in ("SubmitFunctionUrl", "RunnerApiFunctionUrl"):
        assert packaged()["Resources"][url]["Properties"]["AuthType"] == "AWS_IAM"
    permissions = [r for r in packaged()["Resources"].values() if r["Type"] == "AWS::Lambda::Permission"]
    assert [p["Properties"]["Principal"] for p in permissions] == ["events.amazonaws.com"]


def test_without_urls_functions_are_invoked_directly(aws: None) -> None:
    body = packaged()
    for name in ("SubmitFunctionUrl", "RunnerApiFunctionUrl", "SubmitUrlAlarm", "RunnerApiUrlAlarm"):
        assert body["Resources"][name]["Condition"] == "HasUrls"
    for name in ("SubmitUrl", "RunnerApiUrl"):
        assert body["Outputs"][name]["Condition"] == "HasUrls"
    stack = Stack(body, NO_URLS)
    client, iam = boto3.client("lambda"), boto3.client("iam")

    def variables(function: str) -> dict[str, str]:
        return client.get_function_configuration(FunctionName=f"prod-{function}")["Environment"]["Variables"]

    assert variables("runner-api")["ECS_BRIDGE_DIRECT_INVOCATION"] == "true"
    assert "ECS_BRIDGE_RUNNER_API_URL" not in variables("submit")
    assert variables("submit")["ECS_BRIDGE_RUNNER_API_FUNCTION"].endswith(":function:prod-runner-api")
    for policy, function in (("ExecutorPolicy", "submit"), ("RunnerPolicy", "runner-api")):
        version = iam.get_policy_version(PolicyArn=stack.ids[policy], VersionId="v1")["PolicyVersion"]
        statement = next(each for each in version["Document"]["Statement"] if each["Action"] == "lambda:InvokeFunction")
        assert statement["Resource"].endswith(f":function:prod-{function}")
        # moto leaves a condition that CloudFormation leaves out.
        assert statement.get("Condition") in (None, {}, "", {"Ref": "AWS::NoValue"})


def test_each_parameter_is_documented() -> None:
    rows = table_rows((DOCS / "deploying.md").read_text())
    assert {name for row in rows for name in code(row[0])} == template()["Parameters"].keys()


def test_example_outputs_parameters_that_sam_can_read(aws: None, tmp_path: Path) -> None:
    from samcli.cli.types import CfnParameterOverridesType

    stack = Stack(template("infra/example.yaml"), {})
    file = tmp_path / "parameters.yaml"
    file.write_text(stack.outputs["Parameters"])
    parameters = CfnParameterOverridesType().convert(f"file://{file}", None, None)
    assert parameters.keys() <= template()["Parameters"].keys()
    assert parameters["ClusterArn"] == arn("ecs", "cluster/ecs-bridge-example")
    profile = json.loads(parameters["Profiles"])["default"]
    assert profile["container_name"] == "main"
    subnets = profile["run_task"]["networkConfiguration"]["awsvpcConfiguration"]["subnets"]
    assert subnets == [stack.ids["SubnetA"], stack.ids["SubnetB"]]


def test_key_policy_grants_the_documented_permissions() -> None:
    statements = template("infra/key.yaml")["Resources"]["Key"]["Properties"]["KeyPolicy"]["Statement"]
    services = {s["Sid"]: s for s in statements if "Service" in s["Principal"]}
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
    logs = services.pop("LogGroups")
    assert set(logs["Action"]) == {
        f"kms:{a}" for a in ("Encrypt", "Decrypt", "ReEncrypt*", "GenerateDataKey*", "Describe*")
    }
    assert logs["Condition"].keys() == {"ArnLike"}
    assert logs["Condition"]["ArnLike"].keys() == {"kms:EncryptionContext:aws:logs:arn"}
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html
    events = services.pop("DeadLetters")
    assert events["Principal"] == {"Service": "events.amazonaws.com"}
    assert set(events["Action"]) == {"kms:Decrypt", "kms:GenerateDataKey"}
    # Not aws:SourceArn, which the queue's policy has: EventBridge does not send it to KMS.
    assert events["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    assert not services


def test_caller_of_another_account_has_only_the_executor_policy() -> None:
    role = template()["Resources"]["CallerRole"]
    assert role["Condition"] == "HasCallers"
    assert role["Properties"]["ManagedPolicyArns"] == [{"Ref": "ExecutorPolicy"}]
    assert "Policies" not in role["Properties"]
    (statement,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"AWS": {"Ref": "CallerPrincipalArns"}}


def test_samconfig_environments_have_separate_stacks_and_parameters() -> None:
    config = {
        name: each for name, each in tomllib.loads((ROOT / "samconfig.toml").read_text()).items() if name != "version"
    }
    assert len(config) > 1
    for commands in config.values():
        assert commands.keys() == {"global", "build", "deploy", "validate"}
        assert (
            commands["build"]["parameters"]["parameter_overrides"]
            == commands["deploy"]["parameters"]["parameter_overrides"]
        )
    names = [commands["global"]["parameters"]["stack_name"] for commands in config.values()]
    assert len(set(names)) == len(names)
    files = [each["deploy"]["parameters"]["parameter_overrides"].removeprefix("file://") for each in config.values()]
    assert len(set(files)) == len(files)
    # They name an account.
    run("git", "check-ignore", "--no-index", *files)


def test_alarms_of_every_function_trigger_a_rollback() -> None:
    def configuration(parameters: dict[str, str]) -> dict[str, Any]:
        return json.loads(ResolvedTemplate(packaged(), parameters).outputs["RollbackConfiguration"])

    with_urls = configuration(PARAMETERS)
    assert len(configuration(NO_URLS)["RollbackTriggers"]) == len(with_urls["RollbackTriggers"]) - 1
    # https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_RollbackConfiguration.html
    assert with_urls["MonitoringTimeInMinutes"] <= 180
    assert len(with_urls["RollbackTriggers"]) <= 5
    resolved = ResolvedTemplate(packaged(), PARAMETERS)
    alarms = {arn("cloudwatch", f"alarm:{each['AlarmName']}"): each for each in resolved.of_type(ALARM).values()}
    watched = json.dumps([alarms[trigger["Arn"]] for trigger in with_urls["RollbackTriggers"]])
    functions = [each["FunctionName"] for each in resolved.of_type("AWS::Lambda::Function").values()]
    assert all(f'"{function}"' in watched for function in functions)


def test_functions_publish_no_alias() -> None:
    """The SAM transform publishes no version where only the value of a parameter changes, such as Profiles."""
    assert "AutoPublishAlias" not in (ROOT / "template.yaml").read_text()


@pytest.mark.parametrize(("policy", "reader"), [("ExecutorPolicy", "client"), ("AirflowUiPolicy", "ui")])
def test_policies_allow_attributes_that_their_reader_reads(policy: str, reader: str) -> None:
    listed = json.loads((ROOT / "shared/schema/attributes.json").read_text())
    statements = template()["Resources"][policy]["Properties"]["PolicyDocument"]["Statement"]
    allowed = [
        set(statement["Condition"]["ForAllValues:StringEquals"]["dynamodb:Attributes"])
        for statement in statements
        if "dynamodb:Attributes" in statement.get("Condition", {}).get("ForAllValues:StringEquals", {})
    ]
    assert allowed == [{each["name"] for each in listed if reader in each["readers"]}]
