"""The reader of the table, apart from the bridge."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ecs_bridge._sansio import run
from ecs_bridge.table import BATCH_SIZE, Table, batches, plain


class Client:
    """A DynamoDB client that notes its requests, and leaves the last key of the first `faults` batches unprocessed."""

    def __init__(self, faults: float = 0, items: list[dict[str, Any]] | None = None) -> None:
        self.faults = faults
        self.items = items or []
        self.asked: list[dict[str, Any]] = []

    def batch_get_item(self, *, RequestItems: dict[str, Any]) -> dict[str, Any]:
        (asked,) = RequestItems.values()
        self.asked.append(asked)
        keys = asked["Keys"]
        left = keys[-1:] if self.faults > 0 else []
        self.faults -= 1
        rows = [key for key in keys if key not in left]
        # The name of the table in the response may differ from the ARN in the request.
        return {"Responses": {"name": rows}, "UnprocessedKeys": {"name": {"Keys": left}} if left else {}}

    def query(self, **asked: Any) -> dict[str, Any]:
        self.asked.append(asked)
        page, rest = self.items[: asked["Limit"]], self.items[asked["Limit"] :]
        return {"Items": page, **({"LastEvaluatedKey": page[-1]} if rest else {})}


def reading(client: Client, ids: list[str], give_up: float = math.inf) -> tuple[set[str], list[str]]:
    table = Table(client, "arn:of:the:table", "prod")
    found, left = run(batches(lambda batch: table.rows(batch), ids, give_up=give_up))
    return set(found), left


def test_unprocessed_keys_are_read_again():
    client, ids = Client(faults=3), [f"id-{number}" for number in range(BATCH_SIZE + 1)]
    assert reading(client, ids) == (set(ids), [])
    assert len(client.asked) > 3
    assert all(len(asked["Keys"]) <= BATCH_SIZE for asked in client.asked)


def test_reading_after_its_deadline_returns_the_unread_ids(monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(100))
    monkeypatch.setattr("ecs_bridge.table.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("ecs_bridge._sansio.time.sleep", lambda seconds: None)
    client = Client(faults=math.inf)
    found, left = reading(client, ["a", "b"], give_up=20)
    assert (found, left) == ({"a"}, ["b"])
    assert len(client.asked) < 20


def test_no_request_is_made_after_the_deadline():
    client = Client()
    assert reading(client, ["a"], give_up=-math.inf) == (set(), ["a"])
    assert client.asked == []


def test_row_is_projected_by_placeholders_of_each_path():
    client = Client()
    Table(client, "t", "prod").rows(["a"], ["state", "pooled.taken.runner_id", "pooled.key"])
    (asked,) = client.asked
    names = asked["ExpressionAttributeNames"]
    paths = [[names[word] for word in path.split(".")] for path in asked["ProjectionExpression"].split(", ")]
    assert [".".join(path) for path in paths] == ["state", "pooled.taken.runner_id", "pooled.key"]
    assert "ConsistentRead" not in asked


def test_ids_of_a_partition_show_whether_more_are_left():
    items = [{"submission_id": {"S": id}} for id in ("a", "b", "c")]
    table = Table(client := Client(items=items), "t", "prod")
    assert table.ids("due", "queued", limit=2) == (["a", "b"], True)
    assert table.ids("feed", since=7, limit=3) == (["a", "b", "c"], False)
    oldest_first, newest_first = client.asked
    assert (oldest_first["ScanIndexForward"], newest_first["ScanIndexForward"]) == (True, False)
    assert oldest_first["ExpressionAttributeValues"] == {":due": {"S": "queued"}}
    assert newest_first["ExpressionAttributeValues"] == {":feed": {"S": "prod"}, ":since": {"N": "7"}}


def test_row_has_plain_values_and_no_bytes():
    item = {
        "text": {"S": "a"},
        "number": {"N": "-3"},
        "share": {"N": "0.5"},
        "list": {"L": [{"N": "1"}, {"BOOL": True}]},
        "request": {"B": b"secret"},
        "map": {"M": {"inner": {"NULL": True}, "spec": {"B": b"secret"}}},
    }
    expected = {"text": "a", "number": -3, "share": 0.5, "list": [1, True], "map": {"inner": True}}
    assert plain(item) == expected
