"""Client operations as I/O-free procedures. `_sansio` drives them."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from ecs_bridge._sansio import backoff, retried
from ecs_bridge.api import BATCH_SIZE, Answer, BridgeClient, parts
from ecs_bridge.aws import Aws, failure
from ecs_bridge.discovery import Where
from ecs_bridge.errors import BridgeError, ErrorKind, InvalidSubmissionError
from ecs_bridge.feed import Cursor, Reader, Waiting, latest_cursor
from ecs_bridge.submission import check_id, json_bytes
from ecs_bridge.table import WHOLE, Record, Table, records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import boto3

    from ecs_bridge._sansio import Steps
    from ecs_bridge.submission import Submission

REASON_LIMIT = 256
"""Maximum size of a stop reason, in bytes."""


class Bridge:
    """A bridge, located at the first request. The constructor does no I/O except for a local stack's ready file."""

    def __init__(
        self,
        session: boto3.Session | None,
        timeout: float,
        retry_timeout: float,
        poll_interval: float,
        **where: str | None,
    ) -> None:
        for name, value, least in (
            ("timeout", timeout, 0.1),
            ("retry_timeout", retry_timeout, 0.0),
            ("poll_interval", poll_interval, 0.1),
        ):
            if not value >= least:
                raise ValueError(f"invalid {name}: {value!r}; must be at least {least:g} seconds")
        self._where = Where.find(os.environ, **where)
        self._session = session
        self._timeout = timeout
        self.retry_timeout = retry_timeout
        self.poll_interval = poll_interval
        self._lock = threading.Lock()
        self._found: tuple[Aws, BridgeClient, Where] | None = None
        self._reader: Table | None = None

    # Requests. Each runs in the thread of its caller.

    def api(self) -> BridgeClient:
        """Return the API client. The first call reads the stack's outputs."""
        return self._find()[1]

    def table(self) -> Table:
        """Return the reader of the table."""
        aws, _, where = self._find()
        with self._lock:
            if self._reader is None:
                names = where.need("table"), where.need("deployment")
                self._reader = Table(aws.dynamodb(), *names, WHOLE, self._forget)
            return self._reader

    def close(self) -> None:
        """Close the connections. The next call opens new ones."""
        with self._lock:
            self._reader, found = None, self._found
        if found:
            found[1].close()

    def _forget(self) -> None:
        """Read the credentials again at the next request."""
        with self._lock:
            self._reader = None
            if self._found:
                self._found[0].forget()

    def _find(self) -> tuple[Aws, BridgeClient, Where]:
        with self._lock:
            if self._found is None:
                where = self._where
                aws = Aws(where.region, self._identity(where), where.endpoints)
                if where.stack:
                    where = where.with_outputs(_outputs(aws, where.stack))
                self._found = aws, BridgeClient(where.url, aws, self._timeout, where.function), where
            return self._found

    def _identity(self, where: Where) -> boto3.Session | None:
        if self._session is not None or not where.is_local:
            return self._session
        import boto3

        return boto3.Session(aws_access_key_id="local", aws_secret_access_key="local", region_name=where.region)

    # Procedures

    def submit(self, submissions: Iterable[Submission]) -> Steps[list[Answer]]:
        """Submit any number of submissions, up to 100 per call. The answers are in the same order."""
        items = [each.item() for each in submissions]
        answers: list[Answer] = []
        for part in parts(items, json_bytes):
            answers += yield from self._all(part, lambda some: self.api().submit(some))
        return answers

    def stop(self, submission_ids: Iterable[str], reason: str) -> Steps[list[Answer]]:
        """Request the stop of any number of submissions. The answers are in the same order."""
        ids = [check_id(each) for each in submission_ids]
        if not isinstance(reason, str) or not 0 < len(reason.encode()) <= REASON_LIMIT:
            raise InvalidSubmissionError(
                f"invalid reason: must be a string of 1 to {REASON_LIMIT} bytes, because the record keeps it"
            )
        answers: list[Answer] = []
        for place in range(0, len(ids), BATCH_SIZE):
            answers += yield from self._all(ids[place : place + BATCH_SIZE], lambda some: self.api().stop(some, reason))
        return answers

    def _all(self, items: Sequence[Any], call: Callable[[list[Any]], list[Answer]]) -> Steps[list[Answer]]:
        """Make a call, and retry the items without an answer or with `unavailable`, under the same IDs."""
        answers: dict[int, Answer] = {}
        left = list(range(len(items)))
        give_up = time.monotonic() + self.retry_timeout
        failures = 0
        while left:
            got = yield from self._one_call([items[place] for place in left], call)
            answers |= dict(zip(left, got, strict=True))
            left = [place for place in left if answers[place].error_code == "unavailable"]
            failures += 1
            pause = backoff(failures)
            if time.monotonic() + pause > give_up:
                break
            if left:
                yield pause
        return [answers[place] for place in range(len(items))]

    def _one_call(self, items: list[Any], call: Callable[[list[Any]], list[Answer]]) -> Steps[list[Answer]]:
        try:
            return (yield from retried(lambda: call(items), self.retry_timeout))
        except BridgeError as error:
            if error.kind is not ErrorKind.BAD_REQUEST:
                raise
            if len(items) == 1:
                id = items[0] if isinstance(items[0], str) else items[0]["submission_id"]
                return [Answer(id, None, error_code="invalid", error_message=str(error))]
        # The batch is too large or contains an invalid item. Halving isolates that item and sends the others.
        half = len(items) // 2
        first = yield from self._one_call(items[:half], call)
        return first + (yield from self._one_call(items[half:], call))

    def get(self, submission_id: str) -> Steps[Record | None]:
        """Read a record through the API. Return None if no record exists."""
        check_id(submission_id)

        def ask() -> Record | None:
            try:
                return Record.of(self.api().show(submission_id))
            except BridgeError as error:
                if error.code == "not_found":
                    return None
                raise

        return (yield from retried(ask, self.retry_timeout))

    def get_many(self, submission_ids: Iterable[str]) -> Steps[dict[str, Record]]:
        """Read records from the table, consistently."""
        return (yield from records(self.table, [check_id(each) for each in submission_ids], self.retry_timeout))

    def health(self) -> Steps[dict[str, Any]]:
        """Request the health checks of the bridge once, because an unhealthy bridge is a valid answer."""
        return (yield from retried(lambda: self.api().health(), 0))

    def latest_cursor(self) -> Steps[Cursor]:
        """Return the position after the current end of the feed."""
        return latest_cursor(self.table, self.retry_timeout)

    def reader(self, cursor: Cursor) -> Reader:
        """Return a reader of the feed that starts at the cursor."""
        return Reader(self.table, cursor, self.poll_interval, self.retry_timeout)

    def waiting(self) -> Waiting:
        """Return the object that waits for submissions to end."""
        return Waiting(self.table, self.poll_interval, self.retry_timeout)


def _outputs(aws: Aws, stack: str) -> dict[str, str]:
    try:
        [found] = aws.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    except (BotoCoreError, ClientError) as error:
        raise failure(error, f"cannot read the outputs of the stack {stack!r}") from error
    return {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])}
