"""Submissions, with the checks that need no profile of the deployment."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from ecs_bridge.errors import InvalidSubmissionError

SUBMISSION_ID = re.compile(r"[A-Za-z0-9_-]{1,60}")
PROFILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

OVERRIDES_LIMIT = 64 * 1024
"""Maximum size of the command and the overrides together, in bytes of JSON. This is the limit of a pool. Without a
pool, RunTask accepts 8,192 characters, and only the bridge can check this limit, because it knows the profile."""

LABELS_LIMIT = 200
"""Maximum size of all label keys and values of a submission, in bytes."""

DEFAULT_PRIORITY, LAST_PRIORITY = 500, 999
"""The default and the lowest urgency. Priorities start at 0, and smaller values run first."""

# The parameters of RunTask in botocore's model of ECS, without the parameters that the bridge sets.
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
# The parameters of TaskOverride in the same model.
_TASK = frozenset(
    {
        "containerOverrides",
        "cpu",
        "ephemeralStorage",
        "executionRoleArn",
        "inferenceAcceleratorOverrides",
        "memory",
        "taskRoleArn",
    }
)


@dataclass(frozen=True)
class Submission:
    """One command that runs once. Its ID is the idempotency key."""

    submission_id: str
    """1 to 60 of ``A-Za-z0-9_-``. Derive it from the caller's own key, so that a second request runs nothing twice."""
    # Not in the repr, because commands and environments may contain secrets.
    command: Sequence[str] = field(repr=False)
    profile: str | None = None
    """The profile of the deployment; defaults to ``default``."""
    overrides: Mapping[str, Any] | None = field(default=None, repr=False)
    """RunTask parameters that the profile allows, for example ``{"overrides": {"cpu": "1024"}, "tags": [...]}``."""
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    """Environment variables of the container named by `container`, in addition to those in `overrides`."""
    container: str | None = None
    """The name of the profile's container."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """The caller's own data, which the record keeps. Up to `LABELS_LIMIT` bytes; see `shortened`."""
    priority: int | None = None
    """0 to 999, smaller values first; defaults to 500."""
    launch_deadline: datetime | int | None = None
    """The latest time of the launch, as a datetime with a time zone or in epoch milliseconds."""
    event_bus: str | None = None
    """Name or ARN of an event bus that receives an event ``Submission State Change``. The deployment must allow it."""
    task_token: str | None = field(default=None, repr=False)
    """A Step Functions task token that receives the result. The deployment's ``TaskTokens`` must be true."""

    def item(self) -> dict[str, Any]:
        """Return the item for ``POST /v1/submissions``; raise InvalidSubmissionError if the submission is invalid."""
        check_id(self.submission_id)
        command = self.command
        if not isinstance(command, list | tuple) or not command or not all(isinstance(word, str) for word in command):
            raise InvalidSubmissionError(
                f"invalid command: got {type(command).__name__}{_shown(command)}; must be a non-empty list of strings; "
                "for a shell line, use ['sh', '-c', LINE]"
            )
        check_unicode(command, "command")
        item: dict[str, Any] = {"submission_id": self.submission_id, "command": list(command)}
        if self.profile is not None:
            item["profile"] = check_profile(self.profile, "profile")
        if overrides := self._overrides():
            item["overrides"] = overrides
        check_size(item["command"], overrides)
        if self.labels:
            item["labels"] = check_labels(self.labels)
        priority = self.priority
        if priority is not None:
            if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= LAST_PRIORITY:
                raise InvalidSubmissionError(
                    f"invalid priority: {priority!r}; must be an integer from 0 to {LAST_PRIORITY}"
                )
            item["priority"] = priority
        if self.launch_deadline is not None:
            item["launch_deadline"] = _milliseconds(self.launch_deadline)
        listeners = {"event_bus": self.event_bus, "task_token": self.task_token}
        if notify := {name: check_text(value, name) for name, value in listeners.items() if value is not None}:
            item["notify"] = notify
        return item

    def _overrides(self) -> dict[str, Any]:
        overrides = check_overrides(self.overrides or {}, "overrides")
        if not self.environment:
            return overrides
        if not self.container:
            raise InvalidSubmissionError(
                "missing container: environment requires it; set container to the name of the profile's container"
            )
        if not isinstance(self.environment, Mapping):
            raise InvalidSubmissionError("invalid environment: must be a dict of strings")
        if not isinstance(self.container, str) or not all(isinstance(name, str) and name for name in self.environment):
            raise InvalidSubmissionError("invalid container or environment: names must be non-empty strings")
        known = overrides.get("overrides", {}).get("containerOverrides", [])
        own: dict[str, Any] = next((each for each in known if each["name"] == self.container), {})
        variables = {each["name"]: each for each in own.get("environment", [])}
        check_unicode({str(name): str(value) for name, value in self.environment.items()}, "environment")
        variables |= {name: {"name": name, "value": str(value)} for name, value in self.environment.items()}
        ours = {"name": self.container, "environment": list(variables.values())}
        return merged(overrides, {"overrides": {"containerOverrides": [ours]}})


def check_id(submission_id: object) -> str:
    """Return the ID; raise InvalidSubmissionError if it is invalid."""
    if not isinstance(submission_id, str) or not SUBMISSION_ID.fullmatch(submission_id):
        raise InvalidSubmissionError(
            f"invalid submission_id: {submission_id!r:.100}; must be 1 to 60 letters, digits, '_' or '-'"
        )
    return submission_id


def check_text(value: object, name: str) -> str:
    """Return the value; raise InvalidSubmissionError unless it is a non-empty string."""
    if not isinstance(value, str) or not value:
        raise InvalidSubmissionError(f"invalid {name}: got {type(value).__name__}; must be a non-empty string")
    return value


def check_profile(profile: object, name: str) -> str:
    """Return the name of a profile; raise InvalidSubmissionError if it is invalid."""
    if not isinstance(profile, str) or not PROFILE_NAME.fullmatch(profile):
        raise InvalidSubmissionError(
            f"invalid {name}: {profile!r:.100}; must be a profile name of 1 to 64 letters, digits, '_' or '-'"
        )
    return profile


def check_overrides(overrides: Any, name: str, others: str = "") -> dict[str, Any]:
    """Return a copy of RunTask parameters; raise InvalidSubmissionError for parameters that callers must not set.

    :param others: the other parameters that `name` allows, for the message
    """
    if not isinstance(overrides, Mapping):
        given = type(overrides).__name__
        raise InvalidSubmissionError(f"invalid {name}: got {given}; must be a dict of RunTask parameters")
    if reserved := sorted(_OURS & overrides.keys()):
        raise InvalidSubmissionError(f"invalid {name}: the bridge sets {', '.join(reserved)}; remove it")
    if unknown := sorted(str(key) for key in overrides if key not in _RUN_TASK):
        meant = _meant(unknown, name)
        raise InvalidSubmissionError(
            f"unknown parameters in {name}: {', '.join(unknown)}; allowed are RunTask parameters{others}{meant}"
        )
    for container in _containers(overrides, name):
        if "command" in container:
            raise InvalidSubmissionError(
                f"invalid {name}: must not set the command of a container; set the command of the submission"
            )
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(overrides), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidSubmissionError(f"invalid {name}: not JSON serializable: {error}") from None
    check_unicode(copy, name)
    return copy


def check_unicode(value: Any, name: str) -> None:
    """Raise InvalidSubmissionError if a string in a value contains a lone surrogate, which cannot be encoded."""
    try:
        json_bytes(value)
    except UnicodeEncodeError as error:
        half = f"U+{ord(error.object[error.start]):04X}"
        words = f"contains the lone surrogate {half}; must be valid Unicode"
        raise InvalidSubmissionError(f"invalid {name}: {words}") from None


def _meant(unknown: list[str], name: str) -> str:
    """Return a suggestion for the first unknown key."""
    place, known = f"{name}['overrides']", [*_RUN_TASK, *_TASK]
    found = next(iter(get_close_matches(unknown[0].lower(), [each.lower() for each in known], 1, 0.8)), None)
    key = next((each for each in known if each.lower() == found), None)
    if key is None:
        return ""
    return f"; did you mean {name}[{key!r}]?" if key in _RUN_TASK else f"; did you mean {place}[{key!r}]?"


def _containers(overrides: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    task = overrides.get("overrides")
    if task is None:
        return []
    if not isinstance(task, dict):
        raise InvalidSubmissionError(f"invalid {name}['overrides']: must be a dict")
    if unknown := sorted(str(key) for key in task if key not in _TASK):
        raise InvalidSubmissionError(
            f"unknown parameters in {name}['overrides']: {', '.join(unknown)}; allowed are TaskOverride parameters"
            f"{_meant(unknown, name)}"
        )
    containers: list[dict[str, Any]] = task.get("containerOverrides", [])
    if not _are_named(containers):
        raise InvalidSubmissionError(
            f"invalid containerOverrides in {name}: must be a list of dicts, each with a string as name"
        )
    for container in containers:
        if not _are_named(container.get("environment", [])):
            raise InvalidSubmissionError(
                f"invalid container environment in {name}: must be a list of dicts, each with a string as name"
            )
    return containers


def _are_named(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(each, dict) and isinstance(each.get("name"), str) and each["name"] for each in values
    )


def check_size(command: list[str], overrides: Mapping[str, Any]) -> None:
    """Raise InvalidSubmissionError above the limit of a pool. Only the bridge knows what the profile adds."""
    size = json_bytes({**overrides.get("overrides", {}), "command": command})
    if size > OVERRIDES_LIMIT:
        raise InvalidSubmissionError(
            f"command and overrides are too large: {size} bytes of JSON; up to {OVERRIDES_LIMIT} are allowed; "
            "pass large data through a file or an S3 object"
        )


def check_labels(labels: Any) -> dict[str, str]:
    """Return the labels; raise InvalidSubmissionError if they are invalid."""
    texts = isinstance(labels, Mapping) and all(isinstance(each, str) for pair in labels.items() for each in pair)
    if not texts or not all(labels):
        raise InvalidSubmissionError("invalid labels: must be a dict of strings with non-empty keys")
    check_unicode(dict(labels), "labels")
    if (size := sum(len(key.encode()) + len(value.encode()) for key, value in labels.items())) > LABELS_LIMIT:
        raise InvalidSubmissionError(
            f"labels are too large: {size} bytes; up to {LABELS_LIMIT} are allowed; use shortened(labels)"
        )
    return dict(labels)


def shortened(labels: Mapping[str, str]) -> dict[str, str]:
    """Return labels truncated to `LABELS_LIMIT` bytes. Long values are truncated first."""
    room = LABELS_LIMIT - sum(len(key.encode()) for key in labels)
    result: dict[str, str] = {}
    shortest_first = sorted(labels, key=lambda key: len(labels[key].encode()))
    for place, key in enumerate(shortest_first):
        result[key] = _cut(labels[key], room // (len(labels) - place))
        room -= len(result[key].encode())
    return {key: result[key] for key in labels}


def merged(base: Mapping[str, Any], over: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Merge RunTask parameters in the same way as the bridge, dicts by key and containers by name."""
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


def json_bytes(value: Any) -> int:
    """Return the size of a value as JSON in a call of the bridge, in bytes."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def _cut(text: str, most: int) -> str:
    encoded = text.encode()
    if len(encoded) <= most:
        return text
    return encoded[: max(most - 3, 0)].decode(errors="ignore") + "…"


def _milliseconds(deadline: Any) -> int:
    if isinstance(deadline, datetime):
        if deadline.tzinfo is None:
            raise InvalidSubmissionError(
                "invalid launch_deadline: the time zone is missing; use datetime.now(timezone.utc)"
            )
        return round(deadline.timestamp() * 1000)
    if isinstance(deadline, bool) or not isinstance(deadline, int) or not 10**12 <= deadline < 10**14:
        raise InvalidSubmissionError(
            f"invalid launch_deadline: {deadline!r:.100}; must be a datetime or epoch milliseconds"
        )
    return deadline


def _shown(command: Any) -> str:
    # A list may contain secrets. A string instead of a list is the most common mistake.
    return f" {command!r:.60}" if isinstance(command, str) else ""
