"""The version of Airflow, and one flag for each difference between versions."""

from __future__ import annotations

import re

from airflow import __version__


def parsed(text: str) -> tuple[int, int, int]:
    """Return major, minor and patch of a version. A beta counts as its final version."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    if found is None:
        raise ValueError(f"invalid Airflow version: {text!r}; must begin with MAJOR.MINOR.PATCH")
    major, minor, patch = found.groups()
    return int(major), int(minor), int(patch)


TEXT: str = __version__
VERSION = parsed(TEXT)

AIRFLOW_3 = VERSION >= (3, 0, 0)
"""Workers and triggers use Airflow's API instead of its database."""

TRIGGERS_RUN_WHOLE_TASKS = VERSION >= (3, 3, 1)
"""The scheduler itself defers a task with ``start_from_trigger``, which 3.0 to 3.2 disable. The triggerer renders its
fields (3.3), and a failure that a trigger reports uses the task's retries (3.3.1)."""

TRIGGERS_HAVE_ON_KILL = VERSION >= (3, 3, 0)
"""Airflow calls ``on_kill`` of a trigger when its task is cleared or marked."""

EXTERNAL_VIEWS = VERSION >= (3, 1, 0)
"""The UI supports views of plugins."""

PROCESSES_WORKLOADS = VERSION >= (3, 1, 0)
"""BaseExecutor queues workloads and passes them to ``_process_workloads``. The executor of a team has a ``conf``."""

ASSIGNS_IDS = VERSION >= (3, 2, 2)
"""The scheduler commits an ``external_executor_id`` together with the state QUEUED."""

CALLBACK_WORKLOADS = VERSION >= (3, 3, 0)
"""Callbacks are workloads, and their results are reported by key."""

UUID_KEYS = VERSION >= (3, 4, 0)
"""Executors identify a try by its UUID. All workloads, including connection tests, wait in ``executor_queues`` by type.
Earlier tries are rows of ``task_instance``."""
