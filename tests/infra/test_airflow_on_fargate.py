"""infra/airflow-on-fargate: the configuration of its parts, their permissions, and the network.

That Airflow runs with what it configures is shown in tests/airflow/setups/test_fargate.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import fargate
import pytest
from conftest import account
from policies import (
    Call,
    Statement,
    ineffective_conditions,
    inline,
    managed,
    permits,
    unneeded,
    without_action,
    without_statement,
)
from stacks import ROOT, Stack, packaged, template

from cloudformation import ACCOUNT, arn
from documents import DOCS, code, section, table_rows

BODY = template(fargate.PATH)
RESOURCES = BODY["Resources"]
SERVICES = ("Scheduler", "ApiServer", "DagProcessor", "Triggerer")
TASK_DEFINITIONS = {
    name: each["Properties"] for name, each in RESOURCES.items() if each["Type"] == "AWS::ECS::TaskDefinition"
}


def of_type(kind: str) -> dict[str, Any]:
    return {name: each["Properties"] for name, each in RESOURCES.items() if each["Type"] == kind}


@pytest.fixture(scope="module")
def made() -> Iterator[Stack]:
    with account():
        yield fargate.create(fargate.WITH_CERTIFICATE)


@pytest.mark.parametrize("parameters", [fargate.PARAMETERS, fargate.WITH_CERTIFICATE], ids=["plain", "certificate"])
def test_moto_creates_every_supported_resource(aws: None, parameters: dict[str, str]) -> None:
    stack = fargate.create(parameters | {"Name": f"data-{len(parameters)}"})
    assert stack.status == "CREATE_COMPLETE"
    conditions = {"HasCertificate": "CertificateArn" in parameters, "HasDagBucket": "DagBucket" in parameters}
    resources = fargate.supported_template()["Resources"]
    named = {name: each for name, each in resources.items() if each["Type"] not in fargate.NAMELESS}
    expected = {name for name, each in named.items() if conditions.get(each.get("Condition"), True)}
    assert stack.ids.keys() >= expected


def test_each_parameter_is_documented() -> None:
    rows = table_rows(section(DOCS / "airflow-on-fargate.md", "### Parameters"))
    assert {name for row in rows for name in code(row[0])} == BODY["Parameters"].keys()
    assert {
        name
        for group in BODY["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        for name in group["Parameters"]
    } == (BODY["Parameters"].keys())


def test_failed_first_deployment_leaves_nothing_behind() -> None:
    policies = {each.get("DeletionPolicy") for each in RESOURCES.values()}
    # A snapshot is of a database that stood.
    assert policies == {None, "RetainExceptOnCreate", "Snapshot"}
    assert BODY["Parameters"]["DatabaseDeletionProtection"]["Default"] == "false"
    assert RESOURCES["Database"]["Properties"]["DeletionProtection"] == {"Ref": "DatabaseDeletionProtection"}


# --- The bridge that is nested -----------------------------------------------------------------


@pytest.fixture(scope="module")
def told(made: Stack) -> dict[str, str]:
    """The parameters of the nested stack."""
    return {name.removeprefix("Bridge"): value for name, value in made.outputs.items() if name.startswith("Bridge")}


def test_bridge_accepts_its_parameters(told: dict[str, str]) -> None:
    bridge = template()
    assert (ROOT / fargate.PATH).parent.joinpath(
        RESOURCES["Bridge"]["Properties"]["TemplateURL"]
    ).resolve() == ROOT / "template.yaml"
    given = RESOURCES["Bridge"]["Properties"]["Parameters"].keys()
    assert given <= bridge["Parameters"].keys()
    assert {name for name, each in bridge["Parameters"].items() if "Default" not in each} <= given
    for name in given:
        value, parameter = told[name], bridge["Parameters"][name]
        assert re.fullmatch(parameter.get("AllowedPattern", "(?s:.*)"), value), name
        assert len(value) <= parameter.get("MaxLength", 4096), name
        assert value in map(str, parameter.get("AllowedValues", [value])), name


def test_bridge_has_every_output_that_airflow_uses() -> None:
    used = set(re.findall(r'"Bridge", "Outputs\.(\w+)"', json.dumps(BODY)))
    assert used == fargate.BRIDGE.keys()
    assert used <= template()["Outputs"].keys()
    # The only condition of theirs holds by default.
    assert {template()["Outputs"][name].get("Condition") for name in used} == {None, "HasUrls"}
    assert template()["Parameters"]["FunctionUrl"]["Default"] == "true"


@pytest.fixture(scope="module")
def bridge(told: dict[str, str]) -> Stack:
    return Stack(
        packaged(), {name: told[name] for name in RESOURCES["Bridge"]["Properties"]["Parameters"]}, name="bridge"
    )


def test_bridge_is_created_with_its_parameters(bridge: Stack) -> None:
    assert bridge.status == "CREATE_COMPLETE"


def test_profiles_use_the_task_definition_and_its_roles(made: Stack, told: dict[str, str]) -> None:
    profiles = json.loads(told["Profiles"])
    assert profiles.keys() == {"default", "spot", "short"}
    task = TASK_DEFINITIONS["WorkerTask"]
    (container,) = task["ContainerDefinitions"]
    for profile in profiles.values():
        assert profile["container_name"] == container["Name"]
        assert told["TaskDefinitionArns"] == arn("ecs", f"task-definition/{profile['run_task']['taskDefinition']}:*")
        network = profile["run_task"]["networkConfiguration"]["awsvpcConfiguration"]
        assert network["subnets"] == [made.ids["SubnetA"], made.ids["SubnetB"]]
        assert network["securityGroups"] == [made.ids["TaskSecurityGroup"]]
    assert profiles["short"]["pool"] == {"max": 50, "min_idle": 0, "commands_per_container": 50}
    roles = {task[name]["Fn::GetAtt"][0] for name in ("TaskRoleArn", "ExecutionRoleArn")}
    assert set(told["PassRoleArns"].split(",")) == {f"arn:aws:iam::{ACCOUNT}:role/{made.ids[role]}" for role in roles}
    assert told["RunnerRoleArns"] == f"arn:aws:iam::{ACCOUNT}:role/{made.ids['TaskRole']}"


def test_task_role_has_the_statements_of_the_runner_policy(made: Stack, bridge: Stack) -> None:
    own = [each for each in inline(made, "TaskRole") if each["Sid"].startswith(("RunnerApi", "WaitForDoorbell"))]
    assert own == managed(bridge.ids["RunnerPolicy"])


# --- Rights ------------------------------------------------------------------------------------

ROLES = {
    "scheduler": "SchedulerRole",
    "triggerer": "TriggererRole",
    "api-server": "ApiServerRole",
    "dag-processor": "DagProcessorRole",
    "task": "TaskRole",
    "start-of-services": "ServiceExecutionRole",
    "start-of-tasks": "TaskExecutionRole",
}
URL = {"lambda:FunctionUrlAuthType": "AWS_IAM"}
VIA_URL = {"lambda:InvokedViaFunctionUrl": "true"}
SUBMIT, RUNNER_API = (arn("lambda", f"function:data-{name}") for name in ("submit", "runner-api"))
CONNECTION, VARIABLE = (
    arn("secretsmanager", f"secret:data/{kind}/warehouse-a1b2c3") for kind in ("connections", "variables")
)
IMAGE = arn("ecr", "repository/airflow")
SECRETS = [fargate.secret(f"{name}Secret") for name in ("Database", "Fernet", "Jwt", "Api", "Admin")]


def whole_group(name: str) -> str:
    return arn("logs", f"log-group:/ecs/data/{name}:log-stream:")


def stream(group: str) -> str:
    return arn("logs", f"log-group:/ecs/data/{group}:log-stream:airflow/airflow/0a1b")


@pytest.fixture(scope="module")
def granted(made: Stack) -> dict[str, list[Statement]]:
    return {name: inline(made, role) for name, role in ROLES.items()}


@pytest.fixture(scope="module")
def called(made: Stack) -> set[Call]:
    """Airflow's calls in each role, except those of the bridge's policies."""
    bucket = f"arn:aws:s3:::{made.ids['LogBucket']}"
    log = f"{bucket}/logs/dag_id=numbers/run_id=1/task_id=odd/attempt=1.log"
    files, mounted = file_system(made)
    calls = {
        Call("scheduler", "logs:GetLogEvents", stream("tasks")),
        Call("triggerer", "logs:GetLogEvents", stream("tasks")),
        Call("triggerer", "logs:FilterLogEvents", whole_group("tasks")),
        Call("api-server", "logs:GetLogEvents", stream("tasks")),
        Call("api-server", "lambda:InvokeFunctionUrl", SUBMIT, URL),
        Call("api-server", "lambda:InvokeFunction", SUBMIT, VIA_URL),
        Call("task", "lambda:InvokeFunctionUrl", RUNNER_API, URL),
        Call("task", "lambda:InvokeFunction", RUNNER_API, VIA_URL),
        Call("task", "sqs:ReceiveMessage", arn("sqs", "ecs-bridge-pool-0123456789ab-data")),
        Call("task", "elasticfilesystem:ClientMount", files, mounted),
        Call("task", "elasticfilesystem:ClientWrite", files, mounted),
    }
    for role in ("triggerer", "api-server", "dag-processor", "task"):
        calls |= {Call(role, "secretsmanager:GetSecretValue", secret) for secret in (CONNECTION, VARIABLE)}
    for role in ("triggerer", "api-server", "task"):
        calls |= {Call(role, "s3:GetObject", log), Call(role, "s3:ListBucket", bucket)}
    calls |= {Call(role, "s3:PutObject", log) for role in ("triggerer", "task")}
    for role, group in (("start-of-services", "services"), ("start-of-tasks", "tasks")):
        pull = ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer")
        calls |= {Call(role, f"ecr:{action}", IMAGE) for action in pull} | {
            Call(role, "ecr:GetAuthorizationToken", "*")
        }
        calls |= {Call(role, f"logs:{action}", stream(group)) for action in ("CreateLogStream", "PutLogEvents")}
    return calls | {Call("start-of-services", "secretsmanager:GetSecretValue", secret) for secret in SECRETS}


def file_system(made: Stack) -> tuple[str, dict[str, str]]:
    point = arn("elasticfilesystem", f"access-point/{fargate.ACCESS_POINT}")
    files = arn("elasticfilesystem", f"file-system/{made.ids['SharedFiles']}")
    return files, {"elasticfilesystem:AccessPointArn": point}


@pytest.fixture(scope="module")
def foreign(made: Stack) -> list[Call]:
    bucket = f"arn:aws:s3:::{made.ids['LogBucket']}"
    files, _ = file_system(made)
    # Of services, the start of their containers alone reads secrets.
    calls = [
        Call(role, "secretsmanager:GetSecretValue", secret)
        for secret in SECRETS
        for role in ROLES
        if role != "start-of-services"
    ]
    calls += [
        Call(role, "secretsmanager:GetSecretValue", arn("secretsmanager", "secret:billing-a1b2c3")) for role in ROLES
    ]
    calls += [Call(role, "s3:GetObject", "arn:aws:s3:::billing/1") for role in ROLES]
    calls += [Call(role, action, "*") for role in ROLES for action in ("ecs:RunTask", "iam:PassRole", "ecs:StopTask")]
    calls += [Call(role, "s3:DeleteObject", f"{bucket}/logs/1") for role in ROLES]
    calls += [
        Call("api-server", "s3:PutObject", f"{bucket}/logs/1"),
        Call("task", "logs:GetLogEvents", stream("services")),
    ]
    calls += [
        Call("triggerer", "logs:FilterLogEvents", whole_group("services")),
        Call("api-server", "logs:GetLogEvents", stream("services")),
    ]
    calls += [
        Call("scheduler", "logs:GetLogEvents", stream("services")),
        Call("triggerer", "logs:GetLogEvents", stream("services")),
    ]
    # Straight to the functions, with whatever payload, and without a signature.
    calls += [Call("task", "sqs:ReceiveMessage", arn("sqs", "ecs-bridge-pool-0123456789ab-x-data"))]
    calls += [Call("task", "lambda:InvokeFunction", RUNNER_API), Call("api-server", "lambda:InvokeFunction", SUBMIT)]
    calls += [Call("task", "lambda:InvokeFunctionUrl", RUNNER_API, {"lambda:FunctionUrlAuthType": "NONE"})]
    calls += [Call("api-server", "lambda:InvokeFunctionUrl", SUBMIT, {"lambda:FunctionUrlAuthType": "NONE"})]
    calls += [
        Call("task", "lambda:InvokeFunctionUrl", SUBMIT, URL),
        Call("api-server", "lambda:InvokeFunctionUrl", RUNNER_API, URL),
    ]
    calls += [
        Call("task", "elasticfilesystem:ClientMount", files),
        Call("task", "elasticfilesystem:ClientRootAccess", files),
    ]
    calls += [Call("start-of-tasks", "logs:PutLogEvents", stream("services"))]
    calls += [Call(role, "ecr:PutImage", IMAGE) for role in ROLES]
    return calls


def test_every_recorded_call_is_allowed(granted: dict[str, list[Statement]], called: set[Call]) -> None:
    assert not [str(call) for call in called if not permits(granted[call.role], call)]


@pytest.mark.parametrize("smaller", [without_statement, without_action])
def test_every_policy_statement_and_action_is_required(
    granted: dict[str, list[Statement]], called: set[Call], smaller: Callable[..., Any]
) -> None:
    assert not unneeded(granted, called, smaller)


def test_foreign_calls_are_denied(granted: dict[str, list[Statement]], foreign: list[Call]) -> None:
    assert not [str(call) for call in foreign if permits(granted[call.role], call)]


def test_every_condition_denies_a_call(granted: dict[str, list[Statement]], foreign: list[Call]) -> None:
    assert not ineffective_conditions(granted, foreign)


def test_only_submitting_roles_have_the_executor_policy() -> None:
    policy = {"Fn::GetAtt": ["Bridge", "Outputs.ExecutorPolicyArn"]}
    having = {name for name, each in of_type("AWS::IAM::Role").items() if policy in each.get("ManagedPolicyArns", [])}
    assert having == {"SchedulerRole", "TriggererRole"}


def test_dag_bucket_is_readable_by_roles_that_load_dags(made: Stack) -> None:
    statements = managed(made.ids["DagBucketPolicy"])
    read = [Call("", "s3:GetObject", "arn:aws:s3:::dags/numbers.py"), Call("", "s3:ListBucket", "arn:aws:s3:::dags")]
    assert all(permits(statements, call) for call in read)
    assert not permits(statements, Call("", "s3:PutObject", "arn:aws:s3:::dags/numbers.py"))
    policy = {"Fn::If": ["HasDagBucket", {"Ref": "DagBucketPolicy"}, {"Ref": "AWS::NoValue"}]}
    having = {name for name, each in of_type("AWS::IAM::Role").items() if policy in each.get("ManagedPolicyArns", [])}
    assert having == {"TriggererRole", "DagProcessorRole", "TaskRole"}


# --- Containers --------------------------------------------------------------------------------


def test_environments_contain_no_secret() -> None:
    # Their values name where a secret is, or how it is derived from one.
    harmless = {
        "AIRFLOW__CORE__FERNET_KEY_CMD",
        "AIRFLOW__SECRETS__BACKEND",
        "AIRFLOW__SECRETS__BACKEND_KWARGS",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    }
    suspicious = re.compile("SECRET|PASSWORD|TOKEN|KEY|CONN")
    for name, definition in TASK_DEFINITIONS.items():
        (container,) = definition["ContainerDefinitions"]
        named = {each["Name"] for each in container["Environment"] if suspicious.search(each["Name"])}
        assert named <= harmless, name
        text = json.dumps(container["Environment"])
        assert "resolve:" not in text
        assert not re.search(r"://[^/\"]*:[^/\"@]*@", text), f"{name}: a URL has a password"
        assert not any(
            f'"Ref": "{secret}"' in text or f"${{{secret}" in text for secret in of_type("AWS::SecretsManager::Secret")
        )


def test_every_container_may_write_to_its_log_group() -> None:
    groups = of_type("AWS::Logs::LogGroup")
    for name, definition in TASK_DEFINITIONS.items():
        (container,) = definition["ContainerDefinitions"]
        options = container["LogConfiguration"]["Options"]
        group = groups[options["awslogs-group"]["Ref"]]
        assert group["RetentionInDays"] == {"Ref": "LogRetentionDays"}
        role = RESOURCES[definition["ExecutionRoleArn"]["Fn::GetAtt"][0]]
        path = group["LogGroupName"]["Fn::Sub"]
        assert f"log-group:{path}:log-stream:*" in json.dumps(role["Properties"]["Policies"]), name


def test_executor_is_configured_with_the_tasks_log_group() -> None:
    (task,) = TASK_DEFINITIONS["WorkerTask"]["ContainerDefinitions"]
    options = task["LogConfiguration"]["Options"]
    (scheduler,) = TASK_DEFINITIONS["SchedulerTask"]["ContainerDefinitions"]
    told = {each["Name"]: each["Value"] for each in scheduler["Environment"]}
    assert told["AIRFLOW__ECS_BRIDGE_EXECUTOR__AWSLOGS_GROUP"] == options["awslogs-group"]
    assert told["AIRFLOW__ECS_BRIDGE_EXECUTOR__AWSLOGS_STREAM_PREFIX"] == options["awslogs-stream-prefix"]


def test_services_have_health_checks_and_rollback() -> None:
    services = of_type("AWS::ECS::Service")
    assert services.keys() == {f"{name}Service" for name in SERVICES}
    for service in services.values():
        assert service["DeploymentConfiguration"]["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
        (container,) = TASK_DEFINITIONS[service["TaskDefinition"]["Ref"]]["ContainerDefinitions"]
        assert container["HealthCheck"]["Command"][0] == "CMD-SHELL"


def test_services_start_after_the_database_migration() -> None:
    (scheduler,) = TASK_DEFINITIONS["SchedulerTask"]["ContainerDefinitions"]
    assert scheduler["Command"][0] == "migrate"
    for name in ("ApiServer", "DagProcessor", "Triggerer"):
        assert "SchedulerService" in RESOURCES[f"{name}Service"]["DependsOn"]
        (container,) = TASK_DEFINITIONS[f"{name}Task"]["ContainerDefinitions"]
        assert "migrate" not in container["Command"]


def test_scaled_services_have_no_fixed_count() -> None:
    scaled = {each["ResourceId"]["Fn::Sub"] for each in of_type("AWS::ApplicationAutoScaling::ScalableTarget").values()}
    assert scaled == {f"service/${{Cluster}}/${{{name}Service.Name}}" for name in ("ApiServer", "Triggerer")}
    assert not any("DesiredCount" in service for service in of_type("AWS::ECS::Service").values())


# --- Network -----------------------------------------------------------------------------------


def test_only_the_load_balancer_accepts_the_allowed_addresses(made: Stack) -> None:
    groups = boto3.client("ec2").describe_security_groups(
        GroupIds=[i for n, i in made.ids.items() if n.endswith("SecurityGroup")]
    )
    addresses = {
        (group["GroupId"], source["CidrIp"])
        for group in groups["SecurityGroups"]
        for rule in group["IpPermissions"]
        for source in rule["IpRanges"]
    }
    assert addresses == {(made.ids["LoadBalancerSecurityGroup"], fargate.PARAMETERS["AllowedCidr"])}
    database = RESOURCES["Database"]["Properties"]
    assert database["PubliclyAccessible"] is False
    routed = {each["SubnetId"]["Ref"] for each in of_type("AWS::EC2::SubnetRouteTableAssociation").values()}
    assert routed.isdisjoint(each["Ref"] for each in RESOURCES["DatabaseSubnets"]["Properties"]["SubnetIds"])


def test_load_balancer_without_certificate_is_internal(aws: None) -> None:
    elb = boto3.client("elbv2")
    stack = fargate.create(fargate.PARAMETERS | {"Name": "inside"})
    (balancer,) = elb.describe_load_balancers(LoadBalancerArns=[stack.ids["LoadBalancer"]])["LoadBalancers"]
    assert balancer["Scheme"] == "internal"
    assert [
        each["Protocol"] for each in elb.describe_listeners(LoadBalancerArn=stack.ids["LoadBalancer"])["Listeners"]
    ] == ["HTTP"]


def test_http_redirects_if_there_is_a_certificate(made: Stack) -> None:
    elb = boto3.client("elbv2")
    (balancer,) = elb.describe_load_balancers(LoadBalancerArns=[made.ids["LoadBalancer"]])["LoadBalancers"]
    assert balancer["Scheme"] == "internet-facing"
    listeners = elb.describe_listeners(LoadBalancerArn=made.ids["LoadBalancer"])["Listeners"]
    assert {each["Protocol"]: each["DefaultActions"][0]["Type"] for each in listeners} == {
        "HTTPS": "forward",
        "HTTP": "redirect",
    }


def test_load_balancer_blocks_the_execution_api(made: Stack) -> None:
    rules = boto3.client("elbv2").describe_rules(ListenerArn=made.ids["Listener"])["Rules"]
    (rule,) = [rule for rule in rules if not rule["IsDefault"]]
    assert rule["Conditions"][0]["PathPatternConfig"]["Values"] == ["/execution", "/execution/*"]
    assert rule["Actions"][0]["FixedResponseConfig"]["StatusCode"] == "404"
    (task,) = TASK_DEFINITIONS["WorkerTask"]["ContainerDefinitions"]
    urls = [
        each["Value"]["Fn::Sub"] for each in task["Environment"] if each["Name"].endswith("EXECUTION_API_SERVER_URL")
    ]
    assert urls == ["http://api-server.${Name}.internal:8080/execution/"]
    names = (
        of_type("AWS::ServiceDiscovery::Service")["ApiServerName"],
        of_type("AWS::ServiceDiscovery::PrivateDnsNamespace")["Namespace"],
    )
    assert [each["Name"] for each in names] == ["api-server", {"Fn::Sub": "${Name}.internal"}]
