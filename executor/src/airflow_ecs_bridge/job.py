"""From an Airflow workload to a submission of the bridge.

Building one costs a JSON dump and some checks, so it is done in the submitter's threads; the scheduler's thread only
makes the `Job`.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from dataclasses import dataclass, field
from typing import Any

from ecs_bridge.errors import InvalidSubmissionError
from ecs_bridge.submission import (
    DEFAULT_PRIORITY,
    LAST_PRIORITY,
    check_overrides,
    check_profile,
    check_size,
    json_bytes,
    merged,
    shortened,
)

OUT_OF_MEMORY = "out_of_memory"
"""The bridge's hint that a container ran out of memory."""

_SIZES = frozenset({"by_try", "by_try_condition"})


@dataclass(frozen=True)
class Sizes:
    """RunTask patches for the first, the second, … try; the last is for all further ones."""

    patches: list[dict[str, Any]]
    by_try_condition: str | None = None
    """The hint with which a try must have ended for the next patch to apply; None: any end."""


@dataclass
class Job:
    """One submission to make. `subject` is what the labels name: dag_id, task_id and so on."""

    submission_id: str
    subject: dict[str, str]
    queue: str | None = None
    # Not in the repr: commands hold tokens, and executor_config may hold anything.
    executor_config: Any = field(default=None, repr=False)
    workload: Any = field(default=None, repr=False)
    """Airflow 3: the workload, whose JSON is the command's argument."""
    command: list[str] | None = field(default=None, repr=False)
    """Airflow 2: the command itself."""
    lifetime: float = 0.0
    """Airflow 2: seconds after `queued_at` until Airflow takes the task for stuck. Airflow 3's token says it itself."""
    queued_at: float = field(default_factory=time.time)
    weight: int = 1
    """Airflow's priority_weight."""
    announce: bool = False
    """Report that the bridge has accepted it."""
    failures: int = 0
    """Calls and answers in a row that asked to try again."""
    body: dict[str, Any] | None = field(default=None, repr=False)
    """The submission, once built; a repeat must be the same to the letter."""
    size: int = 0
    """Bytes of the submission's JSON, once built."""
    guessed_profile: str | None = None
    """The profile, where only the queue's name speaks for it."""

    def launch_deadline(self, margin: float) -> int | None:
        """Return the epoch milliseconds after which a launch is of no use: the worker's token would be refused."""
        if self.workload is None:
            return int((self.queued_at + self.lifetime - margin) * 1000)
        expiry = token_expiry(self.workload.token)
        return None if expiry is None else int((expiry - margin) * 1000)

    def sizes(self) -> Sizes | None:
        """Return what executor_config says of the sizes of its tries."""
        return read_sizes(self.executor_config)

    def build(self, profile: str | None, margin: float, patches: int = 0) -> dict[str, Any]:
        """Return the item for ``POST /v1/submissions``.

        :param patches: how many of ``by_try`` are left behind
        """
        chosen, overrides = read_executor_config(self.executor_config)
        if sizes := self.sizes():
            overrides = merged(overrides, sizes.patches[min(patches, len(sizes.patches) - 1)])
        self.guessed_profile = None if chosen else profile
        body: dict[str, Any] = {
            "submission_id": self.submission_id,
            "command": self._command(),
            "labels": shortened(self.subject),
        }
        if overrides:
            body["overrides"] = overrides
        if chosen or profile:
            body["profile"] = chosen or profile
        deadline = self.launch_deadline(margin)
        if deadline is not None:
            body["launch_deadline"] = deadline
        if (urgency := priority(self.weight)) != DEFAULT_PRIORITY:
            body["priority"] = urgency
        check_size(body["command"], overrides)
        self.body, self.size = body, json_bytes(body)
        return body

    def _command(self) -> list[str]:
        if self.workload is None:
            return list(self.command or [])
        module = "airflow.sdk.execution_time.execute_workload"
        return ["python", "-m", module, "--json-string", self.workload.model_dump_json()]


def priority(weight: int) -> int:
    """Return the bridge's priority for Airflow's priority_weight, of which the higher goes first.

    Airflow's default, 1, is the bridge's default; a unit of weight is a step, from -498 to 501. What lies beyond is
    served like the nearest of these.
    """
    return min(max(DEFAULT_PRIORITY + 1 - weight, 0), LAST_PRIORITY)


def token_expiry(token: str) -> float | None:
    """Return the epoch seconds at which a workload's JWT expires, unverified; None if it does not say."""
    try:
        claims = token.split(".")[1]
        expiry = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"]
        return float(expiry)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return None


def read_executor_config(config: Any) -> tuple[str | None, dict[str, Any]]:
    """Return the profile and the RunTask parameters that a task's ``executor_config`` asks for; never changes it.

    Beside ``profile`` and what `read_sizes` reads it holds RunTask's own parameters, as AwsEcsExecutor takes them:
    ``{"profile": "large", "overrides": {"containerOverrides": [{"name": "airflow", "environment": [..]}]}}``.
    """
    if not config:
        return None, {}
    if not isinstance(config, dict):
        raise InvalidSubmissionError(f"executor_config must be a dict, not {type(config).__name__}")
    overrides = {key: value for key, value in config.items() if key != "profile" and key not in _SIZES}
    profile = config.get("profile")
    if profile is not None:
        check_profile(profile, "executor_config['profile']")
    return profile, check_overrides(overrides, "executor_config", "neither profile, by_try or by_try_condition nor")


def read_sizes(config: Any) -> Sizes | None:
    """Return the sizes by try of a task's ``executor_config``; None if it has none.

    ``{"by_try": [{}, {"overrides": {"memory": "8192"}}], "by_try_condition": "out_of_memory"}``: RunTask patches, each
    merged over the other parameters.
    """
    if not isinstance(config, dict) or not _SIZES & config.keys():
        return None
    patches, by_try_condition = config.get("by_try"), config.get("by_try_condition")
    if not isinstance(patches, list) or not patches or not all(isinstance(patch, dict) for patch in patches):
        raise InvalidSubmissionError("executor_config['by_try'] must be a list of dicts, one for each try")
    if by_try_condition not in (None, OUT_OF_MEMORY):
        raise InvalidSubmissionError(f"executor_config['by_try_condition'] must be {OUT_OF_MEMORY!r}, or left out")
    checked = [check_overrides(patch, f"executor_config['by_try'][{place}]") for place, patch in enumerate(patches)]
    return Sizes(checked, by_try_condition)
