"""The states of a submission."""

from __future__ import annotations

import enum


class State(str, enum.Enum):
    """The state of a submission (shared/core/src/state.rs). States of later versions are kept as `UNKNOWN`."""

    QUEUED = "queued"
    LAUNCHING = "launching"
    LAUNCHED = "launched"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    """The exit code is 0."""
    FAILED = "failed"
    """The command started, and its exit code is not 0."""
    REJECTED = "rejected"
    """ECS rejected the task permanently, so the command never started."""
    EXPIRED = "expired"
    """The `launch_deadline` passed before the launch."""
    CANCELLED = "cancelled"
    """A stop was requested, and the exit code is not 0."""
    LOST = "lost"
    """ECS has no task of the submission, and no exit code was received."""

    @property
    def ended(self) -> bool:
        """True for a terminal state, which never changes again."""
        return self in TERMINAL

    def __str__(self) -> str:
        return str(self.value)

    @classmethod
    def _missing_(cls, value: object) -> State | None:
        if not isinstance(value, str):
            return None
        unknown = str.__new__(cls, value)
        unknown._name_ = "UNKNOWN"
        unknown._value_ = value
        return unknown


TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.REJECTED, State.EXPIRED, State.CANCELLED, State.LOST})
