"""The client on a local stack: what it promises of submissions, records and their ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from conftest import OPTIONS, Gate, dropped, status

from ecs_bridge import (
    BridgeError,
    Client,
    ErrorKind,
    InvalidSubmissionError,
    Record,
    State,
    Submission,
    SubmissionNotFoundError,
    SubmissionRejectedError,
    WaitTimeoutError,
)
from ecs_bridge.table import WHOLE
from local_stack import ROOT, LocalStack
from wire import Wire

UNAVAILABLE = {"error": {"code": "unavailable", "message": "DynamoDB is unavailable"}, "request_id": "r"}


def starts(stack: LocalStack, submission_id: str) -> list[int]:
    return [task["start_count"] for task in stack.tasks(submission_id)]


def test_a_command_runs_once_and_its_end_is_known(client: Client, stack: LocalStack, name: str) -> None:
    submission = Submission(name, ["sh", "-c", "exit 3"], labels={"team": "data"})
    assert client.submit(submission).submission_id == name
    assert client.submit(submission).error is None
    record = client.wait([name])[name]
    assert (record.state, record.exit_code, record.ended, record.succeeded) == (State.FAILED, 3, True, False)
    assert record.labels == {"team": "data"}
    assert record.container_name
    assert record.started_at
    assert record.advice
    assert record.summary().startswith("ECS bridge state failed, exit code 3, ")
    assert starts(stack, name) == [1]
    again = client.get(name)
    assert again
    assert (again.state, again.labels, again.advice) == (record.state, record.labels, record.advice)


def test_who_is_named_is_told_of_the_end(client: Client, stack: LocalStack, name: str) -> None:
    client.submit(Submission(name, ["sh", "-c", "exit 3"], event_bus="default", task_token=f"token-of-{name}"))
    stack.until_notified(name)
    assert {one["to"] for one in stack.notifications(name)} == {"default", f"token-of-{name}"}
    with pytest.raises(SubmissionRejectedError, match=r"known: default.*EventBusArns"):
        client.submit(Submission(f"{name}-2", ["true"], event_bus="another"))


def test_an_id_with_another_command_is_refused_and_says_so(client: Client, name: str) -> None:
    client.submit(Submission(name, ["true"]))
    with pytest.raises(SubmissionRejectedError, match=f"submission {name}: conflict: ") as raised:
        client.submit(Submission(name, ["false"]))
    assert raised.value.code == "conflict"
    assert client.wait([name])[name].succeeded


def test_one_that_is_refused_does_not_affect_the_others(client: Client, name: str) -> None:
    good, bad = client.submit_many(
        [Submission(name, ["true"]), Submission(f"{name}-2", ["true"], profile="nobody")],
    )
    assert good.error is None
    assert good.state
    assert bad.error
    assert bad.error.code == "unknown_profile"
    assert client.get(f"{name}-2") is None
    client.wait([name])


def test_a_lost_answer_is_asked_for_again_by_the_same_id(
    client: Client, stack: LocalStack, gate: Gate, name: str
) -> None:
    gate.troubles.append(dropped)
    assert client.submit(Submission(name, ["true"])).state
    [first, second] = gate.calls
    assert first == second
    assert client.wait([name])[name].succeeded
    assert starts(stack, name) == [1]


def test_only_the_items_that_are_unavailable_are_sent_again(client: Client, gate: Gate, name: str) -> None:
    def half(carry_out: Callable[[], tuple[int, bytes]]) -> tuple[int, bytes]:
        code, body = carry_out()
        content = json.loads(body)
        content["submissions"][1]["error"] = UNAVAILABLE["error"]
        return code, json.dumps(content).encode()

    gate.troubles.append(half)
    ids = [f"{name}-{n}" for n in range(3)]
    assert not any(answer.error for answer in client.submit_many([Submission(id, ["true"]) for id in ids]))
    sent = [[each["submission_id"] for each in body["submissions"]] for _, body in gate.calls]
    assert sent == [ids, [ids[1]]]
    client.wait(ids)


def test_what_spoils_a_call_is_found_and_the_others_are_let_through(client: Client, gate: Gate, name: str) -> None:
    def refuse(carry_out: Callable[[], tuple[int, bytes]]) -> tuple[int, bytes]:
        gate.troubles.append(refuse)
        _, body = gate.calls[-1]
        if any(each["submission_id"] == f"{name}-1" for each in body["submissions"]):
            return 422, json.dumps({"error": {"code": "unprocessable", "message": "no"}, "request_id": "r"}).encode()
        return carry_out()

    gate.troubles.append(refuse)
    ids = [f"{name}-{n}" for n in range(4)]
    answers = client.submit_many([Submission(id, ["true"]) for id in ids])
    gate.troubles.clear()
    assert [answer.error.code if answer.error else None for answer in answers] == [None, "invalid", None, None]
    assert client.wait([ids[0], *ids[2:]]).keys() == {ids[0], *ids[2:]}


def test_trouble_is_repeated_for_the_clients_patience_and_then_told(
    connect: Callable[..., Client], gate: Gate, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only pauses take time.
    pauses: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(pauses), sleep=pauses.append)
    monkeypatch.setattr("ecs_bridge._sansio.time", clock)
    gate.troubles.extend([status(503, UNAVAILABLE)] * 9)
    with pytest.raises(BridgeError, match=r"unavailable.*retry later with the same IDs") as raised:
        connect(retry_timeout=5.0).submit(Submission(name, ["true"]))
    assert (raised.value.kind, raised.value.code, raised.value.status) == (ErrorKind.TRANSIENT, "unavailable", 503)
    assert len(gate.calls) == len(pauses) + 1
    assert 2 <= len(pauses) <= 6
    assert sum(pauses) <= 5


@pytest.mark.parametrize(("code", "cause"), [(403, ErrorKind.CREDENTIALS), (404, ErrorKind.CONFIGURATION)])
def test_what_a_person_must_mend_is_told_at_once(
    client: Client, gate: Gate, code: int, cause: ErrorKind, name: str
) -> None:
    gate.troubles.append(status(code, {"Message": "Forbidden"}))
    with pytest.raises(BridgeError, match=f"{code} Forbidden .check") as raised:
        client.submit(Submission(name, ["secret"]))
    assert raised.value.kind is cause
    assert "secret" not in str(raised.value)
    assert len(gate.calls) == 1


@pytest.mark.parametrize(
    ("words", "is_clock"),
    [
        ("Signature expired: 20261130T095000Z is now earlier than 20261130T100000Z", True),
        ("Signature not yet current: 20261130T101500Z is still later than 20261130T100500Z", True),
        ("The difference between the request time and the current time is too large.", True),
        ("The request signature we calculated does not match the signature you provided.", False),
    ],
)
def test_signature_of_a_wrong_clock_names_the_clock(
    client: Client, gate: Gate, words: str, is_clock: bool, name: str
) -> None:
    gate.troubles.append(status(403, {"message": words}))
    with pytest.raises(BridgeError) as raised:
        client.submit(Submission(name, ["true"]))
    assert raised.value.kind is ErrorKind.CREDENTIALS
    assert ("the clock of this machine is wrong" in str(raised.value)) is is_clock


def test_a_table_that_is_not_there_is_told_at_once(connect: Callable[..., Client], wire: Wire) -> None:
    with pytest.raises(
        BridgeError, match=r"the table 'nobody': .*ResourceNotFound.*check url, function, table"
    ) as raised:
        connect(table="nobody").get_many(["an-id"])
    assert raised.value.kind is ErrorKind.CONFIGURATION
    assert len(wire.calls) == 1


def test_a_stop_ends_a_command_and_keeps_an_unknown_one_from_launching(
    client: Client, stack: LocalStack, name: str
) -> None:
    client.submit(Submission(name, ["sleep", "600"]))
    stack.until_state(name, "running")
    for id in (name, f"{name}-2"):
        client.stop(id, "no longer wanted")
    record = client.wait([name])[name]
    assert record.state == State.CANCELLED
    assert "no longer wanted" in (record.reason or "")
    assert client.submit(Submission(f"{name}-2", ["true"])).state == State.CANCELLED
    assert stack.tasks(f"{name}-2") == []


def test_there_is_no_record_of_what_was_never_submitted(client: Client) -> None:
    assert client.get("never-submitted") is None
    assert client.get_many(["never-submitted"]) == {}
    with pytest.raises(SubmissionNotFoundError, match="never-submitted: submit before you wait"):
        client.wait(["never-submitted"])


def test_a_wait_that_is_over_says_what_has_ended_and_what_goes_on(client: Client, name: str) -> None:
    client.submit_many([Submission(name, ["true"]), Submission(f"{name}-2", ["sleep", "600"])])
    client.wait([name])
    with pytest.raises(WaitTimeoutError, match="1 of 2 submissions have not ended after 0 s") as raised:
        client.wait([name, f"{name}-2"], timeout=0)
    assert (list(raised.value.ended), raised.value.left) == ([name], [f"{name}-2"])
    client.stop(f"{name}-2", "the test is over")


def test_a_thousand_go_in_calls_of_a_hundred(client: Client, stack: LocalStack, gate: Gate, wire: Wire) -> None:
    # Stopped before they are submitted, so that there is no container to wait for.
    ids = [f"thousand-{n}" for n in range(1000)]
    assert {answer.state for answer in client.stop_many(ids, "too many")} == {State.CANCELLED}
    answers = client.submit_many(Submission(id, ["true"]) for id in ids)
    assert [answer.submission_id for answer in answers] == ids
    assert {answer.state for answer in answers} == {State.CANCELLED}
    assert [len(next(iter(body.values()))) for _, body in gate.calls] == [100] * 20
    assert client.get_many(ids).keys() == client.wait(ids).keys() == set(ids)
    assert sum(call.operation == "BatchGetItem" for call in wire.calls) == 20
    assert not any(task["submission_id"].startswith("thousand-") for task in stack.tasks())


def test_keys_that_dynamodb_did_not_process_are_read_again(client: Client, wire: Wire) -> None:
    ids = [f"unprocessed-{n}" for n in range(120)]
    client.stop_many(ids, "only their records are wanted")
    wire.table_faults.times = 3  # type: ignore[union-attr]
    assert client.get_many(ids).keys() == set(ids)
    asked = [len(next(iter(call.body["RequestItems"].values()))["Keys"]) for call in wire.calls]
    assert asked == [100, 70, 35, 18]


def test_a_function_is_invoked_where_there_is_no_url(stack: LocalStack, gate: Gate, name: str) -> None:
    with Client(function="submit", ready_file=str(stack.ready_file), **OPTIONS) as client:
        assert client.health()["status"] == "ok"
        assert client.submit(Submission(name, ["true"])).state
        assert client.wait([name])[name].succeeded
        assert client.get("never-submitted") is None
        assert client.stop(name, "it has ended").state == State.SUCCEEDED
    assert gate.calls == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"submission_id": "with space"}, "invalid submission_id: .*; must be 1 to 60 letters"),
        ({"submission_id": "x" * 61}, "invalid submission_id: .*; must be 1 to 60 letters"),
        (
            {"command": "echo hello"},
            r"invalid command: got str 'echo hello'; must be .*list of strings; .*\['sh', '-c', LINE\]",
        ),
        ({"command": []}, "invalid command: got list; must be a non-empty list"),
        ({"command": ["echo", 1]}, "must be a non-empty list of strings"),
        ({"command": ["x" * 66_000]}, "up to 65536 are allowed"),
        ({"profile": "no such name!"}, "invalid profile: .*; must be a profile name"),
        ({"overrides": {"memroy": "1"}}, "unknown parameters in overrides: memroy"),
        ({"overrides": {"count": 2}}, "invalid overrides: the bridge sets count"),
        ({"overrides": ["cpu"]}, "invalid overrides: got list; must be a dict"),
        ({"environment": {"A": "b"}}, "missing container: environment requires it"),
        ({"labels": {"a": 1}}, "invalid labels: must be a dict of strings"),
        ({"labels": {"a": "x" * 200}}, r"labels are too large: 201 bytes; up to 200 are allowed.*shortened"),
        ({"priority": 1000}, "invalid priority: 1000; must be an integer from 0 to 999"),
        ({"event_bus": ""}, "invalid event_bus: got str; must be a non-empty string"),
        ({"task_token": 1}, "invalid task_token: got int; must be a non-empty string"),
        ({"launch_deadline": 1_700_000_000}, "invalid launch_deadline: .*; must be a datetime or epoch milliseconds"),
    ],
    ids=str,
)
def test_bad_input_says_what_would_be_right_and_nothing_is_sent(
    client: Client, gate: Gate, given: dict[str, object], words: str
) -> None:
    good = Submission("good", ["true"])
    with pytest.raises(InvalidSubmissionError, match=words):
        client.submit_many([good, Submission(**{"submission_id": "bad", "command": ["true"], **given})])  # type: ignore[arg-type]
    assert gate.calls == []


def test_a_reason_of_a_stop_is_wanted(client: Client, gate: Gate) -> None:
    with pytest.raises(InvalidSubmissionError, match="invalid reason: must be a string of 1 to 256 bytes"):
        client.stop("an-id", "")
    assert gate.calls == []


def test_commands_and_environments_are_in_no_repr() -> None:
    text = repr(
        Submission("an-id", ["secret"], environment={"KEY": "secret"}, container="main", overrides={"tags": ["secret"]})
    )
    assert "secret" not in text
    assert "an-id" in text


def test_a_state_that_is_newer_than_the_client_is_kept() -> None:
    state = State("paused")
    assert (str(state), f"{state}", state == "paused", state.ended) == ("paused", "paused", True, False)


def test_attributes_read_from_table_are_those_of_clients() -> None:
    attributes = json.loads((ROOT / "shared/schema/attributes.json").read_text())
    assert set(WHOLE) == {each["name"] for each in attributes if "client" in each["readers"]}


def test_runner_id_of_row_and_of_api_are_equal() -> None:
    row = {"submission_id": "a", "state": "running", "pooled": {"key": "k", "taken": {"runner_id": "runner-1"}}}
    shown = {"submission_id": "a", "state": "running", "runner_id": "runner-1"}
    assert Record.of(row).runner_id == Record.of(shown).runner_id == "runner-1"
    assert Record.of({"submission_id": "a", "state": "queued", "pooled": {"key": "k"}}).runner_id is None
