"""The system test, on the local stack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stacks import scheduler_environment

SYSTEM = Path(__file__).parents[1] / "system"


def test_the_system_test_passes_on_the_local_stack(airflow, stack):
    environment = {**airflow.environment, **scheduler_environment(stack), "AIRFLOW__CORE__DAGS_FOLDER": str(SYSTEM)}
    command = [sys.executable, "-m", "pytest", "-q", str(SYSTEM)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
