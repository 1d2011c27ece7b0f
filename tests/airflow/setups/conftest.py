"""The whole Airflows that the project ships: each test module starts its own."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[2] / "examples" / "airflow")]
