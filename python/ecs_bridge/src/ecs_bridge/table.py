"""Read access to the bridge's table, through the feed of ended submissions and by ID.

This module deliberately contains no writes. A reader needs only ``dynamodb:Query`` on the index and
``dynamodb:BatchGetItem`` on the table.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from ecs_bridge._sansio import backoff, retried
from ecs_bridge.aws import failure
from ecs_bridge.errors import ErrorKind
from ecs_bridge.progress import advice_of, causes_of
from ecs_bridge.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ecs_bridge._sansio import Steps

T = TypeVar("T")

Row = dict[str, Any]
"""A row of the table, with plain values."""

BATCH_SIZE = 100
"""Maximum number of keys of one BatchGetItem."""

END_OF_TIME = 2**53
"""A time later than any time in a record, in epoch milliseconds."""


ATTEMPTS_KEPT = 10
"""Maximum number of earlier attempts that a record keeps."""


@dataclass(frozen=True)
class Record:
    """The record of a submission. Times are epoch milliseconds. None means unknown or not yet known."""

    submission_id: str
    state: State
    exit_code: int | None = None
    """The exit code of the profile's container, as ECS sent it. None is not 0."""
    stop_code: str | None = None
    """The ``stopCode`` of ECS."""
    stopped_reason: str | None = None
    """The ``stoppedReason`` of ECS."""
    reason: str | None = None
    """The reason for the state, as text."""
    task_arn: str | None = None
    container_name: str | None = None
    created_at: int | None = None
    changed_at: int | None = None
    """The time of the end. Only the feed has this attribute."""
    hint: str | None = None
    """The likely cause of the end of the container: ``out_of_memory``."""
    memory: int | None = None
    """The memory of the task, in MiB."""
    attempts: tuple[str, ...] = ()
    """The results of up to `ATTEMPTS_KEPT` attempts before the last one."""
    profile: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    runs_on: str | None = None
    """The capacity provider of the task, or its launch type."""
    runner_id: str | None = None
    """The pool runner that claimed the submission."""
    launched_at: int | None = None
    started_at: int | None = None
    container_exited_at: int | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Record:
        """Read a row of the table, or a record of the API; attributes that a `Record` has no field for are left out."""
        known = {name: value for name, value in row.items() if name in _FIELDS}
        known["state"] = State(row.get("state", ""))
        if "attempts" in known:
            known["attempts"] = tuple(known["attempts"])
        # The API has `runner_id`; the row of the table has it in `pooled`.
        if taken := row.get("pooled", {}).get("taken"):
            known["runner_id"] = taken["runner_id"]
        return cls(**known)

    @property
    def ended(self) -> bool:
        """True if the state is terminal, which never changes again."""
        return State(self.state).ended

    @property
    def succeeded(self) -> bool:
        """True if the exit code is 0."""
        return self.state == State.SUCCEEDED

    def summary(self, *, meaning: str = "", remedy: str | None = None, link: str | None = None) -> str:
        """Return the state, the exit code, the reasons and the remedy in one line of text.

        :param meaning: text after the exit code
        :param remedy: replaces `advice`
        :param link: text after the ARN of the task
        """
        remedy = remedy or self.advice
        facts = [
            f"ECS bridge state {self.state}",
            None if self.exit_code is None else f"exit code {self.exit_code}{meaning}",
            self.stop_code and f"stop code {self.stop_code}",
            *self.earlier,
            *causes_of(vars(self)),
            remedy and f"what to do: {remedy}",
            f"submission {self.submission_id} (ecs-bridge show {self.submission_id})",
            self.task_arn,
            link,
        ]
        return ", ".join(fact for fact in facts if fact)

    @property
    def earlier(self) -> list[str]:
        """Return the results of the attempts before the last one, as text."""
        if len(self.attempts) < ATTEMPTS_KEPT:
            return [f"attempt {number} ended with {end}" for number, end in enumerate(self.attempts, 1)]
        # More attempts may have existed, so their numbers are unknown, and most results are the same.
        return [f"earlier attempts ended with {end}" for end in dict.fromkeys(self.attempts)]

    @property
    def advice(self) -> str | None:
        """The remedy as text, or None if nothing is wrong. See docs/troubleshooting.md."""
        return advice_of(vars(self))


_FIELDS = dict.fromkeys(each.name for each in fields(Record))

WHOLE = tuple("pooled" if name == "runner_id" else name for name in _FIELDS if name != "changed_at")
"""The attributes read by ID. Only an index has `changed_at`. The policy of callers names these attributes."""

BRIEF = WHOLE[: WHOLE.index("profile")]
"""The attributes of a result. The executor reads only these, because the policy of an earlier stack allows no more."""


class Table:
    """A reader on a DynamoDB client. Every call makes one request and raises BridgeError on failure."""

    def __init__(
        self,
        client: Any,
        name: str,
        deployment: str,
        attributes: Sequence[str] = BRIEF,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        """Create a reader.

        :param attributes: attributes to read by ID, `BRIEF` or `WHOLE`
        :param refused: callback for rejected credentials
        """
        self._attributes = attributes
        self._refused = refused
        self._client = client
        self._name = name
        self._deployment = deployment

    def changes(
        self, since: int, after: dict[str, Any] | None = None, until: int = END_OF_TIME
    ) -> tuple[list[Record], dict[str, Any] | None]:
        """Return entries from `since` to `until` (epoch ms), oldest first, and the start of the next page.

        Each entry has the attributes of the index, which are ID, state, exit code, reason and end time.
        """
        page = {} if after is None else {"ExclusiveStartKey": after}
        answer = self._query("feed", self._deployment, "changed_at BETWEEN :since AND :until", since, until, **page)
        return [Record.of(plain(item)) for item in answer["Items"]], answer.get("LastEvaluatedKey")

    def ids(
        self, index: str, partition: str | None = None, *, since: int | None = None, limit: int
    ) -> tuple[list[str], bool]:
        """Return up to `limit` IDs in a partition of an index, and whether it contains more.

        :param partition: defaults to the deployment, which is the partition of the feed
        :param since: time in epoch milliseconds; if it is set, IDs of earlier changes are omitted, and the newest
            come first
        """
        newest = ("", None) if since is None else ("changed_at >= :since", since)
        answer = self._query(
            index,
            self._deployment if partition is None else partition,
            *newest,
            ProjectionExpression="submission_id",
            ScanIndexForward=since is None,
            Limit=limit,
        )
        return [item["submission_id"]["S"] for item in answer["Items"]], "LastEvaluatedKey" in answer

    def records(self, submission_ids: Sequence[str]) -> tuple[dict[str, Record], list[str]]:
        """Read 1 to `BATCH_SIZE` records consistently. Return the existing records and the IDs that were not read."""
        found, unread = self.rows(submission_ids, self._attributes, is_consistent=True)
        return {id: Record.of(row) for id, row in found.items()}, unread

    def rows(
        self, ids: Sequence[str], attributes: Sequence[str] = (), *, is_consistent: bool = False
    ) -> tuple[dict[str, Row], list[str]]:
        """Read 1 to `BATCH_SIZE` rows. Return the existing rows in any order, and the IDs that were not read.

        :param attributes: attributes to read; a dot separates the keys of a map; defaults to all attributes
        """
        request: dict[str, Any] = {"Keys": [{"submission_id": {"S": id}} for id in dict.fromkeys(ids)]}
        if is_consistent:
            request["ConsistentRead"] = True
        if attributes:
            request |= _projection(attributes)
        answer = self._ask(self._client.batch_get_item, RequestItems={self._name: request})
        # The response contains one table. If the request used the ARN, the response may use the name.
        found = (plain(item) for items in answer["Responses"].values() for item in items)
        unread = [key for table in answer.get("UnprocessedKeys", {}).values() for key in table["Keys"]]
        return {row["submission_id"]: row for row in found}, [key["submission_id"]["S"] for key in unread]

    def _query(
        self, index: str, partition: str, condition: str, since: int | None, until: int | None = None, **request: Any
    ) -> dict[str, Any]:
        times = {":since": since, ":until": until}
        return self._ask(
            self._client.query,
            TableName=self._name,
            IndexName=index,
            # The key of an index is named like the index.
            KeyConditionExpression=f"#{index} = :{index}{' AND ' if condition else ''}{condition}",
            ExpressionAttributeNames={f"#{index}": index},
            ExpressionAttributeValues={
                f":{index}": {"S": partition},
                **{name: {"N": str(at)} for name, at in times.items() if at is not None},
            },
            **request,
        )

    def _ask(self, operation: Callable[..., dict[str, Any]], **arguments: Any) -> dict[str, Any]:
        try:
            return operation(**arguments)
        except (BotoCoreError, ClientError) as error:
            told = failure(error, f"cannot read the table {self._name!r}")
            if told.kind is ErrorKind.CREDENTIALS:
                self._refused()
            raise told from error


def records(
    table: Callable[[], Table], submission_ids: Sequence[str], retry_timeout: float = 0
) -> Steps[dict[str, Record]]:
    """Read any number of records consistently, and return the existing ones.

    :param table: returns the reader of the table, for each request
    :param retry_timeout: time for retries of a failed request, in seconds
    """
    found, _ = yield from batches(lambda ids: table().records(ids), submission_ids, retry_timeout)
    return found


def batches(
    read: Callable[[list[str]], tuple[dict[str, T], list[str]]],
    ids: Sequence[str],
    retry_timeout: float = 0,
    give_up: float = math.inf,
) -> Steps[tuple[dict[str, T], list[str]]]:
    """Read any number of rows, and return the existing ones and the IDs that were not read.

    :param read: reads 1 to `BATCH_SIZE` rows, and returns them and the IDs that were not read
    :param retry_timeout: time for retries of a failed request, in seconds
    :param give_up: time of the monotonic clock after which no request is made
    """
    found: dict[str, T] = {}
    left = list(dict.fromkeys(ids))
    failures = 0
    while left and time.monotonic() <= give_up:
        if failures:
            yield backoff(failures, first=0.05, most=1.0)
        batch = left[:BATCH_SIZE]
        rows, unread = yield from retried(partial(read, batch), retry_timeout)
        found.update(rows)
        failures = failures + 1 if unread else 0
        left = left[BATCH_SIZE:] + unread
    return found, left


def _projection(attributes: Sequence[str]) -> dict[str, Any]:
    # All names use placeholders, because some are reserved words, such as "state".
    words = {word: f"#{number}" for number, word in enumerate(dict.fromkeys(".".join(attributes).split(".")))}
    paths = (".".join(words[word] for word in attribute.split(".")) for attribute in attributes)
    return {
        "ProjectionExpression": ", ".join(paths),
        "ExpressionAttributeNames": {placeholder: word for word, placeholder in words.items()},
    }


def plain(item: dict[str, Any]) -> Row:
    """Return a row with plain values. Bytes are omitted, because they hold requests."""
    # Strings first, because a busy feed has thousands of entries.
    return {name: value["S"] if "S" in value else _plain(value) for name, value in item.items() if "B" not in value}


def _plain(value: dict[str, Any]) -> Any:
    ((kind, content),) = value.items()
    match kind:
        case "N":
            return int(content) if content.lstrip("-").isdecimal() else float(content)
        case "L":
            return [_plain(each) for each in content]
        case "M":
            return plain(content)
    return content
