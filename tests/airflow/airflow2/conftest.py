"""Airflow 2.11, configured by environment alone, and the local stack."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

HOME = tempfile.mkdtemp(prefix="airflow2-ecs-bridge-")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
# Before the first import of airflow, which reads its configuration then.
os.environ.update(
    AIRFLOW_HOME=HOME,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__EXECUTOR="airflow_ecs_bridge.EcsBridgeExecutor",
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{HOME}/airflow.db",
    AWS_EC2_METADATA_DISABLED="true",
    # Airflow 2 wants a larger database than SQLite for executors that run in parallel; no scheduler runs here.
    _AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK="1",
)

sys.path.insert(0, str(Path(__file__).parents[1]))

import pytest
from stacks import PROFILES, scheduler_environment

from local_stack import LocalStack

if TYPE_CHECKING:
    from airflow_ecs_bridge.executor import EcsBridgeExecutor


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with LocalStack(tmp_path_factory.mktemp("stack"), {"teardown-s": 1}, profiles=PROFILES) as stack:
        os.environ.update(scheduler_environment(stack, AIRFLOW__ECS_BRIDGE_EXECUTOR__POLL_INTERVAL="0.2"))
        yield stack


@pytest.fixture
def start(stack: LocalStack) -> Iterator[Callable[[], EcsBridgeExecutor]]:
    """Start executors; all are ended."""
    from airflow_ecs_bridge.executor import EcsBridgeExecutor

    started = []

    def make() -> EcsBridgeExecutor:
        executor = EcsBridgeExecutor(parallelism=16)
        executor.job_id = 1
        executor.start()
        started.append(executor)
        return executor

    yield make
    for executor in started:
        executor.terminate()


@pytest.fixture
def executor(start: Callable[[], EcsBridgeExecutor]) -> EcsBridgeExecutor:
    """A started executor on the local stack."""
    return start()
