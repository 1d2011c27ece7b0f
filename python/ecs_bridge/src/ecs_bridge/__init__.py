"""Run commands on Amazon ECS through the ECS bridge, and receive their results."""

from __future__ import annotations

from ecs_bridge.aio import AsyncClient, AsyncFeed
from ecs_bridge.api import Answer
from ecs_bridge.client import Client, Feed
from ecs_bridge.errors import (
    BridgeError,
    ConfigError,
    CredentialsMissing,
    ErrorKind,
    InvalidSubmissionError,
    SubmissionNotFoundError,
    SubmissionRejectedError,
    WaitTimeoutError,
)
from ecs_bridge.feed import Cursor
from ecs_bridge.state import State
from ecs_bridge.submission import Submission, shortened
from ecs_bridge.table import Record

__version__ = "0.2.0"
__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncFeed",
    "BridgeError",
    "Client",
    "ConfigError",
    "CredentialsMissing",
    "Cursor",
    "ErrorKind",
    "Feed",
    "InvalidSubmissionError",
    "Record",
    "State",
    "Submission",
    "SubmissionNotFoundError",
    "SubmissionRejectedError",
    "WaitTimeoutError",
    "__version__",
    "shortened",
]
