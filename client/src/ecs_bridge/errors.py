"""Everything that the client raises of its own."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ecs_bridge.table import Record


class ErrorKind(enum.Enum):
    """Why a whole call failed, as far as it matters for what to do next."""

    CREDENTIALS = "credentials"
    """None found, or refused (401, 403): a person must act."""
    CONFIGURATION = "configuration"
    """Something answered that is not the bridge (404, 405, not JSON), or there is no such table."""
    BAD_REQUEST = "bad_request"
    """The bridge refused this very request (400, 413, 415, 422): repeating it whole is of no use."""
    TRANSIENT = "transient"
    """It was not reached, was too slow, or asked to wait (429, 5xx): try again."""


HINTS = {
    ErrorKind.CREDENTIALS: "check the AWS credentials, and that they allow the call: the stack's output "
    "ExecutorPolicyArn is a policy that does",
    ErrorKind.CONFIGURATION: "check url, function, table and region",
    ErrorKind.BAD_REQUEST: "the bridge refuses the request itself",
    ErrorKind.TRANSIENT: "try again later: the same ids run nothing twice",
}
"""What would be right, by kind."""


class BridgeError(Exception):
    """A call that failed as a whole; `kind` tells what to do next.

    `status` is the HTTP status, and `code` the bridge's own word for it, if there was an answer.
    """

    def __init__(self, kind: ErrorKind, message: str, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.code = code


class CredentialsMissing(BridgeError):
    """No AWS credentials, or no Region, were found; the message says where they were looked for."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorKind.CREDENTIALS, message)


class ConfigError(ValueError):
    """The bridge cannot be found by what was given; the message names all that is wrong, and what would be right."""


class InvalidSubmissionError(ValueError):
    """A submission that the bridge can never take as it is. Nothing of its call was sent."""


class SubmissionRejectedError(Exception):
    """The bridge did not accept one submission, or one stop; the others of its call are not affected.

    `code` is `invalid`, `unknown_profile`, `override_not_allowed`, `conflict` or `unavailable`, the last after the
    client's retry_timeout: docs/http-api.md.
    """

    def __init__(self, submission_id: str, code: str, message: str) -> None:
        super().__init__(f"submission {submission_id}: {code}: {message}")
        self.submission_id = submission_id
        self.code = code


class SubmissionNotFoundError(LookupError):
    """The table has no record of these ids, so that nothing will ever end."""

    def __init__(self, submission_ids: Sequence[str]) -> None:
        few = ", ".join(submission_ids[:5]) + (", …" if len(submission_ids) > 5 else "")
        super().__init__(f"no submission has the id {few}: submit before waiting, and check deployment and table")
        self.submission_ids = list(submission_ids)


class WaitTimeoutError(TimeoutError):
    """The time to wait is over. `ended` has what did end, `left` the ids of the others, which go on."""

    def __init__(self, ended: Mapping[str, Record], left: Sequence[str], seconds: float) -> None:
        super().__init__(f"{len(left)} of {len(left) + len(ended)} submissions have not ended after {seconds:g} s")
        self.ended = dict(ended)
        self.left = list(left)
