"""A client of the HTTP API that validates every answer against docs/openapi.yaml."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from local_stack import PATIENCE, LocalStack

DOCUMENT = yaml.safe_load((Path(__file__).resolve().parents[2] / "docs" / "openapi.yaml").read_text())
ROOT = "urn:openapi"
REGISTRY: Registry[Any] = Registry().with_resource(ROOT, DRAFT202012.create_resource(DOCUMENT))
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


@dataclass(frozen=True)
class Api:
    """The API's base URL, without `/v1/…`."""

    url: str

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = JSON,
        timeout: float = PATIENCE,
    ) -> Answer:
        """One request; an answer that docs/openapi.yaml does not describe fails the test."""
        target = urlsplit(self.url)
        connection = http.client.HTTPConnection(target.netloc, timeout=timeout)
        try:
            connection.request(method, target.path + path, body, dict(headers))
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read().decode())
        finally:
            connection.close()
        check_answer(method, path, answer)
        check_request(method, path, body, answer)
        return answer

    def post(self, path: str, body: object, **more: Any) -> Answer:
        return self.send("POST", path, json.dumps(body).encode(), **more)

    def submit(self, *items: object) -> list[dict[str, Any]]:
        answer = self.post("/v1/submissions", {"submissions": items})
        assert answer.status == 200, answer
        return list(answer.json["submissions"])

    def stop(self, *ids: str, reason: str = "no longer wanted") -> list[dict[str, Any]]:
        answer = self.post("/v1/stops", {"submission_ids": ids, "reason": reason})
        assert answer.status == 200, answer
        return list(answer.json["submissions"])

    def show(self, submission_id: str) -> dict[str, Any]:
        answer = self.send("GET", f"/v1/submissions/{submission_id}")
        assert answer.status == 200, answer
        return dict(answer.json)


class Stack(LocalStack):
    """A local stack whose answers are validated against the description."""

    @cached_property
    def api(self) -> Api:
        return Api(self.ready["submit_url"])

    def submit(self, *items: Mapping[str, Any]) -> list[dict[str, Any]]:
        return self.api.submit(*items)

    def stop(self, *ids: str, reason: str = "no longer wanted") -> list[dict[str, Any]]:
        return self.api.stop(*ids, reason=reason)

    def show(self, submission_id: str) -> dict[str, Any]:
        return self.api.show(submission_id)


def find(method: str, path: str) -> tuple[str, dict[str, Any]] | None:
    """The operation of the description, and the pointer to it."""
    segments = path.split("/")
    for template, operations in DOCUMENT["paths"].items():
        wanted = template.split("/")
        fits = len(wanted) == len(segments) and all(
            a == b or a.startswith("{") for a, b in zip(wanted, segments, strict=True)
        )
        if fits and method.lower() in operations:
            return f"#/paths/{template.replace('/', '~1')}/{method.lower()}", operations[method.lower()]
    return None


def validate(value: object, pointer: str) -> None:
    Draft202012Validator({"$ref": ROOT + pointer}, registry=REGISTRY).validate(value)


def is_valid(value: object, pointer: str) -> bool:
    return bool(Draft202012Validator({"$ref": ROOT + pointer}, registry=REGISTRY).is_valid(value))


def check_answer(method: str, path: str, answer: Answer) -> None:
    found = find(method, path)
    if found is None:
        # No such path, or another method: the general form of errors.
        assert answer.status in (404, 405), answer
        pointer, response = "#/components/responses/BadRequest", DOCUMENT["components"]["responses"]["BadRequest"]
    else:
        pointer, operation = found
        response = operation["responses"].get(str(answer.status))
        assert response is not None, f"{method} {path} is not described to answer {answer}"
        pointer = f"{pointer}/responses/{answer.status}"
        if "$ref" in response:
            pointer = response["$ref"]
            response = DOCUMENT["components"]["responses"][pointer.rsplit("/", 1)[1]]
    if answer.status == 405:
        assert answer.headers["allow"] in ("GET", "POST"), answer
    if "content" in response:
        assert answer.headers["content-type"] == "application/json", answer
        validate(answer.json, f"{pointer}/content/application~1json/schema")
    if answer.status >= 400 and "content" in response:
        # `cargo lambda watch` does not send it.
        assert answer.headers["x-amzn-requestid"] in (None, answer.json["request_id"])


def check_request(method: str, path: str, body: bytes | None, answer: Answer) -> None:
    """An accepted body is valid by the description, a body refused for its shape is not."""
    found = find(method, path)
    if found is None or method != "POST" or answer.status not in (200, 422):
        return
    pointer = f"{found[0]}/requestBody/content/application~1json/schema"
    request = json.loads(body or b"")
    if answer.status == 422:
        assert not is_valid(request, pointer), f"{request} is described as right: {answer}"
    elif not any("error" in item for item in answer.json["submissions"]):
        validate(request, pointer)
