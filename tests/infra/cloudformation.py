"""template.yaml as CloudFormation would create it, told in Terraform's words.

Intrinsics are resolved as CloudFormation resolves them. Then each resource is told by the names of the AWS provider,
mostly those of its properties in snake case. What is not known here is an error, so nothing is left out in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from stacks import ACCOUNT, REGION, arn, packaged

Values = dict[str, Any]
NO_VALUE = object()

# CloudFormation makes up the names of these; the module chooses them.
NAMES = {
    "Table": "{}-submissions",
    "EventDeadLetters": "{}-event-dead-letters",
    "ReconcileDeadLetters": "{}-reconcile-dead-letters",
    "SubmitRole": f"{{}}-{REGION}-submit",
    "TaskStateRole": f"{{}}-{REGION}-task-state",
    "ReconcileRole": f"{{}}-{REGION}-reconcile",
    "WorkRole": f"{{}}-{REGION}-work",
    "ScheduleRole": f"{{}}-{REGION}-schedule",
    "CallerRole": f"{{}}-{REGION}-caller",
    "LaunchPolicy": f"{{}}-{REGION}-launch",
    "TellPolicy": f"{{}}-{REGION}-tell",
    "PagePolicy": f"{{}}-{REGION}-page",
    "PassRolesPolicy": f"{{}}-{REGION}-pass-roles",
    "VolumesPolicy": f"{{}}-{REGION}-volumes",
    "TasksPolicy": f"{{}}-{REGION}-tasks",
    "RunnerPolicy": f"{{}}-{REGION}-runner",
    "ExecutorPolicy": f"{{}}-{REGION}-executor",
    # In the module their statements are in the roles themselves: where the same plan creates the key, Terraform cannot
    # tell how many policies there are.
    "VpcPolicy": "",
    "KeyPolicy": "",
    "DeadLetterKeyPolicy": "",
}
PROPERTY_OF_NAME = {
    "AWS::CloudWatch::Alarm": "AlarmName",
    "AWS::ECS::Cluster": "ClusterName",
    "AWS::Events::Rule": "Name",
    "AWS::Lambda::Function": "FunctionName",
    "AWS::Logs::LogGroup": "LogGroupName",
}


class Deployed:
    """A template after the SAM transform, under these parameters."""

    def __init__(self, body: Values, parameters: dict[str, str]) -> None:
        self._body = body
        self.parameters = body["Parameters"]
        self._parameters = {
            name: parameters.get(name, str(parameter.get("Default", "")))
            for name, parameter in body["Parameters"].items()
        }
        self.resources = {
            logical_id: self._value(resource["Properties"])
            for logical_id, resource in body["Resources"].items()
            if self._holds(resource.get("Condition"))
        }
        self.outputs = {
            name: self._value(output["Value"]) if self._holds(output.get("Condition")) else None
            for name, output in body["Outputs"].items()
        }

    def kind(self, logical_id: str) -> str:
        return self._body["Resources"][logical_id]["Type"]

    def name(self, logical_id: str) -> str:
        if logical_id in NAMES:
            return NAMES[logical_id].format(self._parameters["Deployment"]) or logical_id
        named_by = PROPERTY_OF_NAME.get(self.kind(logical_id))
        return self._value(self._body["Resources"][logical_id]["Properties"][named_by]) if named_by else logical_id

    def nested(self, logical_id: str) -> Deployed:
        """The stack of template.yaml that this one holds."""
        given = self._value(self._body["Resources"][logical_id]["Properties"]["Parameters"])
        return Deployed(packaged(), given)

    def _holds(self, condition: str | None) -> bool:
        return condition is None or self._value(self._body["Conditions"][condition])

    def _value(self, node: Any) -> Any:
        value = self._value
        match node:
            case {"Ref": "AWS::NoValue"}:
                return NO_VALUE
            case {"Ref": str(name)}:
                return self._reference(name)
            case {"Fn::GetAtt": [str(logical_id), str(attribute)]}:
                return self._attribute(logical_id, attribute)
            case {"Fn::Sub": [str(text), dict(further)]}:
                return self._filled(text, value(further))
            case {"Fn::Sub": str(text)}:
                return self._filled(text, {})
            case {"Fn::If": [str(condition), then, otherwise]}:
                return value(then if self._holds(condition) else otherwise)
            case {"Fn::Equals": [left, right]}:
                return str(value(left)) == str(value(right))
            case {"Fn::Not": [operand]}:
                return not value(operand)
            case {"Condition": str(condition)} if len(node) == 1:
                return self._holds(condition)
            case {"Fn::Or": list(operands)}:
                return any(map(value, operands))
            case {"Fn::And": list(operands)}:
                return all(map(value, operands))
            case {"Fn::Join": [str(separator), parts]}:
                return separator.join(value(parts))
            case {"Fn::Split": [str(separator), text]}:
                return value(text).split(separator)
            case {"Fn::Select": [index, parts]}:
                return value(parts)[int(index)]
            case {"Fn::GetAZs": _}:
                return [f"{REGION}a", f"{REGION}b"]
            case {"Fn::FindInMap": [str(name), first, second]}:
                return self._body["Mappings"][name][value(first)][value(second)]
            case dict():
                assert not any(name.startswith("Fn::") for name in node), node
                return {
                    name: each
                    for name, each in zip(node, map(value, node.values()), strict=True)
                    if each is not NO_VALUE
                }
            case list():
                return [each for each in map(value, node) if each is not NO_VALUE]
        return node

    def _reference(self, name: str) -> Any:
        pseudo = {
            "AWS::Partition": "aws",
            "AWS::Region": REGION,
            "AWS::StackName": "stack",
            "AWS::AccountId": ACCOUNT,
            "AWS::URLSuffix": "amazonaws.com",
        }
        if name in pseudo:
            return pseudo[name]
        if name in self._parameters:
            given = self._parameters[name]
            is_list = self._body["Parameters"][name]["Type"] == "CommaDelimitedList"
            return [each for each in given.split(",") if each] if is_list else given
        match self.kind(name):
            case "AWS::SQS::Queue":
                return f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{self.name(name)}"
            case "AWS::IAM::ManagedPolicy":
                return f"arn:aws:iam::{ACCOUNT}:policy/{self.name(name)}"
            case "AWS::StepFunctions::StateMachine":
                return arn("states", f"stateMachine:{self.name(name)}")
        return self.name(name)

    def _attribute(self, logical_id: str, attribute: str) -> str:
        match self.kind(logical_id), attribute:
            case "AWS::Lambda::Url", "FunctionUrl":
                return f"https://{self._value(self._target(logical_id))}.lambda-url.{REGION}.on.aws/"
            case "AWS::SQS::Queue", "QueueName":
                return self.name(logical_id)
            case "AWS::CloudFormation::Stack", _:
                return self.nested(logical_id).outputs[attribute.removeprefix("Outputs.")]
            case kind, "Arn":
                return {
                    "AWS::ECS::Cluster": arn("ecs", "cluster/{}"),
                    "AWS::CloudWatch::Alarm": arn("cloudwatch", "alarm:{}"),
                    "AWS::DynamoDB::Table": arn("dynamodb", "table/{}"),
                    "AWS::Events::Rule": arn("events", "rule/{}"),
                    "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT}:role/{{}}",
                    "AWS::KMS::Key": arn("kms", "key/{}"),
                    "AWS::Lambda::Function": arn("lambda", "function:{}"),
                    "AWS::Logs::LogGroup": arn("logs", "log-group:{}:*"),
                    "AWS::SQS::Queue": arn("sqs", "{}"),
                }[kind].format(self.name(logical_id))
        raise NotImplementedError(logical_id, attribute)

    def _target(self, logical_id: str) -> Any:
        return self._body["Resources"][logical_id]["Properties"]["TargetFunctionArn"]

    def _filled(self, text: str, further: Values) -> str:
        def filled(match: re.Match[str]) -> str:
            name, _, attribute = match[1].partition(".")
            return str(
                further[name]
                if name in further
                else self._attribute(name, attribute)
                if attribute
                else self._reference(name)
            )

        return re.sub(r"\$\{([\w:.]+)\}", filled, text)


# --- In Terraform's words ------------------------------------------------------------------------

Resources = dict[tuple[str, str], Values]


def snake(name: str) -> str:
    """`MaximumEventAgeInSeconds` as `maximum_event_age_in_seconds`, `OKActions` as `ok_actions`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def block(properties: Any, **renamed: str) -> Any:
    """Properties by the provider's names; their values keep theirs where a map is not a block."""
    if isinstance(properties, list):
        return [block(each, **renamed) for each in properties]
    if not isinstance(properties, dict):
        return properties
    found = {}
    for name, value in properties.items():
        if name == "Tags":
            found["tags"] = {tag["Key"]: tag["Value"] for tag in value if tag["Key"] != "lambda:createdBy"}
        elif name in ("Variables", "EventPattern", "PolicyDocument", "AssumeRolePolicyDocument"):
            found[renamed.get(name, snake(name))] = value
        elif name == "Dimensions":
            found["dimensions"] = {dimension["Name"]: dimension["Value"] for dimension in value}
        else:
            found[renamed.get(name, snake(name))] = block(value, **renamed)
    return found


def table(properties: Values) -> Values:
    def keys(schema: list[Values]) -> Values:
        return {f"{key['KeyType'].lower()}_key": key["AttributeName"] for key in schema}

    properties = dict(properties)
    indexes = [dict(index) for index in properties.pop("GlobalSecondaryIndexes")]
    attributes = properties.pop("AttributeDefinitions")
    recovery, encryption = properties.pop("PointInTimeRecoverySpecification"), properties.pop("SSESpecification", None)
    if encryption:
        assert encryption.pop("SSEType") == "KMS"
    return {
        **keys(properties.pop("KeySchema")),
        "attribute": [{"name": each["AttributeName"], "type": each["AttributeType"]} for each in attributes],
        "global_secondary_index": [
            keys(index.pop("KeySchema")) | block(index.pop("Projection")) | block(index, IndexName="name")
            for index in indexes
        ],
        "point_in_time_recovery": block(recovery, PointInTimeRecoveryEnabled="enabled"),
        "server_side_encryption": encryption and block(encryption, SSEEnabled="enabled", KMSMasterKeyId="kms_key_arn"),
        **block(properties, TimeToLiveSpecification="ttl"),
    }


def alarm(properties: Values) -> Values:
    properties = dict(properties)
    queries = []
    for query in properties.pop("Metrics", []):
        query = dict(query)
        statistic = dict(query.pop("MetricStat", {}))
        metric = block(statistic.pop("Metric", {})) | block(statistic)
        queries.append({"return_data": True} | block(query) | ({"metric": metric} if metric else {}))
    return block(properties) | {"metric_query": queries}


def statements(document: Values) -> list[Values]:
    """What a policy says, whatever the order, with a list of one for one."""

    def listed(value: Any) -> Any:
        match value:
            case dict():
                return {name: listed(each) for name, each in value.items()}
            case list():
                return sorted(map(str, value))
        return [str(value)]

    assert document.keys() == {"Version", "Statement"} and document["Version"] == "2012-10-17"
    return sorted(map(listed, document["Statement"]), key=json.dumps)


# By type: the resource of the provider, the attribute that tells one from another, and how properties are told.
KINDS: dict[str, tuple[str, str, Callable[[Values], Values]]] = {
    "AWS::CloudWatch::Alarm": ("aws_cloudwatch_metric_alarm", "alarm_name", alarm),
    "AWS::CloudWatch::Dashboard": ("aws_cloudwatch_dashboard", "dashboard_name", block),
    "AWS::DynamoDB::Table": ("aws_dynamodb_table", "name", table),
    "AWS::Lambda::EventInvokeConfig": ("aws_lambda_function_event_invoke_config", "function_name", block),
    "AWS::Lambda::Function": ("aws_lambda_function", "function_name", block),
    "AWS::Lambda::Permission": ("aws_lambda_permission", "function_name", block),
    "AWS::Lambda::Url": (
        "aws_lambda_function_url",
        "function_name",
        lambda properties: block(properties, TargetFunctionArn="function_name", AuthType="authorization_type"),
    ),
    "AWS::Logs::LogGroup": (
        "aws_cloudwatch_log_group",
        "name",
        lambda properties: block(properties, LogGroupName="name"),
    ),
    "AWS::Logs::QueryDefinition": ("aws_cloudwatch_query_definition", "name", block),
    "AWS::SQS::Queue": (
        "aws_sqs_queue",
        "name",
        lambda properties: block(properties, MessageRetentionPeriod="message_retention_seconds"),
    ),
    "AWS::Scheduler::Schedule": ("aws_scheduler_schedule", "name", block),
}
# Its default in the provider.
DEFAULTS = {"aws_lambda_function_event_invoke_config": {"qualifier": "$LATEST"}}


def as_terraform(deployed: Deployed) -> Resources:
    """Every resource by type and name."""
    told: Resources = {}
    policies = {
        f"arn:aws:iam::{ACCOUNT}:policy/{deployed.name(logical_id)}": statements(properties["PolicyDocument"])
        for logical_id, properties in deployed.resources.items()
        if deployed.kind(logical_id) == "AWS::IAM::ManagedPolicy"
    }
    for logical_id, properties in deployed.resources.items():
        match deployed.kind(logical_id):
            case "AWS::IAM::ManagedPolicy":
                if NAMES[logical_id]:
                    name, (described, document) = (
                        deployed.name(logical_id),
                        (properties["Description"], properties["PolicyDocument"]),
                    )
                    assert properties.keys() == {"Description", "PolicyDocument"}
                    told["aws_iam_policy", name] = {"description": described, "policy": statements(document)}
            case "AWS::IAM::Role":
                role = dict(properties)
                own = [statements(policy["PolicyDocument"]) for policy in role.pop("Policies", [])]
                managed = [policies[policy] for policy in role.pop("ManagedPolicyArns")]
                told["aws_iam_role", deployed.name(logical_id)] = {
                    "allows": sorted((each for policy in own + managed for each in policy), key=json.dumps),
                    "assume_role_policy": statements(role.pop("AssumeRolePolicyDocument")),
                    **block(role),
                }
            case "AWS::SQS::QueuePolicy":
                (queue,) = properties["Queues"]
                told["aws_sqs_queue_policy", queue] = {"policy": statements(properties["PolicyDocument"])}
            case "AWS::Events::Rule":
                name, (target,) = properties["Name"], properties["Targets"]
                assert properties.keys() == {"EventPattern", "Name", "Targets"}
                told["aws_cloudwatch_event_rule", name] = {"event_pattern": properties["EventPattern"]}
                target = {key: value for key, value in target.items() if key != "Id"}
                told["aws_cloudwatch_event_target", name] = block(target)
            case kind:
                resource, named_by, words = KINDS[kind]
                attributes = words(properties)
                name = str(attributes.pop(named_by, None) or deployed.name(logical_id))
                for attribute, default in DEFAULTS.get(resource, {}).items():
                    assert attributes.pop(attribute) == default
                told[resource, name] = attributes
    return told
