"""What `samdeploy doctor` says of a bundle's eval.json."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from samdeploy.bundle import Bundle
from samdeploy.doctor.evaluation import read_evaluation


def write_evaluation(root: Path, *, reason: str = "", faults: tuple[str, ...] = (), **other: object) -> None:
    """The eval.json of an evaluation that failed for `reason`, or by `faults`."""
    manifest = hashlib.sha256((root / "manifest.json").read_bytes()).hexdigest()
    row = {"backend": "onnxruntime", "precision": "fp32", "device": "cpu", "ran": True}
    row |= {"passed": not reason, "reason": reason}
    row |= {"verdict": "fails" if reason else "holds", "below_minimum": reason if "--min" in reason else ""}
    report = {"verdict": "fails", "n_images": 9, "results": [row], "manifest_sha256": manifest, "data_root": "/my pets"}
    report |= {"faults": faults, "test_set_faults": [text for text in faults if "trained on" in text]}
    (root / "eval.json").write_text(json.dumps(report | other))


@pytest.fixture
def bundle(digits_bundle: Bundle, tmp_path: Path) -> Bundle:
    """No more of it than is read here."""
    shutil.copy(digits_bundle.root / "manifest.json", tmp_path)
    return dataclasses.replace(digits_bundle, root=tmp_path)


def test_none_one_of_an_earlier_export_and_a_damaged_one(bundle: Bundle) -> None:
    assert read_evaluation(bundle).words == ""
    write_evaluation(bundle.root, verdict="holds", n_images=1234, manifest_sha256="0" * 64, data_root=None)
    found = read_evaluation(bundle)
    assert found.words == "of an earlier export (passed on 1,234 test images: onnxruntime fp32)"
    assert found.problem == ""
    (bundle.root / "eval.json").write_text("[1]")
    damaged = "eval.json is damaged, or of another version; make it again: samdeploy eval"
    assert read_evaluation(bundle).words == damaged


@pytest.mark.parametrize(
    ("reason", "faults", "blamed"),
    [
        ("", ("9 of 9 test images were trained on",), False),
        ("top-1 is below --min-top1 99", (), False),
        ("agreement 90 %", (), True),
        ("", ("the weights are others",), True),
    ],
)
def test_the_bundle_is_not_blamed_for_its_test_set(
    bundle: Bundle, reason: str, faults: tuple[str, ...], blamed: bool
) -> None:
    write_evaluation(bundle.root, reason=reason, faults=faults)
    found = read_evaluation(bundle)
    words = "failed on 9 test images of /my pets: onnxruntime fp32"
    if blamed:
        command = f"samdeploy eval {bundle.root} --data '/my pets' --why"
        assert (found.words, found.problem) == (
            words,
            f"bundle {bundle.root}: its evaluation did not pass; {command}",
        )
    else:
        texts = [f"onnxruntime fp32: {reason}"] if reason else faults
        assert (found.words, found.problem) == ("; ".join([words, *texts, "no fault of the bundle"]), "")
