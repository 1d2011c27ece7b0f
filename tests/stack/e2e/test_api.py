"""Invalid requests: each gets a clear error of the documented form, which quotes nothing of the request."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from openapi_spec_validator import validate as validate_openapi

from api import DOCUMENT, Stack
from local_stack import until

MARK = "hunter2-hunter2"
MIB = 1024 * 1024


def item(submission_id: str, **more: object) -> dict[str, Any]:
    return {"submission_id": submission_id, "command": ["true"], **more}


def environment(characters: int) -> dict[str, object]:
    """Overrides with which `overrides` and the command ["true"] have this many characters of JSON."""
    entry = {"command": ["true"], "environment": [{"name": "X", "value": ""}], "name": "main"}
    frame = len(json.dumps({"containerOverrides": [entry]}, separators=(",", ":")))
    over = {"name": "main", "environment": [{"name": "X", "value": "x" * (characters - frame)}]}
    return {"overrides": {"containerOverrides": [over]}}


def test_description_is_valid_openapi() -> None:
    validate_openapi(DOCUMENT)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        f'{{"submissions": {MARK}'.encode(),
        b'{"submissions": "\xff\xfe"}',
        b'{"submissions": ["\\ud800"]}',
        b"[" * 10_000,
        b'{"submissions": [1e999]}',
        b'{"submissions": []} and more',
    ],
    ids=["empty", "cut", "words", "no UTF-8", "half a surrogate", "deep", "huge number", "trailing"],
)
def test_body_that_is_not_json_returns_400(stack: Stack, body: bytes) -> None:
    answer = stack.api.send("POST", "/v1/submissions", body)
    assert (answer.status, answer.code) == (400, "bad_request")
    assert MARK not in answer.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/submissions", []),
        ("/v1/submissions", {}),
        ("/v1/submissions", {"submissions": []}),
        ("/v1/submissions", {"submissions": {MARK: 1}}),
        ("/v1/submissions", {"submissions": [item("a")], MARK: MARK}),
        ("/v1/submissions", {"submissions": [item(f"many-{n}") for n in range(101)]}),
        ("/v1/stops", {"submission_ids": ["a"]}),
        ("/v1/stops", {"submission_ids": [], "reason": "x"}),
        ("/v1/stops", {"submission_ids": ["a"] * 101, "reason": "x"}),
        ("/v1/stops", {"submission_ids": ["a"], "reason": ""}),
        ("/v1/stops", {"submission_ids": ["a"], "reason": MARK * 20}),
        ("/v1/stops", {"submission_ids": ["a"], "reason": "x", MARK: MARK}),
    ],
)
def test_envelope_of_another_shape_returns_422(stack: Stack, path: str, body: object) -> None:
    answer = stack.api.post(path, body)
    assert (answer.status, answer.code) == (422, "unprocessable")
    assert MARK not in answer.text


def test_request_with_101_items_is_rejected(stack: Stack) -> None:
    answer = stack.api.post("/v1/submissions", {"submissions": [item(f"lot-{n}") for n in range(101)]})
    message = answer.json["error"]["message"]
    assert "101" in message
    assert "100" in message
    assert not [row for row in stack.rows() if row["submission_id"].startswith("lot-")]


@pytest.mark.parametrize("path", ["/v1/submissions", "/v1/stops"])
def test_body_above_4_mib_returns_413(stack: Stack, path: str) -> None:
    body = json.dumps({"submissions": [item("big", labels={"x": MARK + "x" * 4 * MIB})]}).encode()
    answer = stack.api.send("POST", path, body)
    assert (answer.status, answer.code) == (413, "too_large")
    assert str(len(body)) in answer.text
    assert str(4 * MIB) in answer.text
    assert MARK not in answer.text


def test_other_content_type_returns_415(stack: Stack) -> None:
    for content_type in ("text/plain", "application/octet-stream", "application/x-www-form-urlencoded"):
        body = json.dumps({"submissions": [item("a")]}).encode()
        answer = stack.api.send("POST", "/v1/submissions", body, {"content-type": content_type})
        assert (answer.status, answer.code) == (415, "unsupported_media_type")


def test_content_type_with_charset_and_capitals_is_accepted(stack: Stack) -> None:
    body = json.dumps({"submissions": [item("charset")]}).encode()
    headers = {"content-type": "Application/JSON; charset=UTF-8"}
    assert stack.api.send("POST", "/v1/submissions", body, headers).status == 200


def test_body_in_base64_is_accepted(stack: Stack) -> None:
    # Lambda encodes the body of a request without a content type.
    body = json.dumps({"submissions": [item("base64")]}).encode()
    answer = stack.api.send("POST", "/v1/submissions", body, {})
    assert answer.json["submissions"][0]["submission_id"] == "base64"


def function_url_event(body: str) -> dict[str, Any]:
    context = {
        "accountId": "anonymous",
        "apiId": "x",
        "domainName": "x",
        "domainPrefix": "x",
        "http": {"method": "POST", "path": "/v1/submissions", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"},
        "requestId": "x",
        "routeKey": "$default",
        "stage": "$default",
        "time": "21/Nov/2026:08:00:00 +0000",
        "timeEpoch": 1795248000000,
    }
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/v1/submissions",
        "rawQueryString": "",
        "headers": {"content-type": "application/json"},
        "requestContext": context,
        "isBase64Encoded": True,
        "body": body,
    }


def test_body_with_invalid_base64_returns_400(stack: Stack) -> None:
    answer = stack.invoke("submit", function_url_event(f"{MARK}!"))
    assert answer["statusCode"] == 400
    assert json.loads(answer["body"])["error"]["code"] == "bad_request"
    assert MARK not in answer["body"]
    body = json.dumps({"submissions": [item("invoked")]}).encode()
    assert stack.invoke("submit", function_url_event(base64.b64encode(body).decode()))["statusCode"] == 200


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/submissions", "POST"),
        ("PUT", "/v1/submissions", "POST"),
        ("DELETE", "/v1/submissions/a", "GET"),
        ("POST", "/v1/submissions/a", "GET"),
        ("GET", "/v1/stops", "POST"),
        ("POST", "/v1/health", "GET"),
        ("OPTIONS", "/v1/submissions", "POST"),
    ],
)
def test_other_method_returns_405_with_the_allowed_one(stack: Stack, method: str, path: str, allow: str) -> None:
    answer = stack.api.send(method, path)
    assert (answer.status, answer.code, answer.headers["allow"]) == (405, "method_not_allowed", allow)


@pytest.mark.parametrize("path", ["/", f"/{MARK}", "/v1", "/v1/submission", "/v2/submissions", "/v1/submissions/a/b"])
def test_unknown_path_returns_404_with_valid_paths(stack: Stack, path: str) -> None:
    answer = stack.api.send("GET", path)
    assert (answer.status, answer.code) == (404, "not_found")
    assert MARK not in answer.text


@pytest.mark.parametrize(
    "submission_id", ["never-submitted", "x" * 61, "%00", "a%20b", "", "%23launch-rate", MARK + "!"]
)
def test_unknown_id_returns_404(stack: Stack, submission_id: str) -> None:
    answer = stack.api.send("GET", f"/v1/submissions/{submission_id}")
    assert (answer.status, answer.code) == (404, "not_found")
    assert MARK not in answer.text


BAD_ITEMS: dict[str, tuple[Any, str, str]] = {
    "not an object": (MARK, "invalid", "must be an object"),
    "no id": ({"command": ["true"]}, "invalid", "submission_id is required"),
    "an id that is not a string": (item("a") | {"submission_id": 7}, "invalid", "must be a string"),
    "an id of 61 characters": (item("x" * 61), "invalid", "1 to 60 characters"),
    "an empty id": (item(""), "invalid", "1 to 60 characters"),
    "an id with a NUL": (item("a\0b"), "invalid", "1 to 60 characters"),
    "an id with a slash": (item(f"{MARK}/b"), "invalid", "A-Z, a-z, 0-9, _ and -"),
    "the launch rate's key": (item("#launch-rate"), "invalid", "A-Z, a-z, 0-9, _ and -"),
    "no command": ({"submission_id": "bad"}, "invalid", "command is required"),
    "a command that is a string": (item("bad") | {"command": MARK}, "invalid", "a list of strings"),
    "a command of numbers": (item("bad") | {"command": [1]}, "invalid", "a list of strings"),
    "an empty command": (item("bad") | {"command": []}, "invalid", "at least one"),
    "a NUL in the command": (item("bad") | {"command": [f"{MARK}\0"]}, "invalid", "NUL"),
    "an unknown profile": (item("bad", profile=MARK), "unknown_profile", "known: default"),
    "a profile that is not a name": (item("bad", profile=f"{MARK}/"), "invalid", "A-Z, a-z, 0-9, _ and -"),
    "overrides that are not an object": (item("bad", overrides=[MARK]), "invalid", "must be an object"),
    "an unknown parameter": (item("bad", overrides={MARK: 1}), "invalid", "not a parameter of RunTask"),
    "an unknown parameter within": (
        item("bad", overrides={"overrides": {"containerOverrides": [{"name": "main", MARK: MARK}]}}),
        "invalid",
        "overrides.containerOverrides",
    ),
    "a parameter of another type": (item("bad", overrides={"tags": MARK}), "invalid", "tags: must be a list"),
    "a NUL in the environment": (
        item(
            "bad",
            overrides={
                "overrides": {
                    "containerOverrides": [{"name": "main", "environment": [{"name": "X", "value": f"{MARK}\0"}]}]
                }
            },
        ),
        "invalid",
        "NUL",
    ),
    "an override outside the allow-list": (
        item("bad", overrides={"networkConfiguration": {"awsvpcConfiguration": {"subnets": [MARK]}}}),
        "override_not_allowed",
        "networkConfiguration.awsvpcConfiguration.subnets",
    ),
    "a role": (
        item("bad", overrides={"overrides": {"taskRoleArn": MARK}}),
        "override_not_allowed",
        "overrides.taskRoleArn",
    ),
    "another cluster": (item("bad", overrides={"cluster": MARK}), "override_not_allowed", "cluster"),
    "another task definition": (
        item("bad", overrides={"taskDefinition": MARK}),
        "override_not_allowed",
        "taskDefinition",
    ),
    "a count": (item("bad", overrides={"count": 2}), "invalid", "count: is set by the bridge"),
    "a client token": (item("bad", overrides={"clientToken": MARK}), "invalid", "clientToken: is set by the bridge"),
    "the command twice": (
        item("bad", overrides={"overrides": {"containerOverrides": [{"name": "main", "command": [MARK]}]}}),
        "invalid",
        "must be in command",
    ),
    "8,193 characters of overrides": (item("bad", overrides=environment(8193)), "invalid", "8193"),
    "a deadline in seconds": (item("bad", launch_deadline=1_800_000_000), "invalid", "milliseconds"),
    "a deadline that is a string": (item("bad", launch_deadline=MARK), "invalid", "milliseconds"),
    "labels that are a list": (item("bad", labels=[MARK]), "invalid", "an object of strings"),
    "201 bytes of labels": (item("bad", labels={"k": "v" * 200}), "invalid", "201"),
    "an unknown member": (item("bad") | {MARK: MARK}, "invalid", "unknown members"),
}


@pytest.mark.parametrize("name", BAD_ITEMS)
def test_invalid_item_has_its_own_error(stack: Stack, name: str) -> None:
    bad, code, text = BAD_ITEMS[name]
    good = "good-" + "".join(letter if letter.isalnum() else "-" for letter in name)
    before, after, error = *stack.submit(item(f"{good}-1"), item(f"{good}-2")), stack.submit(item(good), bad)[1]
    assert "error" not in before
    assert "error" not in after
    assert (error["index"], error["error"]["code"]) == (1, code), error
    assert text in error["error"]["message"], error
    assert MARK not in json.dumps(error)
    assert "state" not in error
    assert ("submission_id" in error) == (bad != MARK and bad.get("submission_id") == "bad")


def test_invalid_items_leave_no_record(stack: Stack) -> None:
    stack.submit(*(bad for bad, _, _ in BAD_ITEMS.values()))
    ids = {row["submission_id"] for row in stack.rows()}
    assert not {submission_id for submission_id in ids if submission_id == "bad" or MARK in submission_id}


def test_overrides_of_8192_characters_are_accepted(stack: Stack) -> None:
    answer = stack.submit(item("at-the-limit", overrides=environment(8192)))[0]
    assert "error" not in answer
    assert stack.until_ended("at-the-limit")["state"] == "succeeded"


def test_id_of_60_characters_is_accepted(stack: Stack) -> None:
    stack.submit(item("x" * 60))
    assert stack.until_ended("x" * 60)["state"] == "succeeded"


def test_hundred_items_are_answered_in_order(stack: Stack) -> None:
    items: list[Any] = [item(f"hundred-{n}") if n % 3 else {"command": []} for n in range(100)]
    answers = stack.api.submit(*items)
    assert [answer["index"] for answer in answers] == list(range(100))
    assert [answer.get("submission_id") for answer in answers] == [one.get("submission_id") for one in items]


def test_first_item_with_an_id_is_the_submission(stack: Stack) -> None:
    others = [item("twice") | {"command": ["false"]}] * 10
    first, *conflicts, again = stack.submit(item("twice"), *others, item("twice"))
    assert {first["submission_id"], again["submission_id"]} == {"twice"}
    assert "error" not in first | again
    for conflict in conflicts:
        assert conflict["error"]["code"] == "conflict"
        assert "state" in conflict
    assert stack.until_ended("twice")["state"] == "succeeded"
    assert len(stack.tasks("twice")) == 1


def test_api_serves_its_own_description(stack: Stack) -> None:
    assert stack.api.send("GET", "/v1/openapi.json").json == DOCUMENT, "make openapi"


def test_record_has_the_names_of_the_table(stack: Stack) -> None:
    stack.submit(item("shown", labels={"dag_id": "etl"}) | {"command": ["sh", "-c", f"exit 3 # {MARK}"]})
    row = stack.until_ended("shown")
    until("its task is torn down", lambda: "stopped_at" in stack.row("shown"))
    row, record = stack.row("shown"), stack.show("shown")
    assert (record["state"], record["exit_code"], record["labels"]) == ("failed", 3, {"dag_id": "etl"})
    hidden = {"rev", "feed", "changed_at", "content_hash", "nonce"}
    assert record.pop("advice").startswith("The command did not succeed.")
    assert set(record) == set(row) - hidden
    assert set(row) - set(record) == hidden
    assert MARK not in json.dumps(record)
    assert MARK not in str(row)


def test_stops_are_answered_in_order(stack: Stack) -> None:
    stack.submit(item("sleeps") | {"command": ["sleep", "60"]})
    stack.until_state("sleeps", "running")
    answers = stack.stop("sleeps", "x" * 61, "unheard-of", reason="cleared")
    assert [answer["index"] for answer in answers] == [0, 1, 2]
    assert answers[0]["state"] == "running"
    assert "task_arn" in answers[0]
    assert answers[1]["error"]["code"] == "invalid"
    assert "submission_id" not in answers[1]
    assert answers[2]["state"] == "cancelled"
    assert stack.until_ended("sleeps")["state"] == "cancelled"
    assert stack.submit(item("unheard-of"))[0]["state"] == "cancelled"
    assert not stack.tasks("unheard-of")


def test_health_names_deployment_table_and_checks(stack: Stack) -> None:
    answer = stack.api.send("GET", "/v1/health")
    assert answer.status == 200
    assert (answer.json["deployment"], answer.json["table"]) == (stack.ready["deployment"], stack.ready["table"])
    names = {check["name"] for check in answer.json["checks"]}
    assert answer.json["warnings"] == []
    assert names == {"table", "cluster", "profile default", "profile sidecar", "profile pool"}
    assert answer.json["profiles"].keys() == {"default", "sidecar", "pool"}
    assert stack.ready["runner_api_url"] in answer.json["pools"]["pool"]["runners_must_reach"]
    assert all("max_attempts" in policy for policy in answer.json["profiles"].values())
