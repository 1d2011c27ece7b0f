"""Writes the tables of costs into docs/deploying.md and docs/airflow-on-fargate.md, between their markers.

The documentation has no other prices.

    python3 benches/cost_table.py [--check]

It multiplies the last counts of the benches `cost` and `pool` (benches/measured.json) by AWS's list prices
(benches/prices.py), and counts the alarms and metrics of template.yaml and docs/operating.md. With --check it only says
whether the tables are current.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import fargate_costs
import prices

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs/deploying.md"
BEGIN, END = "<!-- costs: written by benches/cost_table.py -->\n", "<!-- costs: end -->\n"
MILLION = 1e6


def money(dollars: float) -> str:
    return f"${dollars:,.0f}" if dollars >= 100 else f"${dollars:.2f}"


def alarm_metrics(template: str) -> int:
    """Metrics that alarms watch. Each alarm names its own, or those of its metric math."""
    section = template[template.index("  # --- Alarms ---") : template.index("  Dashboard:\n")]
    return len(re.findall(r"^ +MetricName:", section, re.MULTILINE))


def table() -> str:
    measured = json.loads((ROOT / "benches/measured.json").read_text())
    task = prices.Task(**measured["task"])
    hour = prices.hour(measured["check_write_units"])
    idle = prices.idle_day(**measured["idle"]) * prices.DAYS_OF_A_MONTH
    pool = measured["pool"]
    template = (ROOT / "template.yaml").read_text()
    alarms = alarm_metrics(template)
    megabytes = re.search(r"^  ReconcileMemory:\n    Type: Number\n    Default: (\d+)", template, re.MULTILINE)
    assert megabytes
    busy = prices.DAYS_OF_A_MONTH * 24 * 60 * 55 * int(megabytes[1]) / 1024 * prices.GB_SECOND
    metrics = re.findall(
        r"^\| `\w+` \| (?:count|seconds) \| (`\w+`)?", (ROOT / "docs/operating.md").read_text(), re.MULTILINE
    )
    plain = sum(not dimension for dimension in metrics)
    units = {
        "DynamoDB, writes": f"{task.write_units:g} units each, indexes included",
        "DynamoDB, reads": f"{task.read_units:g} units each, and {task.feed_units:.1f} for the executor's feed",
        "Lambda, invocations": f"{task.invocations:g} each",
        "Lambda, time": f"{task.gb_seconds:g} GB-seconds each",
        "CloudWatch Logs": f"{task.log_bytes:,} bytes each",
    }
    lines = ["| a million tasks of under ten minutes | use | |", "|---|---|---|"]
    lines += [f"| {name} | {units[name]} | {money(each * MILLION)} |" for name, each in task.dollars().items()]
    lines += [
        f"| **in all** | | **{money(task.total() * MILLION)}** |",
        f"| records kept and backed up for a month | 1 KB each "
        f"| {money(prices.STORED_GB_MONTH + prices.BACKUP_GB_MONTH)} |",
        f"| a further hour of each | {prices.CHECKS_AN_HOUR} checks | {money(hour * MILLION)} |",
        *(
            f"| a million commands on a pool, {count} per container, without the containers "
            f"| {units:g} write units each | {money(pool['dollars_a_million'][count])} |"
            for count, units in pool["write_units"].items()
        ),
        f"| instead: `ecs:runTask.sync` of Step Functions | 3 transitions each "
        f"| {money(prices.run_task_sync() * MILLION)} |",
        f"| instead: polling by Step Functions, tasks of 5 minutes | a look each 30 s "
        f"| {money(prices.polled(300) * MILLION)} |",
        "",
        "| a month without submissions | use | |",
        "|---|---|---|",
        f"| reconcile each minute, the executor's feed each second | | {money(idle)} |",
        f"| where something is always due: reconcile runs on | 55 s of each minute | {money(busy)} |",
        f"| an idle runner of a pool, without its container | it waits for its doorbell "
        f"| {money(pool['idle_runner_dollars_a_day'] * prices.DAYS_OF_A_MONTH)} |",
        f"| alarms | {alarms} metrics watched | {money(alarms * prices.ALARM_METRIC_MONTH)} |",
        f"| custom metrics | {plain}, and one for each state, reason and kind seen "
        f"| {money(plain * prices.METRIC_MONTH)} and more |",
        f"| dashboard | the first three of an account are free | {money(0)} or {money(prices.DASHBOARD_MONTH)} |",
        f"| a customer managed key | optional | {money(prices.KEY_MONTH)} |",
    ]
    return "\n".join(lines) + "\n"


# Each guide, and what writes its table.
GUIDES = {GUIDE: table, ROOT / "docs/airflow-on-fargate.md": fargate_costs.table}


def written(guide: Path) -> str:
    """The guide with the table as it should be."""
    before, rest = guide.read_text().split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + GUIDES[guide]() + END + after


def main() -> int:
    stale = [guide for guide in GUIDES if written(guide) != guide.read_text()]
    if "--check" in sys.argv:
        for guide in stale:
            print(f"{guide.relative_to(ROOT)} has other costs: run benches/cost_table.py", file=sys.stderr)
        return 1 if stale else 0
    for guide in stale:
        guide.write_text(written(guide))
    return 0


if __name__ == "__main__":
    sys.exit(main())
