"""The bundle against everything that can be wrong with a folder that someone else has filled."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samdeploy.bundle import Bundle, latest_bundle, open_bundle
from samdeploy.errors import BundleError, InputError
from samdeploy.manifest import MANIFEST, ROLES, BundleFile, DataRecord, Manifest, manifest_bytes, manifest_from_json
from samdeploy.spec import Preprocessing, model_spec

SPEC = model_spec("sam-resnet18", "identity", ("cat", "Löwe"), Preprocessing(4, 5))
DATA = DataRecord("digits", {"level": "variant", "cut": True}, 0.1, 7, {"test": 3}, {"test": "ab" * 32})
PROVENANCE = {"samdeploy": "0.1.0", "torch": "2.9.0"}

IMAGES = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
LOGITS = np.array([[1.5, -2.0], [0.25, 1e-3]], dtype=np.float32)


def npy(array: np.ndarray[Any, Any], *, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def entry(role: str, path: str, content: bytes, **fields: Any) -> BundleFile:
    return BundleFile(role, path, hashlib.sha256(content).hexdigest(), len(content), **fields)


CONTENTS = {
    "weights.safetensors": b"the weights",
    "graphs/fp32.onnx": b"the graph",
    "engines/a.plan": b"the engine",
    "golden/images.npy": npy(IMAGES),
    "golden/logits.npy": npy(LOGITS),
}
FILES = (
    entry("weights", "weights.safetensors", b"the weights"),
    entry("graph", "graphs/fp32.onnx", b"the graph", precision="fp32"),
    entry(
        "engine",
        "engines/a.plan",
        b"the engine",
        backend="tensorrt",
        precision="fp16",
        built_for={"runtime": "tensorrt"},
    ),
    entry("golden_images", "golden/images.npy", CONTENTS["golden/images.npy"]),
    entry("golden_logits", "golden/logits.npy", CONTENTS["golden/logits.npy"]),
)
SOUND = Manifest(SPEC, FILES, DATA, PROVENANCE)


def write_bundle(root: Path, manifest: Manifest = SOUND, contents: dict[str, bytes] = CONTENTS) -> Path:
    for path, content in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    (root / MANIFEST).write_bytes(manifest_bytes(manifest))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def edit(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the parsed manifest in place."""
    values = json.loads((root / MANIFEST).read_bytes())
    change(values)
    (root / MANIFEST).write_text(json.dumps(values))


def refusal(root: Path) -> str:
    """The text with which `open_bundle` refuses, without the part that names the file."""
    with pytest.raises(BundleError) as caught:
        open_bundle(root)
    text = str(caught.value)
    assert str(root) in text.split(": ")[0]
    return text.removeprefix(f"{root / MANIFEST}: ").removeprefix(f"bundle {root}: ")


# --- a sound bundle ---------------------------------------------------------------------------------------------------


def test_a_sound_bundle_gives_back_what_was_written(root: Path) -> None:
    bundle = open_bundle(root)
    assert bundle == Bundle(root, SPEC, FILES, DATA, PROVENANCE)
    assert {file.path: bundle.read(file) for file in bundle.files} == CONTENTS
    bundle.verify()
    images, logits = bundle.golden()
    assert np.array_equal(images, IMAGES) and np.array_equal(logits, LOGITS)
    assert (images.dtype, logits.dtype) == (np.uint8, np.float32)
    assert open_bundle(str(root)) == bundle


def test_manifest_round_trip() -> None:
    crop = Preprocessing(4, 5, "center_crop", 6, mean=(0.1, 0.2, 1 / 3), std=(0.4, 0.5, 0.6))
    for preprocessing in (Preprocessing(4, 5), crop):
        manifest = Manifest(model_spec("sam-resnet50", "original", ("a",), preprocessing), FILES, DATA, PROVENANCE)
        assert manifest_from_json(json.loads(manifest_bytes(manifest)), "manifest.json") == manifest


def test_the_bundle_may_be_reached_through_a_link_and_lie_beside_other_files(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    (root / "eval.json").write_text("{}")
    (root / "NOTES.md").symlink_to("/dev/null")  # not in the manifest: never opened
    open_bundle(tmp_path / "link").verify()


def test_select_puts_files_for_the_backend_first(root: Path) -> None:
    shared = dataclasses.replace(FILES[1], path="graphs/shared.onnx")
    own = dataclasses.replace(FILES[1], path="graphs/openvino.onnx", backend="openvino")
    half = dataclasses.replace(FILES[1], path="graphs/half.onnx", precision="fp16")
    bundle = dataclasses.replace(open_bundle(root), files=(shared, half, own))
    assert bundle.select("graph", backend="openvino", precision="fp32") == (own, shared)
    assert bundle.select("graph", backend="onnxruntime") == (shared, half)
    assert bundle.find("graph", precision="fp16") == half
    assert bundle.find("engine") is None


# --- the manifest -----------------------------------------------------------------------------------------------------


def test_newer_version_says_what_to_do(root: Path) -> None:
    edit(root, lambda values: values.update(version=2, surprise=True))
    assert refusal(root) == (
        "format version 2 found, this samdeploy reads up to 1; update it: pip install -U samdeploy"
    )


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
            "files[2] must be an object, text 'engines/a.plan' found",
            "'provenance' is missing",
            "unknown key 'provenence'; did you mean 'provenance'? Valid: "
            "format, version, model, input, output, preprocessing, files, data, provenance",
            "model: 'arch' must be text, integer 18 found",
            "preprocessing: 'height' is missing",
            "preprocessing: 'fit' is missing",
            "preprocessing: unknown key 'heigth'; did you mean 'height' or 'width'? Valid: "
            "height, width, fit, resize_short, resize, mean, std",
            "files[0]: 'bytes' must be an integer, text '11' found",
            f"files[1]: role 'grahp' found, one of {', '.join(ROLES)} expected",
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
        (("model", "classes"), ["a", 1], "model: 'classes' must be a list of texts"),
        (("model", "classes"), ["a"], "output {'dtype': 'float32', 'name': 'logits', 'shape': ['N', 2]} found, the "),
        (("input", "shape"), ["N", 5, 4, 3], "input {'dtype': 'uint8', 'name': 'image', 'shape': ['N', 5, 4, 3]} "),
        (("input", "shape"), ["N", 4, 5, True], "input: shape ['N', 4, 5, True] found, numbers and names expected"),
        (("input", "dtype"), "float32", "input {'dtype': 'float32', "),
        (("output", "name"), "probabilities", "output {'dtype': 'float32', 'name': 'probabilities', "),
        (("preprocessing", "resize"), "nearest", "preprocessing: resize 'nearest' found, this version knows only '"),
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
        (("preprocessing", "std"), [1, 1], "preprocessing: 'std' must be a list of 3 numbers, [1, 1] found"),
        (("preprocessing", "mean"), "0.5", "preprocessing: 'mean' must be a list, text '0.5' found"),
        (
            ("preprocessing", "mean"),
            [0, "1", 2],
            "preprocessing: 'mean' must be a list of 3 numbers, [0, '1', 2] found",
        ),
        (("files", 0, "sha256"), "AB" * 32, "files[0]: sha256 '"),
        (("files", 0, "sha256"), "ab" * 31, "files[0]: sha256 '"),
        (("files", 1, "precision"), "fp8", "files[1]: precision 'fp8' found, one of fp32, fp16, bf16, int8 expected"),
        (("files", 2, "built_for"), {"a": 1}, "files[2]: 'built_for' must map names to texts, integer 1 found at 'a'"),
        (("files", 2, "backend"), 3, "files[2]: 'backend' must be text, integer 3 found"),
        (("files",), {}, "'files' must be a list, object {} found"),
        (("data", "options"), {"a": None}, "data: 'options' must map names to texts, numbers and booleans, null "),
        (("data", "val_fraction"), "0.1", "data: 'val_fraction' must be a number, text '0.1' found"),
        (("data", "fingerprints"), {"test": 1}, "data: 'fingerprints' must map names to texts, integer 1 found at 'te"),
        (("provenance",), [], "'provenance' must be an object, list [] found"),
    ],
)
def test_one_wrong_value(root: Path, path: tuple[str | int, ...], value: Any, text: str) -> None:
    def change(values: Any) -> None:
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] = value

    edit(root, change)
    assert refusal(root).startswith(text)


def test_a_list_nested_as_deep_as_json_goes_is_refused(root: Path) -> None:
    deep = "[" * 900 + "]" * 900
    text = (root / MANIFEST).read_text().replace('"height": 4', f'"height": {deep}')
    (root / MANIFEST).write_text(text)
    message = refusal(root)
    assert message.startswith(("preprocessing: 'height' must be an integer, list [[[[[[", "/"))
    assert len(message) < 1_000


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
        (b"", "is not valid JSON ("),
    ],
)
def test_a_manifest_that_is_no_manifest(root: Path, content: bytes, text: str) -> None:
    (root / MANIFEST).write_bytes(content)
    assert text in refusal(root)


def test_a_manifest_of_many_megabytes_is_not_read(root: Path) -> None:
    content = (root / MANIFEST).read_bytes()
    limit = 16 << 20
    (root / MANIFEST).write_bytes(content + b" " * (limit - len(content)))
    open_bundle(root)
    (root / MANIFEST).write_bytes(content + b" " * (limit + 1 - len(content)))
    assert "has 16777217 bytes, at most 16777216 are read; this is no file of samdeploy" in refusal(root)


def test_the_same_path_twice(root: Path) -> None:
    edit(root, lambda values: values["files"].append({**values["files"][0], "role": "engine"}))
    assert refusal(root) == "'files' names 'weights.safetensors' twice"


# --- the files --------------------------------------------------------------------------------------------------------

ESCAPES = [
    *("../secret.bin", "graphs/../../secret.bin", "/etc/passwd", "graphs//fp32.onnx", "graphs/./fp32.onnx"),
    *("graphs\\fp32.onnx", "weights.safetensors\0", "", "."),
]


@pytest.mark.parametrize("path", ESCAPES)
def test_a_path_that_leaves_the_bundle(root: Path, path: str) -> None:
    (root.parent / "secret.bin").write_bytes(b"the weights")
    edit(root, lambda values: values["files"][0].update(path=path))
    assert refusal(root) == f"path {path!r} leaves the folder or is not plain; expected one like 'a/b.onnx'"


def to_symlink(file: Path) -> None:
    file.rename(file.with_suffix(".real"))
    file.symlink_to(file.with_suffix(".real").name)


def to_hard_link(file: Path) -> None:
    file.with_suffix(".other").hardlink_to(file)


def to_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def to_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def through_linked_folder(file: Path) -> None:
    file.parent.rename(file.parent.with_name("real"))
    file.parent.symlink_to("real")


DISGUISES: dict[str, tuple[Callable[[Path], object], str]] = {
    "symbolic link": (to_symlink, "is or passes a symbolic link; only plain files are opened"),
    "linked folder": (through_linked_folder, "is or passes a symbolic link; only plain files are opened"),
    "hard link": (to_hard_link, "has 2 hard links; copy the folder without links"),
    "folder": (to_folder, "is not a plain file"),
    "pipe": (to_pipe, "is not a plain file"),
    "missing": (Path.unlink, "is missing; the folder is incomplete, export it again"),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_file_that_is_no_plain_file(root: Path, disguise: str) -> None:
    """Before opening the bundle, and also between opening it and reading the file."""
    before = open_bundle(root)
    change, text = DISGUISES[disguise]
    change(root / "graphs/fp32.onnx")
    assert refusal(root) == f"'graphs/fp32.onnx' {text}"
    with pytest.raises(BundleError) as caught:
        before.read(FILES[1])
    assert str(caught.value) == f"bundle {root}: 'graphs/fp32.onnx' {text}"


@pytest.mark.parametrize("disguise", ["symbolic link", "hard link", "folder", "pipe", "missing"])
def test_a_manifest_that_is_no_plain_file(root: Path, disguise: str) -> None:
    change, text = DISGUISES[disguise]
    change(root / MANIFEST)
    assert refusal(root) == f"'manifest.json' {text}"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"the gr", "has 6 bytes, the manifest states 9; the file was truncated or replaced, export it again"),
        (b"the graph!", "has 10 bytes, the manifest states 9; the file was truncated or replaced, export it again"),
        (b"", "has 0 bytes, the manifest states 9; the file was truncated or replaced, export it again"),
        (
            b"the grapH",
            f"has SHA-256 {hashlib.sha256(b'the grapH').hexdigest()[:12]}..., the manifest states "
            f"{hashlib.sha256(b'the graph').hexdigest()[:12]}...; the file was changed, export it again",
        ),
    ],
)
def test_changed_content(root: Path, content: bytes, text: str) -> None:
    (root / "graphs/fp32.onnx").write_bytes(content)
    bundle = open_bundle(root)
    for read in (bundle.verify, lambda: bundle.read(FILES[1])):
        with pytest.raises(BundleError) as caught:
            read()
        assert str(caught.value) == f"bundle {root}: 'graphs/fp32.onnx' {text}"


def test_changed_hash(root: Path) -> None:
    edit(root, lambda values: values["files"][0].update(sha256="0" * 64))
    with pytest.raises(
        BundleError, match=r"'weights\.safetensors' has SHA-256 \w{12}\.\.\., the manifest states 0{12}"
    ):
        open_bundle(root).verify()


# --- golden images ----------------------------------------------------------------------------------------------------


class Explosive:
    """Its pickle would run code."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os._exit, (13,)


def npy_header(text: str) -> bytes:
    body = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


def zipped() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, images=IMAGES)
    return buffer.getvalue()


GOLDEN = {
    "dtype": ("golden_images", npy(IMAGES.astype(np.float32)), "is float32 [2, 4, 5, 3], expected uint8 [n, 4, 5, 3]"),
    "size": ("golden_images", npy(IMAGES[:, :3]), "is uint8 [2, 3, 5, 3], expected uint8 [n, 4, 5, 3]"),
    "one image": ("golden_images", npy(IMAGES[0]), "is uint8 [4, 5, 3], expected uint8 [n, 4, 5, 3]"),
    "too many axes": ("golden_logits", npy(LOGITS[:, :, None]), "is float32 [2, 2, 1], expected float32 [n, 2]"),
    "doubles": ("golden_logits", npy(LOGITS.astype(np.float64)), "is float64 [2, 2], expected float32 [n, 2]"),
    "big endian": ("golden_logits", npy(LOGITS.astype(">f4")), "is >f4 [2, 2], expected float32 [n, 2]"),
    "Fortran order": (
        "golden_logits",
        npy(np.asfortranarray(LOGITS)),
        "is float32 [2, 2] in Fortran order, expected float32 [n, 2]",
    ),
    "classes": ("golden_logits", npy(np.zeros((2, 3), np.float32)), "is float32 [2, 3], expected float32 [n, 2]"),
    "pickled": (
        "golden_logits",
        npy(np.array([[Explosive(), 1]], dtype=object), allow_pickle=True),
        "is object [1, 2], expected float32 [n, 2]",
    ),
    "pickle without a header": ("golden_logits", b"\x80\x04cos\n_exit\nK\rR.", "is no .npy array (the magic string"),
    "archive": ("golden_images", zipped(), "is no .npy array (the magic string"),
    "empty": ("golden_images", b"", "is no .npy array ("),
    "truncated": ("golden_images", npy(IMAGES)[:-1], "has 119 bytes of numbers, its shape asks for 120"),
    "appended": ("golden_images", npy(IMAGES) + b"!", "has 121 bytes of numbers, its shape asks for 120"),
    "header cut": ("golden_images", npy(IMAGES)[:40], "is no .npy array ("),
    "a header of brackets": ("golden_images", npy_header("(" * 110), "is no .npy array ("),
    "a promise of terabytes": (
        "golden_images",
        npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 4, 5, 3)}"),
        "has 0 bytes of numbers, its shape asks for 60000000000000",
    ),
    "format 2.0": ("golden_images", b"\x93NUMPY\x02\x00" + bytes(100), "is no .npy array (version 2.0 of the format"),
}


def with_golden(root: Path, role: str, content: bytes) -> Bundle:
    """The bundle with another golden file, whose hash is right."""
    path = next(file.path for file in FILES if file.role == role)
    files = tuple(entry(role, path, content) if file.role == role else file for file in FILES)
    write_bundle(root, dataclasses.replace(SOUND, files=files), {**CONTENTS, path: content})
    return open_bundle(root)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_arrays_that_do_not_fit(root: Path, name: str) -> None:
    role, content, text = GOLDEN[name]
    bundle = with_golden(root, role, content)
    with pytest.raises(BundleError) as caught:
        bundle.golden()
    path = next(file.path for file in FILES if file.role == role)
    assert str(caught.value).startswith(f"bundle {root}: {path!r} {text}")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_golden_answers_that_are_not_finite(root: Path, value: float) -> None:
    logits = LOGITS.copy()
    logits[1, 1] = value
    with pytest.raises(BundleError, match=r"golden answers are not finite; export it again$"):
        with_golden(root, "golden_logits", npy(logits)).golden()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_golden_images_and_answers_in_different_numbers(root: Path, count: int) -> None:
    images = np.zeros((count, 4, 5, 3), np.uint8)
    with pytest.raises(BundleError, match=f"{count} golden images, 2 golden answers found$"):
        with_golden(root, "golden_images", npy(images)).golden()


def test_a_test_of_no_pictures_is_no_test(root: Path) -> None:
    contents = {
        **CONTENTS,
        "golden/images.npy": npy(IMAGES[:0]),
        "golden/logits.npy": npy(LOGITS[:0]),
    }
    golden = (entry(file.role, file.path, contents[file.path]) for file in FILES[3:])
    write_bundle(root, dataclasses.replace(SOUND, files=(*FILES[:3], *golden)), contents)
    with pytest.raises(BundleError, match=r"0 golden images, 0 golden answers found$"):
        open_bundle(root).golden()


def test_no_golden_images_at_all(root: Path) -> None:
    write_bundle(root, dataclasses.replace(SOUND, files=FILES[:3]))
    with pytest.raises(BundleError, match=r"no file with role 'golden_images'; export it again$"):
        open_bundle(root).golden()


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_folder_that_is_no_bundle(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    root.rename(run / "bundle")
    for path, text in (
        (tmp_path / "nowhere", "no such folder; make one: samdeploy export"),
        (run / "bundle" / MANIFEST, "is a file; name the bundle's folder"),
        (run, f"is a run; its bundle is {run / 'bundle'}"),
        (tmp_path, "'manifest.json' is missing; the folder is incomplete, export it again"),
    ):
        with pytest.raises(BundleError) as caught:
            open_bundle(path)
        assert str(caught.value) == f"bundle {path}: {text}"


def test_latest_bundle(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        latest_bundle(tmp_path)
    assert str(caught.value) == f"no bundle below {tmp_path}/; make one first: samdeploy export"
    for name, time in (("c", 1_000), ("a", 3_000), ("b", 2_000), ("d", 3_000)):
        bundle = write_bundle(tmp_path / name / "bundle")
        os.utime(bundle / MANIFEST, (time, time))
    (tmp_path / "e" / "bundle").mkdir(parents=True)  # without a manifest: not finished
    assert latest_bundle(tmp_path) == tmp_path / "d" / "bundle"  # of two of the same moment the last name


# --- no runtime sees a byte -------------------------------------------------------------------------------------------

RUNTIMES = ("torch", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "cuda", "onnx")
CHILD = f"""
import os, sys
opened = []
sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event == "open" else None)
from samdeploy.bundle import open_bundle
from samdeploy.errors import BundleError
for root in sys.argv[1:]:
    opened.clear()
    try:
        bundle = open_bundle(root)
        bundle.verify()
        bundle.golden()
        print("accepted")
    except BundleError:
        loaded = [name for name in {RUNTIMES!r} if name in sys.modules]
        print("refused", *loaded, *(os.path.relpath(path, root) for path in opened if path.startswith(root)))
"""


def test_before_a_refusal_no_runtime_is_loaded_and_nothing_outside_is_opened(tmp_path: Path) -> None:
    def bundle(name: str) -> Path:
        return write_bundle(tmp_path / name)

    sound, escape, link, changed, newer = (bundle(name) for name in ("sound", "escape", "link", "changed", "newer"))
    edit(escape, lambda values: values["files"][0].update(path="../sound/weights.safetensors"))
    to_symlink(link / "weights.safetensors")
    (changed / "weights.safetensors").write_bytes(b"THE weights")
    edit(newer, lambda values: values.update(version=2))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, (sound, escape, link, changed, newer))],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "accepted",
        "refused manifest.json",
        "refused manifest.json",
        "refused manifest.json weights.safetensors",
        "refused manifest.json",
    ]
