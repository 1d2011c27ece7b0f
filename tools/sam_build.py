#!/usr/bin/env python3
"""Build the functions with `sam build` for the architecture that `sam deploy` declares, and check the result.

    tools/sam_build.py [--config-env prod] [--template-file infra/airflow-on-fargate/template.yaml]

The parameter `Architecture` in the file that samconfig.toml names sets the architecture. The template has the default.
Lambda accepts a binary of the wrong architecture, and fails every invocation with `Runtime.InvalidEntrypoint`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import elf
import tomllib
from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).resolve().parents[1]


def declared(config_env: str, root: Path = ROOT) -> str:
    """Return the architecture that `sam deploy` declares for this environment of samconfig.toml."""
    template = yaml_parse((root / "template.yaml").read_text())
    config = tomllib.loads((root / "samconfig.toml").read_text())
    overrides = root / config[config_env]["deploy"]["parameters"]["parameter_overrides"].removeprefix("file://")
    given = yaml_parse(overrides.read_text()) if overrides.exists() else {}
    return given.get("Architecture", template["Parameters"]["Architecture"]["Default"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-env", default="default", help="environment of samconfig.toml")
    parser.add_argument(
        "--template-file", default="template.yaml", help="template of the bridge, or a template that nests it"
    )
    arguments = parser.parse_args()
    expected = declared(arguments.config_env)
    environment = dict(os.environ)
    # SAM passes --arm64, and cargo-lambda allows no other target with this flag.
    if expected == "x86_64":
        environment["CARGO_LAMBDA_GLOBAL"] = str(ROOT / "tools/x86_64.toml")
    command = [
        "sam",
        "build",
        "--no-cached",
        "--config-env",
        arguments.config_env,
        "--template-file",
        arguments.template_file,
    ]
    overrides = ["--parameter-overrides", f"Architecture={expected}"]
    subprocess.run([*command, *overrides], cwd=ROOT, env=environment, check=True)
    programs = sorted((ROOT / ".aws-sam/build").glob("**/bootstrap"))
    wrong = elf.mismatches(programs, expected) if programs else ["build failed: sam build created no bootstrap"]
    print("\n".join(wrong) if wrong else f"built for {expected}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
