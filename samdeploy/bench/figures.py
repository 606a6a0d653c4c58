"""The three figures that "latency" may mean, each under its own name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from samdeploy.backends.session import CheckedSession
from samdeploy.bench.timed_images import TimedImages
from samdeploy.bundle import Bundle
from samdeploy.classifier import Classifier
from samdeploy.evaluate.latency.clock import host_timer
from samdeploy.evaluate.latency.measure import Latency, measure, random_batches

DEVICE_ONLY, WITH_COPIES, END_TO_END = "device only", "with copies", "end to end"
STAGES = (DEVICE_ONLY, WITH_COPIES, END_TO_END)


@dataclass(frozen=True, slots=True)
class Figure:
    """One of the three, at batch 1.

    Attributes:
        stage: "device only": from buffers on the device to buffers on the device, between two CUDA events.
            "with copies": prepared image in host memory to logits in host memory, `Session.run`.
            "end to end": encoded bytes to the name of the class, `Classifier.predict`: decode, resize, run, top-1.
        latency: None where it was not measured.
        note: why it was not; "" if it was.
    """

    stage: str
    latency: Latency | None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The stage, the note, and the latency's own fields or null."""
        return {"stage": self.stage, "note": self.note, "latency": self.latency.to_json() if self.latency else None}


def measure_figure(stage: str, bundle: Bundle, session: CheckedSession, images: TimedImages, seconds: float) -> Figure:
    """Measure one of `STAGES`.

    Args:
        session: opened from `bundle`.
        seconds: of measuring, about; fewer than 30 runs are never taken for enough.
    """
    singles = random_batches(images.prepared)
    if stage == DEVICE_ONLY:
        if session.device == "cpu":
            return Figure(stage, None, "same as with copies: a CPU computes in host memory")
        if not session.has_device_clock:
            return Figure(stage, None, f"not measured: a {session.backend} session takes host arrays only")
        return Figure(stage, measure(session.device_ms, singles, limit_s=seconds))
    if stage == WITH_COPIES:
        return Figure(stage, measure(host_timer(session.run), singles, limit_s=seconds))
    classifier = Classifier(bundle, session)
    return Figure(
        stage, measure(host_timer(lambda data: classifier.predict(data, top=1)), images.encoded, limit_s=seconds)
    )
