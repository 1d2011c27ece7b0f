"""Where a bridge is: from arguments, the ready file of a local stack, a stack's outputs, or the environment.

The order is that of the program `ecs-bridge`: arguments, ready file, stack, environment.
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
    "ready_file": "ECS_BRIDGE_READY_FILE",
}
"""The environment variables, those of `ecs-bridge`, by argument."""


@dataclass(frozen=True)
class Where:
    """A bridge's addresses; None is not known."""

    url: str | None = None
    function: str | None = None
    """Invoked instead of a call of the URL."""
    table: str | None = None
    deployment: str | None = None
    region: str | None = None
    stack: str | None = None
    """The stack whose outputs are still to be read: see `with_outputs`."""
    endpoints: Mapping[str, str] = field(default_factory=dict)
    """The URLs of a local stack's services, by boto3's names."""
    fallbacks: Mapping[str, str] = field(default_factory=dict)
    """What holds where the stack has no such output."""

    @classmethod
    def find(cls, environment: Mapping[str, str], **arguments: str | None) -> Where:
        """Find a bridge.

        :param environment: the process's
        :param arguments: `region`, and those of `VARIABLES`
        :raises ConfigError: with all that is wrong
        """
        set_in = {name: value for name, key in VARIABLES.items() if (value := environment.get(key, "").strip())}
        told = {name: value.strip() for name, value in arguments.items() if value and value.strip()}
        ready, errors = _ready(told.get("ready_file") or set_in.get("ready_file"))
        # A local stack's function is invoked only where that is asked for.
        local = {"url": "submit_url", "table": "table", "deployment": "deployment", "region": "region"}
        told = {name: ready[key] for name, key in local.items() if key in ready} | told
        # A URL that is passed is called; else a function that is named anywhere is invoked.
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
                "nothing says where it is: pass stack, or url (or function), table and deployment, or set "
                + ", ".join(VARIABLES.values())
            )
        if errors:
            raise ConfigError("the ECS bridge cannot be found: " + "; ".join(errors))
        return where

    def with_outputs(self, outputs: Mapping[str, str]) -> Where:
        """Add what the stack's outputs say to what was told otherwise."""
        if "TableName" not in outputs:
            raise ConfigError(
                f"the stack {self.stack} has no output TableName: it is not a stack of the bridge, or one of an "
                "earlier version"
            )

        def first(told: str | None, output: str, name: str) -> str | None:
            return told or outputs.get(output) or self.fallbacks.get(name)

        url = (first(self.url, "SubmitUrl", "url") or "").rstrip("/") or None
        return replace(
            self,
            stack=None,
            url=url,
            # A stack without function URLs is invoked.
            function=self.function or (None if url else outputs.get("SubmitFunctionName")),
            table=first(self.table, "TableName", "table"),
            deployment=first(self.deployment, "DeploymentName", "deployment"),
        )

    def need(self, name: str) -> str:
        """Return the table's or the deployment's name; raise ConfigError, with how to set it, if it is not known."""
        value: str | None = getattr(self, name)
        if value is None:
            raise ConfigError(f"the {name} is not known: pass {name} or stack, or set {VARIABLES[name]}")
        return value

    @property
    def is_local(self) -> bool:
        """Whether it is a local stack, which knows one user."""
        urls = [self.url, self.endpoints.get("dynamodb")]
        return any(urlsplit(url).scheme == "http" and urlsplit(url).hostname in _LOOPBACK for url in urls if url)

    def _wrong(self) -> list[str]:
        errors = []
        if self.url and not is_url(self.url):
            errors.append(f"url must be an http or https URL, not {self.url!r}")
        if self.deployment and not DEPLOYMENT_NAME.fullmatch(self.deployment):
            errors.append(f"deployment must be 1 to 32 letters, digits, '_' or '-', not {self.deployment!r}")
        return errors


def is_url(text: str) -> bool:
    """Tell whether this can be the URL of a function."""
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment


def region_of(url: str | None, function: str | None) -> str | None:
    """Return the Region that a function's URL or ARN names."""
    host = _FUNCTION_URL_HOST.fullmatch(urlsplit(url or "").hostname or "")
    if host:
        return host.group(1)
    # arn:aws:lambda:eu-central-1:123456789012:function:prod-submit
    arn = (function or "").split(":")
    return arn[3] if len(arn) > 6 else None


def _ready(path: str | None) -> tuple[dict[str, str], list[str]]:
    """Read the ready file of a local stack; return what is in it, and what is wrong with it."""
    if path is None:
        return {}, []
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        return {}, [f"the ready file {path} cannot be read: {error}; `ecs-bridge local --ready-file` writes it"]
    if not isinstance(content, dict):
        return {}, [f"the ready file {path} is not one of `ecs-bridge local`"]
    return {key: value for key, value in content.items() if isinstance(value, str)}, []
