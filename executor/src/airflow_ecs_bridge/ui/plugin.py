"""Registers the page with Airflow. Every process loads this, so it imports nothing that Airflow has not imported."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from airflow_ecs_bridge._versions import EXTERNAL_VIEWS

PREFIX = "/ecs-bridge"
"""Where Airflow mounts the app, below the path of ``[api] base_url``."""


class Page(AirflowPlugin):
    """A page, and a tab on task instances.

    Only the API server asks for the attributes below; nothing is built before.
    """

    name = "ecs_bridge"

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Return the app that serves the page and its data."""
        from airflow_ecs_bridge.ui.app import make_app

        return [{"name": "ECS bridge", "app": make_app(), "url_prefix": PREFIX}]

    @cached_property
    def external_views(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Return the page and the tab; Airflow shows both in iframes."""
        # Airflow passes an href to the iframe as it is, without the path of base_url.
        path = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/") + PREFIX
        icons = {"icon": f"{path}/static/icon.svg", "icon_dark_mode": f"{path}/static/icon-dark.svg"}
        instance = "dag_id={DAG_ID}&run_id={RUN_ID}&task_id={TASK_ID}&map_index={MAP_INDEX}"
        return [
            {
                "name": "ECS bridge",
                "href": f"{path}/",
                "destination": "nav",
                "url_route": "ecs-bridge",
                "nav_top_level": True,
                **icons,
            },
            {
                "name": "ECS bridge",
                "href": f"{path}/task-instance?{instance}",
                "destination": "task_instance",
                "url_route": "ecs-bridge-task",
                **icons,
            },
        ]


plugin: type[Page] | None = Page if EXTERNAL_VIEWS else None
"""The entry point. Airflow ignores what is no class, without a word: before 3.1 there is no page."""
