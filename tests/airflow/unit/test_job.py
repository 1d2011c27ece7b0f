"""From workloads to submissions."""

from __future__ import annotations

import copy
import json

import pytest

from airflow_ecs_bridge.job import (
    InvalidSubmissionError,
    Job,
    priority,
    read_executor_config,
    token_expiry,
)
from ecs_bridge.submission import LABELS_LIMIT, shortened

CONFIG = {
    "profile": "large",
    "overrides": {
        "cpu": "2048",
        "containerOverrides": [{"name": "main", "environment": [{"name": "STAGE", "value": "prod"}]}],
    },
    "tags": [{"key": "team", "value": "data"}],
}


def job(**fields: object) -> Job:
    return Job("an-id", {"dag_id": "orders"}, command=["true"], lifetime=600, **fields)


def size(result: dict[str, str]) -> int:
    return sum(len(key.encode()) + len(value.encode()) for key, value in result.items())


def test_executor_config_is_a_profile_and_run_task_parameters():
    body = job(executor_config=CONFIG).build(None, 60)
    assert body["profile"] == "large"
    assert body["overrides"] == {"overrides": CONFIG["overrides"], "tags": CONFIG["tags"]}


def test_executor_config_is_never_changed():
    config = copy.deepcopy(CONFIG)
    body = job(executor_config=config).build("other", 60)
    body["overrides"]["overrides"]["containerOverrides"][0]["environment"].append("changed")
    assert config == CONFIG


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("large", "got str; must be a dict"),
        ({"count": 2}, "the bridge sets count"),
        ({"clientToken": "x", "startedBy": "me"}, "the bridge sets clientToken, startedBy"),
        ({"pod_override": 1}, "pod_override; allowed are RunTask parameters, profile, by_try and by_try_condition"),
        ({"profile": "no such name"}, "must be a profile name"),
        ({"overrides": {"containerOverrides": [{"cpu": 1}]}}, "a string as name"),
        ({"overrides": {"containerOverrides": {}}}, "a list of dicts"),
        (
            {"overrides": {"containerOverrides": [{"name": "main", "command": ["x"]}]}},
            "must not set the command of a container",
        ),
        ({"overrides": []}, "must be a dict"),
        ({"tags": [object()]}, "not JSON serializable"),
        ({"tags": [float("nan")]}, "not JSON serializable"),
    ],
    ids=str,
)
def test_executor_config_is_checked_and_the_error_says_what_is_wrong(config, words):
    with pytest.raises(InvalidSubmissionError, match=words):
        read_executor_config(config)


SIZES = {
    "overrides": {"cpu": "512", "containerOverrides": [{"name": "main", "cpu": 1}]},
    "by_try": [
        {},
        {"overrides": {"memory": "2048", "containerOverrides": [{"name": "main", "memory": 2000}, {"name": "log"}]}},
        {"overrides": {"memory": "8192"}},
    ],
}


@pytest.mark.parametrize(("patches", "memory"), [(0, None), (1, "2048"), (2, "8192"), (9, "8192")])
def test_each_try_has_its_size_and_the_last_one_is_for_all_further_tries(patches, memory):
    body = job(executor_config=SIZES).build(None, 60, patches)
    assert body["overrides"]["overrides"].get("memory") == memory
    assert body["overrides"]["overrides"]["cpu"] == "512"


def test_a_patch_is_merged_as_the_bridge_merges():
    overrides = job(executor_config=SIZES).build(None, 60, 1)["overrides"]["overrides"]
    assert overrides["containerOverrides"] == [{"name": "main", "cpu": 1, "memory": 2000}, {"name": "log"}]
    assert SIZES["overrides"]["containerOverrides"] == [{"name": "main", "cpu": 1}]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"by_try": []}, r"by_try'\]: must be a list of dicts"),
        ({"by_try": {"overrides": {}}}, r"by_try'\]: must be a list of dicts"),
        ({"by_try_condition": "out_of_memory"}, r"by_try'\]: must be a list of dicts"),
        ({"by_try": [{}], "by_try_condition": "failed"}, r"by_try_condition'\]: must be 'out_of_memory'"),
        ({"by_try": [{}, {"memory": "1"}]}, r"unknown parameters in executor_config\['by_try'\]\[1\]: memory"),
        ({"by_try": [{"profile": "large"}]}, "unknown parameters in .*: profile"),
        ({"by_try": [{"count": 2}]}, "the bridge sets count"),
        (
            {"by_try": [{"overrides": {"containerOverrides": [{"name": "main", "command": []}]}}]},
            "the command of a container",
        ),
    ],
    ids=str,
)
def test_sizes_by_try_are_checked_and_the_error_says_what_is_wrong(config, words):
    with pytest.raises(InvalidSubmissionError, match=words):
        job(executor_config=config).build(None, 60)


@pytest.mark.parametrize("config", [None, {}])
def test_no_executor_config_asks_for_nothing(config):
    body = job(executor_config=config).build(None, 60)
    assert "profile" not in body
    assert "overrides" not in body


def test_what_the_bridge_would_refuse_for_its_size_fails_with_the_numbers():
    long = Job("an-id", {"dag_id": "orders"}, command=["ü" * 33_000], lifetime=600)
    with pytest.raises(InvalidSubmissionError, match=r"too large: 660\d\d bytes of JSON; up to 65536 are allowed"):
        long.build(None, 60)


def test_a_command_that_only_a_pool_takes_is_submitted():
    assert Job("an-id", {"dag_id": "orders"}, command=["x" * 60_000], lifetime=600).build(None, 60)


def test_the_higher_weight_has_the_smaller_priority():
    weights = range(-498, 502)
    assert [priority(weight) for weight in weights] == list(range(999, -1, -1))
    assert (priority(-(2**31)), priority(2**31 - 1)) == (999, 0)


@pytest.mark.parametrize(("weight", "expected"), [(1, None), (0, 501), (11, 490)])
def test_a_priority_is_sent_where_the_weight_is_not_the_default(weight, expected):
    assert job(weight=weight).build(None, 60).get("priority") == expected


def test_short_labels_are_whole():
    subject = {"dag_id": "orders", "task_id": "extract", "run_id": "manual__1", "try_number": "1"}
    assert shortened(subject) == subject


@pytest.mark.parametrize("text", ["x" * 250, "ü" * 250, "数" * 250], ids=["ascii", "two bytes", "three bytes"])
def test_long_labels_are_cut_to_the_bridge_s_limit_and_short_ones_stay(text):
    result = shortened({"dag_id": text, "task_id": text, "run_id": "manual__1", "try_number": "12", "map_index": "3"})
    assert LABELS_LIMIT - 12 < size(result) <= LABELS_LIMIT
    assert (result["run_id"], result["try_number"], result["map_index"]) == ("manual__1", "12", "3")
    assert result["dag_id"].endswith("…")
    assert text.startswith(result["dag_id"][:-1])


def test_a_token_s_expiry_is_read_without_its_key():
    import jwt

    assert token_expiry(jwt.encode({"exp": 1700000000}, "k" * 32, algorithm="HS256")) == 1700000000


@pytest.mark.parametrize("token", ["", "a.b", "a.b.c", "a.e30.c", None])
def test_a_token_that_says_no_expiry_sets_no_deadline(token):
    assert token_expiry(token) is None


def test_a_command_of_airflow_2_has_until_airflow_takes_it_for_stuck():
    assert job(queued_at=1000.0).build(None, 60)["launch_deadline"] == (1000 + 600 - 60) * 1000


def test_a_job_s_repr_shows_no_command():
    secret = Job(
        "an-id", {"dag_id": "orders"}, command=["token"], executor_config={"tags": ["token"]}, workload="token"
    )
    assert "an-id" in repr(secret)
    assert "token" not in repr(secret)


def test_a_submission_is_json():
    json.dumps(job(executor_config=CONFIG).build(None, 60))
