"""Bundles that someone else has filled: each is refused, by Python and by C++, before a runtime sees a byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from samdeploy.bundle import Bundle
from samdeploy.bundle.names import MANIFEST
from samdeploy.errors import BackendUnavailable, BundleError
from tests.hostile.conftest import Reader
from tests.hostile.damage import edit, whole
from tests.hostile.golden_cases import IMAGES, LOGITS, SEALED
from tests.hostile.manifest_cases import MANIFESTS
from tests.hostile.statuses import ARRAY, BAD_MANIFEST, NO_BUNDLE, TENSORS, UNAVAILABLE, WRONG_ANSWERS

Seal = Callable[[Path], Bundle]


def test_the_sound_bundle_reaches_the_runtime(root: Path, reader: Reader) -> None:
    """Else every test below would pass for a reader that refuses everything."""
    status, found = reader(root, runtime=True)
    assert status in (UNAVAILABLE, BackendUnavailable), found
    assert "cannot compile the graph" in found


@pytest.mark.parametrize("name", MANIFESTS)
def test_refused_before_a_runtime_sees_a_byte(name: str, root: Path, reader: Reader) -> None:
    damage, expected, cpp_text, python_text = MANIFESTS[name]
    damage(root)
    status, found = reader(root)
    is_cpp = isinstance(status, int)
    assert status == (expected if is_cpp else BundleError), found
    assert (cpp_text if is_cpp else python_text) in found
    assert str(root) in found


@pytest.mark.parametrize("name", SEALED)
def test_golden_files_that_lie(name: str, root: Path, reader: Reader, seal: Seal) -> None:
    damage, expected = SEALED[name]
    damage(root)
    seal(root)
    status, found = reader(root)
    assert status in (ARRAY, BundleError), found
    assert expected in found
    assert "golden" in found


@pytest.mark.parametrize("role", ["golden_images", "golden_logits"])
def test_golden_files_that_are_not_there(role: str, root: Path, reader: Reader) -> None:
    edit(lambda values: values.update(files=[file for file in values["files"] if file["role"] != role]))(root)
    status, found = reader(root)
    assert status in (ARRAY, BundleError), found
    assert f"no file with role '{role}'" in found


def test_a_manifest_of_many_megabytes_is_not_read(root: Path, reader: Reader) -> None:
    whole(lambda b: b + b" " * (5 << 20))(root)
    status, found = reader(root)
    assert status in (BAD_MANIFEST, BundleError)
    assert "at most 4194304 are read" in found


@pytest.fixture
def real(digits_bundle: Bundle, tmp_path: Path) -> Path:
    """The graphs and golden files of a real bundle, without what OpenVINO does not open."""
    values = json.loads((digits_bundle.root / MANIFEST).read_bytes())
    wanted = ("graph", "cam_graph", "golden_images", "golden_logits")
    values["files"] = [
        file for file in values["files"] if file["role"] in wanted and file["precision"] in (None, "fp32")
    ]
    for file in values["files"]:
        target = tmp_path / "real" / file["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((digits_bundle.root / file["path"]).read_bytes())
    (tmp_path / "real" / MANIFEST).write_text(json.dumps(values))
    return tmp_path / "real"


def test_answers_of_another_model(real: Path, reader: Reader, seal: Seal) -> None:
    logits = np.load(real / LOGITS)
    np.save(real / LOGITS, logits[:, ::-1])
    seal(real)
    status, found = reader(real, runtime=True)
    assert status in (WRONG_ANSWERS, BundleError)
    assert "this is not the model of this bundle" in found


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0)])
def test_channels_in_another_order(real: Path, reader: Reader, seal: Seal, order: tuple[int, ...]) -> None:
    """Grey images cannot show it; the coloured ones among the golden images do, in whatever order."""
    np.save(real / IMAGES, np.load(real / IMAGES)[..., order])
    seal(real)
    status, found = reader(real, runtime=True)
    assert status in (WRONG_ANSWERS, BundleError)
    name = "".join("RGB"[channel] for channel in order)
    assert f"the golden images show that it reads channels as {name}, not RGB" in found


def test_a_graph_with_other_tensors(real: Path, reader: Reader, seal: Seal) -> None:
    """The graph of class activation maps, which answers rightly and gives something more."""
    (real / "model.fp32.onnx").write_bytes((real / "model.cam.fp32.onnx").read_bytes())
    seal(real)
    status, found = reader(real, runtime=True)
    assert status in (TENSORS, BundleError)
    assert "expected by the manifest" in found


def test_golden_answers_within_the_tolerance_are_taken(real: Path, reader: Reader, seal: Seal) -> None:
    logits = np.load(real / LOGITS)
    own = np.ptp(logits, axis=1).astype(float)
    usual, narrow = float(np.median(own)), int(own.argmin())
    middle = int(np.where(own >= usual, own, np.inf).argmin())
    # A share of the image's own range, not of all images'; and of the median one's where its own is smaller.
    assert 1.1 * own[middle] < 0.9 * np.ptp(logits) and 1.1 * own[narrow] < 0.9 * usual
    for image, change, taken in (
        (middle, 0.9e-4 * own[middle], True),
        (middle, 1.1e-4 * own[middle], False),
        (narrow, 0.9e-4 * usual, True),
        (narrow, 1.1e-4 * usual, False),
    ):
        changed = logits.copy()
        changed[image, 0] += change
        np.save(real / LOGITS, changed)
        seal(real)
        status, found = reader(real, runtime=True)
        assert (status in (0, None)) == taken, found


def test_a_run_named_for_its_bundle(root: Path, reader: Reader) -> None:
    """Not hostile, but what people do first: both languages say the same, and open no bundle that was not named."""
    run = root.parent
    status, found = reader(run)
    assert (status, found) in [
        (NO_BUNDLE, f"bundle {run}: is a run; its bundle is {root}"),
        (BundleError, f"bundle {run}: is a run; its bundle is {root}"),
    ]
    (root / MANIFEST).unlink()
    (run / "run.json").write_text("{}")
    status, found = reader(run)
    assert status in (NO_BUNDLE, BundleError)
    assert found == f"bundle {run}: is a run that has no bundle yet; make it: samdeploy export {run}"
