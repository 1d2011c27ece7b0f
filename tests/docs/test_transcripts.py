"""The transcripts of docs/quickstart.md match the real output. `ECS_BRIDGE_WRITE=1` rewrites them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from documents import DOCS, PAGES, fenced, section
from local_stack import PROGRAM

PAGE = DOCS / "quickstart.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The words that the output below a heading must contain, because a wrong transcript would also match itself.
CLAIMS = {
    "CannotPullContainerError: the image does not exist": ["125", "state failed", "CannotPullContainerError"],
    "Exit code 137: out of memory": [
        "137",
        "state failed",
        "may have run out of memory",
        "state rejected",
        "999999 memory",
    ],
    "InvalidSubnetID.NotFound: a wrong subnet": ["state rejected", "InvalidSubnetID.NotFound"],
    "Connection refused: a wrong URL": ["Connection refused", "FAIL"],
    "AccessDeniedException: no permission to pass a role": [
        "state queued",
        "AccessDeniedException",
        "PassRoleArns",
        "denied cancelled",
    ],
}
END = "--- the end of a command ---"
# Parts that differ from run to run.
VOLATILE = [
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "<time>"),
    (r"\b[0-9a-f]{32}\b", "<task>"),
    (r"\+?\d+(\.\d+)?(s| ms|m\d\ds)\b", "<duration>"),
    (r" +", " "),
    # How many of the states on the way are seen depends on how busy the machine is.
    (r"(?m)^ ?<duration> (queued|launching|launched|running).*\n", ""),
]


def commands(block: str) -> Iterator[tuple[str, str]]:
    """Each command of a block with its output. A here-document belongs to its command."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        last = next((at for at, line in enumerate(lines) if line == "END\n"), 0) if "<<END" in lines[0] else 0
        yield "".join(lines[: last + 1]), "".join(lines[last + 1 :])


def stable(text: str) -> str:
    for pattern, word in VOLATILE:
        text = re.sub(pattern, word, text)
    return text


def test_transcripts_are_only_in_the_quickstart() -> None:
    blocks = {page: fenced(page.read_text(), "console") for page in PAGES}
    assert {page for page, found in blocks.items() if found} == {PAGE}
    assert blocks[PAGE] == BLOCK.findall(PAGE.read_text())
    assert len(blocks[PAGE]) == PAGE.read_text().count("```console")


def test_each_failure_shows_its_headings_message() -> None:
    for heading, words in CLAIMS.items():
        blocks = fenced(section(PAGE, f"### {heading}"), "console")
        output = stable("".join(output for block in blocks for _, output in commands(block)))
        assert all(word in output for word in words), heading


def test_transcript_matches_the_real_output(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ECS_BRIDGE"))}
    environment |= {"PATH": f"{PROGRAM.parent}:{environment['PATH']}", "HOME": str(tmp_path)}
    page = PAGE.read_text()
    with subprocess.Popen(
        ["bash"],
        cwd=tmp_path,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as shell:
        assert shell.stdin
        assert shell.stdout

        def run(command: str) -> str:
            # The exit code of the command is kept for the next one.
            shell.stdin.write(f"{command}kept=$?; echo '{END}'; (exit $kept)\n")
            shell.stdin.flush()
            return "".join(iter(lambda: next(iter(shell.stdout)), f"{END}\n"))

        seen = [
            (command, expected, run(command)) for block in BLOCK.findall(page) for command, expected in commands(block)
        ]
        shell.stdin.close()
        shell.wait()
    if os.environ.get("ECS_BRIDGE_WRITE"):
        answers = iter(seen)

        def written(match: re.Match[str]) -> str:
            shown = (f"$ {command}{output}" for command, _, output in (next(answers) for _ in commands(match[1])))
            return f"```console\n{''.join(shown)}```"

        PAGE.write_text(BLOCK.sub(written, page))
        return
    for command, expected, output in seen:
        assert stable(output) == stable(expected), command
    assert len(seen) > 20
