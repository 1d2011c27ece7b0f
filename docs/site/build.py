#!/usr/bin/env python3
"""Builds the documents as a site in target/site; a link to nothing is an error.

`--serve` shows it on 127.0.0.1:8000, and builds it again where a page changes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "target" / "site"
# Pages that are not in docs/, and what they are called on the site.
OTHERS = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "programs/runner/README.md": "runner.md",
}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def sources() -> dict[Path, str]:
    """All pages and pictures, by their path in the repository, with their path on the site."""
    files = [path for kind in ("*.md", "*.yaml", "img/*.svg", "img/*.png") for path in (ROOT / "docs").glob(kind)]
    found = {path: str(path.relative_to(ROOT / "docs")) for path in files}
    return found | {ROOT / name: page for name, page in OTHERS.items()}


def moved(text: str, page: Path, pages: dict[Path, str]) -> str:
    """A page with its links to pages as the site has them. What is in the repository only is no link there."""

    def link(match: re.Match[str]) -> str:
        image, label, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        file, _, anchor = target.partition("#")
        source = (page.parent / file).resolve()
        if source in pages:
            anchor = f"#{anchor}" if anchor else ""
            return f"{image}[{label}]({pages[source]}{anchor})"
        if image:
            raise SystemExit(f"{page.relative_to(ROOT)}: there is no picture {target}")
        return label if source.exists() else match[0]

    # Code is not searched for links, but may be the label of one.
    code: list[str] = []

    def hide(match: re.Match[str]) -> str:
        code.append(match[0])
        return f"\0{len(code) - 1}\0"

    hidden = re.sub(r"^ *```.*?^ *```|`[^`\n]*`", hide, text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"\0(\d+)\0", lambda match: code[int(match[1])], LINK.sub(link, hidden))


def gather() -> None:
    """Puts the pages together."""
    pages = sources()
    folder = SITE / "pages"
    shutil.rmtree(folder, ignore_errors=True)
    for source, name in pages.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            target.write_text(moved(source.read_text(), source, pages))
        else:
            shutil.copyfile(source, target)
    shutil.copyfile(ROOT / "docs" / "site" / "zensical.toml", SITE / "zensical.toml")


def main() -> int:
    """Builds or serves."""
    gather()
    zensical = [str(Path(sys.executable).with_name("zensical"))]
    if "--serve" in sys.argv[1:]:
        return subprocess.call([*zensical, "serve", "--dev-addr", "127.0.0.1:8000"], cwd=SITE)
    done = subprocess.run([*zensical, "build", "--clean", "--strict"], cwd=SITE, capture_output=True, text=True)
    if done.returncode:
        # Its own traceback says nothing more.
        print(done.stdout + done.stderr.partition("Traceback")[0], file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
