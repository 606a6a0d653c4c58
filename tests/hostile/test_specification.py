"""docs/bundle.md and docs/manifest.schema.json say what the readers do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from samdeploy.backends.golden import GOLDEN_TOLERANCE
from samdeploy.bundle import Bundle
from samdeploy.bundle.manifest import FORMAT, ROLES, VERSION
from samdeploy.bundle.names import MANIFEST
from samdeploy.bundle.spec import CROPS, FITS, PRECISIONS, RESIZES
from samdeploy.images.resize import MOST_PIXELS_BETWEEN_PASSES
from tests.hostile.manifest_cases import MANIFESTS

jsonschema = pytest.importorskip("jsonschema", reason="pip install 'samdeploy[dev]'")

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "bundle.md").read_text()

# What the readers refuse and no schema can see: other files, how the text is written, what stands twice.
BEYOND_A_SCHEMA = {
    "path through a file", "file is missing", "symbolic link", "linked folder", "hard link", "linked manifest", "pipe",
    "folder for a file", "wrong hash", "truncated", "longer", "swapped files", "length of 8 EiB", "one file twice",
    "repeated key", "repeated key, escaped", "integer of 65 bits", "integer of 64 bits", "huge integer for a number",
    "temperature is no number", "crop larger than the image", "number for an integer", "half a surrogate", "NaN",
    "number too large", "answers of two numbers", "answers of too few classes",
}  # fmt: skip


@pytest.fixture(scope="module")
def schema() -> Any:
    values = json.loads((DOCS / "manifest.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(values)
    return jsonschema.Draft202012Validator(values)


def test_a_real_manifest_fits_the_schema(schema: Any, digits_bundle: Bundle) -> None:
    values = json.loads((digits_bundle.root / MANIFEST).read_text())
    assert [error.message for error in schema.iter_errors(values)] == []


def test_the_sound_bundle_fits_the_schema(schema: Any, root: Path) -> None:
    assert schema.is_valid(json.loads((root / MANIFEST).read_text()))


@pytest.mark.parametrize("name", sorted(set(MANIFESTS) - BEYOND_A_SCHEMA))
def test_what_readers_refuse_the_schema_refuses(name: str, schema: Any, root: Path) -> None:
    MANIFESTS[name][0](root)
    try:
        values = json.loads((root / MANIFEST).read_bytes().decode("utf-8"))
    except (ValueError, RecursionError):
        return  # no JSON: nothing that a schema is asked about
    assert not schema.is_valid(values)


def test_every_key_of_a_manifest_stands_on_the_page(digits_bundle: Bundle) -> None:
    values = json.loads((digits_bundle.root / MANIFEST).read_text())
    for section, inner in values.items():
        assert f"`{section}" in PAGE, section
        keys = inner[0] if isinstance(inner, list) else inner if isinstance(inner, dict) else {}
        for key in {} if section == "provenance" else keys:
            assert re.search(rf"[`.\"]{key}[`\"]", PAGE), f"{section}.{key}"


def test_the_page_has_the_numbers_and_names_of_the_code() -> None:
    assert f'`"{FORMAT}"`' in PAGE
    assert PAGE.startswith(f"# The bundle, version {VERSION}\n")
    written = re.findall(r"([\d.e-]+) for (fp32|fp16|bf16|int8)\b", PAGE)
    assert {precision: float(value) for value, precision in written} == GOLDEN_TOLERANCE
    assert all(f"`{name}`" in PAGE for name in (*ROLES, *PRECISIONS, *FITS, *CROPS, *RESIZES.values()))
    assert MOST_PIXELS_BETWEEN_PASSES == 2**27 and re.search(r"above\s+2\^27", PAGE)
