"""Write a bundle as a model repository.

::

    REPO/
        NAME/            the engine: image uint8 [N, H, W, 3] -> logits
        NAME_decode/     encoded image -> image, by the bundle's own integers; Triton's Python backend
        NAME_images/     the two as an ensemble: encoded image -> logits
        NAME_python/     encoded image -> logits, classes, probabilities; Triton's Python backend and samdeploy alone

Those with Triton's Python backend need `samdeploy` (and, for the last, its runtime) in the environment of that backend.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from samdeploy.bundle import Bundle
from samdeploy.bundle.manifest import BundleFile
from samdeploy.bundle.names import MANIFEST
from samdeploy.errors import InputError
from samdeploy.export.triton.config import (
    Value,
    Word,
    batching,
    encoded,
    image,
    logits,
    on,
    text_of,
)
from samdeploy.export.triton.place import CONFIG, LABELS, check_repository, model_names, replace, seal
from samdeploy.files import made_folder

# Names of models: what a client puts into an address.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# Triton's backend and the file that it looks for, by ours.
_BACKENDS = {
    "tensorrt": ("tensorrt", "model.plan", "KIND_GPU"),
    "onnxruntime": ("onnxruntime", "model.onnx", "KIND_AUTO"),
    "openvino": ("openvino", "model.onnx", "KIND_CPU"),
}
_BATCH = 16
_DELAY_US = 500
_WARM_UP = "golden"
_MODEL_PY = "from samdeploy.serve.triton import {} as TritonPythonModel\n"


def write_repository(bundle: Bundle, repository: Path, name: str, engine: str, precision: str | None) -> list[str]:
    """Write the four models of a bundle into a repository, beside what else is there; returns their names.

    Args:
        repository: made where it is missing; an earlier export of these names is replaced.
        name: of the first model, and the others' beginning.
        engine: "trt", "onnxruntime", "openvino"; "all": TensorRT's where the bundle has one, else ONNX Runtime's.
        precision: of the engine; None: the first that the bundle has.

    Raises:
        InputError: the bundle has no such engine, Triton runs none such, or the name is none for an address; or as
            `check_repository` raises.
        BundleError: a file of the bundle is not as its manifest says.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"--triton: model name {name!r} found; letters, digits and . _ - inside expected")
    backend, file = _engine(bundle, engine, precision)
    check_repository(repository, name, bundle.root)
    models = dict(zip(model_names(name), (_write_engine, _write_decode, _write_ensemble, _write_python), strict=True))
    with (
        made_folder(repository),
        tempfile.TemporaryDirectory(prefix=".samdeploy-", dir=repository) as place,
    ):
        for model, write in models.items():
            (Path(place) / model).mkdir()
            write(Path(place) / model, model, name, bundle, file, backend)
            seal(Path(place) / model)
        replace(list(models), Path(place), repository)  # all are whole: now they take their places
    return list(models)


def _engine(bundle: Bundle, engine: str, precision: str | None) -> tuple[str, BundleFile]:
    """The backend, and what it runs."""
    plans = [
        file
        for file in bundle.select("engine", backend="tensorrt", precision=precision)
        if file.built_for.get("runtime") == "tensorrt"
    ]
    graphs = bundle.select("graph", precision=precision)
    if engine in ("trt", "all") and plans:
        return "tensorrt", plans[0]
    if engine in ("onnxruntime", "openvino", "all") and graphs:
        return ("openvino" if engine == "openvino" else "onnxruntime"), graphs[0]
    if engine == "trt-rtx":
        raise InputError("--triton: Triton runs no engines of TensorRT-RTX; --engine trt, onnxruntime or openvino")
    has = [f"onnxruntime and openvino in {file.precision}" for file in bundle.select("graph")]
    has += [f"trt in {file.precision}" for file in plans]
    wanted = f"{engine} in {precision}" if precision else engine
    raise InputError(f"--triton: the bundle has nothing for {wanted}; it has {', '.join(has)}")


def _write_engine(folder: Path, model: str, name: str, bundle: Bundle, engine: BundleFile, backend: str) -> None:
    spec, (images, _) = bundle.spec, bundle.golden()
    triton, filename, kind = _BACKENDS[backend]
    most = engine.batches[1] if engine.batches else _BATCH
    warm = {"key": spec.input.name, "value": {**_without_name(image(spec)), "input_data_file": _WARM_UP}}
    _config(
        folder,
        f"built for {', '.join(f'{key} {value}' for key, value in engine.built_for.items())}"
        if engine.built_for
        else f"{engine.precision} graph",
        {
            "name": model,
            "backend": triton,
            "default_model_filename": filename,
            **batching(most, _DELAY_US),
            "input": [image(spec)],
            "output": [logits(spec, LABELS)],
            **on(kind),
            "model_warmup": [{"name": "a golden image", "batch_size": 1, "inputs": warm}],
        },
    )
    _write(folder / LABELS, "".join(f"{' '.join(label.splitlines())}\n" for label in spec.classes).encode())
    _write(folder / "warmup" / _WARM_UP, images[0].tobytes())
    _write(folder / "1" / filename, bundle.read(engine))


def _write_decode(folder: Path, model: str, name: str, bundle: Bundle, engine: BundleFile, backend: str) -> None:
    spec = bundle.spec
    _config(
        folder,
        "encoded images to what the network takes",
        {
            "name": model,
            "backend": "python",
            **batching(_BATCH, 0),
            "input": [encoded()],
            "output": [image(spec)],
            **on("KIND_CPU", 2),
            **_parameters(preprocessing=json.dumps(dataclasses.asdict(spec.preprocessing))),
        },
    )
    _write(folder / "1" / "model.py", _MODEL_PY.format("Decode").encode())


def _write_ensemble(folder: Path, model: str, name: str, bundle: Bundle, engine: BundleFile, backend: str) -> None:
    spec = bundle.spec
    names = spec.input.name, spec.output.name
    _config(
        folder,
        f"{name}_decode, then {name}",
        {
            "name": model,
            "platform": "ensemble",
            "max_batch_size": min(_BATCH, engine.batches[1] if engine.batches else _BATCH),
            "input": [encoded()],
            "output": [logits(spec)],
            "ensemble_scheduling": {
                "step": [
                    _step(f"{name}_decode", {"encoded": "encoded"}, {names[0]: "pixels"}),
                    _step(name, {names[0]: "pixels"}, {names[1]: names[1]}),
                ]
            },
        },
    )
    (folder / "1").mkdir()
    _write(folder / "1" / ".keep", b"")  # git and object stores know no empty folders


def _write_python(folder: Path, model: str, name: str, bundle: Bundle, engine: BundleFile, backend: str) -> None:
    spec = bundle.spec
    _config(
        folder,
        "encoded images to classes, by samdeploy; the bundle lies beside model.py",
        {
            "name": model,
            "backend": "python",
            **batching(_BATCH, _DELAY_US),
            "input": [encoded()],
            "output": [
                logits(spec),
                {"name": "classes", "data_type": Word("TYPE_STRING"), "dims": [1]},
                {"name": "probabilities", "data_type": Word("TYPE_FP32"), "dims": [len(spec.classes)]},
            ],
            **on("KIND_CPU"),
            **_parameters(backend=backend, precision=engine.precision or ""),
        },
    )
    _write(folder / "1" / "model.py", _MODEL_PY.format("Predict").encode())
    copy = folder / "1" / "bundle"
    _write(copy / MANIFEST, (bundle.root / MANIFEST).read_bytes())
    for file in bundle.files:
        _write(copy / file.path, bundle.read(file))


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> dict[str, Value]:
    return {
        "model_name": model,
        "model_version": -1,
        "input_map": [{"key": key, "value": value} for key, value in inputs.items()],
        "output_map": [{"key": key, "value": value} for key, value in outputs.items()],
    }


def _parameters(**values: str) -> dict[str, Value]:
    return {"parameters": [{"key": key, "value": {"string_value": value}} for key, value in values.items()]}


def _without_name(tensor: Mapping[str, Value]) -> dict[str, Value]:
    return {key: value for key, value in tensor.items() if key != "name"}


def _config(folder: Path, comment: str, message: Mapping[str, Value]) -> None:
    _write(folder / CONFIG, f"# {' '.join(comment.split())}\n{text_of(message)}".encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
