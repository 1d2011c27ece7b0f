"""The AWS identity of the executor, from an Airflow connection or from boto3's own chain.

Client settings of the connection (``verify``, ``config_kwargs``, endpoints) override the settings of boto3.

Every function here may do network I/O (STS, the metadata service, a secrets backend), so only the executor's own
threads call it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_ecs_bridge import comms
from ecs_bridge import aws

if TYPE_CHECKING:
    import boto3
    from botocore.config import Config

    from airflow_ecs_bridge.config import Settings

log = logging.getLogger(__name__)


class Aws(aws.Aws):
    """Thread-safe cached AWS credentials. `forget` also reloads the Airflow connection."""

    region_setting = "[ecs_bridge_executor] region_name"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.region_name or settings.url_region)
        self._conn_id = settings.aws_conn_id
        self._hook: Any = None

    @property
    def looked_in(self) -> str:  # type: ignore[override]
        """The sources of credentials, for messages."""
        return f"connection {self._conn_id!r}, then boto3's chain" if self._hook else "boto3's chain"

    def _connect(self) -> boto3.Session:
        self._hook = None
        if self._conn_id:
            try:
                from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
            except ImportError:
                log.info("Amazon provider not installed; ignoring aws_conn_id and using boto3's credential chain")
            else:
                hook = AwsBaseHook(aws_conn_id=self._conn_id, region_name=self._region)
                # This reads the connection once, for the session and its refreshes.
                session = comms.call(lambda: hook.get_session(region_name=self._region))
                self._hook = hook
                return session
        return super()._connect()

    def _verify(self) -> bool | str | None:
        return self._hook.verify if self._hook else None

    def _client_config(self) -> Config | None:
        return self._hook.conn_config.botocore_config if self._hook else None

    def _endpoint(self, service: str) -> str | None:
        return self._hook.conn_config.get_service_endpoint_url(service) if self._hook else None
