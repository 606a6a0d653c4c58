"""A run and its bundle: which of them someone means, and whether they still belong together."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from samdeploy.bundle import Bundle
from samdeploy.bundle.names import BUNDLE_FOLDER, MANIFEST, RUN_FILE, WEIGHTS_FILE
from samdeploy.bundle.path_kind import has_image_suffix, not_a_bundle, path_kind
from samdeploy.errors import BundleError, InputError
from samdeploy.runs.record import open_run


def bundle_of(path: Path) -> Path:
    """The bundle that someone means who names `path`: the run's, where `path` is a run that has one; else `path`."""
    bundle = path / BUNDLE_FOLDER
    return bundle if not (path / MANIFEST).exists() and (bundle / MANIFEST).exists() else path


def run_around(bundle: Bundle) -> Path:
    """The folder of the run that a bundle lies in, if it lies in one; of a run that was never exported, the run."""
    root = bundle.root.resolve()
    return root if (root / RUN_FILE).is_file() else root.parent


def is_bundle_or_run(path: Path) -> bool:
    """Whether `path` is meant as a bundle; a run without one is, too: opening it says what is missing."""
    # os.path, because a Path raises for a name that no file can have.
    return any(os.path.isfile(path / name) for name in (MANIFEST, RUN_FILE))  # noqa: PTH113


def bundle_and_images(paths: Sequence[Path], runs_root: Path) -> tuple[Path, Sequence[Path]]:
    """The bundle that the first path names, else the newest below `runs_root`; and the paths of the images.

    Raises:
        InputError: the first path can only be meant as a bundle, and is none; or there is no bundle.
    """
    if not paths:
        return latest_bundle(runs_root), paths
    first = paths[0]
    if is_bundle_or_run(first):
        return bundle_of(first), paths[1:]
    if os.path.isdir(first):  # noqa: PTH112 - a Path raises for a name that no file can have
        if path_kind(first) != "folder of images" and (len(paths) > 1 or _has_bundle_files(first)):
            raise InputError(f"bundle {first}: {not_a_bundle(first)}")
    elif not has_image_suffix(first):
        if not os.path.exists(first):  # noqa: PTH110 - likewise
            raise InputError(f"{first}: no such bundle, image or folder")
        if first.suffix in (".onnx", ".safetensors", ".json", ".toml"):
            raise InputError(f"{first}: a file found, an image or the folder of a bundle expected")
    if bundle := next((path for path in paths[1:] if is_bundle_or_run(path)), None):
        raise InputError(f"{bundle}: is a bundle or run; name it first, before the images")
    return latest_bundle(runs_root), paths


def _has_bundle_files(folder: Path) -> bool:
    """Whether files lie in `folder` that a bundle or a run has."""
    return any(path.name in ("golden", WEIGHTS_FILE) or path.suffix == ".onnx" for path in folder.iterdir())


def run_name(bundle: Bundle) -> str:
    """What to call a bundle: as its run, or by its own folder."""
    root = bundle.root.resolve()
    return root.parent.name if root.name == BUNDLE_FOLDER and root.parent.name else root.name


def address_name(root: Path) -> str:
    """What a bundle is called in an address: as its run, with nothing but letters, digits and . _ - of ASCII."""
    root = root.resolve()
    name = root.parent.name if root.name == BUNDLE_FOLDER else root.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "model"


def unlike_its_run(bundle: Bundle) -> str:
    """How a bundle departs from the run around it, with the cure; "" if it does not, or if there is no run.

    The run was trained on since, or the manifest names other classes or another preprocessing than were trained: no
    hash shows that, as the manifest holds the hashes itself.
    """
    root = bundle.root if bundle.root.name not in ("", "..") else bundle.root.resolve()
    run, file = root.parent, bundle.find("weights")
    if file is None or root.name != BUNDLE_FOLDER or not (run / RUN_FILE).is_file():
        return ""
    try:
        with (run / WEIGHTS_FILE).open("rb") as weights:
            digest = hashlib.file_digest(weights, "sha256").hexdigest()
    except OSError:
        return ""
    if digest != file.sha256:
        return f"the run {run} holds other weights than this bundle, which was exported before; samdeploy export {run}"
    try:
        record = open_run(run)
    except BundleError:  # of another version, or damaged: its own commands say so
        return ""
    spec = bundle.spec
    names = ("classes", "preprocessing", "arch", "options", "license")
    changed = [name for name in names if getattr(spec, name) != getattr(record, name)]
    if not changed:
        return ""
    what = " and ".join(changed)
    if changed[0] == "classes" and len(spec.classes) == len(record.classes):
        pairs = zip(spec.classes, record.classes, strict=True)
        index, (found, expected) = next((index, pair) for index, pair in enumerate(pairs) if pair[0] != pair[1])
        what += f" (class {index} is {found!r}, {expected!r} was trained)"
    return f"its manifest was changed: other {what} than in the run {run}; samdeploy export {run}"


def latest_bundle(runs_root: Path) -> Path:
    """The newest bundle of all runs below `runs_root`.

    Raises:
        InputError: there is none.
    """
    found = [path.parent for path in runs_root.glob(f"*/{BUNDLE_FOLDER}/{MANIFEST}")]
    if not found:
        raise InputError(f"no bundle below {runs_root}/; name a bundle, give --runs DIR, or make one: samdeploy export")
    return max(found, key=lambda path: ((path / MANIFEST).stat().st_mtime_ns, path.parent.name))
