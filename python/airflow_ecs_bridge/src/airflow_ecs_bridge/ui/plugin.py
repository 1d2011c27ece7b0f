"""Register the UI plugin with Airflow. Every process loads this module, so it imports only modules of Airflow."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from airflow_ecs_bridge._versions import EXTERNAL_VIEWS

PREFIX = "/ecs-bridge"
"""The path of the app, below the path of ``[api] base_url``."""


class Page(AirflowPlugin):
    """The ECS bridge view, and a tab on task instances.

    Only the API server reads the attributes below, so other processes build nothing.
    """

    name = "ecs_bridge"

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Return the app that serves the view and its data."""
        from airflow_ecs_bridge.ui.app import make_app

        return [{"name": "ECS bridge", "app": make_app(), "url_prefix": PREFIX}]

    @cached_property
    def external_views(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Return the view and the tab, which Airflow shows in iframes."""
        # Airflow passes an href to the iframe unchanged, without the path of base_url.
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
"""The entry point. Airflow silently ignores a value that is not a class, so versions before 3.1 have no view."""
