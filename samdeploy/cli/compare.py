"""`samdeploy compare`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from samdeploy.cli.app import command
from samdeploy.cli.arguments import check_writable, make_folder


@command
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A bundle or a run.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="A bundle or a run, judged against A.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="PATH", help="Folder, table or tars of images; the test images if left out."),
    ] = None,
    margin: Annotated[
        float | None, typer.Option(metavar="POINTS", help="Exit 0 only if B is shown to lose less top-1 than this.")
    ] = None,
    backend: Annotated[
        str, typer.Option(help="pytorch, onnxruntime, openvino, tensorrt; auto: first that opens both.")
    ] = "auto",
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16, bf16 or int8; the backend's usual one if left out.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    confidence: Annotated[float, typer.Option(help="Confidence of the intervals, 0.5 to below 1.")] = 0.95,
    rounds: Annotated[int, typer.Option(help="Rounds of latency, in turns; 0: measure none.")] = 31,
    show: Annotated[int, typer.Option(metavar="N", help="How many images with different answers to list.", min=0)] = 10,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write compare.json and contact sheets of these images here.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result here.")] = None,
) -> None:
    """Compare two networks on the same images.  Reports agreement, latency and, with labels, accuracy.

    A run without a bundle is opened with its weights, in PyTorch.
    """
    from samdeploy.compare.networks import compare_networks
    from samdeploy.compare.options import CompareOptions
    from samdeploy.compare.result import JSON_FILE
    from samdeploy.compare.sheet import write_sheets
    from samdeploy.files import json_bytes, write_atomic
    from samdeploy.report.text.comparison import comparison_tables, comparison_verdict

    options = CompareOptions(data, margin, backend, precision, device, confidence, rounds)
    if json_file is not None:  # known now, not after minutes
        check_writable("--json", json_file)
    is_new = out is not None and make_folder("--out", out)
    try:
        report, images = compare_networks(a, b, options)
    except BaseException:  # Ctrl-C, too
        if out is not None and is_new:
            with suppress(OSError):  # something else was put into it
                out.rmdir()
        raise
    print(comparison_tables(report, shown=show))
    verdict = comparison_verdict(report)
    if verdict:
        print(f"\n{verdict}")
    content = json_bytes(report.to_json())
    if json_file is not None:
        write_atomic(json_file, content)
    if out is not None:
        write_atomic(out / JSON_FILE, content)
        sheets = write_sheets(out, report, images)
        more = f" (and {len(sheets) - 1} more)" if len(sheets) > 1 else ""
        print(f"written: {out / JSON_FILE}" + (f", {sheets[0]}{more}" if sheets else ""))
    if not report.passed:
        raise SystemExit(1)
