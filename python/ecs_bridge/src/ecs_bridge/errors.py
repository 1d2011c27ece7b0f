"""The exceptions of the client."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ecs_bridge.table import Record


class ErrorKind(enum.Enum):
    """The class of a failed call, which determines the remedy."""

    CREDENTIALS = "credentials"
    """Credentials are missing or rejected (401, 403). A person must act."""
    CONFIGURATION = "configuration"
    """The response is not from the bridge (404, 405, not JSON), or the table does not exist."""
    BAD_REQUEST = "bad_request"
    """The bridge rejected this request (400, 413, 415, 422). A retry of the whole request fails again."""
    TRANSIENT = "transient"
    """The bridge was unreachable, too slow or throttled (429, 5xx). A retry can succeed."""


HINTS = {
    ErrorKind.CREDENTIALS: "check the AWS credentials and their permissions; the policy in the stack output "
    "ExecutorPolicyArn allows the call",
    ErrorKind.CONFIGURATION: "check url, function, table and region",
    ErrorKind.BAD_REQUEST: "the bridge rejected the request; correct it before you retry",
    ErrorKind.TRANSIENT: "retry later with the same IDs; an ID runs only once",
}
"""Remedies by kind."""


class BridgeError(Exception):
    """A call that failed as a whole. `kind` indicates the remedy.

    `status` is the HTTP status and `code` the error code of the bridge, if a response arrived.
    """

    def __init__(self, kind: ErrorKind, message: str, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.code = code


class CredentialsMissing(BridgeError):
    """AWS credentials or the Region are missing. The message names the sources."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorKind.CREDENTIALS, message)


class ConfigError(ValueError):
    """The location of the bridge is missing or invalid. The message lists all problems and remedies."""


class InvalidSubmissionError(ValueError):
    """A submission that the bridge can never accept. The call sent nothing."""


class SubmissionRejectedError(Exception):
    """The bridge rejected one submission or one stop. Other items of the call are not affected.

    `code` is `invalid`, `unknown_profile`, `override_not_allowed`, `conflict` or `unavailable`. The client retries
    `unavailable` for `retry_timeout` first. See docs/http-api.md.
    """

    def __init__(self, submission_id: str, code: str, message: str) -> None:
        super().__init__(f"submission {submission_id}: {code}: {message}")
        self.submission_id = submission_id
        self.code = code


class SubmissionNotFoundError(LookupError):
    """The table has no records of these IDs, so a wait would never end."""

    def __init__(self, submission_ids: Sequence[str]) -> None:
        few = ", ".join(submission_ids[:5]) + (", …" if len(submission_ids) > 5 else "")
        super().__init__(f"cannot find submission {few}: submit before you wait, and check deployment and table")
        self.submission_ids = list(submission_ids)


class WaitTimeoutError(TimeoutError):
    """The wait timed out. `ended` holds the finished records, and `left` the IDs that are still running."""

    def __init__(self, ended: Mapping[str, Record], left: Sequence[str], seconds: float) -> None:
        total = len(left) + len(ended)
        super().__init__(f"wait timed out: {len(left)} of {total} submissions have not ended after {seconds:g} s")
        self.ended = dict(ended)
        self.left = list(left)
