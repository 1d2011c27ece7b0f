"""Prices in the documentation are those of one table, which is current; the benches hold their targets by it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import cost_table
import fargate_costs
import prices
import pytest
from report import Report
from stacks import ROOT


@pytest.mark.parametrize("guide", cost_table.GUIDES, ids=lambda guide: guide.name)
def test_cost_tables_are_current(guide: Path) -> None:
    assert cost_table.written(guide) == guide.read_text()


def test_prices_are_only_in_the_cost_tables() -> None:
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        # docs/cli.md is generated from the CLI's help, which states the price of a run of `verify-aws`.
        if path.name == "cli.md":
            continue
        text = path.read_text()
        if path in cost_table.GUIDES:
            before, rest = text.split(cost_table.BEGIN)
            text = before + rest.split(cost_table.END)[1]
        # '$1' is a shell's argument.
        assert not re.findall(r"(?<!')\$\d[\d.,]*", text), path


def test_million_tasks_cost_at_most_ten_dollars() -> None:
    """Ten dollars, and less than either way of Step Functions."""
    measured = cost_table.json.loads((ROOT / "benches/measured.json").read_text())
    task = prices.Task(**measured["task"]).total()
    assert task * 1e6 <= 10
    assert prices.hour(measured["check_write_units"]) * 1e6 <= 10
    assert prices.idle_day(**measured["idle"]) <= 0.10
    assert task < prices.run_task_sync() < prices.polled(300)
    assert math.isclose(prices.run_task_sync() * 1e6, 75)


def test_idle_airflow_on_fargate_is_cheapest() -> None:
    month = fargate_costs.idle()
    assert month["this"] < month["Celery"] < month["MWAA"]
    assert fargate_costs.sizes().keys() == {*fargate_costs.SERVICES, "task"}


def test_pool_is_cheaper_for_short_tasks() -> None:
    assert fargate_costs.thousand(5)["pool"] < fargate_costs.thousand(5)["own"] / 5


@pytest.mark.parametrize(
    ("instructions", "met"), [(1.68, True), (1.76, True), (1.84, True), (1.66, False), (1.86, False)]
)
def test_instruction_counts_may_differ_by_5_percent(instructions: float, met: bool) -> None:
    report = Report()
    report.add("task-state", "instructions per event", instructions, "million", within=(1.76, 0.05))
    assert bool(report.missed()) is not met
