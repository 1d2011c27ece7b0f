"""Local stacks for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from local_stack import LocalStack


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., LocalStack]]:
    """Starts stacks that end with the module: `start(simulate=True, time_scale=20)`."""
    with ExitStack() as stacks:

        def start(**flags: object) -> LocalStack:
            named = {name.replace("_", "-"): value for name, value in flags.items()}
            return stacks.enter_context(LocalStack(tmp_path_factory.mktemp("stack"), named))

        yield start
