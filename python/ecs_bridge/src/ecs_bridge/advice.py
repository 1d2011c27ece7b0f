"""Remedies for failed submissions. ``advice.json`` is generated from the bridge's own table."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from ecs_bridge.state import TERMINAL, State

_WELL = frozenset({State.SUCCEEDED, State.CANCELLED})


@cache
def _table() -> list[dict[str, Any]]:
    text = resources.files(__package__).joinpath("advice.json").read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = json.loads(text)
    return entries


def advice(
    state: str,
    *,
    reasons: tuple[str | None, ...] = (),
    hint: str | None = None,
    exit_code: int | None = None,
    stop_code: str | None = None,
) -> str | None:
    """Return a remedy for the user, or None if nothing is wrong."""
    lower = [reason.lower() for reason in reasons if reason]

    def fits(entry: dict[str, Any]) -> bool:
        if "hint" in entry:
            return bool(entry["hint"] == hint)
        if state in _WELL:
            return False
        if "says" in entry:
            return any(all(word in reason for word in entry["says"]) for reason in lower)
        if "begins" in entry:
            return any(reason.startswith(entry["begins"]) for reason in lower)
        if "exit_code" in entry:
            return bool(entry["exit_code"] == exit_code)
        if "stop_code" in entry:
            return state in TERMINAL and bool(entry["stop_code"] == stop_code)
        return bool(entry["state"] == state)

    return next((entry["advice"] for entry in _table() if fits(entry)), None)
