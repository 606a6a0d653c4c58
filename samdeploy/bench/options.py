"""What `samdeploy bench` is asked to measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from samdeploy.backends.names import check_names
from samdeploy.bench.engines import ALL
from samdeploy.errors import InputError

# Alternatives that take turns with ours, and tools that only run in a process of their own.
IN_TURNS = (
    "pytorch eager",
    "torch.compile",
    "onnxruntime plain export",
    "onnxruntime plain without TF32",
    "openvino plain export",
)
# Says nothing new on the CPU, and is left out there.
CUDA_ONLY = ("onnxruntime plain without TF32",)
TOOLS = ("trtexec", "polygraphy")
ALTERNATIVES = (*IN_TURNS, *TOOLS)
_LONGEST = 1e6  # what timers take


def check_seconds(seconds: float) -> None:
    """
    Raises:
        InputError: `--seconds` is too short to say anything, or longer than anybody waits.
    """
    if not seconds >= 0.05:
        raise InputError(f"--seconds: {seconds} found, at least 0.05 expected")
    if seconds > _LONGEST:
        raise InputError(f"--seconds: {seconds} found, at most {_LONGEST:.0f} expected")


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to measure.

    Attributes:
        backend: a key of `BACKENDS`, or "all".
        precision: None: each backend's own, and INT8 where the bundle holds it.
        device: "cpu", "cuda" or "auto".
        batches: sizes; None: 1, 2, 4 and so on up to the profile's largest or 64, and 1 against the alternatives.
        images: a folder of the user's images; None: test images of the bundle's data set.
        data_root: where the data set lies; None: where training found it.
        seconds: of measuring for each point, about.
        rounds: against the alternatives.
        alternatives: some of `ALTERNATIVES`.

    Raises:
        InputError: unknown names of backend, device or precision.
    """

    backend: str = ALL
    precision: str | None = None
    device: str = "auto"
    batches: tuple[int, ...] | None = None
    images: Path | None = None
    data_root: Path | None = None
    seconds: float = 1.0
    rounds: int = 21
    alternatives: tuple[str, ...] = ALTERNATIVES

    def __post_init__(self) -> None:
        check_names(self.backend, self.device, self.precision, also=ALL)
