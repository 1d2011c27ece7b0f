"""A binary of one architecture is never deployed as another, and is built of what Cargo.lock names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sam_build
import tomllib
from stacks import ROOT


def elf(machine: int) -> bytes:
    """The first bytes of a program for this e_machine."""
    return b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + (3).to_bytes(2, "little") + machine.to_bytes(2, "little")


def built(folder: Path, **programs: bytes) -> Path:
    for name, content in programs.items():
        (folder / name).mkdir()
        (folder / name / "bootstrap").write_bytes(content)
    return folder


@pytest.mark.parametrize(("machine", "name"), [(62, "x86_64"), (183, "arm64")])
def test_a_program_of_the_declared_architecture_passes(tmp_path: Path, machine: int, name: str) -> None:
    assert sam_build.mismatches(built(tmp_path, Submit=elf(machine)), name) == []


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(elf(183), id="arm64"),
        pytest.param(elf(243), id="riscv"),
        pytest.param(b"\xcf\xfa\xed\xfe" + bytes(28), id="macos"),
        pytest.param(b"", id="empty"),
    ],
)
def test_any_other_program_is_refused_by_name(tmp_path: Path, program: bytes) -> None:
    (wrong,) = sam_build.mismatches(built(tmp_path, Submit=elf(62), Reconcile=program), "x86_64")
    assert "Reconcile/bootstrap" in wrong


def test_a_build_that_left_nothing_is_refused(tmp_path: Path) -> None:
    assert sam_build.mismatches(tmp_path, "x86_64")


@pytest.mark.parametrize(("parameters", "expected"), [("{}", "x86_64"), ("Architecture: arm64", "arm64")])
def test_the_architecture_is_that_of_the_parameters_file(tmp_path: Path, parameters: str, expected: str) -> None:
    for name in ("template.yaml", "samconfig.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    assert sam_build.declared("default", tmp_path) == "x86_64"
    (tmp_path / "parameters.yaml").write_text(parameters)
    assert sam_build.declared("default", tmp_path) == expected


def test_x86_64_is_named_as_the_target_even_on_another_machine() -> None:
    config = tomllib.loads((ROOT / "infra/x86_64.toml").read_text())
    assert config == {"build": {"target": ["x86_64-unknown-linux-gnu"]}}


def test_a_build_refuses_a_lock_file_that_is_not_current(tmp_path: Path) -> None:
    """In a package of its own, with the configuration that the workspace has: there is no Cargo.lock to keep to."""
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
