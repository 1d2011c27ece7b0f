"""The executor, killed by SIGKILL once, at the place that $CRASH_AT names."""

from __future__ import annotations

import os
import signal

from airflow_ecs_bridge.client import BridgeClient
from airflow_ecs_bridge.executor import EcsBridgeExecutor


def die() -> None:
    """Die as a process dies whose machine is gone."""
    os.kill(os.getpid(), signal.SIGKILL)


class CrashingExecutor(EcsBridgeExecutor):
    """Dies after QUEUED was committed and before the submission, in the submit call, or with results unreported."""

    def _process_workloads(self, workload_items):
        if os.environ.get("CRASH_AT") == "before the submission":
            die()
        super()._process_workloads(workload_items)

    def _ended(self, result):
        if os.environ.get("CRASH_AT") == "with results unreported":
            die()
        super()._ended(result)


if os.environ.get("CRASH_AT") == "in the submit call":
    _submit = BridgeClient.submit

    def submit_and_die(self, submissions):
        """Let the bridge take them, and die before the answer is used."""
        _submit(self, submissions)
        die()

    BridgeClient.submit = submit_and_die
