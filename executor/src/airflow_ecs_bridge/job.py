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

from airflow_ecs_bridge.config import PROFILE_NAME

OVERRIDES_LIMIT = 64 * 1024
"""Bytes of JSON that the command and the overrides may have together. That is a pool's limit, the larger one: without a
pool RunTask takes 8,192 characters, and only the bridge knows what a profile has."""

DEFAULT_PRIORITY, LAST_PRIORITY = 500, 999
"""Of the bridge's priorities, which begin with 0 and of which the smaller is served first."""

LABELS_LIMIT = 200
"""Bytes that the keys and values of a submission's labels may have together."""

# RunTask's parameters, as botocore's model of ECS names them, but for those that are the bridge's own.
_RUN_TASK = frozenset(
    {
        "capacityProviderStrategy",
        "cluster",
        "enableECSManagedTags",
        "enableExecuteCommand",
        "group",
        "launchType",
        "networkConfiguration",
        "overrides",
        "placementConstraints",
        "placementStrategy",
        "platformVersion",
        "propagateTags",
        "referenceId",
        "tags",
        "taskDefinition",
        "volumeConfigurations",
    }
)
_OURS = frozenset({"count", "startedBy", "clientToken"})


OUT_OF_MEMORY = "out_of_memory"
"""The bridge's hint that a container ran out of memory."""

_SIZES = frozenset({"by_try", "only_after"})


class Unsubmittable(Exception):
    """This job can never be submitted as it is; the message is for its task's event log."""


@dataclass(frozen=True)
class Sizes:
    """RunTask patches for the first, the second, … try; the last is for all further ones."""

    patches: list[dict[str, Any]]
    only_after: str | None = None
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
            "labels": labels(self.subject),
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
        _check_size(body["command"], overrides)
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


def json_bytes(value: Any) -> int:
    """Return the bytes that a value takes in a call of the bridge."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


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
        raise Unsubmittable(f"executor_config must be a dict, not {type(config).__name__}")
    overrides = {key: value for key, value in config.items() if key != "profile" and key not in _SIZES}
    profile = config.get("profile")
    if profile is not None and not (isinstance(profile, str) and PROFILE_NAME.fullmatch(profile)):
        raise Unsubmittable("executor_config['profile'] is not a profile's name")
    return profile, _checked(overrides, "executor_config")


def read_sizes(config: Any) -> Sizes | None:
    """Return the sizes by try of a task's ``executor_config``; None if it has none.

    ``{"by_try": [{}, {"overrides": {"memory": "8192"}}], "only_after": "out_of_memory"}``: RunTask patches, each
    merged over the other parameters.
    """
    if not isinstance(config, dict) or not _SIZES & config.keys():
        return None
    patches, only_after = config.get("by_try"), config.get("only_after")
    if not isinstance(patches, list) or not patches or not all(isinstance(patch, dict) for patch in patches):
        raise Unsubmittable("executor_config['by_try'] must be a list of dicts, one for each try")
    if only_after not in (None, OUT_OF_MEMORY):
        raise Unsubmittable(f"executor_config['only_after'] must be {OUT_OF_MEMORY!r}, or left out")
    checked = [_checked(patch, f"executor_config['by_try'][{place}]") for place, patch in enumerate(patches)]
    return Sizes(checked, only_after)


def merged(base: dict[str, Any], over: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Return RunTask parameters with others over them, as the bridge merges: dicts by key, containers by name."""
    result = dict(base)
    for key, value in over.items():
        known, place = result.get(key), f"{path}.{key}"
        if isinstance(known, dict) and isinstance(value, dict):
            result[key] = merged(known, value, place)
        elif place == ".overrides.containerOverrides" and isinstance(known, list):
            containers = {each["name"]: each for each in known}
            for each in value:
                containers[each["name"]] = merged(containers.get(each["name"], {}), each, place)
            result[key] = list(containers.values())
        else:
            result[key] = value
    return result


def _checked(overrides: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a copy of RunTask parameters that can be sent; raise if they are not the task's to set."""
    if reserved := sorted(_OURS & overrides.keys()):
        raise Unsubmittable(f"{name} may not set {', '.join(reserved)}: the bridge does")
    if unknown := sorted(str(key) for key in overrides if key not in _RUN_TASK):
        others = "neither profile, by_try or only_after nor" if name == "executor_config" else "not"
        raise Unsubmittable(f"{name} has what is {others} a parameter of RunTask: {', '.join(unknown)}")
    for container in _containers(overrides, name):
        if "command" in container:
            raise Unsubmittable(f"{name} may not set a container's command: Airflow does")
    try:
        copy: dict[str, Any] = json.loads(json.dumps(overrides, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise Unsubmittable(f"{name} is not JSON: {error}") from None
    return copy


def _containers(overrides: dict[str, Any], name: str) -> list[dict[str, Any]]:
    task = overrides.get("overrides")
    if task is None:
        return []
    if not isinstance(task, dict):
        raise Unsubmittable(f"{name}['overrides'] must be a dict")
    containers = task.get("containerOverrides", [])
    if not isinstance(containers, list) or not all(isinstance(each, dict) and "name" in each for each in containers):
        raise Unsubmittable(f"{name}'s containerOverrides must be a list of dicts with a name each")
    return containers


def _check_size(command: list[str], overrides: dict[str, Any]) -> None:
    # What the profile adds is only known to the bridge, which checks the whole; this spares the round trip.
    task = overrides.get("overrides", {})
    size = json_bytes({**task, "command": command})
    if size > OVERRIDES_LIMIT:
        raise Unsubmittable(
            f"the command and the overrides have {size} bytes of JSON, and the bridge takes {OVERRIDES_LIMIT} at most; "
            "long identifiers, executor_config and tracing context add to it"
        )


def labels(subject: dict[str, str]) -> dict[str, str]:
    """Return the subject cut to `LABELS_LIMIT` bytes: long values give way to short ones, evenly."""
    room = LABELS_LIMIT - sum(len(key.encode()) for key in subject)
    result: dict[str, str] = {}
    shortest_first = sorted(subject, key=lambda key: len(subject[key].encode()))
    for place, key in enumerate(shortest_first):
        result[key] = _cut(subject[key], room // (len(subject) - place))
        room -= len(result[key].encode())
    return {key: result[key] for key in subject}


def _cut(text: str, most: int) -> str:
    encoded = text.encode()
    if len(encoded) <= most:
        return text
    return encoded[: max(most - 3, 0)].decode(errors="ignore") + "…"
