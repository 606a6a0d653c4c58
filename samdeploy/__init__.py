"""samdeploy: from labelled images to a verified inference engine.

Public names are resolved on first use (PEP 562), so that ``import samdeploy`` costs a few
milliseconds and loads neither numpy nor a runtime.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# ONNX Runtime reads this when it is imported, by us, by torch.onnx or in a process that we start.  Unset, it writes a
# device id and reports to Microsoft; a value that the user has set is kept.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOME = {
    "Classifier": "samdeploy.classifier",
    "Prediction": "samdeploy.ranking",
    "open_bundle": "samdeploy.bundle",
    "Bundle": "samdeploy.bundle",
    "open_session": "samdeploy.backends",
    "Session": "samdeploy.backends.session",
    "SamdeployError": "samdeploy.errors",
    "BundleError": "samdeploy.errors",
    "BackendUnavailable": "samdeploy.errors",
    "ExportError": "samdeploy.errors",
    "RecipeError": "samdeploy.errors",
    "DatasetError": "samdeploy.errors",
    "DatasetMissing": "samdeploy.errors",
    "Contradiction": "samdeploy.errors",
    "FileSizeLimit": "samdeploy.errors",
    "ImageError": "samdeploy.errors",
    "AnswerError": "samdeploy.errors",
    "InputError": "samdeploy.errors",
    "PackageMissing": "samdeploy.errors",
    "WeightsError": "samdeploy.errors",
    "TrainingError": "samdeploy.errors",
    "Diverged": "samdeploy.errors",
    "Preprocessing": "samdeploy.bundle.spec",
    "import_model": "samdeploy.importing.own_network",
    "cmake_dir": "samdeploy.native",
    "include": "samdeploy.native",
}

__all__ = [
    "AnswerError",
    "BackendUnavailable",
    "Bundle",
    "BundleError",
    "Classifier",
    "Contradiction",
    "DatasetError",
    "DatasetMissing",
    "Diverged",
    "ExportError",
    "FileSizeLimit",
    "ImageError",
    "InputError",
    "PackageMissing",
    "Prediction",
    "Preprocessing",
    "RecipeError",
    "SamdeployError",
    "Session",
    "TrainingError",
    "WeightsError",
    "__version__",
    "cmake_dir",
    "import_model",
    "include",
    "open_bundle",
    "open_session",
]

if TYPE_CHECKING:
    from samdeploy.backends import open_session
    from samdeploy.backends.session import Session
    from samdeploy.bundle import Bundle, open_bundle
    from samdeploy.bundle.spec import Preprocessing
    from samdeploy.classifier import Classifier
    from samdeploy.errors import (
        AnswerError,
        BackendUnavailable,
        BundleError,
        Contradiction,
        DatasetError,
        DatasetMissing,
        Diverged,
        ExportError,
        FileSizeLimit,
        ImageError,
        InputError,
        PackageMissing,
        RecipeError,
        SamdeployError,
        TrainingError,
        WeightsError,
    )
    from samdeploy.importing.own_network import import_model
    from samdeploy.native import cmake_dir, include
    from samdeploy.ranking import Prediction


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'samdeploy' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
