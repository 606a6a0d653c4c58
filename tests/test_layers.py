"""samdeploy keeps to its layers; and one violation of each rule, planted in a package made for it, is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.layers import MAY_IMPORT, PACKAGE, violations


def test_samdeploy_keeps_to_its_layers() -> None:
    assert violations(PACKAGE) == []


def test_every_part_in_the_table_exists() -> None:
    existing = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert set(MAY_IMPORT) == existing


PLANTED = {
    # rule: (file, source, found)
    "a lower layer imports a higher one": (
        "bundle.py",
        "from samdeploy.classifier import Classifier",
        [
            "bundle.py:1: bundle may not import classifier",
            "bundle.py:1: bundle may import classifier inside functions only",
        ],
    ),
    "inside a function too": (
        "preprocess.py",
        "def f():\n    from samdeploy.backends import open_session",
        ["preprocess.py:2: preprocess may not import backends"],
    ),
    "errors import nothing": (
        "errors.py",
        "def f():\n    import samdeploy.spec",
        ["errors.py:2: errors may not import spec"],
    ),
    "train does not know export": (
        "train/loop.py",
        "async def f():\n    from samdeploy.export.stage import staged",
        ["train/loop.py:2: train may not import export"],
    ),
    "export does not know train": (
        "export/pipeline.py",
        "f = lambda: __import__('samdeploy.train.loop')",
        ["export/pipeline.py:1: export may not import train"],
    ),
    "evaluate does not know export": (
        "evaluate/pipeline.py",
        "def f():\n    from ..export import pack",
        ["evaluate/pipeline.py:2: evaluate may not import export"],
    ),
    "evaluate does not know models": (
        "evaluate/pipeline.py",
        "def f():\n    from samdeploy import models",
        ["evaluate/pipeline.py:2: evaluate may not import models"],
    ),
    "a public name is its module": (
        "data/digits.py",
        "import samdeploy\ndef f():\n    return samdeploy.open_bundle, samdeploy.__version__",
        ["data/digits.py:3: data may not import bundle"],
    ),
    "from the package itself": (
        "models/graph.py",
        "def f():\n    from .. import Classifier",
        ["models/graph.py:2: models may not import classifier"],
    ),
    "evaluate never imports torch": (
        "evaluate/latency.py",
        "def f():\n    import torch.cuda",
        ["evaluate/latency.py:2: evaluate may not import torch, not even inside a function"],
    ),
    "a runtime in another's file": (
        "backends/openvino.py",
        "import numpy\nimport onnxruntime as ort\ndef f():\n    import tensorrt",
        ["backends/openvino.py:2: the runtime onnxruntime is not at home here"],
    ),
    "a runtime in another's file of bench": (
        "bench/onnxruntime.py",
        "import onnxruntime\nimport torch",
        ["bench/onnxruntime.py:2: the runtime torch is not at home here"],
    ),
    "OpenVINO with its telemetry": (
        "backends/openvino.py",
        "def f():\n    from openvino.frontend import FrontEndManager",
        ["backends/openvino.py:2: only backends/openvino_package.py imports openvino"],
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
        "manifest.py",
        "import json, numpy",
        ["manifest.py:1: manifest may not import the package numpy at module level"],
    ),
    "a bundle is opened before numpy is there": (
        "bundle.py",
        "import numpy\nimport samdeploy.golden",
        [
            "bundle.py:1: bundle may not import the package numpy at module level",
            "bundle.py:2: bundle may import golden inside functions only",
        ],
    ),
    "a bundle's golden pictures are read with numpy alone": (
        "golden.py",
        "import numpy, PIL",
        ["golden.py:1: golden may not import the package PIL at module level"],
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
    (tmp_path / "backends").mkdir()
    (tmp_path / "backends" / "cuda.py").write_text("from cuda.bindings import runtime\nfrom . import session\n")
    (tmp_path / "bundle.py").write_text(
        "from typing import TYPE_CHECKING\nimport samdeploy\nVERSION = samdeploy.__version__\n"
        "if TYPE_CHECKING:\n    import torch\n    from samdeploy.classifier import Classifier\n"
        "else:\n    from samdeploy.manifest import Manifest\n"
    )
    assert violations(tmp_path) == []
