"""The submissions of a run, by its seed, with the results that each may have."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SHAPE = "ECS_BRIDGE_LOCAL_SHAPE"
MAX_ATTEMPTS = 3
# Far longer than any run: such a command ends only by a stop.
FOR_EVER = 100_000


def profile(**policy: Any) -> dict[str, Any]:
    return {
        "run_task": {
            "taskDefinition": "demo",
            "launchType": "FARGATE",
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}},
        },
        "container_name": "main",
        "allow_overrides": ["overrides.containerOverrides.environment"],
        "max_attempts": MAX_ATTEMPTS,
        **policy,
    }


PROFILES = {
    "default": profile(),
    "whole-task": profile(complete_on="task_stopped"),
    "again": profile(relaunch_on=["SpotInterruption", "TerminationNotice", "InfrastructureHealth"]),
    "run-timeout": profile(run_timeout=2),
}


@dataclass(frozen=True)
class Planned:
    """One submission, when it is stopped, and how it may end."""

    submission_id: str
    kind: str
    command: list[str]
    profile: str
    states: frozenset[str]
    # Its command's exit code unless it is stopped; none if it does not end by itself.
    code: int | None
    shape: str | None = None
    # Milliseconds from its submission.
    deadline_ms: int | None = None
    # Seconds from its submission; below zero: before it.
    stop_after: float | None = None
    relaunches: bool = False
    # The targets of its notifications: an event bus, and sometimes a task token.
    notify: tuple[str, ...] = ()

    def item(self, now_ms: int) -> dict[str, Any]:
        item: dict[str, Any] = {"submission_id": self.submission_id, "command": self.command, "profile": self.profile}
        if self.shape:
            variables = [{"name": SHAPE, "value": self.shape}]
            overrides = {"containerOverrides": [{"name": "main", "environment": variables}]}
            item["overrides"] = {"overrides": overrides}
        if self.deadline_ms is not None:
            item["launch_deadline"] = now_ms + self.deadline_ms
        if self.notify:
            item["notify"] = {name: self.listener(name) for name in self.notify}
        return item

    def listener(self, name: str) -> str:
        return {"event_bus": "default", "task_token": f"token-{self.submission_id}"}[name]


# Shapes that change how ECS reports the end, but not the end.
ODD_BUT_TRUE = [
    "failed-to-start-after-exit",
    "short-arns",
    "foreign-task-arn",
    "no-started-by",
    "no-launch-type",
    "unknown-members",
    "no-version",
    "mistyped-members",
    "event-time",
    "clock-skew",
    "skip-states",
    "no-events",
    "twin",
    "spot-notice",
    "termination-notice",
]

KINDS = {
    "exits": 48,
    "odd": 12,
    "stopped": 10,
    "deadline": 8,
    "whole task": 6,
    "spot": 6,
    "host lost": 3,
    "host seems lost": 3,
    "run timeout": 3,
    "forgotten": 2,
}


def plan(seed: int, count: int) -> Iterator[Planned]:
    chance = random.Random(f"plan/{seed}")
    kinds = chance.choices(list(KINDS), list(KINDS.values()), k=count)
    return (planned(f"s{seed}-{number:05}", kind, chance) for number, kind in enumerate(kinds))


def planned(submission_id: str, kind: str, chance: random.Random) -> Planned:
    def planned(states: str, command: list[str], code: int | None, **more: Any) -> Planned:
        more = {"profile": "default", "notify": notify, **more}
        return Planned(submission_id, kind, command, states=frozenset(states.split()), code=code, **more)

    notify = chance.choice([(), (), ("event_bus",), ("event_bus", "task_token")])
    code = chance.choice([0, 0, 0, 0, 0, 1, 7, 137, 255])
    exits = ["true"] if code == 0 else ["sh", "-c", f"exit {code}"]
    if chance.random() < 0.3:
        exits, code = ["sleep", str(chance.randint(1, 30))], 0
    # `failed` is always possible: every attempt may fail to start.
    ends = "succeeded failed" if code == 0 else "failed"
    for_ever = ["sleep", str(FOR_EVER)]
    match kind:
        case "exits":
            return planned(ends, exits, code)
        case "odd":
            # A container that is listed twice exits with 0 only if both entries do; its twin does.
            return planned(ends, exits, code, shape=chance.choice(ODD_BUT_TRUE))
        case "whole task":
            return planned(ends, exits, code, profile="whole-task")
        # A claimed RunTask whose process died is not repeated after a stop or a deadline: `lost`, if ECS has no task
        # of it, which `audit` checks.
        case "stopped":
            # Of a worker that handles SIGTERM, a stop reports exit code 0: it has succeeded.
            shape, states = chance.choice([(None, ""), ("stop-reports-0", "succeeded ")])
            states += "cancelled failed lost"
            return planned(states, for_ever, None, stop_after=chance.uniform(-1, 6), shape=shape)
        case "deadline":
            return planned(f"expired lost {ends}", exits, code, deadline_ms=chance.randint(-500, 8000))
        case "spot":
            shape = chance.choice(["spot-interruption", "infrastructure-health"])
            return planned("failed", for_ever, None, profile="again", shape=shape, relaunches=True)
        case "host lost":
            return planned("failed", for_ever, None, shape="infrastructure-health")
        case "host seems lost":
            # Not on Fargate, where ECS knows better. It is asked before another attempt, and the container runs on.
            return planned(ends, exits, code, profile="again", shape="seems-lost no-launch-type")
        case "run timeout":
            return planned("failed", for_ever, None, profile="run-timeout")
        case "forgotten":
            # ECS forgets it at its end, and sends no event: `lost`, unless it was described in time.
            return planned(f"lost {ends}", exits, code, shape="forgotten")
    raise ValueError(kind)
