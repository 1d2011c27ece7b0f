"""Drives one executor without a scheduler, and times the scheduler's thread. One JSON object a line on stdout.

Run by bench.py, in a process of its own, with the executor's whole configuration in its environment.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import statistics
import time
import urllib.request
import uuid
from collections import deque
from typing import Any

from airflow.executors import workloads
from airflow.executors.base_executor import BaseExecutor
from airflow.executors.workloads.base import BundleInfo
from airflow.executors.workloads.task import TaskInstanceDTO


class NullExecutor(BaseExecutor):
    """Does nothing: what Airflow's own part of a heartbeat costs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.taken: deque[Any] = deque()

    def _process_workloads(self, workload_items: Any) -> None:
        for workload in workload_items:
            del self.queued_tasks[workload.ti.key]
            self.taken.append(workload)
            self.running.add(workload.ti.key)

    def end(self) -> None:
        """End."""


def resident() -> int:
    """Return the bytes of resident memory."""
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Bench:
    """One executor under measurement."""

    def __init__(self, executor: Any, stub: str | None) -> None:
        self.executor = executor
        self.stub = stub
        self.made = 0

    def control(self, command: str) -> dict[str, Any]:
        """Ask the stub for something; returns its counts."""
        if self.stub is None:
            return {"calls": {}, "records": self.made}
        request = urllib.request.Request(f"{self.stub}/_control/{command}", method="POST")
        return json.loads(urllib.request.urlopen(request).read())

    def workloads(self, count: int) -> list[Any]:
        """Make workloads as the scheduler would, with names of usual length."""
        items = []
        for _ in range(count):
            self.made += 1
            id = uuid.uuid4()
            ti = TaskInstanceDTO(
                id=id,
                dag_version_id=uuid.uuid4(),
                task_id=f"extract_and_load_{self.made:06d}",
                dag_id="customer_orders_daily",
                run_id="scheduled__2026-11-21T00:00:00+00:00",
                try_number=1,
                pool_slots=1,
                priority_weight=1,
                executor_config={},
                external_executor_id=str(uuid.uuid4()),
            )
            items.append(
                workloads.ExecuteTask(
                    ti=ti,
                    dag_rel_path="customer_orders/daily.py",
                    token=workloads.ExecuteTask.generate_token(str(id), self.executor.jwt_generator),
                    log_path=f"dag_id=customer_orders_daily/task_id={ti.task_id}/attempt=1.log",
                    bundle_info=BundleInfo(name="dags-folder"),
                )
            )
        return items

    def heartbeat(self) -> float:
        """Beat once; return the seconds that the scheduler's thread was held."""
        began = time.perf_counter()
        self.executor.heartbeat()
        return time.perf_counter() - began

    def submit(self, count: int) -> float:
        """Submit so many and wait until all are with AWS; return the seconds of the scheduler's thread in all."""
        before = self.control("count")["records"]
        items = self.workloads(count)
        spent = time.perf_counter()
        for item in items:
            self.executor.queue_workload(item, session=None)
        spent = time.perf_counter() - spent
        while True:
            spent += self.heartbeat()
            if self.control("count")["records"] >= before + count:
                return spent
            time.sleep(0.1)

    def hand_over(self, rate: int, seconds: int) -> tuple[list[float], float]:
        """Hand over so many a second, 100 a heartbeat; return the seconds of each heartbeat, and the rate at AWS."""
        before = self.control("count")["records"]
        items = self.workloads(rate * seconds)
        beats: list[float] = []
        began = time.monotonic()
        for place in range(0, len(items), 100):
            time.sleep(max(began + place / rate - time.monotonic(), 0))
            for item in items[place : place + 100]:
                self.executor.queue_workload(item, session=None)
            beats.append(self.heartbeat())
        while self.control("count")["records"] < before + len(items):
            time.sleep(0.02)
        return beats, len(items) / (time.monotonic() - began)

    def memory(self, count: int) -> float:
        """Return the bytes of resident memory that each of so many tasks takes while it is in flight."""
        before = resident()
        self.submit(count)
        self.executor.get_event_buffer()
        return (resident() - before) / count

    def idle(self, beats: int, pause: float) -> tuple[list[float], float]:
        """Beat with nothing to do; return the seconds of each beat, and AWS calls per beat."""
        self.heartbeat()
        self.executor.get_event_buffer()
        self.control("reset")
        seconds: list[float] = []
        for _ in range(beats):
            time.sleep(pause)
            seconds.append(self.heartbeat())
        return seconds, sum(self.control("count")["calls"].values()) / beats

    def finish(self) -> None:
        """End all that is in flight, and take the results."""
        self.control("finish")
        while self.executor.running:
            self.heartbeat()
            time.sleep(0.1)
        self.executor.get_event_buffer()

    def landing(self, samples: int) -> list[float]:
        """Beat once a second; return the seconds from an end in the table to its event in the buffer."""
        results = []
        for n in range(samples):
            self.submit(1)
            # At ever another moment between two heartbeats.
            end_at = time.monotonic() + 1.0 + n * 0.37 % 1.0
            beat_at = time.monotonic()
            ended_at: float | None = None
            while self.executor.running:
                if ended_at is None and time.monotonic() >= end_at:
                    ended_at = time.monotonic()
                    self.control("finish")
                if time.monotonic() >= beat_at:
                    self.heartbeat()
                    beat_at += 1.0
                time.sleep(0.005)
            assert ended_at is not None
            results.append(time.monotonic() - ended_at)
            self.executor.get_event_buffer()
        return results

    def landings_together(self, count: int, seconds: float) -> list[float]:
        """End so many, spread over so many seconds, beating once a second; return what each took, as `landing` does.

        The ends begin after three heartbeats, as a scheduler's are regular before there is much to end.
        """
        self.submit(count)
        results: list[float] = []
        ended: deque[float] = deque()
        # Here, or the objects that the bench has made for this cause a full collection of 0.4 s in between.
        gc.collect()
        beat_at = time.monotonic()
        began = beat_at + 3.0
        while self.executor.running:
            sent = len(results) + len(ended)
            due = min(count, int((time.monotonic() - began) / seconds * count)) - sent
            if due > 0:
                ended.extend([time.monotonic()] * due)
                self.control(f"finish?count={due}")
            if time.monotonic() >= beat_at:
                running = len(self.executor.running)
                self.heartbeat()
                landed = running - len(self.executor.running)
                results += [time.monotonic() - ended.popleft() for _ in range(landed)]
                beat_at += 1.0
            time.sleep(0.005)
        self.executor.get_event_buffer()
        return results


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("executor", help="module:Class, or null")
    parser.add_argument("--stub")
    parser.add_argument("--in-flight", default="")
    parser.add_argument("--beats", type=int, default=10)
    parser.add_argument("--pause", type=float, default=1.0)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--submit", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--landings", type=int, default=0)
    parser.add_argument("--together", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=0, help="submissions a second to hand over for five seconds")
    parser.add_argument("--memory", type=int, default=0, help="tasks in flight whose memory is measured")
    parser.add_argument("--latency-ms", type=float, default=30)
    arguments = parser.parse_args()
    if arguments.executor == "null":
        executor = NullExecutor(parallelism=100_000)
    else:
        module, name = arguments.executor.split(":")
        executor = getattr(importlib.import_module(module), name)(parallelism=100_000)
    executor.job_id = 1
    executor.start()
    bench = Bench(executor, arguments.stub)

    def tell(metric: str, value: float, unit: str, **more: Any) -> None:
        print(json.dumps({"metric": metric, "value": value, "unit": unit, **more}), flush=True)

    def latency(ms: float) -> None:
        bench.control(f"latency?ms={ms:g}")

    latency(0)
    bench.submit(arguments.warm_up)  # imports, connections, caches
    for count in (int(each) for each in arguments.in_flight.split(",") if each):
        latency(0)
        bench.submit(count - len(executor.running))
        latency(arguments.latency_ms)
        seconds, calls = bench.idle(arguments.beats, arguments.pause)
        spread = max(seconds) - min(seconds)
        tell(f"idle heartbeat, {count:,} in flight", statistics.median(seconds), "s", spread=spread, calls=calls)
    latency(arguments.latency_ms)
    if arguments.landings:
        bench.finish()
        landings = bench.landing(arguments.landings)
        tell("landing", statistics.median(landings), "s", spread=max(landings) - min(landings), most=max(landings))
        together = sorted(bench.landings_together(arguments.together, 10.0))
        slow = together[int(len(together) * 0.99) - 1]
        name = f"landing, {arguments.together:,} in 10 s"
        tell(name, statistics.median(together), "s", spread=together[-1] - together[0])
        tell(f"{name}, 99 of 100", slow, "s", most=together[-1])
    if arguments.submit:
        rounds = [bench.submit(arguments.submit) for _ in range(arguments.rounds)]
        each = 1000 / arguments.submit
        spread = (max(rounds) - min(rounds)) * each
        tell("submit 1,000", statistics.median(rounds) * each, "s", spread=spread, measured=arguments.submit)
    if arguments.rate:
        beats, rate = bench.hand_over(arguments.rate, 5)
        name = f"{arguments.rate:,} a second"
        slow = sorted(beats)[int(len(beats) * 0.99) - 1]
        tell(f"heartbeat, {name}", statistics.median(beats), "s", spread=max(beats) - min(beats))
        tell(f"heartbeat, {name}, 99 of 100", slow, "s", spread=max(beats) - min(beats))
        tell(f"handed over, {name}", rate, "/s", spread=0.0)
    if arguments.memory:
        bench.finish()
        tell("memory of a task in flight", bench.memory(arguments.memory), "B", spread=0.0)


if __name__ == "__main__":
    main()
