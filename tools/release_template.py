#!/usr/bin/env python3
"""Convert template.yaml into the templates of a release, which use zip files and build nothing.

    tools/release_template.py x86_64 < template.yaml             # for `sam deploy`, with local zip files
    tools/release_template.py --packaged x86_64 arm64 < template.yaml   # for CloudFormation, with zip files in a bucket
    tools/release_template.py --no-urls x86_64 < template.yaml   # for Regions without function URLs

The conversion works line by line, so comments are kept.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

BINARY = re.compile(r"^      BuildProperties: \{ Binary: (?P<name>[a-z-]+) \}$")
BUCKET = """  CodeBucket:
    Type: String
    Description: Bucket in this Region that contains the zip files of the release
  CodePrefix:
    Type: String
    Default: ""
    AllowedPattern: "([A-Za-z0-9!_.*'()/-]*/)?"
    Description: Prefix of the zip files in the bucket, with a final slash. Use a new prefix for each release

"""


def released(template: str, architecture: str) -> str:
    """Return the template of a release for one architecture, with the paths of its zip files."""
    return _with_code(template, [architecture], lambda name: f"      CodeUri: {architecture}/{name}.zip\n")


def packaged(template: str, architectures: list[str]) -> str:
    """Return the template of a release in a bucket. Keys are CodePrefix + architecture/name.zip in CodeBucket."""
    text = _with_code(
        template,
        architectures,
        lambda name: (
            "      CodeUri:\n        Bucket: !Ref CodeBucket\n"
            # Not !Sub, because the SAM transform does not detect a changed parameter in it.
            f'        Key: !Join ["", [!Ref CodePrefix, !Ref Architecture, "/{name}.zip"]]\n'
        ),
    )
    return text.replace("\nParameters:\n", "\nParameters:\n" + BUCKET, 1)


def without_urls(template: str) -> str:
    """Return the template for Regions whose CloudFormation does not support AWS::Lambda::Url. FunctionUrl is "false".

    A resource whose condition is false is not enough. Change sets are reported to fail on its type regardless.
    https://github.com/aws/serverless-application-model/issues/1167, https://github.com/aws/aws-cdk/issues/25634
    """
    urls = re.findall(r"^  (\w+):\n    Type: AWS::Lambda::Url$", template, re.MULTILINE)
    text, fixed = re.subn(
        r"(  FunctionUrl:\n    Type: String\n)    Default: .*\n    AllowedValues: .*\n",
        r'\g<1>    Default: "false"\n    AllowedValues: ["false"]\n',
        template,
    )
    for name in urls:
        text = re.sub(rf"^  {name}:\n(?:    .*\n)+\n", "", text, flags=re.MULTILINE)
    # Remove each output and each variable that contains a URL.
    reference = "|".join(rf"!GetAtt {name}\.|\$\{{{name}\." for name in urls)
    text = re.sub(rf"^  \w+:\n(?:    .*\n)*    Value: .*(?:{reference}).*\n", "", text, flags=re.MULTILINE)
    text = re.sub(rf"^          ECS_BRIDGE_\w+: .*(?:{reference}).*\n", "", text, flags=re.MULTILINE)
    if fixed != 1 or not urls or "AWS::Lambda::Url" in text or re.search(reference, text):
        sys.exit("conversion failed: unexpected layout of template.yaml; update tools/release_template.py")
    return text


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
        sys.exit("conversion failed: unexpected layout of template.yaml; update tools/release_template.py")
    return text


if __name__ == "__main__":
    source, arguments = sys.stdin.read(), sys.argv[1:]
    if "--no-urls" in arguments:
        arguments.remove("--no-urls")
        source = without_urls(source)
    match arguments:
        case ["--packaged", *architectures]:
            sys.stdout.write(packaged(source, architectures))
        case [architecture]:
            sys.stdout.write(released(source, architecture))
        case _:
            sys.exit(__doc__)
