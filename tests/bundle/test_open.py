"""A sound bundle gives back what was written; a folder that is none is refused before a runtime is loaded."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from samdeploy.bundle import Bundle, open_bundle
from samdeploy.bundle.manifest import Manifest, manifest_bytes, manifest_from_json
from samdeploy.bundle.names import MANIFEST, RUN_FILE, WEIGHTS_FILE
from samdeploy.bundle.spec import RESIZES, Preprocessing, model_spec
from samdeploy.errors import BundleError, InputError
from samdeploy.runs.locate import bundle_of, latest_bundle, unlike_its_run
from samdeploy.runs.record import open_run
from tests.bundle.written import (
    CONTENTS,
    DATA,
    FILES,
    IMAGES,
    LOGITS,
    MEASURED,
    PROVENANCE,
    SPEC,
    edit,
    to_symlink,
    write_bundle,
)


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
    bicubic = RESIZES["bicubic"]
    crop = Preprocessing(4, 5, "center_crop", 6, (0.1, 0.2, 1 / 3), (0.4, 0.5, 0.6), bicubic, "half-even")
    for preprocessing in (Preprocessing(4, 5), crop):
        spec = model_spec(
            "sam-resnet50",
            {"gate": "original"},
            ("a",),
            preprocessing,
            license="MIT" if crop is preprocessing else None,
        )
        measured = dataclasses.replace(MEASURED, test=MEASURED.val if crop is preprocessing else None)
        manifest = Manifest(spec, FILES, DATA, PROVENANCE, measured)
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


def test_a_folder_that_is_no_bundle(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    root.rename(run / "bundle")
    young = tmp_path / "young"
    young.mkdir()
    (young / RUN_FILE).write_text("{}")
    for path, text in (
        (young, f"is a run that has no bundle yet; make it: samdeploy export {young}"),
        (tmp_path / "nowhere", "no such folder; make one: samdeploy export"),
        (run / "bundle" / MANIFEST, f"is a file inside a bundle; name its folder, {run / 'bundle'}"),
        (run, f"is a run; its bundle is {run / 'bundle'}"),
        (tmp_path, f"is a folder of runs; name one of them, or take the newest: --runs {tmp_path}"),
    ):
        with pytest.raises(BundleError) as caught:
            open_bundle(path)
        assert str(caught.value) == f"bundle {path}: {text}"
    assert bundle_of(run) == run / "bundle"
    assert bundle_of(run / "bundle") == run / "bundle"
    assert bundle_of(young) == young


@pytest.mark.parametrize("path", ["", "bun\0dle"])
def test_what_is_no_path_is_not_the_current_folder(path: str) -> None:
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    assert str(caught.value) == f"bundle {path!r}: is no path; name the bundle's folder"


def test_latest_bundle(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        latest_bundle(tmp_path)
    assert (
        str(caught.value)
        == f"no bundle below {tmp_path}/; name a bundle, give --runs DIR, or make one: samdeploy export"
    )
    for name, time in (("c", 1_000), ("a", 3_000), ("b", 2_000), ("d", 3_000)):
        bundle = write_bundle(tmp_path / name / "bundle")
        os.utime(bundle / MANIFEST, (time, time))
    (tmp_path / "e" / "bundle").mkdir(parents=True)  # without a manifest: not finished
    assert latest_bundle(tmp_path) == tmp_path / "d" / "bundle"  # of two of the same moment the last name


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
        cwd=Path(__file__).parents[2],
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


def test_a_run_that_was_trained_on_after_its_export(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    root.rename(run / "bundle")
    bundle = open_bundle(run / "bundle")
    assert unlike_its_run(bundle) == ""  # no run around it
    (run / RUN_FILE).write_text("{}")
    weights = bundle.find("weights")
    assert weights is not None
    (run / WEIGHTS_FILE).write_bytes(bundle.read(weights))
    assert unlike_its_run(bundle) == ""
    (run / WEIGHTS_FILE).write_bytes(b"of a later epoch")
    assert unlike_its_run(bundle) == (
        f"the run {run} holds other weights than this bundle, which was exported before; samdeploy export {run}"
    )


def test_a_bundle_named_for_its_run(root: Path) -> None:
    with pytest.raises(BundleError, match="is a bundle; name the run that it was exported from"):
        open_run(root)


def test_a_manifest_that_was_changed_after_the_export(digits_run: Path, copy_of_bundle: Path) -> None:
    """Names of classes that were swapped, pixels that are cut otherwise: no hash covers the manifest itself."""
    run, manifest = copy_of_bundle.parent, copy_of_bundle / MANIFEST
    for name in (RUN_FILE, WEIGHTS_FILE):
        shutil.copy(digits_run / name, run / name)
    assert unlike_its_run(open_bundle(copy_of_bundle)) == ""
    values = json.loads(manifest.read_text())
    model = values["model"]
    model["classes"][3], model["classes"][5] = "5", "3"
    manifest.write_text(json.dumps(values))
    assert unlike_its_run(open_bundle(copy_of_bundle)) == (
        f"its manifest was changed: other classes (class 3 is '5', '3' was trained) than in the run {run}; "
        f"samdeploy export {run}"
    )
    del model["classes"][-1]
    values["output"]["shape"][1] = 9
    del values["answered"]
    values["preprocessing"]["mean"][0] = 0.5
    manifest.write_text(json.dumps(values))
    found = unlike_its_run(open_bundle(copy_of_bundle))
    assert found.startswith(f"its manifest was changed: other classes and preprocessing than in the run {run}; ")
    (run / RUN_FILE).write_text("{}")
    assert unlike_its_run(open_bundle(copy_of_bundle)) == ""
