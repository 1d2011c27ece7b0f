"""What the functions write, what alarms and dashboard look at, and what the runbook says are the same metrics."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from stacks import ROOT, template
from walk import Recording

OPERATING = (ROOT / "docs/operating.md").read_text()
RESOURCES = template()["Resources"]
ALARMS = [resource["Properties"] for resource in RESOURCES.values() if resource["Type"] == "AWS::CloudWatch::Alarm"]
UNITS = {"count": {None, "Count"}, "seconds": {"Seconds"}}


@pytest.fixture(scope="module")
def described() -> dict[str, tuple[str, set[str]]]:
    """Unit and dimensions of each metric in the table of docs/operating.md."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (?:`(\w+)`)? ?\|", OPERATING, re.MULTILINE)
    return {name: (unit, {"Deployment", dimension} - {""}) for name, unit, dimension in rows}


def dashboard() -> list[dict[str, Any]]:
    body = RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    return [widget["properties"] for widget in json.loads(body)["widgets"]]


def test_what_is_written_is_what_is_described(recording: Recording, described: dict[str, tuple[str, set[str]]]) -> None:
    written = {}
    for line in recording.log():
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", []):
            assert directive["Namespace"] == "EcsBridge"
            (dimensions,) = directive["Dimensions"]
            for metric in directive["Metrics"]:
                assert metric["Name"] in line
                assert metric.get("Unit") in UNITS[described[metric["Name"]][0]]
                written[metric["Name"]] = set(dimensions)
    assert written == {name: dimensions for name, (_, dimensions) in described.items()}


def test_alarms_watch_metrics_by_the_dimensions_that_they_have(described: dict[str, tuple[str, set[str]]]) -> None:
    ours = [alarm for alarm in ALARMS if alarm.get("Namespace") == "EcsBridge"]
    assert ours
    for alarm in ours:
        assert {dimension["Name"] for dimension in alarm["Dimensions"]} == described[alarm["MetricName"]][1]


def test_the_dashboard_shows_every_metric_by_the_dimensions_that_it_has(
    described: dict[str, tuple[str, set[str]]],
) -> None:
    shown = {}
    for widget in dashboard():
        for metric in widget["metrics"]:
            if metric[0] == "EcsBridge":
                shown[metric[1]] = {name for name in metric[2::2] if isinstance(name, str)}
            elif isinstance(metric[0], dict):
                search = re.search(r"\{EcsBridge,([\w,]+)\} MetricName=\"(\w+)\"", metric[0]["expression"])
                assert search
                shown[search[2]] = set(search[1].split(","))
    assert shown == {name: dimensions for name, (_, dimensions) in described.items()}


def test_each_alarm_has_a_chapter_in_the_runbook_and_each_chapter_an_alarm() -> None:
    names = {alarm["AlarmName"]["Fn::Sub"].removeprefix("${Deployment}-") for alarm in ALARMS}
    assert names == set(re.findall(r"^### ([a-z-]+)$", OPERATING, re.MULTILINE))


def test_each_alarm_reaches_the_topic() -> None:
    for alarm in ALARMS:
        assert alarm["AlarmActions"]["Fn::If"][:2] == ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}]]
