"""The run launcher of examples/dagster, with Dagster's own daemon, on the local stack."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import BIN, EXAMPLES, kill, process

from ecs_bridge import Client, Submission
from local_stack import LocalStack, until

JOBS = Path(__file__).with_name("jobs.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dagster")


@pytest.fixture(scope="module")
def environment(folder: Path, stack: LocalStack) -> dict[str, str]:
    """A Dagster that launches on the stack."""
    home = folder / "home"
    home.mkdir()
    settings = {
        "telemetry": {"enabled": False},
        "run_coordinator": {
            "module": "dagster",
            "class": "QueuedRunCoordinator",
            "config": {"dequeue_interval_seconds": 1},
        },
        "run_monitoring": {"enabled": True, "max_resume_run_attempts": 1, "poll_interval_seconds": 1},
        "run_launcher": {
            "module": "ecs_bridge_launcher",
            "class": "EcsBridgeRunLauncher",
            "config": {"environment": {"FOLDER": str(folder), "PYTHONPATH": str(EXAMPLES / "dagster")}},
        },
    }
    # JSON is YAML.
    (home / "dagster.yaml").write_text(json.dumps(settings))
    return os.environ | {
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": str(EXAMPLES / "dagster"),
        "ECS_BRIDGE_LOCAL": str(stack.ready_file),
    }


@pytest.fixture
def instance(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from dagster import DagsterInstance

    for name in ("DAGSTER_HOME", "ECS_BRIDGE_LOCAL"):
        monkeypatch.setenv(name, environment[name])
    with DagsterInstance.get() as instance:
        yield instance


def test_a_daemon_that_is_killed_starts_nothing_twice_and_the_next_resumes_what_was_lost(
    environment: dict[str, str], folder: Path, stack: LocalStack, instance: Any
) -> None:
    daemon = [BIN / "dagster-daemon", "run", "-f", JOBS]
    log = folder / "daemon.log"

    def starts() -> list[str]:
        file = folder / "starts"
        return file.read_text().splitlines() if file.exists() else []

    with process(log, environment, *daemon) as first:
        subprocess.run([BIN / "dagster", "job", "launch", "-f", JOBS, "-j", "patient"], env=environment, check=True)
        until("it runs", starts, every=0.2)
        kill(first)
    [run] = instance.get_runs()
    # It has no time to tell Dagster, as where it runs out of memory.
    os.kill(int(starts()[0]), signal.SIGKILL)
    assert stack.until_ended(run.run_id)["exit_code"] == 137
    assert instance.get_run_by_id(run.run_id).status.value == "STARTED"
    with process(log, environment, *daemon):
        until("it is resumed", lambda: len(starts()) == 2, every=0.2)
        (folder / "go").touch()
        until("it ends", lambda: instance.get_run_by_id(run.run_id).status.value == "SUCCESS", every=0.2)
    stack.until_ended(f"{run.run_id}-1")
    assert [task["start_count"] for id in (run.run_id, f"{run.run_id}-1") for task in stack.tasks(id)] == [1, 1]
    assert len(starts()) == 2


def test_a_run_is_terminated_and_its_container_s_end_is_told(instance: Any, stack: LocalStack) -> None:
    from dagster._core.launcher.base import WorkerStatus
    from dagster._core.storage.dagster_run import DagsterRunStatus
    from dagster._core.test_utils import create_run_for_test

    run = create_run_for_test(instance, job_name="patient", status=DagsterRunStatus.STARTED)
    launcher = instance.run_launcher
    assert launcher.check_run_worker_health(run).status is WorkerStatus.NOT_FOUND
    with Client(ready_file=str(stack.ready_file)) as client:
        client.submit(Submission(run.run_id, ["sleep", "600"]))
        assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING
        assert launcher.terminate(run.run_id)
        client.wait([run.run_id])
    assert instance.get_run_by_id(run.run_id).status is DagsterRunStatus.CANCELING
    health = launcher.check_run_worker_health(run)
    assert health.status is WorkerStatus.FAILED
    assert "terminated in Dagster" in health.msg
    assert not launcher.terminate(run.run_id)
