"""Adds the last lines of the container to what is told of a failure, from a thread of its own."""

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
"""How many failures may wait for their lines. When more fail at the same time, they are told without."""

LONGEST = 1_500
"""Characters of lines that the event log gets at most, the last ones."""


class LogTail:
    """Takes what became of submissions, and passes it on."""

    def __init__(
        self,
        aws: Aws,
        settings: Settings,
        show: Callable[[str], dict[str, Any]],
        report: Callable[[Outcome], None],
    ) -> None:
        """Make one.

        :param show: reads a whole record by the API: it tells when a runner's container ran the command
        :param report: takes what became of a submission
        """
        self._aws = aws
        self._settings = settings
        self._show = show
        self._report = report
        self._waiting: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._lines = settings.failure_log_lines if settings.knows_output else 0
        self.service = Service("ecs-bridge-lines", self.step)

    def report(self, outcome: Outcome) -> None:
        """Pass it on; with its lines, a moment later, if it failed and they can be read."""
        wanted = self._lines and outcome.has_output
        if wanted and self._waiting.qsize() < AT_ONCE and not self.service.is_down:
            self._waiting.put(outcome)
        else:
            self._report(outcome)

    def step(self) -> None:
        """Take one, or wait a moment for it."""
        for outcome in drain(self._waiting, 1, 1.0):
            self._report(self._with_lines(outcome))

    def _with_lines(self, outcome: Outcome) -> Outcome:
        try:
            lines = tail(self._aws, self._settings, self._show(outcome.submission_id), self._lines)
        except Exception as error:
            log.info("the last lines of submission %s could not be read: %s", outcome.submission_id, error)
            return outcome
        text = "\n".join(lines)[-LONGEST:]
        return replace(outcome, info=f"{outcome.info}, the container's last lines:\n{text}") if text else outcome
