"""The folder of a report: `report.html`, `report.json`, `junit.xml`, and confusion matrices as `confusion-*.csv`."""

from __future__ import annotations

from pathlib import Path

from samdeploy.bundle import Bundle
from samdeploy.evaluate.result import Report
from samdeploy.files import json_bytes, write_atomic
from samdeploy.metrics import confusion_csv
from samdeploy.report.confusion import different_answers
from samdeploy.report.evidence import gather
from samdeploy.report.html import render_html
from samdeploy.report.junit import junit_xml

HTML_FILE, JSON_FILE, JUNIT_FILE = "report.html", "report.json", "junit.xml"


def write_report(folder: Path, bundle: Bundle, report: Report, *, data_root: Path | None, command: str) -> Path:
    """Write the files, each whole or not at all; the HTML comes last.

    They speak of this evaluation alone, as the exit code does; earlier rows stand in the bundle's eval.json.

    Args:
        folder: exists.
        bundle: that was evaluated.
        report: of this evaluation.
        data_root: where the test images lie; None: where training found them.
        command: the line that made the report.

    Returns:
        The HTML file.

    Raises:
        OSError: the folder cannot be written to any more.
    """
    evaluation = report.to_json()
    evidence = gather(bundle, evaluation, report, data_root=data_root, command=command)
    html = render_html(evaluation, evidence, bundle)
    write_atomic(folder / JSON_FILE, json_bytes({**evaluation, "report": evidence.to_json()}))
    write_atomic(folder / JUNIT_FILE, junit_xml(report))
    for group in different_answers(report):  # each in a file that is called after the first of its engines
        name = group.names[0].removeprefix("the ").replace(" ", "-")
        write_atomic(
            folder / f"confusion-{name}.csv",
            confusion_csv(group.matrix(len(report.class_names)), report.class_names).encode(),
        )
    # Half of a surrogate pair, from a file name that is no UTF-8, could not be written at all.
    write_atomic(folder / HTML_FILE, html.encode("utf-8", "replace"))
    return folder / HTML_FILE
