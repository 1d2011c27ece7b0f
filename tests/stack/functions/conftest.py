"""Each function separately: under `cargo lambda watch`, called by `cargo lambda invoke` and by HTTP.

The local stack is here only for DynamoDB and ECS; it runs no function, and its events go nowhere.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest

from api import Api
from local_stack import PATIENCE, PROGRAM, ROOT, LocalStack, until

# cargo-lambda is in the folder of the running Python.
TOOLS = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


class Failed(Exception):
    """The function answered with an error."""


class Function:
    """One function under its own `cargo lambda watch`; a context manager.

    Watch gets the binary that is built already: building it anew, as it does by default, would take minutes.
    """

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.name = name
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"{name}.log"
        self.watch_log = folder / f"{name}-watch.log"
        self.started: list[subprocess.Popen[bytes]] = []
        self.environment = dict(environment) | {
            "AWS_LAMBDA_RUNTIME_API": f"{self.url}/.rt",
            "AWS_LAMBDA_FUNCTION_NAME": "_",
            "AWS_LAMBDA_FUNCTION_VERSION": "1",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        }

    def __enter__(self) -> Self:
        try:
            watch = ["cargo", "lambda", "watch", "--only-lambda-apis", "-A", "127.0.0.1", "-P", str(self.port)]
            self.watch = self.start(watch, self.watch_log, TOOLS)
            until("cargo lambda watch listens", self.listens)
            self.start([str(PROGRAM.parent / self.name)], self.log, self.environment)
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self, command: list[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        self.started.append(process)
        return process

    def listens(self) -> bool:
        assert self.watch.poll() is None, self.watch_log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.started):
            process.terminate()
            process.wait()

    @property
    def api(self) -> Api:
        """Watch turns any request into a function URL's event."""
        return Api(self.url)

    def invoke(self, payload: object) -> Any:
        """`cargo lambda invoke`, with the payload in a file."""
        file = self.folder / "payload.json"
        file.write_text(json.dumps(payload))
        command = ["cargo", "lambda", "invoke", "-A", "127.0.0.1", "-P", str(self.port), "--data-file", str(file)]
        done = subprocess.run(
            command, cwd=ROOT, env=TOOLS, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if done.returncode:
            raise Failed(done.stderr)
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("functions")


@pytest.fixture(scope="module")
def aws(folder: Path) -> Iterator[LocalStack]:
    """DynamoDB and ECS."""
    flags = {"no-functions": True, "env-file": folder / "env", "provision-s": 0, "pull-s": 0, "teardown-s": 0}
    with LocalStack(folder, flags) as stack:
        yield stack


@pytest.fixture(scope="module")
def run(folder: Path, aws: LocalStack) -> Iterator[Callable[..., Function]]:
    """Runs a function with the stack's environment file until the module ends."""
    lines = (folder / "env").read_text().splitlines()
    environment = dict(line.split("=", 1) for line in lines)
    with ExitStack() as functions:
        yield lambda name, **more: functions.enter_context(Function(name, folder, environment | more))
