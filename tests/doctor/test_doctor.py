"""`samdeploy doctor`: what it finds in real bundles, whole and damaged, and in this installation."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import samdeploy.doctor.machine
from samdeploy.backends import open_session
from samdeploy.bundle import Bundle
from samdeploy.doctor import Diagnosis, examine_bundle, examine_machine
from samdeploy.doctor.findings import Machine
from samdeploy.report.text.doctor import diagnosis_tables
from tests.cli.typed import Inside
from tests.doctor.test_evaluation import write_evaluation


@pytest.fixture(scope="module")
def machine() -> Machine:
    return examine_machine()


def states(found: Diagnosis) -> dict[str, str]:
    assert found.bundle is not None
    return {f"{one.backend} {one.precision}": one.reason for one in found.bundle.engines}


def test_runtimes_are_really_imported(machine: Machine) -> None:
    found = {one.name: one for one in machine.runtimes}
    assert list(found) == ["pytorch", "onnxruntime", "openvino", "tensorrt"]
    assert found["onnxruntime"].packages.keys() & {"onnxruntime", "onnxruntime-gpu"}
    assert not found["onnxruntime"].reason
    assert not found["pytorch"].is_broken
    assert machine.cores >= 1
    assert bool(machine.gpu) != bool(machine.no_gpu)


def test_a_good_bundle(machine: Machine, digits_bundle: Bundle) -> None:
    found = Diagnosis(machine, examine_bundle(digits_bundle.root))
    assert found.bundle is not None
    assert found.bundle.problems == ()
    assert states(found)["onnxruntime fp32"] == ""
    assert found.bundle.files == len(digits_bundle.files)
    assert "10 classes" in found.bundle.summary
    text = diagnosis_tables(found)
    assert max(map(len, text.splitlines())) <= 80
    assert f"{found.bundle.files} of {found.bundle.files} are as the manifest states" in text


def test_a_changed_file_is_named_and_no_engine_is_opened(machine: Machine, copy_of_bundle: Path) -> None:
    graph = copy_of_bundle / "model.fp32.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    (copy_of_bundle / "golden" / "images.npy").write_bytes(b"")
    found = examine_bundle(copy_of_bundle)
    assert all(any(name in text for text in found.damaged) for name in ("model.fp32.onnx", "golden/images.npy"))
    assert (len(found.damaged), found.problems, found.engines) == (2, found.damaged, ())
    assert "2 problems:" in diagnosis_tables(Diagnosis(machine, found))


def test_an_engine_that_answers_wrongly(
    copy_of_bundle: Path, seal: Callable[[Path], Bundle], cam_bundle: Bundle
) -> None:
    """Hashes fit, the graph is another network's: what nothing but the golden images can find."""
    shutil.copy(cam_bundle.root / "model.fp32.onnx", copy_of_bundle / "model.fp32.onnx")
    seal(copy_of_bundle)
    found = examine_bundle(copy_of_bundle)
    assert found.damaged == ()
    assert any(text.startswith("onnxruntime fp32: ") for text in found.problems)


@pytest.mark.parametrize(
    ("arch", "problem"),
    [
        ("python:os:system", "called only when you allow it: export SAMDEPLOY_FACTORY=os:system"),
        ("timm:/etc/x", "unknown architecture 'timm:/etc/x'"),
        ("onnx:../../x", "unknown architecture 'onnx:../../x'. Valid: none"),
        ("foo:x", "unknown family of networks 'foo'"),
    ],
)
def test_a_network_that_nothing_here_knows(copy_of_bundle: Path, arch: str, problem: str) -> None:
    pytest.importorskip("timm")
    manifest = json.loads((copy_of_bundle / "manifest.json").read_text())
    manifest["model"] |= {"arch": arch, "options": {}}
    (copy_of_bundle / "manifest.json").write_text(json.dumps(manifest))
    found = examine_bundle(copy_of_bundle).problems
    assert any(one.startswith("pytorch cannot rebuild this bundle's network: ") and problem in one for one in found)


def test_golden_images_that_prove_nothing(copy_of_bundle: Path, seal: Callable[[Path], Bundle]) -> None:
    """Any engine of the same shape that answers white as the network does would be opened."""
    images, logits = (copy_of_bundle / "golden" / f"{name}.npy" for name in ("images", "logits"))
    np.save(images, np.full_like(np.load(images), 255))
    with open_session(seal(copy_of_bundle), "pytorch", device="cpu", check=False) as session:
        np.save(logits, session.run(np.load(images)))
    seal(copy_of_bundle)
    found = examine_bundle(copy_of_bundle)
    assert not [one for one in found.engines if one.backend == "onnxruntime" and one.reason]
    assert any(
        "golden images has a single colour, so opening an engine proves nothing" in text for text in found.problems
    )


def test_other_files_and_a_failed_evaluation(copy_of_bundle: Path) -> None:
    (copy_of_bundle / "notes.txt").write_text("mine")
    write_evaluation(copy_of_bundle, reason="agreement 90 %")
    found = examine_bundle(copy_of_bundle)
    assert found.strangers == ("notes.txt",)
    assert found.evaluation == "failed on 9 test images of /my pets: onnxruntime fp32"
    command = f"samdeploy eval {copy_of_bundle} --data '/my pets' --why"
    assert found.problems == (f"bundle {copy_of_bundle}: its evaluation did not pass; {command}",)


def test_no_bundle_there(tmp_path: Path) -> None:
    assert "no such folder" in examine_bundle(tmp_path / "none").problems[0]


def test_what_is_wrong_with_an_installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = samdeploy.doctor.machine._version
    known = {"onnxruntime-gpu": "1.31.1", "onnxruntime": "1.31.1", "openvino": "2024.1.0", "matplotlib": None}
    monkeypatch.setattr(
        samdeploy.doctor.machine, "_version", lambda name: known.get(name) if name in known else real(name)
    )
    monkeypatch.setenv("SAMDEPLOY_CACHE", "/dev/null/cache")
    found = examine_machine()
    problems = "\n".join(found.problems)
    assert "each overwrites the other's files" in problems
    assert "openvino>=2026.2.1 (2024.1.0 is installed)" in problems
    assert "/dev/null is not writable" in problems
    plots = next(extra for extra in found.extras if extra.name == "plots")
    assert plots.missing == ("matplotlib>=3.8.4",)
    assert "plots" not in problems  # nobody asked for it


def test_from_the_command_line(inside: Inside, digits_bundle: Bundle, copy_of_bundle: Path, tmp_path: Path) -> None:
    code, output, errors = inside("doctor", "--json", digits_bundle.root, cwd=tmp_path)
    assert code == 0, errors + output
    found = json.loads(output)
    assert found["problems"] == []
    assert found["bundle"]["path"] == str(digits_bundle.root)
    (copy_of_bundle / "manifest.json").write_text("{")
    code, output, _ = inside("doctor", copy_of_bundle, cwd=tmp_path)
    assert code == 1
    assert "1 problem:" in output
    code, output, errors = inside("doctor", cwd=tmp_path)
    assert code == 0, errors + output
    assert "bundle" not in errors


@pytest.mark.parametrize("arguments", [["doctor", "BUNDLE"], ["bench", "BUNDLE", "--help"]])
def test_where_a_runtime_alone_is_installed(
    arguments: list[str], digits_bundle: Bundle, environment: dict[str, str]
) -> None:
    pytest.importorskip("onnxruntime", reason="pip install 'samdeploy[onnxruntime]'")
    hidden = ("sklearn", "scipy", "onnx", "matplotlib", "jinja2")  # no runtime: that would be a problem
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({hidden!r}))\n"  # None: as if it were not installed
        "from samdeploy.cli import main; main()"
    )
    line = [sys.executable, "-c", code, *(str(digits_bundle.root) if one == "BUNDLE" else one for one in arguments)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "no problems" in done.stdout or "--help" in arguments
