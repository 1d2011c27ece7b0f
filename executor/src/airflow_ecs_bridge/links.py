"""What operator and trigger tell each other of links."""

from __future__ import annotations

LOG_LINK = "ecs_bridge_log"
"""The XCom with the link to the container's log stream."""
