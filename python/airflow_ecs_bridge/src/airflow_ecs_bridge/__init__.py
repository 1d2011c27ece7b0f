"""Run Airflow tasks on the ECS bridge, with ``[core] executor = airflow_ecs_bridge.EcsBridgeExecutor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.2.0"
__all__ = ["EcsBridgeExecutor", "__version__"]

if TYPE_CHECKING:
    from airflow_ecs_bridge.executor import EcsBridgeExecutor


def __getattr__(name: str) -> object:
    # Lazy, because every Airflow command imports this package for its provider info, usually without an executor.
    if name == "EcsBridgeExecutor":
        from airflow_ecs_bridge.executor import EcsBridgeExecutor

        return EcsBridgeExecutor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
