"""The output of containers on a local stack, for the provider's log fetcher."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class LocalLogs:
    """The methods of the provider's AwsLogsHook that its AwsTaskLogFetcher uses, on a folder.

    The lines have no times in their files, so each has the time at which it was first seen.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self.region_name: str | None = None

    @property
    def conn(self) -> LocalLogs:
        """The client, which reads the last lines."""
        return self

    def get_log_events(
        self,
        log_group: str = "",
        log_stream_name: str = "",
        *,
        continuation_token: Any = None,
        logGroupName: str = "",
        logStreamName: str = "",
        startFromHead: bool = True,
        limit: int | None = None,
    ) -> Any:
        """Yield new complete lines, as the hook does. With the client's arguments, return the last lines."""
        if logStreamName:
            lines = self._lines(logStreamName, with_last=True)
            return {"events": [{"message": line, "timestamp": _now_ms()} for line in lines[-(limit or len(lines)) :]]}
        return self._new_lines(log_stream_name, continuation_token)

    def _new_lines(self, stream: str, token: Any) -> Iterator[dict[str, Any]]:
        seen = int(token.value or 0)
        for line in self._lines(stream)[seen:]:
            seen += 1
            token.value = str(seen)
            yield {"message": line, "timestamp": _now_ms()}

    def _lines(self, stream: str, with_last: bool = False) -> list[str]:
        """Return the lines of a stream ``prefix/container/task id``.

        :param with_last: include a last line without a line feed
        """
        _, container, task = stream.rsplit("/", 2)
        try:
            content = Path(self._folder, f"{task}-{container}.log").read_text(errors="replace")
        except FileNotFoundError:
            return []
        return (content if with_last else content[: content.rfind("\n") + 1]).splitlines()


def _now_ms() -> int:
    return int(time.time() * 1000)
