"""`samdeploy explain --gates`: which channels each attention module opens and closes, on real images."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from samdeploy.backends.reference import parse_graph
from samdeploy.backends.session import pick_file
from samdeploy.bundle import Bundle
from samdeploy.bundle.spec import named_model
from samdeploy.errors import BackendUnavailable, BundleError, ImageError
from samdeploy.explain.module_gates import ModuleGates, measure_gates
from samdeploy.explain.sources import ExplainOptions, find_sources, prepare_only, write_out
from samdeploy.files import json_bytes
from samdeploy.images.unreadable import Unread
from samdeploy.progress import progress_bar
from samdeploy.terminal.tables import Cell, paragraph, table
from samdeploy.terminal.wording import percent

if TYPE_CHECKING:
    import onnx

    from samdeploy.models.family import ChannelGates

GATES_FILE, GATES_PLOT = "gates.json", "gates.png"


def explain_gates(paths: Sequence[Path], options: ExplainOptions) -> bool:
    """Write gates.png and gates.json over all images (the golden ones where none is named), and print a table.

    Returns:
        Whether all images could be read.

    Raises:
        InputError, ImageError, BundleError, BackendUnavailable: as `explain_paths`.
    """
    from samdeploy.explain.gates_plot import plot_gates

    bundle, out, sources = find_sources(paths, options)
    graph = parse_graph(bundle.read(pick_file(bundle, "graph", "onnxruntime", "fp32")))
    network = find_gates(bundle, graph)
    print(f"{bundle.root}: onnxruntime, fp32, cpu", file=sys.stderr)
    images, unread = [], Unread()
    with progress_bar("gates", 2 * len(sources)) as advance:
        for source in sources:
            try:
                images.append(prepare_only(source, bundle.spec.preprocessing))
            except ImageError as error:
                unread.add(error)
            advance(1, "")
        gates = measure_gates(graph, network.tensors, np.stack(images), advance) if images else ()
    if gates:
        plot = io.BytesIO()
        plot_gates(gates, network, len(images), plot)
        write_out(out / GATES_PLOT, plot.getvalue())
        write_out(out / GATES_FILE, json_bytes(_to_json(bundle, len(images), network, gates)))
        print(gates_table(gates, network.neutral))
        plural = "s" if len(images) > 1 else ""
        print(f"gates of {len(images):,} image{plural}: {out / GATES_PLOT}, {out / GATES_FILE}")
    return unread.none_of(len(sources))


def find_gates(bundle: Bundle, graph: onnx.ModelProto) -> ChannelGates:
    """The gates in the FP32 graph of a bundle, as its family of networks knows them.

    Raises:
        BundleError: the network has none.
        BackendUnavailable: PyTorch is missing.
    """
    try:
        from samdeploy.models.registry import family_of
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"explain --gates needs the package {error.name!r}, which is not installed; pip install 'samdeploy[export]'"
        ) from error
    find = family_of(bundle.spec.arch).channel_gates
    found = find(graph, bundle.spec.options) if find is not None else None
    if found is None or not found.tensors:
        raise BundleError(
            f"explain --gates: {named_model(bundle.spec.arch, bundle.spec.options)} has no channel gates to show"
        )
    return found


def gates_table(gates: Sequence[ModuleGates], neutral: float) -> str:
    """A line per module: its gates over the channels, and what share of the channels it treats how.

    Args:
        gates: in the order of the network.
        neutral: the gate where a module says nothing.
    """
    rows: list[tuple[Cell, ...]] = []
    for module in gates:
        values = (*np.quantile(module.mean, (0, 0.5, 1)), np.median(module.spread))
        shares = (module.opened(neutral), module.shut, module.turned)
        rows.append((module.name, len(module.mean), *(f"{value:z.2f}" for value in values), *map(percent, shares)))
    columns = ("<module", ">channels", ">min", ">median", ">max", ">spread", ">opened %", ">shut %", ">turned %")
    legend = (
        "mean gate of each channel, which it multiplies; spread: median of the channels' standard deviations over the "
        f"images; opened: above {neutral:.0f}, the neutral gate; shut: below a tenth of the root mean square; turned: "
        "below 0"
    )
    return f"{table(columns, rows)}\n{paragraph(legend)}"


def _to_json(bundle: Bundle, images: int, network: ChannelGates, gates: Sequence[ModuleGates]) -> dict[str, Any]:
    return {
        "bundle": str(bundle.root),
        "gate": network.kind,
        "images": images,
        "neutral": network.neutral,
        "modules": [module.to_json(network.neutral) for module in gates],
    }
