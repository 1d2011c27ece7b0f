"""Pools in realistic use: mixed priorities, lagging indexes, and profiles that change while submissions wait.

Other files test safety. These tests check that waiting submissions are served.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from conftest import PROFILES, Pools, profile

from local_stack import until

LAG = {"index-lag-ms": "100..400"}


def test_commands_start_once_while_indexes_lag(
    start: Callable[..., Pools],
) -> None:
    many = profile({"max": 12, "min_idle": 12, "commands_per_container": 30})
    pools = start(PROFILES | {"many": many}, LAG)
    pools.until_idle("many", 12)
    ids = [f"mixed-{number}" for number in range(120)]
    for first in range(0, len(ids), 40):
        pools.stack.submit(
            *(
                {"submission_id": id, "command": pools.command(id), "profile": "many", "priority": number * 7 % 1000}
                for number, id in list(enumerate(ids))[first : first + 40]
            )
        )
    assert {pools.ended(id)["state"] for id in ids} == {"succeeded"}
    assert [pools.starts(id) for id in ids] == [1] * len(ids)
    # One runner alone could have run 30 of them.
    runners = {pools.stack.row(id)["pooled"]["taken"]["runner_id"] for id in ids}
    assert len(runners) > 4, "runners wait for each other"


def change(pools: Pools, functions: set[str], profiles: object) -> None:
    """Update these functions to other profiles, as a deployment does one after the other."""
    (pools.folder.parent / "profiles.json").write_text(json.dumps(profiles))
    before = {process["pid"] for process in pools.stack.processes() if process["function"] in functions}
    for pid in before:
        pools.stack.kill(pid)
    until("they run again", lambda: not before & {process["pid"] for process in pools.stack.processes()})


def versioned(version: str, **pool: Any) -> dict[str, object]:
    """A pool whose containers differ from those of another version."""
    changed = profile({"max": 2} | pool)
    run_task: Any = dict(changed["run_task"])  # type: ignore[call-overload]
    environment = [{"name": "VERSION", "value": version}]
    run_task["overrides"] = {"containerOverrides": [{"name": "main", "environment": environment}]}
    return PROFILES | {"changing": changed | {"run_task": run_task}}


def test_earlier_versions_submissions_precede_idle_runners_of_the_current(
    start: Callable[..., Pools],
) -> None:
    pools = start(versioned("1"), LAG)
    pools.set("changing", paused=True)
    ids = [pools.submit("changing", pools.command(f"earlier-{number}")) for number in range(3)]
    # The current version may fill the pool with idle runners.
    change(pools, {"submit", "reconcile"}, versioned("2", min_idle=2))
    pools.set("changing", paused=False)
    assert {pools.ended(id)["state"] for id in ids} == {"succeeded"}
    assert [pools.starts(f"earlier-{number}") for number in range(3)] == [1] * 3
    assert pools.ended(pools.submit("changing", ["sh", "-c", "[ $VERSION = 2 ]"]))["state"] == "succeeded"


def test_submission_is_served_if_reconcile_is_updated_first(start: Callable[..., Pools]) -> None:
    pools = start(versioned("1"), LAG)
    change(pools, {"reconcile"}, versioned("2"))
    pools.stack.invoke("reconcile")
    old = pools.submit("changing", ["sh", "-c", "[ $VERSION = 1 ]"])
    assert pools.ended(old)["state"] == "succeeded"
    change(pools, {"submit"}, versioned("2"))
    assert pools.ended(pools.submit("changing", ["sh", "-c", "[ $VERSION = 2 ]"]))["state"] == "succeeded"


def test_changed_policy_replaces_no_runner(start: Callable[..., Pools]) -> None:
    pools = start(versioned("1", min_idle=1, commands_per_container=9), LAG)
    [before] = pools.until_idle("changing")
    changed: Any = versioned("1", min_idle=1, commands_per_container=9, max=3)
    changed["changing"]["launch_timeout"] = 900
    change(pools, {"submit", "reconcile"}, changed)
    row = pools.ended(pools.submit("changing", ["true"]))
    assert row["pooled"]["taken"]["runner_id"] == before["submission_id"]
    until("limits and policy are those of the profile", lambda: spec(pools)["pool"]["max"] == 3)
    assert spec(pools)["policy"]["launch_timeout"] == 900


def spec(pools: Pools) -> dict[str, Any]:
    [found] = pools.row("changing")["specs"].values()
    return found
