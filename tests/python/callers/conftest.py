"""What the tests of Prefect and Dagster share."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from local_stack import LocalStack

BIN = Path(sys.executable).parent
EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
sys.path[:0] = [str(EXAMPLES / "prefect"), str(EXAMPLES / "dagster")]
FLAGS = {"provision-s": 0, "pull-s": 0, "teardown-s": 0, "reconcile-every": 5}


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack whose containers are processes of this environment."""
    stack = LocalStack(tmp_path_factory.mktemp("stack"), FLAGS)
    stack.command += ["--container-env", f"PATH={BIN}:{os.environ['PATH']}"]
    with stack:
        yield stack


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def process(log: Path, environment: dict[str, str], *command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, all of which ends with the block, if it was not killed before."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield started
    finally:
        kill(started)


def kill(started: subprocess.Popen[bytes]) -> None:
    """Kills a process and its children with SIGKILL."""
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()
