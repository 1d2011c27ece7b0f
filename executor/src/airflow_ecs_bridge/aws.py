"""Credentials, Region and clients: from an Airflow connection, or from boto3's own chain.

Everything here may do network I/O (STS, the metadata service, a secrets backend), so it is called from the
executor's own threads only.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from botocore.config import Config

if TYPE_CHECKING:
    import boto3
    from botocore.credentials import Credentials

    from airflow_ecs_bridge.config import Settings

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 3.0
READ_TIMEOUT = 5.0


class CredentialsMissing(Exception):
    """No AWS credentials were found; the message says where they were looked for."""


class Aws:
    """One AWS identity, shared by the executor's threads and read anew after `forget`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._session: boto3.Session | None = None
        self._hook: Any = None

    def forget(self) -> None:
        """Read the connection and the credentials again at the next use: they were refused."""
        with self._lock:
            self._session = self._hook = None

    def credentials(self) -> Credentials:
        """Return the (self-refreshing) credentials."""
        credentials = self.session().get_credentials()
        if credentials is None:
            where = f"connection {self._settings.aws_conn_id!r}, then boto3's chain" if self._hook else "boto3's chain"
            raise CredentialsMissing(f"no AWS credentials found (looked in: {where})")
        return credentials

    def region(self) -> str:
        """Return the bridge's Region: the option, the URL's, the connection's, boto3's."""
        region = self._settings.region_name or self._settings.url_region or self.session().region_name
        if not region:
            raise CredentialsMissing("no AWS Region found: set [ecs_bridge_executor] region_name")
        return region

    def verify(self) -> bool | str:
        """Return how TLS certificates are checked: a connection may name its own authority."""
        self.session()
        verify = self._hook.verify if self._hook else None
        return True if verify is None else verify

    def session(self) -> boto3.Session:
        """Return the session, made at the first use."""
        with self._lock:
            if self._session is None:
                self._session, self._hook = self._connect()
            return self._session

    def dynamodb(self) -> Any:
        """Make a DynamoDB client with timeouts of seconds; repeating a read is the caller's affair."""
        config = Config(connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT, retries={"total_max_attempts": 2})
        session = self.session()
        endpoint = self._hook.conn_config.get_service_endpoint_url("dynamodb") if self._hook else None
        return session.client(
            "dynamodb", region_name=self.region(), config=config, verify=self.verify(), endpoint_url=endpoint
        )

    def _connect(self) -> tuple[boto3.Session, Any]:
        region = self._settings.region_name or self._settings.url_region
        if self._settings.aws_conn_id:
            try:
                from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
            except ImportError:
                log.info("the Amazon provider is not installed: aws_conn_id is not used, boto3 finds credentials")
            else:
                hook = AwsBaseHook(aws_conn_id=self._settings.aws_conn_id, region_name=region)
                return hook.get_session(region_name=region), hook
        import boto3

        return boto3.Session(region_name=region), None
