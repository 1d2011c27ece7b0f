"""What to do about a submission: the client's table of it."""

from ecs_bridge.advice import advice

__all__ = ["advice"]
