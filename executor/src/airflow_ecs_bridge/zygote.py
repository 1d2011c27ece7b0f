"""A process that has imported what Airflow's workloads need, and forks for each of them: ``python -m
airflow_ecs_bridge.zygote``.

Started by ``ecs-bridge-runner --zygote``, which hands it a Unix socket as stdin. Each message is a line of JSON, or
``go``:

    zygote   {"zygote": {"version": 1, "prefix": ["python", "-m", …]}}   what the commands that it runs begin with
    zygote   {"ready": {}}                                               everything is imported
    runner   {"command": […], "environment": [{"name", "value"}, …]}     fork for this
    zygote   {"declined": {"reason": "…"}}                               the runner has to start it itself; or
    process  {"forked": {"pid": 7}}                                      the command's process waits
    runner   go                                                          and starts the command

The process that waits ends where the socket closes instead. It is orphaned from its first moment, so its exit status
goes to the runner, which adopts orphans, and not to the zygote; should the zygote die, neither notices.

A command runs as in an interpreter of its own. What could make a difference is declined: variables that are read by
imports, and files or threads that an import left behind. Two things do differ: the seed of `hash()` is the zygote's,
and so is the command line that `ps` shows until Airflow sets another.
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

# What a workload imports until its DAG's first instruction, found by `-X importtime`, and what almost every DAG
# imports; not MODULE, which is to become `__main__`. An Airflow that lacks one does not need it.
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

# Read when the interpreter starts or by imports; `PATH` chooses the interpreter.
FROZEN = ("AIRFLOW", "HOME", "LANG", "LC_", "LD_", "OTEL_", "PATH", "PYTHON", "TZ", "_AIRFLOW")


class Channel:
    """The socket to the runner, and what a process that is forked from this one may find open."""

    def __init__(self) -> None:
        # Before the first import: whatever is open now, a process of its own would inherit too.
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
        """Return the next line; it is empty once the runner has gone."""
        return self._reader.readline()

    def close(self) -> None:
        """Close this process's end."""
        self._reader.close()
        self._socket.close()

    def leftovers(self) -> str | None:
        """Say what an import has left behind that no other process may share."""
        if files := sorted(open_files() - self._files):
            return f"an import left files open: {', '.join(files)}"
        if (threads := len(os.listdir("/proc/self/task"))) > 1:
            return f"an import left {threads - 1} threads running"
        return None


def open_files() -> set[str]:
    """Return the numbers of the open file descriptors."""
    # The listing's own is among them, and closed by the time of the second look.
    return {file for file in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{file}")}


def serve(channel: Channel) -> dict[str, Any] | None:
    """Fork for every request. Return the request in the command's process, and None once the runner has gone."""
    while line := channel.receive():
        request = json.loads(line)
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
    """Say which variable has been read already, with another value than the command is to see."""
    for name, value in environment.items():
        if name.startswith(FROZEN) and os.environ.get(name) != value:
            return f"its environment sets {name}"
    return None


def fork(channel: Channel) -> bool:
    """Return True in the command's process, once it is to start; and then False in this one."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # The command's process holds the writing end until it has read from the channel; this one reads there only then.
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
    """Go on in a child of this process, and end this one, so that the child belongs to the runner."""
    try:
        child = os.fork()
    except OSError as error:
        os._exit(error.errno or errno.EAGAIN)
    if child != 0:
        os._exit(0)


def wait_for_go(channel: Channel) -> None:
    """Return if the command is to start, and end this process if not."""
    try:
        os.setpgid(0, 0)
        channel.send("forked", pid=os.getpid())
        if channel.receive() == b"go\n":
            channel.close()
            return
    except OSError:
        # The runner has gone.
        pass
    os._exit(0)


def become(request: dict[str, Any]) -> None:
    """Make this process what the interpreter would be that runs the command."""
    os.environ.update(request["environment"])
    sys.argv = ["-m", *request["command"][len(PREFIX) :]]
    sys.orig_argv = request["command"]
    # Python's own generator is seeded anew by every fork; NumPy's is not.
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()


def main() -> bool:
    """Serve the runner. Return True in a process that is to run its command."""
    channel = Channel()
    interpreter = shutil.which(PREFIX[0])
    if interpreter is None or os.path.abspath(interpreter) != os.path.abspath(sys.executable):
        sys.exit(f"zygote: the commands' {PREFIX[0]} is {interpreter}, and not {sys.executable}")
    channel.send("zygote", version=VERSION, prefix=PREFIX)
    for module in PRELOADED:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):
                raise
    # What is here stays; so no collection in a command's process has to touch, and thereby to copy, its pages.
    gc.collect()
    gc.freeze()
    channel.send("ready")
    request = serve(channel)
    if request is not None:
        become(request)
    return request is not None


# At the top, so that an end, an exception or an exit is the interpreter's own business.
if __name__ == "__main__" and main():
    runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
