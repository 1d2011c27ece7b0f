"""A tiny Runtime API: starts one process of a function as Lambda does, and hands it invocations."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from wire import Answer, Request, Server


class Function:
    """A process of a function, from its start to its end."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path | None = None) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._log = log
        self._events: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        self._ready = threading.Event()
        self._api = Server(self._serve)
        self._ended = False
        self._handed_over = 0.0

    def __enter__(self) -> Self:
        self._api.__enter__()
        environment = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._api.port}",
            "AWS_LAMBDA_FUNCTION_NAME": "bench",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
            "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/bench",
            "AWS_LAMBDA_LOG_STREAM_NAME": "bench",
            "AWS_LAMBDA_LOG_FORMAT": "JSON",
            "_HANDLER": "bootstrap",
            "PATH": os.environ["PATH"],
            **self._environment,
        }
        output = self._log.open("wb") if self._log else subprocess.DEVNULL
        self._began = time.perf_counter()
        self.process = subprocess.Popen(self._command, env=environment, stdout=output, stderr=output)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._events.put(b"")
        self.process.kill()
        self.process.wait()
        self._api.__exit__()

    def _serve(self, request: Request) -> Answer | None:
        if request.method == "GET":
            if not self._ready.is_set():
                self._first_next = time.perf_counter()
                self._ready.set()
            event = self._events.get()
            if self._ended:
                return None
            headers = (
                ("content-type", "application/json"),
                ("lambda-runtime-aws-request-id", str(uuid.uuid4())),
                ("lambda-runtime-deadline-ms", str(int((time.time() + 60) * 1000))),
                ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:123456789012:function:bench"),
                ("lambda-runtime-trace-id", "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0"),
            )
            self._handed_over = time.perf_counter()
            return Answer(event, headers=headers)
        now = time.perf_counter()
        self._answers.put((now - self._handed_over, request.body if request.path.endswith("/response") else b"ERROR"))
        return Answer(b"{}", 202)

    def cold_start(self) -> float:
        """Seconds from the start of the process to its first request for work."""
        if not self._ready.wait(300):
            raise RuntimeError(f"{self._command[0]} did not ask for work")
        return self._first_next - self._began

    def invoke(self, event: bytes) -> float:
        """Seconds from an event to its answer."""
        self._events.put(event)
        seconds, answer = self._answers.get(timeout=300)
        if answer == b"ERROR":
            raise RuntimeError(f"{self._command[0]} answered with an error")
        return seconds

    def peak_memory(self) -> float:
        """The most memory that the process held so far, in MiB."""
        return self._status("VmHWM")

    def memory(self) -> float:
        """The memory that the process holds, in MiB."""
        return self._status("VmRSS")

    def _status(self, name: str) -> float:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024

    def cpu(self) -> float:
        """Seconds of CPU that its threads have used."""
        return cpu(self.process.pid)


def cpu(pid: int) -> float:
    """Seconds of CPU that the threads of a process have used, to the nanosecond."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
