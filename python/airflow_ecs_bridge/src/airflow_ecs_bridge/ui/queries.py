"""Bounded reads of the bridge's table for the UI, through its indexes and by ID.

A reading takes up to `SECONDS`, and up to `MOST_ENDED` and `MOST_IN_FLIGHT` rows. `Snapshot.cut` names incomplete
parts. Ended submissions never change, so they are read once. Commands and environments are never read.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from ecs_bridge.errors import CredentialsMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Row = dict[str, Any]

SECONDS = 20.0
"""Time limit of a reading. A reading that exceeds it is incomplete."""

WINDOW_MS = 6 * 3600 * 1000
"""Time window of ended submissions."""

MOST_ENDED = 1_000
MOST_IN_FLIGHT = 4_000
PARTITION = 1_000
"""Maximum number of rows per partition of an index."""

MOST_POOLS = 50
BATCH = 100
"""Maximum number of keys of one BatchGetItem."""

TRIES = 4
"""Maximum number of calls for keys that DynamoDB leaves unprocessed."""

LAUNCH_RATE = "#launch-rate"
"""The key of the row that contains the profiles with a pool and the state of capacity options."""

# The partitions of the index `due`, except for those of profiles without capacity (ARCHITECTURE.md, "The table").
DUE = ("queued", "repeat", "0", "1", "2", "3")
RUNNER = "runner-"
"""The prefix of runner IDs. No submission ID begins with it."""

ATTRIBUTES = (
    "submission_id",
    "state",
    "profile",
    "labels",
    "priority",
    "attempt",
    "attempts",
    "refusals",
    "due",
    "pool",
    "reason",
    "stop_code",
    "stopped_reason",
    "exit_code",
    "hint",
    "memory",
    "cpu",
    "runs_on",
    "cluster",
    "container_name",
    "task_arn",
    "last_status",
    "launch_deadline",
    "created_at",
    "launched_at",
    "started_at",
    "container_exited_at",
    "stopped_at",
    "changed_at",
    "pooled.taken.runner_id",
)
_RUNNER = ("submission_id", "due", "runner.closing", "runner.serves", "runner.incarnation", "runner.idle_since")
_POOL = (
    "submission_id",
    "max",
    "min_idle",
    "paused",
    "failing_since",
    "failure",
    "wait_reasons",
    "current",
    "specs",
)


class Unreadable(Exception):
    """The table cannot be read. The message names the operation and the remedy."""


@dataclass
class Snapshot:
    """The result of a reading. Times are epoch milliseconds."""

    read_at: int
    since: int
    """The start of the time window of ended submissions."""
    in_flight: list[Row] = field(default_factory=list)
    ended: list[Row] = field(default_factory=list)
    """Ended submissions, newest first."""
    capacity: dict[str, Row] = field(default_factory=dict)
    """Capacity options (``profile`` or ``profile/number`` of a fallback), with consecutive refusals and next probe."""
    pools: dict[str, Row] = field(default_factory=dict)
    """The row of each pool, by profile."""
    runners: dict[str, list[Row]] = field(default_factory=dict)
    """The active runners of each pool."""
    cut: set[str] = field(default_factory=set)
    """The incomplete parts, ``in_flight``, ``ended`` or ``pools``."""


class Reader:
    """A reader that caches ended submissions between readings. Use it from one thread at a time."""

    def __init__(self, connect: Callable[[], Any], table: str, deployment: str) -> None:
        """Create a reader. `connect` creates a DynamoDB client."""
        self._connect = connect
        self._client: Any = None
        self._table = table
        self._deployment = deployment
        self._ended: dict[str, Row] = {}

    def read(self) -> Snapshot:
        """Read all data of the view; raise Unreadable if the table cannot be read."""
        now = int(time.time() * 1000)
        give_up = time.monotonic() + SECONDS
        seen = Snapshot(now, now - WINDOW_MS)
        # No projection, because the names of the attributes are the data.
        rates = plain(self._get([LAUNCH_RATE], None)[0].get(LAUNCH_RATE, {}))
        seen.capacity = _below("capacity/", rates)
        waiting = sorted(f"waiting/{choice}" for choice in seen.capacity)
        self._read_in_flight(seen, (*DUE[:2], *waiting, *DUE[2:]), give_up)
        self._read_ended(seen, give_up)
        self._read_pools(seen, sorted(_below("pool/", rates)), give_up)
        return seen

    def records(self, ids: Sequence[str]) -> dict[str, Row]:
        """Read submissions by ID. Unknown IDs are omitted."""
        found, _ = self._get(ids, ATTRIBUTES)
        return {id: plain(item) for id, item in found.items()}

    def _read_in_flight(self, seen: Snapshot, partitions: Sequence[str], give_up: float) -> None:
        ids: dict[str, None] = {}
        for partition in partitions:
            keys, has_more = self._query("due", partition)
            # A row that moves between partitions may appear in both.
            ids |= dict.fromkeys(id for id in keys if not id.startswith(RUNNER))
            if has_more or len(ids) > MOST_IN_FLIGHT or time.monotonic() > give_up:
                seen.cut.add("in_flight")
            if len(ids) > MOST_IN_FLIGHT or time.monotonic() > give_up:
                break
        rows, is_whole = self._rows(list(ids)[:MOST_IN_FLIGHT], ATTRIBUTES, give_up)
        # The index is eventually consistent, so it may still contain ended submissions. It also contains ended
        # submissions with pending notifications.
        seen.in_flight = [row for row in rows if "due" in row and "changed_at" not in row]
        if not is_whole:
            seen.cut.add("in_flight")

    def _read_ended(self, seen: Snapshot, give_up: float) -> None:
        keys, has_more = self._query("feed", self._deployment, since=seen.since, limit=MOST_ENDED)
        new = [id for id in keys if id not in self._ended]
        rows, is_whole = self._rows(new, ATTRIBUTES, give_up)
        known = self._ended | {row["submission_id"]: row for row in rows if "changed_at" in row}
        self._ended = {id: known[id] for id in keys if id in known}
        seen.ended = list(self._ended.values())
        if has_more or not is_whole:
            seen.cut.add("ended")

    def _read_pools(self, seen: Snapshot, profiles: Sequence[str], give_up: float) -> None:
        if len(profiles) > MOST_POOLS:
            seen.cut.add("pools")
        keys = [f"#pool/{profile}" for profile in profiles[:MOST_POOLS]]
        rows, is_whole = self._rows(keys, _POOL, give_up)
        for row in rows:
            profile = row["submission_id"].partition("/")[2]
            seen.pools[profile], seen.runners[profile] = row, []
            for key in row.get("specs") or ():
                ids, has_more = self._query("pool", f"{key}/runners")
                runners, are_whole = self._rows(ids, _RUNNER, give_up)
                seen.runners[profile] += [runner for runner in runners if "due" in runner]
                is_whole = is_whole and are_whole and not has_more
        if not is_whole:
            seen.cut.add("pools")

    def _query(
        self, index: str, partition: str, since: int | None = None, limit: int | None = None
    ) -> tuple[list[str], bool]:
        """Return the IDs in a partition, and whether it contains more. With `since`, the newest come first."""
        names, values = {"#p": index}, {":p": {"S": partition}}
        condition = "#p = :p"
        if since is not None:
            condition += " AND changed_at >= :since"
            values[":since"] = {"N": str(since)}
        answer = self._call(
            f"Query on its index {index}",
            "query",
            IndexName=index,
            KeyConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
            ProjectionExpression="submission_id",
            ScanIndexForward=since is None,
            Limit=limit or PARTITION,
        )
        return [item["submission_id"]["S"] for item in answer["Items"]], "LastEvaluatedKey" in answer

    def _rows(self, ids: Sequence[str], attributes: Sequence[str], give_up: float) -> tuple[list[Row], bool]:
        """Return the rows in the order of their IDs, and whether all were read."""
        rows, is_whole = [], True
        for start in range(0, len(ids), BATCH):
            if time.monotonic() > give_up:
                return rows, False
            batch = ids[start : start + BATCH]
            found, all_read = self._get(batch, attributes)
            rows += [plain(found[id]) for id in batch if id in found]
            is_whole = is_whole and all_read
        return rows, is_whole

    def _get(self, ids: Iterable[str], attributes: Sequence[str] | None) -> tuple[dict[str, Row], bool]:
        """Read up to `BATCH` rows in DynamoDB's format, and return whether all were read."""
        keys: Any = [{"submission_id": {"S": id}} for id in dict.fromkeys(ids)]
        found: dict[str, Row] = {}
        for _ in range(TRIES):
            if not keys:
                break
            request = {"Keys": keys, **(projection(attributes) if attributes else {})}
            answer = self._call("BatchGetItem", "batch_get_item", RequestItems={self._table: request})
            for items in answer["Responses"].values():
                found |= {item["submission_id"]["S"]: item for item in items}
            keys = answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys")
        return found, not keys

    def _call(self, what: str, operation: str, **request: Any) -> Row:
        """Call DynamoDB. `what` names the call in error messages."""
        try:
            if self._client is None:
                self._client = self._connect()
            named = request if operation == "batch_get_item" else {"TableName": self._table, **request}
            answer: Row = getattr(self._client, operation)(**named)
            return answer
        except (BotoCoreError, ClientError, CredentialsMissing) as error:
            # The next call reloads the connection and the credentials.
            self._client = None
            raise Unreadable(explain(error, self._table, what)) from error


def explain(error: Exception, table: str, what: str) -> str:
    """Return the reason and the remedy of a failed call."""
    code = error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""
    if code in ("AccessDeniedException", "AccessDenied"):
        return (
            f"Cannot read the table {table!r}: the role of the API server needs dynamodb:{what}. "
            "Attach the policy in the stack output AirflowUiPolicyArn to the role."
        )
    if code == "ResourceNotFoundException":
        return (
            f"Cannot find the table {table!r} or one of its indexes in this account and Region. "
            "Check table and region_name in [ecs_bridge_executor]."
        )
    if code in ("UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException"):
        return f"AWS rejected the credentials of the API server ({code}). Check the connection aws_conn_id."
    if isinstance(error, CredentialsMissing):
        return f"The API server cannot call AWS: {error}."
    told = code or type(error).__name__
    return f"Cannot read the table {table!r} ({told}). Retrying."


def projection(attributes: Sequence[str]) -> dict[str, Any]:
    """Return the parameters of a projection on these attributes. A dot separates the keys of a map.

    All names use placeholders, because some are reserved words.
    """
    words = {word: f"#{number}" for number, word in enumerate(dict.fromkeys(".".join(attributes).split(".")))}
    paths = (".".join(words[word] for word in attribute.split(".")) for attribute in attributes)
    return {
        "ProjectionExpression": ", ".join(paths),
        "ExpressionAttributeNames": {placeholder: word for word, placeholder in words.items()},
    }


def plain(item: Row) -> Row:
    """Return a row with plain values. Bytes are omitted, because the view does not use them."""
    return {name: _plain(value) for name, value in item.items() if "B" not in value}


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


def _below(prefix: str, row: Row) -> Row:
    return {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
