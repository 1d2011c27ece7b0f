"""Local stacks for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest

from api import Stack

# Nothing is waited for that a test does not ask for.
FAST = {"provision-s": 0, "pull-s": 0, "teardown-s": 0, "reconcile-every": 5}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Stack]]:
    """Starts stacks that end with the module."""
    with ExitStack() as stacks:

        def start(flags: Mapping[str, object] = {}, **more: Any) -> Stack:
            return stacks.enter_context(Stack(tmp_path_factory.mktemp("stack"), FAST | dict(flags), **more))

        yield start


@pytest.fixture(scope="module")
def stack(start: Callable[..., Stack]) -> Stack:
    """One without faults."""
    return start()
