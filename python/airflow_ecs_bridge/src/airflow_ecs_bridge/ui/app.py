"""The app that the API server mounts, with public static files and protected data.

Airflow does not authenticate the apps of plugins, so every data route checks the user itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote_plus

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag, requires_access_view
from airflow.configuration import conf
from airflow.models.dag import DagModel
from airflow.utils.session import create_session
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from airflow_ecs_bridge.aws import Aws
from airflow_ecs_bridge.config import ConfigError, Settings
from airflow_ecs_bridge.ui.authorization import Sight
from airflow_ecs_bridge.ui.cache import Shared
from airflow_ecs_bridge.ui.dashboard import overview
from airflow_ecs_bridge.ui.queries import Reader, Snapshot, Unreadable
from airflow_ecs_bridge.ui.task_instance import instance, tries_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastapi import Response

    from ecs_bridge.table import Row

STATIC = Path(__file__).parent / "static"

KEPT = 5.0
"""Lifetime of a cached reading, in seconds."""

HEADERS = {
    # The page uses only its own scripts and styles, and only Airflow frames it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Source:
    """The data source of the configured table. It is created at the first use, and again after invalid options."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self._reader: Reader | None = None
        self._overview: Shared[Snapshot] = Shared(KEPT)
        self._records: Shared[dict[str, Row]] = Shared(KEPT)
        self._other_reader: Reader | None = None

    async def snapshot(self) -> Snapshot:
        """Return a reading of the table, up to a few seconds old."""
        return await self._overview.get("overview", self._read)

    async def records(self, ids: tuple[str, ...]) -> tuple[dict[str, Row], Settings]:
        """Return submissions by ID, and the options."""
        return await self._records.get(ids, lambda: self._look_up(ids)), self._configured()

    def _read(self) -> Snapshot:
        self._reader = self._reader or self._make()
        return self._reader.read()

    def _look_up(self, ids: tuple[str, ...]) -> dict[str, Row]:
        # Each thread has its own reader and client.
        self._other_reader = self._other_reader or self._make()
        return self._other_reader.records(ids)

    def _configured(self) -> Settings:
        if self.settings is None:
            self.settings = Settings.from_conf(conf)
        return self.settings

    def _make(self) -> Reader:
        settings = self._configured()
        aws = Aws(settings)

        def connect() -> Any:
            aws.forget()
            return aws.dynamodb()

        return Reader(connect, settings.table, settings.deployment)


def sight_of(user: GetUserDep) -> Sight:
    """Return the permissions of the user of a request."""
    manager = get_auth_manager()
    with create_session() as session:
        everything = frozenset(session.scalars(select(DagModel.dag_id)))
    return Sight(
        dag_ids=frozenset(manager.get_authorized_dag_ids(user=user, method="GET")),
        all_dag_ids=everything,
        # Operators of Airflow see submissions without a Dag. Airflow's roles Op and Admin may read connections.
        others=manager.is_authorized_connection(method="GET", user=user),
    )


def may_see_pools(user: GetUserDep) -> bool:
    """Return whether the user may read pools."""
    return get_auth_manager().is_authorized_pool(method="GET", user=user)


def make_app() -> FastAPI:
    """Create the app."""
    app = FastAPI(title="ECS bridge", openapi_url=None, docs_url=None, redoc_url=None)
    source = Source()

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response: Response
        # Databases and file systems reject NUL, and Airflow's access checks query the database first.
        if "\0" in request.scope["path"] + unquote_plus(request.url.query):
            response = JSONResponse({"detail": "Not found: the name contains a NUL character."}, status_code=404)
        else:
            response = await call_next(request)
        response.headers.update(HEADERS)
        # Browsers must not store data. They revalidate files with their ETag.
        response.headers["Cache-Control"] = "no-store" if "/api/" in request.url.path else "no-cache"
        return response

    @app.exception_handler(ConfigError)
    @app.exception_handler(Unreadable)
    async def tell(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=503)

    @app.get("/")
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/task-instance")
    async def tab() -> FileResponse:
        return FileResponse(STATIC / "task-instance.html")

    # The same as for Airflow's lists of task instances, limited to Dags that the user may read.
    @app.get(
        "/api/overview",
        dependencies=[
            Depends(requires_access_view(AccessView.CLUSTER_ACTIVITY)),
            Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE)),
        ],
    )
    async def data(
        sight: Annotated[Sight, Depends(sight_of)], with_pools: Annotated[bool, Depends(may_see_pools)]
    ) -> dict[str, Any]:
        return await run_in_threadpool(overview, await source.snapshot(), sight, with_pools=with_pools)

    @app.get("/api/task-instance", dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE))])
    async def tries(
        # Airflow also reads dag_id from the query, and "~" means any Dag.
        dag_id: Annotated[str, Query(min_length=1, pattern="[^~]")],
        run_id: Annotated[str, Query(min_length=1)],
        task_id: Annotated[str, Query(min_length=1)],
        map_index: Annotated[int, Query(ge=-1, le=2**31 - 1)] = -1,
    ) -> dict[str, Any]:
        found = await run_in_threadpool(tries_of, dag_id, run_id, task_id, map_index)
        if found is None:
            raise HTTPException(404, "Task instance not found.")
        ids = tuple(id for each in found for id in each["ids"].values())
        records, settings = await source.records(ids)
        return {"tries": instance(found, records, settings)}

    app.mount("/static", StaticFiles(directory=STATIC))
    return app
