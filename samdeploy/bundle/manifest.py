"""manifest.json: what stands in a bundle, as data.  docs/bundle.md specifies it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from samdeploy.bundle.fields import Fields, check_format, short
from samdeploy.bundle.measured import Measured, measured_from_fields, measured_to_json
from samdeploy.bundle.spec import PRECISIONS, ModelSpec, TensorSpec, model_spec
from samdeploy.bundle.spec_json import preprocessing_from_fields, preprocessing_to_json
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

    role: str
    path: str
    sha256: str
    bytes: int
    backend: str | None = None
    precision: str | None = None
    built_for: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DataRecord:
    """Which pictures a bundle was trained and is to be judged on.

    Attributes:
        name: data set.
        options: those it was opened with, such as {"level": "variant"}.
        val_fraction, split_seed: how val was taken out of train.
        counts: pictures per split.
        fingerprints: SHA-256 over prepared pictures and labels, per split; `eval` compares test's.
    """

    name: str
    options: Mapping[str, str | int | float | bool]
    val_fraction: float
    split_seed: int
    counts: Mapping[str, int]
    fingerprints: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole of manifest.json; `measured` is None in bundles of runs that did not record it."""

    spec: ModelSpec
    files: tuple[BundleFile, ...]
    data: DataRecord
    provenance: Mapping[str, str]
    measured: Measured | None = None


def manifest_bytes(manifest: Manifest) -> bytes:
    """`manifest` as UTF-8 JSON."""
    spec, data = manifest.spec, manifest.data
    return json_bytes(
        {
            "format": FORMAT,
            "version": VERSION,
            "model": {"arch": spec.arch, "options": dict(spec.options), "classes": list(spec.classes)},
            "input": _tensor_to_json(spec.input),
            "output": _tensor_to_json(spec.output),
            "preprocessing": preprocessing_to_json(spec.preprocessing),
            "files": [_file_to_json(file) for file in manifest.files],
            "data": {
                "name": data.name,
                "options": dict(data.options),
                "val_fraction": data.val_fraction,
                "split_seed": data.split_seed,
                "counts": dict(data.counts),
                "fingerprints": dict(data.fingerprints),
            },
            "provenance": dict(manifest.provenance),
            **({"measured": measured_to_json(manifest.measured)} if manifest.measured else {}),
        }
    )


def manifest_from_json(values: dict[str, Any], where: str) -> Manifest:
    """Check every field of a parsed manifest; `where` names it in messages.

    Raises:
        BundleError: another format, a newer version, unknown, missing or mistyped keys, or tensors that do not
            fit the classes and the preprocessing.
    """
    check_format(values, FORMAT, VERSION, where)
    if isinstance(values.get("model"), dict) and "gate" in values["model"]:
        raise BundleError(f"{where}: a development version wrote it; make it again from its run: samdeploy export RUN")
    fields = Fields(values, where, BundleError)
    fields.text("format"), fields.integer("version")
    model = fields.section("model")
    arch, options, classes = model.text("arch"), model.scalar_map("options"), model.texts("classes")
    if any("\0" in name for name in classes):
        model.report("a class's name holds U+0000, which C cannot show")
    tensors = tuple(_tensor(fields.section(key)) for key in ("input", "output"))
    preprocessing = preprocessing_from_fields(fields.section("preprocessing"))
    entries = values.get("files")
    if isinstance(entries, list) and len(entries) > MOST_FILES:
        raise BundleError(f"{where}: 'files' has {len(entries):,} entries, at most {MOST_FILES:,} are read")
    files = tuple(_file(section) for section in fields.sections("files"))
    data = _data(fields.section("data"))
    provenance = fields.text_map("provenance")
    measured = measured_from_fields(fields.section("measured")) if fields.has("measured") else None
    fields.close()
    twice = sorted(path for path, count in Counter(file.path for file in files).items() if count > 1)
    if twice:
        raise BundleError(f"{where}: 'files' names {', '.join(map(short, twice[:5]))} twice")
    if not classes:
        raise BundleError(f"{where}: model: no classes found, at least one expected")
    spec = model_spec(arch, options, classes, preprocessing)
    for key, found, expected in zip(("input", "output"), tensors, (spec.input, spec.output), strict=True):
        if found != expected:
            raise BundleError(
                f"{where}: {key} {short(_tensor_to_json(found))} found, the preprocessing and the {len(classes)} "
                f"classes ask for {_tensor_to_json(expected)}"
            )
    return Manifest(spec, files, data, provenance, measured)


def _tensor_to_json(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _file_to_json(file: BundleFile) -> dict[str, Any]:
    return {
        "role": file.role,
        "path": file.path,
        "sha256": file.sha256,
        "bytes": file.bytes,
        "backend": file.backend,
        "precision": file.precision,
        "built_for": dict(file.built_for),
    }


def _tensor(fields: Fields) -> TensorSpec:
    name, dtype, shape = fields.text("name"), fields.text("dtype"), fields.items("shape")
    if not all(isinstance(axis, str | int) and not isinstance(axis, bool) for axis in shape):
        fields.report(f"shape {short(shape)} found, numbers and names expected")
    return TensorSpec(name, dtype, tuple(shape))


def _file(fields: Fields) -> BundleFile:
    file = BundleFile(
        role=fields.text("role"),
        path=fields.text("path"),
        sha256=fields.text("sha256"),
        bytes=fields.integer("bytes"),
        backend=fields.text_or_none("backend"),
        precision=fields.text_or_none("precision"),
        built_for=fields.text_map("built_for"),
    )
    if fields.problems():
        return file
    if file.role not in ROLES:
        fields.report(f"role {short(file.role)} found, one of {', '.join(ROLES)} expected")
    if file.precision is not None and file.precision not in PRECISIONS:
        fields.report(f"precision {short(file.precision)} found, one of {', '.join(PRECISIONS)} expected")
    if len(file.sha256) != 64 or set(file.sha256) - set("0123456789abcdef"):
        fields.report(f"sha256 {short(file.sha256)} found, 64 lower-case hexadecimal digits expected")
    return file


def _data(fields: Fields) -> DataRecord:
    return DataRecord(
        name=fields.text("name"),
        options=fields.scalar_map("options"),
        val_fraction=fields.number("val_fraction"),
        split_seed=fields.integer("split_seed"),
        counts=fields.integer_map("counts"),
        fingerprints=fields.text_map("fingerprints"),
    )
