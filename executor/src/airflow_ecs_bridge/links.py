"""The XComs of operator and trigger, apart from the return value."""

from __future__ import annotations

LOG_LINK = "ecs_bridge_log"
"""The XCom with the link to the container's log stream."""

SUBMISSION = "ecs_bridge_submission"
"""The XCom with the id of the submission for which a task instance waits."""
