"""The plots of docs/figures.md, from the newest JSON of each benchmark.

python benchmarks/figures.py           # writes docs/images/*.svg; needs matplotlib
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
IMAGES = ROOT / "docs" / "images"

# Colours that are told apart with any kind of colour vision (Okabe and Ito, 2008), each with a marker of its own.
COLOURS = {"fp32": "#0072B2", "bf16": "#E69F00", "fp16": "#CC79A7", "int8": "#009E73"}
MARKERS = {"openvino": "o", "onnxruntime": "s", "torch.compile": "^"}
RUNTIMES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}
GREY = "#666666"
# White behind the plot, so that black text can be read on a dark page; a fixed salt makes equal plots equal bytes.
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "samdeploy",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


def newest(benchmark: str, machine: str) -> dict[str, Any]:
    """The result of `benchmark` on `machine`, such as "epyc-2core"; there is one.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(RESULTS.glob(f"{machine}-????-??-??-{benchmark}.json"))
    if not found:
        raise FileNotFoundError(f"benchmarks/results has no {benchmark} of {machine}")
    data: dict[str, Any] = json.loads(found[-1].read_text(encoding="utf-8"))
    return data


def engines() -> Figure:
    """Latency against accuracy: engines of SAM-ResNet-50, 192 px, batch 1, on two processors."""
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.8), sharey=True)
    for axis, (machine, title) in zip(
        axes, {"epyc-2core": "AMD EPYC, 2 cores", "xeon-2core": "Intel Xeon with AMX, 2 cores"}.items(), strict=True
    ):
        [case] = [case for case in newest("cpu-engines", machine)["cases"] if (case["px"], case["batch"]) == (192, 1)]
        for row in case["rows"]:
            name = row["engine"]
            if name.startswith("no attention"):
                continue
            runtime, precision = name.removeprefix("samdeploy ").split()
            ours = name.startswith("samdeploy")
            axis.errorbar(
                row["median_ms"],
                row["max_difference_of_range"],
                xerr=[[row["median_ms"] - row["p10_ms"]], [row["p90_ms"] - row["median_ms"]]],
                marker=MARKERS[runtime],
                color=COLOURS[precision],
                markerfacecolor=COLOURS[precision] if ours else "white",
                markersize=8,
                elinewidth=1,
            )
        axis.set(title=title, xlabel="ms per image (median, 10th to 90th percentile)", yscale="log")
        axis.set_xlim(left=0)
    axes[0].set_ylabel("largest error of a logit, share of the range")
    kinds = [(name, {"marker": "o", "color": colour}) for name, colour in COLOURS.items()]
    kinds += [(name, {"marker": marker, "color": GREY}) for name, marker in MARKERS.items()]
    kinds += [("samdeploy", {"marker": "o", "color": GREY}), ("plain export", {"marker": "o", "color": GREY})]
    handles = [pyplot.Line2D([], [], linestyle="", label=name, **style) for name, style in kinds]
    handles[-1].set_markerfacecolor("white")
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    return figure


def attention() -> Figure:
    """What each kind of attention costs in three engines, over the network without any."""
    rows = [row for row in newest("attention-kinds", "epyc-2core")["rows"] if row["batch"] == 1]
    names = [row["attention"] for row in rows if row["engine"] == "onnxruntime fp32" and row["attention"] != "none"]
    names.sort(key=lambda name: -_cost(rows, name, "openvino fp32")[1])
    figure, axis = pyplot.subplots(figsize=(8, 4.4))
    for place, (engine, marker, colour) in enumerate(
        (
            ("onnxruntime fp32", "s", COLOURS["fp32"]),
            ("openvino fp32", "o", COLOURS["fp16"]),
            ("openvino bf16", "D", COLOURS["bf16"]),
        )
    ):
        for height, name in enumerate(names):
            low, middle, high = _cost(rows, name, engine)
            y = height + 0.22 * (1 - place)
            axis.plot([low, high], [y, y], color=colour, linewidth=1)
            axis.plot(middle, y, marker, color=colour, markersize=6, label=engine if height == 0 else None)
    axis.set_yticks(range(len(names)), names)
    axis.set(
        xlabel="percent more time than ResNet-50 without attention (median, 10th to 90th percentile)", xlim=(-15, 185)
    )
    axis.legend(loc="upper right")
    axis.set_title("Attention of ResNet-50, 224 px, batch 1, AMD EPYC with 2 cores")
    return figure


def _cost(rows: list[dict[str, Any]], name: str, engine: str) -> tuple[float, float, float]:
    [cost] = [row["cost_percent"] for row in rows if (row["attention"], row["engine"]) == (name, engine)]
    low, middle, high = sorted(cost)
    return low, middle, high


def throughput() -> Figure:
    """Images per second against the batch size, on a CPU and a GPU.

    On the CPU the time is that of the network without attention times the median cost of the attention, which was
    measured within rounds.
    """
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.8))
    rows = [row for row in newest("attention", "epyc-2core")["rows"] if row["px"] == 64]
    for engine in dict.fromkeys(row["engine"] for row in rows):
        runtime, precision = engine.split()
        chosen = [row for row in rows if row["engine"] == engine]
        rates = [
            row["batch"] * 1000 / row["bare_ms"] / (1 + row["cost_as_product_percent"]["median"] / 100)
            for row in chosen
        ]
        left.plot(
            [row["batch"] for row in chosen], rates, marker=MARKERS[runtime], color=COLOURS[precision], label=engine
        )
    left.set(title="SAM-ResNet-50, 64 px, AMD EPYC, 1 thread", xlabel="batch size", ylabel="images/s")
    runs = newest("gpu-check", "h100")["runs"][0]["rows"]
    chosen_runs = [row for row in runs if row.get("runtime") == "onnxruntime-nhwc" and row["px"] == 192]
    for net, label, marker in (
        ("sam", "SAM-ResNet-50 as trained", "^"),
        ("sam-folded", "SAM-ResNet-50 folded", "o"),
        ("resnet50", "ResNet-50 without attention", "s"),
    ):
        points = sorted(
            (row["batch"], row["batch"] * 1000 / row["ms"]["median"]) for row in chosen_runs if row["net"] == net
        )
        right.plot(*zip(*points, strict=True), marker=marker, label=label)
    right.set(title="192 px, FP16, ONNX Runtime, NVIDIA H100", xlabel="batch size")
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=8)
    return figure


def zoo() -> Figure:
    """Accuracy of engines of many architectures: the largest error of a logit in FP32 and INT8."""
    rows = [row for row in newest("zoo", "epyc-2core")["rows"] if row.get("ok")]
    figure, axis = pyplot.subplots(figsize=(8, 3.8))
    sizes = [row["parameters"] / 1e6 for row in rows]
    for label, values, colour, marker in (
        ("FP32, limit 1e-4", [max(row["differences"].values()) for row in rows], COLOURS["fp32"], "o"),
        ("INT8, every layer but the head", [row["int8_error"] for row in rows], COLOURS["int8"], "s"),
    ):
        axis.plot(sizes, values, marker, color=colour, label=label, markersize=5)
    axis.axhline(1e-4, color=COLOURS["fp32"], linewidth=1, linestyle="--")
    axis.set(xscale="log", yscale="log", xlabel="parameters, millions", ylabel="largest error, share of the range")
    axis.set_title(f"{len(rows)} architectures of timm and torchvision, random weights")
    axis.legend(loc="center right")
    return figure


def serving() -> Figure:
    """Serving: latency of one client and throughput of 16, with each round."""
    data = newest("serve-compare", "epyc-2core")
    names = {
        "samdeploy": "samdeploy serve",
        "Triton, Python backend": "Triton, Python",
        "FastAPI": "FastAPI",
        "LitServe": "LitServe",
    }
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3))
    for axis, key, title, line in (
        (axes[0], "p50_ms", "one client: p50, ms", "engine alone"),
        (axes[1], "rate", "16 clients: images/s", "engine's best"),
    ):
        engine = data["medians"]["engine"][key]
        axis.axvline(engine, color=GREY, linestyle="--", linewidth=1)
        axis.text(engine, len(names) - 0.4, line, ha="center", fontsize=8, color=GREY, backgroundcolor="white")
        for height, name in enumerate(reversed(names)):
            values = [entry[key] for entry in data["all"][name]]
            colour = COLOURS["fp32"] if name == "samdeploy" else GREY
            axis.barh(height, statistics.median(values), color=colour, alpha=0.6, height=0.6)
            axis.plot(values, [height] * len(values), "o", color="black", markersize=3)
        axis.set_yticks(range(len(names)), list(reversed(names.values())))
        axis.set_ylim(-0.5, len(names))
        axis.set_title(title, pad=10)
        axis.grid(axis="y", visible=False)
    return figure


# Two of the points lie closer together than their names are wide.
_GATE_LABELS: dict[str, dict[str, Any]] = {
    name: {"xytext": offset, "textcoords": "offset points", "ha": side}
    for name, offset, side in (
        ("original", (-8, -12), "right"), ("identity", (-8, -12), "right"), ("bounded", (8, 6), "left"),
        ("none", (8, -12), "left"),
    )
}  # fmt: skip


def gates() -> Figure:
    """The gate's kind: accuracy on CIFAR-10 against FP16 head-room, one seed each."""
    rows = newest("cifar10", "h200")["gates"]["rows"]
    figure, axis = pyplot.subplots(figsize=(6, 3.4))
    for name, row in rows.items():
        axis.plot(row["bits_to_fp16_end"], row["test_top1"], "o", color=COLOURS["fp32"], markersize=8)
        axis.annotate(name, (row["bits_to_fp16_end"], row["test_top1"]), **_GATE_LABELS[name])
    axis.set(xlabel="head-room in FP16, bits", ylabel="test top-1, %", xlim=(7, 13), ylim=(80, 88.5))
    axis.set_title("Gate of SAM-ResNet-18, CIFAR-10, 10 epochs, one seed each")
    return figure


def accuracy() -> Figure:
    """Latency against test accuracy: ResNet-18 with several kinds of attention, in two runtimes."""
    data = newest("accuracy-latency", "epyc-2core")
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4), sharex=True, sharey=True)
    markers = dict(zip(data["networks"], "osD^v", strict=False))
    for axis, runtime in zip(axes, ("openvino", "onnxruntime"), strict=True):
        for kind, network in data["networks"].items():
            for engine, row in network["engines"].items():
                if not engine.startswith(runtime):
                    continue
                low, high = row["top1_interval"]
                axis.errorbar(
                    row["p50_ms"],
                    row["top1"],
                    xerr=[[row["p50_ms"] - row["p10_ms"]], [row["p90_ms"] - row["p50_ms"]]],
                    yerr=[[row["top1"] - low], [high - row["top1"]]],
                    marker=markers[kind],
                    color=COLOURS[engine.split()[1]],
                    markersize=7,
                    elinewidth=0.8,
                )
        axis.set(title=RUNTIMES[runtime], xlabel="ms per image (median, 10th to 90th percentile)")
        axis.set_xlim(left=0)
    axes[0].set_ylabel("test top-1, % (95 % interval)")
    styles = [(name, {"marker": "o", "color": COLOURS[name]}) for name in ("fp32", "bf16", "int8")]
    styles += [(kind, {"marker": marker, "color": GREY}) for kind, marker in markers.items()]
    handles = [pyplot.Line2D([], [], linestyle="", label=name, **style) for name, style in styles]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    figure.suptitle("ResNet-18 without and with attention, CIFAR-10, batch 1, AMD EPYC with 2 cores", fontsize=10)
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "engines": engines,
    "attention": attention,
    "throughput": throughput,
    "zoo": zoo,
    "serving": serving,
    "gates": gates,
    "accuracy": accuracy,
}


def write(folder: Path) -> list[Path]:
    """Draw every figure into `folder` as SVG; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context(STYLE):
        for name, make in FIGURES.items():
            figure = make()
            figure.set_layout_engine("constrained")
            written.append(folder / f"{name}.svg")
            figure.savefig(written[-1], metadata={"Date": None})
            pyplot.close(figure)
    return written


if __name__ == "__main__":
    for path in write(IMAGES):
        print(path.relative_to(ROOT), f"{path.stat().st_size / 1000:.0f} kB")
