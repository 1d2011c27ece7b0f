"""The version of Airflow, and a name for each difference between versions that this package handles."""

from __future__ import annotations

import re

from airflow import __version__ as TEXT


def parsed(text: str) -> tuple[int, int, int]:
    """Return major, minor and patch of a version; a beta counts as the version that it leads to."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    if found is None:
        raise ValueError(f"not a version of Airflow: {text!r}")
    major, minor, patch = found.groups()
    return int(major), int(minor), int(patch)


VERSION = parsed(TEXT)

AIRFLOW_3 = VERSION >= (3, 0, 0)
"""Workers and triggers reach Airflow through its API, not its database."""

TRIGGERS_RUN_WHOLE_TASKS = VERSION >= (3, 3, 1)
"""The scheduler defers a task with ``start_from_trigger`` itself (3.0 to 3.2 have that switched off), the triggerer
renders its fields (3.3), and a failure that a trigger reports uses the task's retries (3.3.1)."""

TRIGGERS_HAVE_ON_KILL = VERSION >= (3, 3, 0)
"""Airflow calls a trigger's ``on_kill`` when its task is cleared or marked."""

EXTERNAL_VIEWS = VERSION >= (3, 1, 0)
"""The UI shows views of plugins."""

PROCESSES_WORKLOADS = VERSION >= (3, 1, 0)
"""BaseExecutor queues workloads itself, and hands them to ``_process_workloads``; a team's executor has a ``conf``."""

ASSIGNS_IDS = VERSION >= (3, 2, 2)
"""The scheduler commits an ``external_executor_id`` together with the state QUEUED."""

CALLBACK_WORKLOADS = VERSION >= (3, 3, 0)
"""Callbacks are workloads, and their ends are told by their keys."""

UUID_KEYS = VERSION >= (3, 4, 0)
"""Executors know a try by its UUID, all workloads wait in ``executor_queues`` by their type, connection tests too,
and earlier tries are rows of ``task_instance``."""
