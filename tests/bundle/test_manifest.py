"""Everything that can be wrong with a manifest that someone else has written."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from samdeploy.bundle import open_bundle
from samdeploy.bundle.manifest import ROLES, BundleFile
from samdeploy.bundle.names import MANIFEST
from tests.bundle.written import edit, refusal


def test_newer_version_says_what_to_do(root: Path) -> None:
    edit(root, lambda values: values.update(version=2, surprise=True))
    assert refusal(root) == ("format version 2 found, this samdeploy reads up to 1; update samdeploy")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format": "samdeploy-run"}, "format 'samdeploy-run' found, 'samdeploy-bundle' expected"),
        ({"format": None}, "format None found, 'samdeploy-bundle' expected"),
        ({"format": ["x" * 10_000]}, "format ['xxxxxxxxxxxxxxxxxxxxxxxxxxx...xxxxxxxxxxxxxxxxxxxxxxxxxxxx'] found, "),
        ({"version": 1.0}, "version 1.0 found, an integer of at least 1 expected"),
        ({"version": -1}, "version -1 found, an integer of at least 1 expected"),
        ({"version": False}, "version False found, an integer of at least 1 expected"),
    ],
)
def test_wrong_format_or_version(root: Path, change: dict[str, Any], text: str) -> None:
    edit(root, lambda values: values.update(change))
    assert refusal(root).startswith(text)


def test_everything_wrong_is_told_at_once_with_the_nearest_spelling(root: Path) -> None:
    def change(values: dict[str, Any]) -> None:
        values["provenence"] = values.pop("provenance")
        values["model"]["arch"] = 18
        del values["preprocessing"]["fit"]
        values["preprocessing"]["heigth"] = values["preprocessing"].pop("height")
        values["files"][0]["bytes"] = "11"
        values["files"][1]["role"] = "grahp"
        values["files"][2] = "engines/a.plan"
        values["data"]["counts"]["test"] = 1.5
        values["input"] = None

    edit(root, change)
    assert refusal(root) == "; ".join(
        [
            "'input' must be an object, null found",
            "'provenance' is missing",
            "unknown key 'provenence'; did you mean 'provenance'?",
            "model: 'arch' must be text, integer 18 found",
            "preprocessing: 'height' is missing",
            "preprocessing: 'fit' is missing",
            "preprocessing: unknown key 'heigth'; did you mean 'height'?",
            "files[0]: 'bytes' must be an integer, text '11' found",
            f"files[1]: role 'grahp' found, one of {', '.join(ROLES)} expected",
            "'files[2]' must be an object, text 'engines/a.plan' found",
            "data: 'counts' must map names to integers, number 1.5 found at 'test'",
        ]
    )


def test_a_flood_of_problems_is_cut(root: Path) -> None:
    edit(root, lambda values: values.update({f"key {i} {'x' * 1_000}": i for i in range(500)}))
    text = refusal(root)
    assert text.endswith("; and 480 more")
    assert len(text) < 10_000


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("model", "classes"), [], "model: no classes found, at least one expected"),
        (("model", "classes"), ["a", 1], "model: 'classes' must be a list of texts, integer 1 found at 1"),
        (("model", "classes"), ["a"], "output {'dtype': 'float32', 'name': 'logits', 'shape': ['N', 2]} found, the "),
        (("input", "shape"), ["N", 5, 4, 3], "input {'dtype': 'uint8', 'name': 'image', 'shape': ['N', 5, 4, 3]} "),
        (("input", "shape"), ["N", 4, 5, True], "input: 'shape' must be a list of integers and texts, boolean True "),
        (("input", "dtype"), "float32", "input {'dtype': 'float32', "),
        (("output", "name"), "probabilities", "output {'dtype': 'float32', 'name': 'probabilities', "),
        (("preprocessing", "resize"), "nearest", "preprocessing: resize 'nearest' found, one of bilinear-antialias-"),
        (("preprocessing", "crop"), "round", "preprocessing: crop 'round' found, one of floor, half-even expected"),
        (("model", "license"), 2, "model: 'license' must be text, integer 2 found"),
        (
            ("preprocessing", "fit"),
            "stretch",
            "preprocessing: fit 'stretch' found, one of squeeze, center_crop expected",
        ),
        (("preprocessing", "height"), 0, "preprocessing: size 0x5 found, both sides must be at least 1"),
        (("preprocessing", "width"), 65537, "preprocessing: a side of 65537 pixels found, at most 65536 expected"),
        (("model", "classes"), ["a", "b\0c"], "model: a class's name holds U+0000, which C cannot show"),
        (("preprocessing", "height"), True, "preprocessing: 'height' must be an integer, boolean True found"),
        (("preprocessing", "resize_short"), 9, "preprocessing: resize_short belongs to fit 'center_crop'"),
        (("preprocessing", "std"), [1, 0, 1], "preprocessing: std (1.0, 0.0, 1.0) found, every value must be above 0"),
        (("preprocessing", "std"), [1, 1], "preprocessing: 'std' must be a list of 3 numbers, list [1, 1] found"),
        (("preprocessing", "mean"), "0.5", "preprocessing: 'mean' must be a list of 3 numbers, text '0.5' found"),
        (
            ("preprocessing", "mean"),
            [0, "1", 2],
            "preprocessing: 'mean' must be a list of 3 numbers, text '1' found at 1",
        ),
        (("files", 0, "sha256"), "AB" * 32, "files[0]: sha256 '"),
        (("files", 0, "sha256"), "ab" * 31, "files[0]: sha256 '"),
        (("files", 1, "precision"), "fp8", "files[1]: precision 'fp8' found, one of fp32, fp16, bf16, int8 expected"),
        (("files", 2, "built_for"), {"a": 1}, "files[2]: 'built_for' must map names to texts, integer 1 found at 'a'"),
        (("files", 2, "backend"), 3, "files[2]: 'backend' must be text, integer 3 found"),
        (("files",), {}, "'files' must be a list of objects, object {} found"),
        (("data", "options"), {"a": None}, "data: 'options' must map names to texts, numbers and booleans, null "),
        (("data", "val_fraction"), "0.1", "data: 'val_fraction' must be a number, text '0.1' found"),
        (("data", "fingerprints"), {"test": 1}, "data: 'fingerprints' must map names to texts, integer 1 found at 'te"),
        (("provenance",), [], "'provenance' must map names to texts, list [] found"),
    ],
)
def test_one_wrong_value(root: Path, path: tuple[str | int, ...], value: Any, text: str) -> None:
    def change(values: Any) -> None:
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] = value

    edit(root, change)
    assert refusal(root).startswith(text)


@pytest.mark.parametrize(
    ("depth", "text"),
    [
        (30, "preprocessing: 'height' must be an integer, list [[[[[["),
        (31, "is not valid JSON (nested deeper than 32)"),
    ],
)
def test_nesting_is_limited(root: Path, depth: int, text: str) -> None:
    """Two objects stand around the list."""
    deep = "[" * depth + "]" * depth
    (root / MANIFEST).write_text((root / MANIFEST).read_text().replace('"height": 4', f'"height": {deep}'))
    assert text in refusal(root)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.update(files=[{"a": 1}] * 4096),
        lambda values: values.update(files=[0] * 600_000),
        lambda values: values.update(files=[{**values["files"][0], "path": f"{i}"} for i in range(4096)]),
        lambda values: values.update({f"key{i}": 0 for i in range(200_000)}),
        lambda values: values.update(provenance={f"key{i}": 0 for i in range(200_000)}),
        lambda values: values["model"].update(classes=[0] * 1_000_000),
    ],
    ids=["bad files", "no files", "missing files", "unknown keys", "bad map", "bad list"],
)
def test_a_bad_manifest_takes_little_time_and_no_long_message(
    root: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    """The worst took 61 s when paths were compared with one another, and each wrong entry was described."""
    edit(root, change)
    begin = time.process_time()
    assert len(refusal(root)) < 3500
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'{"format": "samdeploy-bundle", "format": "x"}', "is not valid JSON (key 'format' stands twice)"),
        (b'{"version": NaN}', "is not valid JSON (NaN is no JSON)"),
        (b'{"version": 1' + b"0" * 5_000 + b"}", "does not fit 64 bits)"),
        (b'{"version": 1e400}', "is not valid JSON (number 1e400 is too large)"),
        (b"\xff\xfe{\0}\0", "is not valid JSON ('utf-8' codec can't decode byte 0xff"),
        (b"{" * 100_000, "is not valid JSON ("),
        (b'{"a":' * 100_000, "is not valid JSON ("),
        (b"[]", "holds a list, an object was expected"),
        (b"", "is empty; copy it or make it again"),
    ],
)
def test_a_manifest_that_is_no_manifest(root: Path, content: bytes, text: str) -> None:
    (root / MANIFEST).write_bytes(content)
    assert text in refusal(root)


def test_a_manifest_of_many_megabytes_is_not_read(root: Path) -> None:
    content = (root / MANIFEST).read_bytes()
    limit = 4 << 20
    (root / MANIFEST).write_bytes(content + b" " * (limit - len(content)))
    open_bundle(root)
    (root / MANIFEST).write_bytes(content + b" " * (limit + 1 - len(content)))
    assert "has 4194305 bytes, at most 4194304 are read; this is no file of samdeploy" in refusal(root)


def test_the_same_path_twice(root: Path) -> None:
    edit(root, lambda values: values["files"].append({**values["files"][0], "role": "engine"}))
    assert refusal(root) == "'files' names 'weights.safetensors' twice"


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["model"].update(gate=values["model"].pop("options")["gate"]),
        lambda values: (values["preprocessing"].pop("crop"), values["model"].pop("license")),
    ],
    ids=["with a gate", "without a crop"],
)
def test_a_bundle_of_a_development_version_names_the_command(
    change: Callable[[dict[str, Any]], object], root: Path
) -> None:
    edit(root, change)
    assert refusal(root) == "a development version wrote it; make it again from its run: samdeploy export RUN"


@pytest.mark.parametrize(
    ("batch", "bounds"),
    [("1,8,64", (1, 64)), ("", None), ("1,,3", None), ("1,-8,64", None), ("1,8," + "9" * 5000, None)],
)
def test_the_profile_of_an_engine(batch: str, bounds: tuple[int, int] | None) -> None:
    assert BundleFile("engine", "a.plan", "0" * 64, 1, built_for={"batch": batch}).batches == bounds
    assert BundleFile("engine", "a.plan", "0" * 64, 1).batches is None
