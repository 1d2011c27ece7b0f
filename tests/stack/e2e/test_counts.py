"""The requests of a submission, counted at the wire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from api import Stack
from wire import Wire

DYNAMODB = {"GetItem", "PutItem", "UpdateItem", "BatchGetItem", "Query"}


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with Wire() as wire:
        yield wire


@pytest.fixture(scope="module")
def stack(start: Callable[..., Stack], wire: Wire) -> Stack:
    """A stack whose tasks have no events after the first, so that all requests are submit's."""
    flags = {"reconcile-every": 0, "processes": 1, "provision-s": 1e6}
    stack = start(flags, function_env={"ECS_BRIDGE_LAUNCH_RATE": 0.1, **wire.environment()})
    wire.connect(stack.ready)
    stack.submit({"submission_id": "first", "command": ["true"]})
    return stack


def counted(wire: Wire, call: Callable[[], Any]) -> Counter[str]:
    wire.calls.clear()
    call()
    return Counter(call.operation for call in wire.calls)


def test_submission_takes_three_requests_and_a_run_task(stack: Stack, wire: Wire) -> None:
    counts = counted(wire, lambda: stack.submit({"submission_id": "one", "command": ["true"]}))
    assert counts["RunTask"] == 1
    assert sum(counts[operation] for operation in DYNAMODB) <= 3, counts
    assert counts.keys() <= DYNAMODB | {"RunTask"}


def test_batch_takes_two_requests_per_submission(stack: Stack, wire: Wire) -> None:
    items = [{"submission_id": f"batch-{n}", "command": ["true"]} for n in range(50)]
    counts = counted(wire, lambda: stack.submit(*items))
    assert counts == {"PutItem": 50, "RunTask": 50, "UpdateItem": 50 + 4}


def test_resubmission_takes_one_write_and_returns_its_token(stack: Stack, wire: Wire) -> None:
    stack.submit({"submission_id": "known", "command": ["true"]})
    counts = counted(wire, lambda: stack.submit({"submission_id": "known", "command": ["true"]}))
    assert counts["PutItem"] == 1
    assert counts["RunTask"] == 0
    # A launch token is taken, and given back.
    assert sum(counts.values()) <= 3, counts


def test_invalid_submission_takes_no_request(stack: Stack, wire: Wire) -> None:
    assert not counted(wire, lambda: stack.api.submit({"submission_id": "bad"}))


def test_showing_a_record_takes_one_request(stack: Stack, wire: Wire) -> None:
    assert counted(wire, lambda: stack.show("one")) == {"GetItem": 1}


def test_submission_without_launch_token_takes_one_write(stack: Stack, wire: Wire) -> None:
    # These use up the burst of 100; one new token arrives every ten seconds.
    stack.submit(*({"submission_id": f"burst-{n}", "command": ["true"]} for n in range(100)))
    items = [{"submission_id": f"waits-{n}", "command": ["true"]} for n in range(50)]
    counts = counted(wire, lambda: stack.submit(*items))
    assert counts["PutItem"] == 50, counts
    assert counts["RunTask"] < 50, counts
    states = Counter(stack.row(f"waits-{n}")["state"] for n in range(50))
    assert states["queued"] == 50 - counts["RunTask"]
    # A launch writes its outcome, and takes its token in one write at most; so does the wake of reconcile.
    assert counts["UpdateItem"] <= 2 * counts["RunTask"] + 2, counts
