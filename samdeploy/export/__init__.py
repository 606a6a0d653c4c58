"""From a run directory to a bundle: fold, graph, engines, checks.  Imports torch and onnx."""

from __future__ import annotations

from samdeploy.export.engines import EngineRow, ExportOptions
from samdeploy.export.export import ExportResult, export_run

__all__ = ["EngineRow", "ExportOptions", "ExportResult", "export_run"]
