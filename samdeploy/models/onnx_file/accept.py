"""Whether an ONNX file is a classifier that can become a bundle, tried before anything is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from samdeploy.arrays import Float32Array
from samdeploy.errors import BackendUnavailable, InputError, first_line
from samdeploy.graphs.edit import serialize
from samdeploy.graphs.inference import Options, open_inference, run_inference
from samdeploy.models.onnx_file.convert import float_graph
from samdeploy.models.onnx_file.given import GivenFile
from samdeploy.models.onnx_file.interface import Interface, opset_of, own_normalisation
from samdeploy.models.onnx_file.read import given_model, read_onnx

# Batches that the graph is tried with, of random images.
_BATCHES = (1, 2, 7)
# Of the spread of a class's logits, and of each logit itself: float32, summed in another order.
_SAME, _ROUNDED = 1e-4, 2e-6
_DYNAMIC = (
    "Export it again, from an example of two images and with a dynamic batch: torch.onnx.export(..., "
    "dynamic_shapes=({0: torch.export.Dim('N')},))"
)
_SUM_OF_PROBABILITIES = 1e-4


def accept(path: Path) -> tuple[bytes, Interface, int, tuple[str, ...]]:
    """Read a file and try its graph.

    Returns:
        The network as one ONNX file, what it takes, its classes, and what the user ought to know.

    Raises:
        InputError: it cannot be imported, with the reason.
    """
    content = read_onnx(path)
    try:
        given = GivenFile(content)
        own = given.interface
        images = np.random.default_rng(0).standard_normal((max(_BATCHES), 3, own.height, own.width), np.float32)
        parts = [given.run(images[index : index + 1])[0] for index in range(len(images))]
        again = given.run(images[:1])[0]
    except BackendUnavailable as error:
        raise InputError(first_line(error)) from None
    if parts[0].ndim != 2 or parts[0].shape[0] != 1 or parts[0].shape[1] < 2:
        shape = ", ".join(["N", *map(str, parts[0].shape[1:])])
        raise InputError(f"answers images with [{shape}]; logits [N, K] of a classifier expected")
    logits = np.concatenate(parts)
    _check_logits(logits)
    if not _is_same(again, parts[0], logits):
        raise InputError("answers the same image differently each time; export the network in eval mode: model.eval()")
    _check_any_batch(float_graph(content), images, logits)
    return content, own, logits.shape[1], _notes(content, given, logits.shape[1])


def _check_logits(logits: Float32Array) -> None:
    if not np.isfinite(logits).all():
        raise InputError("answers random images with numbers that are not finite; repair the network first")
    sums = logits.sum(axis=1)
    if (logits >= 0).all() and (np.abs(sums - 1) < _SUM_OF_PROBABILITIES).all():
        raise InputError(
            "answers with probabilities, and not by a Softmax that can be left out; export the network without it"
        )


def _check_any_batch(graph: onnx.ModelProto, images: Float32Array, logits: Float32Array) -> None:
    """Batches give the answers that the file gives to images one by one.

    Raises:
        InputError: they do not.
    """
    (source,) = graph.graph.input
    for batch in _BATCHES:
        try:
            inference = open_inference(serialize(graph), Options(quiet=True))
            (found,) = run_inference(inference, {source.name: images[:batch]})
        except BackendUnavailable as error:
            raise InputError(f"works only for a fixed number of images ({first_line(error)}). {_DYNAMIC}") from None
        if not _is_same(found, logits[:batch], logits):
            raise InputError(f"answers a batch of {batch} images otherwise than the same images one by one. {_DYNAMIC}")


def _is_same(found: Float32Array, expected: Float32Array, logits: Float32Array) -> bool:
    """Whether two answers [N, K] to the same images are one.

    One class that is far from all others, such as a masked one, allows no other class more.

    Args:
        logits: of all images, which the allowed error is a share of.
    """
    if found.shape != expected.shape:
        return False
    middle = 2 * np.median(np.abs(logits - np.median(logits)))
    allowed = _SAME * np.maximum(np.ptp(logits, axis=0), middle) + _ROUNDED * np.abs(expected)
    return bool((np.abs(found - expected) <= allowed).all())


def _notes(content: bytes, given: GivenFile, classes: int) -> tuple[str, ...]:
    own, model = given.interface, given_model(content)
    notes = [f"opset {opset_of(model)}, {own} -> {classes} classes"]
    if own.squashed_by:
        notes.append(f"the {own.squashed_by} at its end is left out: a bundle gives logits")
    if found := own_normalisation(model):
        notes.append(
            f"it begins with {', '.join(found)} by constants: if it normalises images itself, give --mean 0,0,0 --std "
            "1,1,1"
        )
    return tuple(notes)
