"""The report of a labelling as one HTML file; see `samdeploy.report.html`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from samdeploy.bundle import Bundle
from samdeploy.files import write_atomic
from samdeploy.label.results import Labels
from samdeploy.report.html import page_environment
from samdeploy.report.labels import LabelsFound
from samdeploy.report.plots import histogram


def render_labels(found: LabelsFound, labels: Labels, bundle: Bundle, command: str) -> str:
    """The whole page.

    Args:
        found: what there is to show.
        labels: of which.
        bundle: that made them.
        command: the line that made the report.
    """
    shown = sorted(found.classes, key=lambda one: -one.images)
    context = {
        "found": found,
        "classes": shown,
        "largest": max((max(one.percent, one.before or 0) for one in found.classes), default=0) or 1,
        "settings": labels.settings,
        "labels": labels,
        "bundle": bundle,
        "plot": histogram(found.confidence, found.confidence_before),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command_line": command,
    }
    return page_environment().get_template("labels.html.j2").render(context)


def write_labels_report(path: Path, found: LabelsFound, labels: Labels, bundle: Bundle, command: str) -> None:
    """Write the page, whole or not at all; the arguments of `render_labels`."""
    write_atomic(path, render_labels(found, labels, bundle, command).encode("utf-8", "replace"))
