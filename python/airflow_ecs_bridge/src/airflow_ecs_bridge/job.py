"""Conversion of an Airflow workload into a submission of the bridge.

A conversion costs a JSON dump and some checks, so the submitter's threads do it. The scheduler's thread only creates
the `Job`.
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
    """RunTask patches for the first try, the second try, and so on. The last patch also applies to all later tries."""

    patches: list[dict[str, Any]]
    by_try_condition: str | None = None
    """The hint of a try that selects the next patch. None means any result."""


@dataclass
class Job:
    """One pending submission. `subject` contains the labels, such as dag_id and task_id."""

    submission_id: str
    subject: dict[str, str]
    queue: str | None = None
    # Not in the repr, because commands contain tokens and executor_config may contain secrets.
    executor_config: Any = field(default=None, repr=False)
    workload: Any = field(default=None, repr=False)
    """The workload of Airflow 3, whose JSON is the argument of the command."""
    command: list[str] | None = field(default=None, repr=False)
    """The command of Airflow 2."""
    lifetime: float = 0.0
    """In Airflow 2, seconds after `queued_at` until the task counts as stuck. Airflow 3's token contains the expiry."""
    queued_at: float = field(default_factory=time.time)
    weight: int = 1
    """Airflow's priority_weight."""
    announce: bool = False
    """Whether to report that the bridge has accepted it."""
    failures: int = 0
    """Number of consecutive retryable failures."""
    body: dict[str, Any] | None = field(default=None, repr=False)
    """The submission after it is built. A retry must be identical."""
    size: int = 0
    """Size of the submission's JSON in bytes, after it is built."""
    guessed_profile: str | None = None
    """The profile, if only the name of the queue selects it."""

    def launch_deadline(self, margin: float) -> int | None:
        """Return the latest launch time in epoch milliseconds. Airflow rejects the worker's token after it."""
        if self.workload is None:
            return int((self.queued_at + self.lifetime - margin) * 1000)
        expiry = token_expiry(self.workload.token)
        return None if expiry is None else int((expiry - margin) * 1000)

    def sizes(self) -> Sizes | None:
        """Return the sizes by try from executor_config."""
        return read_sizes(self.executor_config)

    def build(self, profile: str | None, margin: float, patches: int = 0) -> dict[str, Any]:
        """Return the item for ``POST /v1/submissions``.

        :param patches: number of ``by_try`` patches of earlier tries
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
    """Return the bridge's priority for Airflow's priority_weight. A higher weight runs first.

    Airflow's default weight 1 is the bridge's default priority. Each unit of weight is one step, from -498 to 501.
    Weights outside this range are limited to it.
    """
    return min(max(DEFAULT_PRIORITY + 1 - weight, 0), LAST_PRIORITY)


def token_expiry(token: str) -> float | None:
    """Return the expiry of a workload's JWT in epoch seconds, unverified, or None if the token has no expiry."""
    try:
        claims = token.split(".")[1]
        expiry = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"]
        return float(expiry)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return None


def read_executor_config(config: Any) -> tuple[str | None, dict[str, Any]]:
    """Return the profile and the RunTask parameters in a task's ``executor_config``, without changing it.

    In addition to ``profile`` and the keys of `read_sizes`, it contains RunTask parameters as in AwsEcsExecutor:
    ``{"profile": "large", "overrides": {"containerOverrides": [{"name": "airflow", "environment": [..]}]}}``.
    """
    if not config:
        return None, {}
    if not isinstance(config, dict):
        raise InvalidSubmissionError(f"invalid executor_config: got {type(config).__name__}; must be a dict")
    overrides = {key: value for key, value in config.items() if key != "profile" and key not in _SIZES}
    profile = config.get("profile")
    if profile is not None:
        check_profile(profile, "executor_config['profile']")
    return profile, check_overrides(overrides, "executor_config", ", profile, by_try and by_try_condition")


def read_sizes(config: Any) -> Sizes | None:
    """Return the sizes by try in a task's ``executor_config``, or None if it has none.

    An example is ``{"by_try": [{}, {"overrides": {"memory": "8192"}}], "by_try_condition": "out_of_memory"}``. Each
    RunTask patch is merged over the other parameters.
    """
    if not isinstance(config, dict) or not _SIZES & config.keys():
        return None
    patches, by_try_condition = config.get("by_try"), config.get("by_try_condition")
    if not isinstance(patches, list) or not patches or not all(isinstance(patch, dict) for patch in patches):
        raise InvalidSubmissionError("invalid executor_config['by_try']: must be a list of dicts, one for each try")
    if by_try_condition not in (None, OUT_OF_MEMORY):
        raise InvalidSubmissionError(
            f"invalid executor_config['by_try_condition']: must be {OUT_OF_MEMORY!r} or omitted"
        )
    checked = [check_overrides(patch, f"executor_config['by_try'][{place}]") for place, patch in enumerate(patches)]
    return Sizes(checked, by_try_condition)
