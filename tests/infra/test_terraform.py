"""The Terraform module passes its input to a CloudFormation stack, and takes the template and the zips of a release."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest
import terraform_interface
from release_template import packaged, without_urls
from samtranslator.yaml_helper import yaml_parse
from stacks import EVERY_OPTION, NO_URLS, PARAMETERS, ROOT, template
from terraform import MODULE, Values, by_label, evaluated, plain, references, sources
from terraform_interface import ROLLBACK, snake, type_of
from test_templates import run

from cloudformation import REGION, arn

REQUIRED = "no default"
CODE = {"code_bucket": "code", "code_prefix": "ecs-bridge/1/"}
OF_MODULE = {"stack_name", "code_bucket", "code_prefix", "code_directory", "cloudformation_role_arn", "tags"}

# Every other parameter than its default, and none of the options.
OTHERS = PARAMETERS | {
    "LaunchRate": "7",
    "LaunchBurst": "11",
    "ReconcileMinutes": "5",
    "RetentionDays": "90",
    "BackupDays": "14",
    "RestoredTable": "restored",
    "DeadLetterSeconds": "7200",
    "LogRetentionDays": "365",
    "LogLevel": "DEBUG",
    "SubmitMemory": "512",
    "TaskStateMemory": "513",
    "ReconcileMemory": "514",
    "RunnerApiMemory": "515",
    "ReconcileConcurrency": "2",
    "RunnerApiConcurrency": "3",
    "RunnerApiDirectInvocation": "true",
    "MissedEventsAlarmPercent": "50",
    "QueueAgeAlarmSeconds": "120",
}
DEPLOYMENTS = {"defaults": PARAMETERS, "every option": EVERY_OPTION, "without URLs": NO_URLS, "other values": OTHERS}
PARAMETERS_OF_TEMPLATE = template()["Parameters"]
OUTPUTS_OF_TEMPLATE = template()["Outputs"].keys()


def variable(name: str, given: str) -> Any:
    """A parameter's value as one gives it to Terraform."""
    match type_of(PARAMETERS_OF_TEMPLATE[name]):
        case "list(string)":
            return [each for each in given.split(",") if each]
        case "bool":
            return given == "true"
        case "number":
            return int(given)
    return given


def variables(parameters: dict[str, str]) -> Values:
    return {snake(name): variable(name, given) for name, given in parameters.items() if given} | CODE


def stack(given: Values, beside: Mapping[str, str] = MappingProxyType({})) -> Values:
    (found,) = evaluated(sources(), given, beside)["aws_cloudformation_stack"]
    return plain(found)


# --- Parameters of the stack -----------------------------------------------------------------------


def test_variables_and_outputs_match_the_template() -> None:
    files = sources()
    assert {name: files[name] for name in terraform_interface.interface()} == terraform_interface.interface(), (
        "run tools/terraform_interface.py"
    )


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_each_parameter_reaches_the_stack_unchanged(deployment: str) -> None:
    given = DEPLOYMENTS[deployment]
    expected = {name: value for name, value in given.items() if value}
    code = {"CodeBucket": "code", "CodePrefix": "ecs-bridge/1/"}
    assert stack(variables(given))["parameters"] == expected | code


def test_each_parameter_is_tested_with_another_value() -> None:
    given = {
        name
        for parameters in DEPLOYMENTS.values()
        for name, value in parameters.items()
        if value != str(PARAMETERS_OF_TEMPLATE[name].get("Default"))
    }
    assert given == PARAMETERS_OF_TEMPLATE.keys()


@pytest.mark.parametrize(
    ("function_url", "file"), [(None, "packaged"), (True, "packaged"), (False, "packaged-no-urls")]
)
def test_every_released_template_accepts_the_parameters(function_url: bool | None, file: str) -> None:
    chosen = stack(variables(PARAMETERS) | {"function_url": function_url})
    assert chosen["template_url"] == f"https://code.s3.{REGION}.amazonaws.com/ecs-bridge/1/{file}.yaml"
    text = (ROOT / "template.yaml").read_text()
    body = yaml_parse(packaged(text if file == "packaged" else without_urls(text), ["x86_64", "arm64"]))
    required = {name for name, parameter in body["Parameters"].items() if "Default" not in parameter}
    assert required <= chosen["parameters"].keys() <= body["Parameters"].keys()
    if "FunctionUrl" in chosen["parameters"]:
        assert chosen["parameters"]["FunctionUrl"] in body["Parameters"]["FunctionUrl"]["AllowedValues"]


def test_missing_stack_output_is_null() -> None:
    trigger = {"Type": "AWS::CloudWatch::Alarm", "Arn": "alarm-arn"}
    values = {name: f"the {name}" for name in OUTPUTS_OF_TEMPLATE - {"CallerRoleArn"}}
    values[ROLLBACK] = json.dumps({"RollbackTriggers": [trigger]})
    found = by_label(evaluated(sources(), variables(PARAMETERS) | {"outputs_of_stack": values})["output"])
    assert {name: each.get("value") for name, each in found.items()} == {
        **{snake(name): value for name, value in values.items() if name != ROLLBACK},
        "caller_role_arn": None,
        "rollback_alarm_arns": ["alarm-arn"],
    }


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "prod"),
        ({"deployment": "my_jobs"}, "my-jobs"),
        ({"deployment": None}, "ecs-bridge"),
        ({"stack_name": "other"}, "other"),
    ],
)
def test_stack_name_is_valid_for_cloudformation(given: Values, name: str) -> None:
    assert stack(variables(PARAMETERS) | given)["name"] == name


# --- Where its code comes from ---------------------------------------------------------------------

RELEASE = {
    name: f"the {name}"
    for name in (
        "packaged.yaml",
        "packaged-no-urls.yaml",
        "x86_64/submit.zip",
        "arm64/submit.zip",
        "iam-policies.yaml",
        "SHA256SUMS",
    )
}


def uploaded(release: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The stack's prefix, and the objects by key."""
    given = variables(PARAMETERS) | {"code_directory": "dist"}
    blocks = evaluated(sources(), given, {f"dist/{name}": text for name, text in release.items()})
    (found,) = blocks["aws_cloudformation_stack"]
    prefix = found["parameters"]["CodePrefix"]
    assert found["template_url"] == f"https://code.s3.{REGION}.amazonaws.com/{prefix}packaged.yaml"
    assert all(each["bucket"] == "code" for each in blocks["aws_s3_object"])
    return prefix, {each["key"]: each["source"] for each in blocks["aws_s3_object"]}


def test_release_is_uploaded_under_its_content_hash() -> None:
    prefix, objects = uploaded(RELEASE)
    assert re.fullmatch(r"ecs-bridge/1/[0-9a-f]{16}/", prefix)
    taken = ("packaged.yaml", "packaged-no-urls.yaml", "x86_64/submit.zip", "arm64/submit.zip")
    assert objects == {f"{prefix}{name}": f"dist/{name}" for name in taken}
    assert uploaded(RELEASE)[0] == prefix
    for name in taken:
        assert uploaded(RELEASE | {name: "another"})[0] != prefix, name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, None),
        (
            {"profiles_layer_arn": EVERY_OPTION["ProfilesLayerArn"]},
            "Set exactly one of profiles and profiles_layer_arn.",
        ),
        ({"profiles": None}, "Set exactly one of profiles and profiles_layer_arn."),
        ({"code_directory": "empty"}, "code_directory must contain a release."),
    ],
)
def test_broken_precondition_has_a_message(given: Values, message: str | None) -> None:
    found = stack(variables(PARAMETERS) | given, {"empty/README": ""})
    broken = [each["error_message"] for each in found["lifecycle"]["precondition"] if not each["condition"]]
    assert len(broken) == bool(message)
    assert not message or broken[0].startswith(message)


# --- Validation of variables -----------------------------------------------------------------------


def long(name: str, length: int) -> Any:
    """A value of so many characters."""
    is_list = type_of(PARAMETERS_OF_TEMPLATE[name]) == "list(string)"
    return [arn("ecs", "cluster/").ljust(length, "c")] if is_list else "x" * length


def bad(name: str, parameter: Values) -> Iterator[Any]:
    """Values that CloudFormation refuses."""
    kind = type_of(parameter)
    if "MinValue" in parameter:
        yield parameter["MinValue"] - 1
    if "MaxValue" in parameter:
        yield parameter["MaxValue"] + 1
    if "MaxLength" in parameter:
        yield long(name, parameter["MaxLength"] + 1)
    if "AllowedPattern" in parameter:
        value = "#" if kind != "number" else -1
        assert not re.fullmatch(parameter["AllowedPattern"], str(value))
        yield [value] if kind == "list(string)" else value
    if "AllowedValues" in parameter and kind != "bool":
        yield 4 if kind == "number" else "neither"


def good(name: str, parameter: Values) -> Iterator[Any]:
    """Values at the limits that CloudFormation accepts."""
    yield from (parameter[limit] for limit in ("MinValue", "MaxValue") if limit in parameter)
    if "MaxLength" in parameter:
        yield long(name, parameter["MaxLength"])
    yield from (variable(name, str(each)) for each in parameter.get("AllowedValues", ()))
    if "AllowedPattern" in parameter and (given := (OTHERS | EVERY_OPTION).get(name)):
        yield variable(name, given)


@pytest.mark.parametrize(("values", "taken"), [(bad, False), (good, True)])
def test_variable_validation_matches_the_parameter(values: Any, taken: bool) -> None:
    cases = {snake(name): list(values(name, parameter)) for name, parameter in PARAMETERS_OF_TEMPLATE.items()}
    # The variables alone: one evaluation tries a value of each.
    files = {"variables.tf": sources()["variables.tf"]}
    for turn in range(max(map(len, cases.values()))):
        given = {name: each[turn] for name, each in cases.items() if turn < len(each)}
        declared = by_label(evaluated(files, given)["variable"])
        for name, value in given.items():
            rules = declared[name].get("validation", [])
            holds = all(each["condition"] for each in (rules if isinstance(rules, list) else [rules]))
            assert holds is taken, f"{name} = {value}"


# --- That it is Terraform --------------------------------------------------------------------------
# The provider can be had from no package registry, so nothing here runs `terraform validate`.

PROVIDER = json.loads((ROOT / "tests/fixtures/aws_provider.json").read_text())["resources"]
EXAMPLE = sources(MODULE / "example")


def misfits(value: Any, schema: Values, path: str) -> Iterator[str]:
    """Arguments that the provider does not know, and required ones that are missing."""
    for each in value if isinstance(value, list) else [value]:
        given = each.keys() - {"count", "for_each", "lifecycle", "depends_on"}
        yield from (f"{path}.{name} is unknown" for name in given - schema.keys())
        yield from (
            f"{path}.{name} is missing" for name, kind in schema.items() if kind == "required" and name not in each
        )
        for name in given & schema.keys():
            if isinstance(schema[name], dict):
                yield from misfits(each[name], schema[name], f"{path}.{name}")


@pytest.mark.parametrize("files", [sources(), EXAMPLE], ids=["module", "example"])
def test_every_argument_is_known_to_the_provider(files: dict[str, str]) -> None:
    given = {"code_directory": "dist"} | (variables(PARAMETERS) if "variables.tf" in files else {})
    blocks = evaluated(files, given, {"dist/packaged.yaml": ""})
    resources = [
        (kind, each)
        for kind, found in blocks.items()
        for each in found
        if kind.startswith("aws_") and each["__tfmeta"]["type"] == "resource"
    ]
    assert resources
    assert not [
        wrong
        for kind, each in resources
        for wrong in misfits(plain(each), PROVIDER[kind]["arguments"], each["__tfmeta"]["path"])
    ]


@pytest.mark.parametrize("files", [sources(), EXAMPLE], ids=["module", "example"])
def test_every_reference_has_a_declaration(files: dict[str, str]) -> None:
    text = "\n".join(files.values())
    blocks = re.findall(r'^(variable|module|data|resource) "(\w+)"(?: "(\w+)")?', text, re.MULTILINE)
    assert references(text, "var") == {name for kind, name, _ in blocks if kind == "variable"}
    local = {
        name
        for body in re.findall(r"^locals \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
        for name in re.findall(r"^  (\w+) +=", body, re.MULTILINE)
    }
    assert references(text, "local") == local
    declared = {f"{kind}.{name}" for each, kind, name in blocks if each == "resource"}
    for kind, name, attribute in re.findall(r"(?<!data\.)\b(aws_\w+)\.(\w+)(?:\[[^\]]*\])?(?:\.(\w+))?", text):
        assert f"{kind}.{name}" in declared
        known = {"id", ""} | PROVIDER[kind]["arguments"].keys() | set(PROVIDER[kind]["computed"])
        assert attribute in known, f"{kind}.{name}.{attribute}"


def test_example_sets_every_required_variable() -> None:
    (call,) = evaluated(EXAMPLE, {})["module"]
    blocks = evaluated(sources(), variables(PARAMETERS))
    declared, given = by_label(blocks["variable"]), plain(call).keys() - {"source"}
    declared.pop("outputs_of_stack")
    assert declared.keys() == OF_MODULE | set(map(snake, PARAMETERS_OF_TEMPLATE))
    assert {name for name, each in declared.items() if "default" not in each} <= given <= declared.keys()
    assert references("\n".join(EXAMPLE.values()), r"module\.bridge") <= by_label(blocks["output"]).keys()


def test_checkov_reports_no_unjustified_finding() -> None:
    checkov = str(ROOT / ".venv-checkov/bin/checkov")
    run(
        checkov,
        *["--framework", "terraform", "--skip-download", "--compact", "--quiet", "--directory", "infra/terraform"],
    )
