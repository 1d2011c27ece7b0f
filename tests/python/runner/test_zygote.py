"""A workload in a process forked from the zygote is what it is in one of its own, and the runner needs no zygote."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from execution_api import ExecutionAPI, workload
from runner_api import MODULE, TIMEOUT, Runner

from airflow_ecs_bridge import zygote

INVALID = ("python", "-m", MODULE, "--json-string", "{}")


def probe(runner: Runner, target: Path, **variables: str) -> dict:
    """Run the DAG `probe`, and return what its task found."""
    command = ("python", "-m", MODULE, "--json-string", workload())
    assert runner.run(*command, PROBE=str(target), **variables) == 0
    return json.loads(target.read_text())


def until(found: Callable[[], list]) -> list:
    """Wait until there is something."""
    give_up = time.monotonic() + TIMEOUT
    while not (result := found()):
        assert time.monotonic() < give_up, "it never came"
        os.sched_yield()
    return result


class Paused:
    """A workload that waits for its JSON: at its first instructions, seen from outside."""

    def __init__(self, runner: Runner, folder: Path, **variables: str) -> None:
        self.fifo = folder / "workload.json"
        os.mkfifo(self.fifo)
        before = set(runner.children())
        runner.start("python", "-m", MODULE, "--json-path", str(self.fifo), **variables)
        # The command has opened its end once this is open.
        self._writing = os.open(self.fifo, os.O_WRONLY)
        (self.pid,) = until(lambda: [pid for pid in runner.children() if pid not in before and self.has_opened(pid)])

    def has_opened(self, pid: int) -> bool:
        """Return whether a process holds the FIFO."""
        return str(self.fifo) in self.files(pid).values()

    def files(self, pid: int | None = None) -> dict[str, str]:
        """Return the open files of a process, by descriptor."""
        folder = Path(f"/proc/{pid or self.pid}/fd")
        return {entry.name: os.readlink(entry) for entry in folder.iterdir()}

    @property
    def forked(self) -> bool:
        """Whether it was forked from the zygote: no other command line has its name."""
        return b"airflow_ecs_bridge.zygote" in Path(f"/proc/{self.pid}/cmdline").read_bytes()

    def go_on(self, text: str = "{}") -> None:
        """Give it its JSON."""
        os.write(self._writing, text.encode())
        os.close(self._writing)


def test_a_workload_finds_what_it_finds_in_a_process_of_its_own(
    forking: Runner, spawning: Runner, tmp_path: Path
) -> None:
    forked = probe(forking, tmp_path / "forked")["told"]
    spawned = probe(spawning, tmp_path / "spawned")["told"]
    assert forked["orig_argv"][:2] == ["-m", MODULE]
    assert "a session" not in forked["database"]
    assert forked == spawned


def test_its_process_has_no_file_but_stdin_stdout_and_stderr(forking: Runner, tmp_path: Path) -> None:
    paused = Paused(forking, tmp_path)
    assert paused.forked
    files = paused.files()
    assert files.pop("0") == "/dev/null"
    # The FIFO is the command's own.
    assert sorted(files) == ["1", "2", "3"]
    paused.go_on()
    assert forking.done()["done"]["exit_code"] == 1


def test_its_process_leads_a_group_and_is_the_runners_child(forking: Runner, tmp_path: Path) -> None:
    paused = Paused(forking, tmp_path)
    assert os.getpgid(paused.pid) == paused.pid
    assert f"PPid:\t{forking.process.pid}\n" in Path(f"/proc/{paused.pid}/status").read_text()
    paused.go_on()
    forking.done()


def test_random_numbers_differ(forking: Runner, tmp_path: Path) -> None:
    assert len({probe(forking, tmp_path / str(number))["random"] for number in range(3)}) == 3


def test_numpys_random_numbers_are_seeded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[tuple] = []
    numpy = SimpleNamespace(random=SimpleNamespace(seed=lambda *seed: seeds.append(seed)))
    monkeypatch.setitem(sys.modules, "numpy", numpy)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "orig_argv", sys.orig_argv)
    zygote.become({"command": [*zygote.PREFIX], "environment": {}})
    assert seeds == [()]


def test_the_environment_of_one_is_not_seen_by_the_next(forking: Runner, tmp_path: Path) -> None:
    first = probe(forking, tmp_path / "first", ONLY_THE_FIRST="1")["told"]["environment"]
    second = probe(forking, tmp_path / "second")["told"]["environment"]
    assert first.pop("ONLY_THE_FIRST") == "1"
    assert first == second
    assert not any(name.startswith("ECS_BRIDGE") for name in second)


def test_a_refusal_by_the_api_server_is_exit_code_1(forking: Runner, api: ExecutionAPI) -> None:
    api.refusal = 409
    try:
        assert forking.run("python", "-m", MODULE, "--json-string", workload()) == 1
    finally:
        api.refusal = None


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_death_by_a_signal_comes_through(forking: Runner, tmp_path: Path, death: signal.Signals) -> None:
    paused = Paused(forking, tmp_path)
    assert paused.forked
    os.kill(paused.pid, death)
    assert forking.done()["done"]["exit_code"] == 128 + death


def test_twenty_in_a_row_leave_nothing_behind(forking: Runner) -> None:
    assert forking.run(*INVALID) == 1
    pid = forking.zygote()

    def held() -> tuple[list[str], list[str], str]:
        folder = Path(f"/proc/{pid}")
        children = (folder / f"task/{pid}/children").read_text()
        return sorted(os.listdir(folder / "fd")), os.listdir(folder / "task"), children

    before = held()
    for _ in range(20):
        assert forking.run(*INVALID) == 1
    assert held() == before
    assert forking.children() == [pid]
    assert not any("declined" in line for line in forking.stderr)


def test_other_commands_do_not_wait_for_the_imports(variables: dict[str, str], tmp_path: Path) -> None:
    # It says what it can run, and never that it is ready.
    hello = json.dumps({"zygote": {"version": zygote.VERSION, "prefix": zygote.PREFIX}})
    importing = tmp_path / "importing.py"
    importing.write_text(f"import os, time\nos.write(0, {hello!r}.encode() + b'\\n')\ntime.sleep(1000)\n")
    runner = Runner(variables, "--zygote", f"python {importing}")
    try:
        assert runner.run("sh", "-c", "exit 3") == 3
        assert runner.stderr == []
    finally:
        runner.end()


def test_a_variable_that_imports_have_read_makes_a_process_of_its_own(forking: Runner, tmp_path: Path) -> None:
    paused = Paused(forking, tmp_path, AIRFLOW__CORE__PARALLELISM="7")
    assert not paused.forked
    assert b"AIRFLOW__CORE__PARALLELISM=7" in Path(f"/proc/{paused.pid}/environ").read_bytes()
    paused.go_on()
    assert forking.done()["done"]["exit_code"] == 1
    forking.until_said("declined s-")
    forking.until_said("its environment sets AIRFLOW__CORE__PARALLELISM")


def test_sigterm_reaches_a_forked_command_and_its_end_is_reported_as_stopping(own: Runner, tmp_path: Path) -> None:
    paused = Paused(own, tmp_path)
    assert paused.forked
    own.process.terminate()
    done = own.done()
    assert done["done"]["exit_code"] == 128 + signal.SIGTERM
    assert done["stopping"] is True
    assert own.process.wait() == 0


def test_a_dead_zygote_is_replaced_by_processes_of_their_own(own: Runner, tmp_path: Path) -> None:
    assert own.run(*INVALID) == 1
    os.kill(own.zygote(), signal.SIGKILL)
    own.until_said("the zygote is unusable")
    paused = Paused(own, tmp_path)
    assert not paused.forked
    paused.go_on()
    assert own.done()["done"]["exit_code"] == 1


def test_a_command_outlives_its_zygote(own: Runner, tmp_path: Path) -> None:
    paused = Paused(own, tmp_path)
    assert paused.forked
    (pid,) = set(own.children()) - {paused.pid}
    os.kill(pid, signal.SIGKILL)
    own.until_said("the zygote is unusable")
    paused.go_on()
    assert own.done()["done"]["exit_code"] == 1


def test_the_zygote_ends_with_its_runner(own: Runner) -> None:
    assert own.run(*INVALID) == 1
    pid = own.zygote()
    own.process.kill()
    own.process.wait()
    until(lambda: [] if Path(f"/proc/{pid}").exists() else ["gone"])


@pytest.fixture
def channel() -> Iterator[zygote.Channel]:
    """A channel of this process; its own stdin comes back."""
    stdin = os.dup(0)
    with socket.socketpair()[0] as runner:
        os.dup2(runner.fileno(), 0)
        channel = zygote.Channel()
        yield channel
        channel.close()
    os.dup2(stdin, 0)
    os.close(stdin)


def test_a_file_that_an_import_left_open_is_found(channel: zygote.Channel) -> None:
    with open(__file__) as file:
        assert channel.leftovers() == f"an import left files open: {file.fileno()}"


def test_a_thread_that_an_import_left_running_is_found(channel: zygote.Channel) -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    found = channel.leftovers()
    end.set()
    thread.join()
    # Threads of other tests may end meanwhile.
    assert re.fullmatch(r"an import left [1-9]\d* threads running", found or "")
