"""What infra/image installs can be installed, from wheels alone: its base image has no compiler.

Not shown: that Airflow's constraints of that version, which are in the base image, allow it.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).resolve().parents[3]
IMAGE = ROOT / "infra/image"
(AIRFLOW,) = re.findall(r"^ARG AIRFLOW_VERSION=(.*)$", (IMAGE / "Dockerfile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("python", ["3.10", "3.12", "3.13"])
@pytest.mark.parametrize("platform", ["x86_64-manylinux_2_28", "aarch64-manylinux_2_28"])
def test_everything_resolves_from_wheels_beside_that_airflow(python, platform, tmp_path):
    projects = [
        tomllib.loads((ROOT / f"{package}/pyproject.toml").read_text())
        for package in ("python/ecs_bridge", "python/airflow_ecs_bridge")
    ]
    dependencies = [each for project in projects for each in project["project"]["dependencies"]]
    # The client is beside the executor in dist/.
    own = [each for each in dependencies if not each.startswith("ecs-bridge==")]
    requirements = tmp_path / "requirements.in"
    requirements.write_text((IMAGE / "requirements.txt").read_text() + "\n".join([f"apache-airflow=={AIRFLOW}", *own]))
    command = [
        ROOT / ".venv-uv/bin/uv",
        "pip",
        "compile",
        "--quiet",
        "--only-binary",
        ":all:",
        "--no-header",
        "--no-annotate",
    ]
    command += ["--python-version", python, "--python-platform", platform, requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resolved = dict(line.split("==") for line in done.stdout.split())
    assert resolved["apache-airflow"] == AIRFLOW
    asked = re.findall(r"^[a-z0-9-]+$", (IMAGE / "requirements.txt").read_text(), re.MULTILINE)
    assert resolved.keys() >= set(asked)
