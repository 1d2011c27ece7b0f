"""The module infra/terraform as Terraform would plan it: evaluated by tfparse, Trivy's evaluator on HCL's library."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from stacks import ROOT
from tfparse import load_from_path

from cloudformation import REGION

MODULE = ROOT / "infra/terraform"
Values = dict[str, Any]

# Values that only AWS knows. References to them are replaced by these before the evaluation.
KNOWN = {
    "data.aws_s3_bucket.code.bucket_regional_domain_name": json.dumps(f"code.s3.{REGION}.amazonaws.com"),
    "aws_cloudformation_stack.bridge.outputs": "var.outputs_of_stack",
}
OUTPUTS_OF_STACK = 'variable "outputs_of_stack" {\n  type = map(string)\n  default = {}\n}\n'


def sources(folder: Path = MODULE) -> dict[str, str]:
    """The files of a module, by name."""
    return {path.name: path.read_text() for path in sorted(folder.glob("*.tf"))}


def evaluated(
    files: dict[str, str], variables: Values, beside: Mapping[str, str] = MappingProxyType({})
) -> dict[str, list[Values]]:
    """All blocks of a module under these variables, by resource type or block; `beside` are files in its folder."""
    with TemporaryDirectory() as folder:
        for name, text in beside.items():
            Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
            Path(folder, name).write_text(text)
        for name, text in (files | {"stack.tf": OUTPUTS_OF_STACK}).items():
            for reference, value in KNOWN.items():
                text = text.replace(reference, value)
            Path(folder, name).write_text(text)
        given = "\n".join(f"{name} = {json.dumps(value)}" for name, value in variables.items())
        Path(folder, "given.tfvars").write_text(given)
        return load_from_path(folder, stop_on_hcl_error=True, vars_paths=["given.tfvars"])


def by_label(blocks: list[Values]) -> dict[str, Values]:
    """Variables, outputs, or resources of one type, by name."""
    return {each["__tfmeta"]["label"]: plain(each) for each in blocks}


def plain(value: Any) -> Any:
    """A value without the members that tfparse adds. A variable that is null is a reference to itself."""
    match value:
        case {"__attribute__": str(reference)} if reference.startswith("var."):
            return None
        case dict():
            return {name: plain(each) for name, each in value.items() if name not in ("__tfmeta", "id")}
        case list():
            return [plain(each) for each in value]
    return value


def references(text: str, prefix: str) -> set[str]:
    """The names that follow `prefix.` outside comments."""
    code = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
    return set(re.findall(rf"\b{prefix}\.(\w+)", code))
