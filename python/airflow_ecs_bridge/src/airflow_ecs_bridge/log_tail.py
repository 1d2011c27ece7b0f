"""Add the last lines of the container to the report of a failure, in a separate thread."""

from __future__ import annotations

import logging
import queue
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_ecs_bridge.cloudwatch_logs import tail
from airflow_ecs_bridge.threads import Service, drain

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ecs_bridge.aws import Aws
    from airflow_ecs_bridge.config import Settings
    from airflow_ecs_bridge.results import Outcome

log = logging.getLogger(__name__)

AT_ONCE = 20
"""Maximum number of failures that wait for their lines. Further failures are reported without lines."""

LONGEST = 1_500
"""Maximum number of characters of lines in the event log. The last ones are kept."""


class LogTail:
    """A filter of outcomes that adds log lines to failures."""

    def __init__(
        self,
        aws: Aws,
        settings: Settings,
        show: Callable[[str], dict[str, Any]],
        report: Callable[[Outcome], None],
    ) -> None:
        """Create a filter.

        :param show: reads a whole record through the API, including the times of a command on a runner
        :param report: receives the outcome of a submission
        """
        self._aws = aws
        self._settings = settings
        self._show = show
        self._report = report
        self._waiting: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._lines = settings.failure_log_lines if settings.knows_output else 0
        self.service = Service("ecs-bridge-lines", self.step)

    def report(self, outcome: Outcome) -> None:
        """Forward an outcome. A failure with readable output is forwarded later, with its lines."""
        wanted = self._lines and outcome.has_output
        if wanted and self._waiting.qsize() < AT_ONCE and not self.service.is_down:
            self._waiting.put(outcome)
        else:
            self._report(outcome)

    def step(self) -> None:
        """Forward one outcome, or wait up to one second for it."""
        for outcome in drain(self._waiting, 1, 1.0):
            self._report(self._with_lines(outcome))

    def _with_lines(self, outcome: Outcome) -> Outcome:
        try:
            lines = tail(self._aws, self._settings, self._show(outcome.submission_id), self._lines)
        except Exception as error:
            log.info("could not read the last lines of submission %s: %s", outcome.submission_id, error)
            return outcome
        text = "\n".join(lines)[-LONGEST:]
        return replace(outcome, info=f"{outcome.info}, last lines of the container:\n{text}") if text else outcome
