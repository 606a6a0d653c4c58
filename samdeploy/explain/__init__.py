"""`samdeploy explain`: class activation maps over images, and what the attention modules let through."""

from __future__ import annotations

from samdeploy.explain.explain import explain_paths
from samdeploy.explain.gates import explain_gates
from samdeploy.explain.sources import ExplainOptions

__all__ = ["ExplainOptions", "explain_gates", "explain_paths"]
