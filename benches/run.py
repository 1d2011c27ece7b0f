"""All benches in one run: a table, or with JSON=1 one JSON object per line. The exit code is 1 if a target is missed.

.venv/bin/python benches/run.py [--only NAME,NAME] [--quick] [--tasks N]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable

import backlog
import cold_start
import cost
import landing
import launch
import pool
import reconcile
import scale
import task_state
import zygote
from functions import ROOT
from report import Report


def in_airflow(report: Report, quick: bool, venv: str, script: str) -> None:
    """A bench of Airflow's side, in an environment of Airflow's."""
    python = ROOT / venv / "bin" / "python"
    if not python.exists():
        print(f"{script}: left out, as {python} is missing (`make {venv}/.done` makes it)", file=sys.stderr)
        return
    command = [str(python), f"benches/executor/{script}", *(["--quick"] if quick else [])]
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, "JSON": "1"}, stdout=subprocess.PIPE, text=True)
    for line in result.stdout.splitlines():
        if line.startswith("{"):
            report.take(json.loads(line))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names of benches, between commas")
    parser.add_argument("--quick", action="store_true", help="few samples: to see whether it works")
    parser.add_argument(
        "--tasks", type=int, default=5_000, help="submissions of the bench scale (100000: a quarter of an hour)"
    )
    arguments = parser.parse_args()
    quick = arguments.quick
    benches: dict[str, Callable[[Report], None]] = {
        "cold-start": lambda report: cold_start.run(report, 5 if quick else 30),
        "task-state": lambda report: task_state.run(report, 200 if quick else 1000, 1000 if quick else 10_000),
        "submit": lambda report: launch.run(report, 300 if quick else 1000),
        "executor": lambda report: in_airflow(report, quick, ".venv-airflow", "bench.py"),
        "operator": lambda report: in_airflow(report, quick, ".venv-airflow-bench", "operators.py"),
        "zygote": lambda report: zygote.run(report, 3 if quick else 20),
        "reconcile": lambda report: reconcile.run(report, 1_500 if quick else 8_000, 4_000 if quick else 20_000),
        "landing": lambda report: landing.run(report, 200 if quick else 1000),
        "cost": lambda report: cost.run(report, 64 if quick else 320),
        "backlog": lambda report: backlog.run(report, 50 if quick else 300),
        "pool": lambda report: pool.run(report, *(((3,), 300, 3.0) if quick else ((10, 100), 5_000))),
        "scale": lambda report: scale.run(report, 2_000 if quick else arguments.tasks),
    }
    chosen = arguments.only.split(",") if arguments.only else list(benches)
    report, broken = Report(), []
    for name in chosen:
        print(f"{name} …", file=sys.stderr)
        try:
            benches[name](report)
        # The figures of the other benches are worth having all the same.
        except Exception:
            traceback.print_exc()
            broken.append(name)
    report.print()
    return 1 if broken or report.missed() else 0


if __name__ == "__main__":
    sys.exit(main())
