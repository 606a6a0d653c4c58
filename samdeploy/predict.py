"""`samdeploy predict`: pictures and folders of pictures, one after another; a broken one does not stop the others."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from samdeploy.classifier import Classifier
from samdeploy.errors import ImageError, InputError
from samdeploy.manifest import MANIFEST
from samdeploy.named import Unread, no_pictures, shown
from samdeploy.preprocess import image_files
from samdeploy.ranking import Prediction
from samdeploy.run import RUN_FILE
from samdeploy.run_bundle import bundle_of, latest_bundle

# Pictures per call of the engine.
GROUP = 32


def predict_paths(
    paths: Sequence[Path],
    runs_root: Path,
    *,
    top: int,
    backend: str,
    precision: str | None,
    device: str,
    as_json: bool,
) -> bool:
    """Print the classes of every picture; says whether all could be read.

    Args:
        paths: pictures and folders; the first may be a bundle, else the newest below `runs_root` is taken.
        as_json: one object per line with `image` and either `label`, `probability`, `top` or `error`.

    Raises:
        InputError: no picture was named, or a first path that is nothing and was meant as the bundle.
        ImageError: not one could be read.
        BundleError, BackendUnavailable: the bundle cannot be opened.
    """
    # A run without a bundle is opened as one too: the error says what is missing.
    is_bundle = any((paths[0] / name).is_file() for name in (MANIFEST, RUN_FILE))
    if len(paths) > 1 and not paths[0].exists() and not paths[0].suffix:
        raise InputError(f"{paths[0]}: no such bundle, picture or folder")
    bundle = bundle_of(paths[0]) if is_bundle else latest_bundle(runs_root)
    images, empty = _expand(paths[1:] if is_bundle else paths)
    unread = Unread()
    with Classifier.open(bundle, backend, device=device, precision=precision) as classifier:
        session = classifier.session
        print(f"{bundle}: {session.backend}, {session.precision}, {session.device}", file=sys.stderr)
        answers = classifier.stream(images, batch=GROUP, top=top, on_error="yield")
        for path, found in zip(images, answers, strict=True):
            answer = empty.get(path, found)
            if isinstance(answer, ImageError):
                unread.add(answer)
            if as_json:
                print(json.dumps(_to_json(path, answer), ensure_ascii=False))
            elif isinstance(answer, Prediction):
                print(_line(path, answer))
    return unread.none_of(len(images))


def _expand(paths: Sequence[Path]) -> tuple[list[Path], dict[Path, ImageError]]:
    """The pictures, and of folders without any, which stand among them, what to say."""
    if not paths:
        raise InputError("no picture named; expected: samdeploy predict [BUNDLE] IMAGE...")
    images: list[Path] = []
    empty: dict[Path, ImageError] = {}
    for path in paths:
        found = image_files(path) if path.is_dir() else [path]
        if not found:
            empty[path] = no_pictures(path)
        images += found or [path]
    if len(empty) == len(images):  # known before an engine is opened
        raise ImageError("; ".join(map(str, empty.values())))
    return images, empty


def _line(path: Path, prediction: Prediction) -> str:
    return f"{shown(path)}: " + ", ".join(f"{label} {100 * probability:.2f} %" for label, probability in prediction.top)


def _to_json(path: Path, answer: Prediction | ImageError) -> dict[str, object]:
    # The bytes of the name, whatever the locale makes of them; a name that is no UTF-8 would be no valid JSON.
    name = os.fsencode(path).decode("utf-8", "replace")
    if isinstance(answer, ImageError):
        error = str(answer).replace(str(path), name).encode("utf-8", "surrogateescape")
        return {"image": name, "error": error.decode("utf-8", "replace")}
    return {"image": name, **answer.to_json()}
