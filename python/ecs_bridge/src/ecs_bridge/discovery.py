"""Location of a bridge, from arguments, the ready file of a local stack, a stack's outputs, or the environment.

The order is the same as in the program `ecs-bridge`: arguments, ready file, stack, environment.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ecs_bridge.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEPLOYMENT_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
_FUNCTION_URL_HOST = re.compile(r"[^.]+\.lambda-url\.([a-z0-9-]+)\.on\.aws(\.cn)?")
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}

VARIABLES = {
    "url": "ECS_BRIDGE_URL",
    "function": "ECS_BRIDGE_FUNCTION",
    "table": "ECS_BRIDGE_TABLE",
    "deployment": "ECS_BRIDGE_DEPLOYMENT",
    "stack": "ECS_BRIDGE_STACK",
    "ready_file": "ECS_BRIDGE_LOCAL",
}
"""The environment variables by argument, the same as for `ecs-bridge`."""


@dataclass(frozen=True)
class Where:
    """The addresses of a bridge. None means unknown."""

    url: str | None = None
    function: str | None = None
    """The function to invoke instead of calling the URL."""
    table: str | None = None
    deployment: str | None = None
    region: str | None = None
    stack: str | None = None
    """The stack whose outputs must still be read; see `with_outputs`."""
    endpoints: Mapping[str, str] = field(default_factory=dict)
    """The URLs of the services of a local stack, by boto3 service name."""
    fallbacks: Mapping[str, str] = field(default_factory=dict)
    """Defaults for outputs that the stack does not have."""

    @classmethod
    def find(cls, environment: Mapping[str, str], **arguments: str | None) -> Where:
        """Find a bridge.

        :param environment: environment variables of the process
        :param arguments: `region`, and the arguments in `VARIABLES`
        :raises ConfigError: if settings are missing or invalid; the message lists all problems
        """
        set_in = {name: value for name, key in VARIABLES.items() if (value := environment.get(key, "").strip())}
        told = {name: value.strip() for name, value in arguments.items() if value and value.strip()}
        ready, errors = _ready(told.get("ready_file") or set_in.get("ready_file"))
        # The function of a local stack is invoked only if the caller names it.
        local = {"url": "submit_url", "table": "table", "deployment": "deployment", "region": "region"}
        told = {name: ready[key] for name, key in local.items() if key in ready} | told
        # A URL argument has priority. Otherwise, a function from an argument or a variable is invoked.
        told.setdefault("function", "" if arguments.get("url") else set_in.get("function", ""))
        stack = told.get("stack") or set_in.get("stack")
        first = told if stack else {**set_in, **{name: value for name, value in told.items() if value}}
        where = cls(
            url=(first.get("url") or "").rstrip("/") or None,
            function=told["function"] or None,
            table=first.get("table"),
            deployment=first.get("deployment"),
            region=told.get("region") or region_of(told.get("url") or set_in.get("url"), told["function"]),
            stack=stack,
            endpoints={
                service: ready[key]
                for service, key in {"dynamodb": "dynamodb_url", "lambda": "lambda_url"}.items()
                if key in ready
            },
            fallbacks=set_in,
        )
        errors += where._wrong()
        if not any((where.url, where.function, where.table, where.stack)) and not errors:
            errors.append(
                "no location given; pass stack, or url (or function), table and deployment, or set "
                + ", ".join(VARIABLES.values())
            )
        if errors:
            raise ConfigError("cannot find the ECS bridge: " + "; ".join(errors))
        return where

    def with_outputs(self, outputs: Mapping[str, str]) -> Where:
        """Fill in missing settings from the stack's outputs."""
        if "TableName" not in outputs:
            raise ConfigError(
                f"invalid stack {self.stack!r}: the output TableName is missing; pass the name of a stack of the "
                "bridge, or upgrade a stack of an earlier version"
            )

        def first(told: str | None, output: str, name: str) -> str | None:
            return told or outputs.get(output) or self.fallbacks.get(name)

        url = (first(self.url, "SubmitUrl", "url") or "").rstrip("/") or None
        return replace(
            self,
            stack=None,
            url=url,
            # Without a function URL, the function is invoked.
            function=self.function or (None if url else outputs.get("SubmitFunctionName")),
            table=first(self.table, "TableName", "table"),
            deployment=first(self.deployment, "DeploymentName", "deployment"),
        )

    def need(self, name: str) -> str:
        """Return the name of the table or the deployment; raise ConfigError if it is missing."""
        value: str | None = getattr(self, name)
        if value is None:
            raise ConfigError(f"cannot find the {name}: pass {name} or stack, or set {VARIABLES[name]}")
        return value

    @property
    def is_local(self) -> bool:
        """True for a local stack, which has one user."""
        urls = [self.url, self.endpoints.get("dynamodb")]
        return any(urlsplit(url).scheme == "http" and urlsplit(url).hostname in _LOOPBACK for url in urls if url)

    def _wrong(self) -> list[str]:
        errors = []
        if self.url and not is_url(self.url):
            errors.append(f"invalid url: {self.url!r}; must be an http or https URL")
        if self.deployment and not DEPLOYMENT_NAME.fullmatch(self.deployment):
            errors.append(f"invalid deployment: {self.deployment!r}; must be 1 to 32 letters, digits, '_' or '-'")
        return errors


def is_url(text: str) -> bool:
    """Return whether a text can be the URL of a function."""
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment


def region_of(url: str | None, function: str | None) -> str | None:
    """Return the Region in the URL or ARN of a function."""
    host = _FUNCTION_URL_HOST.fullmatch(urlsplit(url or "").hostname or "")
    if host:
        return host.group(1)
    # arn:aws:lambda:eu-central-1:123456789012:function:prod-submit
    arn = (function or "").split(":")
    return arn[3] if len(arn) > 6 else None


def _ready(path: str | None) -> tuple[dict[str, str], list[str]]:
    """Read the ready file of a local stack, and return its content and any errors."""
    if path is None:
        return {}, []
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        return {}, [f"cannot read the ready file {path!r}: {error}; is `ecs-bridge local --ready-file` running?"]
    if not isinstance(content, dict):
        return {}, [f"invalid ready file {path!r}: must be a file that `ecs-bridge local` wrote"]
    return {key: value for key, value in content.items() if isinstance(value, str)}, []
