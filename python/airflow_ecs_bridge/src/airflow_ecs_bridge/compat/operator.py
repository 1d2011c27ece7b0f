"""EcsRunTaskOperator on the bridge."""

from __future__ import annotations

import time
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf
from airflow.providers.amazon.aws.exceptions import EcsOperatorError
from airflow.providers.amazon.aws.operators import ecs as provider

from airflow_ecs_bridge.operators import ContainerLogLink
from airflow_ecs_bridge.provider import OPTIONS, SECTION
from ecs_bridge.discovery import region_of
from ecs_bridge.errors import InvalidSubmissionError
from ecs_bridge.submission import PROFILE_NAME, check_overrides

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_ecs_bridge.commands import Commands
    from airflow_ecs_bridge.compat.client import BridgeEcs

PROFILE = "ecs-run-task"
"""The default profile. No deployment has it unless an operator adds it."""

RUN_TASK = {
    "task_definition": "taskDefinition",
    "cluster": "cluster",
    "launch_type": "launchType",
    "capacity_provider_strategy": "capacityProviderStrategy",
    "volume_configurations": "volumeConfigurations",
    "group": "group",
    "placement_constraints": "placementConstraints",
    "placement_strategy": "placementStrategy",
    "platform_version": "platformVersion",
    "network_configuration": "networkConfiguration",
    "tags": "tags",
    "propagate_tags": "propagateTags",
}
"""Parameters of the operator that can come from the profile, and their names in RunTask."""

GRACE = timedelta(seconds=60)
"""Time after which Airflow ends a trigger that has not ended itself, as in the provider."""

LEAST_FETCH_INTERVAL = timedelta(seconds=1)

_GIVEN_TO_CLIENT = ("verify", "botocore_config")


class _Captured(Exception):
    """A RunTask request that the provider's code has built."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__("a RunTask request was captured")
        self.request = request


class _Capture:
    """A client that only captures the RunTask request."""

    def run_task(self, **request: Any) -> Any:
        raise _Captured(request)


class EcsRunTaskOperator(provider.EcsRunTaskOperator):
    """The provider's EcsRunTaskOperator on the ECS bridge. See docs/compat.md for the profile that it needs.

    All parameters are those of the provider's operator. A parameter that the bridge cannot honor is an error of its
    Dag.

    :param profile: profile of the bridge, which permits what the other parameters set
    :param priority: priority from 0 to 999, smaller values first; defaults to 500
    :param from_profile: names of parameters that the profile determines instead of this operator, such as
        ``["task_definition", "cluster", "launch_type"]``. The operator does not submit its values of them. A pool
        needs all of them.
    """

    operator_extra_links = (ContainerLogLink(),)

    def __init__(
        self,
        *,
        profile: str = PROFILE,
        priority: int | None = None,
        from_profile: Collection[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.profile = profile
        self.priority = priority
        self.from_profile = from_profile
        self._client_override: Any = None
        self._raise_for(problems(vars(self)))

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Create a mapped task. The parameters that are not mapped are checked here, the others in the worker."""
        if found := problems(kwargs):
            raise ValueError(_text(str(kwargs.get("task_id")), found))
        return super().partial(**kwargs)

    def _raise_for(self, found: list[str]) -> None:
        if found:
            raise ValueError(_text(self.task_id, found))

    @property
    def client(self) -> Any:
        """The client of the bridge, with the methods that the provider's operator uses."""
        return self._client_override or self._bridge_client

    @cached_property
    def _bridge_client(self) -> BridgeEcs:
        from airflow_ecs_bridge.compat.client import BridgeEcs

        return BridgeEcs(self._here, self.log.info)

    @staticmethod
    def _here() -> Commands:
        from airflow_ecs_bridge.commands import Commands

        return Commands.of_this_process()

    def execute(self, context: Any) -> Any:
        """Run the command and wait for it, in this worker or in the triggerer."""
        self._begin(context)
        # Templates are rendered now, and these fields were not checked when the Dag was parsed.
        self._raise_for(problems(vars(self)))
        self._check_region()
        if self.deferrable:
            self._defer(context)
        try:
            return super().execute(context)
        finally:
            self._bridge_client.close()

    def execute_complete(self, context: Any, event: dict[str, Any] | None = None) -> Any:
        """Return the last line of the output, or fail as the provider's operator does."""
        self._begin(context)
        event = event or {}
        if event.get("status") == "not_started":
            raise EcsOperatorError(event["failures"], {"tasks": [], "failures": event["failures"]})  # type: ignore[arg-type]
        arn = event.get("task_arn")
        if arn and self.do_xcom_push and (ti := (context or {}).get("ti")) is not None:
            ti.xcom_push(key="ecs_task_arn", value=arn)
        if not (arn and self._aws_logs_enabled()):
            return super().execute_complete(context, event)
        self.arn = arn
        self._infer_container_name()
        # It is not started. A failure shows its last lines, as it does in a worker.
        self.task_log_fetcher = self._get_task_log_fetcher()
        if not self._local_log_dir() or event.get("status") != "success":
            return super().execute_complete(context, event)
        # The provider would read CloudWatch Logs without the fetcher.
        self.cluster = event["cluster"]
        self._after_execution()
        return self.task_log_fetcher.get_last_log_message()

    def on_kill(self) -> None:
        """Stop the command that this worker waits for, even if it has not started."""
        if self.task_log_fetcher:
            self.task_log_fetcher.stop()
        if self._bridge_client.submission_id is not None:
            self.log.info(
                self.client.stop_task(
                    cluster=self.cluster,
                    task=self.arn,
                    reason="Task killed by the user",
                )
            )

    def _begin(self, context: Any) -> None:
        """Derive the submission from the try. The same try finds it again, and a retry has another one."""
        from airflow_ecs_bridge import commands
        from airflow_ecs_bridge.compat.client import item_of

        if not context or context.get("ti") is None:
            return
        ti, client = context["ti"], self._bridge_client
        client.submission_id = commands.submission_id(ti)
        client.awaits_output = bool(self._aws_logs_enabled())
        client.item = lambda request: item_of(
            ti,
            request,
            profile=self.profile,
            priority=self.priority,
            from_profile=frozenset(RUN_TASK[name] for name in self.from_profile),
        )

    def _defer(self, context: Any) -> None:
        from airflow_ecs_bridge import commands
        from airflow_ecs_bridge.compat.trigger import EcsRunTaskTrigger

        self.log.info(
            "Running ECS Task - Task definition: %s - on cluster %s",
            self.task_definition,
            self.cluster,
        )
        self.log.info("EcsOperator overrides: %s", self.overrides)
        if self.reattach:
            self._try_reattach_task("")
        ti = context["ti"]
        item = self._bridge_client.item(self._request())  # type: ignore[misc]
        self._infer_container_name()
        seconds = float(self.waiter_delay) * float(self.waiter_max_attempts)
        timeout = timedelta(seconds=seconds) + GRACE
        trigger = EcsRunTaskTrigger(
            command=item["command"],
            profile=item["profile"],
            overrides=item.get("overrides"),
            priority=item.get("priority"),
            submission_id=item["submission_id"],
            about=commands.subject(ti),
            cluster=self.cluster,
            logs=self._logs(),
            # As in the provider, which ignores awslogs_fetch_interval if deferrable is set.
            awslogs_fetch_interval=max(float(self.waiter_delay), LEAST_FETCH_INTERVAL.total_seconds()),
            gives_up_at=time.time() + seconds,
            stop_task_on_failure=bool(self.stop_task_on_failure),
            push_arn=bool(self.do_xcom_push),
        )
        self.defer(
            trigger=trigger,
            method_name="execute_complete",
            timeout=min(timeout, self.execution_timeout) if self.execution_timeout else timeout,
        )

    def _request(self) -> dict[str, Any]:
        """Return the RunTask request that the provider's code builds, without a call."""
        self._client_override = _Capture()
        try:
            super()._start_task()
        except _Captured as captured:
            return captured.request
        finally:
            self._client_override = None
        raise RuntimeError("the installed Amazon provider does not call run_task; use version 9.39")

    def _start_task(self) -> None:
        # The provider would ask ECS for the name, after 10 seconds.
        self._infer_container_name()
        super()._start_task()

    def _infer_container_name(self) -> None:
        from airflow_ecs_bridge.compat.client import main_container

        if not self.container_name and self._aws_logs_enabled():
            self.container_name = main_container(self.overrides)[0]

    def _try_reattach_task(self, started_by: str) -> None:
        self.log.info(
            "reattach is not necessary on the bridge and can be removed: the submission's ID is derived from the try, "
            "so the same try finds its task again, and nothing starts twice"
        )

    def _after_execution(self) -> None:
        self._set_log_link()
        try:
            super()._after_execution()
        except Exception:
            self._log_reason()
            raise

    def _set_log_link(self) -> None:
        """Set the link to the output, which Airflow 3 reads after the task."""
        from airflow_ecs_bridge.tasklog import _console_link

        if self._aws_logs_enabled() and self.arn:
            # arn:partition:ecs:region:account:task/cluster/id
            region = self.resolve_awslogs_region() or self.arn.split(":")[3]
            self.log_link = _console_link(region, str(self.awslogs_group), self._get_logs_stream_name())

    def _log_reason(self) -> None:
        from airflow_ecs_bridge.compat.client import read, reason_of

        client = self._bridge_client
        if client.submission_id is None:
            return
        try:
            self.log.error("%s", reason_of(read(self._here(), client.submission_id)))
        except Exception as error:  # the failure itself matters more
            self.log.info(
                "could not read the record of submission %s: %s",
                client.submission_id,
                error,
            )

    def _get_task_log_fetcher(self) -> Any:
        fetcher = super()._get_task_log_fetcher()
        if folder := self._local_log_dir():
            from airflow_ecs_bridge.compat.local_logs import LocalLogs

            fetcher.hook = LocalLogs(folder)  # type: ignore[assignment]
        return fetcher

    def _logs(self) -> dict[str, Any] | None:
        """Return the location of the output, for the shared reader of a triggerer."""
        if not self._aws_logs_enabled():
            return None
        prefix, container = str(self.awslogs_stream_prefix), str(self.container_name)
        return {
            "group": self.awslogs_group,
            "prefix": prefix.removesuffix(f"/{container}"),
            "container": container,
            "region": self.resolve_awslogs_region(),
        }

    @staticmethod
    def _local_log_dir() -> str | None:
        return conf.get(SECTION, "local_log_dir", fallback=None) or None

    def _check_region(self) -> None:
        """Raise if the tasks of the bridge run in another Region. The Region is known here if the options have none."""
        if self.region_name and (region := self._here().aws.region()) != self.region_name:
            self._raise_for([_other_region(self.region_name, region)])


def _option(name: str) -> str | None:
    value = conf.get(SECTION, name, fallback=OPTIONS[name]["default"])
    return str(value).strip() or None if value is not None else None


def _other_region(asked: str, region: str) -> str:
    return (
        f"region_name is {asked!r}, but the bridge runs tasks in {region!r}; remove region_name, or use a bridge in "
        f"{asked!r}"
    )


def _text(task_id: str, found: list[str]) -> str:
    return f"invalid arguments of task {task_id!r} for the ECS bridge: " + "; ".join(found)


def problems(given: dict[str, Any]) -> list[str]:
    """Return the parameters that the bridge cannot honor. Templates and outputs of other tasks are not known yet.

    :param given: the parameters; absent ones have their defaults
    """
    checks: tuple[Callable[[dict[str, Any]], list[str]], ...] = (
        _connection,
        _own,
        _output,
        _overrides,
    )
    return [problem for check in checks for problem in check(given)]


def _connection(given: dict[str, Any]) -> list[str]:
    found = []
    ours = _option("aws_conn_id")
    if "aws_conn_id" in given and given["aws_conn_id"] not in ("aws_default", ours):
        found.append(
            f"aws_conn_id is {given['aws_conn_id']!r}, but the bridge calls ECS with its own role; remove aws_conn_id, "
            f"or set it to that of [{SECTION}] aws_conn_id ({ours!r})"
        )
    region = _option("region_name") or region_of(_option("submit_url"), _option("submit_function"))
    asked = given.get("region_name")
    if isinstance(asked, str) and region and asked != region:
        found.append(_other_region(asked, region))
    for name in _GIVEN_TO_CLIENT:
        if given.get(name) is not None:
            found.append(
                f"{name} applies to calls to ECS, which the bridge makes; set it in the connection {ours!r} of "
                f"[{SECTION}] aws_conn_id, and remove it here"
            )
    return found


def _own(given: dict[str, Any]) -> list[str]:
    found = []
    profile, priority = given.get("profile", PROFILE), given.get("priority")
    if not isinstance(profile, str) or not PROFILE_NAME.fullmatch(profile):
        found.append(f"profile is {profile!r}; must be the name of a profile of the bridge")
    if priority is not None and (
        isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 999
    ):
        found.append(f"priority is {priority!r}; must be an integer from 0 to 999")
    names = given.get("from_profile", ())
    if isinstance(names, str) or (unknown := sorted(set(names) - RUN_TASK.keys())):
        wrong = repr(names) if isinstance(names, str) else ", ".join(map(repr, unknown))
        found.append(f"from_profile has {wrong}; must be a list of names among {', '.join(RUN_TASK)}")
    return found


def _output(given: dict[str, Any]) -> list[str]:
    interval = given.get("awslogs_fetch_interval")
    if isinstance(interval, timedelta) and interval < LEAST_FETCH_INTERVAL:
        return [f"awslogs_fetch_interval is {interval}; must be at least 1 second"]
    return []


def _overrides(given: dict[str, Any]) -> list[str]:
    from airflow_ecs_bridge.compat.client import main_container

    overrides = given.get("overrides")
    if not isinstance(overrides, dict) or not isinstance(overrides.get("containerOverrides", []), list):
        return []  # a template, or the output of a task
    try:
        name, command = main_container(overrides)
        if isinstance(command, str) and "{{" not in command:
            return [f"the command of container {name!r} is a string; must be a list of strings"]
        # Without the command, which a submission has apart from its overrides.
        containers = [
            {key: value for key, value in each.items() if key != "command" or each.get("name") != name}
            if isinstance(each, dict)
            else each
            for each in overrides["containerOverrides"]
        ]
        check_overrides(
            {"overrides": _plain({**overrides, "containerOverrides": containers})},
            "overrides",
        )
    except (ValueError, InvalidSubmissionError) as error:
        return [str(error)]
    return []


def _plain(value: Any) -> Any:
    """Return a value with texts in place of outputs of tasks, which are not known yet."""
    match value:
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case str() | int() | float() | None:
            return value
        case _:
            return "..."
