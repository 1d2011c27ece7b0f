#!/usr/bin/env python3
"""Takes the screenshots of the Airflow UI plugin again: `make screenshots`.

Runs a whole Airflow on the local stack, with commands that run, wait and fail, and looks at it in a headless Chromium.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / each) for each in ("tests/lib", "tests/airflow", "examples/airflow")]

from browser import chromium, find
from local_airflow import Airflow
from stacks import CREDENTIALS

from local_stack import LocalStack

PAGE = {"width": 1360, "height": 1760}
TAB = {"width": 1360, "height": 800}


def run_task(**more: object) -> dict[str, object]:
    """RunTask parameters of a profile."""
    subnets = {"subnets": ["subnet-0123456789abcdef0"]}
    return {"taskDefinition": "demo", "networkConfiguration": {"awsvpcConfiguration": subnets}, **more}


PROFILES = {
    "default": {"container_name": "main", "run_task": run_task(launchType="FARGATE")},
    "etl": {"container_name": "main", "run_task": run_task(launchType="FARGATE")},
    "quick": {
        "container_name": "main",
        "run_task": {**run_task(launchType="FARGATE"), "taskDefinition": "demo-pool"},
        "pool": {"max": 4, "min_idle": 2, "poll_interval_ms": 200, "commands_per_container": 100},
    },
    "spot": {
        "container_name": "main",
        "run_task": run_task(capacityProviderStrategy=[{"capacityProvider": "FARGATE_SPOT", "weight": 1}]),
    },
    "typo": {"container_name": "main", "run_task": {**run_task(launchType="FARGATE"), "taskDefinition": "demmo"}},
}


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "img")
    parser.add_argument("--stay", action="store_true", help="keep it all running until Ctrl-C")
    arguments = parser.parse_args()
    program = find() or sys.exit("there is no chromium on PATH")
    with tempfile.TemporaryDirectory() as folder, local_stack(Path(folder)) as stack:
        airflow = Airflow(Path(folder) / "airflow", ROOT / "docs" / "site" / "dags", environment=bridge(stack))
        with airflow, airflow.scheduler({}):
            run = fill(airflow, stack)
            take(airflow, program, run, arguments.to)
            if arguments.stay:
                print(airflow.url, flush=True)
                airflow.watch()


def local_stack(folder: Path) -> LocalStack:
    """Make the stack, on which Spot has no capacity."""
    return LocalStack(folder / "stack", {"no-capacity": "FARGATE_SPOT"}, profiles=PROFILES)


def bridge(stack: LocalStack) -> dict[str, str]:
    """Return what makes Airflow use it."""
    section = "AIRFLOW__ECS_BRIDGE_EXECUTOR__"
    return {
        f"{section}SUBMIT_URL": stack.ready["submit_url"],
        f"{section}TABLE": stack.ready["table"],
        f"{section}DEPLOYMENT": stack.ready["deployment"],
        "AIRFLOW_CONN_AWS_DEFAULT": CREDENTIALS.format(region=stack.ready["region"]),
        "AWS_ENDPOINT_URL_DYNAMODB": stack.ready["dynamodb_url"],
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def fill(airflow: Airflow, stack: LocalStack) -> str:
    """Let commands run for a few minutes; return the run with those that still do."""
    for _ in range(14):
        airflow.trigger("orders")
        time.sleep(9)
    run = airflow.trigger("reports")

    def is_as_it_should_be() -> bool:
        states = [row["state"] for row in stack.rows() if row.get("labels", {}).get("dag_id") == "reports"]
        return states.count("running") >= 8 and sum(state in ("failed", "rejected") for state in states) >= 3

    airflow.until("commands run and have failed", is_as_it_should_be, 300)
    return run


def take(airflow: Airflow, program: str, run: str, folder: Path) -> None:
    """Look at the page and the tab."""
    for theme in ("light", "dark"):
        with chromium(program, viewport=PAGE, color_scheme=theme, locale="en-US") as browser:
            page = browser.new_page()
            page.goto(f"{airflow.url}/plugin/ecs-bridge")
            frame = page.frame_locator("iframe")
            frame.locator("#content").wait_for(timeout=60_000)
            frame.locator(".uplot").first.wait_for(timeout=60_000)
            page.wait_for_timeout(1_000)
            page.screenshot(path=folder / f"page-{theme}.png")
            if theme == "light":
                page.set_viewport_size(TAB)
                page.goto(f"{airflow.url}/dags/reports/runs/{run}/tasks/publish/plugin/ecs-bridge-task")
                page.frame_locator("iframe").locator(".card").first.wait_for(timeout=60_000)
                page.wait_for_timeout(1_000)
                page.screenshot(path=folder / "page-task-instance.png")


if __name__ == "__main__":
    main()
