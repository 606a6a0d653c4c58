"""The code blocks of a tutorial, and running them in order in one folder.

A comment above a block says what else is expected of it: `<!-- exit 1 -->`, its exit code; `<!-- shows: TEXT -->`, what
its output must have; `<!-- elsewhere: PATH -->`, that it is not run here, since what is at PATH runs the same.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Languages of blocks that are run; `text` is what programs print.
PROGRAMS = {"sh": ["bash", "-eo", "pipefail", "-c"], "python": ["python", "-c"]}
_BLOCK = re.compile(r"((?:^<!-- .*? -->\n)*)^```(\w+)\n(.*?)^```$", re.M | re.S)
_NOTE = re.compile(r"<!-- (exit|shows:|elsewhere:) (.*?) -->")


@dataclass(frozen=True)
class Block:
    """One block: its language, its text, and what the notes above it say."""

    language: str
    text: str
    exit_code: int
    shows: tuple[str, ...]
    elsewhere: str | None


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in its order."""
    found = []
    for comments, language, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
        notes = _NOTE.findall(comments)
        if len(notes) != comments.count("<!--"):
            raise ValueError(f"{page.name}: unknown note above a block: {comments}")
        codes = [int(value) for kind, value in notes if kind == "exit"]
        places = [value for kind, value in notes if kind == "elsewhere:"]
        shows = tuple(value for kind, value in notes if kind == "shows:")
        found.append(Block(language, text, codes[0] if codes else 0, shows, places[0] if places else None))
    return found


def run(block: Block, folder: Path, environment: Mapping[str, str], port: int) -> str:
    """Run a block in `folder`, with `port` in the place of 8000; returns what it printed.

    Raises:
        AssertionError: it ends with another exit code, or does not print what it should.
    """
    text = block.text.replace("8000", str(port))
    command = [*PROGRAMS[block.language], text]
    with (folder / "output").open("w+") as output:  # a file: a server that goes on would keep a pipe open
        started = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, start_new_session=True,
            stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            code = started.wait(timeout=300)
        finally:
            with suppress(ProcessLookupError):  # what it started goes with it
                os.killpg(started.pid, signal.SIGKILL)
        output.seek(0)
        printed = output.read()
    assert code == block.exit_code, f"exit code {code}\n{block.text}\n{printed}"
    for line in block.shows:
        assert line in printed, f"{line!r} is not in the output\n{block.text}\n{printed}"
    return printed
