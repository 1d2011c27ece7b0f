"""The bridge's table, read only: the feed of what ended, and records by id.

Deliberately not here: any write. A reader needs ``dynamodb:Query`` on the index and ``dynamodb:BatchGetItem`` on the
table, nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from ecs_bridge._sansio import backoff, retried
from ecs_bridge.advice import advice
from ecs_bridge.aws import failure
from ecs_bridge.errors import ErrorKind
from ecs_bridge.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ecs_bridge._sansio import Steps

BATCH_SIZE = 100
"""Keys that one BatchGetItem takes at most."""

END_OF_TIME = 2**53
"""Later than any time that a record has, in epoch milliseconds."""


ATTEMPTS_KEPT = 10
"""Texts of earlier attempts that a record keeps at most."""


@dataclass(frozen=True)
class Record:
    """What the bridge knows of a submission; times are epoch milliseconds, and None is not known, or not yet."""

    submission_id: str
    state: State
    exit_code: int | None = None
    """The named container's, as ECS sent it. None is not 0."""
    stop_code: str | None = None
    """ECS's ``stopCode``."""
    stopped_reason: str | None = None
    """ECS's ``stoppedReason``."""
    reason: str | None = None
    """Why it is in this state, for people."""
    task_arn: str | None = None
    container_name: str | None = None
    created_at: int | None = None
    changed_at: int | None = None
    """When it ended; only the feed has it."""
    hint: str | None = None
    """What the end of the container suggests: ``out_of_memory``."""
    memory: int | None = None
    """The task's memory in MiB."""
    attempts: tuple[str, ...] = ()
    """How the attempts before the last one ended, the newest `ATTEMPTS_KEPT` of them."""
    profile: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    runs_on: str | None = None
    """The task's capacity provider, or else its launch type."""
    runner_id: str | None = None
    """The runner of a pool that took it."""
    launched_at: int | None = None
    started_at: int | None = None
    container_exited_at: int | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Record:
        """Read a row of the table, or a record of the API; what is not known here is left out."""
        known = {name: value for name, value in row.items() if name in _FIELDS}
        known["state"] = State(row.get("state", ""))
        if "attempts" in known:
            known["attempts"] = tuple(known["attempts"])
        return cls(**known)

    @property
    def ended(self) -> bool:
        """Whether the state is a terminal one, which never changes again."""
        return State(self.state).ended

    @property
    def succeeded(self) -> bool:
        """Whether it ended with exit code 0."""
        return self.state == State.SUCCEEDED

    def told(self) -> str:
        """Return all this in a line for people: how it ended or what it waits for, and what to do about it."""
        facts = [
            f"the ECS bridge says {self.state}",
            None if self.exit_code is None else f"exit code {self.exit_code}",
            *self.earlier,
            *self.causes,
            self.advice,
            self.task_arn,
        ]
        return ", ".join(fact for fact in facts if fact)

    @property
    def earlier(self) -> list[str]:
        """Return how the attempts before the last one ended, for people."""
        if len(self.attempts) < ATTEMPTS_KEPT:
            return [f"attempt {number} ended with {end}" for number, end in enumerate(self.attempts, 1)]
        # There may have been more, so that their numbers are not known, and most are alike.
        return [f"earlier attempts ended with {end}" for end in dict.fromkeys(self.attempts)]

    @property
    def causes(self) -> list[str]:
        """Return the reasons that are known, without ECS's where the bridge's repeats it."""
        reason, stopped_reason = self.reason or "", self.stopped_reason or ""
        return [text for text in (reason, "" if stopped_reason in reason else stopped_reason) if text]

    @property
    def advice(self) -> str | None:
        """What to do about it, for people; None where all is well. See docs/troubleshooting.md."""
        reasons = (self.reason, self.stopped_reason)
        return advice(self.state, reasons=reasons, hint=self.hint, exit_code=self.exit_code, stop_code=self.stop_code)


_FIELDS = dict.fromkeys(each.name for each in fields(Record))

WHOLE = tuple(name for name in _FIELDS if name != "changed_at")
"""All that is read of a row by its id; only an index has `changed_at`. The policy of callers names these attributes."""

BRIEF = WHOLE[: WHOLE.index("profile")]
"""What tells how a submission ended. The executor reads no more: the policy of an earlier stack allows no more."""


class Table:
    """Reads through a DynamoDB client; every call is one request, and raises BridgeError."""

    def __init__(
        self,
        client: Any,
        name: str,
        deployment: str,
        attributes: Sequence[str] = BRIEF,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        """Make one.

        :param attributes: what is read of a row by its id: `BRIEF` or `WHOLE`
        :param refused: called where the credentials were
        """
        self._attributes = attributes
        self._refused = refused
        self._client = client
        self._name = name
        self._deployment = deployment

    def changes(
        self, since: int, after: dict[str, Any] | None = None, until: int = END_OF_TIME
    ) -> tuple[list[Record], dict[str, Any] | None]:
        """Return what ended from `since` to `until` (epoch ms), oldest first, and where the next page begins.

        Of each only what the index holds: id, state, exit code, reason, and when it ended.
        """
        page = {} if after is None else {"ExclusiveStartKey": after}
        answer = self._ask(
            self._client.query,
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
        answer = self._ask(
            self._client.batch_get_item,
            RequestItems={
                self._name: {
                    "Keys": [{"submission_id": {"S": id}} for id in dict.fromkeys(submission_ids)],
                    "ConsistentRead": True,
                    # "state" is a reserved word, so all go by placeholders.
                    "ProjectionExpression": ", ".join(f"#{i}" for i in range(len(self._attributes))),
                    "ExpressionAttributeNames": {f"#{i}": name for i, name in enumerate(self._attributes)},
                }
            },
        )
        # By the one table that was asked for: where that was named by its ARN, the answer may have its name.
        found = (_record(item) for items in answer["Responses"].values() for item in items)
        unread = [key for table in answer.get("UnprocessedKeys", {}).values() for key in table["Keys"]]
        return {record.submission_id: record for record in found}, [key["submission_id"]["S"] for key in unread]

    def _ask(self, operation: Callable[..., dict[str, Any]], **arguments: Any) -> dict[str, Any]:
        try:
            return operation(**arguments)
        except (BotoCoreError, ClientError) as error:
            told = failure(error, f"the table {self._name}")
            if told.kind is ErrorKind.CREDENTIALS:
                self._refused()
            raise told from error


def records(
    table: Callable[[], Table], submission_ids: Sequence[str], retry_timeout: float = 0
) -> Steps[dict[str, Record]]:
    """Read records consistently, however many: those that exist.

    :param table: returns the reader, for each request
    :param retry_timeout: seconds for which a request is repeated that failed
    """
    found: dict[str, Record] = {}
    left = list(dict.fromkeys(submission_ids))
    tries = 0
    while left:
        if tries:
            yield backoff(tries, first=0.05, most=1.0)
        batch = left[:BATCH_SIZE]
        read, unread = yield from retried(lambda batch=batch: table().records(batch), retry_timeout)  # type: ignore[misc]
        found.update(read)
        tries = tries + 1 if unread else 0
        left = left[BATCH_SIZE:] + unread
    return found


def _record(item: dict[str, Any]) -> Record:
    # Texts first: a busy feed has thousands of entries.
    return Record.of({name: value["S"] if "S" in value else _plain(value) for name, value in item.items()})


def _plain(value: dict[str, Any]) -> Any:
    """Return what an attribute holds; all numbers of a record are whole."""
    [(kind, inner)] = value.items()
    if kind == "N":
        return int(inner)
    if kind == "L":
        return [_plain(each) for each in inner]
    if kind == "M":
        return {name: _plain(each) for name, each in inner.items()}
    return inner
