"""Lists everything that the emulator does not support, with the cuts that templates need to deploy there.

`test_deployed_templates.py` and `test_deployed.py` assert that each entry still holds, so that a later version of the
emulator fails the test of an entry that can be removed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# The release in which all of this was seen, as pinned in the group `emulator` of pyproject.toml.
VERSION = "1.5.33"

Values = dict[str, Any]


@dataclass(frozen=True)
class Cut:
    """A change to templates that the emulator could not deploy otherwise."""

    what: str
    why: str
    version: str
    of: Callable[[Values], Values]


# Resource types that its CloudFormation does not support.
UNKNOWN_TYPES = {
    "AWS::ApplicationAutoScaling::ScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy",
    "AWS::EC2::SecurityGroupIngress",
    "AWS::Logs::QueryDefinition",
}


def without_unknown_types(template: Values) -> Values:
    resources = template["Resources"]
    return template | {
        "Resources": {name: each for name, each in resources.items() if each["Type"] not in UNKNOWN_TYPES}
    }


def with_plain_alarms(template: Values) -> Values:
    for resource in template["Resources"].values():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::CloudWatch::Alarm" and "Metrics" in properties:
            # The alarm keeps its name for those that refer to it, and never fires.
            first = next(query["MetricStat"] for query in properties.pop("Metrics") if "MetricStat" in query)
            properties |= first["Metric"] | {"Statistic": first["Stat"], "Period": first["Period"], "Threshold": 1e9}
    return template


def with_patient_functions(template: Values) -> Values:
    for resource in template["Resources"].values():
        if resource["Type"] in ("AWS::Lambda::Function", "AWS::Serverless::Function"):
            resource["Properties"]["Timeout"] = 900
    return template


def without_joins_in_conditions(template: Values) -> Values:
    def plain(node: Any) -> Any:
        match node:
            # The parameter's text, which is empty if the list is.
            case {"Fn::Join": ["", {"Ref": str(name)}]}:
                return {"Ref": name}
            case dict():
                return {name: plain(value) for name, value in node.items()}
            case list():
                return [plain(value) for value in node]
        return node

    return template | {"Conditions": plain(template.get("Conditions", {}))}


# Actions, or prefixes of actions, that the emulator authorizes on another resource than IAM.
OTHER_RESOURCES = {
    "ecs:": "the cluster, whatever the request names, and without the condition key ecs:cluster",
    "events:DescribeRule": "rule/default/NAME, although rules of the default bus have no bus in their ARN",
    "events:ListTargetsByRule": "rule/default/NAME",
    "logs:GetLogEvents": "the log group instead of the stream",
}


def with_any_resource(template: Values) -> Values:
    def is_other(actions: Any) -> bool:
        given = [actions] if isinstance(actions, str) else actions
        return all(action.startswith(tuple(OTHER_RESOURCES)) for action in given)

    def widened(node: Any) -> Any:
        match node:
            case {"Effect": "Allow", "Action": actions} if is_other(actions):
                statement = node | {"Resource": "*"}
                condition = statement.pop("Condition", {})
                kept = {operator: keys for operator, keys in condition.items() if "ecs:cluster" not in keys}
                return statement | ({"Condition": kept} if kept else {})
            case dict():
                return {name: widened(value) for name, value in node.items()}
            case list():
                return [widened(value) for value in node]
        return node

    return template | {"Resources": widened(template["Resources"])}


CUTS = [
    Cut(
        "resources of some types (UNKNOWN_TYPES)",
        "CloudFormation refuses a template that has one. Nothing refers to them",
        VERSION,
        without_unknown_types,
    ),
    Cut(
        "Metrics of AWS::CloudWatch::Alarm",
        "metric math is refused",
        VERSION,
        with_plain_alarms,
    ),
    Cut(
        "Timeout of functions",
        "functions share a busy machine with other tests, and would time out for that reason alone",
        VERSION,
        with_patient_functions,
    ),
    Cut(
        "Fn::Join in Conditions",
        "it is compared unresolved, so that no list counts as empty",
        VERSION,
        without_joins_in_conditions,
    ),
    Cut(
        "Resource of some statements of policies",
        "these actions are authorized on other resources than in IAM (OTHER_RESOURCES)",
        VERSION,
        with_any_resource,
    ),
]


def cut(template: Values) -> Values:
    """Returns a template that the emulator can deploy."""
    template = copy.deepcopy(template)
    for each in CUTS:
        template = each.of(template)
    return template


# Findings of `ecs-bridge doctor` that are not ok.
DOCTOR = {
    # Indexes that CloudFormation created have no IndexStatus.
    ("table", "has no active index due, feed, pool"),
}


@dataclass(frozen=True)
class Difference:
    """A difference from AWS that `ecs-bridge verify-aws` reports, by its question."""

    check: str
    why: str
    version: str = VERSION


VERIFY = {
    "RunTask of an unknown task definition": Difference(
        "unknown-task-definition", "the message differs: Unable to find task definition"
    ),
    "RunTask with an unknown subnet": Difference("wrong-subnet", "networkConfiguration is not checked"),
    "RunTask with too much memory": Difference("too-much-memory", "overrides are not checked against Fargate's sizes"),
    "RunTask again with its client token": Difference("token", "clientToken is ignored, so each call starts a task"),
    "the same token with other parameters": Difference("token", "as above"),
    "the same token after the task's end": Difference("token", "as above"),
    "the first event with the exit code": Difference("events", "a task is STOPPED as soon as its container has exited"),
    "a command that is stopped": Difference("stop", "StopTask reports exit code 0 before it ends the container"),
    "an image that does not exist": Difference(
        "cannot-pull",
        "containers have no reason: stoppedReason has a ResourceInitializationError",
    ),
    "an event that task-state cannot handle": Difference(
        "dead-letters",
        "the role may stop tasks of any cluster, as the condition key ecs:cluster is cut",
    ),
    "the metrics of prod-profiles-without-capacity": Difference(
        "alarm-metrics", "the embedded metric format of logs is not supported"
    ),
    "the metrics of prod-checks-overdue": Difference("alarm-metrics", "as above"),
    "the metrics of prod-queue-age": Difference("alarm-metrics", "as above"),
}

# Questions of `ecs-bridge verify-aws` whose answers depend on how fast a machine is. Asynchronous invocations have no
# metrics in the emulator, and its Lambda reports no cold starts.
TIMED = {
    "its delivery",
    "the record of the end, after the first event with it",
    "submit on average and at most",
    "task-state on average and at most",
    "cold starts",
}
