"""The queue that announces submissions to idle runners: a hint, without which everything still works."""

from __future__ import annotations

import time
import urllib.error
from collections.abc import Callable

import pytest
from conftest import PROFILES, Pools, profile

from local_stack import until

# reconcile runs rarely, and indexes lag by 5 s, so only the doorbell is fast.
ALONE = {"reconcile-every": 3600, "index-lag-ms": "5000..5000"}


def wait(pools: Pools) -> None:
    """Waits until an idle runner waits for the doorbell."""
    before = calls(pools, "ReceiveMessage")
    until("a runner waits for the doorbell", lambda: calls(pools, "ReceiveMessage") > before)


def calls(pools: Pools, operation: str) -> int:
    return pools.stack.calls().get(operation, 0)


def test_idle_runner_claims_a_submission_before_indexes_show_it(start: Callable[..., Pools]) -> None:
    pools = start(PROFILES, ALONE)
    pools.stack.invoke("reconcile")
    pools.until_idle("ready", 2)
    wait(pools)
    waits, asked = calls(pools, "ReceiveMessage"), pools.stack.invocations()["runner-api"]["invocations"]
    id = pools.submit("ready", pools.command("announced"))
    assert pools.ended(id)["state"] == "succeeded"
    # By itself, a runner asks after five waits of 20 s, and the index shows the submission after 5 s.
    assert calls(pools, "ReceiveMessage") - waits <= 3
    # One poll claims it and one reports its result. The other runner may have polled again.
    assert pools.stack.invocations()["runner-api"]["invocations"] - asked <= 4
    assert pools.starts("announced") == 1


def test_burst_is_distributed_over_idle_runners(start: Callable[..., Pools]) -> None:
    many = profile({"max": 8, "min_idle": 8, "commands_per_container": 5})
    pools = start(PROFILES | {"many": many}, ALONE | {"doubled-messages": 0.5})
    pools.stack.invoke("reconcile")
    pools.until_idle("many", 8)
    wait(pools)
    ids = [f"burst-{number}" for number in range(8)]
    # Each ends once all have started: a runner that took two would never end the first.
    all_started = f"until [ $(cat {pools.folder}/burst-* | wc -l) -ge 8 ]; do sleep 0.1; done"
    items = [{"submission_id": id, "command": pools.command(id, all_started), "profile": "many"} for id in ids]
    pools.stack.submit(*items)
    assert {pools.ended(id)["state"] for id in ids} == {"succeeded"}
    assert [pools.starts(id) for id in ids] == [1] * 8
    assert pools.stack.faults()["messages_doubled"] > 0


@pytest.mark.parametrize("lost", [0.5, 1])
def test_lost_messages_lose_no_submission(start: Callable[..., Pools], lost: float) -> None:
    pools = start(PROFILES, {"timer-scale": 10, "lost-messages": lost})
    pools.until_idle("ready", 2)
    ids = [pools.submit("ready", pools.command(f"lost-{number}")) for number in range(6)]
    assert {pools.ended(id)["state"] for id in ids} == {"succeeded"}
    assert [pools.starts(f"lost-{number}") for number in range(6)] == [1] * 6
    assert pools.stack.faults()["messages_lost"] > 0


def test_reconcile_announces_waiting_submissions_to_idle_runners(start: Callable[..., Pools]) -> None:
    pools = start()
    pools.until_idle("ready", 2)
    wait(pools)
    # The message of submit is lost.
    pools.stack.rule(operation="SendMessageBatch", error={"code": "AccessDenied", "message": "no permission"})
    waits = calls(pools, "ReceiveMessage")
    id = pools.submit("ready", pools.command("again"))
    assert pools.ended(id)["state"] == "succeeded"
    assert calls(pools, "ReceiveMessage") - waits <= 8, "no runner was told"


@pytest.mark.parametrize("operation", ["CreateQueue", "ReceiveMessage"])
def test_runners_poll_without_a_usable_doorbell(start: Callable[..., Pools], operation: str) -> None:
    pools = start(PROFILES, {"reconcile-every": 3600})
    denied = {"code": "AccessDeniedException", "message": "no permission"}
    pools.stack.rule(operation=operation, times=1_000_000, error=denied)
    pools.stack.invoke("reconcile")
    pools.until_idle("ready", 2)
    before = pools.stack.invocations()["runner-api"]["invocations"]
    until("they ask", lambda: pools.stack.invocations()["runner-api"]["invocations"] > before + 10)
    assert pools.ended(pools.submit("ready", pools.command("asked")))["state"] == "succeeded"
    assert pools.starts("asked") == 1


def test_deleted_doorbell_is_created_again(start: Callable[..., Pools]) -> None:
    pools = start()
    pools.until_idle("ready", 2)
    [spec] = pools.row("ready")["specs"].values()
    pools.stack.ecs("AmazonSQS.DeleteQueue", {"QueueUrl": spec["doorbell"]})
    assert pools.ended(pools.submit("ready", ["true"]))["state"] == "succeeded"
    for process in pools.stack.processes():
        if process["function"] == "reconcile":
            pools.stack.kill(process["pid"])
    until("it is created again", lambda: exists(pools, spec["doorbell"]))


def exists(pools: Pools, url: str) -> bool:
    try:
        pools.stack.ecs("AmazonSQS.SendMessageBatch", {"QueueUrl": url, "Entries": []})
    except urllib.error.HTTPError as error:
        if "QueueDoesNotExist" not in error.read().decode():
            raise
        return False
    return True


def test_doorbell_of_an_unused_version_is_deleted(start: Callable[..., Pools]) -> None:
    pools = start()
    until("the pool has its row", lambda: pools.row("five").get("specs"))
    [(key, spec)] = pools.row("five")["specs"].items()
    earlier = spec | {"doorbell": pools.stack.ecs("AmazonSQS.CreateQueue", {"QueueName": "earlier"})["QueueUrl"]}
    two_days_ago = int(time.time() * 1000) - 2 * 86_400_000
    specs = {key: spec, f"{key[:-1]}x": earlier}
    pools.set("five", specs=specs, unused_since={f"{key[:-1]}x": two_days_ago})
    until("the version is forgotten", lambda: list(pools.row("five")["specs"]) == [key])
    until("its queue is removed", lambda: calls(pools, "DeleteQueue") == 1)


def test_announced_submission_does_not_overtake_a_more_urgent_one(start: Callable[..., Pools]) -> None:
    pools = start(PROFILES | {"lasting": profile({"max": 1, "min_idle": 1, "commands_per_container": 9})})
    pools.until_idle("lasting")
    order = pools.folder / "order"
    pools.set("lasting", paused=True)
    urgent = pools.submit("lasting", ["sh", "-c", f"echo urgent >> {order}"], priority=0)
    pools.set("lasting", paused=False)
    patient = pools.submit("lasting", ["sh", "-c", f"echo patient >> {order}"], priority=999)
    assert {pools.ended(id)["state"] for id in (urgent, patient)} == {"succeeded"}
    assert order.read_text().split() == ["urgent", "patient"]
