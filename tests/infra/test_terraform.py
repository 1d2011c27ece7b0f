"""The Terraform module makes what template.yaml makes: both are evaluated and compared resource by resource."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from cloudformation import Deployed, Resources, as_terraform, snake
from stacks import EVERY_OPTION, NO_URLS, PARAMETERS, ROOT, arn, packaged, template
from terraform import MODULE, OUTPUTS, Values, as_resources, evaluated, is_data, of_function, of_root, plain, sources
from test_templates import run

TEMPLATE = (ROOT / "template.yaml").read_text()
REQUIRED = "no default"
# The module's own variables, which say where the zips are.
OF_CODE = {"code_bucket", "code_prefix", "code_directory"}
CODE = {"code_bucket": "code", "code_prefix": "ecs-bridge/1/"}

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
    "WorkMemory": "515",
    "ReconcileConcurrency": "2",
    "WorkConcurrency": "3",
    "WorkDirectInvocation": "true",
    "RepairsAlarmPercent": "50",
    "QueueAgeAlarmSeconds": "120",
}
DEPLOYMENTS = {"defaults": PARAMETERS, "every option": EVERY_OPTION, "without URLs": NO_URLS, "other values": OTHERS}

PARAMETERS_OF_TEMPLATE = template()["Parameters"]
# Numbers and switches that CloudFormation takes as text.
SWITCHES = {name for name, each in PARAMETERS_OF_TEMPLATE.items() if each.get("AllowedValues") == ["true", "false"]}
NUMBERS = {name for name, each in PARAMETERS_OF_TEMPLATE.items() if each["Type"] == "Number"} | {
    name for name in PARAMETERS_OF_TEMPLATE if name.endswith("Concurrency") or name == "ReconcileMinutes"
}
LISTS = {name for name, each in PARAMETERS_OF_TEMPLATE.items() if each["Type"] == "CommaDelimitedList"} | {
    "MoreClusterArns",
    "EventBusArns",
}


def variable(name: str, given: str) -> Any:
    """A parameter's value as one gives it to Terraform."""
    match given:
        case _ if name in LISTS:
            return [each for each in given.split(",") if each]
        case "":
            return None
        case _ if name in SWITCHES:
            return given == "true"
        case _ if name in NUMBERS:
            return int(given)
    return given


def variables(parameters: dict[str, str]) -> Values:
    return {snake(name): variable(name, given) for name, given in parameters.items() if given} | CODE


@cache
def by_template(deployment: str, text: str = TEMPLATE) -> Deployed:
    return Deployed(packaged(text), DEPLOYMENTS[deployment])


@cache
def by_module(deployment: str) -> dict[str, list[Values]]:
    return evaluated(sources(), variables(DEPLOYMENTS[deployment]))


def normal(value: Any) -> Any:
    """A value without what is not given, and without the order of blocks."""
    match value:
        case dict():
            members = {name: normal(each) for name, each in value.items()}
            return {name: each for name, each in members.items() if each not in (None, [], {})}
        case list() if all(isinstance(each, dict) for each in value):
            return sorted(map(normal, value), key=lambda each: json.dumps(each, sort_keys=True))
        case list():
            return [normal(each) for each in value]
        case bool():
            return str(value).lower()
        case int() | float():
            return str(int(value)) if value == int(value) else str(value)
        case str() if value.startswith(("{", "[")):
            return normal(json.loads(value))
    return value


def differences(expected: Resources, found: Resources) -> Iterator[str]:
    """What one has and the other has not, by resource and attribute."""
    for kind, name in sorted(expected.keys() | found.keys()):
        ours, theirs = expected.get((kind, name)), found.get((kind, name))
        if ours is None or theirs is None:
            yield f"{kind} {name}: only in {'the template' if theirs is None else 'the module'}"
            continue
        ours, theirs = normal(ours), normal(theirs)
        # SAM and CloudFormation hand the tags of the stack on to everything else.
        attributes = (ours.keys() | theirs.keys()) - {"code"} - ({"tags"} - ours.keys())
        for attribute in sorted(attributes):
            if ours.get(attribute) != theirs.get(attribute):
                both = f"{ours.get(attribute)} in the template, {theirs.get(attribute)} in the module"
                yield f"{kind} {name}.{attribute}: {both}"


def interface_of_template(deployed: Deployed) -> Resources:
    """Variables with their defaults, and outputs, as the module should have them."""
    told: Resources = {}
    for name, parameter in deployed.parameters.items():
        default = variable(name, str(parameter["Default"])) if "Default" in parameter else REQUIRED
        told["variable", snake(name)] = {"default": default}
    for name, value in deployed.outputs.items():
        told["output", snake(name)] = {"value": value}
    # CloudFormation rolls back by these alarms. Terraform does not.
    rollback = json.loads(told.pop(("output", "rollback_configuration"))["value"])
    told["output", "rollback_alarm_arns"] = {"value": [trigger["Arn"] for trigger in rollback["RollbackTriggers"]]}
    return told


def interface_of_module(blocks: dict[str, list[Values]]) -> Resources:
    declared, outputs = of_root(blocks["variable"]), of_root(blocks["output"])
    variables_ = {("variable", name): {"default": each.get("default", REQUIRED)} for name, each in declared.items()}
    return {key: each for key, each in variables_.items() if key[1] not in OF_CODE} | {
        ("output", name): {"value": each.get("value")} for name, each in outputs.items()
    }


def compared(deployment: str, text: str = TEMPLATE, files: dict[str, str] | None = None) -> list[str]:
    module = evaluated(files, variables(DEPLOYMENTS[deployment])) if files else by_module(deployment)
    deployed = by_template(deployment, text)
    ours = as_terraform(deployed) | interface_of_template(deployed)
    return list(differences(ours, as_resources(module) | interface_of_module(module)))


# --- The comparison ------------------------------------------------------------------------------


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_the_module_makes_what_the_template_makes(deployment: str) -> None:
    assert compared(deployment) == []


def test_each_parameter_is_compared_with_another_value_than_its_default() -> None:
    given = {
        name
        for parameters in DEPLOYMENTS.values()
        for name, value in parameters.items()
        if value != str(PARAMETERS_OF_TEMPLATE[name].get("Default"))
    }
    assert given == PARAMETERS_OF_TEMPLATE.keys()


def long(name: str, length: int) -> Any:
    """A value of so many characters."""
    return [arn("ecs", "cluster/").ljust(length, "c")] if name in LISTS else "x" * length


def bad(name: str, parameter: Values) -> Iterator[Any]:
    """Values that CloudFormation refuses."""
    if "MinValue" in parameter:
        yield parameter["MinValue"] - 1
    if "MaxValue" in parameter:
        yield parameter["MaxValue"] + 1
    if "MaxLength" in parameter:
        yield long(name, parameter["MaxLength"] + 1)
    if "AllowedPattern" in parameter:
        value = "#" if name not in NUMBERS else -1
        assert not re.fullmatch(parameter["AllowedPattern"], str(value))
        yield [value] if name in LISTS else value
    if "AllowedValues" in parameter and name not in SWITCHES:
        yield 4 if name in NUMBERS else "neither"


def good(name: str, parameter: Values) -> Iterator[Any]:
    """Values at the limits of what CloudFormation takes."""
    yield from (parameter[limit] for limit in ("MinValue", "MaxValue") if limit in parameter)
    if "MaxLength" in parameter:
        yield long(name, parameter["MaxLength"])
    if "AllowedValues" in parameter and name not in SWITCHES:
        yield from parameter["AllowedValues"] if name not in NUMBERS else map(int, parameter["AllowedValues"])
    if "AllowedPattern" in parameter and name in EVERY_OPTION | OTHERS:
        yield variable(name, (OTHERS | EVERY_OPTION)[name] or OTHERS[name])


@pytest.mark.parametrize(("values", "taken"), [(bad, False), (good, True)])
def test_a_variable_takes_what_its_parameter_takes(values: Any, taken: bool) -> None:
    cases = {snake(name): list(values(name, parameter)) for name, parameter in PARAMETERS_OF_TEMPLATE.items()}
    # The variables alone: one evaluation tries a value of each.
    files = {"variables.tf": sources()["variables.tf"]}
    for turn in range(max(map(len, cases.values()))):
        given = {name: each[turn] for name, each in cases.items() if turn < len(each)}
        declared = of_root(evaluated(files, given)["variable"])
        wrong = {name: value for name, value in given.items() if declared[name]["validation"]["condition"] is not taken}
        assert not wrong


def test_outputs_are_described_as_the_templates_are() -> None:
    declared = of_root(by_module("defaults")["output"])
    for name, output in template()["Outputs"].items():
        if name != "RollbackConfiguration":
            assert declared[snake(name)]["description"].lower() == snake_words(output["Description"]).lower()


def snake_words(text: str) -> str:
    """A description with the names of parameters as Terraform has them."""
    return re.sub(r"\b[A-Z]\w*\b", lambda word: snake(word[0]) if word[0] in PARAMETERS_OF_TEMPLATE else word[0], text)


def test_the_modules_of_functions_put_out_what_the_comparison_takes_them_to() -> None:
    """Evaluation replaces references to these outputs by such values."""
    outputs = [each for each in by_module("defaults")["output"] if each["__tfmeta"]["path"].startswith("module.")]
    found = {(each["__tfmeta"]["path"].split(".")[1], each["__tfmeta"]["label"]): each["value"] for each in outputs}
    modules = {module for module, _ in found}
    assert modules == {"submit", "task_state", "reconcile", "work"}
    assert found == {
        (module, name): of_function(module, value, "prod") for module in modules for name, value in OUTPUTS.items()
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, None),
        ({"profiles_layer_arn": EVERY_OPTION["ProfilesLayerArn"]}, "Give profiles or profiles_layer_arn, not both."),
        ({"profiles": None}, "Give profiles or profiles_layer_arn, not both."),
        ({"code_directory": "dist"}, "Give code_bucket or code_directory, not both."),
        ({"code_bucket": None}, "Give code_bucket or code_directory, not both."),
    ],
)
def test_a_plan_that_breaks_a_rule_says_so(given: Values, message: str | None) -> None:
    files = {name: text for name, text in sources().items() if name in ("main.tf", "variables.tf")}
    (table,) = evaluated(files, variables(PARAMETERS) | given)["aws_dynamodb_table"]
    broken = [each["error_message"] for each in table["lifecycle"]["precondition"] if not each["condition"]]
    assert broken == ([message] if message else [])


def test_the_module_refuses_the_regions_that_the_template_refuses() -> None:
    (assertion,) = template()["Rules"]["RegionHasFunctionUrls"]["Assertions"]
    regions = assertion["Assert"]["Fn::Not"][0]["Fn::Contains"][0]
    (listed,) = re.findall(
        r"!var\.function_url \|\| !contains\(\[(.*?)\], local\.region\)", sources()["main.tf"], re.DOTALL
    )
    assert re.findall(r'"([\w-]+)"', listed) == regions


def test_functions_take_the_zips_of_a_release() -> None:
    functions = by_module("every option")["aws_lambda_function"]
    found = {each["function_name"]: (each["s3_bucket"], each["s3_key"], each["filename"]) for each in functions}
    # As packaged.yaml of a release.
    names = ("submit", "task-state", "reconcile", "work")
    assert found == {f"prod-{name}": ("code", f"ecs-bridge/1/arm64/{name}.zip", None) for name in names}


# --- That it is Terraform ------------------------------------------------------------------------
# Neither Terraform nor the provider can be had from a package registry, so nothing here runs `terraform validate`.

PROVIDER = json.loads((ROOT / "tests/fixtures/aws_provider.json").read_text())["resources"]
EXAMPLE = {path.name: path.read_text() for path in sorted((MODULE / "example").glob("*.tf"))}


def misfits(value: Any, schema: Values, path: str) -> Iterator[str]:
    """Arguments that the provider does not know, and required ones that are missing."""
    for each in value if isinstance(value, list) else [value]:
        yield from (f"{path}.{name} is unknown" for name in each.keys() - schema.keys())
        yield from (
            f"{path}.{name} is missing" for name, kind in schema.items() if kind == "required" and name not in each
        )
        for name in each.keys() & schema.keys():
            if isinstance(schema[name], dict):
                yield from misfits(each[name], schema[name], f"{path}.{name}")


@pytest.mark.parametrize("deployment", [*DEPLOYMENTS, "example"])
def test_the_provider_knows_every_argument_and_misses_none(deployment: str) -> None:
    blocks = evaluated(EXAMPLE, {}) if deployment == "example" else by_module(deployment)
    resources = {kind: each for kind, each in blocks.items() if kind.startswith("aws_") and not is_data(each)}
    assert resources
    wrong = [
        wrong
        for kind, each in resources.items()
        for resource in each
        for wrong in misfits(plain(resource), PROVIDER[kind]["arguments"], resource["__tfmeta"]["path"])
    ]
    assert not wrong


def test_every_value_is_evaluated() -> None:
    """What could not be would be left as it is written, and both sides would have to be equally wrong."""
    for deployment in DEPLOYMENTS:
        left = json.dumps([plain(each) for kind, each in by_module(deployment).items() if kind.startswith("aws_")])
        assert not re.findall(r"\$\{(?:var|local|module|aws_\w+|data|each)\.", left)


FOLDERS = {
    "module": {name: text for name, text in sources().items() if "/" not in name},
    "function": {name: text for name, text in sources().items() if name.startswith("function/")},
    "example": EXAMPLE,
}


def code(text: str) -> str:
    return re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_reference_has_something_that_it_refers_to(folder: str) -> None:
    text = code("\n".join(FOLDERS[folder].values()))
    blocks = re.findall(r'^(variable|module|output|data|resource) "(\w+)"(?: "(\w+)")?', text, re.MULTILINE)
    for prefix, kind in (("var", "variable"), ("module", "module")):
        assert set(re.findall(rf"\b{prefix}\.(\w+)", text)) == {name for each, name, _ in blocks if each == kind}
    local = {
        name
        for body in re.findall(r"^locals \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
        for name in re.findall(r"^  ([\w-]+) +=", body, re.MULTILINE)
    }
    assert set(re.findall(r"\blocal\.(\w+)", text)) == local
    data = {f"{kind}.{name}" for each, kind, name in blocks if each == "data"}
    assert set(re.findall(r"\bdata\.(\w+\.\w+)", text)) == data
    resources = {f"{kind}.{name}" for each, kind, name in blocks if each == "resource"}
    references = re.findall(r"(?<!data\.)\b(aws_\w+)\.(\w+)(?:\[[^\]]*\])?(?:\.(\w+))?", text)
    for kind, name, attribute in references:
        assert f"{kind}.{name}" in resources
        known = {"id", ""} | PROVIDER[kind]["arguments"].keys() | set(PROVIDER[kind]["computed"])
        assert attribute in known, f"{kind}.{name}.{attribute}"


def test_every_output_of_a_module_that_is_read_exists() -> None:
    read = set(re.findall(r"\bmodule\.\w+\.(\w+)", code("\n".join(FOLDERS["module"].values()))))
    assert (
        read
        == set(re.findall(r'^output "(\w+)"', FOLDERS["function"]["function/outputs.tf"], re.MULTILINE))
        == OUTPUTS.keys()
    )
    read = set(re.findall(r"\bmodule\.\w+\.(\w+)", code("\n".join(EXAMPLE.values()))))
    assert read <= of_root(by_module("defaults")["output"]).keys()


def test_the_example_gives_every_variable_that_has_no_default_and_no_other_name() -> None:
    (call,) = evaluated(EXAMPLE, {})["module"]
    declared = of_root(by_module("defaults")["variable"])
    given = plain(call).keys() - {"source"}
    assert given <= declared.keys()
    assert {name for name, each in declared.items() if "default" not in each} <= given


def test_checkov_has_nothing_to_say_but_what_is_justified() -> None:
    checkov = ROOT / ".venv-checkov/bin/checkov"
    run(
        str(checkov),
        "--framework",
        "terraform",
        "--skip-download",
        "--compact",
        "--quiet",
        "--directory",
        "infra/terraform",
    )


# --- That a difference is seen -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "seen"),
    [
        (
            "Action: [dynamodb:GetItem, dynamodb:UpdateItem]",
            "Action: [dynamodb:GetItem]",
            "prod-us-east-1-task-state.allows",
        ),
        ("lastStatus: [RUNNING, STOPPED]", "lastStatus: [STOPPED]", "prod-task-state-change.event_pattern"),
        ("Threshold: 300000", "Threshold: 200000", "prod-event-age.threshold"),
        (
            "NonKeyAttributes: [priority]",
            "NonKeyAttributes: [priority, state]",
            "prod-submissions.global_secondary_index",
        ),
        ("MaximumRetryAttempts: 185", "MaximumRetryAttempts: 3", "prod-task-state-change.retry_policy"),
        ("AuthType: AWS_IAM", "AuthType: NONE", "prod-submit.authorization_type"),
        ("    Default: 345600", "    Default: 86400", "dead_letter_seconds.default"),
        ("Value: !Ref WorkFunction\n", "Value: !Ref SubmitFunction\n", "work_function_name.value"),
        ('"title": "Pools"', '"title": "Pool"', "prod.dashboard_body"),
    ],
)
def test_a_change_of_the_template_alone_is_seen(old: str, new: str, seen: str) -> None:
    assert old in TEMPLATE
    assert any(seen in each for each in compared("defaults", text=TEMPLATE.replace(old, new)))


@pytest.mark.parametrize(
    ("file", "old", "new", "seen"),
    [
        ("functions.tf", '["dynamodb:GetItem", "dynamodb:UpdateItem"]', '["dynamodb:*"]', "prod-us-east-1-work.allows"),
        ("functions.tf", '["RUNNING", "STOPPED"]', '["STOPPED"]', "prod-task-state-change.event_pattern"),
        ("alarms.tf", "threshold   = 300000", "threshold   = 200000", "prod-event-age.threshold"),
        ("main.tf", '["priority"]', '["priority", "state"]', "prod-submissions.global_secondary_index"),
        ("function/main.tf", 'system_log_level = "WARN"', 'system_log_level = "INFO"', "prod-work.logging_config"),
        ("variables.tf", "default     = 345600", "default     = 86400", "dead_letter_seconds.default"),
        ("outputs.tf", "module.work.function_name", "module.submit.function_name", "work_function_name.value"),
        (
            "main.tf",
            "deletion_protection_enabled = true",
            "deletion_protection_enabled = false",
            "prod-submissions.deletion_protection_enabled",
        ),
    ],
)
def test_a_change_of_the_module_alone_is_seen(file: str, old: str, new: str, seen: str) -> None:
    files = sources()
    assert old in files[file]
    files[file] = files[file].replace(old, new)
    assert any(seen in each for each in compared("defaults", files=files))
