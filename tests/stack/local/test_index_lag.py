"""Indexes that lag behind their table, as DynamoDB's do."""

from __future__ import annotations

from pathlib import Path

from local_stack import LocalStack, until


def test_index_lags_behind_the_table(tmp_path: Path) -> None:
    # Longer than a busy machine takes for two calls; the test waits for the row, and not for the time.
    flags = {"index-lag-ms": "15000..15000", "reconcile-every": 0, "simulate": True}
    with LocalStack(tmp_path, flags) as stack:
        table = stack.table

        def seen() -> list[int]:
            condition = {"KeyConditionExpression": "#due = :due", "ExpressionAttributeNames": {"#due": "due"}}
            found = table.query(IndexName="due", ExpressionAttributeValues={":due": "probe"}, **condition)["Items"]
            return [int(item["check_at"]) for item in found]

        table.put_item(Item={"submission_id": "probe", "due": "probe", "check_at": 1})
        assert table.get_item(Key={"submission_id": "probe"})["Item"]["check_at"] == 1
        assert seen() == []
        until("the index shows it", lambda: seen() == [1])
        table.put_item(Item={"submission_id": "probe", "due": "probe", "check_at": 2})
        assert seen() == [1], "as it was"
        until("and its change", lambda: seen() == [2])
