"""The states of a submission."""

from __future__ import annotations

import enum


class State(str, enum.Enum):
    """A submission's state: shared/core/src/state.rs. One that this version does not know is kept, as `UNKNOWN`."""

    QUEUED = "queued"
    LAUNCHING = "launching"
    LAUNCHED = "launched"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    """The exit code is 0."""
    FAILED = "failed"
    """It started, and did not end with 0."""
    REJECTED = "rejected"
    """ECS refused it for good; it never started."""
    EXPIRED = "expired"
    """Its `launch_deadline` passed before it was launched."""
    CANCELLED = "cancelled"
    """A stop was asked for, and the exit code is not 0."""
    LOST = "lost"
    """ECS knows no task of it, and no exit code was seen."""

    @property
    def ended(self) -> bool:
        """Whether it is a terminal state, which never changes again."""
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
