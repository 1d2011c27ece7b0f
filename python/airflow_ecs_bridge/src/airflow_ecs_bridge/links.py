"""The XComs of operator and trigger, except for the return value."""

from __future__ import annotations

LOG_LINK = "ecs_bridge_log"
"""The XCom with the link to the container's log stream."""

SUBMISSION = "ecs_bridge_submission"
"""The XCom with the ID of the submission that a task instance waits for."""
