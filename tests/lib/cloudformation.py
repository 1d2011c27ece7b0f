"""Resolves the intrinsic functions of CloudFormation templates as CloudFormation does, without creating anything.

A template must be parsed and, if it is a SAM template, transformed before. An unknown function, attribute or type is an
error, so that no test passes on an unresolved value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

ACCOUNT = "123456789012"
REGION = "us-east-1"

Values = dict[str, Any]
NO_VALUE = object()


def arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"


PSEUDO_PARAMETERS = {
    "AWS::AccountId": ACCOUNT,
    "AWS::NoValue": NO_VALUE,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::StackName": "stack",
    "AWS::URLSuffix": "amazonaws.com",
}
# The property that sets the physical name. Other resources have a generated name, which is the logical ID here.
NAME_PROPERTIES = {
    "AWS::CloudWatch::Alarm": "AlarmName",
    "AWS::ECS::Cluster": "ClusterName",
    "AWS::Events::Rule": "Name",
    "AWS::Lambda::Function": "FunctionName",
    "AWS::Logs::LogGroup": "LogGroupName",
}
# Ref returns the name, except for these types.
REFERENCES = {
    "AWS::IAM::ManagedPolicy": f"arn:aws:iam::{ACCOUNT}:policy/{{}}",
    "AWS::SQS::Queue": f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{{}}",
    "AWS::StepFunctions::StateMachine": arn("states", "stateMachine:{}"),
}
ARNS = {
    "AWS::CloudWatch::Alarm": arn("cloudwatch", "alarm:{}"),
    "AWS::DynamoDB::Table": arn("dynamodb", "table/{}"),
    "AWS::ECS::Cluster": arn("ecs", "cluster/{}"),
    "AWS::Events::Rule": arn("events", "rule/{}"),
    "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT}:role/{{}}",
    "AWS::KMS::Key": arn("kms", "key/{}"),
    "AWS::Lambda::Function": arn("lambda", "function:{}"),
    "AWS::Logs::LogGroup": arn("logs", "log-group:{}:*"),
    "AWS::SQS::Queue": arn("sqs", "{}"),
}


class ResolvedTemplate:
    """A template under these parameters. `nested` has the templates of nested stacks, by logical ID.

    `resources` has the properties of each resource that would be created, and `outputs` has None for an output whose
    condition is false.
    """

    def __init__(
        self, body: Values, parameters: Mapping[str, str], nested: Mapping[str, Values] = MappingProxyType({})
    ) -> None:
        self._body = body
        self._nested = nested
        self._parameters = {
            name: parameters.get(name, str(parameter.get("Default", "")))
            for name, parameter in body.get("Parameters", {}).items()
        }
        self.resources: dict[str, Values] = {
            logical_id: self._value(resource.get("Properties", {}))
            for logical_id, resource in body["Resources"].items()
            if self._is_true(resource.get("Condition"))
        }
        self.outputs: dict[str, Any] = {
            name: self._value(output["Value"]) if self._is_true(output.get("Condition")) else None
            for name, output in body.get("Outputs", {}).items()
        }

    def type_of(self, logical_id: str) -> str:
        return self._body["Resources"][logical_id]["Type"]

    def of_type(self, *types: str) -> dict[str, Values]:
        """The properties of the resources of these types, by logical ID."""
        return {name: each for name, each in self.resources.items() if self.type_of(name) in types}

    def name(self, logical_id: str) -> str:
        """The physical name, or the logical ID in place of a generated name."""
        resource = self._body["Resources"][logical_id]
        named_by = NAME_PROPERTIES.get(resource["Type"])
        return self._value(resource["Properties"][named_by]) if named_by else logical_id

    def nested(self, logical_id: str) -> ResolvedTemplate:
        """The nested stack, under the parameters that this template passes."""
        given = self._value(self._body["Resources"][logical_id]["Properties"]["Parameters"])
        return ResolvedTemplate(self._nested[logical_id], given)

    def _is_true(self, condition: str | None) -> bool:
        return condition is None or self._value(self._body["Conditions"][condition])

    def _value(self, node: Any) -> Any:
        value = self._value
        match node:
            case {"Ref": str(name)}:
                return self._reference(name)
            case {"Fn::GetAtt": [str(logical_id), str(attribute)]}:
                return self._attribute(logical_id, attribute)
            case {"Fn::Sub": [str(text), dict(variables)]}:
                return self._substituted(text, value(variables))
            case {"Fn::Sub": str(text)}:
                return self._substituted(text, {})
            case {"Fn::If": [str(condition), then, otherwise]}:
                return value(then if self._is_true(condition) else otherwise)
            case {"Condition": str(condition)} if len(node) == 1:
                return self._is_true(condition)
            case {"Fn::Equals": [left, right]}:
                return str(value(left)) == str(value(right))
            case {"Fn::Not": [operand]}:
                return not value(operand)
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
                if any(name.startswith("Fn::") for name in node):
                    raise NotImplementedError(node)
                resolved = {name: value(each) for name, each in node.items()}
                return {name: each for name, each in resolved.items() if each is not NO_VALUE}
            case list():
                return [each for each in map(value, node) if each is not NO_VALUE]
        return node

    def _reference(self, name: str) -> Any:
        if name in PSEUDO_PARAMETERS:
            return PSEUDO_PARAMETERS[name]
        if name in self._parameters:
            given = self._parameters[name]
            is_list = self._body["Parameters"][name]["Type"] == "CommaDelimitedList"
            return [each for each in given.split(",") if each] if is_list else given
        return REFERENCES.get(self.type_of(name), "{}").format(self.name(name))

    def _attribute(self, logical_id: str, attribute: str) -> str:
        match self.type_of(logical_id), attribute:
            case "AWS::Lambda::Url", "FunctionUrl":
                target = self._value(self._body["Resources"][logical_id]["Properties"]["TargetFunctionArn"])
                return f"https://{target}.lambda-url.{REGION}.on.aws/"
            case "AWS::SQS::Queue", "QueueName":
                return self.name(logical_id)
            case "AWS::CloudFormation::Stack", _:
                return self.nested(logical_id).outputs[attribute.removeprefix("Outputs.")]
            case kind, "Arn" if kind in ARNS:
                return ARNS[kind].format(self.name(logical_id))
        raise NotImplementedError(logical_id, attribute)

    def _substituted(self, text: str, variables: Values) -> str:
        def value(match: re.Match[str]) -> str:
            is_literal, name = match.groups()
            if is_literal:
                return f"${{{name}}}"
            if name in variables:
                return str(variables[name])
            logical_id, _, attribute = name.partition(".")
            return str(self._attribute(logical_id, attribute) if attribute else self._reference(logical_id))

        return re.sub(r"\$\{(!?)([\w:.]+)\}", value, text)


def nodes(node: Any) -> Iterator[Any]:
    """Every value of a template, the outer ones first."""
    yield node
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(each)


def rewritten(node: Any, replace: Callable[[Any], Any]) -> Any:
    """A copy of a template in which `replace` has replaced values. It returns a value that stays as it is.

    The parts of a replacement are not rewritten.
    """
    replacement = replace(node)
    match node:
        case _ if replacement is not node:
            return replacement
        case dict():
            return {name: rewritten(each, replace) for name, each in node.items()}
        case list():
            return [rewritten(each, replace) for each in node]
    return node
