"""The API of the bridge, through signed requests to its URL or invocations of its function.

Errors are classified by the remedy. Each method makes one request, and the caller retries it. The IDs make retries
harmless.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError

from ecs_bridge.aws import clock
from ecs_bridge.errors import BridgeError, CredentialsMissing, ErrorKind, SubmissionRejectedError
from ecs_bridge.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from botocore.httpsession import URLLib3Session

    from ecs_bridge.aws import Aws

T = TypeVar("T")

BATCH_SIZE = 100
"""Maximum number of submissions or stops per call."""

BODY_SIZE = 4 * 1024 * 1024 - 1024
"""Maximum size of the submissions of one call, in bytes. The bridge accepts bodies of up to 4 MiB."""


_STATUS = {
    "bad_request": 400,
    "not_found": 404,
    "too_large": 413,
    "unprocessable": 422,
    "unhealthy": 503,
    "unavailable": 503,
}
"""HTTP statuses of the API by error code."""


@dataclass(frozen=True)
class Answer:
    """The response of the bridge for one item of a call."""

    submission_id: str
    state: State | None
    """The state of the submission. After a `conflict`, the state of the submission that has the ID."""
    task_arn: str | None = None
    error_code: str | None = None
    error_message: str | None = None

    @property
    def error(self) -> SubmissionRejectedError | None:
        """The reason for the rejection, or None if the item was accepted."""
        if self.error_code is None:
            return None
        return SubmissionRejectedError(self.submission_id, self.error_code, self.error_message or "")


class Tally:
    """A counter that several threads increment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.value = 0

    def add(self) -> None:
        """Increment the counter."""
        with self._lock:
            self.value += 1


class BridgeClient:
    """A thread-safe client of the submit function, with keep-alive connections."""

    def __init__(self, url: str | None, aws: Aws, timeout: float, function: str | None = None) -> None:
        """Create a client.

        :param function: name or ARN of the function, to invoke it instead of calling its URL
        """
        self._url = url
        self._function = function
        self._lambda: Any = None
        self._aws = aws
        self._timeout = timeout
        self.failed_calls = Tally()
        self._lock = threading.Lock()
        self._http: URLLib3Session | None = None

    def submit(self, submissions: Sequence[dict[str, Any]]) -> list[Answer]:
        """Submit up to `BATCH_SIZE` items. The answers are in the same order."""
        body = {"submissions": list(submissions)}
        ids = [each["submission_id"] for each in submissions]
        return self._answers(self._call("POST", "/v1/submissions", body), ids)

    def stop(self, submission_ids: Sequence[str], reason: str) -> list[Answer]:
        """Request the stop of up to `BATCH_SIZE` submissions. The answers are in the same order."""
        body = {"submission_ids": list(submission_ids), "reason": reason}
        return self._answers(self._call("POST", "/v1/stops", body), submission_ids)

    def show(self, submission_id: str) -> dict[str, Any]:
        """Return the record of a submission."""
        return self._call("GET", "/v1/submissions/" + quote(submission_id, safe=""))

    def health(self) -> dict[str, Any]:
        """Return the health response of the bridge; raise BridgeError if the bridge is unhealthy."""
        return self._call("GET", "/v1/health")

    def close(self) -> None:
        """Close the connections. The next call opens new ones."""
        with self._lock:
            if self._http is not None:
                self._http.close()
            self._http = None

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            return self._invoke(path, body) if self._function else self._send(method, path, body)
        except BridgeError:
            self.failed_calls.add()
            raise

    def _invoke(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """Invoke the function. The payload is the request body, and the result is the response of the API."""
        asks = {"health": True} if path == "/v1/health" else {"submission_id": path.rpartition("/")[2]}
        payload = json.dumps(asks if body is None else body, ensure_ascii=False, separators=(",", ":")).encode()
        call = f"invocation of {self._function}"
        try:
            with self._lock:
                if self._lambda is None:
                    self._lambda = self._aws.client("lambda", read_timeout=self._timeout)
                client = self._lambda
            answer = client.invoke(FunctionName=self._function, Payload=payload)
            content = answer["Payload"].read()
        except (CredentialsMissing, NoCredentialsError) as error:
            self._forget()
            raise BridgeError(ErrorKind.CREDENTIALS, str(error)) from error
        except ClientError as error:
            # Lambda's own errors do not quote the payload.
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
            kind = self._kind_of(status)
            if kind is ErrorKind.CREDENTIALS:
                self._forget()
            raise BridgeError(kind, f"{call}: {error}{clock(str(error))}", status) from error
        except BotoCoreError as error:
            raise BridgeError(ErrorKind.TRANSIENT, f"{call}: {type(error).__name__}") from error
        try:
            read = json.loads(content)
        except ValueError:
            read = None
        if not isinstance(read, dict):
            words = "unexpected response; must be the submit function of the bridge"
            raise BridgeError(ErrorKind.CONFIGURATION, f"{call}: {words}", 200)
        if not answer.get("FunctionError"):
            return read
        # Errors that Lambda reports instead of the function, such as a timeout, may be transient.
        code = str(read.get("errorType"))
        status = _STATUS.get(code, 502)
        raise BridgeError(self._kind_of(status), f"{call}: {code}: {read.get('errorMessage')}", status, code)

    def _forget(self) -> None:
        self._aws.forget()
        with self._lock:
            self._lambda = None

    @staticmethod
    def _kind_of(status: int) -> ErrorKind:
        if status in (401, 403):
            return ErrorKind.CREDENTIALS
        if status in (400, 413, 415, 422):
            return ErrorKind.BAD_REQUEST
        if status in (200, 404, 405) or 300 <= status < 400:
            return ErrorKind.CONFIGURATION
        return ErrorKind.TRANSIENT

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        if self._url is None:
            raise BridgeError(ErrorKind.CONFIGURATION, "cannot find the bridge: pass url, function or stack")
        data = None if body is None else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        request = AWSRequest(method, self._url + path, headers=headers, data=data)
        try:
            # Lambda function URLs with AuthType AWS_IAM are signed for the service "lambda":
            # https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html
            # Frozen, because a refresh by another thread between two reads would mix an old key with a new secret.
            credentials = self._aws.credentials().get_frozen_credentials()
            SigV4Auth(credentials, "lambda", self._aws.region()).add_auth(request)
        except (CredentialsMissing, BotoCoreError) as error:
            self._aws.forget()
            # An HTTP error may quote the request, which contains secrets.
            words = type(error).__name__ if isinstance(error, HTTPClientError) else str(error)
            raise BridgeError(ErrorKind.CREDENTIALS, words) from error
        try:
            response = self._session().send(request.prepare())
            status, content = response.status_code, response.content
        except BotoCoreError as error:
            # Without the text of the error, because it may quote the request.
            raise BridgeError(ErrorKind.TRANSIENT, f"{method} {self._url}{path}: {type(error).__name__}") from error
        return self._read(status, content, f"{method} {self._url}{path}")

    def _session(self) -> URLLib3Session:
        with self._lock:
            if self._http is None:
                self._http = self._aws.http(self._url or "", self._timeout)
            return self._http

    def _read(self, status: int, content: bytes, call: str) -> dict[str, Any]:
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if status == 200 and isinstance(answer, dict):
            return answer
        kind = self._kind_of(status)
        if kind is ErrorKind.CREDENTIALS:
            self._aws.forget()
        code, words = _told(answer)
        raise BridgeError(kind, f"{call}: {status}{words}{clock(words)}", status, code)

    @staticmethod
    def _answers(answer: dict[str, Any], ids: Sequence[str]) -> list[Answer]:
        items = answer.get("submissions")
        if not isinstance(items, list) or len(items) != len(ids):
            words = "unexpected response: the number of items differs from the request"
            raise BridgeError(ErrorKind.CONFIGURATION, words, 200)
        return [_item(id, item) for id, item in zip(ids, items, strict=True)]


def _item(id: str, item: Any) -> Answer:
    if not isinstance(item, dict):
        return Answer(id, None)
    state, task_arn, error = _text(item.get("state")), _text(item.get("task_arn")), item.get("error")
    known = None if state is None else State(state)
    if not isinstance(error, dict):
        return Answer(id, known, task_arn)
    return Answer(id, known, task_arn, _text(error.get("code")) or "unknown", _text(error.get("message")))


def _told(answer: Any) -> tuple[str | None, str]:
    """Return the error code and the message of the bridge. By contract, they never repeat the input."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict):
        return _text(error.get("code")), f" {error.get('code')}: {error.get('message')}"
    # Lambda itself rejects requests with {"Message": "Forbidden"}.
    message = (answer.get("Message") or answer.get("message")) if isinstance(answer, dict) else None
    return None, f" {message}" if isinstance(message, str) else ""


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def parts(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Split items into calls of the allowed size. `size` returns the bytes of one item as JSON."""
    part: list[T] = []
    total = 0
    for item in items:
        # A comma separates the item from the previous one.
        more = size(item) + 1
        if part and (len(part) == BATCH_SIZE or total + more > BODY_SIZE):
            yield part
            part, total = [], 0
        part.append(item)
        total += more
    if part:
        yield part
