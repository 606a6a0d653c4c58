"""The runtimes' own command-line tools, where they are installed: trtexec and Polygraphy, each in its own process."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from samdeploy.backends.device import cuda
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable

_LIMIT_S = 900
_ITERATIONS = 200


@dataclass(frozen=True, slots=True)
class ToolTime:
    """What a tool reports for one batch.

    Attributes:
        ms: milliseconds.
        what: which figure of the tool's it is.
    """

    ms: float
    what: str


def trtexec(bundle: Bundle, batch: int) -> ToolTime:
    """Build and time the bundle's FP16 graph, else its FP32 graph, with TensorRT's own tool.

    Raises:
        BackendUnavailable: not installed, no GPU, or it fails; with its words.
    """
    program = shutil.which("trtexec") or shutil.which("tensorrt_rtx")
    if program is None:
        raise BackendUnavailable("trtexec is not installed (it comes with TensorRT's archive, not with its wheel)")
    _need_gpu()
    with tempfile.TemporaryDirectory() as folder:
        graph = _graph(bundle, Path(folder), ("fp16", "fp32"))
        shape = _shape(bundle, batch)
        line = [program, f"--onnx={graph}", f"--shapes={shape}", f"--iterations={_ITERATIONS}", "--warmUp=500"]
        # The precision lies in the graph; TensorRT 11 knows no other way and has no such flag.
        strongly = ["--stronglyTyped"] if "--stronglyTyped" in _output([program, "--help"], check=False) else []
        return trtexec_time(_output([*line, *strongly]))


def trtexec_time(text: str) -> ToolTime:
    """The median of "Latency" (copies in and out included) in trtexec's summary.

    Raises:
        BackendUnavailable: there is none.
    """
    found = re.search(r"(?m)(?:^|\] )Latency: .*?median = ([0-9.]+) ms", text)  # not "H2D Latency"
    if found is None:
        raise BackendUnavailable(f"trtexec ended without a summary: {_last(text)}")
    return ToolTime(float(found.group(1)), "trtexec: median latency, copies included")


def polygraphy(bundle: Bundle, batch: int) -> ToolTime:
    """Time the bundle's graph with Polygraphy: TensorRT where there is a GPU and the package, else ONNX Runtime.

    Raises:
        BackendUnavailable: not installed, or it fails; with its words.
    """
    if importlib.util.find_spec("polygraphy") is None:
        raise BackendUnavailable("Polygraphy is not installed; pip install polygraphy")
    has_tensorrt = importlib.util.find_spec("tensorrt") is not None and cuda.cuda_devices()[0] > 0
    with tempfile.TemporaryDirectory() as folder:
        graph = _graph(bundle, Path(folder), ("fp16", "fp32") if has_tensorrt else ("fp32",))
        runner = "--trt" if has_tensorrt else "--onnxrt"
        shape = _shape(bundle, batch).replace(":", ":[").replace("x", ",") + "]"
        # As a module call: the program of that name may belong to another environment.
        program = [sys.executable, "-c", "from polygraphy.tools import main; main()", "run"]
        options = ["--iterations", str(_ITERATIONS), "--warm-up", "20", "--input-shapes", shape]
        if "--sequential-runners" in _output([*program, "--help"], check=False):  # newer ones print no time without
            options.append("--sequential-runners")
        if has_tensorrt:
            options += ["--strongly-typed", "--trt-min-shapes", shape, "--trt-opt-shapes", shape,
                        "--trt-max-shapes", shape]  # fmt: skip
        return polygraphy_time(_output([*program, str(graph), runner, *options]), runner.removeprefix("--"))


def polygraphy_time(text: str, runner: str) -> ToolTime:
    """The "Average inference time" in Polygraphy's log.

    Raises:
        BackendUnavailable: there is none.
    """
    found = re.search(r"Average inference time: ([0-9.]+) ms", text)
    if found is None:
        raise BackendUnavailable(f"Polygraphy ended without a time: {_last(text)}")
    return ToolTime(float(found.group(1)), f"Polygraphy {runner}: mean")


def _need_gpu() -> None:
    count, why = cuda.cuda_devices()
    if not count:
        raise BackendUnavailable(f"no CUDA device: {why}")


def _graph(bundle: Bundle, folder: Path, precisions: tuple[str, ...]) -> Path:
    """A verified copy of the bundle's graph, of the first precision that it holds."""
    for precision in precisions:
        file = bundle.find("graph", precision=precision)
        if file is not None:
            path = folder / "model.onnx"
            path.write_bytes(bundle.read(file))
            return path
    raise BackendUnavailable(f"the bundle holds no graph in {' or '.join(precisions)}")


def _shape(bundle: Bundle, batch: int) -> str:
    return f"{bundle.spec.input.name}:{'x'.join(map(str, (batch, *bundle.spec.input.shape[1:])))}"


def _output(line: list[str], *, check: bool = True) -> str:
    try:
        done = subprocess.run(
            line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=_LIMIT_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BackendUnavailable(f"{Path(line[0]).name} gave no answer within {_LIMIT_S} s") from None
    if check and done.returncode:
        raise BackendUnavailable(f"{Path(line[0]).name} ended with exit code {done.returncode}: {_last(done.stdout)}")
    return done.stdout


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "no output"
