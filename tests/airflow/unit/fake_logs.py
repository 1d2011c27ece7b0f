"""CloudWatch Logs as far as live output needs it, on a clock that a test steps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

NAMES = 100
"""FilterLogEvents' limit of ``logStreamNames``."""


@dataclass
class Clock:
    """Both clocks of a process; `now` in seconds."""

    now: float = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def ms(self) -> int:
        return 1_800_000_000_000 + round(self.now * 1000)


@dataclass(order=True)
class Line:
    at: int
    visible_at: int
    id: str
    stream: str = field(compare=False)
    message: str = field(compare=False)


class FakeLogs:
    """One log group: a client for its readers, and the ways for a test to write and to look."""

    def __init__(self, clock: Clock, page: int = 10_000) -> None:
        self.clock = clock
        self.page = page
        self.lines: list[Line] = []
        self.streams: set[str] = set()
        self.calls: list[dict[str, Any]] = []
        self.called_at: list[float] = []
        self.answers: Counter[str] = Counter()
        self.empty_pages = 0
        """Answers without events before those with."""
        self.errors: list[Exception] = []
        """What the next calls fail with."""
        self.always: Exception | None = None
        """What each call fails with."""

    def write(self, stream: str, message: str, *, visible_after: float = 0.0, at: int | None = None) -> None:
        """Write a line now, which can be read a while later."""
        now = self.clock.ms()
        self.streams.add(stream)
        visible_at = now + round(visible_after * 1000)
        self.lines.append(Line(now if at is None else at, visible_at, f"{len(self.lines):056}", stream, message))

    def filter_log_events(
        self,
        *,
        logGroupName: str,
        startTime: int,
        logStreamNames: list[str] | None = None,
        logStreamNamePrefix: str | None = None,
        nextToken: str | None = None,
    ) -> dict[str, Any]:
        """Answer as CloudWatch Logs does: oldest first, and not at all if a named stream does not exist."""
        self.calls.append({"names": logStreamNames, "prefix": logStreamNamePrefix, "start": startTime})
        self.called_at.append(self.clock.now)
        if self.always or self.errors:
            error = self.always or self.errors.pop(0)
            self.answers["failed"] += 1
            raise error
        if logStreamNames is not None:
            assert 1 <= len(logStreamNames) <= NAMES
            assert logStreamNamePrefix is None
            if not self.streams.issuperset(logStreamNames):
                self.answers["missing"] += 1
                raise refusal("ResourceNotFoundException", "The specified log stream does not exist.")
        wanted = set(logStreamNames or ())
        found = sorted(
            line
            for line in self.lines
            if line.at >= startTime
            and line.visible_at <= self.clock.ms()
            and (line.stream in wanted if logStreamNames else line.stream.startswith(logStreamNamePrefix or ""))
        )
        empty, begin = map(int, (nextToken or f"{self.empty_pages} 0").split())
        if empty:
            return {"events": [], "nextToken": f"{empty - 1} {begin}"}
        events = [
            {"eventId": line.id, "timestamp": line.at, "message": line.message, "logStreamName": line.stream}
            for line in found[begin : begin + self.page]
        ]
        more = {"nextToken": f"0 {begin + self.page}"} if len(found) > begin + self.page else {}
        self.answers["answered"] += 1
        return {"events": events, **more}


def refusal(code: str, message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "FilterLogEvents")
