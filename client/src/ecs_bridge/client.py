"""The client for programs with threads, or without."""

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
    """A bridge. Safe to share between threads; keeps connections.

    What fails for the moment is repeated with the same ids, for `retry_timeout` seconds. Then, and at once where
    repeating is of no use, a call raises BridgeError, whose `kind` tells what to do. After that it is not known what
    arrived; to submit the same again is always right, and runs nothing twice.
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
        """Make one, without any request.

        What is not given is looked for in the ready file of a local stack, the stack's outputs, and the environment
        variables of `ecs-bridge`: ``ECS_BRIDGE_STACK``, ``_URL``, ``_FUNCTION``, ``_TABLE``, ``_DEPLOYMENT``,
        ``_READY_FILE``.

        :param stack: the name of the deployed stack, whose outputs say the rest; needs cloudformation:DescribeStacks
        :param url: the URL of the submit function
        :param function: the name or ARN of the submit function, to invoke it instead
        :param table: the table, for all but `submit`, `get` and `stop`
        :param deployment: the deployment's name, likewise
        :param region: the Region; None: the URL's, else the session's
        :param ready_file: what ``ecs-bridge local --ready-file`` wrote
        :param session: the AWS identity; None: boto3's default chain
        :param timeout: seconds that one request to the submit function may take
        :param retry_timeout: seconds for which a request is repeated that failed for the moment
        :param poll_interval: seconds between two reads of the feed
        :raises ConfigError: with all that is wrong
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
        """Submit one; submitting it again runs nothing twice.

        :raises InvalidSubmissionError: it can never be right; nothing was sent
        :raises SubmissionRejectedError: the bridge did not accept it
        """
        [answer] = self.submit_many([submission])
        if answer.error:
            raise answer.error
        return answer

    def submit_many(self, submissions: Iterable[Submission]) -> list[Answer]:
        """Submit any number; each answer, in their order, has the state or the `error` of its own."""
        return run(self._bridge.submit(submissions))

    def get(self, submission_id: str) -> Record | None:
        """Return what the bridge knows of one; None if it does not know it."""
        return run(self._bridge.get(submission_id))

    def get_many(self, submission_ids: Iterable[str]) -> dict[str, Record]:
        """Return the records of those that have one, read consistently from the table, a hundred a request."""
        return run(self._bridge.get_many(submission_ids))

    def stop(self, submission_id: str, reason: str) -> Answer:
        """Ask for a stop; returns before the container has ended.

        One that is not known yet is never launched.

        :raises SubmissionRejectedError: the bridge did not accept the stop
        """
        [answer] = self.stop_many([submission_id], reason)
        if answer.error:
            raise answer.error
        return answer

    def stop_many(self, submission_ids: Iterable[str], reason: str) -> list[Answer]:
        """Ask for the stop of any number, as `submit_many` submits."""
        return run(self._bridge.stop(submission_ids, reason))

    def wait(self, submission_ids: Iterable[str], timeout: float | None = None) -> dict[str, Record]:
        """Wait until all have ended; return how. One read of the feed each `poll_interval`, however many.

        :param timeout: seconds to wait at most; a request that is under way is waited for
        :raises WaitTimeoutError: with what has ended by then
        :raises SubmissionNotFoundError: one of them was never submitted
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
        """Return the place in the feed after everything that has ended by now."""
        return run(self._bridge.latest_cursor())

    def stream(self, cursor: Cursor) -> Feed:
        """Follow the feed from there: an endless iterator over what ends in the deployment, whoever submitted it.

        Each end is handed out once, those before and after a restart too, if the cursor is kept.
        """
        return Feed(self._bridge.reader(cursor))

    def health(self) -> dict[str, Any]:
        """Return what the bridge says of itself; raise BridgeError if it is not well."""
        return run(self._bridge.health())


class Feed(Iterator["Record"]):
    """What ends, as it ends. After an error the next call goes on from the same place."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @property
    def cursor(self) -> Cursor:
        """The place after the last record that was handed out; keep it once that is done with."""
        return self._reader.cursor

    def __next__(self) -> Record:
        while (record := self._reader.take()) is None:
            run(self._reader.poll())
        return record
