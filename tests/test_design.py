"""DESIGN.md names what there is: every room, and files and constants under the names that they have."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "DESIGN.md").read_text(encoding="utf-8")
TICKED = re.findall(r"`([^`\n]+)`", TEXT)


def test_every_path_exists() -> None:
    paths = [
        name for name in TICKED if re.fullmatch(r"(samdeploy|cpp|docs|tests|scripts|benchmarks|examples)/[\w./]*", name)
    ]
    assert len(paths) > 40
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_room_is_in_the_map() -> None:
    the_map = TEXT[TEXT.index("## The map") : TEXT.index("## Where is")]
    rooms = {
        path.parent.relative_to(ROOT).as_posix()
        for path in (ROOT / "samdeploy").rglob("*.py")
        if path.parent != ROOT / "samdeploy"
    }
    assert sorted(room for room in rooms if f"`{room}/`" not in the_map) == []


def test_every_constant_is_where_the_index_says() -> None:
    index = TEXT[TEXT.index("## Where is") : TEXT.index("## Decisions")]
    found = 0
    for names, path in re.findall(r"((?:`[A-Z_0-9]+`(?:, )?)+) in `(samdeploy/[\w/]+\.py)`", index):
        for name in re.findall(r"`([A-Z_0-9]+)`", names):
            assert re.search(rf"^{name}\b.*=", (ROOT / path).read_text(), re.M), f"{name} is not in {path}"
            found += 1
    assert found > 10


def test_it_stays_short() -> None:
    assert len(TEXT.splitlines()) <= 200
