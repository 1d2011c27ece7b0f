"""A process that preloads the imports of Airflow's workloads and forks for each workload: ``python -m
airflow_ecs_bridge.zygote``.

``ecs-bridge-runner --zygote`` starts it, with a Unix socket as stdin. Each message is a line of JSON, or ``go``:

    zygote   {"zygote": {"version": 1, "prefix": ["python", "-m", …]}}   prefix of the commands that it can run
    zygote   {"ready": {}}                                               all imports are done
    runner   {"command": […], "environment": [{"name", "value"}, …]}     fork for this command
    zygote   {"declined": {"reason": "…"}}                               the runner must start it itself; or
    process  {"forked": {"pid": 7}}                                      the command's process waits
    runner   go                                                          the process starts the command

If the socket closes, the waiting process exits. It is an orphan from the start, so the runner adopts it and receives
its exit status. The death of the zygote does not affect either of them.

A command runs as in its own interpreter. The zygote declines commands that would behave differently, because of
variables that imports read, or of files and threads that an import left open. Two differences remain. The seed of
`hash()` and the command line in `ps` are those of the zygote, the latter until Airflow sets another.
"""

from __future__ import annotations

import errno
import gc
import importlib
import json
import os
import runpy
import shutil
import socket
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 1
MODULE = "airflow.sdk.execution_time.execute_workload"
PREFIX = ["python", "-m", MODULE]

# The imports of a workload before the first instruction of its Dag (from `-X importtime`), and imports of almost every
# Dag. MODULE is excluded, because it becomes `__main__`. A module that an Airflow version does not have is not needed.
PRELOADED = (
    "airflow.executors.workloads",
    "airflow.executors.base_executor",
    "airflow.sdk.log",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.definitions.connection",
    "airflow.sdk._shared.logging.factory",
    "airflow.dag_processing.dagbag",
    "airflow.sdk.definitions.decorators.setup_teardown",
    "airflow.providers.standard.decorators.python",
    "encodings.idna",
    "jinja2.ext",
    "setproctitle",
)

# Variables that the interpreter reads at start or that imports read. `PATH` selects the interpreter.
FROZEN = ("AIRFLOW", "HOME", "LANG", "LC_", "LD_", "OTEL_", "PATH", "PYTHON", "TZ", "_AIRFLOW")


class Channel:
    """The socket to the runner, and the files that a forked process may inherit."""

    def __init__(self) -> None:
        # Before the first import. A separate process would also inherit the files that are open now.
        self._files = {file for file in open_files() if file != "0"}
        self._socket = socket.socket(fileno=os.dup(0))
        self._reader = self._socket.makefile("rb")
        self._files |= {"0", str(self._socket.fileno())}
        with open(os.devnull) as null:
            os.dup2(null.fileno(), 0)

    def send(self, kind: str, **fields: Any) -> None:
        """Send a message."""
        self._socket.sendall(json.dumps({kind: fields}).encode() + b"\n")

    def receive(self) -> bytes:
        """Return the next line, which is empty after the runner has exited."""
        return self._reader.readline()

    def close(self) -> None:
        """Close the socket in this process."""
        self._reader.close()
        self._socket.close()

    def leftovers(self) -> str | None:
        """Return a description of files or threads that an import left open."""
        if files := sorted(open_files() - self._files):
            return f"an import left files open: {', '.join(files)}"
        if (threads := len(os.listdir("/proc/self/task"))) > 1:
            return f"an import left {threads - 1} threads running"
        return None


def open_files() -> set[str]:
    """Return the numbers of the open file descriptors."""
    # The listing contains its own descriptor, which is closed at the time of the check.
    return {file for file in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{file}")}


def serve(channel: Channel) -> dict[str, Any] | None:
    """Fork for every request. Return the request in the command's process, and None after the runner has exited."""
    while line := channel.receive():
        request: dict[str, Any] = json.loads(line)
        request["environment"] = {item["name"]: item["value"] for item in request["environment"]}
        reason = difference(request["environment"]) or channel.leftovers()
        if reason is None:
            try:
                if fork(channel):
                    return request
            except OSError as error:
                reason = f"cannot fork: {error}"
        if reason:
            channel.send("declined", reason=reason)
    return None


def difference(environment: Mapping[str, str]) -> str | None:
    """Return a description of a variable that imports have already read with another value."""
    for name, value in environment.items():
        if name.startswith(FROZEN) and os.environ.get(name) != value:
            return f"its environment sets {name}"
    return None


def fork(channel: Channel) -> bool:
    """Return True in the command's process when it must start, and then False in this process."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # The command's process keeps the writing end open until it has read from the channel. This process waits for it.
    reading, writing = os.pipe()
    between = -1
    try:
        between = os.fork()
        if between == 0:
            orphan()
            wait_for_go(channel)
            return True
    finally:
        os.close(writing)
        if between > 0:
            os.read(reading, 1)
        os.close(reading)
    _, status = os.waitpid(between, 0)
    if os.WIFEXITED(status) and (error := os.WEXITSTATUS(status)):
        raise OSError(error, os.strerror(error))
    return False


def orphan() -> None:
    """Continue in a child process and exit this one, so that the runner adopts the child."""
    try:
        child = os.fork()
    except OSError as error:
        os._exit(error.errno or errno.EAGAIN)
    if child != 0:
        os._exit(0)


def wait_for_go(channel: Channel) -> None:
    """Return when the command must start. Otherwise, exit this process."""
    try:
        os.setpgid(0, 0)
        channel.send("forked", pid=os.getpid())
        if channel.receive() == b"go\n":
            channel.close()
            return
    except OSError:
        # The runner has exited.
        pass
    os._exit(0)


def become(request: dict[str, Any]) -> None:
    """Set up this process as a fresh interpreter for the command."""
    os.environ.update(request["environment"])
    sys.argv = ["-m", *request["command"][len(PREFIX) :]]
    sys.orig_argv = request["command"]
    # Every fork reseeds Python's own generator, but not NumPy's.
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()


def main() -> bool:
    """Serve the runner. Return True in a process that must run its command."""
    channel = Channel()
    interpreter = shutil.which(PREFIX[0])
    if interpreter is None or os.path.abspath(interpreter) != os.path.abspath(sys.executable):
        sys.exit(f"zygote: wrong interpreter: {PREFIX[0]} on the PATH is {interpreter}; must be {sys.executable}")
    channel.send("zygote", version=VERSION, prefix=PREFIX)
    for module in PRELOADED:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):
                raise
    # Objects from here are permanent. So a collection in a command's process does not copy their pages.
    gc.collect()
    gc.freeze()
    channel.send("ready")
    request = serve(channel)
    if request is not None:
        become(request)
    return request is not None


# At the top level, so that the interpreter handles an exception or an exit.
if __name__ == "__main__" and main():
    runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
