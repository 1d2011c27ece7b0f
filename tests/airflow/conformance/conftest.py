"""Shared by the tests of the drop-in that need the provider's distribution or its documented profile."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import pytest


@pytest.fixture(scope="session")
def documented_profiles() -> Any:
    """Return the profiles of docs/compat.md."""
    text = (HERE.parents[2] / "docs" / "compat.md").read_text()
    (block,) = re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return json.loads(block)
