"""Credentials, Region and clients, from boto3's own chain or from a session.

Certificates, proxies and client settings are found as boto3 finds them (``AWS_CA_BUNDLE`` or ``ca_bundle``,
``HTTPS_PROXY``, ``NO_PROXY``).

Everything here may do network I/O (STS, the metadata service).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from ecs_bridge.errors import BridgeError, CredentialsMissing, ErrorKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    import boto3
    from botocore.credentials import Credentials

CONNECT_TIMEOUT = 3.0
READ_TIMEOUT = 5.0
"""Seconds, unless a client is made with others."""


# DynamoDB answers these with 400; other services with 401 or 403.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
_CREDENTIALS = frozenset(
    {
        "AccessDeniedException",
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    }
)
# AWS rejects signatures that are more than five minutes off. InvalidSignatureException alone may be a wrong key too.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html
_CLOCK = (
    "signature expired",
    "signature not yet current",
    "requesttimetooskewed",
    "request time and the current time is too large",
)
_ADDRESS = frozenset({"ResourceNotFoundException", "ValidationException", "ValidationError"})


def failure(error: BotoCoreError | ClientError, what: str) -> BridgeError:
    """Return what a call of an AWS service failed with, by what to do next."""
    kind, status = ErrorKind.TRANSIENT, None
    if isinstance(error, ClientError):
        code = error.response.get("Error", {}).get("Code")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code in _CREDENTIALS or status in (401, 403) or clock(str(error)):
            kind = ErrorKind.CREDENTIALS
        elif code in _ADDRESS:
            kind = ErrorKind.CONFIGURATION
    elif isinstance(error, NoCredentialsError):
        kind = ErrorKind.CREDENTIALS
    return BridgeError(kind, f"{what}: {error}{clock(str(error))}", status)


def clock(words: str) -> str:
    """Return what to add to AWS's words where they reject a signature because of this machine's clock; else nothing."""
    is_clock = any(known in words.lower() for known in _CLOCK)
    return "; the clock of this machine is wrong: set it, for instance by NTP" if is_clock else ""


class Aws:
    """One AWS identity, shared by threads and read anew after `forget`."""

    looked_in = "boto3's chain"
    """Where credentials were looked for, for people."""
    region_setting = "region"
    """What sets the Region, for people."""

    def __init__(
        self, region: str | None, session: boto3.Session | None = None, endpoints: Mapping[str, str] | None = None
    ) -> None:
        """Make one.

        :param region: the bridge's Region; None: the session's
        :param session: the identity; None: boto3's default chain, read anew after `forget`
        :param endpoints: the URLs of services that are not AWS's, by boto3's names
        """
        self._region = region
        self._given = session
        self._endpoints = endpoints or {}
        self._lock = threading.Lock()
        self._session: boto3.Session | None = None

    # What another source of an identity has.

    def _connect(self) -> boto3.Session:
        """Make the session; called with the lock held."""
        if self._given is not None:
            return self._given
        import boto3  # slow, and not wanted where a module that uses this one is only imported

        return boto3.Session(region_name=self._region)

    def _verify(self) -> bool | str | None:
        """Return how certificates are checked; None: as boto3's own configuration says."""
        return None

    def _client_config(self) -> Config | None:
        """Return settings of clients that come before ours."""
        return None

    def _endpoint(self, service: str) -> str | None:
        """Return a service's URL; None: as boto3 finds it."""
        return self._endpoints.get(service)

    # For all of them.

    def forget(self) -> None:
        """Read the credentials again at the next use: they were refused."""
        with self._lock:
            self._session = None

    def session(self) -> boto3.Session:
        """Return the session, made at the first use."""
        with self._lock:
            if self._session is None:
                self._session = self._connect()
            return self._session

    def credentials(self) -> Credentials:
        """Return the (self-refreshing) credentials."""
        credentials = self.session().get_credentials()
        if credentials is None:
            raise CredentialsMissing(f"no AWS credentials found (looked in: {self.looked_in})")
        return credentials

    def region(self) -> str:
        """Return the bridge's Region: the one that was named, or the session's."""
        region = self._region or self.session().region_name
        if not region:
            raise CredentialsMissing(f"no AWS Region found: set {self.region_setting}")
        return str(region)

    def verify(self) -> bool | str:
        """Return how TLS certificates are checked: by which authorities, or not at all."""
        session = self.session()
        verify = self._verify()
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

    def dynamodb(self) -> Any:
        """Make a DynamoDB client with timeouts of seconds; repeating a read is the caller's affair."""
        return self.client("dynamodb")

    def client(
        self,
        service: str,
        region: str | None = None,
        read_timeout: float | None = None,
        attempts: int | None = None,
    ) -> Any:
        """Make a client of a service with timeouts of seconds; repeating a call is the caller's affair.

        :param attempts: how often the client itself makes a call; two if not set
        """
        session = self.session()
        config = self._config()
        if read_timeout:
            config = config.merge(Config(read_timeout=read_timeout))
        if attempts:
            config = config.merge(Config(retries={"total_max_attempts": attempts}))
        return session.client(
            service,
            region_name=region or self.region(),
            config=config,
            verify=self.verify(),
            endpoint_url=self._endpoint(service),
        )

    def _config(self) -> Config:
        """Return the clients' settings."""
        ours = Config(connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT, retries={"total_max_attempts": 2})
        self.session()
        theirs = self._client_config()
        return ours.merge(theirs) if theirs else ours
