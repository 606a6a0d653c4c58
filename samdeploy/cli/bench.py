"""`samdeploy bench`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from samdeploy.cli.app import DataRoot, RunsRoot, command
from samdeploy.cli.arguments import check_writable, refuse_unused, sizes_from, taken

if TYPE_CHECKING:
    from samdeploy.bundle import Bundle

_ROUNDS = 21


@command
def bench(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle, or its run; the newest if left out.")] = None,
    against: Annotated[
        bool, typer.Option("--against", help="Also measure PyTorch and other exports, in turns with the engines.")
    ] = False,
    alternatives: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="With --against: which ones; all that run here if left out.")
    ] = None,
    backend: Annotated[str, typer.Option(help="pytorch, onnxruntime, openvino, tensorrt or all.")] = "all",
    precision: Annotated[str | None, typer.Option(help="fp32, fp16, bf16 or int8; as exported if left out.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Batch sizes; 1, 2, 4 and so on if left out.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of your images; test images if left out.")] = None,
    data: DataRoot = None,
    seconds: Annotated[float, typer.Option(help="Seconds of measuring for each figure.")] = 1.0,
    rounds: Annotated[int, typer.Option(help="Rounds in which the alternatives take turns.")] = _ROUNDS,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result here too.")] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Measure a server's model, .../v2/models/NAME, instead.")
    ] = None,
    clients: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="With --url: numbers of clients; 1, 2, 4 to 32 if left out.")
    ] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="With --url: file with the server's API key.")] = None,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Measure speed and memory of each engine.  With --against, also of PyTorch and other exports, as ratios.

    With --url a server of the Open Inference Protocol: its answers against the bundle's, and its latency under load.
    """
    from samdeploy.bench.options import ALTERNATIVES, BenchOptions
    from samdeploy.bundle import open_bundle
    from samdeploy.runs.locate import bundle_of, latest_bundle

    names = tuple(part.strip() for part in alternatives.split(",")) if alternatives is not None else ALTERNATIVES
    sizes = sizes_from(batch)
    options = BenchOptions(backend, precision, device, sizes, images, data, seconds, rounds, names)
    if url is None:
        refuse_unused(
            {"--clients": clients, "--api-key-file": api_key_file}, "only with --url; add it, or leave this out"
        )
        refuse_unused({"--alternatives": None if against else alternatives}, "only with --against; add --against")
    else:
        refuse_unused(
            {"--against": against, "--alternatives": alternatives, "--batch": batch, "--images": images, "--data": data}
            | {"--backend": backend != "all", "--device": device != "auto", "--rounds": rounds != _ROUNDS},
            "not with --url, which measures a server; leave it out",
        )
    if json_file is not None:  # known now, not after minutes of measuring
        check_writable("--json", json_file)
    opened = open_bundle(bundle_of(bundle) if bundle is not None else taken("bundle", latest_bundle(runs)))

    if url is not None:
        _bench_url(opened, url, sizes_from(clients, "--clients"), seconds, precision, api_key_file, json_file)
        return

    from samdeploy.bench.bench import bench_against, bench_bundle
    from samdeploy.files import json_bytes, write_atomic
    from samdeploy.report.text.bench import bench_tables

    report = (bench_against if against else bench_bundle)(opened, options)
    print(bench_tables(report))
    if json_file is not None:
        write_atomic(json_file, json_bytes(report.to_json()))
    if not report.complete:
        raise SystemExit(1)


def _bench_url(
    bundle: Bundle,
    url: str,
    clients: Sequence[int] | None,
    seconds: float,
    precision: str | None,
    key_file: Path | None,
    json_file: Path | None,
) -> None:
    from samdeploy.bench.server import CONCURRENCIES, ServerOptions, bench_server
    from samdeploy.errors import InputError
    from samdeploy.files import json_bytes, write_atomic
    from samdeploy.report.text.server import server_tables

    try:
        key = key_file.read_text("ascii").split("\n")[0].strip() if key_file is not None else None
    except (OSError, UnicodeError) as error:
        raise InputError(f"--api-key-file {key_file}: cannot be read ({error})") from None
    found = bench_server(bundle, ServerOptions(url, clients or CONCURRENCIES, seconds, precision, key))
    print(server_tables(found))
    if json_file is not None:
        write_atomic(json_file, json_bytes(found.to_json()))
    if not found.sound:
        raise SystemExit(1)
