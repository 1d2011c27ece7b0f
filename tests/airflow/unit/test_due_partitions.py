"""The Airflow UI plugin reads the partitions of the index `due` that reconcile serves."""

import json
from pathlib import Path

from airflow_ecs_bridge.ui import queries

SERVED = json.loads((Path(__file__).parents[2] / "fixtures/due_partitions.json").read_text())


def test_due_partitions_are_those_of_submissions() -> None:
    assert set(queries.DUE) == set(SERVED["partitions"]) - {SERVED["runners"]}
