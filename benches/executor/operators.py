"""EcsBridgeOperator beside EcsRunTaskOperator (deferrable), in one run on one machine, in real triggerers.

    .venv-airflow-bench/bin/python benches/executor/operators.py [--quick] [--tasks N] [--seconds N]

For each kind a database of Airflow has so many deferred task instances, as a worker, or for EcsBridgeOperator the
scheduler, leaves them, and `airflow triggerer` runs their triggers. AWS is a stub that counts the calls, and each call
takes 30 ms. Two minutes are measured in which nothing ends: the calls at the wire, and the CPU of all the triggerer's
processes. A triggerer without triggers shows what Airflow's own part is.

Submissions: EcsBridgeOperator's triggers submit, from the first call until the bridge has all. EcsRunTaskOperator's
``execute`` submits, one task after the other in one process, up to where it defers; what a worker of its own costs each
of them besides is not counted. Prints a table, and with JSON=1 one JSON object a line. Ends with 1 if a target is
missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import FAKE_BRIDGE, HERE, environment, stub

AIRFLOW = Path(sys.executable).parent / "airflow"
KINDS = {"bridge": FAKE_BRIDGE, "peer": HERE / "ecs_stub.py", "null": FAKE_BRIDGE}
MOST_CALLS = 80
"""Of the bridge's triggerer a minute: a Query a second, one in 20 s that reads further back, lookups by id."""
MOST_LANDING = 2.0
"""Seconds from the record of an end to the event of its trigger."""
MOST_QUERIES = 1.2
"""Of the feed, a second."""
TICK = os.sysconf("SC_CLK_TCK")


def prepare(kind: str, tasks: int, endpoint: str) -> None:
    """Write deferred task instances and their triggers into Airflow's database; the peer's tasks are launched first."""
    from airflow.models import DagModel, DagRun, Trigger
    from airflow.models.dag_version import DagVersion
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.taskinstance import TaskInstance, uuid7
    from airflow.utils import timezone
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState, TaskInstanceState
    from airflow.utils.types import DagRunType

    now = timezone.utcnow()
    with create_session() as session:
        session.add(DagBundleModel(name="bench"))
        session.flush()
        session.add(DagModel(dag_id="bench", bundle_name="bench", fileloc="bench.py"))
        session.flush()
        version = DagVersion(dag_id="bench", version_number=1, bundle_name="bench")
        run = DagRun(dag_id="bench", run_id="r", run_type=DagRunType.MANUAL, state=DagRunState.RUNNING, run_after=now)
        session.add_all([version, run])
        session.flush()
        triggers = [Trigger.from_object(trigger(kind, endpoint)) for _ in range(tasks)]
        session.add_all(triggers)
        session.flush()
        common = {"dag_id": "bench", "run_id": "r", "map_index": -1, "try_number": 1, "max_tries": 0}
        common |= {"pool": "default_pool", "pool_slots": 1, "queue": "default", "priority_weight": 1, "hostname": ""}
        common |= {"state": TaskInstanceState.DEFERRED, "dag_version_id": version.id, "executor_config": {}}
        rows = [
            {**common, "id": uuid7(), "task_id": f"extract_and_load_{number:06d}", "trigger_id": each.id}
            for number, each in enumerate(triggers)
        ]
        session.execute(TaskInstance.__table__.insert(), rows)


def trigger(kind: str, endpoint: str) -> Any:
    """Return the trigger of one task."""
    if kind == "bridge":
        from airflow_ecs_bridge.triggers import EcsBridgeTrigger

        return EcsBridgeTrigger(["python", "load.py", "--day", "2026-11-21"], ends_task=True)
    from airflow.providers.amazon.aws.triggers.ecs import TaskDoneTrigger

    arn = run_task(endpoint)
    # As the operator makes it by default.
    return TaskDoneTrigger(
        cluster="airflow",
        task_arn=arn,
        waiter_delay=6,
        waiter_max_attempts=1_000_000,
        aws_conn_id=None,
        region_name=REGION,
    )


REGION = "us-east-1"


def run_task(endpoint: str) -> str:
    """Launch a task of the stub's."""
    body = json.dumps({"overrides": {"containerOverrides": [{"name": "main"}]}}).encode()
    request = urllib.request.Request(endpoint, body, {"X-Amz-Target": "ECS.RunTask"})
    return str(json.load(urllib.request.urlopen(request))["tasks"][0]["taskArn"])


def execute(tasks: int) -> None:
    """Submit as workers of EcsRunTaskOperator do, one after the other; print how many a second."""
    from airflow.exceptions import TaskDeferred
    from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator

    class Ti:
        def xcom_push(self, **_: Any) -> None:
            pass

    def once(number: int) -> None:
        operator = EcsRunTaskOperator(
            task_id=f"load_{number}",
            cluster="airflow",
            task_definition="load",
            launch_type="FARGATE",
            overrides={"containerOverrides": [{"name": "main", "command": ["python", "load.py"]}]},
            network_configuration={"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}},
            aws_conn_id=None,
            region_name=REGION,
            deferrable=True,
        )
        with contextlib.suppress(TaskDeferred):
            operator.execute({"ti": Ti()})  # type: ignore[arg-type]

    once(0)  # imports
    began = time.monotonic()
    for number in range(tasks):
        once(number)
    print(json.dumps({"rate": tasks / (time.monotonic() - began)}), flush=True)


async def land(tasks: int, ends: int, endpoint: str) -> dict[str, float]:
    """Let so many triggers wait in one loop, and end some of them; return the seconds from the record to the event."""
    from airflow_ecs_bridge.triggers import EcsBridgeTrigger

    landed: list[float] = []

    async def one(number: int) -> None:
        await anext(EcsBridgeTrigger(["true"], submission_id=f"op-{number}", ends_task=True).run())
        landed.append(time.monotonic())

    waiting = [asyncio.create_task(one(number)) for number in range(tasks)]
    ask = lambda command: asyncio.to_thread(control, endpoint, command)  # noqa: E731
    while (await ask("counts"))["records"] < tasks:
        await asyncio.sleep(0.2)
    await ask("start")
    # The first lookups, of what may still wait, are over.
    while (await ask("counts"))["calls"].get("BatchGetItem", 0) < tasks / 100:
        await asyncio.sleep(0.2)
    ended, before, began = [], (await ask("counts"))["calls"]["Query"], time.monotonic()
    for _ in range(ends):
        ended.append(time.monotonic())
        await ask("finish?count=1")
        await asyncio.sleep(0.1)
    while len(landed) < ends:
        await asyncio.sleep(0.05)
    queries, took = (await ask("counts"))["calls"]["Query"] - before, time.monotonic() - began
    for each in waiting:
        each.cancel()
    # They end in the order in which they were ended, give or take those of one poll.
    seconds = sorted(after - at for after, at in zip(sorted(landed), ended, strict=True))
    return {"landing": statistics.median(seconds), "most": seconds[-1], "queries": queries / took}


def control(endpoint: str, command: str) -> dict[str, Any]:
    """Ask a stub for something; returns its counts."""
    request = urllib.request.Request(f"{endpoint}/_control/{command}", method="POST")
    answer: dict[str, Any] = json.load(urllib.request.urlopen(request))
    return answer


def until(what: str, look: Any, seconds: float) -> Any:
    """Return the first truthy answer."""
    give_up = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < give_up, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
    return seen


@contextlib.contextmanager
def triggerer(settings: dict[str, str], capacity: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a triggerer, in a session of its own."""
    command = [str(AIRFLOW), "triggerer", "--capacity", str(capacity), "--skip-serve-logs"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=settings, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        # All triggers wait for nothing: it has nothing to lose.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def usage(session: int) -> tuple[float, float]:
    """Return the seconds of CPU and the MiB of memory of all processes of a session."""
    seconds = memory = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            # After the name, which may have spaces: state, ppid, pgrp, session, … utime, stime.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                seconds += (int(fields[11]) + int(fields[12])) / TICK
                memory += int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return seconds, memory


def measure(kind: str, tasks: int, seconds: float, latency: float) -> dict[str, float]:
    """Measure a triggerer with so many triggers."""
    with tempfile.TemporaryDirectory(prefix="airflow-bench-") as home, stub(KINDS[kind]) as endpoint:
        settings = environment(home, "null", endpoint) | {"AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO"}
        subprocess.run([AIRFLOW, "db", "migrate"], env=settings, stdout=subprocess.DEVNULL, check=True)
        if tasks:
            call(settings, "--prepare", kind, "--tasks", str(tasks), "--endpoint", endpoint)
        control(endpoint, f"latency?ms={latency:g}")
        control(endpoint, "reset")
        counts = lambda: control(endpoint, "counts")  # noqa: E731
        log = Path(home) / "triggerer.log"
        with triggerer(settings, 2 * tasks or 1, log) as process:
            found: dict[str, float] = {}
            if kind == "bridge":
                until("a submission", lambda: counts()["records"], 180)
                began = time.monotonic()
                until("all submissions", lambda: counts()["records"] == tasks, 300)
                found["rate"] = tasks / (time.monotonic() - began)
                control(endpoint, "start")
                # Each that has not ended after a while is looked up, to see whether it waits.
                until("first lookups", lambda: counts()["calls"].get("BatchGetItem", 0) >= tasks / 100, 120)
            elif kind == "null":
                until("its first report", lambda: b"triggers currently running" in log.read_bytes(), 180)
            else:
                until("all waited for", lambda: counts()["described"] == tasks, 1800)
            control(endpoint, "reset")
            began, (cpu, _) = time.monotonic(), usage(process.pid)
            time.sleep(seconds)
            took, (cpu_after, memory) = time.monotonic() - began, usage(process.pid)
            assert process.poll() is None, "the triggerer has ended"
            calls = sum(counts()["calls"].values())
        return {**found, "calls": calls * 60 / took, "cpu": (cpu_after - cpu) * 60 / took, "memory": memory}


def call(settings: dict[str, str], *arguments: str) -> str:
    """Run a part of this script under Airflow's configuration; return what it prints."""
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, env=settings, stdout=subprocess.PIPE, text=True, check=True).stdout


def answer(settings: dict[str, str], *arguments: str) -> dict[str, float]:
    """Run a part of this script; return the object that it prints last."""
    answer: dict[str, float] = json.loads(call(settings, *arguments).splitlines()[-1])
    return answer


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a hundred tasks, half a minute")
    parser.add_argument("--tasks", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--latency-ms", type=float, default=30)
    parser.add_argument("--prepare", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--execute", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--land", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--endpoint", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    tasks = arguments.tasks or (100 if arguments.quick else 1000)
    if arguments.prepare:
        prepare(arguments.prepare, tasks, arguments.endpoint)
        return 0
    if arguments.execute:
        execute(arguments.execute)
        return 0
    if arguments.land:
        print(json.dumps(asyncio.run(land(arguments.land, 100, arguments.endpoint))), flush=True)
        return 0
    seconds = arguments.seconds or (30 if arguments.quick else 120)
    ours = measure("bridge", tasks, seconds, arguments.latency_ms)
    peer = measure("peer", tasks, seconds, arguments.latency_ms)
    null = measure("null", 0, seconds / 2, arguments.latency_ms)
    with tempfile.TemporaryDirectory() as home, stub(KINDS["peer"]) as endpoint:
        control(endpoint, f"latency?ms={arguments.latency_ms:g}")
        peer |= answer(environment(home, "null", endpoint), "--execute", "20" if arguments.quick else "100")
    with tempfile.TemporaryDirectory() as home, stub(KINDS["bridge"]) as endpoint:
        control(endpoint, f"latency?ms={arguments.latency_ms:g}")
        settings = environment(home, "null", endpoint)
        ours |= answer(settings, "--land", str(10 * tasks), "--endpoint", endpoint)
    return tell(ours, peer, null, tasks)


def tell(ours: dict[str, float], peer: dict[str, float], null: dict[str, float], tasks: int) -> int:
    """Print the figures; return 1 if a target is missed."""
    waiting = f"{tasks:,} waiting"
    many = f"{10 * tasks:,} waiting"
    rows: list[dict[str, Any]] = [
        both(f"{waiting}: AWS calls a minute", "", "calls", ours, peer, null) | at_most(ours["calls"], MOST_CALLS),
        both(f"{waiting}: CPU of the triggerer a minute", "s", "cpu", ours, peer, null),
        both(f"{waiting}: memory of the triggerer", "MiB", "memory", ours, peer, null),
        both("submissions a second", "/s", "rate", ours, peer, {}) | {"ratio": ours["rate"] / peer["rate"]},
        {"metric": f"{many}: from the record to the event, median", "value": ours["landing"], "unit": "s"},
        {"metric": f"{many}: the same, most", "value": ours["most"], "unit": "s"} | at_most(ours["most"], MOST_LANDING),
        {"metric": f"{many}: queries of the feed a second", "value": ours["queries"], "unit": "/s"}
        | at_most(ours["queries"], MOST_QUERIES),
    ]
    for row in rows:
        if os.environ.get("JSON"):
            print(json.dumps({"bench": "operator", **row}), flush=True)
        else:
            beside = f"peer {row['peer']:10.4g}{row['ratio']:8.3g}x" if "peer" in row else ""
            idle = f"  null {row['null']:.3g}" if "null" in row else ""
            print(f"{row['metric']:50}{row['value']:10.4g} {row['unit']:4}{beside}{idle}")
    missed = [f"{row['metric']}: {row['value']:.3g}, to be {row['target']}" for row in rows if row.get("met") is False]
    for each in missed:
        print(f"missed: {each}", file=sys.stderr)
    return 1 if missed else 0


def both(
    metric: str, unit: str, name: str, ours: dict[str, float], peer: dict[str, float], null: dict[str, float]
) -> dict[str, Any]:
    """Return the row of a figure of both."""
    row = {"metric": metric, "value": ours[name], "unit": unit, "peer": peer[name], "ratio": peer[name] / ours[name]}
    return row | ({"null": null[name]} if name in null else {})


def at_most(value: float, most: float) -> dict[str, Any]:
    """Return what a row has of its target."""
    return {"target": f"≤ {most:g}", "met": value <= most}


if __name__ == "__main__":
    sys.exit(main())
