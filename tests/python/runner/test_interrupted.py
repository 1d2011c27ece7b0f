"""What Airflow's worker makes of a SIGTERM: docs/airflow.md, Spot, says what follows from it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from execution_api import ExecutionAPI, workload
from runner_api import MODULE, TIMEOUT


def until(file: Path, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + TIMEOUT
    while not file.exists():
        assert process.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_a_task_that_goes_on_after_sigterm_ends_as_success(
    api: ExecutionAPI, variables: dict[str, str], tmp_path: Path
) -> None:
    api.states.clear()
    command = json.dumps(json.loads(workload()) | {"dag_rel_path": "interrupted.py"})
    process = subprocess.Popen(
        [sys.executable, "-m", MODULE, "--json-string", command], env={**variables, "PROBE": str(tmp_path)}
    )
    try:
        until(tmp_path / "began", process)
        process.send_signal(signal.SIGTERM)
        # Airflow 3.3 passes the signal on, and calls on_kill; nothing is raised.
        until(tmp_path / "killed", process)
        (tmp_path / "go").touch()
        assert process.wait(TIMEOUT) == 0
    finally:
        process.kill()
        process.wait()
    assert api.states == ["success"]
