"""A program is deployed only for its own architecture, and is built from the versions in Cargo.lock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import elf
import pytest
import sam_build
import tomllib
from stacks import ROOT


def program(machine: int) -> bytes:
    """The first bytes of a program for this e_machine."""
    return b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + (3).to_bytes(2, "little") + machine.to_bytes(2, "little")


@pytest.mark.parametrize(("machine", "name"), [(62, "x86_64"), (183, "arm64")])
def test_program_of_the_declared_architecture_is_accepted(tmp_path: Path, machine: int, name: str) -> None:
    (tmp_path / "bootstrap").write_bytes(program(machine))
    assert elf.mismatches([tmp_path / "bootstrap"], name) == []


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(program(183), id="arm64"),
        pytest.param(program(243), id="riscv"),
        pytest.param(b"\xcf\xfa\xed\xfe" + bytes(28), id="macos"),
        pytest.param(b"", id="empty"),
    ],
)
def test_other_program_is_rejected_by_name(tmp_path: Path, other: bytes) -> None:
    (tmp_path / "bootstrap").write_bytes(other)
    (wrong,) = elf.mismatches([tmp_path / "bootstrap"], "x86_64")
    assert str(tmp_path / "bootstrap") in wrong


# The commands that tools/build_functions.sh calls: cargo builds for the flag, and rustc has the targets in HAS.
FAKE_CARGO = """#!/usr/bin/env python3
import os, sys, zipfile
from pathlib import Path
arguments = sys.argv[1:]
assert arguments[:4] == ["lambda", "build", "--locked", "--release"], arguments
machine = int(os.environ.get("MACHINE") or {"--x86-64": 62, "--arm64": 183}[arguments[4]])
folder = Path(os.environ["CARGO_TARGET_DIR"], "lambda", arguments[-1])
folder.mkdir(parents=True, exist_ok=True)
with zipfile.ZipFile(folder / "bootstrap.zip", "w") as archive:
    archive.writestr("bootstrap", b"\\x7fELF\\x02\\x01".ljust(18, b"\\0") + machine.to_bytes(2, "little"))
"""
FAKE_RUSTC = """#!/bin/sh
case "$HAS" in *"$4"*) echo /;; *) echo /nowhere/"$4";; esac
"""
X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"


def build_functions(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    for name, text in (("cargo", FAKE_CARGO), ("rustc", FAKE_RUSTC)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "CARGO_TARGET_DIR": str(folder / "target")}
    command = [ROOT / "tools/build_functions.sh", folder / "dist"]
    return subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=False)


def test_release_has_zips_for_every_installed_target(tmp_path: Path) -> None:
    done = build_functions(tmp_path, HAS=f"{X86} {ARM}")
    assert (done.returncode, done.stdout.split()) == (0, ["x86_64", "arm64"]), done.stderr
    for name in ("x86_64", "arm64"):
        zips = sorted((tmp_path / "dist" / name).iterdir())
        assert [file.name for file in zips] == ["reconcile.zip", "runner-api.zip", "submit.zip", "task-state.zip"]
        assert elf.mismatches(zips, name) == []


def test_release_reports_a_missing_target(tmp_path: Path) -> None:
    done = build_functions(tmp_path, HAS=X86)
    assert (done.returncode, done.stdout.split()) == (0, ["x86_64"])
    assert f"rustup target add {ARM}" in done.stderr
    assert not (tmp_path / "dist/arm64").exists()


def test_release_of_the_wrong_architecture_fails(tmp_path: Path) -> None:
    done = build_functions(tmp_path, HAS=X86, MACHINE="183")
    assert done.returncode != 0
    assert "submit.zip: built for arm64" in done.stderr


@pytest.mark.parametrize(("parameters", "expected"), [("{}", "x86_64"), ("Architecture: arm64", "arm64")])
def test_architecture_comes_from_the_parameters_file(tmp_path: Path, parameters: str, expected: str) -> None:
    for name in ("template.yaml", "samconfig.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    assert sam_build.declared("default", tmp_path) == "x86_64"
    (tmp_path / "parameters.yaml").write_text(parameters)
    assert sam_build.declared("default", tmp_path) == expected


def test_x86_64_is_always_built_with_an_explicit_target() -> None:
    config = tomllib.loads((ROOT / "tools/x86_64.toml").read_text())
    assert config == {"build": {"target": ["x86_64-unknown-linux-gnu"]}}


def test_build_rejects_a_stale_lock_file(tmp_path: Path) -> None:
    """A separate package with the configuration of the workspace. It has no Cargo.lock."""
    (tmp_path / "CargoLambda.toml").write_text((ROOT / "CargoLambda.toml").read_text())
    (tmp_path / "Cargo.toml").write_text('[package]\nname = "probe"\nversion = "0.1.0"\nedition = "2024"\n')
    (tmp_path / "src").mkdir()
    (tmp_path / "src/main.rs").write_text("fn main() {}\n")
    tools = Path(sys.executable).parent
    # cargo-lambda looks for zig beside itself.
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}
    command = [tools / "cargo-lambda", "lambda", "build"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "--locked" in done.stderr
    assert not (tmp_path / "Cargo.lock").exists()
