"""What ``make airflow`` starts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from local_stack import PROGRAM

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "examples" / "airflow" / "run.py"
PAGE = ROOT / "docs" / "tutorial.md"


@pytest.mark.parametrize("flags", [[], ["--pool"]], ids=["own containers", "pool"])
def test_the_example_runs_on_the_demo_s_airflow(tmp_path, flags):
    command = [sys.executable, str(DEMO), "--once", "--home", str(tmp_path / "home"), "--program", str(PROGRAM), *flags]
    result = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "the run is a success" in result.stdout
    assert "work[4]" in result.stdout
    if not flags:
        # What docs/tutorial.md shows of it.
        shown = re.findall(r"```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
        assert stable(result.stdout) in [stable(text) for text in shown]


def stable(text: str) -> str:
    """Return a transcript without what differs from run to run."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "<id>", text)
    return re.sub(r"\d+\.\d s", "<seconds>", text).strip()
