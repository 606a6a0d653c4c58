"""samdeploy keeps to its layers; and one violation of each rule, planted in a package made for it, is found."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.layers import MAY_IMPORT, PACKAGE, circles, violations


def test_samdeploy_keeps_to_its_layers() -> None:
    assert violations(PACKAGE) == []


def test_no_files_import_one_another_in_a_circle() -> None:
    assert circles(PACKAGE) == []


def test_a_circle_is_found_also_inside_functions(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from samdeploy import b")
    (tmp_path / "b.py").write_text("def f():\n    from . import c")
    (tmp_path / "c.py").write_text("import samdeploy.a\nimport samdeploy.d")
    (tmp_path / "d.py").write_text("")
    assert circles(tmp_path) == [["samdeploy.a", "samdeploy.b", "samdeploy.c"]]


def test_the_parts_form_no_circle_and_the_root_is_small() -> None:
    order: list[str] = []
    while len(order) < len(MAY_IMPORT):
        free = [part for part in MAY_IMPORT if part not in order and MAY_IMPORT[part] <= set(order)]
        assert free, f"in a circle: {sorted(set(MAY_IMPORT) - set(order))}"
        order += free
    assert len(list(PACKAGE.glob("*.py"))) <= 12


def test_folders_have_no_logic_of_their_own() -> None:
    for path in PACKAGE.rglob("*/__init__.py"):
        for node in ast.parse(path.read_text()).body:
            assert isinstance(node, ast.Expr | ast.Import | ast.ImportFrom | ast.Assign), f"{path}:{node.lineno}"


def test_onnxruntime_opens_graphs_in_one_place() -> None:
    """`bench` opens others' graphs as a user of ONNX Runtime would."""
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "InferenceSession(" in path.read_text()
    }
    assert found == {"graphs/inference.py", "bench/alternatives/onnxruntime.py"}


def test_every_part_in_the_table_exists() -> None:
    existing = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert set(MAY_IMPORT) == existing


PLANTED = {
    # rule: (file, source, found)
    "a lower layer imports a higher one": (
        "bundle/open.py",
        "from samdeploy.classifier import Classifier",
        [
            "bundle/open.py:1: bundle may not import classifier",
            "bundle/open.py:1: bundle may import classifier inside functions only",
        ],
    ),
    "inside a function too": (
        "images/decode.py",
        "def f():\n    from samdeploy.backends import open_session",
        ["images/decode.py:2: images may not import backends"],
    ),
    "errors import nothing": (
        "errors.py",
        "def f():\n    import samdeploy.bundle.spec",
        ["errors.py:2: errors may not import bundle"],
    ),
    "train does not know export": (
        "train/loop/train.py",
        "async def f():\n    from samdeploy.export.stage import staged",
        ["train/loop/train.py:2: train may not import export"],
    ),
    "export does not know train": (
        "export/export.py",
        "f = lambda: __import__('samdeploy.train.loop.train')",
        ["export/export.py:1: export may not import train"],
    ),
    "evaluate does not know export": (
        "evaluate/evaluate.py",
        "def f():\n    from ..export import pack",
        ["evaluate/evaluate.py:2: evaluate may not import export"],
    ),
    "evaluate does not know models": (
        "evaluate/evaluate.py",
        "def f():\n    from samdeploy import models",
        ["evaluate/evaluate.py:2: evaluate may not import models"],
    ),
    "a public name is its module": (
        "errors.py",
        "import samdeploy\ndef f():\n    return samdeploy.open_bundle, samdeploy.__version__",
        ["errors.py:3: errors may not import bundle"],
    ),
    "from the package itself": (
        "models/graph.py",
        "def f():\n    from .. import Classifier",
        ["models/graph.py:2: models may not import classifier"],
    ),
    "evaluate never imports torch": (
        "evaluate/latency/measure.py",
        "def f():\n    import torch.cuda",
        ["evaluate/latency/measure.py:2: evaluate may not import torch, not even inside a function"],
    ),
    "a runtime in another's file": (
        "backends/openvino/session.py",
        "import numpy\nimport onnxruntime as ort\ndef f():\n    import tensorrt",
        ["backends/openvino/session.py:2: the runtime onnxruntime is not at home here"],
    ),
    "a runtime in another's file of bench": (
        "bench/alternatives/onnxruntime.py",
        "import onnxruntime\nimport torch",
        ["bench/alternatives/onnxruntime.py:2: the runtime torch is not at home here"],
    ),
    "OpenVINO with its telemetry": (
        "backends/openvino/session.py",
        "def f():\n    from openvino.frontend import FrontEndManager",
        ["backends/openvino/session.py:2: only backends/openvino/package.py imports openvino"],
    ),
    "a runtime in the folder's __init__": (
        "backends/__init__.py",
        "try:\n    import torch\nexcept ImportError:\n    pass",
        ["backends/__init__.py:2: the runtime torch is not at home here"],
    ),
    "a runtime by its name as text": (
        "progress.py",
        "import importlib\nclass A:\n    b = importlib.import_module('cuda.bindings')",
        ["progress.py:3: the runtime cuda is not at home here"],
    ),
    "the package imports its parts late": (
        "__init__.py",
        "from .errors import SamdeployError",
        [
            "__init__.py:1: __init__ may not import errors",
            "__init__.py:1: __init__ may import errors inside functions only",
        ],
    ),
    "the command line imports parts late": (
        "cli.py",
        "from samdeploy.errors import SamdeployError\nfrom samdeploy.bundle import open_bundle",
        ["cli.py:2: cli may import bundle inside functions only"],
    ),
    "the command line imports packages late": (
        "cli.py",
        "import typer, numpy\nfrom pathlib import Path",
        ["cli.py:1: cli may not import the package numpy at module level"],
    ),
    "plain data needs no package": (
        "bundle/manifest.py",
        "import json, numpy",
        ["bundle/manifest.py:1: bundle may not import the package numpy at module level"],
    ),
    "a bundle is opened before numpy is there": (
        "bundle/open.py",
        "import samdeploy.arrays",
        ["bundle/open.py:1: bundle may import arrays inside functions only"],
    ),
    "a bundle's golden images are read with numpy alone": (
        "bundle/golden.py",
        "import numpy, PIL",
        ["bundle/golden.py:1: bundle may not import the package PIL at module level"],
    ),
    "a network of one family": (
        "export/export.py",
        'def f(net):\n    """Of a FoldedResNet."""\n    return isinstance(net, models.SamResNet)',
        ["export/export.py:2: only models/ knows FoldedResNet", "export/export.py:3: only models/ knows SamResNet"],
    ),
    "the room of one family": (
        "train/loop/train.py",
        "def f():\n    from samdeploy.models.sam_resnet.fold import fold",
        ["train/loop/train.py:2: only models/ imports samdeploy.models.sam_resnet"],
    ),
    "the attention's gate": (
        "train/loop/epoch.py",
        "def f(recipe, spec):\n    return recipe.model.gate == 'none' or spec.options['gate']",
        [
            "train/loop/epoch.py:2: only models/ asks about the attention's gate",
            "train/loop/epoch.py:2: only models/ asks about the attention's gate",
        ],
    ),
    "a new part needs a place": (
        "utils/misc.py",
        "",
        ["utils/misc.py: has no place among the layers; enter 'utils' into MAY_IMPORT of tests/layers.py"],
    ),
}


@pytest.mark.parametrize("rule", PLANTED)
def test_a_planted_violation_is_found(rule: str, tmp_path: Path) -> None:
    file, source, expected = PLANTED[rule]
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(source)
    assert violations(tmp_path) == expected


def test_what_is_allowed_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "backends" / "device").mkdir(parents=True)
    (tmp_path / "backends" / "device" / "cuda.py").write_text(
        "from cuda.bindings import runtime\nfrom . import session\n"
    )
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "open.py").write_text(
        "from typing import TYPE_CHECKING\nimport samdeploy\nVERSION = samdeploy.__version__\n"
        "if TYPE_CHECKING:\n    import torch\n    from samdeploy.classifier import Classifier\n"
        "else:\n    from samdeploy.bundle.manifest import Manifest\n"
    )
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "pretrained.py").write_text("def f(model: SamResNet): return model.gate")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "html.py").write_text("from samdeploy.evaluate.accuracy.gate import logits_differ")
    assert violations(tmp_path) == []
