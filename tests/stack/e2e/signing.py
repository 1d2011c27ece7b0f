"""What schemathesis loads: each request is signed as the local stack's user does."""

from __future__ import annotations

from typing import Any

import requests
import schemathesis

from sigv4 import signed_headers


class SigV4(requests.auth.AuthBase):
    """SigV4 for the service lambda."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # What is signed are the type of the content and what SigV4 adds.
        kept = {name: value for name, value in request.headers.items() if name.lower() == "content-type"}
        request.headers.update(signed_headers(request.method, request.url, request.body, kept))
        return request


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    kwargs["auth"] = SigV4()
