"""The clients and threads that run submissions, for an executor and for a triggerer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ecs_bridge.aws import Aws
from airflow_ecs_bridge.previous_tries import PreviousTries
from airflow_ecs_bridge.stopper import Stopper
from airflow_ecs_bridge.submitter import Submitter
from airflow_ecs_bridge.threads import Services
from airflow_ecs_bridge.wait_reasons import WaitReasons
from airflow_ecs_bridge.watcher import Watcher
from ecs_bridge.api import BridgeClient
from ecs_bridge.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ecs_bridge.config import Settings
    from airflow_ecs_bridge.results import Outcome


class Engine:
    """The parts that submit, watch and stop. The constructor does no I/O and starts no thread."""

    def __init__(
        self,
        settings: Settings,
        report: Callable[[Outcome], None],
        say: Callable[[str, str], None],
        waits_after: float,
    ) -> None:
        """Create the parts.

        :param report: receives the outcome of a submission
        :param say: receives an ID and its wait reason, once per change
        :param waits_after: time until the first wait reason, in seconds
        """
        self._settings = settings
        self.aws = Aws(settings)
        self.client = BridgeClient(settings.submit_url, self.aws, settings.request_timeout, settings.submit_function)
        failed_calls = self.client.failed_calls
        self.watcher = Watcher(self.table, self.aws.forget, settings, report, self._is_pending, failed_calls)
        history = PreviousTries(self.watcher.lookup)
        self.submitter = Submitter(self.client, settings, report, self.watcher.settle, history.patches)
        self.stopper = Stopper(self.client, self.watcher.lookup)
        self.waits = WaitReasons(self.watcher.lookup, say, waits_after)
        self.services = Services(
            [self.watcher.service, self.stopper.service, self.waits.service, *self.submitter.services]
        )

    def table(self) -> Table:
        """Create a reader of the table."""
        return Table(self.aws.dynamodb(), self._settings.table, self._settings.deployment)

    def figures(self) -> dict[str, float]:
        """Return the metrics, from any thread."""
        return {
            **self.submitter.figures(),
            **self.watcher.figures(),
            "threads_down": len(self.services.down()),
            "failed_calls": self.client.failed_calls.value,
        }

    def _is_pending(self, submission_id: str) -> bool:
        return self.submitter.holds(submission_id)
