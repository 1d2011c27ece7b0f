"""What every test of the executor stands on: an Airflow configured by environment alone, and a fake bridge."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

HOME = tempfile.mkdtemp(prefix="airflow-ecs-bridge-")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
# Before the first import of airflow, which reads its configuration then.
os.environ.update(
    AIRFLOW_HOME=HOME,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__API_AUTH__JWT_SECRET="not a secret, only for tests, but long enough for HS512 to like it" * 2,
    AIRFLOW__CORE__EXECUTOR="airflow_ecs_bridge.EcsBridgeExecutor",
    AIRFLOW__LOGGING__LOGGING_LEVEL="INFO",
    AWS_ACCESS_KEY_ID="test",
    AWS_SECRET_ACCESS_KEY="test",
    AWS_EC2_METADATA_DISABLED="true",
)
sys.path.insert(0, str(Path(__file__).parents[1]))


from collections.abc import Callable, Iterator

import pytest
from fake_bridge import DEPLOYMENT, PATIENCE, TABLE, FakeBridge, Server

if TYPE_CHECKING:
    from airflow_ecs_bridge.executor import EcsBridgeExecutor

OPTIONS = {
    "TABLE": TABLE,
    "DEPLOYMENT": DEPLOYMENT,
    "REGION_NAME": "eu-central-1",
    "AWS_CONN_ID": "",
    "POLL_INTERVAL": "0.1",
    # Only in tests that ask for them, however long a test takes.
    "FULL_SCAN_INTERVAL": "86400",
    "RECONCILE_INTERVAL": "86400",
    # Only bounds: a busy machine may need them.
    "REQUEST_TIMEOUT": str(PATIENCE),
    "STARTUP_TIMEOUT": str(PATIENCE),
    "SHUTDOWN_TIMEOUT": str(PATIENCE),
}


@pytest.fixture(autouse=True)
def retry_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for answers however long a busy machine takes: what is asked again would be counted twice."""
    for bound in (
        "ecs_bridge.aws.CONNECT_TIMEOUT",
        "ecs_bridge.aws.READ_TIMEOUT",
        "airflow_ecs_bridge.previous_tries.LOOKUP_TIMEOUT",
        "airflow_ecs_bridge.ui.queries.SECONDS",
        "airflow_ecs_bridge.stopper._LOOKUP_TIMEOUT",
        "airflow_ecs_bridge.tasklog.TIMEOUT",
        "airflow_ecs_bridge.wait_reasons._LOOKUP_TIMEOUT",
    ):
        monkeypatch.setattr(bound, PATIENCE)


@pytest.fixture
def bridge() -> FakeBridge:
    return FakeBridge()


@pytest.fixture
def url(bridge: FakeBridge) -> Iterator[str]:
    with Server(bridge) as server:
        yield server.url


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set options of the executor's section."""

    def set_options(**options: str) -> None:
        for name, value in options.items():
            monkeypatch.setenv(f"AIRFLOW__ECS_BRIDGE_EXECUTOR__{name.upper()}", value)

    return set_options


@pytest.fixture
def options(configure: Callable[..., None], url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that reaches the fake bridge."""
    configure(**OPTIONS, submit_url=url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)


@pytest.fixture
def start(options: None) -> Iterator[Callable[..., EcsBridgeExecutor]]:
    """Start executors; all are ended."""
    from airflow_ecs_bridge.executor import EcsBridgeExecutor

    started = []

    def make(parallelism: int = 1000, job_id: int | None = 1) -> EcsBridgeExecutor:
        executor = EcsBridgeExecutor(parallelism=parallelism)
        executor.job_id = job_id
        executor.start()
        started.append(executor)
        return executor

    yield make
    for executor in started:
        executor.terminate()


@pytest.fixture
def executor(start: Callable[..., EcsBridgeExecutor]) -> EcsBridgeExecutor:
    """A started executor on the fake bridge."""
    return start()
