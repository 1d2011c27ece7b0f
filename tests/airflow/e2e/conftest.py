"""A real Airflow 3.3 on PostgreSQL, and the local stack, shared by the end-to-end tests of the executor."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[2] / "examples" / "airflow")]

import pytest
from local_airflow import Airflow
from postgres import Postgres
from stacks import PROFILES

from local_stack import LocalStack


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """Airflow without a scheduler."""
    environment = {
        # Its schedulers can load what crashes.
        "PYTHONPATH": str(HERE),
        # No file of a Dag changes here: none is read twice.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "36000",
    }
    with (
        Postgres() as postgres,
        Airflow(
            tmp_path_factory.mktemp("airflow"), HERE / "dags", environment=environment, database=postgres.url
        ) as airflow,
    ):
        yield airflow


@pytest.fixture(scope="session")
def make_stack(airflow: Airflow, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., LocalStack]:
    """Make local stacks whose containers can be Airflow's workers."""

    def make(profiles: object = PROFILES, **flags: object) -> LocalStack:
        stack = LocalStack(tmp_path_factory.mktemp("stack"), flags, profiles=profiles)
        for name, value in airflow.worker_environment.items():
            stack.command += ["--container-env", f"{name}={value}"]
        return stack

    return make


@pytest.fixture(scope="session")
def stack(make_stack: Callable[..., LocalStack]) -> Iterator[LocalStack]:
    """A local stack without faults, whose functions have no URLs."""
    with make_stack(**{"no-function-urls": True}) as stack:
        yield stack
