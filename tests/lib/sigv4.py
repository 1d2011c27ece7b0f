"""AWS Signature Version 4 for requests that no SDK sends."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

# Any credentials: the local stack checks only that a request is signed.
LOCAL = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}


def signed_headers(
    method: str,
    url: str,
    body: bytes | str | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
    *,
    keys: Mapping[str, str] = LOCAL,
    service: str = "lambda",
    region: str = "us-east-1",
) -> dict[str, str]:
    """Return the headers of a signed request. They include the given ones, which are signed too."""
    request = AWSRequest(method, url, headers=dict(headers), data=body)
    credentials = Credentials(keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], keys.get("AWS_SESSION_TOKEN"))
    SigV4Auth(credentials, service, region).add_auth(request)
    return dict(request.headers.items())
