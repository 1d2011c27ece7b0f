#!/usr/bin/env python3
"""Write the interface of the Terraform module from template.yaml.

    tools/terraform_interface.py     # run it after a change of the template's parameters or outputs

Each parameter becomes a variable and each output becomes an output, with the same name in snake case. If a variable is
null, its parameter has the template's default. Terraform validates the variables in the plan.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).resolve().parents[1]
MODULE = ROOT / "infra/terraform"
HEAD = "# Written by tools/terraform_interface.py from template.yaml.\n"
Parameter = dict[str, Any]
# JSON text for the CloudFormation command line. The module parses it for Terraform.
ROLLBACK = "RollbackConfiguration"


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def type_of(parameter: Parameter) -> str:
    """Return the type of a variable. CloudFormation receives lists, numbers and booleans as text."""
    pattern, allowed = parameter.get("AllowedPattern", ""), parameter.get("AllowedValues", [])
    if parameter["Type"] == "CommaDelimitedList" or "(," in pattern:
        return "list(string)"
    if allowed == ["true", "false"]:
        return "bool"
    if (
        parameter["Type"] == "Number"
        or "[0-9]*" in pattern
        or (allowed and all(str(each).isdigit() for each in allowed))
    ):
        return "number"
    return "string"


def as_text(name: str, kind: str) -> str:
    """Return the expression for a parameter's value, which is text, or null for the template's default."""
    variable = f"var.{snake(name)}"
    match kind:
        case "list(string)":
            return f'{variable} == null ? null : join(",", {variable})'
        case "string":
            return variable
    # tostring(null) is null.
    return f"tostring({variable})"


def rules(name: str, parameter: Parameter) -> list[tuple[str, str]]:
    """Return the checks of CloudFormation as Terraform conditions with their messages."""
    variable, kind = f"var.{snake(name)}", type_of(parameter)
    text = f'join(",", {variable})' if kind == "list(string)" else variable
    found = []
    if "MinValue" in parameter:
        found.append((f"{variable} >= {parameter['MinValue']}", f"at least {parameter['MinValue']}"))
    if "MaxValue" in parameter:
        found.append((f"{variable} <= {parameter['MaxValue']}", f"{parameter['MaxValue']} or less"))
    if "MaxLength" in parameter:
        found.append((f"length({text}) <= {parameter['MaxLength']}", f"up to {parameter['MaxLength']} characters long"))
    if "AllowedPattern" in parameter:
        pattern = json.dumps(f"^{parameter['AllowedPattern']}$")
        joined = ", joined by commas," if kind == "list(string)" else ""
        found.append((f"can(regex({pattern}, {text}))", f"text that{joined} matches {parameter['AllowedPattern']}"))
    if "AllowedValues" in parameter and kind != "bool":
        values = [int(each) if kind == "number" else each for each in parameter["AllowedValues"]]
        found.append((f"contains({json.dumps(values)}, {variable})", f"one of {', '.join(map(str, values))}"))
    return found


def described(text: str, parameters: dict[str, Parameter]) -> str:
    """Return a description with Terraform names. Terraform has lists, so the hint about commas is removed."""
    text = text.replace(", separated by commas", "")
    return json.dumps(re.sub(r"\b[A-Z]\w*\b", lambda word: snake(word[0]) if word[0] in parameters else word[0], text))


def variables(parameters: dict[str, Parameter]) -> str:
    blocks = []
    for name, parameter in parameters.items():
        lines = [
            f'variable "{snake(name)}" {{',
            f"  description = {described(parameter['Description'], parameters)}",
            f"  type        = {type_of(parameter)}",
        ]
        if "Default" in parameter:
            lines.append("  default     = null")
        for condition, words in rules(name, parameter):
            # Not ||, because Terraform evaluates both sides of it.
            optional = f"var.{snake(name)} == null ? true : {condition}" if "Default" in parameter else condition
            message = json.dumps(f"{snake(name)} must be {words}.").replace("${", "$${")
            lines += ["", "  validation {", f"    condition     = {optional}", f"    error_message = {message}", "  }"]
        blocks.append("\n".join([*lines, "}"]))
    width = max(map(len, parameters))
    values = "\n".join(f"    {name.ljust(width)} = {as_text(name, type_of(each))}" for name, each in parameters.items())
    return HEAD + "\n" + "\n\n".join(blocks) + f"\n\nlocals {{\n  parameters = {{\n{values}\n  }}\n}}\n"


def outputs(template: dict[str, Any]) -> str:
    blocks = [
        f'output "{snake(name)}" {{\n'
        f"  description = {described(output['Description'], template['Parameters'])}\n"
        f'  value       = lookup(aws_cloudformation_stack.bridge.outputs, "{name}", null)\n}}'
        for name, output in template["Outputs"].items()
        if name != ROLLBACK
    ]
    return HEAD + "\n" + "\n\n".join(blocks) + "\n"


def interface() -> dict[str, str]:
    """Return the text of each file by name."""
    template = yaml_parse((ROOT / "template.yaml").read_text())
    return {"variables.tf": variables(template["Parameters"]), "outputs.tf": outputs(template)}


if __name__ == "__main__":
    for name, text in interface().items():
        (MODULE / name).write_text(text)
