"""What ``make airflow`` starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[3] / "executor" / "demo" / "run.py"


@pytest.mark.parametrize("flags", [[], ["--pool"]], ids=["own containers", "pool"])
def test_the_example_runs_on_the_demo_s_airflow(tmp_path, flags):
    command = [sys.executable, str(DEMO), "--once", "--home", str(tmp_path / "home"), *flags]
    result = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "the run is a success" in result.stdout
    assert "work[4]" in result.stdout
