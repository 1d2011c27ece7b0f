"""The tables of costs of docs/airflow-on-fargate.md, which cost_table.py writes: sizes are those of the template."""

from __future__ import annotations

import json
import re
from pathlib import Path

import prices

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = ROOT / "infra/airflow-on-fargate/template.yaml"
MEASURED = ROOT / "benches/measured.json"
SERVICES = ("scheduler", "api-server", "dag-processor", "triggerer")
# A Celery worker beside the same services: a container of 1 vCPU and 2 GB with four processes, which polls a queue.
CELERY_WORKER, CELERY_SLOTS = (1.0, 2.0), 4
# Fargate bills from the pull of the image on, and a minute at least.
START_SECONDS, LEAST_SECONDS = 30, 60
DATABASE_GB = 20


def money(dollars: float) -> str:
    return f"${dollars:,.2f}"


def sizes() -> dict[str, tuple[float, float]]:
    """vCPUs and gigabytes of each task definition, by its family."""
    found = re.findall(
        r'Family: !Sub "\$\{Name\}-([a-z-]+)".*?Cpu: "(\d+)"\s+Memory: "(\d+)"', TEMPLATE.read_text(), re.DOTALL
    )
    return {family: (int(cpu) / 1024, int(memory) / 1024) for family, cpu, memory in found}


def rest() -> dict[str, float]:
    """What a month costs besides the services."""
    text = TEMPLATE.read_text()
    (database,) = re.findall(r"DatabaseClass:\n    Type: String\n    Default: (\S+)", text)
    hours = prices.HOURS_OF_A_MONTH
    secrets = text.count("Type: AWS::SecretsManager::Secret\n")
    measured = json.loads(MEASURED.read_text())
    return {
        f"database, {database} with {DATABASE_GB} GB": prices.DATABASE_HOUR[database] * hours
        + DATABASE_GB * prices.DATABASE_GB_MONTH,
        "load balancer, with two addresses": (prices.LOAD_BALANCER_HOUR + 2 * prices.PUBLIC_IPV4_HOUR) * hours,
        f"{secrets} secrets, a private DNS zone": secrets * prices.SECRET_MONTH + prices.HOSTED_ZONE_MONTH,
        "the bridge": prices.idle_day(**measured["idle"]) * prices.DAYS_OF_A_MONTH,
    }


def services() -> dict[str, float]:
    return {name: prices.container_hour(*sizes()[name]) * prices.HOURS_OF_A_MONTH for name in SERVICES}


def idle() -> dict[str, float]:
    """A month without tasks, of this and of what it is compared with."""
    ours = sum(services().values()) + sum(rest().values())
    # Long polling, 20 seconds each.
    polls = 30.4 * 24 * 3600 / 20 * prices.SQS_REQUEST
    bridge = rest()["the bridge"]
    return {
        "this": ours,
        "Celery": ours - bridge + prices.container_hour(*CELERY_WORKER) * prices.HOURS_OF_A_MONTH + polls,
        "MWAA": prices.MWAA_SMALL_HOUR * prices.HOURS_OF_A_MONTH + 10 * prices.MWAA_GB_MONTH,
    }


def thousand(seconds: float) -> dict[str, float]:
    """A thousand tasks of so many seconds, beside what an idle month costs."""
    measured = json.loads(MEASURED.read_text())
    hour = prices.container_hour(*sizes()["task"])
    hours = 1000 * seconds / 3600
    return {
        "own": 1000
        * (max(seconds + START_SECONDS, LEAST_SECONDS) / 3600 * hour + prices.Task(**measured["task"]).total()),
        "pool": hours * hour + measured["pool"]["dollars_a_million"]["50"] / 1000,
        "Celery": hours / CELERY_SLOTS * prices.container_hour(*CELERY_WORKER) + 1000 * 3 * prices.SQS_REQUEST,
        "MWAA": hours / prices.MWAA_SMALL_WORKER_TASKS * prices.MWAA_SMALL_WORKER_HOUR,
    }


def size(vcpu: float, gigabytes: float) -> str:
    return f"{vcpu:g} vCPU, {gigabytes:g} GB"


def table() -> str:
    month = idle()
    lines = ["| a month without tasks | size | |", "|---|---|---|"]
    lines += [f"| {name} | {size(*sizes()[name])} | {money(each)} |" for name, each in services().items()]
    lines += [f"| {name} | | {money(each)} |" for name, each in rest().items()]
    lines += [
        f"| **in all** | | **{money(month['this'])}** |",
        f"| instead: Celery on Fargate, one worker and SQS | {size(*CELERY_WORKER)} more | {money(month['Celery'])} |",
        f"| instead: MWAA, mw1.small | one worker of {prices.MWAA_SMALL_WORKER_TASKS} tasks is included "
        f"| {money(month['MWAA'])} |",
        "",
        f"| a thousand tasks, {size(*sizes()['task'])} | of 5 seconds | of a minute | of 10 minutes |",
        "|---|---|---|---|",
    ]
    names = {
        "own": "in containers of their own",
        "pool": "on the pool, while it is busy",
        "Celery": f"instead: on Celery workers of {CELERY_SLOTS} tasks",
        "MWAA": f"instead: on further workers of MWAA, of {prices.MWAA_SMALL_WORKER_TASKS} tasks",
    }
    figures = [thousand(seconds) for seconds in (5, 60, 600)]
    lines += [f"| {name} | {' | '.join(money(each[key]) for each in figures)} |" for key, name in names.items()]
    return "\n".join(lines) + "\n"
