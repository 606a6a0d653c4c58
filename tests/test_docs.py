"""README.md and docs/ say what there is: links lead to files, commands take the options shown, fields are listed."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from samdeploy.bench.bench_json import BenchReport, EngineBench
from samdeploy.bench.cold_start import ColdStart
from samdeploy.bench.nvml import GpuState
from samdeploy.bench.throughput import BatchPoint, ThreadPoint
from samdeploy.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / f"{name}.md" for name in ("README", "DESIGN", "CHANGELOG", "SECURITY", "CONTRIBUTING")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
GROUP: Any = typer.main.get_command(app)  # made once: it takes 30 ms


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page.read_text())
    assert not [link for link in links if "://" not in link and not (page.parent / link.split("#")[0]).exists()]


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """(page, words after `samdeploy`) of every command in a block of shell lines or between backticks."""
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        lines += re.findall(r"`(samdeploy [^`]+)`", text)
        for line in lines:
            words = shlex.split(line, comments=True)
            if "samdeploy" in words:
                yield name(page), words[words.index("samdeploy") + 1 :]


def test_there_are_commands_to_check() -> None:
    assert len(list(command_lines())) > 25


@pytest.mark.parametrize(
    ("page", "words"), list(command_lines()), ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_commands_take_what_is_shown(page: str, words: list[str]) -> None:
    command = GROUP
    if not words[0].startswith("-"):
        assert words[0] in GROUP.commands, page
        command = GROUP.commands[words[0]]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    shown = {word.split("=")[0] for word in words if word.startswith("--")}
    assert shown <= known | {"--help"}, f"{page}: {' '.join(words)}"


def test_every_field_of_a_bench_file_is_listed() -> None:
    text = (ROOT / "docs" / "files.md").read_text()
    empty = BenchReport("", "", "", {}, None, 1, "", engines=(EngineBench("", "", "", True, ""),))
    keys = set(empty.to_json()) | set(empty.to_json()["engines"][0])
    for record in (BatchPoint, ThreadPoint, ColdStart, GpuState):
        keys |= {field.name for field in dataclasses.fields(record)}
    assert not [key for key in keys if not re.search(rf"`[^`]*\b{key}\b[^`]*`", text)]


@pytest.mark.parametrize(("file", "part"), [("eval", "result"), ("compare", "network")])
def test_every_field_of_a_result_is_listed(file: str, part: str) -> None:
    text = (ROOT / "docs" / "files.md").read_text().partition(f"\n## {file}.json")[2].partition("\n## ")[0]
    schema = json.loads((ROOT / "samdeploy" / "report" / f"{file}.schema.json").read_text())
    keys = {*schema["properties"], *schema["$defs"][part]["properties"]}
    assert not [key for key in keys if not re.search(rf"`[^`]*\b{key}\b[^`]*`", text)]
