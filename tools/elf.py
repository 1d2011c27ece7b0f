#!/usr/bin/env python3
"""Check the architecture of programs. Lambda accepts any program, and fails every invocation of a wrong one.

tools/elf.py x86_64 PROGRAM_OR_ZIP...   # exits with 1 and prints a line per wrong program
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

# e_machine of the ELF header. https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html
MACHINES = {62: "x86_64", 183: "arm64"}


def architecture(program: bytes) -> str | None:
    """Return the architecture of a 64-bit little-endian ELF program, or None for other content."""
    if program[:6] != b"\x7fELF\x02\x01":
        return None
    return MACHINES.get(int.from_bytes(program[18:20], "little"))


def header(path: Path) -> bytes:
    """Return the first bytes of a program, or of `bootstrap` in a zip file."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive, archive.open("bootstrap") as program:
            return program.read(20)
    return path.read_bytes()[:20]


def mismatches(programs: list[Path], expected: str) -> list[str]:
    """Return one line for each program of a different architecture."""
    found = {program: architecture(header(program)) for program in programs}
    return [
        f"wrong architecture of {program}: built for {actual or 'an unsupported architecture'}, deployed as {expected}"
        for program, actual in found.items()
        if actual != expected
    ]


if __name__ == "__main__":
    sys.exit("\n".join(mismatches([Path(each) for each in sys.argv[2:]], sys.argv[1])) or 0)
