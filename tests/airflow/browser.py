"""A headless Chromium, driven by Playwright; not the one that Playwright would download."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import BrowserContext

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = (
    "--no-sandbox",  # Chromium's own sandbox does not work as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find() -> str | None:
    """Return the path of a Chromium: of the one on PATH, else, as root on Debian, of one that apt-get installs."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "chromium")
        for command in (("apt-get", "update", "--quiet"), install):
            if subprocess.run(
                command, stdout=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            ).returncode:
                return None
        found = shutil.which("chromium")
    return found


@contextlib.contextmanager
def chromium(path: str, **options: object) -> Iterator[BrowserContext]:
    """Run it with an empty profile; the options are those of Playwright's `launch_persistent_context`."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory(prefix="ecs-bridge-chromium-") as profile, sync_playwright() as playwright:
        browser = playwright.chromium
        context = browser.launch_persistent_context(
            profile, executable_path=path, headless=True, args=list(FLAGS), **options
        )
        try:
            yield context
        finally:
            context.close()
