"""Reads what the page shows from the bridge's table: bounded queries on its indexes, and rows by id.

A reading takes `SECONDS` at most, and `MOST_ENDED` and `MOST_IN_FLIGHT` rows; `Snapshot.cut` says what was left out.
What has ended never changes any more, so it is read once. Nothing of the rows' commands and environments is read.
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
"""How long a reading may take before it does without the rest."""

WINDOW_MS = 6 * 3600 * 1000
"""How far back it looks for what has ended."""

MOST_ENDED = 1_000
MOST_IN_FLIGHT = 4_000
PARTITION = 1_000
"""Rows that are read of a partition of an index."""

MOST_POOLS = 50
BATCH = 100
"""Keys that one BatchGetItem takes at most."""

TRIES = 4
"""Calls for the keys that DynamoDB leaves unprocessed."""

LAUNCH_RATE = "#launch-rate"
"""The key of the row that names the profiles with a pool, and what is known of capacity."""

# The partitions of the index `due`, but for those of profiles without capacity (ARCHITECTURE.md, "The table").
DUE = ("queued", "repeat", "0", "1", "2", "3")
RUNNER = "runner-"
"""What the ids of runners begin with, and no submission's."""

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
    """The table cannot be read; the message says what was tried, and what is missing."""


@dataclass
class Snapshot:
    """What a reading found. Times are epoch milliseconds."""

    read_at: int
    since: int
    """What ended before is not in it."""
    in_flight: list[Row] = field(default_factory=list)
    ended: list[Row] = field(default_factory=list)
    """The last that ended first."""
    capacity: dict[str, Row] = field(default_factory=dict)
    """``profile`` or ``profile/number`` of a fallback, with its refusals in a row and the next attempt."""
    pools: dict[str, Row] = field(default_factory=dict)
    """Each pool's row, by profile."""
    runners: dict[str, list[Row]] = field(default_factory=dict)
    """The runners of each pool that are not over."""
    cut: set[str] = field(default_factory=set)
    """What was not read to its end: ``in_flight``, ``ended``, ``pools``."""


class Reader:
    """Keeps what has ended from one reading to the next; one thread at a time."""

    def __init__(self, connect: Callable[[], Any], table: str, deployment: str) -> None:
        """Make one; `connect` makes a DynamoDB client."""
        self._connect = connect
        self._client: Any = None
        self._table = table
        self._deployment = deployment
        self._ended: dict[str, Row] = {}

    def read(self) -> Snapshot:
        """Read everything that the page shows; raise Unreadable if that is not allowed or not possible."""
        now = int(time.time() * 1000)
        give_up = time.monotonic() + SECONDS
        seen = Snapshot(now, now - WINDOW_MS)
        # No projection: the names of its attributes are what is asked for.
        rates = plain(self._get([LAUNCH_RATE], None)[0].get(LAUNCH_RATE, {}))
        seen.capacity = _below("capacity/", rates)
        waiting = sorted(f"waiting/{choice}" for choice in seen.capacity)
        self._read_in_flight(seen, (*DUE[:2], *waiting, *DUE[2:]), give_up)
        self._read_ended(seen, give_up)
        self._read_pools(seen, sorted(_below("pool/", rates)), give_up)
        return seen

    def records(self, ids: Sequence[str]) -> dict[str, Row]:
        """Read some submissions by their ids; those that the bridge does not have are left out."""
        found, _ = self._get(ids, ATTRIBUTES)
        return {id: plain(item) for id, item in found.items()}

    def _read_in_flight(self, seen: Snapshot, partitions: Sequence[str], give_up: float) -> None:
        ids: dict[str, None] = {}
        for partition in partitions:
            keys, has_more = self._query("due", partition)
            # Something that moves from one partition to another may be seen in both.
            ids |= dict.fromkeys(id for id in keys if not id.startswith(RUNNER))
            if has_more or len(ids) > MOST_IN_FLIGHT or time.monotonic() > give_up:
                seen.cut.add("in_flight")
            if len(ids) > MOST_IN_FLIGHT or time.monotonic() > give_up:
                break
        rows, is_whole = self._rows(list(ids)[:MOST_IN_FLIGHT], ATTRIBUTES, give_up)
        # The index is eventually consistent: what has just ended may still be in it. So is what has
        # ended and is still to be told.
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
        """Return the ids in a partition, and whether there are more; of the feed the last ones, else the first."""
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
        """Return the rows in the order of their ids, and whether all were read."""
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
        """Read up to `BATCH` rows, as DynamoDB spells them, and whether all were read."""
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
        """Call DynamoDB; `what` names the call for people."""
        try:
            if self._client is None:
                self._client = self._connect()
            named = request if operation == "batch_get_item" else {"TableName": self._table, **request}
            answer: Row = getattr(self._client, operation)(**named)
            return answer
        except (BotoCoreError, ClientError, CredentialsMissing) as error:
            # The next call reads connection and credentials again.
            self._client = None
            raise Unreadable(explain(error, self._table, what)) from error


def explain(error: Exception, table: str, what: str) -> str:
    """Say for people why a call failed."""
    code = error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""
    if code in ("AccessDeniedException", "AccessDenied"):
        return (
            f"The API server may not read the table {table!r}: its role lacks dynamodb:{what}. "
            "Attach the stack's AirflowUiPolicyArn to it."
        )
    if code == "ResourceNotFoundException":
        return (
            f"There is no table {table!r} in this account and Region, or it lacks an index. "
            "Check table and region_name in [ecs_bridge_executor]."
        )
    if code in ("UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException"):
        return f"AWS does not accept the API server's credentials ({code}). Check the connection aws_conn_id."
    if isinstance(error, CredentialsMissing):
        return f"The API server cannot ask AWS: {error}."
    told = code or type(error).__name__
    return f"The table {table!r} cannot be read now ({told}). The page tries again."


def projection(attributes: Sequence[str]) -> dict[str, Any]:
    """Return the parameters that ask for these attributes alone; a dot leads into a map.

    All go by placeholders, as some are reserved words.
    """
    words = {word: f"#{number}" for number, word in enumerate(dict.fromkeys(".".join(attributes).split(".")))}
    paths = (".".join(words[word] for word in attribute.split(".")) for attribute in attributes)
    return {
        "ProjectionExpression": ", ".join(paths),
        "ExpressionAttributeNames": {placeholder: word for word, placeholder in words.items()},
    }


def plain(item: Row) -> Row:
    """Return a row with plain values; bytes, of which no page has a use, are left out."""
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
