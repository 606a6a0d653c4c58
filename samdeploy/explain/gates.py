"""`samdeploy explain --gates`: which channels each attention module opens and closes, on real pictures.

A gate multiplies a channel.  It is neutral where ``W·GAP(x)`` is 0: that is 1, the channel as it is, for the identity
gate ``1 + W·GAP(x)``, and 0 for the original ``W·GAP(x)``, which passes nothing that it does not choose to.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends.session import pick_file
from samdeploy.bundle import Bundle
from samdeploy.errors import BundleError, ImageError
from samdeploy.explain.sources import ExplainOptions, find_sources, prepare_only, write_out
from samdeploy.files import json_bytes
from samdeploy.images.unreadable import Unread
from samdeploy.progress import progress_bar

GATES_FILE, GATES_PLOT = "gates.json", "gates.png"
# The gate where the module says nothing.
NEUTRAL = {"identity": 1.0, "original": 0.0}
# A channel is as good as shut where its gate is smaller than this share of the module's root mean square: the original
# gate has no scale of its own, since the layers around it take up any factor.
SHUT = 0.1
_GROUP = 16


@dataclass(frozen=True, slots=True)
class ModuleGates:
    """The gates of one attention module over a set of pictures.

    Attributes:
        name: of its block, such as "layer2.0".
        mean: float32 [C], mean of each channel's gate over the pictures.
        spread: float32 [C], standard deviation over the pictures: 0 where the gate is the same for every picture.
    """

    name: str
    mean: Float32Array
    spread: Float32Array

    def opened(self, neutral: float) -> float:
        """Percent of the channels whose mean gate is above the neutral one."""
        return 100 * float(np.mean(self.mean > neutral))

    @property
    def shut(self) -> float:
        """Percent of the channels that hardly pass; see `SHUT`."""
        return 100 * float(np.mean(np.abs(self.mean) < SHUT * np.sqrt(np.mean(np.square(self.mean)))))

    @property
    def turned(self) -> float:
        """Percent of the channels whose sign is turned: a mean gate below 0."""
        return 100 * float(np.mean(self.mean < 0))

    def to_json(self, neutral: float) -> dict[str, Any]:
        """As in gates.json."""
        return {
            "module": self.name,
            "channels": len(self.mean),
            "opened_percent": self.opened(neutral),
            "shut_percent": self.shut,
            "turned_percent": self.turned,
            "mean": [float(value) for value in self.mean],
            "spread": [float(value) for value in self.spread],
        }


def measure_gates(
    graph: bytes, images: UInt8Array, progress: Callable[[int, str], None] | None = None
) -> tuple[ModuleGates, ...]:
    """Run an exported FP32 graph with the gate of every block as an output.

    Imports onnx and onnxruntime.

    Args:
        graph: of role "graph" in FP32.
        images: uint8 [n, H, W, 3], n >= 1.

    Raises:
        BundleError: the graph holds no gates, or one that is not finite.
    """
    import onnx

    from samdeploy.backends.onnxruntime.inference import open_inference, run_inference

    model = onnx.load_from_string(graph)
    names = [node.output[0] for node in model.graph.node if node.op_type == "Conv" and node.name.endswith(".gate")]
    if not names:
        raise BundleError(
            "the FP32 graph holds no gates of attention modules: a network trained with gate 'none' has none; "
            "else make the bundle again: samdeploy export"
        )
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = open_inference(model.SerializeToString())
    parts: list[list[Float32Array]] = [[] for _ in names]
    for start in range(0, len(images), _GROUP):
        batch = images[start : start + _GROUP]
        for found, value in zip(parts, run_inference(session, {"image": batch}, names), strict=True):
            found.append(value.reshape(len(batch), -1))
        if progress is not None:
            progress(len(batch), "")
    gates = []
    for name, found in zip(names, parts, strict=True):
        values = np.concatenate(found)
        if not np.isfinite(values).all():
            raise BundleError(f"{name}: not finite on one of the pictures; the network is broken, train again")
        gates.append(ModuleGates(name.removesuffix(".gate"), values.mean(axis=0), values.std(axis=0)))
    return tuple(gates)


def explain_gates(paths: Sequence[Path], options: ExplainOptions) -> bool:
    """Write gates.png and gates.json over all pictures (the golden ones where none is named), and print a table.

    Returns:
        Whether all pictures could be read.

    Raises:
        InputError, ImageError, BundleError, BackendUnavailable: as `explain_paths`.
    """
    from samdeploy.explain.gates_plot import plot_gates

    bundle, sources = find_sources(paths, options)
    graph = bundle.read(pick_file(bundle, "graph", "onnxruntime", "fp32"))
    print(f"{bundle.root}: onnxruntime, fp32, cpu", file=sys.stderr)
    images, unread = [], Unread()
    with progress_bar("gates", 2 * len(sources)) as advance:
        for source in sources:
            try:
                images.append(prepare_only(source, bundle.spec.preprocessing))
            except ImageError as error:
                unread.add(error)
            advance(1, "")
        gates = measure_gates(graph, np.stack(images), advance) if images else ()
    if gates:
        picture = io.BytesIO()
        plot_gates(gates, NEUTRAL[str(bundle.spec.options["gate"])], len(images), picture)
        write_out(options.out / GATES_PLOT, picture.getvalue())
        write_out(options.out / GATES_FILE, json_bytes(_to_json(bundle, len(images), gates)))
        print(gates_table(gates, str(bundle.spec.options["gate"])))
        pictures = f"{len(images)} picture{'s' if len(images) > 1 else ''}"
        print(f"gates of {pictures}: {options.out / GATES_PLOT}, {options.out / GATES_FILE}")
    return unread.none_of(len(sources))


def gates_table(gates: Sequence[ModuleGates], kind: str) -> str:
    """A line per module: its gates over the channels, and what share of the channels it treats how.

    Args:
        gates: in the order of the network.
        kind: "identity" or "original".
    """
    neutral = NEUTRAL[kind]
    titles = ("channels", "min", "median", "max", "spread", "opened", "shut", "turned")
    lines = [f"{'module':<10}" + "".join(f"{title:>9}" if title == titles[0] else f"{title:>8}" for title in titles)]
    for module in gates:
        low, middle, high = (float(np.quantile(module.mean, share)) for share in (0, 0.5, 1))
        values = (low, middle, high, float(np.median(module.spread)))
        shares = (module.opened(neutral), module.shut, module.turned)
        lines.append(
            f"{module.name:<10}{len(module.mean):>9}"
            + "".join(f"{value:>8.2f}" for value in values)
            + "".join(f"{share:>8.1f}" for share in shares)
        )
    lines.append("mean gate of each channel, which it multiplies; spread: median of the channels'")
    lines.append(f"standard deviations over the pictures; % of the channels: opened: above {neutral:.0f}, the")
    lines.append("neutral gate; shut: below a tenth of the root mean square; turned: below 0")
    return "\n".join(lines)


def _to_json(bundle: Bundle, images: int, gates: Sequence[ModuleGates]) -> dict[str, Any]:
    return {
        "bundle": str(bundle.root),
        "gate": str(bundle.spec.options["gate"]),
        "images": images,
        "neutral": NEUTRAL[str(bundle.spec.options["gate"])],
        "modules": [module.to_json(NEUTRAL[str(bundle.spec.options["gate"])]) for module in gates],
    }
