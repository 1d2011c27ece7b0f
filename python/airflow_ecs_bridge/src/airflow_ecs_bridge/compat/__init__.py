"""A drop-in for EcsRunTaskOperator of the Amazon provider, on the bridge. Only the import of a DAG changes.

The operator is a subclass of the provider's operator with another ECS client, for three reasons:

* The provider's own code keeps the parameters, templates, XComs, texts and exceptions of the installed version. It also
  builds the RunTask request, so a parameter of a later version reaches the bridge, which accepts or rejects it.
* ``isinstance`` checks, listeners and cluster policies that know the provider's class keep working.
* The seam is public and stable: `EcsProtocol` of the provider's hook lists the methods of the client, and
  ``EcsBaseOperator.client`` returns it.

The client (`client.BridgeEcs`) makes no call to ECS. A few private methods of the provider's operator are overridden,
and the conformance tests fail if the provider changes them.
"""

from __future__ import annotations

try:
    import airflow.providers.amazon.aws.operators.ecs  # noqa: F401
except ImportError as error:
    raise ImportError(
        "airflow_ecs_bridge.compat requires the Amazon provider, whose operator it extends: pip install "
        "'apache-airflow-providers-amazon>=9.39,<10'; or use airflow_ecs_bridge.operators.EcsBridgeOperator, which "
        f"does not need it ({error})"
    ) from error

from airflow_ecs_bridge.compat.operator import EcsRunTaskOperator

__all__ = ["EcsRunTaskOperator"]
