"""What is submitted, checked as far as it can be without the deployment's profiles."""

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
"""Bytes of JSON that the command and the overrides may have together. That is a pool's limit, the larger one: without a
pool RunTask takes 8,192 characters, and only the bridge knows what a profile has."""

LABELS_LIMIT = 200
"""Bytes that the keys and values of a submission's labels may have together."""

DEFAULT_PRIORITY, LAST_PRIORITY = 500, 999
"""Of the priorities, which begin with 0 and of which the smaller is served first."""

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
# TaskOverride, likewise.
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
    """One command to run once; its id is the key of idempotency."""

    submission_id: str
    """1 to 60 of ``A-Za-z0-9_-``. Derive it from what asks for the command, so that asking again runs nothing twice."""
    # Not in the repr: commands and environments may hold secrets.
    command: Sequence[str] = field(repr=False)
    profile: str | None = None
    """The deployment's profile; None: ``default``."""
    overrides: Mapping[str, Any] | None = field(default=None, repr=False)
    """Parameters of RunTask that the profile allows: ``{"overrides": {"cpu": "1024"}, "tags": [...]}``."""
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    """Variables of the container named by `container`, added to those in `overrides`."""
    container: str | None = None
    """The name of the profile's container."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """The caller's own data, kept in the record; at most `LABELS_LIMIT` bytes, see `shortened`."""
    priority: int | None = None
    """0 to 999, the smaller first; None: 500."""
    launch_deadline: datetime | int | None = None
    """When a launch is of no use any more: an aware datetime, or epoch milliseconds."""
    event_bus: str | None = None
    """An event bus, by name or ARN, that gets an event ``Submission State Change``: one of the deployment's."""
    task_token: str | None = field(default=None, repr=False)
    """A token of Step Functions, which is sent the end; the deployment's ``TaskTokens`` must be true."""

    def item(self) -> dict[str, Any]:
        """Return the item for ``POST /v1/submissions``; raise InvalidSubmissionError if the bridge cannot take it."""
        check_id(self.submission_id)
        command = self.command
        if not isinstance(command, list | tuple) or not command or not all(isinstance(word, str) for word in command):
            raise InvalidSubmissionError(
                f"command must be a list of strings, not {type(command).__name__}{_shown(command)}; "
                "for a shell's line: ['sh', '-c', LINE]"
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
                    f"priority must be a whole number from 0 to {LAST_PRIORITY}, not {priority!r}"
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
            raise InvalidSubmissionError("environment needs the name of the profile's container: set container")
        if not isinstance(self.environment, Mapping):
            raise InvalidSubmissionError("environment must be a dict of strings")
        if not isinstance(self.container, str) or not all(isinstance(name, str) and name for name in self.environment):
            raise InvalidSubmissionError("container, and the names of environment, must be texts")
        known = overrides.get("overrides", {}).get("containerOverrides", [])
        own: dict[str, Any] = next((each for each in known if each["name"] == self.container), {})
        variables = {each["name"]: each for each in own.get("environment", [])}
        check_unicode({str(name): str(value) for name, value in self.environment.items()}, "environment")
        variables |= {name: {"name": name, "value": str(value)} for name, value in self.environment.items()}
        ours = {"name": self.container, "environment": list(variables.values())}
        return merged(overrides, {"overrides": {"containerOverrides": [ours]}})


def check_id(submission_id: object) -> str:
    """Return an id, or raise InvalidSubmissionError if it is none."""
    if not isinstance(submission_id, str) or not SUBMISSION_ID.fullmatch(submission_id):
        raise InvalidSubmissionError(
            f"submission_id must be 1 to 60 letters, digits, '_' or '-', not {submission_id!r:.100}"
        )
    return submission_id


def check_text(value: object, name: str) -> str:
    """Return a text that is not empty, or raise InvalidSubmissionError if it is none."""
    if not isinstance(value, str) or not value:
        raise InvalidSubmissionError(f"{name} must be a text that is not empty, not {type(value).__name__}")
    return value


def check_profile(profile: object, name: str) -> str:
    """Return a profile's name, or raise InvalidSubmissionError if it is none."""
    if not isinstance(profile, str) or not PROFILE_NAME.fullmatch(profile):
        raise InvalidSubmissionError(
            f"{name} is not a profile's name: 1 to 64 letters, digits, '_' or '-', not {profile!r:.100}"
        )
    return profile


def check_overrides(overrides: Any, name: str, others: str = "not") -> dict[str, Any]:
    """Return a copy of RunTask parameters that can be sent; raise InvalidSubmissionError if the bridge sets them.

    :param others: what the message calls a parameter that is not RunTask's
    """
    if not isinstance(overrides, Mapping):
        raise InvalidSubmissionError(f"{name} must be a dict of parameters of RunTask, not {type(overrides).__name__}")
    if reserved := sorted(_OURS & overrides.keys()):
        raise InvalidSubmissionError(f"{name} may not set {', '.join(reserved)}: the bridge does")
    if unknown := sorted(str(key) for key in overrides if key not in _RUN_TASK):
        meant = _meant(unknown, name)
        raise InvalidSubmissionError(f"{name} has what is {others} a parameter of RunTask: {', '.join(unknown)}{meant}")
    for container in _containers(overrides, name):
        if "command" in container:
            raise InvalidSubmissionError(f"{name} may not set a container's command: the submission's is the one")
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(overrides), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidSubmissionError(f"{name} is not JSON: {error}") from None
    check_unicode(copy, name)
    return copy


def check_unicode(value: Any, name: str) -> None:
    """Raise InvalidSubmissionError if a text in a value cannot be encoded: it has a lone surrogate."""
    try:
        json_bytes(value)
    except UnicodeEncodeError as error:
        half = f"U+{ord(error.object[error.start]):04X}"
        raise InvalidSubmissionError(f"{name} has a text that is not Unicode: {half} is half of a character") from None


def _meant(unknown: list[str], name: str) -> str:
    """Return what the first of some unknown keys may have been meant for."""
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
        raise InvalidSubmissionError(f"{name}['overrides'] must be a dict")
    if unknown := sorted(str(key) for key in task if key not in _TASK):
        raise InvalidSubmissionError(
            f"{name}['overrides'] has what is not a parameter of a task's overrides: {', '.join(unknown)}"
            f"{_meant(unknown, name)}"
        )
    containers: list[dict[str, Any]] = task.get("containerOverrides", [])
    if not _are_named(containers):
        raise InvalidSubmissionError(
            f"{name}'s containerOverrides must be a list of dicts, each with a text as its name"
        )
    for container in containers:
        if not _are_named(container.get("environment", [])):
            raise InvalidSubmissionError(
                f"the environment of a container in {name} must be a list of dicts, each with a text as its name"
            )
    return containers


def _are_named(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(each, dict) and isinstance(each.get("name"), str) and each["name"] for each in values
    )


def check_size(command: list[str], overrides: Mapping[str, Any]) -> None:
    """Raise InvalidSubmissionError if not even a pool takes it; what the profile adds is only known to the bridge."""
    size = json_bytes({**overrides.get("overrides", {}), "command": command})
    if size > OVERRIDES_LIMIT:
        raise InvalidSubmissionError(
            f"the command and the overrides have {size} bytes of JSON, and the bridge takes {OVERRIDES_LIMIT} at most; "
            "hand large data over by a file or an object of S3"
        )


def check_labels(labels: Any) -> dict[str, str]:
    """Return labels that the bridge takes, or raise InvalidSubmissionError."""
    texts = isinstance(labels, Mapping) and all(isinstance(each, str) for pair in labels.items() for each in pair)
    if not texts or not all(labels):
        raise InvalidSubmissionError("labels must be a dict of strings, whose keys are not empty")
    check_unicode(dict(labels), "labels")
    if (size := sum(len(key.encode()) + len(value.encode()) for key, value in labels.items())) > LABELS_LIMIT:
        raise InvalidSubmissionError(
            f"labels have {size} bytes, and the bridge takes {LABELS_LIMIT} at most: cut them, or use shortened(labels)"
        )
    return dict(labels)


def shortened(labels: Mapping[str, str]) -> dict[str, str]:
    """Return labels cut to `LABELS_LIMIT` bytes: long values give way to short ones, evenly."""
    room = LABELS_LIMIT - sum(len(key.encode()) for key in labels)
    result: dict[str, str] = {}
    shortest_first = sorted(labels, key=lambda key: len(labels[key].encode()))
    for place, key in enumerate(shortest_first):
        result[key] = _cut(labels[key], room // (len(labels) - place))
        room -= len(result[key].encode())
    return {key: result[key] for key in labels}


def merged(base: Mapping[str, Any], over: Mapping[str, Any], path: str = "") -> dict[str, Any]:
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


def json_bytes(value: Any) -> int:
    """Return the bytes that a value takes in a call of the bridge."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def _cut(text: str, most: int) -> str:
    encoded = text.encode()
    if len(encoded) <= most:
        return text
    return encoded[: max(most - 3, 0)].decode(errors="ignore") + "…"


def _milliseconds(deadline: Any) -> int:
    if isinstance(deadline, datetime):
        if deadline.tzinfo is None:
            raise InvalidSubmissionError("launch_deadline must have a time zone: datetime.now(timezone.utc) has one")
        return round(deadline.timestamp() * 1000)
    if isinstance(deadline, bool) or not isinstance(deadline, int) or not 10**12 <= deadline < 10**14:
        raise InvalidSubmissionError(f"launch_deadline must be a datetime or epoch milliseconds, not {deadline!r:.100}")
    return deadline


def _shown(command: Any) -> str:
    # A list may hold secrets in its words; a text in place of a list is the mistake that most make.
    return f" {command!r:.60}" if isinstance(command, str) else ""
