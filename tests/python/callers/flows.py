"""A flow that notes each of its starts, and ends when it is told to."""

from __future__ import annotations

import time
from pathlib import Path

from prefect import flow


@flow
def patient(folder: str) -> None:
    """Wait for the file `go`."""
    with (Path(folder) / "starts").open("a") as starts:
        starts.write("started\n")
    while not (Path(folder) / "go").exists():
        time.sleep(0.1)
