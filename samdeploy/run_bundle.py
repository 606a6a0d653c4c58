"""A run and its bundle: which of them someone means, and whether they still belong together."""

from __future__ import annotations

import hashlib
from pathlib import Path

from samdeploy.bundle import Bundle
from samdeploy.errors import BundleError, InputError
from samdeploy.manifest import MANIFEST
from samdeploy.run import BUNDLE_FOLDER, RUN_FILE, WEIGHTS_FILE, open_run


def what_a_run_lacks(path: Path) -> str:
    """Where `path` is a run and no bundle: what to name instead, or to do; "" where it is no run."""
    if (path / BUNDLE_FOLDER / MANIFEST).exists():
        return f"is a run; its bundle is {path / BUNDLE_FOLDER}"
    if (path / RUN_FILE).exists():
        return f"is a run that has no bundle yet; make it: samdeploy export {path}"
    return ""


def bundle_of(path: Path) -> Path:
    """The bundle that someone means who names `path`: the run's, where `path` is a run that has one; else `path`."""
    bundle = path / BUNDLE_FOLDER
    return bundle if not (path / MANIFEST).exists() and (bundle / MANIFEST).exists() else path


def unlike_its_run(bundle: Bundle) -> str:
    """How a bundle departs from the run around it, with the cure; "" if it does not, or if there is no run.

    The run was trained on since, or the manifest names other classes or another preprocessing than were trained: no
    hash tells of that, as the manifest holds the hashes itself.
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
    here = {"classes": spec.classes, "preprocessing": spec.preprocessing, "arch": spec.arch, "gate": spec.gate}
    changed = [name for name, value in here.items() if getattr(record, name) != value]
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
        raise InputError(f"no bundle below {runs_root}/; make one first: samdeploy export")
    return max(found, key=lambda path: ((path / MANIFEST).stat().st_mtime_ns, path.parent.name))
