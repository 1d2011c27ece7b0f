"""The Python workspace: its lock file comes from PyPI, and each environment that is used is one of its groups."""

from __future__ import annotations

import re
import subprocess
from urllib.parse import urlsplit

import tomllib

from local_stack import ROOT

LOCK = tomllib.loads((ROOT / "uv.lock").read_text())
GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
# Of uv itself, which make installs.
ITS_OWN = {"uv"}


def test_lock_names_only_pypi_and_this_folder() -> None:
    """A lock that was made behind a mirror works nowhere else."""
    urls = set(re.findall(r'"(\w+://[^"]*)"', (ROOT / "uv.lock").read_text()))
    assert {urlsplit(url).netloc for url in urls} == {"pypi.org", "files.pythonhosted.org"}
    sources = [each["source"] for each in LOCK["package"] if "registry" not in each["source"]]
    folders = [source.get("editable") or source["virtual"] for source in sources]
    assert sorted(folders) == [".", "python/airflow_ecs_bridge", "python/ecs_bridge"]


def test_environments_in_use_are_groups() -> None:
    programs = (file for folder in ("tests", "benches", "docs/site") for file in (ROOT / folder).rglob("*.py"))
    files = [ROOT / "Makefile", *(ROOT / "make").glob("*.mk"), *programs]
    used = {name for file in files for name in re.findall(r"\.venv-([a-z0-9]+(?:-[a-z0-9]+)*)", file.read_text())}
    names = used - ITS_OWN
    assert {"airflow", "airflow-bench", "emulator"} <= names
    assert names <= GROUPS.keys()


def test_groups_pin_their_packages() -> None:
    """Only the members of the workspace have no version, as theirs is in the checkout."""
    given = [each for group in GROUPS.values() for each in group if isinstance(each, str)]
    assert {each for each in given if "==" not in each} == {"airflow-ecs-bridge", "ecs-bridge"}


def test_check_names_tests_that_exist() -> None:
    command = ["make", "--dry-run", "check-python"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = re.findall(r"\S+/test_\w+\.py", printed)
    assert len(files) > 4
    assert [file for file in files if not (ROOT / file).exists()] == []
