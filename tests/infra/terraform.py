"""The module infra/terraform as Terraform would plan it: evaluated by tfparse, Trivy's evaluator on HCL's library.

What only AWS knows, evaluation lacks: so references to it are first replaced by what AWS would answer.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tfparse import load_from_path

from cloudformation import KINDS, Resources, statements
from stacks import ACCOUNT, REGION, ROOT, arn

MODULE = ROOT / "infra/terraform"
Values = dict[str, Any]

DATA = {
    "data.aws_partition.current.partition": "aws",
    "data.aws_partition.current.dns_suffix": "amazonaws.com",
    "data.aws_region.current.region": REGION,
    "data.aws_caller_identity.current.account_id": ACCOUNT,
}
# By type and attribute: the attribute that NAME stands for, and what AWS makes of it.
COMPUTED = {
    ("aws_cloudwatch_event_rule", "arn"): ("name", arn("events", "rule/NAME")),
    ("aws_cloudwatch_metric_alarm", "arn"): ("alarm_name", arn("cloudwatch", "alarm:NAME")),
    ("aws_iam_policy", "arn"): ("name", f"arn:aws:iam::{ACCOUNT}:policy/NAME"),
    ("aws_iam_role", "arn"): ("name", f"arn:aws:iam::{ACCOUNT}:role/NAME"),
    ("aws_lambda_function", "arn"): ("function_name", arn("lambda", "function:NAME")),
    ("aws_lambda_function_url", "function_url"): ("function_name", f"https://NAME.lambda-url.{REGION}.on.aws/"),
    ("aws_sqs_queue", "arn"): ("name", arn("sqs", "NAME")),
    ("aws_sqs_queue", "url"): ("name", f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/NAME"),
}
# Of the functions, each of which is a module of its own.
OUTPUTS = {"function_name": "NAME", "arn": arn("lambda", "function:NAME"), "log_group": "/aws/lambda/NAME"}


def sources(folder: Path = MODULE) -> dict[str, str]:
    """The module's files, without its example."""
    files = [path for path in sorted(folder.rglob("*.tf")) if "example" not in path.relative_to(folder).parts]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def of_function(module: str, value: str, deployment: str = "${var.deployment}") -> str:
    return value.replace("NAME", f"{deployment}-{module.replace('_', '-')}")


def known(text: str) -> str:
    """A file with everything in it that only AWS knows replaced."""
    for reference, value in DATA.items():
        text = text.replace(reference, json.dumps(value))
    for (kind, attribute), (named_by, value) in COMPUTED.items():
        before, after = value.split("NAME")
        reference = rf"\b({kind}\.\w+(?:\[[^\]]*\])?)\.{attribute}\b"
        text = re.sub(reference, rf'"{before}${{\1.{named_by}}}{after}"', text)
    for output, value in OUTPUTS.items():
        text = re.sub(
            rf"\bmodule\.(\w+)\.{output}\b", lambda call, value=value: json.dumps(of_function(call[1], value)), text
        )
    # tfparse gives each block an id of its own in place of what the block says.
    return re.sub(r"^( +)id( += )", r"\1own_id\2", text, flags=re.MULTILINE)


def evaluated(files: dict[str, str], variables: Values) -> dict[str, list[Values]]:
    """All blocks of the module under these variables, by type of resource or kind of block."""
    with TemporaryDirectory() as folder:
        for name, text in files.items():
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_text(known(text))
        given = "\n".join(f"{name} = {json.dumps(value)}" for name, value in variables.items())
        Path(folder, "given.tfvars").write_text(given)
        return load_from_path(folder, stop_on_hcl_error=True, vars_paths=["given.tfvars"])


def of_root(blocks: list[Values]) -> dict[str, Values]:
    """The variables or outputs of the module itself, by name."""
    return {
        each["__tfmeta"]["label"]: plain(each) for each in blocks if not each["__tfmeta"]["path"].startswith("module.")
    }


# --- As resources --------------------------------------------------------------------------------

# What tfparse adds to a block, and what is Terraform's own.
NOT_OF_RESOURCES = {"__tfmeta", "id", "count", "for_each", "lifecycle", "depends_on"}
NAMED_BY = {resource: named_by for resource, named_by, _ in KINDS.values()} | {
    "aws_cloudwatch_event_rule": "name",
    "aws_cloudwatch_event_target": "rule",
    "aws_iam_policy": "name",
    "aws_iam_role": "name",
    "aws_sqs_queue_policy": "queue_url",
}
# Parts of a role, told with it.
OF_ROLES = {"aws_iam_role_policy", "aws_iam_role_policy_attachment"}
# What the template does not have: where the code comes from is SAM's business, and rules have no description.
BEYOND = {
    "aws_cloudwatch_event_rule": {"description"},
    "aws_lambda_function": {"s3_bucket", "s3_key", "filename", "source_code_hash"},
}


def plain(value: Any) -> Any:
    """A value without what tfparse adds. A variable that is null shows as a reference to it."""
    match value:
        case {"__attribute__": str(reference)} if reference.startswith("var."):
            return None
        case dict():
            return {
                name.replace("own_id", "id"): plain(each)
                for name, each in value.items()
                if name not in NOT_OF_RESOURCES
            }
        case list():
            return [plain(each) for each in value]
    return value


def as_resources(blocks: dict[str, list[Values]]) -> Resources:
    """Every resource by type and name; the policies of a role with the role."""
    found: Resources = {}
    kinds = {kind: plain(each) for kind, each in blocks.items() if kind.startswith("aws_") and not is_data(each)}
    managed = {
        f"arn:aws:iam::{ACCOUNT}:policy/{each['name']}": statements(json.loads(each["policy"]))
        for each in kinds["aws_iam_policy"]
    }
    for kind, resources in kinds.items():
        for resource in resources if kind not in OF_ROLES else ():
            name = resource.pop(NAMED_BY[kind])
            for attribute in BEYOND.get(kind, ()):
                resource.pop(attribute, None)
            for attribute in {"policy", "assume_role_policy"} & resource.keys():
                resource[attribute] = statements(json.loads(resource[attribute]))
            assert (kind, name) not in found
            found[kind, name] = resource
    roles = {name: [] for kind, name in found if kind == "aws_iam_role"}
    for policy in kinds["aws_iam_role_policy"]:
        roles[policy["role"]] += statements(json.loads(policy["policy"]))
    for attachment in kinds["aws_iam_role_policy_attachment"]:
        roles[attachment["role"]] += managed[attachment["policy_arn"]]
    for name, allowed in roles.items():
        found["aws_iam_role", name]["allows"] = sorted(allowed, key=json.dumps)
    return found


def is_data(blocks: list[Values]) -> bool:
    return blocks[0]["__tfmeta"]["type"] == "data"
