"""Credentials, Region and clients: from an Airflow connection, or from boto3's own chain.

Certificates, proxies and client settings are found as boto3 finds them (``AWS_CA_BUNDLE`` or ``ca_bundle``,
``HTTPS_PROXY``, ``NO_PROXY``); the connection's ``verify`` and ``config_kwargs`` come before them.

Everything here may do network I/O (STS, the metadata service, a secrets backend), so it is called from the
executor's own threads only.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

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
        """Return how TLS certificates are checked: by which authorities, or not at all."""
        session = self.session()
        verify = self._hook.verify if self._hook else None
        if verify is None:
            verify = session._session.get_config_variable("ca_bundle")
        return True if verify is None else verify

    def http(self, url: str, read_timeout: float) -> URLLib3Session:
        """Make an HTTP client for a URL, with the settings that boto3's own clients would have."""
        config = self._config()
        return URLLib3Session(
            verify=self.verify(),
            proxies=get_environ_proxies(url) if config.proxies is None else config.proxies,
            proxies_config=config.proxies_config,
            client_cert=config.client_cert,
            timeout=(config.connect_timeout, read_timeout),
            max_pool_connections=8,
        )

    def session(self) -> boto3.Session:
        """Return the session, made at the first use."""
        with self._lock:
            if self._session is None:
                self._session, self._hook = self._connect()
            return self._session

    def dynamodb(self) -> Any:
        """Make a DynamoDB client with timeouts of seconds; repeating a read is the caller's affair."""
        return self.client("dynamodb")

    def client(self, service: str, region: str | None = None, read_timeout: float | None = None) -> Any:
        """Make a client of a service with timeouts of seconds; repeating a call is the caller's affair."""
        session = self.session()
        endpoint = self._hook.conn_config.get_service_endpoint_url(service) if self._hook else None
        return session.client(
            service,
            region_name=region or self.region(),
            config=self._config().merge(Config(read_timeout=read_timeout)) if read_timeout else self._config(),
            verify=self.verify(),
            endpoint_url=endpoint,
        )

    def _config(self) -> Config:
        """Return the clients' settings; what the connection says comes before ours."""
        ours = Config(connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT, retries={"total_max_attempts": 2})
        self.session()
        theirs = self._hook.conn_config.botocore_config if self._hook else None
        return ours.merge(theirs) if theirs else ours

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
