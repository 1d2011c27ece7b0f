"""EcsBridgeExecutor beside AwsEcsExecutor, in one run on one machine: what each costs the scheduler's thread.

    .venv-airflow/bin/python benches/executor/bench.py [--quick] [--peer-submit N] [--peer-in-flight N,N]

Every call to AWS takes 30 ms (``--latency-ms``). The bridge's side is the fake bridge of the tests, ECS's a stub; each
is a process of its own, so that it takes no part in the executor's time. A third executor that does nothing shows
what Airflow's own part of a heartbeat is. Prints a table, and with JSON=1 one JSON object a line. Ends with 1 if
a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FAKE_BRIDGE = HERE.parents[1] / "tests" / "airflow" / "fake_bridge.py"
PEER = "airflow.providers.amazon.aws.executors.ecs.ecs_executor:AwsEcsExecutor"
OURS = "airflow_ecs_bridge.executor:EcsBridgeExecutor"

# What is to be reached, in seconds of the scheduler's thread, and in calls a heartbeat.
TARGETS = {
    "idle heartbeat, 10,000 in flight": 0.001,
    "submit 1,000": 0.050,
    "heartbeat, 2,000 a second": 0.005,
    "landing": 1.5,
    "landing, 1,000 in 10 s": 1.5,
    "landing, 1,000 in 10 s, 99 of 100": 1.5,
}
MOST_CALLS = 1.2  # a Query; every 20 s another one that reads further back; lookups by id


@contextlib.contextmanager
def stub(script: Path) -> Iterator[str]:
    """Run a stub of AWS; give its URL."""
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def environment(home: str, executor: str, endpoint: str) -> dict[str, str]:
    """Return an environment that holds the executor's whole configuration."""
    class_path = executor.replace(":", ".") if ":" in executor else "LocalExecutor"
    return {
        "PATH": os.environ["PATH"],
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__EXECUTOR": class_path,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__API_AUTH__JWT_SECRET": "only for this bench, but long enough for HS512 " * 3,
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AIRFLOW__ECS_BRIDGE_EXECUTOR__SUBMIT_URL": endpoint,
        "AIRFLOW__ECS_BRIDGE_EXECUTOR__TABLE": "bridge",
        "AIRFLOW__ECS_BRIDGE_EXECUTOR__DEPLOYMENT": "test",
        "AIRFLOW__ECS_BRIDGE_EXECUTOR__AWS_CONN_ID": "",
        "AIRFLOW__AWS_ECS_EXECUTOR__CONN_ID": "",
        "AIRFLOW__AWS_ECS_EXECUTOR__REGION_NAME": "us-east-1",
        "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": "airflow",
        "AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME": "worker",
        "AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "airflow",
        "AIRFLOW__AWS_ECS_EXECUTOR__LAUNCH_TYPE": "FARGATE",
        "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": "subnet-0123456789abcdef0",
        "AIRFLOW__AWS_ECS_EXECUTOR__SECURITY_GROUPS": "sg-0123456789abcdef0",
        "AIRFLOW__AWS_ECS_EXECUTOR__RUN_TASK_KWARGS": "{}",
    }


def drive(home: str, executor: str, endpoint: str, *arguments: str) -> dict[str, dict[str, Any]]:
    """Measure one executor; return its metrics by name."""
    stub_arguments = ["--stub", endpoint] if endpoint else []
    process = subprocess.run(
        [sys.executable, str(HERE / "drive.py"), executor, *stub_arguments, *arguments],
        env=environment(home, executor, endpoint),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    return {line["metric"]: line for line in lines}


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute instead of five")
    parser.add_argument("--in-flight", default="10,100,1000,5000,10000")
    parser.add_argument("--peer-in-flight", help="where the peer is measured; default: up to 5000, --quick: up to 1000")
    parser.add_argument("--peer-submit", type=int, help="how many the peer submits, scaled to 1,000; 1000 take 34 s")
    parser.add_argument("--latency-ms", type=float, default=30)
    arguments = parser.parse_args()
    peer_in_flight = arguments.peer_in_flight or ("10,100,1000" if arguments.quick else "10,100,1000,5000")
    peer_submit = arguments.peer_submit or (100 if arguments.quick else 1000)
    beats, landings = ("5", "5") if arguments.quick else ("15", "15")
    common = ["--latency-ms", str(arguments.latency_ms), "--beats", beats]
    submit = ["--submit", "1000", "--warm-up", "100"]

    with tempfile.TemporaryDirectory(prefix="airflow-bench-") as home:
        quick_beats = ["--pause", "0.01", "--in-flight", arguments.in_flight]
        null = drive(home, "null", "", *common, *quick_beats) | drive(home, "null", "", *common, *submit)
        with stub(FAKE_BRIDGE) as url:
            ours = drive(home, OURS, url, *common, "--in-flight", arguments.in_flight)
        with stub(FAKE_BRIDGE) as url:
            ours |= drive(home, OURS, url, *common, *submit, "--landings", landings)
        with stub(FAKE_BRIDGE) as url:
            ours |= drive(home, OURS, url, *common, "--rate", "2000", "--memory", "10000")
        with stub(HERE / "ecs_stub.py") as url:
            peer = drive(home, PEER, url, *common, "--pause", "0.1", "--in-flight", peer_in_flight)
        with stub(HERE / "ecs_stub.py") as url:
            peer |= drive(home, PEER, url, *common, "--submit", str(peer_submit), "--rounds", "1")

    (print_json if os.environ.get("JSON") else print_table)(ours, peer, null)
    return judge(ours)


def print_json(ours: dict[str, Any], peer: dict[str, Any], null: dict[str, Any]) -> None:
    """Print one object a line."""
    for name, line in ours.items():
        row = {"bench": "executor", **line}
        if name in TARGETS:
            row |= {"target": f"≤ {TARGETS[name]:g}", "met": line["value"] <= TARGETS[name]}
        if name in peer:
            row |= {"peer": peer[name]["value"], "ratio": peer[name]["value"] / line["value"]}
        if name in null:
            row["null"] = null[name]["value"]
        print(json.dumps(row), flush=True)
        if "calls" in line:
            calls = {"bench": "executor", "metric": f"{name}, AWS calls each", "value": line["calls"], "unit": ""}
            calls |= {"target": f"≤ {MOST_CALLS:g}", "met": line["calls"] <= MOST_CALLS}
            if name in peer:
                calls["peer"] = peer[name]["calls"]
            print(json.dumps(calls), flush=True)


def print_table(ours: dict[str, Any], peer: dict[str, Any], null: dict[str, Any]) -> None:
    """Print a table for people."""
    print("Seconds of the scheduler's thread (landing: seconds from the end in the table to the executor's event)\n")
    print(f"{'':38}{'bridge':>12}{'± spread':>12}{'calls':>7}{'AwsEcs':>12}{'calls':>7}{'ratio':>9}{'null':>12}")
    for name, line in ours.items():
        other = peer.get(name)
        print(
            f"{name:38}{line['value']:12.6f}{line['spread']:12.6f}{_calls(line)}"
            + (
                f"{other['value']:12.4f}{_calls(other)}{other['value'] / line['value']:8.0f}x"
                if other
                else f"{'-':>28}"
            )
            + (f"{null[name]['value']:12.6f}" if name in null else "")
        )


def _calls(line: dict[str, Any]) -> str:
    return f"{line['calls']:7.1f}" if "calls" in line else f"{'':7}"


def judge(ours: dict[str, Any]) -> int:
    """Say which targets are missed."""
    missed = [
        f"{name}: {ours[name]['value']:.4f} s, to be below {most} s"
        for name, most in TARGETS.items()
        if name in ours and ours[name]["value"] >= most
    ]
    missed += [
        f"{name}: {line['calls']} AWS calls a heartbeat"
        for name, line in ours.items()
        if line.get("calls", 0) > MOST_CALLS
    ]
    for each in missed:
        print(f"missed: {each}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
