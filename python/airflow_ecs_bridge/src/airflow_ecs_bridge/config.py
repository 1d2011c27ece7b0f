"""The section ``[ecs_bridge_executor]``. It is parsed once, and all errors are reported together."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_ecs_bridge.provider import OPTIONS, SECTION
from ecs_bridge.discovery import DEPLOYMENT_NAME, is_url, region_of
from ecs_bridge.submission import PROFILE_NAME

DEFAULT_PROFILE = "default"

_TRUE = {"true", "t", "1", "yes", "on"}
_FALSE = {"false", "f", "0", "no", "off"}


class ConfigError(ValueError):
    """Invalid options. The message lists all of them."""


class AirflowConf(Protocol):
    """The part of Airflow's ``conf`` that the team-aware ``BaseExecutor.conf`` also has, without ``getfloat``."""

    def get(self, section: str, key: str, **kwargs: Any) -> str | None:
        """Return the text of an option."""


@dataclass(frozen=True)
class QueueProfiles:
    """The mapping of queues to profiles; see the option ``queue_profiles``."""

    mode: str
    mapping: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> QueueProfiles:
        """Parse the text of the option."""
        text = text.strip()
        if text in ("match", "strict", "ignore"):
            return cls(text, {})
        try:
            mapping = json.loads(text)
        except ValueError:
            mapping = None
        if not isinstance(mapping, dict) or not all(
            isinstance(v, str) and PROFILE_NAME.fullmatch(v) for v in mapping.values()
        ):
            raise ValueError("must be match, strict, ignore, or a JSON object of queue names to profile names")
        return cls("map", mapping)

    def profile(self, queue: str | None) -> str | None:
        """Return the profile of a queue, or None for the bridge's default."""
        if not queue or self.mode == "ignore":
            return None
        if self.mode == "map":
            return self.mapping.get(queue)
        if queue == DEFAULT_PROFILE or (self.mode == "match" and not PROFILE_NAME.fullmatch(queue)):
            return None
        return queue


@dataclass(frozen=True)
class Settings:
    """The parsed options. Times are in seconds."""

    submit_url: str | None
    submit_function: str | None
    """The function to invoke instead of calling the URL."""
    table: str
    deployment: str
    aws_conn_id: str | None
    region_name: str | None
    check_health_on_startup: bool
    queue_profiles: QueueProfiles
    allowed_profiles: frozenset[str] | None
    """None allows all profiles."""
    poll_interval: float
    full_scan_interval: float
    reconcile_interval: float
    worker_start_margin: float
    request_timeout: float
    startup_timeout: float
    shutdown_timeout: float
    awslogs_group: str | None
    awslogs_stream_prefix: str | None
    awslogs_region: str | None
    failure_log_lines: int
    local_log_dir: str | None
    """The folder of ``ecs-bridge local --log-dir``, which replaces a log group."""

    @classmethod
    def from_conf(cls, conf: AirflowConf) -> Settings:
        """Parse all options; raise ConfigError with all errors."""
        reader = _Reader(conf)
        settings = cls(
            submit_url=reader.url("submit_url"),
            submit_function=reader.text("submit_function"),
            table=reader.required("table"),
            deployment=reader.name("deployment"),
            aws_conn_id=reader.text("aws_conn_id"),
            region_name=reader.text("region_name"),
            check_health_on_startup=reader.boolean("check_health_on_startup"),
            queue_profiles=reader.queue_profiles("queue_profiles"),
            allowed_profiles=reader.profiles("allowed_profiles"),
            poll_interval=reader.seconds("poll_interval", least=0.1),
            full_scan_interval=reader.seconds("full_scan_interval", least=1),
            reconcile_interval=reader.seconds("reconcile_interval", least=1),
            worker_start_margin=reader.seconds("worker_start_margin"),
            request_timeout=reader.seconds("request_timeout", least=0.1),
            startup_timeout=reader.seconds("startup_timeout", least=0.1),
            shutdown_timeout=reader.seconds("shutdown_timeout"),
            awslogs_group=reader.text("awslogs_group"),
            awslogs_stream_prefix=reader.text("awslogs_stream_prefix"),
            awslogs_region=reader.text("awslogs_region"),
            failure_log_lines=reader.count("failure_log_lines", most=100),
            local_log_dir=reader.text("local_log_dir"),
        )
        if not settings.submit_url and not settings.submit_function:
            reader.errors.insert(0, "submit_url or submit_function must be set")
        if reader.errors:
            raise ConfigError(f"invalid options in [{SECTION}]: " + "; ".join(reader.errors))
        return settings

    @property
    def url_region(self) -> str | None:
        """The Region in the URL or ARN of the function."""
        return region_of(self.submit_url, self.submit_function)

    @property
    def knows_output(self) -> bool:
        """True if the options set the location of the containers' output."""
        return bool(self.local_log_dir or (self.awslogs_group and self.awslogs_stream_prefix))

    @property
    def bridge(self) -> str:
        """The location of the bridge, for messages."""
        return self.submit_function or self.submit_url or ""


class _Reader:
    """A parser that collects errors. After an error, each method returns a harmless value."""

    def __init__(self, conf: AirflowConf) -> None:
        self.conf = conf
        self.errors: list[str] = []

    def text(self, option: str) -> str | None:
        # The fallback is needed if the package is on the path but not installed, because it then has no entry point.
        value = self.conf.get(SECTION, option, fallback=OPTIONS[option]["default"])
        return str(value).strip() or None if value is not None else None

    def required(self, option: str) -> str:
        value = self.text(option)
        if value is None:
            self.errors.append(f"{option} must be set")
        return value or ""

    def name(self, option: str) -> str:
        value = self.required(option)
        if value and not DEPLOYMENT_NAME.fullmatch(value):
            self.errors.append(f"{option} is {value!r}, but must be 1 to 32 letters, digits, '_' or '-'")
        return value

    def url(self, option: str) -> str | None:
        value = (self.text(option) or "").rstrip("/") or None
        if value and not is_url(value):
            self.errors.append(f"{option} is {value!r}, but must be an http or https URL")
        return value

    def boolean(self, option: str) -> bool:
        value = (self.text(option) or "").lower()
        if value not in _TRUE | _FALSE:
            self.errors.append(f"{option} is {value!r}, but must be True or False")
        return value in _TRUE

    def seconds(self, option: str, least: float = 0) -> float:
        value = self.text(option)
        try:
            number = float(value or "")
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number >= least):
            self.errors.append(f"{option} is {value!r}, but must be a number of seconds, at least {least:g}")
            return least
        return number

    def count(self, option: str, most: int) -> int:
        value = self.text(option)
        if value is None or not value.isascii() or not value.isdecimal() or int(value) > most:
            self.errors.append(f"{option} is {value!r}, but must be an integer from 0 to {most}")
            return 0
        return int(value)

    def profiles(self, option: str) -> frozenset[str] | None:
        value = self.text(option)
        if value is None:
            return None
        names = frozenset(name.strip() for name in value.split(","))
        if wrong := sorted(name for name in names if not PROFILE_NAME.fullmatch(name)):
            self.errors.append(f"{option} contains invalid profile names: {', '.join(map(repr, wrong))}")
        return names

    def queue_profiles(self, option: str) -> QueueProfiles:
        try:
            return QueueProfiles.parse(self.required(option))
        except ValueError as error:
            self.errors.append(f"{option} {error}")
            return QueueProfiles("ignore", {})
