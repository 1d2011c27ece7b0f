"""Functions, alarms, dashboard and runbook use the same metrics."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from stacks import ROOT, template
from walk import Recording

from documents import DOCS, code, headings, section, table_rows

OPERATING = DOCS / "operating.md"
RESOURCES = template()["Resources"]
ALARMS = [resource["Properties"] for resource in RESOURCES.values() if resource["Type"] == "AWS::CloudWatch::Alarm"]
UNITS = {"count": {None, "Count"}, "seconds": {"Seconds"}}


@pytest.fixture(scope="module")
def described() -> dict[str, tuple[str, set[str]]]:
    """Unit and dimensions of each metric in the table of docs/operating.md."""
    rows = [row for row in table_rows(section(OPERATING, "## Metrics")) if row[1] in UNITS]
    return {code(name)[0]: (unit, {"Deployment", *code(dimension)}) for name, unit, dimension, *_ in rows}


def dashboard() -> list[dict[str, Any]]:
    body, _ = RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    return [widget["properties"] for widget in json.loads(body)["widgets"]]


def test_written_metrics_are_the_documented_ones(
    recording: Recording, described: dict[str, tuple[str, set[str]]]
) -> None:
    written = {}
    for line in recording.log():
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", []):
            assert directive["Namespace"] == "EcsBridge"
            (dimensions,) = directive["Dimensions"]
            for metric in directive["Metrics"]:
                assert metric["Name"] in line
                assert metric.get("Unit") in UNITS[described[metric["Name"]][0]]
                written[metric["Name"]] = set(dimensions)
    expected = {name: dimensions for name, (_, dimensions) in described.items()}
    assert expected == written


def watched() -> list[dict[str, Any]]:
    """Every metric of our own that an alarm watches, alone or by metric math."""
    queries = [query["MetricStat"]["Metric"] for a in ALARMS for query in a.get("Metrics", []) if "MetricStat" in query]
    return [metric for metric in ALARMS + queries if metric.get("Namespace") == "EcsBridge"]


def test_alarms_use_the_dimensions_of_their_metrics(described: dict[str, tuple[str, set[str]]]) -> None:
    assert watched()
    for metric in watched():
        assert {dimension["Name"] for dimension in metric["Dimensions"]} == described[metric["MetricName"]][1]


def test_alarm_dimensions_have_values_that_functions_write() -> None:
    """A misspelt state or kind would be an alarm that never fires."""
    sources = "".join(path.read_text() for path in ROOT.glob("shared/*/src/*.rs"))
    for metric in watched():
        for dimension in metric["Dimensions"]:
            if dimension["Name"] != "Deployment":
                assert f'"{dimension["Value"]}"' in sources, dimension


def test_dashboard_shows_every_metric(
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


def test_each_alarm_has_a_runbook_section() -> None:
    names = {alarm["AlarmName"]["Fn::Sub"].removeprefix("${Deployment}-") for alarm in ALARMS}
    assert names == {each for each in headings(OPERATING, 3) if re.fullmatch("[a-z0-9-]+", each)}


def test_each_alarm_reaches_the_topic() -> None:
    for alarm in ALARMS:
        assert alarm["AlarmActions"]["Fn::If"][:2] == ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}]]


def test_saved_queries_use_fields_that_functions_write(recording: Recording) -> None:
    lines = list(recording.log())
    written = {f"fields.{name}" for line in lines for name in line.get("fields", {})} | {
        n for line in lines for n in line
    }
    queries = [r["Properties"]["QueryString"] for r in RESOURCES.values() if r["Type"] == "AWS::Logs::QueryDefinition"]
    assert queries
    for query in queries:
        # Names with an @ are CloudWatch's own.
        asked = set(re.findall(r"fields\.\w+", query)) | set(re.findall(r"(?<=filter )\w+", query)) - {"fields"}
        assert asked <= written, query
