"""The bridge's table, read only: the feed of what ended, and records by id.

Deliberately not here: any write. The executor's role needs ``dynamodb:Query`` on the index and
``dynamodb:BatchGetItem`` on the table, nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCH_SIZE = 100
"""Keys that one BatchGetItem takes at most."""

END_OF_TIME = 2**53
"""Later than any time that a record has, in epoch milliseconds."""

TERMINAL = frozenset({"succeeded", "failed", "rejected", "expired", "cancelled", "lost"})

_ATTRIBUTES = (
    "submission_id",
    "state",
    "exit_code",
    "stop_code",
    "stopped_reason",
    "reason",
    "task_arn",
    "created_at",
    "attempts",
    "container_name",
    "hint",
    "memory",
)


@dataclass(frozen=True)
class Record:
    """A submission as far as Airflow cares; times are epoch milliseconds."""

    submission_id: str
    state: str
    exit_code: int | None = None
    stop_code: str | None = None
    stopped_reason: str | None = None
    reason: str | None = None
    task_arn: str | None = None
    container_name: str | None = None
    created_at: int | None = None
    changed_at: int | None = None
    hint: str | None = None
    """What the end of the container suggests: ``out_of_memory``."""
    memory: int | None = None
    """The task's memory in MiB."""
    attempts: tuple[str, ...] = ()
    """How each attempt before the last one ended."""

    @property
    def ended(self) -> bool:
        """Whether the state is a terminal one, which never changes again."""
        return self.state in TERMINAL


class Table:
    """Reads through a DynamoDB client; every call is one request."""

    def __init__(self, client: Any, name: str, deployment: str) -> None:
        self._client = client
        self._name = name
        self._deployment = deployment

    def changes(
        self, since: int, after: dict[str, Any] | None = None, until: int = END_OF_TIME
    ) -> tuple[list[Record], dict[str, Any] | None]:
        """Return what ended from `since` to `until` (epoch ms), oldest first, and where the next page begins."""
        page = {} if after is None else {"ExclusiveStartKey": after}
        answer = self._client.query(
            TableName=self._name,
            IndexName="feed",
            KeyConditionExpression="feed = :feed AND changed_at BETWEEN :since AND :until",
            ExpressionAttributeValues={
                ":feed": {"S": self._deployment},
                ":since": {"N": str(since)},
                ":until": {"N": str(until)},
            },
            **page,
        )
        return [_record(item) for item in answer["Items"]], answer.get("LastEvaluatedKey")

    def records(self, submission_ids: Sequence[str]) -> tuple[dict[str, Record], list[str]]:
        """Read 1 to `BATCH_SIZE` records consistently: those that exist, and the ids that were not read this time."""
        answer = self._client.batch_get_item(
            RequestItems={
                self._name: {
                    "Keys": [{"submission_id": {"S": id}} for id in dict.fromkeys(submission_ids)],
                    "ConsistentRead": True,
                    # "state" is a reserved word, so all go by placeholders.
                    "ProjectionExpression": ", ".join(f"#{i}" for i in range(len(_ATTRIBUTES))),
                    "ExpressionAttributeNames": {f"#{i}": name for i, name in enumerate(_ATTRIBUTES)},
                }
            }
        )
        found = (_record(item) for item in answer["Responses"].get(self._name, []))
        unread = answer.get("UnprocessedKeys", {}).get(self._name, {}).get("Keys", [])
        return {record.submission_id: record for record in found}, [key["submission_id"]["S"] for key in unread]


def _record(item: dict[str, Any]) -> Record:
    def text(name: str) -> str | None:
        return item.get(name, {}).get("S")

    def number(name: str) -> int | None:
        value = item.get(name, {}).get("N")
        return None if value is None else int(value)

    return Record(
        submission_id=item["submission_id"]["S"],
        state=text("state") or "",
        exit_code=number("exit_code"),
        stop_code=text("stop_code"),
        stopped_reason=text("stopped_reason"),
        reason=text("reason"),
        task_arn=text("task_arn"),
        container_name=text("container_name"),
        created_at=number("created_at"),
        changed_at=number("changed_at"),
        hint=text("hint"),
        memory=number("memory"),
        attempts=tuple(each["S"] for each in item.get("attempts", {}).get("L", [])),
    )
