"""Credentials, Region and clients, from boto3's own chain or from a session.

Certificates, proxies and client settings are found in the same way as in boto3 (``AWS_CA_BUNDLE`` or ``ca_bundle``,
``HTTPS_PROXY``, ``NO_PROXY``).

Every function here may do network I/O (STS, the metadata service).
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
"""Default timeouts of clients, in seconds."""


# DynamoDB returns these errors with status 400, other services with 401 or 403.
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
# AWS rejects signatures that are more than five minutes off. InvalidSignatureException alone may also mean a wrong key.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html
_CLOCK = (
    "signature expired",
    "signature not yet current",
    "requesttimetooskewed",
    "request time and the current time is too large",
)
_ADDRESS = frozenset({"ResourceNotFoundException", "ValidationException", "ValidationError"})


def failure(error: BotoCoreError | ClientError, what: str) -> BridgeError:
    """Return the failure of an AWS call as a BridgeError, classified by the remedy."""
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
    """Return a hint if AWS rejected a signature because of this machine's clock, and an empty string otherwise."""
    is_clock = any(known in words.lower() for known in _CLOCK)
    return "; the clock of this machine is wrong; synchronize it, for example with NTP" if is_clock else ""


class Aws:
    """Thread-safe cached AWS credentials, which are reloaded after `forget`."""

    looked_in = "boto3's chain"
    """The sources of credentials, for messages."""
    region_setting = "region"
    """The setting of the Region, for messages."""

    def __init__(
        self, region: str | None, session: boto3.Session | None = None, endpoints: Mapping[str, str] | None = None
    ) -> None:
        """Create an identity.

        :param region: Region of the bridge; defaults to the Region of the session
        :param session: identity; defaults to boto3's default chain, which is reloaded after `forget`
        :param endpoints: URLs of local services by boto3 service name
        """
        self._region = region
        self._given = session
        self._endpoints = endpoints or {}
        self._lock = threading.Lock()
        self._session: boto3.Session | None = None

    # Subclasses for another source of an identity override these methods.

    def _connect(self) -> boto3.Session:
        """Create the session. The caller holds the lock."""
        if self._given is not None:
            return self._given
        import boto3  # slow, so importing this module must not import it

        return boto3.Session(region_name=self._region)

    def _verify(self) -> bool | str | None:
        """Return the certificate verification setting, or None for the setting of boto3."""
        return None

    def _client_config(self) -> Config | None:
        """Return client settings that override the defaults."""
        return None

    def _endpoint(self, service: str) -> str | None:
        """Return the URL of a service, or None for the URL that boto3 selects."""
        return self._endpoints.get(service)

    # Common methods.

    def forget(self) -> None:
        """Reload the credentials at the next use, because a service rejected them."""
        with self._lock:
            self._session = None

    def session(self) -> boto3.Session:
        """Return the session, and create it at the first use."""
        with self._lock:
            if self._session is None:
                self._session = self._connect()
            return self._session

    def credentials(self) -> Credentials:
        """Return the (self-refreshing) credentials."""
        credentials = self.session().get_credentials()
        if credentials is None:
            raise CredentialsMissing(f"no AWS credentials found in {self.looked_in}")
        return credentials

    def region(self) -> str:
        """Return the configured Region, or the Region of the session."""
        region = self._region or self.session().region_name
        if not region:
            raise CredentialsMissing(f"no AWS Region found; set {self.region_setting}")
        return str(region)

    def verify(self) -> bool | str:
        """Return the path of the CA bundle, or whether to verify TLS certificates."""
        session = self.session()
        verify = self._verify()
        if verify is None:
            verify = session._session.get_config_variable("ca_bundle")
        return True if verify is None else verify

    def http(self, url: str, read_timeout: float) -> URLLib3Session:
        """Create an HTTP client for a URL, with the settings of boto3's own clients."""
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
        """Create a DynamoDB client with timeouts of seconds. The caller retries reads."""
        return self.client("dynamodb")

    def client(
        self,
        service: str,
        region: str | None = None,
        read_timeout: float | None = None,
        attempts: int | None = None,
    ) -> Any:
        """Create a client of a service with timeouts of seconds. The caller retries calls.

        :param attempts: number of attempts that the client itself makes; defaults to 2
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
        """Return the settings of the clients."""
        ours = Config(connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT, retries={"total_max_attempts": 2})
        self.session()
        theirs = self._client_config()
        return ours.merge(theirs) if theirs else ours
