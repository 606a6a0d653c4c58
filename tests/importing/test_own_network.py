"""A network of one's own goes the whole way, by the function that builds it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from samdeploy import Preprocessing, import_model
from samdeploy.backends import open_session
from samdeploy.bundle import open_bundle
from samdeploy.bundle.names import WEIGHTS_FILE
from samdeploy.errors import BackendUnavailable, InputError
from samdeploy.export import ExportOptions, export_run
from samdeploy.models import build_model, load_weights
from samdeploy.models.python_factory import VARIABLE
from samdeploy.runs.record import open_run
from tests.importing.imported import CLASSES, class_folders
from tests.models.own_network import bent, clipped, leaving, tied, tiny, wide

SIZE = Preprocessing(24, 32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samdeploy.models.python_factory._allowed", set())
    monkeypatch.delenv(VARIABLE, raising=False)


def test_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    run = import_model(tiny(3).train(), tiny, SIZE, classes=CLASSES, license="mit", runs=tmp_path)
    record = open_run(run)
    assert (record.arch, record.classes, record.preprocessing) == (
        "python:tests.models.own_network:tiny",
        CLASSES,
        SIZE,
    )
    assert (
        f"next: PYTHONPATH=. {VARIABLE}=tests.models.own_network:tiny samdeploy export {run}\n"
        in capsys.readouterr().err
    )
    bundle = open_bundle(export_run(run, ExportOptions(engine="onnxruntime", cam=False)).bundle)
    assert bundle.spec.license == "mit"
    images, logits = bundle.golden()
    with open_session(bundle, "pytorch") as session:
        assert abs(session.run(images) - logits).max() < 1e-5
    monkeypatch.setattr("samdeploy.models.python_factory._allowed", set())
    with open_session(bundle, "onnxruntime") as session:  # needs no function
        assert session.run(images).shape == logits.shape
    with pytest.raises(
        BackendUnavailable, match=f"only when you allow it: export {VARIABLE}=tests.models.own_network:tiny"
    ):
        open_session(bundle, "pytorch")


def test_weights_that_share_memory(tmp_path: Path) -> None:
    network = tied(3)
    torch.nn.init.normal_(network.again.weight)
    run = import_model(network, tied, SIZE, classes=CLASSES, runs=tmp_path)
    loaded = build_model("python:tests.models.own_network:tied", 3)
    load_weights(loaded, run / WEIGHTS_FILE)
    assert loaded.again is loaded.features[1] and torch.equal(loaded.again.weight, network.again.weight)


def test_classes_of_folders(tmp_path: Path) -> None:
    images = class_folders(tmp_path / "images", dict.fromkeys(CLASSES, 30))
    record = open_run(import_model(tiny(3), tiny, SIZE, data=images, runs=tmp_path / "runs"))
    assert record.classes == CLASSES and record.counts == {"val": 32, "test": 58}


@pytest.mark.parametrize(
    ("module", "factory", "problem"),
    [
        (tiny(3), bent, "answers differently with the same weights"),
        (tiny(3), wide, "the factory builds another network: .* of another shape"),
        (nn.Sequential(nn.Conv2d(3, 4, 1)), tiny, r"one tensor of logits \[N, K\] expected"),
        (tiny(3), clipped, "answers differently with the same weights"),
        (tiny(3), leaving, "leaving: SystemExit: 3"),
        (tiny(3), partial(tiny), "functools:partial: a function at the top of a module"),
        (tiny(3).half(), tiny, r"module: float16 on cpu found, .* expected: module.float\(\).cpu\(\)"),
        (tiny(3).double(), tiny, "module: float64 on cpu found"),
        (nn.Linear(5, 3), tiny, r"tiny: does not take images of 24x32 \(mat1"),
        ("tiny", tiny, "module: str found, a Module expected"),
        (tiny(3), lambda num_classes: tiny(num_classes), "a function at the top of a module that can be imported"),
    ],
)
def test_mistakes(module: nn.Module, factory: Callable[..., nn.Module], problem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=problem):
        import_model(module, factory, SIZE, classes=CLASSES, runs=tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*"))


@pytest.mark.parametrize("classes", ["abc", [1, 2, 3]])
def test_classes_that_are_no_names(classes: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^classes: .* found, a list of names expected, such as \['cat', 'dog'\]$"):
        import_model(tiny(3), tiny, SIZE, classes=classes, runs=tmp_path / "runs")
