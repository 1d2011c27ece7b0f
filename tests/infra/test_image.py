"""infra/image, as far as it can be shown without Docker: the Dockerfile, and its entry point run by itself.

tests/airflow/setups/test_fargate.py runs Airflow and its tasks through the entry point.
tests/airflow/unit/test_image.py resolves what the Dockerfile installs.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from stacks import ROOT, pinned

from local_stack import PATIENCE

IMAGE = ROOT / "infra/image"
DOCKERFILE = IMAGE / "Dockerfile"
ENTRYPOINT = IMAGE / "entrypoint.sh"


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, without comments and continuations."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def of(instruction: str) -> list[str]:
    return [arguments for name, arguments in instructions() if name == instruction]


def test_hadolint_reports_nothing() -> None:
    command = [Path(sys.executable).with_name("hadolint"), "--failure-threshold", "style", DOCKERFILE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stdout


def test_base_image_is_airflows_with_version_arguments() -> None:
    assert of("FROM") == ["apache/airflow:slim-${AIRFLOW_VERSION}-python${PYTHON_VERSION}"]
    assert [argument.split("=")[0] for argument in of("ARG")] == [
        "AIRFLOW_VERSION",
        "PYTHON_VERSION",
        "AIRFLOW_VERSION",
        "DAGS",
    ]
    assert of("ARG")[0] == f"AIRFLOW_VERSION={pinned('airflow', 'apache-airflow')}"


def test_image_runs_as_airflow_and_not_as_root() -> None:
    assert of("USER") == ["50000:0"]
    assert instructions()[-3][0] == "USER"


def test_layers_contain_no_secret() -> None:
    variables = " ".join(of("ENV") + of("ARG"))
    assert not re.search("PASSWORD|SECRET|TOKEN|FERNET|SQL_ALCHEMY|://", variables)


def test_copied_files_exist_in_the_build_context() -> None:
    rules = [line for line in (IMAGE / "Dockerfile.dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    kept = [rule.removeprefix("!") for rule in rules[1:]]
    arguments = dict(argument.split("=") for argument in of("ARG") if "=" in argument)
    for copy in of("COPY"):
        *sources, _ = [part for part in shlex.split(copy) if not part.startswith("--")]
        for source in sources:
            source = re.sub(r"\$\{(\w+)\}", lambda name: arguments[name[1]], source)
            assert any(fnmatch.fnmatch(source, rule) or source.startswith(f"{rule}/") for rule in kept), source
            # Wheels are made before.
            assert source.startswith("dist/") or (ROOT / source).exists(), source


def test_entry_point_is_the_copied_script() -> None:
    (entrypoint,) = map(json.loads, of("ENTRYPOINT"))
    assert entrypoint[:2] == ["/usr/bin/dumb-init", "--"]
    assert any(shlex.split(copy)[-2:] == [str(ENTRYPOINT.relative_to(ROOT)), entrypoint[2]] for copy in of("COPY"))
    assert os.access(ENTRYPOINT, os.X_OK)


# --- The entry point ---------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder whose bin is all of the PATH besides the system's: an `airflow` that writes down how it was called."""
    (tmp_path / "bin").mkdir()
    airflow = tmp_path / "bin/airflow"
    airflow.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {tmp_path}/calls\n[ ! -e {tmp_path}/broken ]\n')
    airflow.chmod(0o755)
    return tmp_path


def run(tree: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{tree}/bin:/usr/bin:/bin"
    return subprocess.run(
        [ENTRYPOINT, *command],
        env={"PATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def calls(tree: Path) -> list[str]:
    return (tree / "calls").read_text().splitlines() if (tree / "calls").exists() else []


def test_entry_point_becomes_the_command(tree: Path) -> None:
    runner = tree / "bin/ecs-bridge-runner"
    runner.write_text('#!/bin/sh\necho "$$" "$1"\nexit 7\n')
    runner.chmod(0o755)
    process = subprocess.Popen(
        [ENTRYPOINT, "ecs-bridge-runner", "two words"],
        env={"PATH": f"{tree}/bin:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = process.communicate(timeout=PATIENCE)
    # The same process: signals and the exit code are the command's.
    assert output == f"{process.pid} two words\n"
    assert process.returncode == 7
    assert not calls(tree)


def test_umask_allows_the_group_and_pip_user_is_unset(tree: Path) -> None:
    done = run(tree, "sh", "-c", 'umask; echo "${PIP_USER-unset}"', PIP_USER="true")
    assert done.stdout.split() == ["0002", "unset"]


def test_migrate_creates_the_admin_and_hides_the_password(tree: Path) -> None:
    done = run(
        tree, "migrate", "sh", "-c", 'echo "${AIRFLOW_ADMIN_PASSWORD-unset}"', AIRFLOW_ADMIN_PASSWORD="pass word"
    )
    assert done.stdout == "unset\n"
    migrate, create = calls(tree)
    assert migrate == "db migrate"
    assert create.startswith("users create --username admin --role Admin")
    assert create.endswith("--password pass word")


def test_failed_migration_prevents_the_command(tree: Path) -> None:
    (tree / "broken").touch()
    done = run(tree, "migrate", "echo", "started", AIRFLOW_ADMIN_PASSWORD="password")
    assert done.returncode != 0
    assert done.stdout == ""
    assert calls(tree) == ["db migrate"]


def test_missing_password_fails_before_the_migration(tree: Path) -> None:
    done = run(tree, "migrate", "echo", "started")
    assert done.returncode != 0
    assert "AIRFLOW_ADMIN_PASSWORD" in done.stderr
    assert not calls(tree)
