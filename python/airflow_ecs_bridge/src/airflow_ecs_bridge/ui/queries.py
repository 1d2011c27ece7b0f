"""Bounded reads of the bridge's table for the UI, through its indexes and by ID.

A reading takes up to `SECONDS`, and up to `MOST_ENDED` and `MOST_IN_FLIGHT` rows. `Snapshot.cut` names incomplete
parts. Ended submissions never change, so they are read once. Commands and environments are never read.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from ecs_bridge._sansio import run
from ecs_bridge.errors import BridgeError, CredentialsMissing
from ecs_bridge.table import Row, Table, batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SECONDS = 20.0
"""Time limit of a reading. A reading that exceeds it is incomplete."""

WINDOW_MS = 6 * 3600 * 1000
"""Time window of ended submissions."""

MOST_ENDED = 1_000
MOST_IN_FLIGHT = 4_000
PARTITION = 1_000
"""Maximum number of rows per partition of an index."""

MOST_POOLS = 50

LAUNCH_RATE = "#launch-rate"
"""The key of the row that contains the profiles with a pool and the state of capacity options."""

# The partitions of the index `due`, except for those of profiles without capacity (ARCHITECTURE.md, "The table").
DUE = ("queued", "repeat", "0", "1", "2", "3")
RUNNER = "runner-"
"""The prefix of runner IDs. No submission ID begins with it."""


def _attributes() -> tuple[str, ...]:
    """Return the attributes of submissions, from the list that the bridge generates. Its policy names the same ones."""
    listed = json.loads(resources.files(__package__).joinpath("attributes.json").read_text(encoding="utf-8"))
    names = [each["name"] for each in listed if "ui" in each["readers"] and each["name"] != "runner"]
    return tuple("pooled.taken.runner_id" if name == "pooled" else name for name in names)


ATTRIBUTES = _attributes()
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
        self._reader: Table | None = None
        self._table = table
        self._deployment = deployment
        self._ended: dict[str, Row] = {}

    def read(self) -> Snapshot:
        """Read all data of the view; raise Unreadable if the table cannot be read."""
        now = int(time.time() * 1000)
        give_up = time.monotonic() + SECONDS
        seen = Snapshot(now, now - WINDOW_MS)
        # All attributes, because their names are the data.
        rates = next(iter(self._rows([LAUNCH_RATE], (), give_up)[0]), {})
        seen.capacity = _below("capacity/", rates)
        waiting = sorted(f"waiting/{choice}" for choice in seen.capacity)
        self._read_in_flight(seen, (*DUE[:2], *waiting, *DUE[2:]), give_up)
        self._read_ended(seen, give_up)
        self._read_pools(seen, sorted(_below("pool/", rates)), give_up)
        return seen

    def records(self, ids: Sequence[str]) -> dict[str, Row]:
        """Read submissions by ID. Unknown IDs are omitted."""
        rows, _ = self._rows(ids, ATTRIBUTES, time.monotonic() + SECONDS)
        return {row["submission_id"]: row for row in rows}

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
        keys, has_more = self._query("feed", since=seen.since, limit=MOST_ENDED)
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

    def _query(self, index: str, partition: str | None = None, **limits: Any) -> tuple[list[str], bool]:
        """Return the IDs in a partition, and whether it contains more."""
        with self._explained(f"Query on its index {index}"):
            return self._connected().ids(index, partition, **{"limit": PARTITION, **limits})

    def _rows(self, ids: Sequence[str], attributes: Sequence[str], give_up: float) -> tuple[list[Row], bool]:
        """Return the rows in the order of their IDs, and whether all were read."""

        def read(batch: list[str]) -> tuple[dict[str, Row], list[str]]:
            return self._connected().rows(batch, attributes)

        with self._explained("BatchGetItem"):
            found, unread = run(batches(read, ids, give_up=give_up))
        return [found[id] for id in ids if id in found], not unread

    def _connected(self) -> Table:
        if self._reader is None:
            self._reader = Table(self._connect(), self._table, self._deployment)
        return self._reader

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Raise Unreadable for a failed call. `what` names the call."""
        try:
            yield
        except BridgeError as error:
            # The next call reloads the connection and the credentials.
            self._reader = None
            raise Unreadable(explain(error, self._table, what)) from error


def explain(error: BridgeError, table: str, what: str) -> str:
    """Return the reason and the remedy of a failed call."""
    cause = error.__cause__
    code = cause.response.get("Error", {}).get("Code", "") if isinstance(cause, ClientError) else ""
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
    return f"Cannot read the table {table!r} ({code or type(cause or error).__name__}). Retrying."


def _below(prefix: str, row: Row) -> Row:
    return {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
