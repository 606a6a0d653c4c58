"""What applications may make of a network's probabilities, from its answers to validation images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from samdeploy.arrays import Float32Array, Int64Array, UInt8Array
from samdeploy.bundle.answers import CONFIDENCE_BINS, Answered, Calibration, Rejection
from samdeploy.certainty.calibration import confidence, confidence_bins
from samdeploy.errors import InputError
from samdeploy.export.network import Network
from samdeploy.export.rejection import MORE_IMAGES, choose_rejection, choosing, images_needed
from samdeploy.export.run_images import count_validation, new_images
from samdeploy.export.temperature import fit_temperature, too_few
from samdeploy.graphs.cost import multiply_adds
from samdeploy.progress import progress_bar
from samdeploy.runs.record import RunRecord

# For the one number of a temperature; a threshold is proven with all of them, as far as they fit into memory.
_FEWEST, _MOST, _MOST_TO_PROVE = 128, 2048, 10_000
# Multiply-adds for a temperature: ten seconds of a desktop's processor.
_WORK = 1e12
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Probabilities:
    """What was found.

    Attributes:
        calibration: None where `why_not` says why.
        rejection: None where none was asked for.
        answered: what the images were answered with; None where none was looked at.
        why_not: in words.
        images: uint8 [n, H, W, 3], those of validation that were looked at.
        trained_elsewhere: whether the network was imported, so that it may have been trained on them.
    """

    calibration: Calibration | None
    rejection: Rejection | None
    answered: Answered | None
    why_not: str
    images: UInt8Array
    trained_elsewhere: bool


def check_rejection(record: RunRecord, data_root: Path | None, wanted_error: float) -> None:
    """Refuse a threshold that the run's validation images cannot prove; looks at none of them.

    Raises:
        InputError: there are none, or too few.
    """
    if not 0 < wanted_error < 100:
        raise InputError(f"--reject-error: {wanted_error:g} found, a percentage above 0 and below 100 expected")
    count = count_validation(record, data_root)
    if not count:
        raise InputError(
            "--reject-error: the run has no validation images that could prove it; train with data.val_fraction above "
            "0, or import with --data FOLDER"
        )
    _check_enough(count, wanted_error)


def probabilities(
    run_dir: Path, record: RunRecord, network: Network, data_root: Path | None, wanted_error: float | None
) -> Probabilities:
    """Fit the temperature and, where it is asked for, choose the threshold.

    With a threshold the temperature is fitted on a quarter of the images, so that the others can prove the threshold.

    Args:
        wanted_error: see `ExportOptions.reject_error`.

    Raises:
        InputError: too few validation images are left without copies.
        ExportError: no threshold can be shown to keep the wanted error.
    """
    count, elsewhere = count_validation(record, data_root), record.status == "imported"
    if wanted_error is None and (few := too_few(count)):  # then none is looked at
        size = network.spec.preprocessing
        return Probabilities(None, None, None, few, np.empty((0, size.height, size.width, 3), np.uint8), elsewhere)
    most = min(_MOST, max(_FEWEST, int(_WORK // sum(multiply_adds(network.graph).values()))))
    if wanted_error is not None:
        most = max(_MOST_TO_PROVE, 4 * images_needed(wanted_error))
    images, labels = new_images(run_dir, record, data_root, most)
    logits, labels = _answers(network, images, labels)
    if wanted_error is None:
        found = fit_temperature(logits, labels)
        rejection = None
    else:
        _check_enough(len(labels), wanted_error)
        chooses = choosing(len(labels))
        found = fit_temperature(logits[chooses], labels[chooses])
        temperature = found.temperature if isinstance(found, Calibration) else 1.0
        is_wrong = logits.argmax(axis=1) != labels
        rejection = choose_rejection(confidence(logits, temperature), is_wrong, wanted_error)
    calibration, why_not = (found, "") if isinstance(found, Calibration) else (None, found)
    answered = _answered(logits, calibration) if len(logits) else None
    return Probabilities(calibration, rejection, answered, why_not, images, elsewhere)


def _answered(logits: Float32Array, calibration: Calibration | None) -> Answered:
    labels = np.bincount(logits.argmax(axis=1), minlength=logits.shape[1])
    sure = confidence(logits, calibration.temperature if calibration else 1.0)
    tenths = np.bincount(confidence_bins(sure, CONFIDENCE_BINS), minlength=CONFIDENCE_BINS)
    return Answered(tuple(labels.tolist()), tuple(tenths.tolist()))


def _check_enough(count: int, wanted_error: float) -> None:
    needed = images_needed(wanted_error)
    if count < needed:
        hint = f" (for {100 * wanted_error:g} %: --reject-error {100 * wanted_error:g})" if wanted_error < 0.2 else ""
        raise InputError(
            f"--reject-error: the run has {count:,} validation images, and at least {needed:,} are needed for "
            f"{wanted_error:g} %{hint}; ask for a higher percentage, or {MORE_IMAGES}"
        )


def _answers(network: Network, images: UInt8Array, labels: Int64Array) -> tuple[Float32Array, Int64Array]:
    """The trained network's logits and the labels, of the images to which it has an answer."""
    parts = [np.empty((0, len(network.spec.classes)), np.float32)]
    with progress_bar("probabilities", len(images)) as advance:
        for start in range(0, len(images), _BATCH):
            parts.append(network.answer(images[start : start + _BATCH]))
            advance(len(parts[-1]), "")
    logits = np.concatenate(parts)
    finite = np.isfinite(logits).all(axis=1)
    return logits[finite], labels[finite]
