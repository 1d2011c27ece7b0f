"""A template as CloudFormation would create it: intrinsics are resolved as CloudFormation resolves them.

What is not known here is an error, so nothing is left out in silence.
"""

from __future__ import annotations

import re
from typing import Any

from stacks import ACCOUNT, REGION, arn, packaged

Values = dict[str, Any]
NO_VALUE = object()

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
