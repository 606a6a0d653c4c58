"""A manifest of any content takes memory and time in proportion to its length, and is refused with a short text."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from samdeploy.bundle.names import MANIFEST
from tests.cpp import measure
from tests.cpp.build import SANITIZE, Build

MOST_BYTES = 4 << 20
MOST_MIB, MOST_CPU_S, MOST_TEXT = 256, 10, 8000


def with_value(key: str, value: str) -> Callable[[dict[str, object]], str]:
    """The manifest with JSON text as the value of `key`, filled up to the largest length."""
    return lambda manifest: json.dumps({**manifest, key: "@"}).replace('"@"', value)


def repeated(start: str, item: str, end: str) -> str:
    return start + item * ((MOST_BYTES - 10_000) // len(item)) + end


def bad_entries(manifest: dict[str, object]) -> str:
    entry = {"role": "x" * 9, "path": 7, "sha256": "", "bytes": "", "backend": 1, "precision": 2, "built_for": []}
    return json.dumps({**manifest, "files": [entry] * 30_000})


KEYS = "{" + ",".join(f'"{index}":0' for index in range(380_000)) + "}"
MANIFESTS: dict[str, Callable[[dict[str, object]], str]] = {
    "zeros": with_value("later", repeated("[", "0,", "0]")),
    "zeros-as-shape": with_value("input", repeated('{"name": "", "dtype": "", "shape": [', "0,", "0]}")),
    "lists": with_value("later", repeated("[", "[0],", "[]]")),
    "objects": with_value("files", repeated("[", "{},", "{}]")),
    "objects-with-keys": with_value("files", repeated("[", '{"":0},', "{}]")),
    "texts": with_value("model", repeated('{"classes": [', '"",', '""]}')),
    "bad-entries": bad_entries,
    "unknown-keys": lambda manifest: json.dumps(manifest)[:-1] + "," + KEYS[1:],
    "map": with_value("provenance", KEYS),
    "long-path": lambda manifest: json.dumps(manifest).replace('"path": "', '"path": "' + "a/" * 2_000_000, 1),
    "long-number": with_value("version", repeated("", "1", "")),
    "long-fraction": with_value("version", repeated("0.", "1", "e-999")),
    "deep": with_value("later", repeated("", "[", "")),
    "15-MB": with_value("later", "[" + "0," * 7_500_000 + "0]"),
}


@pytest.mark.skipif(bool(SANITIZE), reason="sanitizers take several times the memory")
def test_no_manifest_takes_much_memory_or_time(built: Build, copy_of_bundle: Path, tmp_path: Path) -> None:
    sound = json.loads((copy_of_bundle / MANIFEST).read_text())
    command = [sys.executable, measure.__file__, str(8 << 30), str(built.classify)]
    bad = {}
    for name, make in MANIFESTS.items():
        (copy_of_bundle / MANIFEST).write_text(make(sound))
        assert name == "15-MB" or (copy_of_bundle / MANIFEST).stat().st_size <= MOST_BYTES
        done = subprocess.run([*command, str(copy_of_bundle), "none.png"], capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        is_good = found["code"] == 2 and found["peak_mib"] < MOST_MIB and found["cpu_s"] < MOST_CPU_S
        if not is_good or len(found["text"]) > MOST_TEXT:
            bad[name] = {**found, "text": found["text"][:300]}
    assert bad == {}
