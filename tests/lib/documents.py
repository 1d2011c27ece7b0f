"""Reads the Markdown pages of the documentation: sections, tables and blocks of code."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from local_stack import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def _lines(page: Path) -> Iterator[tuple[str, int]]:
    """The lines of a page, with the level of those that are headings, or 0."""
    is_code = False
    for line in page.read_text().splitlines(keepends=True):
        is_code ^= line.lstrip().startswith("```")
        level = len(line) - len(line.lstrip("#"))
        yield line, 0 if is_code or line[level : level + 1] != " " else level


def section(page: Path, heading: str) -> str:
    """The text below a heading such as `## Metrics`, up to the next heading of its level or above it."""
    lines = _lines(page)
    level = next((level for line, level in lines if level and line.rstrip() == heading), None)
    assert level, f"{page.name} has no {heading}"
    return "".join(line for line, _ in itertools.takewhile(lambda each: not 0 < each[1] <= level, lines))


def headings(page: Path, level: int) -> list[str]:
    return [line.lstrip("#").strip() for line, of in _lines(page) if of == level]


def table_rows(text: str) -> list[list[str]]:
    """The cells of all rows whose first cell begins with code, which are those below the heads of tables."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in rows]


def code(cell: str) -> list[str]:
    """The names in a cell that are marked as code."""
    return re.findall(r"`([^`]+)`", cell)


def fenced(text: str, language: str) -> list[str]:
    """The blocks of code in a language, without their indentation in lists. `language` is a regular expression."""
    found = re.finditer(rf"^( *)```{language}\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{match[1]}", "", match[2], flags=re.MULTILINE) for match in found]
