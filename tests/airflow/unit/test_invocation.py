"""The submit function, invoked: no URL is set anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import OPTIONS
from fake_bridge import FakeBridge
from test_executor import launched
from workloads import beat_until, run, task

from airflow_ecs_bridge.aws import Aws
from airflow_ecs_bridge.bridge import Unhealthy
from airflow_ecs_bridge.config import ConfigError, Settings
from airflow_ecs_bridge.keys import key_of
from ecs_bridge.api import BridgeClient
from ecs_bridge.errors import BridgeError, ErrorKind


@pytest.fixture
def options(configure: Callable[..., None], url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the place of the options that name a URL."""
    configure(**OPTIONS, submit_function="prod-submit")
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", url)


@pytest.fixture
def client(options: None) -> BridgeClient:
    from airflow.configuration import conf

    settings = Settings.from_conf(conf)
    return BridgeClient(None, Aws(settings), 30, settings.submit_function)


def test_a_task_runs(start: Any, bridge: FakeBridge):
    executor = start()
    run(executor, item := task(executor))
    launched(bridge, item)
    [id] = bridge.records
    bridge.finish(id)
    beat_until(executor, lambda: key_of(item.ti) in executor.event_buffer)
    assert executor.event_buffer[key_of(item.ti)][0] == "success"
    assert bridge.starts[id] == 1
    assert not any(operation.startswith("/v1/") for operation in bridge.calls)


def test_every_call_of_the_api_has_an_invocation(client: BridgeClient, bridge: FakeBridge):
    [answer] = client.submit([{"submission_id": "one", "command": ["true"]}])
    assert answer.state == "launched"
    assert client.show("one")["state"] == "launched"
    assert client.stop(["one"], "no longer wanted")[0].state == "launched"
    assert client.health()["status"] == "ok"


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (
            {"status": 403, "body": {"Message": "not authorized to perform: lambda:InvokeFunction"}},
            ErrorKind.CREDENTIALS,
        ),
        ({"status": 404, "body": {"Message": "Function not found"}}, ErrorKind.CONFIGURATION),
        ({"status": 413, "body": {"Message": "too large"}}, ErrorKind.BAD_REQUEST),
        ({"status": 429, "body": {"Message": "Rate Exceeded."}}, ErrorKind.TRANSIENT),
        ({"status": 500, "body": {"Message": "no"}}, ErrorKind.TRANSIENT),
        ({"hang_up": True}, ErrorKind.TRANSIENT),
        ({"status": 200, "body": b"nonsense"}, ErrorKind.CONFIGURATION),
    ],
)
def test_lambdas_own_errors_are_told_apart(
    client: BridgeClient, bridge: FakeBridge, fault: dict[str, Any], cause: ErrorKind
):
    bridge.fail("/2015-03-31/functions/prod-submit/invocations", 9, **fault)
    with pytest.raises(BridgeError) as raised:
        client.submit([{"submission_id": "one", "command": ["secret"]}])
    assert raised.value.kind is cause
    assert "secret" not in str(raised.value)


def test_an_error_of_the_function_is_what_the_http_api_answers(client: BridgeClient, bridge: FakeBridge):
    with pytest.raises(BridgeError, match="no such submission") as raised:
        client.show("nobody")
    assert raised.value.status == 404
    bridge.unhealthy = {"error": {"code": "unhealthy", "message": "the cluster is gone"}}
    with pytest.raises(BridgeError, match="the cluster is gone") as raised:
        client.health()
    assert raised.value.kind is ErrorKind.TRANSIENT


def test_a_start_names_the_function_that_cannot_be_invoked(start: Any, bridge: FakeBridge):
    bridge.fail("/2015-03-31/functions/prod-submit/invocations", 9, status=404, body={"Message": "Function not found"})
    with pytest.raises(Unhealthy, match="prod-submit"):
        start()


def test_the_region_may_come_from_the_arn(configure: Callable[..., None]):
    from airflow.configuration import conf

    arn = "arn:aws:lambda:eu-central-2:123456789012:function:prod-submit"
    configure(submit_function=arn, table="t", deployment="prod")
    assert Settings.from_conf(conf).url_region == "eu-central-2"


def test_one_of_both_must_be_set(configure: Callable[..., None]):
    from airflow.configuration import conf

    configure(table="t", deployment="prod")
    with pytest.raises(ConfigError, match="submit_url or submit_function must be set"):
        Settings.from_conf(conf)
