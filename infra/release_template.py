#!/usr/bin/env python3
"""Turns template.yaml into those of a release, which take zips and build nothing.

    infra/release_template.py x86_64 < template.yaml             # for `sam deploy`: the zips are files beside it
    infra/release_template.py --packaged x86_64 arm64 < template.yaml   # for CloudFormation: the zips are in a bucket

Line by line, so that comments stay.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

BINARY = re.compile(r"^      BuildProperties: \{ Binary: (?P<name>[a-z-]+) \}$")
BUCKET = """  CodeBucket:
    Type: String
    Description: Bucket in this region that holds the zips of the release
  CodePrefix:
    Type: String
    Default: ""
    AllowedPattern: "([A-Za-z0-9!_.*'()/-]*/)?"
    Description: Prefix of the zips in the bucket, with a slash at its end. Another one for each release

"""


def released(template: str, architecture: str) -> str:
    """The template of a release for one architecture, with the paths of its zips."""
    return _with_code(template, [architecture], lambda name: f"      CodeUri: {architecture}/{name}.zip\n")


def packaged(template: str, architectures: list[str]) -> str:
    """The template of a release whose zips are in a bucket: CodeBucket/CodePrefix + architecture/name.zip."""
    text = _with_code(
        template,
        architectures,
        lambda name: "      CodeUri:\n        Bucket: !Ref CodeBucket\n"
        # Not !Sub, in which the SAM transform does not see that a parameter has changed.
        f'        Key: !Join ["", [!Ref CodePrefix, !Ref Architecture, "/{name}.zip"]]\n',
    )
    return text.replace("\nParameters:\n", "\nParameters:\n" + BUCKET, 1)


def _with_code(template: str, architectures: list[str], code: Callable[[str], str]) -> str:
    lines: list[str] = []
    binary: str | None = None
    found_binaries = 0
    for line in template.splitlines(keepends=True):
        if line in ("    CodeUri: .\n", "      BuildMethod: rust-cargolambda\n"):
            continue
        if found := BINARY.match(line.rstrip("\n")):
            binary = found["name"]
            continue
        lines.append(line)
        if binary and line == "    Properties:\n":
            lines.append(code(binary))
            binary = None
            found_binaries += 1
    text, changed = re.subn(
        r"(  Architecture:\n    Type: String\n)    Default: .*\n    AllowedValues: .*\n",
        rf"\g<1>    Default: {architectures[0]}\n    AllowedValues: [{', '.join(architectures)}]\n",
        "".join(lines),
    )
    if changed != 1 or text.count("CodeUri:") != found_binaries or not found_binaries:
        sys.exit("template.yaml is not laid out as infra/release_template.py expects")
    return text


if __name__ == "__main__":
    source = sys.stdin.read()
    match sys.argv[1:]:
        case ["--packaged", *architectures]:
            sys.stdout.write(packaged(source, architectures))
        case [architecture]:
            sys.stdout.write(released(source, architecture))
        case _:
            sys.exit(__doc__)
