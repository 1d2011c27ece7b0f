#!/usr/bin/env python3
"""Turns template.yaml into that of a release: the functions' code is a zip beside it, and nothing is built.

    infra/release_template.py x86_64 < template.yaml > dist/template.yaml

Line by line, so that comments stay.
"""

from __future__ import annotations

import re
import sys

BINARY = re.compile(r"^      BuildProperties: \{ Binary: (?P<name>[a-z-]+) \}$")


def released(template: str, architecture: str) -> str:
    """The template of a release for one architecture."""
    lines: list[str] = []
    binary: str | None = None
    for line in template.splitlines():
        if line in ("    CodeUri: .", "      BuildMethod: rust-cargolambda"):
            continue
        if found := BINARY.match(line):
            binary = found["name"]
            continue
        lines.append(line)
        if binary and line == "    Properties:":
            lines.append(f"      CodeUri: {binary}.zip")
            binary = None
    text = "\n".join(lines) + "\n"
    text, changed = re.subn(
        r"(  Architecture:\n    Type: String\n)    Default: .*\n    AllowedValues: .*\n",
        rf"\g<1>    Default: {architecture}\n    AllowedValues: [{architecture}]\n",
        text,
    )
    if changed != 1 or text.count("CodeUri: ") != 3:
        sys.exit("template.yaml is not laid out as infra/release_template.py expects")
    return text


if __name__ == "__main__":
    sys.stdout.write(released(sys.stdin.read(), sys.argv[1]))
