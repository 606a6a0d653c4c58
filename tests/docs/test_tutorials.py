"""Every code block of the tutorials runs, in the order of the site, in one folder with one small bundle."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from samdeploy.bundle import Bundle
from tests import packages
from tests.docs.tutorial import PROGRAMS, Block, blocks, run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"
NAV = tomllib.loads((ROOT / "docs" / "builder" / "zensical.toml").read_text())["project"]["nav"]
ORDER = [Path(page).stem for part in NAV for entry in part.get("Tutorials", ()) for page in entry.values()]


@pytest.fixture(scope="module")
def folder(digits_run: Path, digits_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which all tutorials run: it has the run and the bundle that the first one makes."""
    folder = tmp_path_factory.mktemp("tutorials")
    shutil.copytree(digits_run, folder / "runs" / digits_run.name)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def programs(environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Variables with which `samdeploy` and `python` are those of this interpreter."""
    bin_folder = tmp_path_factory.mktemp("bin")
    for name, arguments in (("samdeploy", " -m samdeploy"), ("python", "")):
        (bin_folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        (bin_folder / name).chmod(0o755)
    return {**environment, "PATH": f"{bin_folder}{os.pathsep}{environment['PATH']}"}


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_the_site_has_all_tutorials() -> None:
    assert set(ORDER) == {page.stem for page in TUTORIALS.glob("*.md")}


@pytest.mark.parametrize("name", ORDER)
def test_blocks_run_here_or_elsewhere(name: str) -> None:
    for block in blocks(TUTORIALS / f"{name}.md"):
        if block.elsewhere is not None:
            assert (ROOT / block.elsewhere).exists()
        elif block.language != "text":
            assert block.language in PROGRAMS


@pytest.mark.parametrize("name", ORDER)
def test_a_tutorial_runs(name: str, folder: Path, programs: Mapping[str, str], port: int) -> None:
    text = joined(blocks(TUTORIALS / f"{name}.md"))
    if any("curl" in block.text for block in text) and (lacking := packages.lacking("docs")):
        pytest.skip(lacking)
    for block in text:
        run(block, folder, programs, port)


def joined(found: list[Block]) -> list[Block]:
    """The blocks that are run here; from one that starts a program in the background on, all in one shell."""
    ours = [block for block in found if block.elsewhere is None and block.language in PROGRAMS]
    start = next((place for place, block in enumerate(ours) if " &\n" in block.text), len(ours))
    rest = ours[start:]
    if not rest:
        return ours
    assert all(block.language == "sh" and not block.exit_code for block in rest)
    shows = tuple(line for block in rest for line in block.shows)
    return [*ours[:start], Block("sh", "".join(block.text for block in rest), 0, shows, None)]


def test_a_block_that_fails_is_found(tmp_path: Path, programs: Mapping[str, str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- exit 1 -->\n```sh\nfalse\ntrue\n```\n<!-- shows: 8 -->\n```python\nprint(4 + 4)\n```\n"
        "```sh\nfalse | true\n```\n<!-- shows: 9 -->\n```sh\necho 8\n```\n"
    )
    first, second, piped, wrong = blocks(page)
    run(first, tmp_path, programs, 1)
    run(second, tmp_path, programs, 1)
    with pytest.raises(AssertionError, match="exit code 1"):
        run(piped, tmp_path, programs, 1)
    with pytest.raises(AssertionError, match="'9' is not in the output"):
        run(wrong, tmp_path, programs, 1)
    page.write_text("<!-- exits 1 -->\n```sh\nfalse\n```\n")
    with pytest.raises(ValueError, match="unknown note"):
        blocks(page)
