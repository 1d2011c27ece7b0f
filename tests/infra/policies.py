"""Decides whether a role may make a call: by moto's policy engine for actions and resources, and here for conditions.

moto ignores most conditions, and takes a condition that fails for a refusal. So each statement is shown to it without
its condition, and counts only where the condition holds too. All statements of the template allow; none denies.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import boto3
from moto.iam.access_control import IAMPolicy, PermissionResult
from stacks import Stack, template

Statement = dict[str, Any]
Context = dict[str, str | list[str]]


@dataclass(frozen=True)
class Call:
    """One call that IAM checks."""

    role: str
    action: str
    resource: str
    context: Context = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.role}: {self.action} on {self.resource} with {self.context}"

    def __hash__(self) -> int:
        return hash(str(self))


def inline(stack: Stack, role: str) -> list[Statement]:
    """The statements of a role's own policies."""
    iam = boto3.client("iam")
    statements: list[Statement] = []
    name = stack.ids[role]
    for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
        # moto keeps the document of a role in a template as Python writes a dict.
        document = ast.literal_eval(document) if isinstance(document, str) else document
        statements += document["Statement"]
    return statements


def managed(policy_arn: str) -> list[Statement]:
    """The statements of a managed policy."""
    version = boto3.client("iam").get_policy_version(PolicyArn=policy_arn, VersionId="v1")["PolicyVersion"]
    return version["Document"]["Statement"]


def granted_by(stack: Stack) -> dict[str, list[Statement]]:
    """The statements of each role, those of managed policies among them."""

    def role(logical_id: str) -> list[Statement]:
        statements = inline(stack, logical_id)
        # moto does not attach managed policies to a role in a template. Here all of their conditions hold.
        for attached in template()["Resources"][logical_id]["Properties"]["ManagedPolicyArns"]:
            policy = attached["Fn::If"][1] if "Fn::If" in attached else attached
            statements += managed(stack.ids[policy["Ref"]])
        return statements

    return {
        "submit": role("SubmitRole"),
        "task-state": role("TaskStateRole"),
        "reconcile": role("ReconcileRole"),
        "schedule": role("ScheduleRole"),
        "runner-api": role("RunnerApiRole"),
        "executor": managed(stack.ids["ExecutorPolicy"]),
        "page": managed(stack.ids["AirflowUiPolicy"]),
        "runner": managed(stack.ids["RunnerPolicy"]),
    }


def permits(statements: Iterable[Statement], call: Call) -> bool:
    """Whether one of these statements allows the call."""
    return any(_matches(statement, call) and _holds(statement, call.context) for statement in statements)


def _matches(statement: Statement, call: Call) -> bool:
    assert statement["Effect"] == "Allow", statement
    bare = {member: value for member, value in statement.items() if member != "Condition"}
    # moto makes a regular expression of it, in which it knows `*` alone.
    document = json.dumps({"Version": "2012-10-17", "Statement": [bare]}).replace("?", ".")
    policy = IAMPolicy(document)
    return policy.is_action_permitted(call.action, call.resource) == PermissionResult.PERMITTED


def _holds(statement: Statement, context: Context) -> bool:
    return all(
        _compare(operator, expected if isinstance(expected, list) else [expected], context.get(key))
        for operator, keys in statement.get("Condition", {}).items()
        for key, expected in keys.items()
    )


def _compare(operator: str, expected: list[str], actual: str | list[str] | None) -> bool:
    values = [actual] if isinstance(actual, str) else actual
    match operator:
        case "StringEquals" | "Bool":
            return values is not None and any(value in expected for value in values)
        case "StringEqualsIfExists":
            return values is None or any(value in expected for value in values)
        case "ForAllValues:StringEquals":
            return all(value in expected for value in values or [])
        case "ForAnyValue:StringLike":
            return any(_is_like(expected, value) for value in values or [])
        case "ForAllValues:StringLike":
            return all(_is_like(expected, value) for value in values or [])
        case "ArnEquals":
            return values is not None and any(_arn_like(pattern, value) for pattern in expected for value in values)
        case "Null":
            return (values is None) == (expected == ["true"])
    raise NotImplementedError(operator)


def _is_like(patterns: list[str], value: str) -> bool:
    return any(re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), value) for pattern in patterns)


def _arn_like(pattern: str, arn: str) -> bool:
    """ArnEquals and ArnLike are the same: wildcards within each of the six parts."""
    parts = zip(pattern.split(":", 5), arn.split(":", 5), strict=True)
    return all(re.fullmatch(re.escape(part).replace(r"\*", ".*").replace(r"\?", "."), of) for part, of in parts)


def without_statement(statements: list[Statement]) -> Iterator[tuple[str, list[Statement]]]:
    """The policy without one of its statements, for each of them."""
    for i, statement in enumerate(statements):
        yield statement["Sid"], statements[:i] + statements[i + 1 :]


def without_action(statements: list[Statement]) -> Iterator[tuple[str, list[Statement]]]:
    """The policy without one of its actions, for each of them."""
    for i, statement in enumerate(statements):
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        for action in actions:
            rest = [other for other in actions if other != action]
            changed = [statement | {"Action": rest}] if rest else []
            yield f"{statement['Sid']}/{action}", statements[:i] + changed + statements[i + 1 :]


def without_condition(statements: list[Statement]) -> Iterator[tuple[str, list[Statement]]]:
    """The policy without one of its condition keys, for each of them."""
    for i, statement in enumerate(statements):
        for operator, keys in statement.get("Condition", {}).items():
            for key in keys:
                conditions = {o: dict(k) for o, k in statement["Condition"].items()}
                del conditions[operator][key]
                yield (
                    f"{statement['Sid']}/{key}",
                    [*statements[:i], statement | {"Condition": conditions}, *statements[i + 1 :]],
                )


Reduced = Callable[[list[Statement]], Iterator[tuple[str, list[Statement]]]]


def unneeded(granted: Mapping[str, list[Statement]], called: Collection[Call], reduced: Reduced) -> list[str]:
    """The parts of policies without which every call is still allowed."""
    return [
        f"{role}: {name}"
        for role, statements in granted.items()
        for name, rest in reduced(statements)
        if all(permits(rest, call) for call in called if call.role == role)
    ]


def ineffective_conditions(granted: Mapping[str, list[Statement]], denied: Collection[Call]) -> list[str]:
    """The conditions without which every one of these calls is still denied."""
    return [
        f"{role}: {name}"
        for role, statements in granted.items()
        for name, wider in without_condition(statements)
        if not any(permits(wider, call) for call in denied if call.role == role)
    ]
