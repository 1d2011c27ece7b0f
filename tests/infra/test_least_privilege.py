"""The roles of the template allow exactly the calls that are made.

Calls are recorded at the wire while the real functions run on the local stack. Calls that AWS services make as a role
are listed by hand. The policies are those that moto's CloudFormation resolved.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from calls import calls_by_aws, denied_calls, doorbell_calls
from policies import (
    Call,
    Statement,
    granted_by,
    ineffective_conditions,
    permits,
    unneeded,
    without_action,
    without_statement,
)
from recorder import checked_calls
from stacks import ROOT, Stack, template
from walk import CLUSTER_ARN, DEPLOYMENT, EXECUTION_ROLE, FUNCTIONS, TASK_ROLE, Recording

from cloudformation import arn

# --- Policies ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def granted(stack: Stack) -> dict[str, list[Statement]]:
    return granted_by(stack)


# --- Calls -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def called(stack: Stack, recording: Recording) -> set[Call]:
    """Every call that IAM would check, with the names of the stack in moto."""
    roles = {"etl": [TASK_ROLE, EXECUTION_ROLE]}
    table = stack.ids["Table"]
    wire = {call for each in recording.exchanges for call in checked_calls(each, table, DEPLOYMENT, roles)}
    submit, work = (arn("lambda", f"function:{DEPLOYMENT}-{function}") for function in ("submit", "runner-api"))
    # A request to the URL asks for both.
    # https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html
    url = {
        Call("executor", "lambda:InvokeFunctionUrl", submit, {"lambda:FunctionUrlAuthType": "AWS_IAM"}),
        Call("executor", "lambda:InvokeFunction", submit, {"lambda:InvokedViaFunctionUrl": "true"}),
        Call("runner", "lambda:InvokeFunctionUrl", work, {"lambda:FunctionUrlAuthType": "AWS_IAM"}),
        Call("runner", "lambda:InvokeFunction", work, {"lambda:InvokedViaFunctionUrl": "true"}),
    }
    sqs = boto3.client("sqs")

    def queue(logical_id: str) -> str:
        attributes = sqs.get_queue_attributes(QueueUrl=stack.ids[logical_id], AttributeNames=["QueueArn"])
        return attributes["Attributes"]["QueueArn"]

    return (
        wire
        | url
        | set(doorbell_calls(DEPLOYMENT))
        | set(calls_by_aws(DEPLOYMENT, queue("EventDeadLetters"), queue("ReconcileDeadLetters")))
    )


@pytest.fixture(scope="module")
def foreign(stack: Stack) -> list[Call]:
    return denied_calls(DEPLOYMENT, stack.ids["Table"], CLUSTER_ARN, arn("ecs", "task-definition/etl:1"), TASK_ROLE)


# --- The comparison ----------------------------------------------------------------------------


def test_every_recorded_call_is_allowed(granted: dict[str, list[Statement]], called: set[Call]) -> None:
    refused = [str(call) for call in called if not permits(granted[call.role], call)]
    assert not refused


@pytest.mark.parametrize("smaller", [without_statement, without_action])
def test_every_policy_statement_and_action_is_required(
    granted: dict[str, list[Statement]], called: set[Call], smaller: Callable[..., Any]
) -> None:
    assert not unneeded(granted, called, smaller)


def test_foreign_calls_are_denied(granted: dict[str, list[Statement]], foreign: list[Call]) -> None:
    allowed = [str(call) for call in foreign if permits(granted[call.role], call)]
    assert not allowed


def test_every_condition_denies_a_call(granted: dict[str, list[Statement]], foreign: list[Call]) -> None:
    assert not ineffective_conditions(granted, foreign)


def test_wildcard_resources_are_only_those_iam_requires(granted: dict[str, list[Statement]]) -> None:
    stars = {(role, s["Sid"]) for role, statements in granted.items() for s in statements if s["Resource"] == "*"}
    in_vpc = {(role, "NetworkInterfaces") for role in FUNCTIONS}
    tell = {(role, "StateMachines") for role in FUNCTIONS if role not in {"submit", "runner-api"}}
    assert stars == {("submit", "HealthOfProfiles"), ("reconcile", "FindTasks")} | in_vpc | tell


def test_template_sets_every_variable_the_functions_read() -> None:
    sources = [*ROOT.glob("functions/*/src/*.rs"), *ROOT.glob("shared/*/src/*.rs")]
    read = {name for path in sources for name in re.findall(r'"(ECS_BRIDGE_[A-Z_]+)"', path.read_text())}
    resources = template()
    told = set(resources["Globals"]["Function"]["Environment"]["Variables"])
    for resource in resources["Resources"].values():
        told |= set(resource["Properties"].get("Environment", {}).get("Variables", {}))
    # reconcile sets these in the containers of runners.
    runners = {f"ECS_BRIDGE_{name}" for name in ("DOORBELL_URL", "RUNNER_ID", "RUNNER_TOKEN", "POLL_INTERVAL_MS")}
    # The last two are for tests only.
    assert read - runners - {"ECS_BRIDGE_TIMER_SCALE", "ECS_BRIDGE_SEND_WITHIN"} == told
