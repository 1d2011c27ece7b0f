"""runner-api and reconcile fail at their first, second, … effect, and are called again.

Each command starts once, and ends right.

The faults are those of tests/protocol/crash: a death before and after the effect, a refused write, a lost answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Pools, profile

from local_stack import LocalStack
from wire import Cut, Fault, Wire

FAULTS = (Fault.DIES_BEFORE, Fault.DIES_AFTER, Fault.CONFLICT, Fault.ANSWER_LOST)
# reconcile runs every half second, so the next run does the work of a failed one.
FLAGS = {"reconcile-every": 0.5, "processes": 1, "time-scale": 10, "teardown-s": 0.5, "timer-scale": 30}


def cut_everywhere(
    pools: Pools, wire: Wire, function: str, profile: str, fault: Fault, before: Callable[[], object]
) -> int:
    """Runs a command for each effect of `function` that its life can have, and returns how many failed."""
    for nth in itertools.count(1):
        before()
        [victim] = (process["pid"] for process in pools.stack.processes() if process["function"] == function)
        name = f"{function}-{fault.name}-{nth}"
        wire.cut = cut = Cut(victim, nth, fault, lambda victim=victim: pools.stack.kill(victim))
        row = pools.ended(pools.submit(profile, pools.command(name, "exit 3")))
        wire.cut = None
        assert (row["state"], row["exit_code"], row["attempt"], pools.starts(name)) == ("failed", 3, 1, 1), (name, row)
        assert not {"request", "due", "check_at", "pool"} & row.keys(), (name, row)
        assert len(pools.alive(profile)) <= 1, name
        if not cut.made:
            return nth - 1
    raise AssertionError


@pytest.mark.parametrize(
    ("function", "name", "effects"),
    # The runner's row, the take, its count, the end; and the pool's row, the runner, its claim, RunTask, its answer.
    [("runner-api", "many", 3), ("reconcile", "single", 5)],
)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_command_starts_once_after_any_failed_effect(
    tmp_path: Path, function: str, name: str, effects: int, fault: Fault
) -> None:
    profiles = {
        # One runner for all, and a new one for each.
        "many": profile({"max": 1, "min_idle": 1, "commands_per_container": 10_000}),
        "single": profile({"max": 1}),
    }
    with Wire() as wire:
        stack = LocalStack(tmp_path / "stack", FLAGS, profiles=profiles, function_env=wire.environment())
        with stack:
            wire.connect(stack.ready)
            (tmp_path / "starts").mkdir()
            pools = Pools(stack, tmp_path / "starts")
            before: Callable[[], object] = (lambda: pools.until_idle("many")) if name == "many" else (lambda: None)
            failed = cut_everywhere(pools, wire, function, name, fault, before)
    deaths = fault in (Fault.DIES_BEFORE, Fault.DIES_AFTER)
    assert failed >= (effects if deaths else 2), failed
