"""Mistakes that are found without the weights, and before torch is loaded, which takes seconds."""

from __future__ import annotations

from pathlib import Path

from samdeploy.bundle.path_kind import a, path_kind
from samdeploy.data.dataset import Dataset
from samdeploy.errors import InputError
from samdeploy.importing.class_names import class_names, read_class_names
from samdeploy.importing.images import open_images

_SUFFIXES = frozenset({".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".onnx"})
EXPECTED = "a file of weights, or an architecture such as timm:resnet50 expected"


def look_first(source: str, classes: Path | None, data: Path | None, *, trust_order: bool) -> Dataset | None:
    """What of `import`'s arguments can be refused at once; and the images, opened.

    Args:
        source, classes, data, trust_order: as in `ImportOptions`.

    Raises:
        InputError: no such file, or names of classes that fit neither one another nor the images.
        DatasetError: images are missing, or in two splits.
    """
    if not Path(source).is_file() and (wrong := wrong_source(source)):
        raise InputError(f"{source}: {wrong}")
    names = None if classes is None else read_class_names(classes)
    dataset = None if data is None else open_images(data)
    folders = () if dataset is None else dataset.classes
    if names is not None:
        class_names(len(names), [(f"--classes {classes}", names)], folders, trust_order=trust_order)
    elif source.lower().endswith(".onnx") and not folders:
        class_names(0, [], ())  # which says what to give
    return dataset


def wrong_source(source: str) -> str | None:
    """What `source` is that is no file, with the command that was meant; None where it may be an architecture."""
    kind = path_kind(source)
    if kind in ("bundle", "run", "run without a bundle"):
        return f"is {a(kind)}; to {'judge' if kind == 'bundle' else 'export'} it: samdeploy " + (
            f"eval {source}" if kind == "bundle" else f"export {source}"
        )
    if kind != "nothing":
        return f"is {a(kind)}; {EXPECTED}"
    is_path = ":" not in source and ("/" in source or Path(source).suffix.lower() in _SUFFIXES)
    return f"no such file; {EXPECTED}" if is_path else None
