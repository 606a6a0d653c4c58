"""No image file makes C++ take more than 256 MiB or 10 s, and none leaves much behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from samdeploy.bundle import Bundle
from samdeploy.bundle.names import MANIFEST
from samdeploy.bundle.spec import RESIZES
from tests.cpp import corpus, hostile_images, measure
from tests.cpp.build import SANITIZE, Build, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(SANITIZE), reason="sanitizers take several times the memory"),
]

MOST_MIB, MOST_CPU_S = 256, 10
ADDRESS_SPACE = 8 << 30  # bytes; a guard for the machine, far above what the runtime maps
MOST_KEPT_MIB = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hostile images, and "idle", which is harmless."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "idle").write_bytes(corpus.png(20, 20, 8, 2))
    for name, make in hostile_images.FILES.items():
        (folder / name).write_bytes(make())
    return folder


@pytest.mark.parametrize(
    ("resize", "names"),
    [
        (RESIZES["bilinear"], hostile_images.FILES.keys()),
        (RESIZES["bicubic"], hostile_images.RESIZED),
    ],
)
def test_no_image_takes_much_memory_or_time(
    resize: str, names: Collection[str], built: Build, copy_of_bundle: Path, folder: Path
) -> None:
    values = json.loads((copy_of_bundle / MANIFEST).read_text())
    values["preprocessing"]["resize"] = resize
    (copy_of_bundle / MANIFEST).write_text(json.dumps(values))
    paths = {name: folder / name for name in ("idle", *names)}
    command = [sys.executable, measure.__file__, str(ADDRESS_SPACE), str(built.classify), str(copy_of_bundle)]
    done = subprocess.run(
        [*command, *map(str, paths.values())], capture_output=True, text=True, timeout=600, check=True
    )
    found = dict(zip(paths, map(json.loads, done.stdout.splitlines()), strict=True))
    idle = found.pop("idle")["peak_mib"]
    bad = {
        name: each
        for name, each in found.items()
        if each["peak_mib"] - idle > MOST_MIB
        or each["cpu_s"] > MOST_CPU_S
        or (each["code"], '"label"' in each["text"]) not in ((0, True), (2, False))
    }
    assert bad == {}
    refused = {name for name, each in found.items() if each["code"]}
    assert refused == hostile_images.REFUSED & {*names}


@pytest.mark.parametrize("name", ["png-wide-million", "png-60-MiB-of-noise", "png-interlaced-rgba16"])
def test_nothing_large_is_kept_for_the_next_image(name: str, built: Build, digits_bundle: Bundle, folder: Path) -> None:
    kept = []
    for each in ("idle", name):
        done = run(built.folder / "samdeploy-endurance", digits_bundle.root, folder / each, 3, 0)
        kept.append(int(done.stdout.split()[-1]) / 1024)
    assert kept[1] - kept[0] < MOST_KEPT_MIB
