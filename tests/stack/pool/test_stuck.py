"""Submissions of pools that nothing serves: each kind is shown as stuck, with the reason, and the others are served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import PROFILES, Pools, lines, profile, starting
from test_pool import listed, run

from local_stack import Record, until

# A minute is three seconds.
QUICK_TIMERS = {"timer-scale": 20}
MUTE = profile({"max": 1, "runner": ["sleep", "100000"]})


@pytest.fixture(scope="module")
def stuck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pools]:
    with starting(tmp_path_factory) as start:
        yield start(PROFILES | {"mute": MUTE}, QUICK_TIMERS)


@pytest.fixture(autouse=True)
def as_before(stuck: Pools) -> Iterator[None]:
    yield
    stuck.stack.drop_rules()
    stuck.set("two", paused=False)


def waits_under(pools: Pools, profile: str, key: str) -> str:
    """A submission that waits under another key than it was submitted with, and whose key is to be checked."""
    pools.set(profile, paused=True)
    id = pools.submit(profile, ["true"])
    pools.stack.table.update_item(
        Key={"submission_id": id},
        UpdateExpression="SET #pool = :key, pooled.#key = :key, check_at = :past ADD rev :one",
        ExpressionAttributeNames={"#pool": "pool", "#key": "key"},
        ExpressionAttributeValues={":key": key, ":past": 1, ":one": 1},
    )
    pools.set(profile, paused=False)
    return id


def set_spec(pools: Pools, profile: str, key: str, spec: object) -> None:
    """Write a launch configuration, as another version of the functions does."""
    pools.stack.table.update_item(
        Key={"submission_id": f"#pool/{profile}"},
        UpdateExpression="SET specs.#key = :spec ADD rev :one",
        ExpressionAttributeNames={"#key": key},
        ExpressionAttributeValues={":spec": spec, ":one": 1},
    )


def until_stuck(pools: Pools, profile: str, id: str, reason: str) -> Record:
    """Everything that shows it does."""

    def is_stuck() -> dict[str, Any] | None:
        pool = listed(pools, profile)
        reasons = [of_key["reason"] for of_key in (pool["wait_reasons"] or {}).values()]
        # Another reason may come first: its runners have not been launched yet.
        return pool if pool["stuck"] and any(reason in each for each in reasons) else None

    pool = until(f"it is counted as stuck: {reason}", is_stuck)
    assert pool["oldest_seconds"] > 0
    row = until(
        "it has the reason", lambda: pools.stack.row(id) if reason in pools.stack.row(id).get("reason", "") else None
    )
    assert row["state"] == "queued"

    # While another runner is tried, a pool whose runners fail is not stuck for a moment.
    def is_shown() -> bool:
        [shown] = [row for row in json.loads(run(pools, "ps", "--json").stdout) if row["submission_id"] == id]
        return "stuck: " in shown["reason"] and reason in shown["reason"]

    def is_found() -> bool:
        doctor = run(pools, "doctor", "--json")
        [finding] = [each for each in json.loads(doctor.stdout) if each["check"] == f"pool of {profile}"]
        return doctor.returncode == 1 and finding["verdict"] == "fail" and reason in finding["detail"]

    until("ps shows it", is_shown)
    until("doctor finds it", is_found)
    until("the alarm's metric counts it", lambda: max(metric(pools)) > 0)
    return row


def metric(pools: Pools) -> list[int]:
    logs = [line for path in pools.stack.log_dir.glob("reconcile-*.log") for line in lines(path)]
    return [int(line["StuckInPools"]) for line in logs if "StuckInPools" in line] or [0]


def stop(pools: Pools, profile: str, id: str) -> None:
    pools.stack.stop(id)
    until("nothing is stuck", lambda: not pools.row(profile).get("wait_reasons"))
    assert listed(pools, profile)["stuck"] == 0


def test_submission_under_unknown_key_is_stuck(stuck: Pools) -> None:
    id = waits_under(stuck, "two", "two#000000000000")
    until_stuck(stuck, "two", id, "no launch configuration")
    assert stuck.ended(stuck.submit("two", ["true"]))["state"] == "succeeded"
    stop(stuck, "two", id)


def test_submission_of_unknown_pool_is_stuck(stuck: Pools) -> None:
    id = waits_under(stuck, "two", "gone#000000000000")
    stuck.stack.table.update_item(
        Key={"submission_id": id},
        UpdateExpression="SET profile = :gone",
        ExpressionAttributeValues={":gone": "gone"},
    )
    until("its pool is listed", lambda: "gone" in run(stuck, "pools", "--json").stdout)
    until_stuck(stuck, "gone", id, "no launch configuration")
    stop_gone = stuck.stack.stop(id)
    assert stop_gone[0]["state"] == "cancelled"
    until("its pool is forgotten", lambda: "gone" not in run(stuck, "pools", "--json").stdout)


@pytest.mark.parametrize("garbage", ["a text", {"pool": {"max": 1}}, "request"])
def test_submission_with_unreadable_launch_configuration_is_stuck(stuck: Pools, garbage: Any) -> None:
    key = "two#111111111111"
    stuck.ended(stuck.submit("two", ["true"]))
    if garbage == "request":
        [spec] = [spec for of, spec in stuck.row("two")["specs"].items() if of != key]
        garbage = spec | {"run_task": b"no deflated JSON"}
    set_spec(stuck, "two", key, garbage)
    id = waits_under(stuck, "two", key)
    until_stuck(stuck, "two", id, "cannot be read")
    assert stuck.ended(stuck.submit("two", ["true"]))["state"] == "succeeded"
    assert stuck.row("two")["specs"][key] == garbage, "a newer version can read it"
    stop(stuck, "two", id)


def test_pool_whose_runners_never_poll_is_stuck(stuck: Pools) -> None:
    id = stuck.submit("mute", ["true"])
    until_stuck(stuck, "mute", id, "never asked for work")
    until("its runner is stopped for that, and counts as a failure", lambda: "failing_since" in stuck.row("mute"))
    stop(stuck, "mute", id)


def test_pool_whose_runners_are_refused_is_stuck(stuck: Pools) -> None:
    stuck.stack.rule(
        operation="RunTask", times=1000, error={"code": "AccessDeniedException", "message": "not authorized"}
    )
    id = stuck.submit("five", ["true"])
    until_stuck(stuck, "five", id, "not authorized")
    stuck.stack.drop_rules()
    assert stuck.ended(id)["state"] == "succeeded"


def test_paused_pool_is_not_stuck(stuck: Pools) -> None:
    stuck.set("two", paused=True)
    id = stuck.submit("two", ["true"])
    until("it has the reason", lambda: stuck.stack.row(id).get("reason") == "the pool is paused")
    pool = listed(stuck, "two")
    assert (pool["waiting"], pool["stuck"], pool["paused"]) == (1, 0, True)
    [shown] = [row for row in json.loads(run(stuck, "ps", "--json").stdout) if row["submission_id"] == id]
    assert shown["reason"] == "waits for a runner, place 1 of 1; the pool is paused"
    [finding] = [each for each in json.loads(run(stuck, "doctor", "--json").stdout) if each["check"] == "pool of two"]
    assert (finding["verdict"], finding["detail"]) == ("ok", "paused")
    stuck.set("two", paused=False)
    assert stuck.ended(id)["state"] == "succeeded"
    until("nothing waits", lambda: not stuck.row("two").get("wait_reasons"))
