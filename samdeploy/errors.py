"""The exceptions of samdeploy.

::

    SamdeployError                the root; catch this one to catch them all
     ├── InputError               an argument is wrong: unknown name, shape, dtype, path
     │    └── PackageMissing      it needs a package that is not installed
     ├── ImageError               an image is missing, damaged or of an unusable kind
     │    └── AnswerError         an image to which the engine has no finite answer
     ├── DatasetError             a data set is empty or contradicts itself
     │    └── DatasetMissing      its files are not where they were looked for
     ├── RecipeError              a recipe has unknown keys or impossible values
     ├── TrainingError            training cannot go on
     │    └── Diverged            the loss is not finite
     ├── WeightsError             a weight file does not fit the architecture
     ├── ExportError              no correct graph or engine can be made
     ├── BundleError              a bundle or run is damaged, foreign or unsafe
     │    └── Contradiction       the files of a bundle come from several networks
     └── BackendUnavailable       this runtime cannot run this engine on this machine
          └── FileSizeLimit        a graph is longer than the process's limit on file sizes

Every text says what happened, what was found, what was expected, and the cure.  The command line
prints it as one line and exits with `exit_code`: 2 where the user can mend the input, 1 where a
promise was not kept.
"""

from __future__ import annotations

from collections.abc import Iterable


class SamdeployError(Exception):
    """Root of all errors that samdeploy raises on purpose.

    Cure: the text of the error names it; what is raised is always one of the classes below.
    """

    exit_code = 2


class InputError(SamdeployError):
    """An argument is unknown, of the wrong type, or a path where nothing is.

    Cure: correct the argument that the text names; it lists the valid values or the nearest ones.
    """


class PackageMissing(InputError):
    """What was asked for needs a package that is not installed.

    Cure: run the `pip install` line of the text, in the environment that runs samdeploy.
    """

    exit_code = 1


class ImageError(SamdeployError):
    """An image is missing, truncated, not an image, or of a kind that is not read.

    Cure: replace the image, or convert it to JPEG or PNG. If it is too large, scale it down, or raise
    `max_pixels` or `max_bytes` (`Classifier.open`, `samdeploy serve`).
    """


class AnswerError(ImageError):
    """An engine's logits for an image are not finite: the image exceeds the range of the precision.

    Cure: use `--precision fp32`; or add such images to the training split, on which `export` measures the range that
    FP16 needs, and export again.
    """

    exit_code = 1


class DatasetError(SamdeployError):
    """A data set is empty, or its parts contradict one another.

    Cure: correct the files, labels or splits that the text names; `samdeploy data` checks a data set before a
    training.
    """


class DatasetMissing(DatasetError):
    """Files of a data set are missing in its folder.

    Cure: name their folder with `--data DIR`, or fetch the data set with `--download`.
    """


class RecipeError(SamdeployError):
    """A recipe has unknown keys, wrong types or impossible values.

    Cure: correct the key that the text names; `samdeploy/recipes` has a commented recipe for each data set.
    """


class TrainingError(SamdeployError):
    """Training cannot continue, for example because the disk is full.

    Cure: remove the cause, then continue at the same step with `samdeploy train --resume`.
    """

    exit_code = 1


class Diverged(TrainingError):
    """The loss is no longer finite.

    Cure: start again with a lower learning rate (`--lr`) or with `--set training.precision=fp32`.
    """


class WeightsError(SamdeployError):
    """A weight file cannot be found or downloaded, or does not fit the architecture.

    Cure: name the architecture that the file belongs to, save the plain state dict, or train from scratch: `--set
    model.pretrained=false`.
    """


class ExportError(SamdeployError):
    """The graph or engine that was asked for cannot be made; nothing was written.

    Cure: follow the text: allow a larger drop of accuracy (`--max-drop`), choose another precision or engine, or
    upgrade the runtime that it names.
    """

    exit_code = 1


class BundleError(SamdeployError):
    """A bundle or run directory is damaged, of another format, or unsafe to open.

    Cure: copy the bundle again from an undamaged copy, or export it again; `samdeploy doctor BUNDLE` checks every
    file.
    """


class Contradiction(BundleError):
    """The files of a bundle have the right hashes, but come from several networks.

    Cure: export again, into a new bundle; do not mix files of two bundles.
    """

    exit_code = 1


class BackendUnavailable(SamdeployError):
    """A runtime cannot run this engine here: a package, driver, device or file is missing.

    Cure: install what the text names, choose another `--backend`, `--device` or `--precision`, or build the engine
    on this machine; `samdeploy doctor` lists what can run here.
    """

    exit_code = 1


class FileSizeLimit(BackendUnavailable):
    """A graph is longer than this process's limit on file sizes.

    Cure: raise the limit (`ulimit -f unlimited`) in the shell or service that starts the process.
    """


# Between the faults in the text of an error that reports several; the command line prints each in a line of its own.
NEXT_FAULT = "\n  - "
# Before each image that such a fault names: a line of its own, too.
NEXT_IMAGE = "\n    "

# What helps where device memory is short.
SMALLER_BATCH = "the GPU's memory is full: use a smaller batch, or end other programs on this GPU"

# What helps where the trained network itself answers with NaN or infinity.
OTHER_WEIGHTS = "train again, or import with other --size, --mean and --std"

# Argument of a KeyboardInterrupt whose last words have been said.
SAID = "said"

# So many names are listed beside those that were likely meant.
_FEW = 5
_MOST_LISTED = 5
# What people call things that have another name here.
_ALSO_CALLED = {
    "gpu": "cuda", "ort": "onnxruntime", "ov": "openvino", "trt": "tensorrt", "tensorrt": "trt", "torch": "pytorch",
    "half": "fp16", "float16": "fp16", "float32": "fp32", "bfloat16": "bf16",
}  # fmt: skip


def unknown(kind: str, found: object, valid: Iterable[str], few: int = _FEW) -> str:
    """One line for an unknown name: what was found, the nearest valid names, and all if none is near or at most `few`.

    >>> unknown("backend", "onnx", ["onnxruntime", "openvino"])
    "unknown backend 'onnx'; did you mean 'onnxruntime'? Valid: onnxruntime, openvino"
    """
    if not isinstance(found, str):
        return f"{kind}: {type(found).__name__} found, a name expected. Valid: {_listed(valid)}"
    import difflib  # its module takes longer to load than all of this package's start, and is seldom needed

    names = list(valid)
    meant = _ALSO_CALLED.get(found.lower(), found)
    # A name that was cut short is clear; difflib would offer others beside it.
    near = [meant] if meant in names else [name for name in names if found and name.startswith(found)][:3]
    near = near or difflib.get_close_matches(found, names, n=3, cutoff=0.6)
    near = near or [name for name in names if name and found.startswith(name)][:3]
    if near:
        hint = f"; did you mean {' or '.join(repr(name) for name in near)}?"
        listed = f" Valid: {', '.join(filter(None, names))}" if len(names) <= few else ""
        return f"unknown {kind} {found!r}{hint}{listed}"
    return f"unknown {kind} {found!r}. Valid: {_listed(names)}"


def _listed(valid: Iterable[str]) -> str:
    names = list(valid)
    more = f", and {len(names) - _MOST_LISTED:,} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more or "none"


def check_name(kind: str, found: object, valid: Iterable[str]) -> None:
    """Refuse a name that is none of `valid`, with the nearest ones.

    Raises:
        InputError: see `unknown`.
    """
    names = tuple(valid)
    if found not in names:
        raise InputError(unknown(kind, found, names))


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
