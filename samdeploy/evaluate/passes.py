"""One pass of all test images through one engine."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends.session import Session
from samdeploy.data.images import Fingerprint
from samdeploy.errors import SamdeployError
from samdeploy.evaluate.test_set.prepared import PreparedImages
from samdeploy.progress import progress_bar

BATCH = 64


class EngineStopped(Exception):
    """An engine gave no usable answer in the middle of the test set; the text says where and why.

    Attributes:
        n_images_done: images that it had answered.
    """

    def __init__(self, n_images_done: int, n_images: int, reason: str) -> None:
        super().__init__(f"stopped after {n_images_done:,} of {n_images:,} images: {reason}")
        self.n_images_done = n_images_done


def reference_pass(
    session: Session, blocks: Iterable[UInt8Array], prepared: PreparedImages, digest: Fingerprint, classes: int
) -> Float32Array:
    """Run images through the trained network as they are decoded, and keep them for the engines.

    Args:
        session: the trained network.
        blocks: uint8 [n, H, W, 3] each.
        images, digest: where each block goes.
        classes: K.

    Returns:
        float32 [N, K].

    Raises:
        EngineStopped: the network gave no answer.
        DatasetError: from `blocks`.
    """
    logits = np.empty((len(prepared), classes), np.float32)
    done = 0
    for images in blocks:
        prepared.append(images)
        digest.update(images)
        logits[done : done + len(images)] = _answers(session, images, classes, done, len(prepared))
        done += len(images)
    return logits


def engine_pass(session: Session, prepared: PreparedImages, classes: int, description: str) -> Float32Array:
    """Run all images through an engine, with a progress bar: float32 [N, K].

    Raises:
        EngineStopped: it raised an error, or its logits are of another shape.
    """
    logits = np.empty((len(prepared), classes), np.float32)
    done = 0
    with progress_bar(description, len(prepared)) as advance:
        for images in prepared.batches(BATCH):
            logits[done : done + len(images)] = _answers(session, images, classes, done, len(prepared))
            done += len(images)
            advance(len(images), "")
    return logits


def said(error: Exception) -> str:
    """An error in a row's words: our own texts explain themselves, others need their kind."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    return text if isinstance(error, SamdeployError) else f"{kind}: {text}" if text else kind


def _answers(session: Session, images: UInt8Array, classes: int, done: int, total: int) -> Float32Array:
    try:
        logits = session.run(images)
    except Exception as error:  # whatever a runtime raises: it costs this engine's row, not the report
        raise EngineStopped(done, total, said(error)) from error
    if logits.shape != (len(images), classes):
        raise EngineStopped(done, total, f"logits {list(logits.shape)} found, [{len(images)}, {classes}] expected")
    return logits
