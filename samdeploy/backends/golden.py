"""The golden images of a bundle: what an engine answers to them proves that it is the model of the bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends.channels import channel_twins, order_read
from samdeploy.backends.difference import difference_shares, image_ranges
from samdeploy.errors import BundleError

if TYPE_CHECKING:
    from samdeploy.backends.session import CheckedSession, Session

# Largest allowed difference from the golden logits, as a share of their range (`image_ranges`).
# fp32: another order of summation over a hundred layers moves logits by about 1e-6 of their range (up to 5e-6 over
#   10,000 images of a network without squashing), a wrong weight, layout or normalisation by far more than 1e-2;
#   1e-4 keeps both apart.
# fp16: 11 significant bits; trained networks showed 4e-4 to 2e-3 of the range, an untrained SAM-ResNet-50, whose
#   activations nearly cancel, 2.5e-2.
# bf16: 8 significant bits, eight times coarser than fp16; about 1 % is usual.
# int8: 256 levels per tensor; a few per cent are usual, and what it costs in accuracy is for `eval` to say.
GOLDEN_TOLERANCE = {"fp32": 1e-4, "fp16": 5e-2, "bf16": 1e-1, "int8": 2e-1}


def check_golden(session: Session, images: UInt8Array, logits: Float32Array) -> float:
    """Run the bundle's golden images and compare with the logits of the trained model.

    Args:
        images: uint8 [n, H, W, 3].
        logits: float32 [n, K], of the model as trained, in float32.

    Returns:
        The largest difference, as a share of its image's `image_ranges`.

    Raises:
        BundleError: an answer is not finite or too far off, or channels are exchanged: not the model of this bundle.
    """
    return _check_logits(session, images, session.run(images), logits)


def check_golden_maps(session: CheckedSession, images: UInt8Array, logits: Float32Array) -> None:
    """`check_golden` of a session with class activation maps, which must also add up to the logits.

    Raises:
        BundleError: as `check_golden` does, or the maps do not add up.
    """
    found, maps = session.run_with_maps(images)
    _check_logits(session, images, found, logits)
    error, allowed = sum_error(maps, logits), sum_tolerance(session.precision)
    if not error <= allowed:
        raise BundleError(
            f"{session.backend} ({session.precision}): the class activation maps of the golden images do not add up to "
            f"the logits: off by {error:.2e} of their range, at most {allowed:.0e} is allowed; make the bundle again "
            "with `samdeploy export`"
        )


def _check_logits(session: Session, images: UInt8Array, found: Float32Array, logits: Float32Array) -> float:
    engine = f"{session.backend} engine ({session.precision}, {session.device})"
    cure = "do not use it; make the bundle again with `samdeploy export`"
    if found.shape != logits.shape:
        raise BundleError(f"{engine}: golden logits {list(logits.shape)} expected, {list(found.shape)} found; {cure}")
    if not np.isfinite(found).all():
        bad = int((~np.isfinite(found)).sum())
        raise BundleError(f"{engine}: {bad} of {found.size} golden logits are not finite numbers; {cure}")
    order = order_read(found, logits, image_ranges(logits), channel_twins(images))
    if order:
        raise BundleError(f"{engine}: the golden images show that it reads channels as {order}, not RGB; {cure}")
    error = golden_error(found, logits, session.precision)
    allowed = GOLDEN_TOLERANCE[session.precision]
    if error > allowed:
        raise BundleError(
            f"{engine}: the golden images give logits that differ by {error:.2e} of their range, at most {allowed:.0e} "
            f"is allowed: this is not the model of this bundle; {cure}"
        )
    return error


def golden_error(found: Float32Array, logits: Float32Array, precision: str) -> float:
    """The largest difference that counts, as a share of its image's range; infinite where an answer is missing.

    Args:
        found: what an engine of `precision` answers to the golden images.
        logits: float32 [n, K], the golden answers.
    """
    if found.shape != logits.shape:
        return float("inf")
    worst = np.sort(difference_shares(found, logits, image_ranges(logits)))
    return float(worst[-1 - golden_outliers(precision, len(worst))])


def golden_outliers(precision: str, n_images: int) -> int:
    """How many golden images may be answered otherwise.

    Without squashing, single images explode (logits of 1e9 were seen); int8 ranges leave them out on purpose.
    """
    return n_images // 4 if precision == "int8" else 0


def sum_error(maps: Float32Array, golden: Float32Array) -> float:
    """How far the maps are from adding up to the logits, as a share of the logits' range.

    Logit minus mean of the map is one number per class: the bias of the head.  A runtime does not know it; but it is
    the same for every image.

    Args:
        maps: float32 [n, K, h, w], of the golden images.
        golden: float32 [n, K], their logits.
    """
    rest = golden - maps.mean(axis=(2, 3), dtype=np.float64)
    bias = np.broadcast_to(np.median(rest, axis=0), rest.shape)
    return float(difference_shares(rest, bias, image_ranges(golden)).max())


def sum_tolerance(precision: str) -> float:
    """The largest `sum_error` of a sound engine: a difference of two that may each be off by the tolerance."""
    return 2 * GOLDEN_TOLERANCE[precision]
