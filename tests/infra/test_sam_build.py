"""`sam build` of the functions: release builds, which take minutes; with QUICK=1 of programs that are built already."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import elf
import pytest
import sam_build
from samtranslator.yaml_helper import yaml_parse
from stacks import ROOT

from local_stack import PATIENCE, PROGRAM

QUICK = bool(os.environ.get("QUICK"))
FUNCTIONS = {
    "SubmitFunction": "submit",
    "TaskStateFunction": "task-state",
    "ReconcileFunction": "reconcile",
    "RunnerApiFunction": "runner-api",
}
# They are 2.2 to 2.5 MB, and every MB slows down cold starts. Compilers differ little, an accidental library by more.
MOST_BYTES = 3_000_000
# glibc 2.34, whatever the machine has that builds.
AMAZON_LINUX_2023_GLIBC = 34


# Replaces cargo: leaves the files of `cargo lambda build` without compiling anything.
CARGO = """#!/bin/sh
case "$*" in
"lambda build "*)
    while [ "$1" != --bin ]; do shift; done
    mkdir -p "target/lambda/$2" && cp "{programs}/$2" "target/lambda/$2/bootstrap" ;;
*) exec "{cargo}" "$@" ;;
esac
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `sam build` puts the functions. It builds in the workspace's own target folder."""
    tools = Path(sys.executable).parent
    command = [sys.executable, ROOT / "tools/sam_build.py"]
    # cargo-lambda looks for zig beside itself.
    path = f"{tools}:{os.environ['PATH']}"
    if QUICK:
        cargo = tmp_path_factory.mktemp("bin") / "cargo"
        cargo.write_text(CARGO.format(programs=PROGRAM.parent, cargo=shutil.which("cargo")))
        cargo.chmod(0o755)
        path = f"{cargo.parent}:{path}"
    environment = os.environ | {"PATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / ".aws-sam/build"


def test_each_function_is_built_for_the_declared_architecture(built: Path) -> None:
    resources = yaml_parse((built / "template.yaml").read_text())["Resources"]
    for logical_id in FUNCTIONS:
        assert resources[logical_id]["Properties"]["CodeUri"] == logical_id
        bootstrap = built / logical_id / "bootstrap"
        assert elf.architecture(bootstrap.read_bytes()) == sam_build.declared("default")
        assert os.access(bootstrap, os.X_OK)


@pytest.mark.skipif(QUICK, reason="the linker is that of this machine")
def test_functions_need_no_newer_glibc_than_lambdas(built: Path) -> None:
    for logical_id in FUNCTIONS:
        versions = re.findall(rb"GLIBC_2\.(\d+)", (built / logical_id / "bootstrap").read_bytes())
        assert max(int(version) for version in versions) <= AMAZON_LINUX_2023_GLIBC


@pytest.mark.skipif(QUICK, reason="without optimisation they are larger")
def test_each_zip_is_below_the_size_limit(built: Path, tmp_path: Path) -> None:
    for logical_id, name in FUNCTIONS.items():
        file = tmp_path / f"{name}.zip"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(built / logical_id / "bootstrap", "bootstrap")
        print(f"{name}: {file.stat().st_size:,} bytes")
        assert file.stat().st_size < MOST_BYTES


def test_each_function_reports_missing_variables(built: Path) -> None:
    for logical_id in FUNCTIONS:
        bootstrap = built / logical_id / "bootstrap"
        bare = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1", "AWS_LAMBDA_FUNCTION_NAME": "f"}
        done = subprocess.run([bootstrap], env=bare, capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert done.returncode != 0
        assert "ECS_BRIDGE_TABLE is not set" in done.stdout + done.stderr
