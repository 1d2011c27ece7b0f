"""The executor, killed by SIGKILL once, at the place that $CRASH_AT names."""

from __future__ import annotations

import os
import signal

from airflow_ecs_bridge.executor import EcsBridgeExecutor
from ecs_bridge.api import BridgeClient

PLACES = (
    "before QUEUED is committed",
    "before the submission",
    "before the submit call",
    "in the submit call",
    "with results unreported",
)
"""In the order in which one task instance passes them."""


def die_at(place: str) -> None:
    """Die as a process dies whose machine is gone."""
    if os.environ.get("CRASH_AT") == place:
        os.kill(os.getpid(), signal.SIGKILL)


class CrashingExecutor(EcsBridgeExecutor):
    """Dies in the scheduler's thread."""

    def queue_workload(self, workload, session):
        super().queue_workload(workload, session)
        die_at("before QUEUED is committed")

    def _process_workloads(self, workload_items):
        die_at("before the submission")
        super()._process_workloads(workload_items)

    def _ended(self, result):
        die_at("with results unreported")
        super()._ended(result)


_submit = BridgeClient.submit


def submit_and_die(self, submissions):
    """Die before the bridge hears of them, or before its answer is used."""
    die_at("before the submit call")
    answers = _submit(self, submissions)
    die_at("in the submit call")
    return answers


BridgeClient.submit = submit_and_die
