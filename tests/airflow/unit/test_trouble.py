"""What the executor does while the bridge, the table or the credentials are in trouble."""

from __future__ import annotations

import threading
import time
import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.utils.state import TaskInstanceState
from botocore.exceptions import ClientError, HTTPClientError
from fake_bridge import FakeBridge
from test_executor import event, launched, task_events
from workloads import beat_until, run, task

from airflow_ecs_bridge import cloudwatch_logs, submitter, tasklog
from airflow_ecs_bridge.aws import Aws
from airflow_ecs_bridge.job import Job
from airflow_ecs_bridge.keys import key_of
from ecs_bridge.submission import json_bytes

SUCCESS, FAILED = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 503},
        {"status": 429},
        {"status": 404},
        {"status": 200, "body": b"<html>a proxy's page</html>"},
        {"status": 200, "body": {"submissions": []}},
        {"hang_up": True},
        {"hang_up": True, "carried_out": True},
        {"status": 502, "carried_out": True},
    ],
    ids=str,
)
def test_a_failed_call_is_repeated_with_the_same_id_and_content(executor, bridge, fault):
    bridge.fail("/v1/submissions", **fault)
    run(executor, item := task(executor))
    bridge.wait_until(lambda: bridge.calls["/v1/submissions"] == 2)
    launched(bridge, item)
    sent = [batch[0] for batch in bridge.batches]
    assert all(body == sent[0] for body in sent)
    assert bridge.starts[item.ti.external_executor_id] == 1


def test_a_call_that_is_never_answered_is_given_up_and_repeated(configure, start, bridge):
    # An answer to the check may take longer than that, too.
    configure(request_timeout="0.3", check_health_on_startup="False")
    executor = start()
    gate = threading.Event()
    bridge.fail("/v1/submissions", gate=gate)
    run(executor, item := task(executor))
    launched(bridge, item)
    gate.set()
    assert bridge.starts[item.ti.external_executor_id] == 1


@pytest.mark.parametrize("code", ["invalid", "unknown_profile", "override_not_allowed"])
def test_a_final_item_error_fails_the_task_with_its_reason(executor, bridge, code):
    item, other = task(executor), task(executor, "other")
    bridge.item_errors[item.ti.external_executor_id].append({"code": code, "message": "the reason for people"})
    run(executor, item, other)
    beat_until(executor, lambda: event(executor, item))
    assert event(executor, item)[0] == FAILED
    assert task_events(executor) == [f"not submitted to the ECS bridge: {code}: the reason for people"]
    launched(bridge, other)


@pytest.mark.parametrize("code", ["unavailable", "a_code_of_tomorrow"])
def test_an_item_that_is_not_accepted_now_is_sent_again(executor, bridge, code):
    item = task(executor)
    bridge.item_errors[item.ti.external_executor_id].append({"code": code, "message": "later"})
    run(executor, item)
    launched(bridge, item)


def test_a_conflict_is_watched_not_failed(executor, bridge):
    item = task(executor)
    id = item.ti.external_executor_id
    bridge.call("POST", "/v1/submissions", {"submissions": [{"submission_id": id, "command": ["another token"]}]})
    run(executor, item)
    bridge.wait_until(lambda: bridge.calls["/v1/submissions"] == 1)
    bridge.finish(id)
    beat_until(executor, lambda: event(executor, item))
    assert event(executor, item)[0] == SUCCESS


def test_a_conflict_with_what_ended_long_ago_is_reported(executor, bridge):
    item = task(executor)
    id = item.ti.external_executor_id
    bridge.call("POST", "/v1/submissions", {"submissions": [{"submission_id": id, "command": ["another token"]}]})
    bridge.finish(id, "failed", exit_code=3, changed_at=1)
    run(executor, item)
    beat_until(executor, lambda: event(executor, item))
    assert "exit code 3" in event(executor, item)[1]


def test_a_batch_of_long_commands_is_cut_below_the_limit_of_a_body(executor, bridge):
    variables = [{"name": "TEXT", "value": "ü" * 31_000}]
    long = {"overrides": {"containerOverrides": [{"name": "main", "environment": variables}]}}
    jobs = [job for n in range(100) for job in executor._jobs(task(executor, f"t{n}", executor_config=long))]
    executor._bridge.submitter._send(jobs, {job.submission_id: job for job in jobs})
    sizes = [json_bytes({"submissions": batch}) for batch in bridge.batches]
    assert len(sizes) == 2, sizes
    assert max(sizes) <= 4 * 1024 * 1024
    assert set(bridge.records) == {job.submission_id for job in jobs}


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_one_task_that_spoils_a_batch_fails_alone(executor, bridge, status, monkeypatch):
    items = [task(executor, f"t{n}") for n in range(7)]
    bad = items[3].ti.external_executor_id
    call = FakeBridge.call

    def refuse(self: FakeBridge, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == "/v1/submissions" and bad in [each["submission_id"] for each in body["submissions"]]:
            return status, {"error": {"code": "refused", "message": "cannot take this"}, "request_id": "r"}
        return call(self, method, path, body)

    monkeypatch.setattr(FakeBridge, "call", refuse)
    run(executor, *items)
    launched(bridge, *items[:3], *items[4:])
    beat_until(executor, lambda: event(executor, items[3]))
    assert f"{status} refused: cannot take this" in event(executor, items[3])[1]
    assert len(executor.event_buffer) == 1


def test_a_task_that_never_reached_the_bridge_in_time_is_left_to_airflow(configure, start, bridge, monkeypatch):
    configure(worker_start_margin="599")  # of the token's 600 seconds
    executor = start()
    bridge.fail("/v1/submissions", times=1000, status=503)
    run(executor, item := task(executor))
    beat_until(executor, lambda: not executor.running)
    assert event(executor, item) is None
    assert "never received it" in task_events(executor)[0]


def test_a_call_that_timed_out_but_was_accepted_is_found_in_the_table(executor, bridge, monkeypatch):
    bridge.fail("/v1/submissions", carried_out=True, status=504)
    bridge.fail("/v1/submissions", times=1000, status=503)
    run(executor, item := task(executor))
    launched(bridge, item)
    # The token has expired.
    later = SimpleNamespace(time=lambda: time.time() + 600, monotonic=time.monotonic, sleep=time.sleep)
    monkeypatch.setattr(submitter, "time", later)
    bridge.finish(item.ti.external_executor_id)
    beat_until(executor, lambda: event(executor, item))
    assert event(executor, item)[0] == SUCCESS


def test_refused_credentials_are_a_clear_line_in_the_log_and_a_retry(executor, bridge, caplog):
    bridge.fail("/v1/submissions", status=403, body={"Message": "Forbidden"})
    run(executor, item := task(executor))
    launched(bridge, item)
    assert "403 Forbidden" in caplog.text
    assert "lambda:InvokeFunctionUrl" in caplog.text


def test_credentials_that_are_missing_for_a_while_are_a_clear_line_and_a_retry(
    configure, start, bridge, caplog, monkeypatch
):
    configure(check_health_on_startup="False")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    executor = start()
    run(executor, item := task(executor))
    beat_until(executor, lambda: "no AWS credentials found" in caplog.text)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    launched(bridge, item)
    bridge.finish(item.ti.external_executor_id)
    beat_until(executor, lambda: event(executor, item))
    assert event(executor, item)[0] == SUCCESS


def test_what_was_sent_for_credentials_is_in_no_log(executor, bridge, caplog, monkeypatch):
    def fetch(self):
        raise HTTPClientError(error="could not send the web identity token eyJhbGciOi")

    with monkeypatch.context() as while_broken:
        while_broken.setattr(Aws, "credentials", fetch)
        run(executor, item := task(executor))
        beat_until(executor, lambda: "HTTPClientError" in caplog.text)
    launched(bridge, item)
    assert "eyJhbGciOi" not in caplog.text


@pytest.mark.parametrize(
    "code", ["ProvisionedThroughputExceededException", "ExpiredTokenException", "InternalServerError"]
)
def test_a_table_that_cannot_be_read_for_a_while_loses_nothing(executor, bridge, code):
    run(executor, item := task(executor))
    launched(bridge, item)
    bridge.fail("Query", times=3, status=400, body={"__type": f"x#{code}", "message": "not now"})
    bridge.finish(item.ti.external_executor_id)
    beat_until(executor, lambda: event(executor, item))
    assert event(executor, item)[0] == SUCCESS


def test_what_the_feed_never_shows_is_found_by_its_id(configure, start, bridge):
    configure(full_scan_interval="1")
    executor = start()
    run(executor, item := task(executor))
    launched(bridge, item)
    bridge.finish(item.ti.external_executor_id)
    bridge.hide_from_feed(item.ti.external_executor_id)
    beat_until(executor, lambda: event(executor, item))
    assert event(executor, item)[0] == SUCCESS


def test_a_failure_is_reported_though_why_cannot_be_read(executor, bridge):
    run(executor, item := task(executor))
    launched(bridge, item)
    bridge.fail("BatchGetItem", times=5, status=400, body={"__type": "x#AccessDeniedException", "message": "no"})
    bridge.finish(item.ti.external_executor_id, "failed", exit_code=9, reason="told by the feed")
    beat_until(executor, lambda: event(executor, item))
    assert "exit code 9" in event(executor, item)[1]
    assert "told by the feed" in event(executor, item)[1]


def test_a_stop_is_repeated_until_the_bridge_has_taken_it(executor, bridge):
    run(executor, item := task(executor))
    launched(bridge, item)
    bridge.fail("/v1/stops", times=2, status=503)
    executor.change_state(key_of(item.ti), FAILED)
    bridge.wait_until(lambda: bridge.stops)
    assert bridge.calls["/v1/stops"] == 3


def test_the_token_is_in_no_log_line(executor, bridge, caplog):
    caplog.set_level("DEBUG")
    item = task(executor)
    bridge.fail("/v1/submissions", status=500)
    bridge.item_errors[item.ti.external_executor_id].append({"code": "invalid", "message": "no"})
    run(executor, item)
    beat_until(executor, lambda: event(executor, item))
    assert len(item.token) > 100
    assert item.token not in caplog.text
    assert item.token.split(".")[2] not in caplog.text


# Health at the start


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (
            {"/v1/health": {"status": 403, "body": {"Message": "Forbidden"}}},
            ["403 Forbidden", "lambda:InvokeFunctionUrl"],
        ),
        ({"/v1/health": {"status": 404, "body": b"no"}}, ["404", "check submit_url"]),
        (
            {
                "/v1/health": {
                    "status": 503,
                    "body": {"error": {"code": "unhealthy", "message": "cluster prod is INACTIVE"}},
                }
            },
            ["cluster prod is INACTIVE"],
        ),
        (
            {"Query": {"status": 400, "body": {"__type": "x#ResourceNotFoundException", "message": "no such table"}}},
            ["table 'bridge'", "no such table", "check table and region_name"],
        ),
        (
            {
                "BatchGetItem": {
                    "status": 400,
                    "body": {"__type": "x#AccessDeniedException", "message": "not authorized"},
                }
            },
            ["not authorized", "dynamodb:BatchGetItem"],
        ),
    ],
    ids=["permission", "url", "cluster", "table", "table permission"],
)
def test_the_scheduler_does_not_start_on_a_sick_bridge_and_says_why(start, bridge, trouble, words):
    from airflow_ecs_bridge.bridge import Unhealthy

    for operation, fault in trouble.items():
        bridge.fail(operation, times=9, **fault)
    with pytest.raises(Unhealthy) as failure:
        start()
    for word in words:
        assert word in str(failure.value)


@pytest.mark.parametrize("option", ["deployment", "table"])
def test_an_option_that_names_another_deployment_or_table_stops_the_start(configure, start, option):
    from airflow_ecs_bridge.bridge import Unhealthy

    configure(**{option: "another"})
    with pytest.raises(Unhealthy, match=rf"{option}: 'another'; the {option} of the ECS bridge .* is '"):
        start()


def test_a_table_may_be_named_by_its_arn(configure, start, bridge):
    from fake_bridge import TABLE

    configure(table=f"arn:aws:dynamodb:eu-central-1:123456789012:table/{TABLE}")
    start()


def test_a_bridge_of_a_version_that_names_neither_is_not_refused(start, bridge):
    bridge.health = {"status": "ok"}
    start()


def test_what_the_bridge_warns_of_is_logged_and_the_scheduler_starts(start, bridge, caplog):
    bridge.health["warnings"] = ["profile large: task definition big has no container called main"]
    start()
    assert "profile large: task definition big has no container called main" in caplog.text


def test_a_profile_with_relaunch_on_is_a_warning(start, bridge, caplog):
    bridge.health["profiles"]["large"]["relaunch_on"] = ["SpotInterruption"]
    start()
    assert "Profile large of the ECS bridge sets relaunch_on" in caplog.text
    assert "Profile default" not in caplog.text


def test_a_queued_timeout_that_leaves_no_time_for_a_launch_is_a_warning_with_numbers(
    configure, start, monkeypatch, caplog
):
    monkeypatch.setenv("AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT", "200")
    monkeypatch.setenv("AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES", "3")
    configure(worker_start_margin="150")
    start()
    assert "task_queued_timeout is 200 s" in caplog.text
    assert "only 50 s remain" in caplog.text
    assert "after 800 s" in caplog.text


def test_the_default_times_are_no_warning(start, caplog):
    start()
    assert "task_queued_timeout" not in caplog.text


def test_the_health_check_is_bounded(configure, start, bridge):
    from airflow_ecs_bridge.bridge import Unhealthy

    configure(startup_timeout="0.3")
    gate = threading.Event()
    bridge.fail("/v1/health", gate=gate)
    with pytest.raises(Unhealthy, match=r"no response within 0\.3 s"):
        start()
    gate.set()


def test_a_host_that_does_not_exist_is_named(configure, start):
    from airflow_ecs_bridge.bridge import Unhealthy

    configure(submit_url="http://127.0.0.1:1")
    with pytest.raises(Unhealthy, match=r"http://127\.0\.0\.1:1/v1/health"):
        start()


def test_without_the_check_a_scheduler_starts_whatever_the_bridge_says(configure, start, bridge):
    configure(check_health_on_startup="False")
    bridge.unhealthy = {"error": {"code": "unhealthy", "message": "no"}}
    start()
    assert bridge.calls["/v1/health"] == 0


# The log view


def test_the_log_view_of_a_running_task_says_where_it_runs(options, configure, bridge):
    from airflow_ecs_bridge.executor import EcsBridgeExecutor

    configure(awslogs_group="/ecs/airflow", awslogs_stream_prefix="worker")
    id = str(uuid.uuid4())
    bridge.call("POST", "/v1/submissions", {"submissions": [{"submission_id": id, "command": ["true"]}]})
    lines, logs = EcsBridgeExecutor().get_task_log(SimpleNamespace(external_executor_id=id), 1)
    assert logs == []
    assert lines[0].startswith(f"ECS bridge: submission {id} is launched")
    arn = bridge.records[id]["task_arn"]
    assert lines[1].startswith("Waiting for container start: ")
    assert lines[2] == f"ECS task: {arn}"
    assert lines[3].startswith(
        "CloudWatch: https://eu-central-1.console.aws.amazon.com/cloudwatch/home?region=eu-central-1"
    )
    assert lines[3].endswith(f"/log-group/$252Fecs$252Fairflow/log-events/worker$252Fmain$252F{arn.rsplit('/', 1)[1]}")


def started(bridge):
    """Return the id of a submission whose container runs."""
    id = str(uuid.uuid4())
    bridge.call("POST", "/v1/submissions", {"submissions": [{"submission_id": id, "command": ["true"]}]})
    bridge.records[id]["state"] = "running"
    return SimpleNamespace(external_executor_id=id)


def pages(monkeypatch, *answers):
    """Let GetLogEvents answer with these, from the last to the first one on; return how it was asked."""
    asked = []

    def get_log_events(**given):
        asked.append(given)
        answer = answers[min(len(asked), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        token, lines = answer
        return {"events": [{"message": f"{line}\n"} for line in lines], "nextForwardToken": token}

    client = Aws.client

    def make(self, service, *more, **named):
        return SimpleNamespace(get_log_events=get_log_events) if service == "logs" else client(self, service, *more)

    monkeypatch.setattr(Aws, "client", make)
    return asked


def test_the_log_view_of_a_running_task_shows_its_last_lines(options, configure, bridge, monkeypatch):
    from airflow_ecs_bridge.executor import EcsBridgeExecutor

    configure(awslogs_group="/ecs/airflow", awslogs_stream_prefix="worker")
    asked = pages(monkeypatch, ("t", ["one", "two"]))
    ti = started(bridge)
    lines, logs = EcsBridgeExecutor().get_task_log(ti, 1)
    assert lines[0].startswith(f"ECS bridge: submission {ti.external_executor_id} is running")
    assert logs == ["one\ntwo"]
    assert [each["limit"] for each in asked] == [tasklog.LINES]


def test_a_log_on_a_shared_disk_is_not_shown_twice(options, configure, bridge, monkeypatch, tmp_path):
    from airflow.utils.log.log_reader import TaskLogReader

    from airflow_ecs_bridge.executor import EcsBridgeExecutor

    configure(awslogs_group="/ecs/airflow", awslogs_stream_prefix="worker")
    pages(monkeypatch, ("t", ["one"]))
    handler = SimpleNamespace(local_base=str(tmp_path), _render_filename=lambda ti, number: f"t/attempt={number}.log")
    monkeypatch.setattr(TaskLogReader, "log_handler", handler)
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "attempt=2.log").touch()
    executor, ti = EcsBridgeExecutor(), started(bridge)
    assert executor.get_task_log(ti, 1)[1] == ["one"]
    lines, logs = executor.get_task_log(ti, 2)
    assert lines
    assert logs == []
    assert executor.get_streaming_task_log(ti, 2)[1] == []


def test_the_log_view_streams_all_lines_page_by_page(options, configure, bridge, monkeypatch):
    from airflow_ecs_bridge.executor import EcsBridgeExecutor

    configure(awslogs_group="/ecs/airflow", awslogs_stream_prefix="worker")
    asked = pages(monkeypatch, ("a", ["one", "two"]), ("b", ["three"]), ("b", []))
    lines, (stream,) = EcsBridgeExecutor().get_streaming_task_log(started(bridge), 1)
    assert lines[0].startswith("ECS bridge: submission")
    assert not asked  # nobody has read on
    assert list(stream) == ["one", "two", "three"]
    assert [each.get("nextToken") for each in asked] == [None, "a", "b"]
    assert all(each["startFromHead"] for each in asked)


def test_the_log_view_streams_a_bounded_number_of_pages(options, configure, bridge, monkeypatch):
    from airflow_ecs_bridge.executor import EcsBridgeExecutor

    configure(awslogs_group="/ecs/airflow", awslogs_stream_prefix="worker")
    endless = [(f"{number}", ["more"]) for number in range(100)]
    asked = pages(monkeypatch, *endless)
    _, (stream,) = EcsBridgeExecutor().get_streaming_task_log(started(bridge), 1)
    assert "output truncated" in list(stream)[-1]
    assert len(asked) == cloudwatch_logs.MOST_PAGES


@pytest.mark.parametrize(
    ("code", "words"),
    [("AccessDeniedException", "logs:GetLogEvents"), ("ResourceNotFoundException", "has not written any output yet")],
)
def test_the_log_view_says_why_it_has_no_lines(options, configure, bridge, monkeypatch, code, words):
    from airflow_ecs_bridge.executor import EcsBridgeExecutor

    configure(awslogs_group="/ecs/airflow", awslogs_stream_prefix="worker")
    pages(monkeypatch, ClientError({"Error": {"Code": code, "Message": "no"}}, "GetLogEvents"))
    executor, ti = EcsBridgeExecutor(), started(bridge)
    lines, logs = executor.get_task_log(ti, 1)
    assert words in lines[-1]
    assert logs == []
    (line,) = executor.get_streaming_task_log(ti, 1)[1][0]
    assert words in line


def test_the_log_view_keeps_its_session(options, bridge, monkeypatch):
    from airflow_ecs_bridge.executor import EcsBridgeExecutor

    sessions = []
    connect = Aws._connect
    monkeypatch.setattr(Aws, "_connect", lambda self: sessions.append(self) or connect(self))
    executor = EcsBridgeExecutor()
    for _ in range(3):
        executor.get_task_log(SimpleNamespace(external_executor_id=str(uuid.uuid4())), 1)
    assert bridge.calls.total() == 3
    assert len(sessions) == 1


def test_the_link_to_the_log_is_in_the_event_log_of_a_failure(configure, start, bridge):
    configure(awslogs_group="/ecs/airflow", awslogs_stream_prefix="worker")
    executor = start()
    run(executor, item := task(executor))
    launched(bridge, item)
    bridge.finish(item.ti.external_executor_id, "failed")
    beat_until(executor, lambda: event(executor, item))
    (text,) = task_events(executor)
    task_id = bridge.records[item.ti.external_executor_id]["task_arn"].rsplit("/", 1)[1]
    assert f"/log-group/$252Fecs$252Fairflow/log-events/worker$252Fmain$252F{task_id}" in text


def test_exit_code_1_is_explained_as_the_worker_s_own(executor, bridge):
    run(executor, item := task(executor))
    launched(bridge, item)
    bridge.finish(item.ti.external_executor_id, "failed", exit_code=1)
    beat_until(executor, lambda: event(executor, item))
    assert "exit code 1 (of Airflow's worker, not of the task" in event(executor, item)[1]


# Profiles that this Airflow may use


def test_a_task_of_a_profile_that_is_not_allowed_fails_with_the_reason(configure, start, bridge):
    configure(allowed_profiles="default, small")
    executor = start()
    allowed, queue = task(executor, "allowed"), task(executor, "queue", queue="large")
    config = task(executor, "config", executor_config={"profile": "large"})
    run(executor, allowed, queue, config)
    launched(bridge, allowed)
    beat_until(executor, lambda: event(executor, queue) and event(executor, config))
    assert event(executor, queue)[0] == event(executor, config)[0] == FAILED
    assert (
        "profile 'large' is not allowed; add it to [ecs_bridge_executor] allowed_profiles" in event(executor, config)[1]
    )
    assert set(bridge.records) == {allowed.ti.external_executor_id}


def test_the_default_profile_is_allowed_only_by_its_name(configure, start, bridge):
    configure(allowed_profiles="large")
    executor = start()
    run(executor, plain := task(executor), large := task(executor, "large", queue="large"))
    launched(bridge, large)
    beat_until(executor, lambda: event(executor, plain))
    assert "profile 'default' is not allowed" in event(executor, plain)[1]


@pytest.mark.parametrize("fault", [{"status": 500}, {"hang_up": True}, {"status": 404}])
def test_the_log_view_never_raises(options, bridge, fault):
    from airflow_ecs_bridge.executor import EcsBridgeExecutor

    id = str(uuid.uuid4())
    bridge.fail(f"/v1/submissions/{id}", **fault)
    lines, _ = EcsBridgeExecutor().get_task_log(SimpleNamespace(external_executor_id=id), 1)
    assert f"cannot read submission {id}" in lines[0]


def test_the_log_view_of_an_unconfigured_executor_says_so(monkeypatch):
    from airflow_ecs_bridge.executor import EcsBridgeExecutor

    lines, _ = EcsBridgeExecutor().get_task_log(SimpleNamespace(external_executor_id="abc"), 1)
    assert "submit_url or submit_function must be set" in lines[0]


NO_TEXT = "half\ud800"
PLACE = r"did you mean executor_config\['overrides'\]\['containerOverrides'\]"


def containers(*containers: Any) -> dict[str, Any]:
    return {"overrides": {"containerOverrides": list(containers)}}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            containers({"name": "m", "environment": [{"name": "A", "value": NO_TEXT}]}),
            r"lone surrogate U\+D800",
        ),
        (containers({"name": NO_TEXT}), r"lone surrogate U\+D800"),
        ({"tags": [{"key": "a", "value": NO_TEXT}]}, "invalid executor_config: contains the lone surrogate"),
        (containers({"name": 7}), "each with a string as name"),
        (containers({"name": ["m"]}), "each with a string as name"),
        (containers({"name": ""}), "each with a string as name"),
        ({"overrides": {"containerOverrides": {"name": "m"}}}, "must be a list of dicts"),
        ({"overrides": {"containerOverrides": None}}, "must be a list of dicts"),
        (containers({"name": "m", "environment": {"A": "1"}}), "invalid container environment"),
        (containers({"name": "m", "environment": [{"name": 1}]}), "invalid container environment"),
        ({"overrides": {"containerOverides": []}}, PLACE),
        ({"overrides": {"container_overrides": []}}, "did you mean .*containerOverrides"),
        ({"containerOverrides": []}, PLACE),
        ({"overides": {}}, r"did you mean executor_config\['overrides'\]"),
        ({"launchtype": "EC2"}, r"did you mean executor_config\['launchType'\]"),
        ({"overrides": {"Memory": "1"}}, r"did you mean executor_config\['overrides'\]\['memory'\]"),
        ({"pod_override": object()}, "unknown parameters in executor_config: pod_override"),
        ({"by_try": [containers({"name": 7})]}, "by_try"),
        ({"by_try": [{"tags": [{"key": NO_TEXT}]}]}, "by_try"),
        ({"profile": NO_TEXT}, "must be a profile name"),
    ],
)
def test_an_executor_config_that_can_never_be_submitted_fails_its_task_alone(executor, bridge, config, words):
    bad, good = task(executor, "bad", executor_config=config), task(executor, "good")
    run(executor, bad, good)
    launched(bridge, good)
    beat_until(executor, lambda: event(executor, bad))
    state, info = event(executor, bad)
    assert state == TaskInstanceState.FAILED
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(info)


def test_a_submission_that_cannot_be_built_fails_its_task_at_once(executor, bridge, monkeypatch, caplog):
    config = {"a secret": 1}

    def build(job: Job, *_: Any) -> dict[str, Any]:
        raise KeyError(next(iter(config)))

    monkeypatch.setattr(Job, "build", build)
    bad = task(executor, "bad", executor_config=config)
    run(executor, bad)
    beat_until(executor, lambda: event(executor, bad))
    assert "invalid executor_config: KeyError" in event(executor, bad)[1]
    assert "secret" not in event(executor, bad)[1] + caplog.text
