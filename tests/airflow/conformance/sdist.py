"""The source distribution of the Amazon provider, which contains its tests. Nothing of it is committed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path

PROVIDER = "apache-airflow-providers-amazon"
SECONDS = 180


class Unavailable(Exception):
    """The distribution could not be fetched. The message has the reason."""


def tests(folder: Path) -> Path:
    """Return the folder ``tests`` of the installed version's distribution, which is fetched once into `folder`."""
    version = metadata.version(PROVIDER)
    place = folder / version
    if not (place / "tests").is_dir():
        archive = _fetch(version, folder / "download")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        (extracted,) = folder.glob(f"*-{version}/")
        extracted.rename(place)
    return place / "tests"


def _fetch(version: str, folder: Path) -> Path:
    """Fetch the distribution with pip, or with uv's pip where this Python has none."""
    arguments = [
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        PROVIDER,
        f"{PROVIDER}=={version}",
        "-d",
        str(folder),
    ]
    reasons = []
    for pip in (
        [sys.executable, "-m", "pip"],
        [shutil.which("pip") or "pip"],
        [shutil.which("uv") or "uv", "tool", "run", "pip"],
    ):
        try:
            result = subprocess.run([*pip, *arguments], capture_output=True, text=True, timeout=SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            reasons.append(str(error))
            continue
        if found := list(folder.glob("*.tar.gz")):
            return found[0]
        reasons.append(result.stderr.strip().rpartition("\n")[2])
    raise Unavailable(f"cannot fetch the tests of {PROVIDER} {version} from PyPI: {'; '.join(reasons)}")
