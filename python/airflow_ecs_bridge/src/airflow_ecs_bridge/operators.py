"""An operator that runs any command through the bridge. The image needs no Airflow, and most tasks need no worker."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import StartTriggerArgs

# A Dag processor imports this module for each Dag, so it must not import boto3 or the executor.
from airflow_ecs_bridge import starts
from airflow_ecs_bridge._versions import AIRFLOW_3
from airflow_ecs_bridge.links import LOG_LINK

try:
    from airflow.sdk import BaseOperator, BaseOperatorLink
except ImportError:  # Airflow 2
    from airflow.models import BaseOperator
    from airflow.models.baseoperatorlink import BaseOperatorLink  # type: ignore[no-redef]

try:
    from airflow.sdk.exceptions import AirflowException, AirflowSkipException
except ImportError:  # before Airflow 3.2
    from airflow.exceptions import AirflowException, AirflowSkipException  # type: ignore[no-redef,attr-defined]

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

TRIGGER = "airflow_ecs_bridge.triggers.EcsBridgeTrigger"
FETCH_INTERVAL = timedelta(seconds=2)
LEAST_FETCH_INTERVAL = timedelta(seconds=1)
TEMPLATED = ("command", "profile", "overrides", "environment", "xcom_s3_uri")


class _StartFromTrigger:
    """``start_from_trigger``, computed at access time, because Dag, callbacks and downstream tasks are set after init.

    The value of the class is False. ``expand`` reads it there, and a mapped task starts in a worker.
    """

    def __get__(self, operator: EcsBridgeOperator | None, owner: Any = None) -> bool:
        if (
            operator is None or "_start_from_trigger" not in operator.__dict__
        ):  # Airflow reads it in its own constructor
            return False
        wish = operator.__dict__["_start_from_trigger"]
        reason = operator.why_worker()
        if wish and reason:
            raise ValueError(
                f"invalid start_from_trigger in task {operator.task_id}: True is not possible, because {reason}"
            )
        return reason is None

    def __set__(self, operator: EcsBridgeOperator, wish: bool | None) -> None:
        operator.__dict__["_start_from_trigger"] = wish


class _StartTriggerArgs:
    """``start_trigger_args`` of a task that starts in the triggerer."""

    def __get__(self, operator: EcsBridgeOperator | None, owner: Any = None) -> StartTriggerArgs | None:
        if operator is None or not operator.start_from_trigger:
            return None
        return StartTriggerArgs(
            trigger_cls=TRIGGER,
            trigger_kwargs={**operator._given(), **operator._constant(), "ends_task": True},
            next_method="execute_complete",
            timeout=operator.execution_timeout,
        )

    def __set__(self, operator: EcsBridgeOperator, value: Any) -> None:
        raise AttributeError("start_trigger_args is read-only; the other arguments determine it")


class ContainerLogLink(BaseOperatorLink):
    """A link to the log stream of the container, if the options set its log group."""

    name = "Container log"

    @property
    def xcom_key(self) -> str:
        """Return the key of the XCom that contains the link."""
        return LOG_LINK

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the link, or an empty string."""
        if AIRFLOW_3:
            # Only a worker calls it, after its task has ended. The UI reads the XCom with the result.
            return str(getattr(operator, "log_link", ""))
        from airflow.models.xcom import XCom

        return str(XCom.get_value(key=LOG_LINK, ti_key=ti_key) or "")


class EcsBridgeOperator(BaseOperator):
    """An operator that runs a command through the ECS bridge.

    The triggerer waits for the command. If the result is the same as in a worker, the task also starts and ends in the
    triggerer, without a worker. Otherwise, a worker starts the task and defers it (see docs/operator.md). The
    submission ID is derived from the try of the task instance, so a command never runs twice after a failure.

    Configure the bridge in the section ``[ecs_bridge_executor]``. The operator works with any executor.

    :param command: command, as a list of strings. (templated)
    :param profile: profile of the bridge; defaults to ``default``. (templated)
    :param overrides: RunTask parameters that override the profile, as in ``executor_config``, for example
        ``{"overrides": {"memory": "8192"}}``. The profile must allow them. (templated)
    :param environment: environment variables of the profile's container, which override its own. Requires `container`.
        (templated)
    :param container: name of the profile's container.
    :param priority: priority from 0 to 999, smaller values first; defaults to 500.
    :param log_lines: number of container lines that a failure shows. Requires `awslogs_group`,
        `awslogs_stream_prefix` and ``logs:GetLogEvents``.
    :param xcom_last_line: push the last line of the output as the return value. Has the same requirements.
    :param xcom_s3_uri: object ``s3://BUCKET/KEY`` that the command writes. Its JSON, up to 256 KiB, becomes the return
        value. The triggerer needs ``s3:GetObject`` on it. (templated)
    :param awslogs_fetch_interval: interval at which new container output is written to the task log, at least 1
        second. None disables it. Requires `awslogs_group`, `awslogs_stream_prefix` and ``logs:FilterLogEvents``. All
        tasks of a triggerer share one reader.
    :param skip_on_exit_code: exit code or codes with which the task is skipped instead of failed.
    :param stop_on_kill: stop the command when the task is cleared or marked (Airflow 3.3), or its worker is killed.
    :param deferrable: wait in the triggerer instead of a worker.
    :param start_from_trigger: start in the triggerer. None starts there if the result is the same as in a worker, and
        False never does. With True, a task that cannot start there is a Dag error that names the reason.
    """

    template_fields: Sequence[str] = TEMPLATED
    template_fields_renderers = {"command": "json", "overrides": "json", "environment": "json"}  # noqa: RUF012
    operator_extra_links = (ContainerLogLink(),)
    ui_color = "#f0ede4"
    start_from_trigger = _StartFromTrigger()
    start_trigger_args = _StartTriggerArgs()

    def __init__(
        self,
        *,
        command: list[str] | str,
        profile: str | None = None,
        overrides: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        container: str | None = None,
        priority: int | None = None,
        log_lines: int = 20,
        xcom_last_line: bool = False,
        xcom_s3_uri: str | None = None,
        awslogs_fetch_interval: timedelta | None = FETCH_INTERVAL,
        skip_on_exit_code: int | Collection[int] | None = None,
        stop_on_kill: bool = True,
        deferrable: bool = True,
        start_from_trigger: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.command = command
        self.profile = profile
        self.overrides = overrides
        self.environment = environment
        self.container = container
        self.priority = priority
        self.log_lines = log_lines
        if xcom_last_line and xcom_s3_uri:
            raise ValueError(
                "xcom_last_line and xcom_s3_uri are both set; set only one, because a task has one return value"
            )
        self.xcom_last_line = xcom_last_line
        self.xcom_s3_uri = xcom_s3_uri
        if awslogs_fetch_interval is not None and (
            not isinstance(awslogs_fetch_interval, timedelta) or awslogs_fetch_interval < LEAST_FETCH_INTERVAL
        ):
            raise ValueError(
                f"invalid awslogs_fetch_interval: {awslogs_fetch_interval!r}; must be a timedelta of at least 1 second "
                "or None (no live output)"
            )
        self.awslogs_fetch_interval = awslogs_fetch_interval
        self.skip_on_exit_code = skip_on_exit_code
        self.stop_on_kill = stop_on_kill
        self.deferrable = deferrable
        # Airflow reads it after all constructors have run, so an error becomes a Dag error.
        self.start_from_trigger = start_from_trigger

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Create a mapped task, which starts in a worker."""
        if kwargs.get("start_from_trigger"):
            raise ValueError(
                "invalid start_from_trigger: True is not possible with expand, because a mapped task starts in a worker"
            )
        kwargs.pop("start_from_trigger", None)
        return super().partial(**kwargs)

    def why_worker(self) -> str | None:
        """Return why the task starts in a worker, or None if it starts in the triggerer."""
        if not self.deferrable:
            return "deferrable is False"
        if self.__dict__.get("_start_from_trigger") is False:
            return "start_from_trigger is False"
        return starts.why_starts_in_worker(self, self._given())

    def _constant(self) -> dict[str, Any]:
        names = ("container", "priority", "log_lines", "stop_on_kill")
        codes, interval = self.skip_on_exit_code, self.awslogs_fetch_interval
        return {
            **{name: getattr(self, name) for name in names},
            "awslogs_fetch_interval": None if interval is None else interval.total_seconds(),
            "xcom_last_line": self.xcom_last_line and self.do_xcom_push,
            "skip_on_exit_code": [] if codes is None else [codes] if isinstance(codes, int) else sorted(codes),
        }

    def _given(self) -> dict[str, Any]:
        """Return the templated fields."""
        given = {name: getattr(self, name) for name in TEMPLATED}
        # Without XComs, nothing is read.
        return given if self.do_xcom_push else {**given, "xcom_s3_uri": None}

    def execute(self, context: Any) -> Any:
        """Defer to the triggerer, or wait in this worker."""
        from airflow_ecs_bridge import commands
        from airflow_ecs_bridge.triggers import EcsBridgeTrigger

        ti = context["ti"]
        trigger = EcsBridgeTrigger(
            **self._given(),
            **self._constant(),
            submission_id=commands.submission_id(ti),
            about=commands.subject(ti),
            # A worker that waits itself also ends its task.
            ends_task=self.deferrable and starts.why_ends_in_worker(self) is None,
        )
        self._submission_id = trigger.submission_id
        reason = "it is mapped" if getattr(ti, "map_index", -1) >= 0 else self.why_worker()
        self.log.info("Task starts in a worker, because %s", reason or "it was started without a scheduler")
        if self.deferrable:
            self.defer(trigger=trigger, method_name="execute_complete", timeout=self.execution_timeout)

        async def end() -> Any:
            return await anext(trigger.run())

        return self.execute_complete(context, asyncio.run(end()).payload)

    def execute_complete(self, context: Any, event: dict[str, Any] | None = None) -> Any:
        """Return the result of the command; fail or skip the task if the command did not succeed."""
        event = event or {}
        xcoms = dict(event.get("xcoms") or {})
        if link := xcoms.pop(LOG_LINK, None):
            self.log_link = link
            if not AIRFLOW_3:
                context["ti"].xcom_push(key=LOG_LINK, value=link)
        if event.get("skipped"):
            raise AirflowSkipException(event["text"])
        if not event.get("succeeded"):
            raise AirflowException(event.get("text") or "the trigger returned no result")
        self.log.info("%s", event.get("text"))
        return xcoms.get("return_value")

    def on_kill(self) -> None:
        """Stop the command that this worker waits for."""
        id = getattr(self, "_submission_id", None)
        if id and self.stop_on_kill:
            from airflow_ecs_bridge import commands

            commands.Commands.of_this_process().stop_now(id, "its task was killed in Airflow")
