"""`samdeploy eval`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from samdeploy.cli.app import DataRoot, RunsRoot, command
from samdeploy.cli.arguments import check_writable, make_folder, one_name, shard_of, taken

# A way to evaluate -> the options that mean nothing there, and why.
_WAYS = {
    "--labels": (
        ("--backend", "--precision", "--device", "--consistency", "--why", "--report"),
        ", which runs no engine; leave it out",
    ),
    "--merge": (("--backend", "--precision"), ": the parts say which engines were asked"),
    "--shard": (
        (
            *("--consistency", "--margin", "--confidence", "--why", "--report"),
            *("--json", "--junit", "--min-top1", "--min-class-recall"),
        ),
        ": give it to samdeploy eval --merge, which judges all parts",
    ),
}


@command
def eval(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle, or its run; the newest if left out.")] = None,
    backends: Annotated[
        list[str] | None,
        typer.Option("--backend", metavar="NAME", help="pytorch, onnxruntime, openvino or tensorrt; all if left out."),
    ] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, fp16, bf16 or int8; as exported if left out.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    margin: Annotated[float, typer.Option(help="Points of top-1 that an engine below FP32 may lose.")] = 0.5,
    confidence: Annotated[float, typer.Option(help="Confidence of the test on the margin, 0.5 to below 1.")] = 0.95,
    consistency: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time for each engine's consistency checks; 0: none.")
    ] = 60.0,
    min_top1: Annotated[
        float | None, typer.Option("--min-top1", metavar="PERCENT", help="Top-1 that every engine must reach.")
    ] = None,
    min_class_recall: Annotated[
        float | None,
        typer.Option("--min-class-recall", metavar="PERCENT", help="Recall that every class must reach."),
    ] = None,
    why: Annotated[bool, typer.Option("--why", help="Find the first layer where a failing engine is wrong.")] = False,
    data: DataRoot = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result here too.")] = None,
    report_folder: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="Write report.html, report.json and junit.xml here.")
    ] = None,
    junit_file: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write the result as JUnit XML.")
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            "--labels",
            metavar="DIR",
            help="With --reference: judge what samdeploy label wrote; repeatable.",
        ),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --labels: labels of the same images by --backend pytorch.")
    ] = None,
    label_column: Annotated[
        str, typer.Option(metavar="NAME", help="With --labels and --data TABLE: its column of true classes.")
    ] = "",
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Run the engines on part I of N of the test set; needs --out.")
    ] = "",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="With --shard: the part's result, an .npz.")] = None,
    merge: Annotated[
        list[Path] | None,
        typer.Option("--merge", metavar="PATH", help="Judge by these parts, files or a folder of them; repeatable."),
    ] = None,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Compare each engine with PyTorch on the test set.  The exit code is 0 only if every engine that ran passes.

    FP32 must give the same answers.  Any other precision must be shown to lose less top-1 than the margin.
    """
    from samdeploy.bundle import open_bundle
    from samdeploy.errors import InputError
    from samdeploy.evaluate import EvalOptions, evaluate_bundle, write_eval
    from samdeploy.evaluate.accuracy.compare import DEFAULT_CONFIDENCE
    from samdeploy.evaluate.accuracy.floors import Floors
    from samdeploy.evaluate.accuracy.gate import DEFAULT_MARGIN
    from samdeploy.evaluate.options import CONSISTENCY_S
    from samdeploy.files import json_bytes, write_atomic
    from samdeploy.report.text.evaluation import evaluation_tables, verdict
    from samdeploy.runs.locate import bundle_of, latest_bundle

    backend = one_name("--backend", backends, "all")
    floors = Floors(min_top1, min_class_recall)
    options = EvalOptions(backend, precision, device, data, margin, confidence, consistency, why, floors)
    _check_way(
        {"--labels": labels, "--merge": merge, "--shard": shard},
        {"--backend": backends, "--precision": precision, "--why": why, "--report": report_folder, "--json": json_file}
        | {"--junit": junit_file, "--min-top1": min_top1, "--min-class-recall": min_class_recall}
        | {"--device": device != "auto", "--consistency": consistency != CONSISTENCY_S}
        | {"--margin": margin != DEFAULT_MARGIN, "--confidence": confidence != DEFAULT_CONFIDENCE},
    )
    if label_column and not (labels and data):
        raise InputError("--label-column: names a column of a table; give --labels and --data TABLE too")
    if (reference is None) is bool(labels):
        raise InputError(
            "--labels and --reference: give both; a reference is made by samdeploy label with --backend pytorch"
        )
    if (out is None) is bool(shard):
        raise InputError("--shard and --out: give both, such as --shard 3/64 --out part3.npz")
    if out is not None:
        check_writable("--out", out)
    for option, file in (("--json", json_file), ("--junit", junit_file)):
        if file is not None:  # known now, not after minutes of evaluation
            check_writable(option, file)
    if json_file is not None and junit_file is not None and json_file.absolute() == junit_file.absolute():
        raise InputError(f"--json and --junit: both name {json_file}; name two files")
    opened = open_bundle(bundle_of(bundle) if bundle is not None else taken("bundle", latest_bundle(runs)))
    if out is not None:
        from samdeploy.evaluate.stored.shard import evaluate_shard, write_shard

        write_shard(out, evaluate_shard(opened, options, shard_of(shard)))
        print(out)
        return
    is_new = False
    if report_folder is not None:
        from samdeploy.report.write import write_report  # Jinja may be missing: known now as well

        is_new = make_folder("--report", report_folder)

    try:
        if labels and reference is not None:
            from samdeploy.evaluate.stored.labels import LabelSets, evaluate_labels

            report = evaluate_labels(opened, LabelSets(tuple(labels), reference, data, label_column), options)
        elif merge:
            from samdeploy.evaluate.stored.merge import evaluate_shards

            report = evaluate_shards(opened, options, merge)
        else:
            report = evaluate_bundle(opened, options)
    except BaseException:  # Ctrl-C, too
        if report_folder is not None and is_new:
            with suppress(OSError):  # something else was put into it
                report_folder.rmdir()  # nothing is left behind that looks like a report
        raise
    print(evaluation_tables(report))
    print(f"{verdict(report)}: {opened.root}")
    if why and not any(result.verdict == "fails" and result.ran for result in report.results):
        print("--why: no engine that ran fails, so there is no departure to look for", file=sys.stderr)
    if json_file is not None:
        write_atomic(json_file, json_bytes(report.to_json()))
    try:
        if not labels:  # of an engine that answered no probe images
            write_eval(opened.root, report)
    except OSError as error:  # a bundle may lie where nothing can be written; the verdict stands
        print(f"samdeploy: {opened.root}: eval.json was not written: {error.strerror}", file=sys.stderr)
    if junit_file is not None:
        from samdeploy.report.junit import junit_xml

        write_atomic(junit_file, junit_xml(report))
    if report_folder is not None:
        line = shlex.join(["samdeploy", *sys.argv[1:]])
        print(f"report: {write_report(report_folder, opened, report, data_root=data, command=line)}")
    if not report.passed:
        raise SystemExit(1)


def _check_way(ways: Mapping[str, object], given: Mapping[str, object]) -> None:
    """Refuse two ways at once, and options that mean nothing in one."""
    from samdeploy.errors import InputError

    asked = [way for way, value in ways.items() if value]
    if len(asked) > 1:
        raise InputError(f"{' and '.join(asked)}: give only one")
    for way in asked:
        options, why = _WAYS[way]
        if unused := [option for option in options if given[option]]:
            raise InputError(f"{unused[0]}: not with {way}{why}")
