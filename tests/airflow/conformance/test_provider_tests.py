"""The provider's own unit tests of EcsRunTaskOperator, against the drop-in: only the known differences fail."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import sdist

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
DIFFERENCES: dict[str, str] = json.loads((HERE / "differences.json").read_text())
IMPORTED = "    EcsRunTaskOperator,\n"
SECONDS = 600
STUCK = 60


@pytest.fixture(scope="module")
def tests(pytestconfig: pytest.Config) -> Path:
    """Have the tests of the installed provider."""
    try:
        return sdist.tests(pytestconfig.cache.mkdir("amazon-provider"))
    except sdist.Unavailable as error:
        pytest.skip(str(error))


def outcomes(tests: Path, folder: Path, operator: str) -> dict[str, bool]:
    """Run the tests of EcsRunTaskOperator with the operator of a module, and return which pass."""
    source = (tests / "unit/amazon/aws/operators/test_ecs.py").read_text()
    assert source.count(IMPORTED) == 1
    source = source.replace(IMPORTED, "").replace("\nCLUSTER_NAME =", f"\n{operator}\n\nCLUSTER_NAME =", 1)
    (folder / "test_ecs.py").write_text(source)
    shutil.copy(HERE / "adapter.py", folder / "adapter.py")
    (folder / "conftest.py").write_text("from adapter import _logs_and_ids\n")
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    command += ["-c", str(folder / "pytest.ini"), f"--junitxml={folder / 'report.xml'}"]
    command += ["-o", f"faulthandler_timeout={STUCK}", "-o", "faulthandler_exit_on_timeout=true"]
    command += [f"{folder / 'test_ecs.py'}::TestEcsRunTaskOperator"]
    path = {"PYTHONPATH": f"{folder}:{tests}:{':'.join(sys.path)}"}
    result = subprocess.run(
        command, cwd=folder, env={**_environment(), **path}, capture_output=True, text=True, timeout=SECONDS
    )
    assert result.returncode in (0, 1), result.stdout[-5000:] + result.stderr[-5000:]
    (folder / "output.txt").write_text(result.stdout)
    cases = ElementTree.parse(folder / "report.xml").getroot().iter("testcase")
    return {case.attrib["name"]: not list(case) for case in cases}


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS", "PYTEST"))}


def listed(name: str) -> bool:
    """Return whether a test is known to fail, by its name with or without its parameters."""
    return name in DIFFERENCES or name.partition("[")[0] in DIFFERENCES


def test_the_provider_s_tests_pass_but_for_the_known_differences(tests: Path, tmp_path: Path):
    passed = outcomes(tests, tmp_path, "from adapter import EcsRunTaskOperator")
    unexpected = sorted(name for name, passes in passed.items() if not passes and not listed(name))
    obsolete = sorted(name for name, passes in passed.items() if passes and listed(name))
    unknown = sorted(
        name for name in DIFFERENCES if not any(each.partition("[")[0] == name.partition("[")[0] for each in passed)
    )
    print(f"{sum(passed.values())} of {len(passed)} tests of the provider pass")
    report = f"fail: {unexpected}; pass, but are listed: {obsolete}; listed, but do not exist: {unknown}"
    assert [unexpected, obsolete, unknown] == [[], [], []], (
        report + "\n" + (tmp_path / "output.txt").read_text()[-8000:]
    )
    assert len(passed) > 50


def test_the_tests_pass_with_the_provider_s_operator(tests: Path, tmp_path: Path):
    """A test that fails here with any operator would be no difference of the drop-in."""
    theirs = "from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator"
    assert not [name for name, passes in outcomes(tests, tmp_path, theirs).items() if not passes]


def test_the_document_lists_the_differences():
    text = (ROOT / "docs" / "compat.md").read_text()
    rows = dict(re.findall(r"^\| `(test_\w+)` \| (.+) \|$", text, re.MULTILINE))
    assert rows == DIFFERENCES
