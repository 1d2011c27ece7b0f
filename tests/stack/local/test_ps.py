"""The reads and the output of `ecs-bridge ps` for a table with many submissions in flight."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from callers import run_program

from http_server import Request, Response
from local_stack import PROGRAM, LocalStack, until
from wire import Call, Fault, Wire

ROWS = 10_000
WAITING = 4_000
"""Of these, those that wait for a runner of one pool."""

NOW = 1_800_000_000_000
# DynamoDB Developer Guide, "Read consistency": half a unit for each 4 KB that is read eventually consistent.
PAGE = 4096


class Reads(Wire):
    """A proxy that keeps the answers of reads."""

    def __init__(self) -> None:
        super().__init__(("dynamodb",))
        self.answers: list[tuple[Call, dict[str, Any]]] = []

    def carry_out(self, service: str, request: Request, call: Call, fault: Fault | None) -> Response | None:
        response = super().carry_out(service, request, call, fault)
        assert response is not None
        self.answers.append((call, json.loads(response.body)))
        return response

    def keys(self) -> int:
        """The number of rows that were read by their keys."""
        batches = [
            request
            for call, _ in self.answers
            if call.operation == "BatchGetItem"
            for request in call.body["RequestItems"].values()
        ]
        return sum(len(batch["Keys"]) for batch in batches)

    def units(self) -> float:
        """The read units of all calls. Each row is smaller than 4 KB, and DynamoDB charges the whole row."""
        units = 0.0
        for call, answer in self.answers:
            if call.operation == "Query":
                # A row of an index takes 100 bytes beside its attributes.
                size = sum(100 + len(json.dumps(item)) for item in answer["Items"])
                units += max(math.ceil(size / PAGE), 1) / 2
            elif call.operation == "BatchGetItem":
                units += sum(len(items) for items in answer["Responses"].values()) / 2
            else:
                units += 1
        return units


@pytest.fixture(scope="module")
def many(start: Callable[..., LocalStack]) -> LocalStack:
    stack = start(reconcile_every=0)
    with stack.table.batch_writer() as table:
        for number in range(ROWS):
            waits = number < WAITING
            row = {
                "submission_id": f"s{number:05}",
                "profile": "etl" if number % 100 else "rare",
                "state": "queued" if waits else "launched",
                "attempt": 1,
                "due": str(number % 4),
                # Those with the highest numbers are due first.
                "check_at": NOW - number,
                "created_at": NOW - number,
                "request": b"x" * 900,
                "rev": 1,
            }
            table.put_item(Item=row | ({"pool": "etl#1", "rank": NOW + number} if waits else {}))
        table.put_item(
            Item={
                "submission_id": "runner-1",
                "due": "0",
                "check_at": 0,
                "state": "running",
                "created_at": NOW,
                "runner": {},
            }
        )
    return stack


@pytest.fixture
def reads(many: LocalStack) -> Iterator[Reads]:
    with Reads() as reads:
        reads.connect(many.ready)
        yield reads


def ps(many: LocalStack, reads: Reads, *flags: str) -> tuple[list[dict[str, Any]], str]:
    url = reads.environment()["AWS_ENDPOINT_URL_DYNAMODB"]
    answer = run_program("ps", "--json", "--dynamodb-url", url, *flags, ECS_BRIDGE_LOCAL=many.ready_file)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout), answer.stderr


def test_ps_reads_only_the_rows_it_lists(many: LocalStack, reads: Reads) -> None:
    listed, more = ps(many, reads, "--limit", "150")
    # Those that are due first; the oldest comes first.
    assert [row["submission_id"] for row in listed] == [f"s{ROWS - 1 - nth:05}" for nth in range(150)]
    assert more == f"ecs-bridge: {ROWS - 150} more submissions are not listed; raise --limit\n"
    assert reads.keys() <= 151
    # Rows and their places, and the keys of all others, which were counted.
    assert reads.units() < 150 * 0.6 + ROWS * 0.035


def test_ps_reads_eventually_consistent_without_requests(many: LocalStack, reads: Reads) -> None:
    listed, _ = ps(many, reads)
    assert len(listed) == 200
    for call, _ in reads.answers:
        if call.operation == "BatchGetItem":
            [batch] = call.body["RequestItems"].values()
            assert not batch.get("ConsistentRead")
            assert "request" not in batch["ExpressionAttributeNames"].values()
            assert batch["ProjectionExpression"]
        assert not (call.operation == "Query" and call.body.get("ConsistentRead"))
    assert not any(row.keys() & {"request", "rev", "due", "check_at"} for row in listed)


def test_ps_with_a_filter_reads_until_the_limit(many: LocalStack, reads: Reads) -> None:
    listed, more = ps(many, reads, "--limit", "5", "--profile", "rare")
    assert {row["profile"] for row in listed} == {"rare"}
    assert len(listed) == 5
    assert reads.keys() <= 600
    assert more == "ecs-bridge: more submissions may match; raise --limit, or add filters\n"


def test_ps_without_matches_reads_each_row_once(many: LocalStack, reads: Reads) -> None:
    listed, more = ps(many, reads, "--profile", "nobody")
    assert (listed, more) == ([], "")
    assert reads.keys() == ROWS


def test_ps_shows_queue_places_of_listed_submissions(many: LocalStack, reads: Reads) -> None:
    listed, _ = ps(many, reads, "--limit", "5", "--state", "queued")
    # Due first, and last in the pool.
    assert {row["reason"] for row in listed} == {"waits for a runner"}
    queries = [call.body for call, _ in reads.answers if call.operation == "Query" and call.body["IndexName"] == "pool"]
    assert [query["Limit"] for query in queries] == [5]
    listed, _ = ps(many, reads, "--limit", "10000", "--state", "queued")
    reasons = {row["submission_id"]: row["reason"] for row in listed}
    assert len(reasons) == WAITING
    assert reasons["s00000"] == f"waits for a runner, place 1 of {WAITING}"
    assert reasons[f"s{WAITING - 1:05}"] == f"waits for a runner, place {WAITING} of {WAITING}"


def test_ps_watch_counts_nothing(many: LocalStack, reads: Reads) -> None:
    url = reads.environment()["AWS_ENDPOINT_URL_DYNAMODB"]
    command = [PROGRAM, "ps", "--watch", "1", "--limit", "50", "--dynamodb-url", url]
    environment = os.environ | {"ECS_BRIDGE_LOCAL": str(many.ready_file)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as listing:
        until("it has listed them twice", lambda: reads.keys() > 100)
        listing.kill()
        output, _ = listing.communicate()
    assert "\nmore submissions are not listed" in output
    queries = [call.body for call, _ in reads.answers if call.operation == "Query"]
    assert queries
    assert all(query["Limit"] == 50 for query in queries)


def test_ps_lists_runners_only_on_request(many: LocalStack, reads: Reads) -> None:
    listed, _ = ps(many, reads, "--limit", "1")
    assert [row["submission_id"] for row in listed] == [f"s{ROWS - 1:05}"]
    listed, _ = ps(many, reads, "--limit", "1", "--runners")
    assert [row["submission_id"] for row in listed] == ["runner-1"]
