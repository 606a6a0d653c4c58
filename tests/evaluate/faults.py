"""Engines that are wrong on purpose: sessions around an honest one, and graphs that were changed.

Each is as small as a fault of its kind can be, so that a test which finds it does so for the right reason.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnxruntime as ort

from samdeploy.backends.session import Session
from samdeploy.bundle.names import MANIFEST

# Of the logits' range: ten times what FP32 is allowed, and far too little to change a class.
SLIGHT = 1e-3


class Faulty:
    """An honest session, but for what a subclass does to it."""

    def __init__(self, honest: Session) -> None:
        self.honest = honest
        self.backend, self.device, self.precision = honest.backend, honest.device, honest.precision

    def run(self, batch: np.ndarray) -> np.ndarray:
        return self.honest.run(batch)

    def close(self) -> None:
        """Leave the honest session open: it is the test's."""


class Remembered(Faulty):
    """An honest engine's answer to each image, computed once: quick, and the same in all circumstances."""

    def __init__(self, honest: Session) -> None:
        super().__init__(honest)
        self._answers: dict[bytes, np.ndarray] = {}

    def run(self, batch: np.ndarray) -> np.ndarray:
        for image in batch:
            if image.tobytes() not in self._answers:
                self._answers[image.tobytes()] = self.honest.run(image[None])[0]
        return np.stack([self._answers[image.tobytes()] for image in batch])


def slightly_off(logits: np.ndarray) -> np.ndarray:
    """One logit of each row moved by `SLIGHT` of the row's range."""
    moved = logits.copy()
    moved[:, -1] += SLIGHT * np.ptp(logits, axis=1)
    return moved


class WrongAtOneSize(Faulty):
    """As a kernel for one shape can be: at batch size 7 all rows are slightly off."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        logits = super().run(batch)
        return slightly_off(logits) if len(batch) == 7 else logits


class WrongAtTheEndOfTheLargest(Faulty):
    """As a kernel that does not finish its last tile: at batch size 16 the last row is slightly off."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        logits = super().run(batch)
        if len(batch) == 16:
            logits[-1:] = slightly_off(logits[-1:])
        return logits


class WrongAtOnePosition(Faulty):
    """Position 3 is slightly off, whatever the batch size."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        logits = super().run(batch)
        logits[3:4] = slightly_off(logits[3:4])
        return logits


class LooksAtItsNeighbour(Faulty):
    """Each row takes up a thousandth of the row before it, as with a buffer that is one row too short."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        logits = super().run(batch)
        return logits + np.float32(SLIGHT) * np.roll(logits, 1, axis=0)


class GivesItsOwnMemory(Faulty):
    """The answer is a view of memory that the next run writes again."""

    memory: np.ndarray | None = None

    def run(self, batch: np.ndarray) -> np.ndarray:
        logits = super().run(batch)
        if self.memory is None:
            self.memory = np.empty((64, logits.shape[1]), np.float32)
        self.memory[: len(logits)] = logits
        return self.memory[: len(logits)]


class OneRunBehind(Faulty):
    """Does not wait for the device: where the size is the same, the answer is that of the run before."""

    before: np.ndarray | None = None

    def run(self, batch: np.ndarray) -> np.ndarray:
        now, before = super().run(batch), self.before
        self.before = now
        return now if before is None or before.shape != now.shape else before


class WritesIntoTheImages(Faulty):
    """Takes the caller's memory for its own and leaves one pixel changed."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        logits = super().run(batch)
        batch[0, 0, 0, 0] ^= 1
        return logits


class SharesItsBuffers(Faulty):
    """One input and one output buffer without a lock; as on a device, others may run while it copies."""

    def __init__(self, honest: Session) -> None:
        super().__init__(honest)
        self._pixels = np.empty((64, 32, 32, 3), np.uint8)

    def run(self, batch: np.ndarray) -> np.ndarray:
        self._pixels[: len(batch)] = batch
        time.sleep(0)
        return super().run(self._pixels[: len(batch)])


class ComesToAHalt(Faulty):
    """Two threads at once wait for each other for ever."""

    def __init__(self, honest: Session) -> None:
        super().__init__(honest)
        self._inside = threading.Semaphore(1)
        self._stuck = threading.Event()

    def run(self, batch: np.ndarray) -> np.ndarray:
        if not self._inside.acquire(blocking=False):
            self._stuck.set()
        if self._stuck.is_set():
            threading.Event().wait()
        logits = super().run(batch)
        time.sleep(0.002)  # a small network is so quick that the other thread might never meet this one
        self._inside.release()
        return logits


class NowAndThen(Faulty):
    """The hundredth run of a single image is slightly off."""

    singles = 0

    def run(self, batch: np.ndarray) -> np.ndarray:
        self.singles += len(batch) == 1
        logits = super().run(batch)
        return slightly_off(logits) if len(batch) == 1 and self.singles == 100 else logits


class NotFiniteAtOneSize(Faulty):
    """One logit of one row is no number, at batch size 5."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        logits = super().run(batch)
        if len(batch) == 5:
            logits[4, 0] = np.nan
        return logits


class RefusesOneSize(Faulty):
    """Has no memory for batch size 13."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        if len(batch) == 13:
            raise MemoryError("no memory for 13 images")
        return super().run(batch)


class ForgetsARow(Faulty):
    """Gives one row too few at batch size 9."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        logits = super().run(batch)
        return logits[:-1] if len(batch) == 9 else logits


class SharesASwitch(Faulty):
    """Sessions of one process that share a switch, as with TF32: `is_off(self, opened)` says when it is set wrongly.

    `opened` holds the open sessions, the oldest first, and after them the string "closed" for each that was closed.
    """

    def __init__(self, honest: Session, opened: list[object], is_off: Callable[[object, list[object]], bool]) -> None:
        super().__init__(honest)
        self._opened, self._is_off = opened, is_off
        opened.append(self)

    def run(self, batch: np.ndarray) -> np.ndarray:
        logits = super().run(batch)
        return slightly_off(logits) if self._is_off(self, self._opened) else logits

    def close(self) -> None:
        self._opened.remove(self)
        self._opened.append("closed")


class AlwaysTheSame(Faulty):
    """Answers every image as it answered the first."""

    first: np.ndarray | None = None

    def run(self, batch: np.ndarray) -> np.ndarray:
        if self.first is None:
            self.first = super().run(batch)[:1].copy()
        return np.repeat(self.first, len(batch), axis=0)


# --- graphs -----------------------------------------------------------------------------------------------------------

Edit = Callable[[onnx.ModelProto], None]


def edit_graph(root: Path, edit: Edit, path: str = "model.fp32.onnx") -> None:
    """Change a graph of a bundle in place; the manifest does not know yet."""
    model = onnx.load(str(root / path))
    edit(model)
    onnx.checker.check_model(model)
    (root / path).write_bytes(model.SerializeToString())


def exchanges_two_rows_at(size: int) -> Edit:
    """An `If` on the batch size exchanges the first two rows of the logits at one size, and at no other."""

    def edit(model: onnx.ModelProto) -> None:
        graph, helper = model.graph, onnx.helper
        (last,) = (node for node in graph.node if "logits" in node.output)
        last.output[0] = "logits.right"
        order = np.arange(size)
        order[:2] = 1, 0
        constants = {"batch.axis": np.array(0), "batch.bad": np.array(size), "batch.order": order}
        graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())

        def branch(name: str, node: onnx.NodeProto) -> onnx.GraphProto:
            shape = ["N", graph.output[0].type.tensor_type.shape.dim[1].dim_value]
            output = helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, shape)
            return helper.make_graph([node], name, [], [output])

        wrong = helper.make_node("Gather", ["logits.right", "batch.order"], ["logits.wrong"], axis=0)
        right = helper.make_node("Identity", ["logits.right"], ["logits.same"])
        graph.node.extend(
            [
                helper.make_node("Shape", ["image"], ["batch.shape"]),
                helper.make_node("Gather", ["batch.shape", "batch.axis"], ["batch.size"], axis=0),
                helper.make_node("Equal", ["batch.size", "batch.bad"], ["batch.is_bad"]),
                helper.make_node(
                    "If", ["batch.is_bad"], ["logits"],
                    then_branch=branch("wrong", wrong), else_branch=branch("right", right),
                ),
            ]
        )  # fmt: skip

    return edit


def cut_off_at_the_largest_of(examples: np.ndarray, tensor: str) -> Edit:
    """A `Clip` of a tensor that leaves these images' values as they are."""

    def edit(model: onnx.ModelProto) -> None:
        watched = onnx.ModelProto.FromString(model.SerializeToString())
        watched.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
        session = ort.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
        (values,) = session.run([tensor], {"image": examples})
        # A millionth more, for kernels that sum in another order.
        limits = {"cut.low": values.min() * 1.000001, "cut.high": values.max() * 1.000001}
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(np.array(value, np.float32), name) for name, value in limits.items()
        )
        maker = next(index for index, node in enumerate(model.graph.node) if tensor in node.output)
        for node in model.graph.node:
            node.input[:] = ["cut" if name == tensor else name for name in node.input]
        model.graph.node.insert(maker + 1, onnx.helper.make_node("Clip", [tensor, *limits], ["cut"], name="cut"))

    return edit


def _weights(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {weight.name: weight for weight in model.graph.initializer}


def _rewrite(weight: onnx.TensorProto, array: np.ndarray) -> None:
    weight.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), weight.name))


def swapped_classes(model: onnx.ModelProto) -> None:
    """The last two columns of the logits, as where two lists of classes are sorted differently."""
    for name in ("head.weight", "head.bias"):
        weight = _weights(model)[name]
        array = onnx.numpy_helper.to_array(weight).copy()
        array[[-2, -1]] = array[[-1, -2]]
        _rewrite(weight, array)


def no_normalisation(model: onnx.ModelProto) -> None:
    """Pixels in 0..1 and nothing else."""
    _rewrite(_weights(model)["pixels.scale"], np.full((1, 3, 1, 1), 1 / 255, np.float32))
    _rewrite(_weights(model)["pixels.shift"], np.zeros((1, 3, 1, 1), np.float32))


def wrong_mean(model: onnx.ModelProto) -> None:
    """Green's mean for all three channels: 0.456 where 0.485 and 0.406 are right."""
    shift = _weights(model)["pixels.shift"]
    std = np.array([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    _rewrite(shift, (-0.456 / std).astype(np.float32))


def blue_first(model: onnx.ModelProto) -> None:
    """The network for images whose channels come as blue, green, red."""
    weights = _weights(model)
    for name in ("pixels.scale", "pixels.shift", "stem.weight"):
        _rewrite(weights[name], onnx.numpy_helper.to_array(weights[name])[:, ::-1])


def set_preprocessing(root: Path, **values: object) -> None:
    """Change the preprocessing that a bundle's manifest states, and nothing else."""
    manifest = json.loads((root / MANIFEST).read_text())
    manifest["preprocessing"] |= values
    (root / MANIFEST).write_text(json.dumps(manifest))
