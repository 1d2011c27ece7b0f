"""A runner beside a runner API that hands out what it is told to; the benches use it too."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
MODULE = "airflow.sdk.execution_time.execute_workload"
ZYGOTE = "python -m airflow_ecs_bridge.zygote"
# Only a bound: a busy machine may need it.
TIMEOUT = 240


class Runner:
    """A runner that is told what to run; `stderr` is all that it and its commands said."""

    def __init__(self, variables: dict[str, str], *arguments: str, build: str = "debug") -> None:
        # What `make test` tests stands apart from what it compiles meanwhile.
        tested = os.environ.get("ECS_BRIDGE_PROGRAM")
        folder = Path(tested).parent if tested and build == "debug" else ROOT / "target" / build
        self._commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._count = 0
        runner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if "done" in body:
                    runner._done.put(body)
                payload = json.dumps(runner._next()).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        work = {
            "ECS_BRIDGE_RUNNER_API_URL": f"http://127.0.0.1:{self._server.server_port}",
            "ECS_BRIDGE_RUNNER_ID": "runner-1",
            "ECS_BRIDGE_RUNNER_TOKEN": "the-token",
            "AWS_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "AKIA",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }
        self.process = subprocess.Popen(
            [folder / "ecs-bridge-runner", *arguments],
            env={**variables, **work},
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.stderr: list[str] = []
        self._said = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()
        # A full pipe would hold up the commands.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def _next(self) -> dict[str, Any]:
        try:
            return {"run": self._commands.get_nowait()}
        except queue.Empty:
            return {"wait_ms": 1}

    def _listen(self) -> None:
        for line in self.process.stderr:
            with self._said:
                self.stderr.append(line)
                self._said.notify_all()

    def until_said(self, words: str) -> None:
        """Wait until it, or a command, has said something."""
        with self._said:
            assert self._said.wait_for(lambda: words in "".join(self.stderr), TIMEOUT), self.stderr

    def start(self, *command: str, **variables: str) -> float:
        """Give it a command, and return the time."""
        self._count += 1
        environment = [{"name": name, "value": value} for name, value in variables.items()]
        run = {"submission_id": f"s-{self._count}", "command": command, "environment": environment}
        self._commands.put(run)
        return time.time()

    def done(self) -> dict[str, Any]:
        """Wait for the end of a command, and return what was reported."""
        return self._done.get(timeout=TIMEOUT)

    def run(self, *command: str, **variables: str) -> int:
        """Run a command, and return its exit code."""
        self.start(*command, **variables)
        return self.done()["done"]["exit_code"]

    def children(self) -> list[int]:
        """Return the PIDs of its children."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def zygote(self) -> int:
        """Return the zygote's PID, once it is ready."""
        (pid,) = self.children()
        return pid

    def end(self) -> None:
        """End it, and all that it started."""
        self.process.kill()
        self.process.wait()
        self._server.shutdown()
        self._server.server_close()


def worker(home: str, url: str, interpreter: str) -> dict[str, str]:
    """Return the environment of a container that runs `interpreter`'s Airflow against the execution API at `url`."""
    return {
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent / "dags"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": url,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # Airflow's supervisor often misses its task's exit by a moment, and then looks again after this many seconds.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "HOME": home,
        "PATH": f"{Path(interpreter).parent}:{os.environ['PATH']}",
    }
