"""infra/private.yaml: the network has no route to the internet, and every call has an endpoint that allows it."""

from __future__ import annotations

import configparser
import json
import re
from typing import Any

import pytest
from policies import Call, Statement, permits
from recorder import checked_calls
from stacks import ROOT, Stack, packaged, template
from walk import CLUSTER_ARN, DEPLOYMENT, EXECUTION_ROLE, FUNCTIONS, TASK_ROLE, Recording

from airflow_ecs_bridge.provider import get_provider_info
from cloudformation import ACCOUNT, REGION, ResolvedTemplate, arn, rewritten

PARAMETERS = {"Name": DEPLOYMENT, "Repository": "airflow/worker", "ImageTag": "1"}
PARAMETERS |= {"TaskTokens": "true", "EventBusArns": arn("events", "event-bus/default")}
EVERY_ENDPOINT = PARAMETERS | {"AgentEndpoints": "true", "SecretsEndpoint": "true"}
SOURCE = template("infra/private.yaml")
NESTED = {"Bridge": packaged()}
PRIVATE = ResolvedTemplate(SOURCE, PARAMETERS, NESTED)
BRIDGE = PRIVATE.nested("Bridge")
GIVEN = PRIVATE.resources["Bridge"]["Parameters"]
OURS = {"aws:PrincipalAccount": ACCOUNT}


def endpoints(resolved: ResolvedTemplate = PRIVATE) -> dict[str, dict[str, Any]]:
    """The endpoints by service."""
    found = resolved.of_type("AWS::EC2::VPCEndpoint").values()
    return {each["ServiceName"].removeprefix(f"com.amazonaws.{REGION}."): each for each in found}


def statements(service: str) -> list[Statement]:
    return endpoints()[service]["PolicyDocument"]["Statement"]


def allows(service: str, call: Call, **context: str) -> bool:
    """Whether the endpoint allows a call by principals of this account, or by those in `context`."""
    return permits(statements(service), Call(call.role, call.action, call.resource, call.context | OURS | context))


@pytest.fixture(scope="module")
def called(recording: Recording) -> dict[str, set[Call]]:
    """The calls of the functions and the executor by service, with the names of this stack."""
    table, roles = BRIDGE.outputs["TableName"], {"etl": [TASK_ROLE, EXECUTION_ROLE]}
    calls: dict[str, set[Call]] = {}
    for exchange in recording.exchanges:
        found = checked_calls(exchange, table, DEPLOYMENT, roles)
        calls.setdefault(exchange.service, set()).update(call for call in found if not call.action.startswith("iam:"))
    # Without an endpoint of SQS, pools have no doorbells, and runners ask at intervals (docs/private-network.md).
    del calls["sqs"]
    # Callers and runners, which the recording has at their URLs.
    for function in ("submit", "runner-api"):
        calls["lambda"].add(Call("caller", "lambda:InvokeFunction", arn("lambda", f"function:{DEPLOYMENT}-{function}")))
    return calls


def test_every_call_has_an_endpoint_that_allows_it(called: dict[str, set[Call]]) -> None:
    assert called.keys() <= endpoints().keys()
    assert [str(call) for service, calls in called.items() for call in calls if not allows(service, call)] == []


def test_endpoints_allow_only_recorded_calls(called: dict[str, set[Call]]) -> None:
    # `ecs-bridge doctor` reads the functions' configurations.
    further = {"lambda": {"lambda:GetFunctionConfiguration"}}
    for service, calls in called.items():
        allowed = {action for each in statements(service) for action in [each["Action"]] for action in listed(action)}
        assert allowed == {call.action for call in calls} | further.get(service, set())


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("service", "action", "resource"),
    [
        ("dynamodb", "dynamodb:GetItem", arn("dynamodb", "table/billing")),
        ("dynamodb", "dynamodb:DeleteItem", arn("dynamodb", f"table/{BRIDGE.outputs['TableName']}")),
        ("lambda", "lambda:InvokeFunction", arn("lambda", "function:billing")),
        ("lambda", "lambda:UpdateFunctionCode", arn("lambda", f"function:{DEPLOYMENT}-submit")),
        ("s3", "s3:GetObject", "arn:aws:s3:::somebody-elses/object"),
        ("s3", "s3:PutObject", f"arn:aws:s3:::prod-{REGION}-starport-layer-bucket/layer"),
        ("ecr.api", "ecr:BatchGetImage", arn("ecr", "repository/other")),
        ("logs", "logs:PutLogEvents", arn("logs", "log-group:/ecs/other:log-stream:a")),
    ],
)
def test_endpoints_deny_other_resources(service: str, action: str, resource: str) -> None:
    assert not allows(service, Call("task", action, resource))


def test_endpoints_deny_principals_of_other_accounts(called: dict[str, set[Call]]) -> None:
    """Otherwise, data could leave through an endpoint with the credentials of another account."""
    other = {"aws:PrincipalAccount": "210987654321"}
    assert not [str(call) for service, calls in called.items() for call in calls if allows(service, call, **other)]
    every = endpoints(ResolvedTemplate(SOURCE, EVERY_ENDPOINT, NESTED))
    open_ = {
        service
        for service, endpoint in every.items()
        for statement in endpoint["PolicyDocument"]["Statement"]
        if statement.get("Condition") != {"StringEquals": OURS}
    }
    # ECR signs the requests for layers in its own name.
    assert open_ == {"s3"}


def test_tasks_reach_image_logs_and_secrets_through_endpoints() -> None:
    """Each thing that ECS does in the name of the execution role."""
    resolved = ResolvedTemplate(SOURCE, EVERY_ENDPOINT, NESTED)
    (policy,) = resolved.resources["ExecutionRole"]["Policies"]
    services = {"ecr": ("ecr.api", "ecr.dkr"), "logs": ("logs",), "secretsmanager": ("secretsmanager",)}
    for statement in policy["PolicyDocument"]["Statement"]:
        for action in listed(statement["Action"]):
            resource = statement["Resource"].replace("*", "x") if statement["Resource"] != "*" else "*"
            for service in services[action.split(":")[0]]:
                allowed = endpoints(resolved)[service]["PolicyDocument"]["Statement"]
                assert permits(allowed, Call("execution", action, resource, OURS)), (service, action)


def test_network_has_no_route_to_the_internet() -> None:
    kinds = {PRIVATE.type_of(name) for name in PRIVATE.resources} | {BRIDGE.type_of(name) for name in BRIDGE.resources}
    ways_out = {
        "AWS::EC2::EIP",
        "AWS::EC2::EgressOnlyInternetGateway",
        "AWS::EC2::InternetGateway",
        "AWS::EC2::NatGateway",
        "AWS::EC2::Route",
        "AWS::EC2::VPCPeeringConnection",
        "AWS::Lambda::Url",
    }
    assert not kinds & ways_out
    subnets = PRIVATE.of_type("AWS::EC2::Subnet").values()
    assert len(subnets) == 2
    assert not any("MapPublicIpOnLaunch" in each for each in subnets)


def test_functions_and_tasks_use_the_endpoints_subnets() -> None:
    subnets = ["SubnetA", "SubnetB"]
    functions = BRIDGE.of_type("AWS::Lambda::Function").values()
    assert len(functions) == len(FUNCTIONS)
    assert all(
        each["VpcConfig"] == {"SubnetIds": subnets, "SecurityGroupIds": ["FunctionSecurityGroup"]} for each in functions
    )
    for profile in json.loads(GIVEN["Profiles"]).values():
        network = profile["run_task"]["networkConfiguration"]["awsvpcConfiguration"]
        assert network == {"subnets": subnets, "securityGroups": ["TaskSecurityGroup"], "assignPublicIp": "DISABLED"}
    for service, endpoint in endpoints(ResolvedTemplate(SOURCE, EVERY_ENDPOINT, NESTED)).items():
        if endpoint["VpcEndpointType"] == "Interface":
            assert (endpoint["SubnetIds"], endpoint["PrivateDnsEnabled"]) == (subnets, True), service
    ingress = PRIVATE.resources["EndpointSecurityGroup"]["SecurityGroupIngress"]
    assert {rule["SourceSecurityGroupId"] for rule in ingress} == {
        "CallerSecurityGroup",
        "FunctionSecurityGroup",
        "TaskSecurityGroup",
    }


def test_nested_stack_accepts_its_parameters() -> None:
    parameters = template()["Parameters"]
    assert GIVEN.keys() <= parameters.keys()
    assert {name for name, each in parameters.items() if "Default" not in each} <= GIVEN.keys()
    for name, value in GIVEN.items():
        assert re.fullmatch(parameters[name].get("AllowedPattern", "(?s:.*)"), value), name
        assert len(value) <= parameters[name].get("MaxLength", len(value)), name
        assert str(value) in map(str, parameters[name].get("AllowedValues", [value])), name
    assert CLUSTER_ARN.replace("/jobs", f"/{DEPLOYMENT}") == GIVEN["ClusterArn"]


def test_release_nests_its_own_template() -> None:
    """release.sh puts the name of the released template in place of this path."""
    (path,) = re.findall(r"s#TemplateURL: (\S+?)#", (ROOT / "tools/release.sh").read_text())
    assert SOURCE["Resources"]["Bridge"]["Properties"]["TemplateURL"] == path


def test_outputs_configure_the_executor() -> None:
    section = configparser.ConfigParser()
    section.read_string("[ecs_bridge_executor]\n" + PRIVATE.outputs["Configuration"])
    given = dict(section["ecs_bridge_executor"])
    assert given.keys() <= get_provider_info()["config"]["ecs_bridge_executor"]["options"].keys()
    assert given == {
        "submit_function": f"{DEPLOYMENT}-submit",
        "table": BRIDGE.outputs["TableName"],
        "deployment": DEPLOYMENT,
        "region_name": REGION,
    }


def test_runner_may_invoke_runner_api_only_from_this_vpc() -> None:
    work = BRIDGE.resources["RunnerApiFunction"]["FunctionName"]
    (allowed,) = PRIVATE.resources["RunnerPolicy"]["PolicyDocument"]["Statement"]
    assert allowed == {
        "Effect": "Allow",
        "Action": "lambda:InvokeFunction",
        "Resource": arn("lambda", f"function:{work}"),
    }
    (denied,) = PRIVATE.resources["FromThisVpcPolicy"]["PolicyDocument"]["Statement"]
    assert (denied["Effect"], denied["Condition"]) == ("Deny", {"StringNotEquals": {"aws:SourceVpc": "Vpc"}})
    # This policy denies the actions of the executor's policy from other networks.
    grants = BRIDGE.resources["ExecutorPolicy"]["PolicyDocument"]["Statement"]
    allows = [{"Effect": "Allow", "Action": denied["Action"], "Resource": denied["Resource"]}]
    for statement in [allowed, *grants]:
        if statement["Action"] != "lambda:InvokeFunctionUrl":
            assert permits(allows, Call("caller", statement["Action"], statement["Resource"]))
    for policy in ("RunnerPolicy", "FromThisVpcPolicy"):
        assert PRIVATE.resources[policy]["Roles"] == ["TaskRole"]


def test_moto_creates_every_supported_resource(aws: None) -> None:
    def without_bridge(node: Any) -> Any:
        match node:
            case {"Fn::GetAtt": ["Bridge", str(output)]}:
                return BRIDGE.outputs[output.removeprefix("Outputs.")]
            case {"Ref": "Bridge"}:
                return "bridge"
            case str() if "${Bridge." in node:
                return re.sub(r"\$\{Bridge\.Outputs\.(\w+)\}", lambda output: BRIDGE.outputs[output[1]], node)
        return node

    resources = {name: each for name, each in SOURCE["Resources"].items() if name != "Bridge"}
    body = rewritten(SOURCE | {"Resources": resources}, without_bridge)
    stack = Stack(body, EVERY_ENDPOINT)
    assert stack.status == "CREATE_COMPLETE"
    assert stack.ids.keys() >= body["Resources"].keys() - {"RoutesOfA", "RoutesOfB"}
