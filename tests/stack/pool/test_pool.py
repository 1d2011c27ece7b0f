"""Pools end to end, with real runners and their failures."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Pools, profile

from local_stack import PROGRAM, call, kill_runner, runner_process, until

FOREVER = "exec sleep 100000"


@pytest.mark.parametrize(
    ("then", "state", "exit_code"),
    [("exit 0", "succeeded", 0), ("exit 7", "failed", 7), ("kill -9 $$", "failed", 137)],
)
def test_pooled_command_ends_with_its_exit_code(pools: Pools, then: str, state: str, exit_code: int) -> None:
    name = f"code-{exit_code}"
    id = pools.submit("five", pools.command(name, then))
    row = pools.ended(id)
    assert (row["state"], row["exit_code"]) == (state, exit_code)
    assert "request" not in row
    assert pools.starts(name) == 1
    [runner] = [task for task in pools.stack.tasks() if task["task_arn"] == row["task_arn"]]
    assert runner["submission_id"].startswith("runner-")


def test_reported_result_is_notified_by_reconcile(pools: Pools) -> None:
    id = pools.submit("five", ["sh", "-c", "exit 7"], notify={"event_bus": "default", "task_token": "of-a-pool"})
    pools.stack.until_notified(id)
    told = pools.stack.notifications(id)
    assert {one["to"] for one in told} == {"default", "of-a-pool"}
    assert all(one["end"]["exit_code"] == 7 for one in told)
    # By reconcile, which runner-api wakes: created, taken, ended, claimed, notified.
    assert pools.stack.row(id)["rev"] == 5


def test_death_of_a_runner_is_notified_immediately(pools: Pools) -> None:
    id = pools.submit("five", ["sh", "-c", FOREVER], notify={"event_bus": "default"})
    kill_runner(pools.stack.until_state(id, "running")["pooled"]["taken"]["runner_id"])
    assert pools.stack.until_notified(id)["state"] == "failed"
    assert [one["end"]["state"] for one in pools.stack.notifications(id)] == ["failed"]


def test_submissions_environment_overrides_the_containers(pools: Pools) -> None:
    environment = [{"name": "GREETING", "value": "hello"}]
    overrides = {"overrides": {"containerOverrides": [{"name": "main", "environment": environment}]}}
    check = '[ "$GREETING" = hello ] && [ -z "$ECS_BRIDGE_RUNNER_TOKEN" ]'
    assert pools.ended(pools.submit("five", ["sh", "-c", check], overrides=overrides))["exit_code"] == 0


def test_command_of_60_kilobytes_runs(pools: Pools) -> None:
    text = "".join(chr(97 + n % 26) for n in range(60_000))
    id = pools.submit("five", ["sh", "-c", "[ ${#1} = 60000 ]", "sh", text])
    assert pools.ended(id)["state"] == "succeeded"


def test_idle_runner_claims_a_submission_without_a_launch(pools: Pools) -> None:
    idle = {runner["submission_id"] for runner in pools.until_idle("ready", 2)}
    row = pools.ended(pools.submit("ready", ["true"]))
    [task] = [task for task in pools.stack.tasks() if task["task_arn"] == row["task_arn"]]
    assert task["submission_id"] in idle


def test_death_of_an_idle_runner_affects_no_submission(pools: Pools) -> None:
    dead = pools.until_idle("ready", 2)[0]["submission_id"]
    kill_runner(dead)
    until("its end is recorded", lambda: pools.stack.row(dead)["state"] == "failed")
    rows = [pools.ended(pools.submit("ready", ["true"])) for _ in range(3)]
    assert [row["state"] for row in rows] == ["succeeded"] * 3


def test_command_fails_if_its_runner_dies(pools: Pools) -> None:
    id = pools.submit("five", pools.command("killed", FOREVER))
    pools.until_started("killed")
    kill_runner(pools.stack.row(id)["pooled"]["taken"]["runner_id"])
    row = pools.ended(id)
    assert (row["state"], row.get("exit_code"), row["attempt"]) == ("failed", None, 1)
    assert "its runner reported no exit code" in row["reason"]
    assert pools.starts("killed") == 1
    assert "request" not in row


def test_interrupted_command_is_relaunched_if_configured(pools: Pools) -> None:
    id = pools.submit(
        "again", pools.command("again", "[ $(wc -l < " + str(pools.folder / "again") + ") = 2 ] || exec sleep 100000")
    )
    pools.until_started("again")
    pools.act(pools.stack.row(id)["pooled"]["taken"]["runner_id"], "spot-interruption")
    row = pools.ended(id)
    assert (row["state"], row["attempt"], pools.starts("again")) == ("succeeded", 2, 2)
    assert "SpotInterruption" in row["attempts"][0]


def test_stop_cancels_waiting_and_running_commands(pools: Pools) -> None:
    running = pools.submit("one", pools.command("running", FOREVER))
    pools.until_started("running")
    waiting = pools.submit("one", pools.command("waiting"))
    answers = pools.stack.stop(waiting, running)
    assert answers[0]["state"] == "cancelled"
    row = pools.ended(running)
    assert (row["state"], row["exit_code"]) == ("cancelled", 143)
    assert pools.starts("waiting") == 0
    # Its place is free for another.
    assert pools.ended(pools.submit("one", ["true"]))["state"] == "succeeded"


def test_waiting_submission_expires_at_its_deadline(pools: Pools) -> None:
    running = pools.submit("one", pools.command("long", FOREVER))
    pools.until_started("long")
    id = pools.submit("one", pools.command("late"), launch_deadline=int(time.time() * 1000) + 500)
    assert pools.ended(id)["state"] == "expired"
    pools.stack.stop(running)
    pools.ended(running)
    assert pools.starts("late") == 0


def test_smaller_priority_values_are_claimed_first(pools: Pools) -> None:
    blocker = pools.submit("one", pools.command("blocker", FOREVER))
    pools.until_started("blocker")
    order = pools.folder / "order"
    ids = [
        pools.submit("one", ["sh", "-c", f"echo {priority} >> {order}"], priority=priority)
        # Each step is a head start of 0.6 s, and so far apart no slow machine turns the order.
        for priority in (999, 600, 0, 300, 600)
    ]
    pools.stack.stop(blocker)
    for id in ids:
        pools.ended(id)
    assert order.read_text().split() == ["0", "300", "600", "600", "999"]


def test_container_runs_up_to_commands_per_container(pools: Pools) -> None:
    ids = [pools.submit("three-each", pools.command("each", "sleep 0.05")) for _ in range(5)]
    tasks = [pools.ended(id)["task_arn"] for id in ids]
    counts = sorted(tasks.count(task) for task in set(tasks))
    assert counts == [2, 3]
    assert pools.starts("each") == 5


def test_pool_never_exceeds_its_maximum(pools: Pools) -> None:
    ids = [pools.submit("two", pools.command("both", "sleep 0.2")) for _ in range(8)]
    for id in ids:
        assert pools.ended(id)["state"] == "succeeded"
    tasks = [
        task
        for task in pools.stack.tasks()
        if task["submission_id"] in {row["submission_id"] for row in pools.runners("two")}
    ]
    changes = sorted([(task["created_at"], 1) for task in tasks] + [(task["exited_at"] or 1e15, -1) for task in tasks])
    alive = peak = 0
    for _, change in changes:
        alive += change
        peak = max(peak, alive)
    assert peak <= 2
    assert pools.starts("both") == 8


def test_submission_with_size_overrides_gets_a_separate_task(pools: Pools) -> None:
    id = pools.submit("five", pools.command("sized"), overrides={"overrides": {"cpu": "512"}})
    assert pools.ended(id)["state"] == "succeeded"
    assert [task["submission_id"] for task in pools.stack.tasks(id)] == [id]


def test_paused_pool_dispatches_nothing(pools: Pools) -> None:
    pools.until_idle("ready")
    pools.set("ready", paused=True)
    id = pools.submit("ready", pools.command("paused"))
    asked = pools.stack.invocations()["runner-api"]["invocations"]
    until("runners have asked", lambda: pools.stack.invocations()["runner-api"]["invocations"] > asked + 20)
    assert pools.stack.row(id)["state"] == "queued"
    pools.set("ready", paused=False)
    assert pools.ended(id)["state"] == "succeeded"


def test_idle_runners_above_a_lowered_maximum_end(pools: Pools) -> None:
    pools.until_idle("ready", 2)
    pools.set("ready", max=1, min_idle=1)
    until("one is left", lambda: len(pools.alive("ready")) == 1)
    pools.set("ready", max=3, min_idle=2)
    pools.until_idle("ready", 2)


def test_submission_shows_why_its_runners_fail(pools: Pools) -> None:
    id = pools.submit("broken", ["true"])
    row = until("it has the reason", lambda: pools.stack.row(id) if "reason" in pools.stack.row(id) else None)
    assert row["state"] == "queued"
    assert "container main exited with 3" in row["reason"]
    assert "failing_since" in pools.row("broken")
    assert pools.stack.stop(id)[0]["state"] == "cancelled"


def test_submission_of_an_earlier_profile_runs_in_its_containers(start: Callable[..., Pools]) -> None:
    pools = start({"etl": profile({"max": 1})})
    blocker = pools.submit("etl", pools.command("blocker", FOREVER))
    pools.until_started("blocker")
    id = pools.submit("etl", pools.command("earlier"))
    key = pools.stack.row(id)["pooled"]["key"]
    # A deployment with another version of the profile: this row is all that it knows of the earlier one.
    row = pools.row("etl")
    assert list(row["specs"]) == [key]
    pools.stack.stop(blocker)
    ended = pools.ended(id)
    assert ended["state"] == "succeeded"
    assert pools.starts("earlier") == 1


# The command line.


def run(pools: Pools, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"ECS_BRIDGE_LOCAL": str(pools.stack.ready_file), "USER": "alice"}
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, env=environment, check=False)


def listed(pools: Pools, profile: str) -> dict[str, Any]:
    return next(pool for pool in json.loads(run(pools, "pools", "--json").stdout) if pool["profile"] == profile)


def test_pools_command_lists_runners_and_targets(pools: Pools) -> None:
    pools.until_idle("ready", 2)
    pool = listed(pools, "ready")
    assert (pool["waiting"], pool["busy"], pool["max"], pool["min_idle"]) == (0, 0, 3, 2)
    assert pool["idle"] >= 2
    assert pool["target"] >= 2
    assert not pool["paused"]
    answer = run(pools, "pools", "--price", "0.05")
    [line] = [line for line in answer.stdout.splitlines() if line.startswith("ready")]
    assert "$0.1" in line
    assert answer.returncode == 0


def test_operators_limits_apply_until_reset(pools: Pools) -> None:
    pools.until_idle("ready", 2)
    answer = run(pools, "pool", "set", "ready", "--max", "2", "--min-idle", "1", "--pause")
    assert answer.stdout == "ready: max 2, min_idle 1, paused\n", answer.stderr
    pool = listed(pools, "ready")
    assert (pool["max"], pool["min_idle"], pool["paused"]) == (2, 1, True)
    assert pool["changed_by"].startswith("alice (")
    assert pool["changed_at"] > 0
    answer = run(pools, "pool", "set", "ready", "--reset", "--resume")
    assert answer.stdout == "ready: max 3, min_idle 2\n", answer.stderr
    pools.until_idle("ready", 2)


def test_invalid_limits_are_rejected(pools: Pools) -> None:
    pools.until_idle("ready")
    for arguments, text in [
        (("nobody", "--pause"), 'profile "nobody" has no pool; profiles with a pool: '),
        (("ready", "--max", "2", "--min-idle", "3"), "min_idle is 3; it must not exceed max, which is 2"),
        (("ready", "--max", "0"), "1..=10000"),
        (("ready",), "required"),
        (("ready", "--pause", "--resume"), "cannot be used with"),
    ]:
        answer = run(pools, "pool", "set", *arguments)
        assert answer.returncode != 0, answer.stdout
        assert text in answer.stderr


def test_ps_and_show_display_the_wait_reason(pools: Pools) -> None:
    blocker = pools.submit("one", pools.command("in-front", FOREVER))
    pools.until_started("in-front")
    first, second = (pools.submit("one", ["true"]) for _ in range(2))
    listing = {row["submission_id"]: row for row in json.loads(run(pools, "ps", "--json").stdout)}
    assert listing[first]["reason"] == "waits for a runner, place 1 of 2"
    assert listing[second]["reason"] == "waits for a runner, place 2 of 2"
    assert not [id for id in listing if id.startswith("runner-")]
    assert [id for id in run(pools, "ps", "--runners").stdout.split() if id.startswith("runner-")]
    assert "waits for a runner, place 2 of 2" in run(pools, "show", second).stdout
    shown = json.loads(run(pools, "show", "--json", blocker).stdout)
    assert shown["runner_id"].startswith("runner-")
    assert "waits" not in shown
    pools.stack.stop(blocker, first, second)
    pools.ended(blocker)


# Authentication of runners.


def ask(url: str, body: dict[str, Any]) -> tuple[int, Any]:
    try:
        return 200, call("POST", f"{url}/v1/poll", body)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_runner_api_rejects_an_unsigned_caller(pools: Pools) -> None:
    runner = pools.until_idle("ready")[0]["submission_id"]
    body = {"runner_id": runner, "token": "guessed", "incarnation": "incarnation-1"}
    assert ask(pools.stack.ready["runner_api_url"], body) == (403, {"Message": "Forbidden"})


def invoke(
    pools: Pools, body: Any, iam: dict[str, Any] | None = None, path: str = "/v1/poll", method: str = "POST"
) -> Any:
    """Invokes runner-api with the event of a function URL."""
    http = {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "test"}
    context: dict[str, Any] = {"http": http, "timeEpoch": 0}
    if iam is not None:
        context["authorizer"] = {"iam": iam}
    text = body if isinstance(body, str) else json.dumps(body)
    event = {
        "version": "2.0",
        "rawPath": path,
        "requestContext": context,
        "headers": {},
        "body": text,
        "isBase64Encoded": False,
    }
    answer = pools.stack.invoke("runner-api", event)
    return answer["statusCode"], json.loads(answer["body"])


def identity(task_arn: str, role: str = "demo-pool", account: str = "123456789012") -> dict[str, Any]:
    return {"userArn": f"arn:aws:sts::{account}:assumed-role/{role}/{task_arn.rsplit('/', 1)[1]}"}


def token(runner_id: str) -> str:
    """As its container has it."""
    with open(f"/proc/{runner_process(runner_id)}/environ") as file:
        variables = dict(line.split("=", 1) for line in file.read().split("\0") if "=" in line)
    return variables["ECS_BRIDGE_RUNNER_TOKEN"]


def test_runner_api_accepts_only_the_runners_task_and_token(pools: Pools) -> None:
    one, other = pools.until_idle("ready", 2)[:2]
    secret = token(one["submission_id"])
    body = {"runner_id": one["submission_id"], "token": secret, "incarnation": one["runner"]["incarnation"]}
    own = identity(one["task_arn"])
    assert invoke(pools, body, own)[0] == 200
    for wrong, iam, reason in [
        (body, identity(other["task_arn"]), "another task"),
        (body, identity(one["task_arn"], account="999999999999"), "another account"),
        (body, {"userArn": "arn:aws:iam::123456789012:user/somebody"}, "not a session"),
        (body, None, "not signed"),
        (body | {"token": "guessed"}, own, "no such runner"),
        (body | {"runner_id": "runner-0"}, own, "no such runner"),
        (body | {"runner_id": pools.submit("five", ["true"])}, own, "no such runner"),
    ]:
        status, answer = invoke(pools, wrong, iam)
        assert status == 403, answer
        assert reason in answer["error"]["message"]
        assert secret not in json.dumps(answer)
    logs = "".join(path.read_text() for path in pools.stack.log_dir.glob("runner-api-*.log"))
    assert secret not in logs
    assert "refused a caller" in logs


def test_direct_invocation_is_rejected_by_default(pools: Pools) -> None:
    answer = pools.stack.invoke("runner-api", {"runner_id": "runner-0", "token": "x", "incarnation": "incarnation-1"})
    assert answer["statusCode"] == 403
    assert "RunnerApiDirectInvocation" in answer["body"]


def test_invalid_request_error_states_the_expected_value(pools: Pools) -> None:
    good = {"runner_id": "runner-0", "token": "x", "incarnation": "incarnation-1"}
    for body, status, text in [
        ("{", 400, "not JSON"),
        ([], 422, "runner_id, token and incarnation"),
        ({}, 422, "runner_id"),
        (good | {"incarnation": "short"}, 422, "8 to 64 characters"),
        (good | {"runner_id": "a/b"}, 422, "1 to 60 characters"),
        (good | {"more": 1}, 422, "unknown field"),
        (good | {"done": {"submission_id": "s", "exit_code": "0"}}, 422, "exit_code"),
        ("x" * 20_000, 413, "20000"),
    ]:
        seen, answer = invoke(pools, body, {"userArn": "arn:aws:sts::123456789012:assumed-role/demo-pool/x"})
        assert seen == status, (body, answer)
        assert text in answer["error"]["message"], (body, answer)
    assert invoke(pools, good, {}, path="/v1/else")[0] == 404
    assert invoke(pools, good, {}, method="GET")[0] == 405


def test_second_process_of_a_runner_is_rejected(pools: Pools) -> None:
    runner = pools.until_idle("five")[0] if pools.alive("five") else None
    if runner is None:
        pools.ended(pools.submit("five", ["true"]))
        pools.set("five", min_idle=1)
        runner = pools.until_idle("five")[0]
    id = runner["submission_id"]
    body = {"runner_id": id, "token": token(id), "incarnation": "another-process"}
    status, answer = invoke(pools, body, identity(runner["task_arn"]))
    assert status == 409
    assert "another process" in answer["error"]["message"]
    until("its task is stopped", lambda: pools.task(id)["last_status"] == "STOPPED")
