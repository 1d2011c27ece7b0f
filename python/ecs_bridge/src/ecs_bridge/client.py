"""The synchronous client, for programs with or without threads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ecs_bridge._operations import Bridge
from ecs_bridge._sansio import run
from ecs_bridge.errors import WaitTimeoutError
from ecs_bridge.submission import check_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    import boto3

    from ecs_bridge.api import Answer
    from ecs_bridge.feed import Cursor, Reader
    from ecs_bridge.submission import Submission
    from ecs_bridge.table import Record


class Client:
    """A thread-safe client of a bridge, which keeps its connections open.

    Transient failures are retried with the same IDs for `retry_timeout` seconds. After that, or immediately after a
    permanent failure, a call raises BridgeError, and `kind` indicates the remedy. The bridge may have received the
    request. You can always submit the same submission again, because each ID runs once.
    """

    def __init__(
        self,
        *,
        stack: str | None = None,
        url: str | None = None,
        function: str | None = None,
        table: str | None = None,
        deployment: str | None = None,
        region: str | None = None,
        ready_file: str | None = None,
        session: boto3.Session | None = None,
        timeout: float = 20.0,
        retry_timeout: float = 60.0,
        poll_interval: float = 1.0,
    ) -> None:
        """Create a client without making a request.

        The client reads missing settings from the ready file of a local stack, from the stack's outputs, and from the
        environment variables of `ecs-bridge`: ``ECS_BRIDGE_STACK``, ``_URL``, ``_FUNCTION``, ``_TABLE``,
        ``_DEPLOYMENT``, ``_LOCAL``.

        :param stack: name of the deployed stack, whose outputs provide the other settings; requires
            cloudformation:DescribeStacks
        :param url: URL of the submit function
        :param function: name or ARN of the submit function, to invoke it instead of calling the URL
        :param table: name of the table; required except for `submit`, `get` and `stop`
        :param deployment: name of the deployment; required with `table`
        :param region: Region of the bridge; defaults to the Region of the URL, then of the session
        :param ready_file: file that ``ecs-bridge local --ready-file`` wrote
        :param session: AWS identity; defaults to boto3's default chain
        :param timeout: timeout of one request to the submit function, in seconds
        :param retry_timeout: time for retries of transient failures, in seconds
        :param poll_interval: interval between reads of the feed, in seconds
        :raises ConfigError: if settings are missing or invalid; the message lists all problems
        """
        self._bridge = Bridge(
            session,
            timeout,
            retry_timeout,
            poll_interval,
            stack=stack,
            url=url,
            function=function,
            table=table,
            deployment=deployment,
            region=region,
            ready_file=ready_file,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._bridge.close()

    def submit(self, submission: Submission) -> Answer:
        """Submit one submission. Submitting it again does not run it again.

        :raises InvalidSubmissionError: if the submission is invalid; nothing was sent
        :raises SubmissionRejectedError: if the bridge rejected the submission
        """
        [answer] = self.submit_many([submission])
        if answer.error:
            raise answer.error
        return answer

    def submit_many(self, submissions: Iterable[Submission]) -> list[Answer]:
        """Submit any number of submissions. The answers are in the same order, each with a state or an `error`."""
        return run(self._bridge.submit(submissions))

    def get(self, submission_id: str) -> Record | None:
        """Return the record of a submission, or None if the submission is unknown."""
        return run(self._bridge.get(submission_id))

    def get_many(self, submission_ids: Iterable[str]) -> dict[str, Record]:
        """Return the records that exist. Reads of the table are consistent, with up to 100 records per request."""
        return run(self._bridge.get_many(submission_ids))

    def stop(self, submission_id: str, reason: str) -> Answer:
        """Request a stop, and return before the container has ended.

        If the ID is unknown, a later submission with this ID is never launched.

        :raises SubmissionRejectedError: if the bridge rejected the stop
        """
        [answer] = self.stop_many([submission_id], reason)
        if answer.error:
            raise answer.error
        return answer

    def stop_many(self, submission_ids: Iterable[str], reason: str) -> list[Answer]:
        """Request the stop of any number of submissions; see `submit_many` for the answers."""
        return run(self._bridge.stop(submission_ids, reason))

    def wait(self, submission_ids: Iterable[str], timeout: float | None = None) -> dict[str, Record]:
        """Wait until all submissions have ended, and return their records.

        The client reads the feed once per `poll_interval`, for any number of submissions.

        :param timeout: maximum wait in seconds; a request in progress is completed first
        :raises WaitTimeoutError: if the timeout expires; contains the records of the ended submissions
        :raises SubmissionNotFoundError: if one of the IDs was never submitted
        """
        left = {check_id(each) for each in submission_ids}
        give_up = None if timeout is None else time.monotonic() + timeout
        waiting = self._bridge.waiting()
        waiting.add(left)
        ended: dict[str, Record] = {}
        while left:
            records, unknown = run(waiting.step())
            ended |= {record.submission_id: record for record in records}
            left -= ended.keys()
            if unknown:
                raise unknown
            if left and give_up is not None and time.monotonic() >= give_up:
                raise WaitTimeoutError(ended, sorted(left), timeout or 0.0)
        return ended

    def latest_cursor(self) -> Cursor:
        """Return the position in the feed after all submissions that have ended."""
        return run(self._bridge.latest_cursor())

    def stream(self, cursor: Cursor) -> Feed:
        """Return an endless iterator over the ended submissions of the deployment, starting at the cursor.

        The iterator includes submissions of other callers. It returns each record once, even across a restart if you
        save the cursor.
        """
        return Feed(self._bridge.reader(cursor))

    def health(self) -> dict[str, Any]:
        """Return the health response of the bridge; raise BridgeError if the bridge is unhealthy."""
        return run(self._bridge.health())


class Feed(Iterator["Record"]):
    """An iterator over ended submissions. After an error, the next call continues at the same position."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @property
    def cursor(self) -> Cursor:
        """The position after the last returned record. Save it after you have processed that record."""
        return self._reader.cursor

    def __next__(self) -> Record:
        while (record := self._reader.take()) is None:
            run(self._reader.poll())
        return record
