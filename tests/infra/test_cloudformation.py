"""The resolver of tests/lib/cloudformation.py, by the examples of CloudFormation's user guide, and beside moto."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import boto3
import pytest
from policies import managed
from stacks import EVERY_OPTION, PARAMETERS, Stack, packaged

from cloudformation import ACCOUNT, REGION, ResolvedTemplate, arn, nodes, rewritten


def resolved(value: Any, parameters: Mapping[str, str] = MappingProxyType({})) -> Any:
    body = {
        "Parameters": {
            "Stage": {"Type": "String", "Default": "test"},
            "Zones": {"Type": "CommaDelimitedList", "Default": ""},
        },
        "Mappings": {"Sizes": {"test": {"memory": 512}, "prod": {"memory": 1024}}},
        "Conditions": {
            "IsProd": {"Fn::Equals": [{"Ref": "Stage"}, "prod"]},
            "IsTest": {"Fn::Not": [{"Condition": "IsProd"}]},
            "HasZones": {"Fn::Not": [{"Fn::Equals": [{"Fn::Join": ["", {"Ref": "Zones"}]}, ""]}]},
        },
        "Resources": {
            "Queue": {"Type": "AWS::SQS::Queue"},
            "Rule": {"Type": "AWS::Events::Rule", "Properties": {"Name": {"Fn::Sub": "${Stage}-rule"}}},
            "Extra": {"Type": "AWS::SQS::Queue", "Condition": "IsProd"},
            "Tested": {"Type": "AWS::SNS::Topic", "Properties": {"Value": value}},
        },
    }
    return ResolvedTemplate(body, parameters).resources["Tested"].get("Value")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"Ref": "Stage"}, "test"),
        ({"Ref": "Zones"}, []),
        ({"Ref": "AWS::Region"}, REGION),
        ({"Ref": "Rule"}, "test-rule"),
        ({"Ref": "Queue"}, f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/Queue"),
        ({"Fn::GetAtt": ["Rule", "Arn"]}, arn("events", "rule/test-rule")),
        ({"Fn::GetAtt": ["Queue", "QueueName"]}, "Queue"),
        (
            {"Fn::Sub": "${AWS::AccountId}/${Stage}/${Queue.QueueName}/${!Literal}"},
            f"{ACCOUNT}/test/Queue/${{Literal}}",
        ),
        ({"Fn::Sub": ["${Stage}-${of}", {"of": {"Ref": "Rule"}}]}, "test-test-rule"),
        ({"Fn::If": ["IsProd", "yes", "no"]}, "no"),
        ({"Fn::If": ["IsTest", {"Ref": "AWS::NoValue"}, "no"]}, None),
        ([{"Fn::If": ["HasZones", "zones", {"Ref": "AWS::NoValue"}]}, "always"], ["always"]),
        ({"Fn::FindInMap": ["Sizes", {"Ref": "Stage"}, "memory"]}, 512),
        ({"Fn::Join": ["-", ["a", {"Ref": "Stage"}]]}, "a-test"),
        ({"Fn::Select": ["1", {"Fn::Split": [",", "a,b"]}]}, "b"),
        ({"Fn::Or": [{"Condition": "IsProd"}, {"Condition": "IsTest"}]}, True),
        ({"Fn::And": [{"Condition": "IsProd"}, {"Condition": "IsTest"}]}, False),
    ],
)
def test_intrinsic_function_has_its_documented_value(value: Any, expected: Any) -> None:
    assert resolved(value) == expected


def test_parameters_replace_defaults() -> None:
    given = {"Stage": "prod", "Zones": "a,b"}
    assert resolved({"Ref": "Zones"}, given) == ["a", "b"]
    assert (
        resolved({"Fn::If": ["HasZones", {"Fn::FindInMap": ["Sizes", {"Ref": "Stage"}, "memory"]}, 0]}, given) == 1024
    )


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"Fn::ImportValue": "name"}, NotImplementedError),
        ({"Fn::GetAtt": ["Queue", "Unknown"]}, NotImplementedError),
        ({"Ref": "Unknown"}, KeyError),
        ({"Fn::Sub": "${Unknown}"}, KeyError),
    ],
)
def test_unknown_value_is_an_error(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        resolved(value)


def test_policies_equal_those_of_moto(aws: None) -> None:
    """moto is another implementation. Names that CloudFormation generates differ."""
    parameters = EVERY_OPTION | {"FunctionUrl": "true"}
    stack, template = Stack(packaged(), parameters), ResolvedTemplate(packaged(), parameters)
    policies = template.of_type("AWS::IAM::ManagedPolicy")
    assert policies
    table = boto3.client("dynamodb").describe_table(TableName=stack.ids["Table"])["Table"]["TableArn"]
    for logical_id, policy in policies.items():
        ours = rewritten(
            policy["PolicyDocument"]["Statement"],
            lambda node: node.replace(arn("dynamodb", "table/Table"), table) if isinstance(node, str) else node,
        )
        assert managed(stack.ids[logical_id]) == ours, logical_id


def test_rewriting_keeps_everything_else() -> None:
    body = {"a": ["x", {"b": "x"}], "c": 1}
    assert rewritten(body, lambda node: "y" if node == "x" else node) == {"a": ["y", {"b": "y"}], "c": 1}
    assert body == {"a": ["x", {"b": "x"}], "c": 1}
    assert list(nodes(body)) == [body, body["a"], "x", {"b": "x"}, "x", 1]


def test_absent_resource_has_no_properties() -> None:
    body = packaged()
    assert "SubmitFunctionUrl" in ResolvedTemplate(body, PARAMETERS).resources
    assert "SubmitFunctionUrl" not in ResolvedTemplate(body, PARAMETERS | {"FunctionUrl": "false"}).resources
