"""A workload of Airflow in a runner: from the command to the first instruction of its DAG, forked and spawned."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from functions import ROOT
from report import Report

sys.path.insert(0, str(ROOT / "tests" / "python" / "runner"))

from execution_api import ExecutionAPI, workload
from runner_api import MODULE, ZYGOTE, Runner, worker


def run(report: Report, samples: int) -> None:
    """Measure runners with and without a zygote in turn."""
    with tempfile.TemporaryDirectory() as home, ExecutionAPI() as api:
        variables = worker(home, api.url, str(ROOT / ".venv-airflow/bin/python"))
        forking = Runner(variables, "--zygote", ZYGOTE, build="release")
        spawning = Runner(variables, build="release")
        try:
            # The first waits for the imports, and leaves them in the page cache.
            first_instruction(forking, Path(home))
            first_instruction(spawning, Path(home))
            pairs = [[first_instruction(runner, Path(home)) for runner in (forking, spawning)] for _ in range(samples)]
        finally:
            forking.end()
            spawning.end()
    forked, spawned = zip(*pairs, strict=True)
    report.add("zygote", "command to the DAG's first instruction, forked; peer: spawned", forked, "s", peer=spawned)


def first_instruction(runner: Runner, folder: Path) -> float:
    """Run a workload, and return the seconds that it took to come to its DAG."""
    target = folder / "environment"
    command = ("python", "-m", MODULE, "--json-string", workload())
    begin = runner.start(*command, PROBE=str(target))
    if (done := runner.done()["done"])["exit_code"] != 0:
        raise RuntimeError(f"the workload failed: {done}")
    return json.loads(target.read_text())["first_instruction"] - begin
