"""The share of a CPU that Lambda gives to a function of so much memory, for a process on this machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cost import MB_OF_A_CPU

CGROUPS = Path("/sys/fs/cgroup")
# Lambda's own, by its cgroup: the share is granted again after each of these microseconds.
PERIOD_US = 20_000


@contextmanager
def limited(pid: int, megabytes: int) -> Iterator[str]:
    """Limit a process to its share; returns by what. By a cgroup where this user may make one, else by stops of it."""
    share = min(megabytes / MB_OF_A_CPU, 1.0)
    group = make_group(pid, share)
    if group is None:
        with stopped(pid, share):
            yield "stops"
        return
    try:
        yield "cgroup"
    finally:
        remove(group)


def make_group(pid: int, share: float) -> Path | None:
    name, quota = f"ecs-bridge-bench-{pid}", int(PERIOD_US * share)
    # Of version 1 and of version 2.
    for parent, settings in [
        (CGROUPS / "cpu", {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(quota)}),
        (CGROUPS, {"cpu.max": f"{quota} {PERIOD_US}"}),
    ]:
        group = parent / name
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            for setting, value in settings.items():
                (group / setting).write_text(value)
            (group / "cgroup.procs").write_text(str(pid))
        except OSError:
            remove(group)
            continue
        return group
    return None


def remove(group: Path) -> None:
    """Its processes go back to the parent first: a group that has any cannot be removed."""
    for pid in (group / "cgroup.procs").read_text().split():
        with suppress(ProcessLookupError):
            (group.parent / "cgroup.procs").write_text(pid)
    group.rmdir()


@contextmanager
def stopped(pid: int, share: float) -> Iterator[None]:
    """Stop and continue the process in turn. Coarser than a cgroup, it ignores that the process may use two threads."""
    over = threading.Event()

    def turn() -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGCONT)
            time.sleep(PERIOD_US / 1e6 * share)
            if share < 1:
                os.kill(pid, signal.SIGSTOP)
                time.sleep(PERIOD_US / 1e6 * (1 - share))
        os.kill(pid, signal.SIGCONT)

    turns = threading.Thread(target=turn)
    turns.start()
    try:
        yield
    finally:
        over.set()
        turns.join()
