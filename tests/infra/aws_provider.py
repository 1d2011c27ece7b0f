#!/usr/bin/env python3
"""Writes tests/fixtures/aws_provider.json: the arguments that Terraform's AWS provider accepts for infra/terraform.

The provider itself comes from no package registry. Its schema does, as the Python classes that CDK for Terraform
generated from it. A wheel of 57 MB is too much for each run of the tests, so what is needed of it is kept:

    pip download --no-deps cdktf-cdktf-provider-aws==21.22.1
    tests/infra/aws_provider.py cdktf_cdktf_provider_aws-21.22.1-py3-none-any.whl > tests/fixtures/aws_provider.json
"""

from __future__ import annotations

import ast
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

TERRAFORM = Path(__file__).resolve().parents[2] / "infra/terraform"
# Of Terraform itself, not of a resource.
META = {"connection", "count", "depends_on", "for_each", "id", "lifecycle", "provider", "provisioners", "timeouts"}
OF_CDKTF = {"generate_config_for_import", "tf_resource_type"}


def used() -> list[str]:
    """The types of resources in the module and its example."""
    texts = [path.read_text() for path in TERRAFORM.rglob("*.tf")]
    return sorted({kind for text in texts for kind in re.findall(r'^resource "(aws_\w+)"', text, re.MULTILINE)})


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def schema(source: str, folder: str) -> dict[str, Any]:
    """The arguments of a resource, with those of its blocks below them, and its computed attributes."""
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    main = "".join(part.capitalize() for part in folder.split("_"))

    def members(name: str) -> list[ast.FunctionDef]:
        return [node for node in classes[name].body if isinstance(node, ast.FunctionDef)]

    def arguments(name: str, but: set[str]) -> dict[str, Any]:
        (init,) = (node for node in members(name) if node.name == "__init__")
        taken = {}
        for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True):
            if argument.arg in but:
                continue
            # A block is named by its class. jsii adds an underscore to Python's reserved words.
            named = re.findall(r"[\"'](\w+)[\"']", ast.unparse(argument.annotation))
            block = next((each for each in named if each in classes), None)
            plain = "optional" if default else "required"
            taken[argument.arg.removesuffix("_")] = arguments(block, set()) if block else plain
        return taken

    exported = [
        snake(decorator.keywords[0].value.value)  # type: ignore[attr-defined]
        for node in members(main)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call)
        and ast.unparse(decorator.func) == "jsii.member"
        and len(node.decorator_list) == 2
    ]
    taken = arguments(f"{main}Config", META)
    computed = {each for each in exported if not each.endswith("_input")} - taken.keys() - META - OF_CDKTF
    return {"arguments": taken, "computed": sorted(computed)}


def main() -> None:
    resources, version = {}, set()
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        for kind in used():
            folder = kind.removeprefix("aws_")
            source = wheel.read(f"cdktf_cdktf_provider_aws/{folder}/__init__.py").decode()
            version |= set(re.findall(r"hashicorp/aws/([0-9.]+)/docs", source))
            resources[kind] = schema(source, folder)
    (one,) = version
    json.dump({"provider": f"hashicorp/aws {one}", "resources": resources}, sys.stdout, indent=1, sort_keys=True)
    print()


if __name__ == "__main__":
    main()
