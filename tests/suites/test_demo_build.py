"""The build of `make demo` omits some SDKs, and later builds reuse its dependencies."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("submit", "task-state", "reconcile", "runner-api", "ecs-bridge-cli", "ecs-bridge-runner")
LEFT_OUT = {f"aws-sdk-{service}" for service in ("cloudformation", "cloudwatch", "cloudwatchlogs")}


def dependencies(*options: str) -> dict[str, set[str]]:
    """The features that each dependency is built with, by its name and version."""
    packages = [word for program in PROGRAMS for word in ("-p", program)]
    command = ["cargo", "tree", "--locked", "--edges", "normal,build", "--prefix", "none", "--format", "{p}\t{f}"]
    found: dict[str, set[str]] = {}
    output = subprocess.run(
        [*command, *packages, *options], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for line in filter(None, output.splitlines()):
        package, _, features = line.removesuffix(" (*)").partition("\t")
        # The path of a package of the workspace, and the mark of a macro.
        if "(/" not in package:
            found.setdefault(package.removesuffix(" (proc-macro)"), set()).add(features)
    return found


def test_demo_uses_the_same_dependency_features() -> None:
    demo, whole = dependencies("--no-default-features"), dependencies()
    assert {name: features for name, features in demo.items() if features != whole.get(name)} == {}


def test_demo_omits_the_sdks_for_accounts() -> None:
    names = {name.split()[0] for name in dependencies("--no-default-features")}
    assert names & LEFT_OUT == set()
    assert {name.split()[0] for name in dependencies()} >= LEFT_OUT
