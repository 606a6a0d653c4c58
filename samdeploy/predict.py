"""`samdeploy predict`: images and folders of images, one after another; a broken one does not stop the others."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from samdeploy.backends import availability
from samdeploy.classifier import Classifier
from samdeploy.errors import ImageError, InputError
from samdeploy.images.unreadable import Unread, named_images
from samdeploy.ranking import Prediction
from samdeploy.runs.locate import bundle_and_images
from samdeploy.terminal import printable

# Images per call of the engine.
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
    """Print the classes of every image; returns whether all could be read.

    Args:
        paths: images and folders; the first may be a bundle, else the newest below `runs_root` is taken.
        as_json: one object per line with `image` and either `label`, `probability`, `rejected`, `top` or `error`.

    Raises:
        InputError: no image was named, or the first path was meant as a bundle and is none.
        ImageError: not one could be read.
        BundleError, BackendUnavailable: the bundle cannot be opened.
    """
    bundle, images = bundle_and_images(paths, runs_root)
    named = named_images(images)
    if not named:
        raise InputError("no image named; expected: samdeploy predict [BUNDLE] IMAGE...")
    unread = Unread()
    with Classifier.open(bundle, backend, device=device, precision=precision) as classifier:
        session = classifier.session
        for name, reason in classifier.passed_over.items():
            if availability(name) is None:  # not worth a line where the runtime, or its GPU, is not there at all
                print(f"not run with {name}: {printable(reason)}", file=sys.stderr)
        print(f"{bundle}: {session.backend}, {session.precision}, {session.device}", file=sys.stderr)
        readable = [image.path for image in named if image.problem is None]
        answers = classifier.stream(readable, batch=GROUP, top=top, on_error="yield")
        for image in named:
            answer = image.problem or next(answers)
            if isinstance(answer, ImageError):
                unread.add(answer)
            if as_json:
                print(json.dumps(_to_json(image.path, answer), ensure_ascii=False))
            elif isinstance(answer, Prediction):
                print(_line(image.path, answer))
    return unread.none_of(len(named))


def _line(path: Path, prediction: Prediction) -> str:
    shares = ", ".join(f"{printable(label)} {100 * probability:.2f} %" for label, probability in prediction.top)
    return f"{printable(path)}: {'rejected: ' if prediction.rejected else ''}{shares}"


def _to_json(path: Path, answer: Prediction | ImageError) -> dict[str, object]:
    # The bytes of the name, whatever the locale makes of them; a name that is no UTF-8 would be no valid JSON.
    name = os.fsencode(path).decode("utf-8", "replace")
    if isinstance(answer, ImageError):
        error = str(answer).replace(str(path), name).encode("utf-8", "surrogateescape")
        return {"image": name, "error": error.decode("utf-8", "replace")}
    return {"image": name, **answer.to_json()}
