"""Hooks for schemathesis: sign each request as the local stack's user."""

from __future__ import annotations

from typing import Any

import requests
import schemathesis

from sigv4 import signed_headers


class SigV4(requests.auth.AuthBase):
    """SigV4 for the service lambda."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # Only the content type and the headers of SigV4 are signed.
        kept = {name: value for name, value in request.headers.items() if name.lower() == "content-type"}
        request.headers.update(signed_headers(request.method, request.url, request.body, kept))
        return request


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    kwargs["auth"] = SigV4()
