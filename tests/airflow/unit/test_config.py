"""The options, and what Airflow sees of the package."""

from __future__ import annotations

import json
from pathlib import Path

import airflow
import jsonschema
import pytest
from airflow.configuration import conf
from workloads import run, task

from airflow_ecs_bridge.config import ConfigError, QueueProfiles, Settings
from airflow_ecs_bridge.keys import key_of
from airflow_ecs_bridge.provider import OPTIONS, get_provider_info

REQUIRED = {"submit_url": "https://abc.lambda-url.eu-central-1.on.aws/", "table": "t", "deployment": "prod"}


def test_three_options_are_enough(configure):
    configure(**REQUIRED)
    settings = Settings.from_conf(conf)
    assert settings.submit_url == "https://abc.lambda-url.eu-central-1.on.aws"
    assert settings.url_region == "eu-central-1"
    assert settings.aws_conn_id == "aws_default"
    assert (settings.poll_interval, settings.full_scan_interval, settings.worker_start_margin) == (1.0, 300.0, 60.0)


def test_all_that_is_wrong_is_told_at_once(configure):
    configure(
        submit_url="ftp://x",
        deployment="a/b",
        poll_interval="soon",
        shutdown_timeout="-1",
        check_health_on_startup="maybe",
        queue_profiles="[1]",
    )
    with pytest.raises(ConfigError) as error:
        Settings.from_conf(conf)
    for option in (
        "submit_url",
        "table",
        "deployment",
        "poll_interval",
        "shutdown_timeout",
        "check_health",
        "queue_profiles",
    ):
        assert option in str(error.value)


@pytest.mark.parametrize(
    ("option", "queue", "profile"),
    [
        ("match", "default", None),
        ("match", "large", "large"),
        ("match", "not a profile's name", None),
        ("strict", "large", "large"),
        ("strict", None, None),
        ("ignore", "large", None),
        ('{"gpu": "gpu-spot"}', "gpu", "gpu-spot"),
        ('{"gpu": "gpu-spot"}', "large", None),
    ],
)
def test_a_queue_picks_a_profile(option, queue, profile):
    assert QueueProfiles.parse(option).profile(queue) == profile


@pytest.mark.parametrize("text", ["", "sometimes", "[]", '{"gpu": 1}', '{"gpu": "no such name"}'])
def test_a_queue_option_that_means_nothing_is_refused(text):
    with pytest.raises(ValueError, match="match, strict, ignore, or a JSON object"):
        QueueProfiles.parse(text)


def profile_of(bridge, item):
    bridge.wait_until(lambda: item.ti.external_executor_id in bridge.records)
    sent = [body for batch in bridge.batches for body in batch]
    return [body.get("profile") for body in sent if body["submission_id"] == item.ti.external_executor_id]


def test_a_queue_that_names_no_profile_gets_the_default_and_is_asked_about_once(executor, bridge):
    first, second = task(executor, "a", queue="nightly"), task(executor, "b", queue="nightly")
    large = task(executor, "c", queue="large")
    run(executor, first)
    assert profile_of(bridge, first) == ["nightly", None]
    run(executor, second, large)
    assert profile_of(bridge, second) == [None]
    assert profile_of(bridge, large) == ["large"]


def test_a_profile_that_executor_config_names_must_exist(executor, bridge):
    from workloads import beat_until

    item = task(executor, executor_config={"profile": "huge"})
    run(executor, item)
    beat_until(executor, lambda: key_of(item.ti) in executor.event_buffer)
    assert "unknown_profile" in executor.event_buffer[key_of(item.ti)][1]


def test_the_provider_info_is_valid_by_airflow_s_own_schema():
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_airflow_knows_the_provider_its_executor_and_every_default():
    from airflow.providers_manager import ProvidersManager

    provider = ProvidersManager().providers["airflow-ecs-bridge"]
    assert provider.data["executors"] == ["airflow_ecs_bridge.EcsBridgeExecutor"]
    for name, option in OPTIONS.items():
        assert conf.get("ecs_bridge_executor", name, fallback=None) == option["default"]
        assert option["description"].strip()
        assert option["example"]


def test_options_of_a_team_are_its_own(options, monkeypatch):
    from airflow_ecs_bridge.executor import EcsBridgeExecutor

    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    for option, value in {**REQUIRED, "deployment": "red"}.items():
        monkeypatch.setenv(f"AIRFLOW__RED___ECS_BRIDGE_EXECUTOR__{option.upper()}", value)
    assert EcsBridgeExecutor(team_name="red").settings.deployment == "red"
    assert EcsBridgeExecutor().settings.deployment == "test"
    assert EcsBridgeExecutor.supports_multi_team


def test_the_provider_and_the_docs_name_the_same_class():
    from pathlib import Path

    from airflow_ecs_bridge.provider import get_provider_info

    (name,) = get_provider_info()["executors"]
    guide = (Path(__file__).parents[3] / "docs" / "airflow.md").read_text()
    assert f"executor = {name}\n" in guide


def test_a_wrong_name_among_the_allowed_profiles_is_told(configure, options):
    from airflow_ecs_bridge.config import ConfigError
    from airflow_ecs_bridge.executor import EcsBridgeExecutor

    configure(allowed_profiles="default,, no such name")
    with pytest.raises(ConfigError, match="allowed_profiles contains invalid profile names: '', 'no such name'"):
        _ = EcsBridgeExecutor().settings
