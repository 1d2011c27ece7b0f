"""Runs the provider's unit tests of EcsRunTaskOperator against the drop-in. It is the conftest of their folder.

The tests mock ``EcsBaseOperator.client``, an ECS client. The drop-in has no ECS client, because it submits to the
bridge. So `Bridge` here makes each call to the mock that the real bridge makes to ECS. A submission becomes RunTask,
and a response of DescribeTasks becomes the record that the bridge would have.

The bridge runs no command of an image, so the drop-in rejects ``overrides={}``, which is the default of these tests.
The adapter passes `COMMAND` instead, and omits it from the call to the mock.
"""

from __future__ import annotations

import logging
import os
import tempfile
from types import SimpleNamespace
from typing import Any

os.environ.update(
    AIRFLOW_HOME=tempfile.mkdtemp(),
    AWS_ACCESS_KEY_ID="test",
    AWS_SECRET_ACCESS_KEY="test",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_EC2_METADATA_DISABLED="true",
)

import pytest
from airflow.providers.amazon.aws.operators.ecs import EcsBaseOperator

from airflow_ecs_bridge import commands, compat

COMMAND = {"containerOverrides": [{"name": "main", "command": ["true"]}]}


class Bridge:
    """What the drop-in uses of `commands.Commands`, in front of the ECS client that a test mocks."""

    def __init__(self, operator: Any) -> None:
        self.operator = operator
        self.settings = SimpleNamespace(local_log_dir=None)
        self.aws = SimpleNamespace(region=lambda: operator.region_name)

    async def run(self, body: dict[str, Any], lines: int, say: Any) -> Any:
        """Call RunTask as the bridge does."""
        request = dict(body["overrides"])
        (first, *others) = request["overrides"]["containerOverrides"]
        request["overrides"] = {"containerOverrides": [{**first, "command": body["command"]}, *others]}
        if request["overrides"] == COMMAND:
            request["overrides"] = {}
        response = ecs().run_task(**request, startedBy=f"local/{body['submission_id']}/1")
        if len(response["failures"]):
            record = {"state": "rejected", "reason": str(response["failures"])}
        else:
            record = {"state": "launched", "task_arn": response["tasks"][0]["taskArn"]}
        return SimpleNamespace(succeeded=True, record={"submission_id": body["submission_id"], **record}, info="")

    def _show_patiently(self, id: str) -> dict[str, Any]:
        """Return the record that the bridge makes of a task's description."""
        response = ecs().describe_tasks(cluster=self.operator.cluster, tasks=[self.operator.arn])
        if len(response.get("failures", [])):
            return {"submission_id": id, "state": "lost"}
        for task in response["tasks"]:
            # The bridge knows the container that runs the command, as soon as ECS has a status of it.
            containers = sorted(task["containers"], key=lambda each: "lastStatus" not in each)
            main = containers[0]
            code = main.get("exitCode")
            ended = "failed" if code != 0 else "succeeded"
            record = {
                "submission_id": id,
                "state": "launched" if main.get("lastStatus") == "PENDING" else ended,
                "container_name": main.get("name"),
                "exit_code": code,
                "stop_code": task.get("stopCode"),
                "stopped_reason": task.get("stoppedReason"),
                "task_arn": self.operator.arn,
            }
            return {name: value for name, value in record.items() if value is not None}
        return {"submission_id": id, "state": "succeeded", "exit_code": 0, "task_arn": self.operator.arn}

    def stop_now(self, id: str, reason: str) -> None:
        """Call StopTask as the bridge does."""
        ecs().stop_task(cluster=self.operator.cluster, task=self.operator.arn, reason=reason)

    def revive(self) -> None:
        """Have no threads."""


def ecs() -> Any:
    """Return the client that the test mocks."""
    return vars(EcsBaseOperator)["client"]


class EcsRunTaskOperator(compat.EcsRunTaskOperator):
    """The drop-in on that bridge."""

    def __init__(self, *, overrides: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(overrides=overrides or COMMAND, **kwargs)
        # Some tests call a method that needs the try, without execute.
        self._begin({"ti": SimpleNamespace()})

    def _here(self) -> Any:
        return Bridge(self)


@pytest.fixture(autouse=True)
def _logs_and_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log as the provider's own test plugin does, for caplog. The task instances are mocks, which have no key."""
    monkeypatch.setattr(EcsBaseOperator, "log", logging.getLogger("airflow.task"), raising=False)
    monkeypatch.setattr(commands, "submission_id", lambda ti: "op-test")
    monkeypatch.setattr(commands, "subject", lambda ti: {})
    logging.getLogger("airflow.task").propagate = True
    logging.getLogger("airflow.task").setLevel("INFO")
