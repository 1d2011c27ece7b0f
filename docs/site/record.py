#!/usr/bin/env python3
"""Records what `make demo` shows as docs/img/demo.svg: `make record`."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 118


def main() -> None:
    """Writes the picture."""
    done = subprocess.run([sys.executable, ROOT / "examples" / "demo.py"], capture_output=True, text=True, check=True)
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print("[bold green]$[/] make demo")
    console.print(Text.from_ansi(done.stdout.rstrip()), highlight=False)
    # No fonts from elsewhere: the page is to be read without a network too.
    svg = console.export_svg(title="ECS bridge", unique_id="demo")
    start, end = svg.index("@font-face"), svg.rindex("@font-face")
    end = svg.index("}", end) + 1
    (ROOT / "docs" / "img" / "demo.svg").write_text(svg[:start] + svg[end:].lstrip())


if __name__ == "__main__":
    main()
