#!/usr/bin/env python3
"""Builds the functions as `sam build` does, for the architecture that `sam deploy` will declare, and checks the result.

    infra/sam_build.py [--config-env prod] [--template-file infra/airflow-on-fargate/template.yaml]

The architecture is the parameter `Architecture` of the file that samconfig.toml names, else the template's default.
Lambda accepts a binary of the other architecture, and then fails every invocation with `Runtime.InvalidEntrypoint`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import elf
from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).resolve().parents[1]


def declared(config_env: str, root: Path = ROOT) -> str:
    """The architecture that `sam deploy` declares under this environment of samconfig.toml."""
    template = yaml_parse((root / "template.yaml").read_text())
    config = tomllib.loads((root / "samconfig.toml").read_text())
    overrides = root / config[config_env]["deploy"]["parameters"]["parameter_overrides"].removeprefix("file://")
    given = yaml_parse(overrides.read_text()) if overrides.exists() else {}
    return given.get("Architecture", template["Parameters"]["Architecture"]["Default"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-env", default="default", help="environment of samconfig.toml")
    parser.add_argument("--template-file", default="template.yaml", help="a template that nests the bridge, or the bridge's own")
    arguments = parser.parse_args()
    expected = declared(arguments.config_env)
    environment = dict(os.environ)
    # SAM passes --arm64, beside which cargo-lambda allows no other target.
    if expected == "x86_64":
        environment["CARGO_LAMBDA_GLOBAL"] = str(ROOT / "infra/x86_64.toml")
    command = ["sam", "build", "--no-cached", "--config-env", arguments.config_env, "--template-file", arguments.template_file]
    overrides = ["--parameter-overrides", f"Architecture={expected}"]
    subprocess.run([*command, *overrides], cwd=ROOT, env=environment, check=True)
    programs = sorted((ROOT / ".aws-sam/build").glob("**/bootstrap"))
    wrong = elf.mismatches(programs, expected) if programs else ["sam build left no bootstrap"]
    print("\n".join(wrong) if wrong else f"built for {expected}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
