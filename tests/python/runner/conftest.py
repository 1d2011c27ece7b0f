"""Runners with and without a zygote, in an Airflow worker's environment."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from execution_api import ExecutionAPI
from runner_api import ZYGOTE, Runner, worker


@pytest.fixture(scope="session")
def variables(tmp_path_factory: pytest.TempPathFactory, api: ExecutionAPI) -> dict[str, str]:
    """The environment of a worker's container."""
    return worker(str(tmp_path_factory.mktemp("airflow")), api.url, sys.executable)


@pytest.fixture(scope="session")
def api() -> Iterator[ExecutionAPI]:
    with ExecutionAPI() as api:
        yield api


@pytest.fixture(scope="module")
def forking(variables: dict[str, str]) -> Iterator[Runner]:
    """A runner with a zygote."""
    runner = Runner(variables, "--zygote", ZYGOTE)
    yield runner
    runner.end()


@pytest.fixture
def own(variables: dict[str, str]) -> Iterator[Runner]:
    """A runner with a zygote, for one test."""
    runner = Runner(variables, "--zygote", ZYGOTE)
    yield runner
    runner.end()


@pytest.fixture(scope="module")
def spawning(variables: dict[str, str]) -> Iterator[Runner]:
    """A runner without a zygote."""
    runner = Runner(variables)
    yield runner
    runner.end()
