"""manifest.json as dataclasses.  docs/bundle.md specifies it."""

# Annotations are types and not texts here: the reader looks at them, and that is quicker.

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from samdeploy.bundle.annotations import SHA256, Rules
from samdeploy.bundle.answers import Answered, Calibration, Rejection
from samdeploy.bundle.fields import check_format, read, short, to_json
from samdeploy.bundle.measured import Measured
from samdeploy.bundle.spec import PRECISIONS, ModelSpec, OptionValue, Preprocessing, TensorSpec, model_spec
from samdeploy.errors import BundleError
from samdeploy.files import json_bytes

FORMAT = "samdeploy-bundle"
VERSION = 1
# A real one has a few kilobytes and a few dozen files; parsing takes many times a file's length in memory.
MOST_BYTES = 4 << 20
MOST_FILES = 4096

# `cam_graph` has a role of its own, so that nobody who looks for a graph to classify with finds it.
ROLES = (
    "weights", "graph", "cam_graph", "engine", "golden_images", "golden_logits", "headroom", "quantization",
    "train_hashes", "val_hashes",
)  # fmt: skip


_MAY_BE_ABSENT = Rules(optional=True, no_null=True)


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of a bundle.

    Attributes:
        role: one of `ROLES`.
        path: relative to the bundle, with forward slashes.
        sha256: of the content, in lower-case hexadecimal.
        bytes: length.
        backend: the only backend that may open it; None where any backend of that role can.
        precision: of the arithmetic, for graphs and engines.
        built_for: what an engine depends on, such as runtime, version and target; empty for other files.
    """

    role: str = field(metadata=Rules(one_of=ROLES))
    path: str
    sha256: str = field(metadata=SHA256)
    bytes: int
    backend: str | None = None
    precision: str | None = field(default=None, metadata=Rules(one_of=PRECISIONS))
    built_for: Mapping[str, str] = field(default_factory=dict)

    @property
    def batches(self) -> tuple[int, int] | None:
        """The smallest and the largest batch of an engine's profile; None where `built_for` names none."""
        bounds = self.built_for.get("batch", "").split(",")  # smallest, usual, largest
        is_sound = all(bound.isdecimal() and len(bound) < 10 for bound in bounds)
        return (int(bounds[0]), int(bounds[-1])) if is_sound else None


@dataclass(frozen=True, slots=True)
class DataRecord:
    """Which images a bundle was trained and is to be judged on.

    Attributes:
        name: data set.
        options: those it was opened with, such as {"level": "variant"}.
        val_fraction, split_seed: how val was taken out of train.
        counts: images per split.
        fingerprints: SHA-256 over prepared images and labels, per split; `eval` compares test's.
    """

    name: str
    options: Mapping[str, OptionValue]
    val_fraction: float
    split_seed: int
    counts: Mapping[str, int]
    fingerprints: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole of manifest.json.

    Attributes:
        measured: None in bundles of runs that did not record it.
        calibration: None where no temperature was fitted.
        rejection: None where no threshold was asked for.
        answered: None where validation images were not looked at.
    """

    spec: ModelSpec
    files: tuple[BundleFile, ...]
    data: DataRecord
    provenance: Mapping[str, str]
    measured: Measured | None = None
    calibration: Calibration | None = None
    rejection: Rejection | None = None
    answered: Answered | None = None


@dataclass(eq=False, repr=False)
class _Model:
    """`model` of manifest.json."""

    arch: str
    options: Mapping[str, OptionValue]
    classes: tuple[str, ...]
    license: str | None

    def __post_init__(self) -> None:
        if any("\0" in name for name in self.classes):
            raise BundleError("a class's name holds U+0000, which C cannot show")
        if not self.classes:
            raise BundleError("no classes found, at least one expected")


@dataclass(eq=False, repr=False)
class _Content:
    """manifest.json, key by key."""

    format: str
    version: int
    model: _Model
    input: TensorSpec
    output: TensorSpec
    preprocessing: Preprocessing
    files: tuple[BundleFile, ...]
    data: DataRecord
    provenance: Mapping[str, str]
    measured: Measured | None = field(default=None, metadata=_MAY_BE_ABSENT)
    calibration: Calibration | None = field(default=None, metadata=_MAY_BE_ABSENT)
    rejection: Rejection | None = field(default=None, metadata=_MAY_BE_ABSENT)
    answered: Answered | None = field(default=None, metadata=_MAY_BE_ABSENT)

    def __post_init__(self) -> None:
        twice = sorted(path for path, count in Counter(file.path for file in self.files).items() if count > 1)
        if twice:
            raise BundleError(f"'files' names {', '.join(map(short, twice[:5]))} twice")
        if self.answered is not None and len(self.answered.labels) != len(self.model.classes):
            raise BundleError(
                f"answered.labels has {len(self.answered.labels)} numbers for {len(self.model.classes)} classes; "
                "the manifest was edited: export the bundle again"
            )


def manifest_bytes(manifest: Manifest) -> bytes:
    """`manifest` as UTF-8 JSON."""
    spec = manifest.spec
    content = _Content(
        format=FORMAT,
        version=VERSION,
        model=_Model(spec.arch, spec.options, spec.classes, spec.license),
        input=spec.input,
        output=spec.output,
        preprocessing=spec.preprocessing,
        files=manifest.files,
        data=manifest.data,
        provenance=manifest.provenance,
        measured=manifest.measured,
        calibration=manifest.calibration,
        rejection=manifest.rejection,
        answered=manifest.answered,
    )
    return json_bytes(to_json(content))


def manifest_from_json(values: dict[str, Any], where: str) -> Manifest:
    """Check every field of a parsed manifest; `where` names it in messages.

    Raises:
        BundleError: another format, a newer version, unknown, missing or mistyped keys, or tensors that do not
            fit the classes and the preprocessing.
    """
    check_format(values, FORMAT, VERSION, where)
    if _is_old(values):
        raise BundleError(f"{where}: a development version wrote it; make it again from its run: samdeploy export RUN")
    entries = values.get("files")
    if isinstance(entries, list) and len(entries) > MOST_FILES:
        raise BundleError(f"{where}: 'files' has {len(entries):,} entries, at most {MOST_FILES:,} are read")
    found = read(_Content, values, where, BundleError)
    model = found.model
    spec = model_spec(model.arch, model.options, model.classes, found.preprocessing, model.license)
    for name, tensor, expected in (("input", found.input, spec.input), ("output", found.output, spec.output)):
        if tensor != expected:
            raise BundleError(
                f"{where}: {name} {short(to_json(tensor))} found, the preprocessing and the {len(spec.classes)} "
                f"classes ask for {to_json(expected)}"
            )
    return Manifest(
        spec, found.files, found.data, found.provenance, found.measured, found.calibration, found.rejection,
        found.answered,
    )  # fmt: skip


def _is_old(values: dict[str, Any]) -> bool:
    """Whether a development version wrote this: with `gate` in place of `options`, or without `crop`."""
    model, preprocessing = values.get("model"), values.get("preprocessing")
    return (isinstance(model, dict) and "gate" in model) or (
        isinstance(preprocessing, dict) and "crop" not in preprocessing
    )
